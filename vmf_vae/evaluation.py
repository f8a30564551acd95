r"""How good a trained model is: likelihood, active units, neighbours.

The marginal likelihood by importance sampling (Burda et al. 2016, eq. (8)), with the
posterior as the proposal:

.. math:: \log \hat p_S(x) = \log \frac1S \sum_{s=1}^S
    \frac{p(x \mid z_s) p(z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(\cdot \mid x).

Its mean grows with S, from the ELBO at S = 1 to :math:`\log p(x)`.

>>> log_p = importance_log_likelihood(model, params, x, key, num_samples=500)
>>> num_active = active_units(model.center(params, x))
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from vmf_vae.elementary import vary_like, wide_dtype

_SAMPLES_AT_ONCE = 10


def importance_log_likelihood(
    model: Any,
    params: Any,
    x: jax.Array,
    key: jax.Array,
    *,
    num_samples: int = 500,
) -> jax.Array:
    r"""Estimates :math:`\log p(x)` of each example; a lower bound on average.

    Ten draws at a time are in memory, whatever `num_samples` is.

    Args:
        model: has `encode`, `log_likelihood` and `latent`, as the models here.
        params: of the model; of `BatchNormVAE` those of `freeze_statistics`.
        x: examples [batch, ...].
        key: typed PRNG key.
        num_samples: S, at least 1.

    Returns:
        [batch], float32 or wider.

    Raises:
        ValueError: if `num_samples` is less than 1.
        TypeError: if `num_samples` is no integer.

    References:
        Burda et al., *Importance Weighted Autoencoders*, 2016, eq. (8).
        https://arxiv.org/abs/1509.00519
    """
    is_bool = isinstance(num_samples, bool | np.bool)
    if is_bool or not hasattr(num_samples, "__index__"):
        raise TypeError(f"num_samples must be an integer, got {num_samples!r}.")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples!r}.")
    at_once = min(_SAMPLES_AT_ONCE, num_samples)
    num_rounds = -(-num_samples // at_once)
    q = model.encode(params, x)

    def log_sum_of_round(i):
        z = q.sample(jax.random.fold_in(key, i), (at_once,))
        log_likelihood = jax.vmap(functools.partial(model.log_likelihood, params, x))(z)
        log_weights = log_likelihood + model.latent.prior_log_prob(z) - q.log_prob(z)
        # The last round may be more than is asked for.
        is_kept = i * at_once + jnp.arange(at_once) < num_samples
        log_weights = jnp.where(is_kept[:, None], log_weights, -jnp.inf)
        return jax.nn.logsumexp(log_weights, axis=0)

    def body(log_sum, i):
        return jnp.logaddexp(log_sum, log_sum_of_round(i)), None

    dtype = jax.eval_shape(log_sum_of_round, 0).dtype
    start = jnp.full(len(x), -jnp.inf, wide_dtype(dtype))
    start = vary_like(start, *jax.tree.leaves((params, x, key)))
    log_sum, _ = jax.lax.scan(body, start, jnp.arange(num_rounds))
    return log_sum - math.log(num_samples)


def row_figures(
    model: Any, params: Any, x: jax.Array, key: jax.Array, *, num_samples: int = 0
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Figures of each example, and where its posterior lies.

    Args:
        model: as for `importance_log_likelihood`.
        params: of the model.
        x: examples [batch, ...].
        key: typed PRNG key.
        num_samples: of the importance sampling; 0 leaves the log-likelihood out.

    Returns:
        `({"loss", "reconstruction", "kl"}, means)`: arrays [batch], with
        `log_likelihood` if asked for, and the posterior means [batch, d].
    """
    elbo, parts = model.elbo(params, x, key)
    figures = {"loss": -elbo, **parts}
    if num_samples:
        figures["log_likelihood"] = importance_log_likelihood(
            model, params, x, key, num_samples=num_samples
        )
    return figures, model.encode(params, x).mean()


def active_units(
    centers: ArrayLike, *, threshold: float = 0.01, rotated: bool = False
) -> int:
    r"""Counts the directions of the latent space that tell examples apart.

    .. math:: \#\{j : \mathrm{Var}_x(\mathbb{E}_q z_j) > \text{threshold}\}.

    Args:
        centers: posterior means of many examples, [n, d]. On the sphere they are
            :math:`A_d(\kappa) \mu`, inside the ball.
        threshold: of the variance, .01 in the paper.
        rotated: count eigenvalues of the covariance instead of variances of
            coordinates. The coordinates of a sphere have no meaning of their own.

    Returns:
        Number between 0 and d.

    Raises:
        ValueError: if `centers` is not a matrix.

    References:
        Burda et al., *Importance Weighted Autoencoders*, 2016, section 5.2.
        https://arxiv.org/abs/1509.00519
    """
    points = np.asarray(centers, np.float64)
    if points.ndim != 2:
        raise ValueError(f"centers must be [n, d], got the shape {points.shape}.")
    points = points - points.mean(axis=0)
    covariance = points.T @ points / len(points)
    values = np.linalg.eigvalsh(covariance) if rotated else np.diag(covariance)
    return int(np.sum(values > threshold))


def neighbor_accuracy(
    train_points: ArrayLike,
    train_labels: ArrayLike,
    test_points: ArrayLike,
    test_labels: ArrayLike,
    *,
    num_neighbors: int = 5,
) -> float:
    """Accuracy of the vote of the nearest labelled points.

    Distances are Euclidean; among unit vectors they order points as angles do.

    Args:
        train_points: [n, d].
        train_labels: classes from 0, [n].
        test_points: [m, d].
        test_labels: [m].
        num_neighbors: how many vote, from 1 to n; a tie goes to the lowest class.

    Returns:
        Share of the test points with the right vote.

    Raises:
        ValueError: if `num_neighbors` is out of range.

    References:
        Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018, section 5.3.
        https://arxiv.org/abs/1804.00891
    """
    train, test = (np.asarray(p, np.float64) for p in (train_points, test_points))
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)
    if not 1 <= num_neighbors <= len(train):
        raise ValueError(
            f"num_neighbors must be in 1..{len(train)}, got {num_neighbors!r}."
        )
    squares = np.sum(train**2, axis=1)[None] - 2 * test @ train.T
    nearest = labels[np.argsort(squares, axis=1, kind="stable")[:, :num_neighbors]]
    votes = np.stack([(nearest == c).sum(axis=1) for c in range(labels.max() + 1)])
    return float(np.mean(votes.argmax(axis=0) == truth))
