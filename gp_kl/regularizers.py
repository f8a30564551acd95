r"""R-Drop on the scores of spans.

Liang et al. (2021), eq. (4), with the divergence of sigmoids of the essay
https://kexue.fm/archives/9039 where they have the Kullback-Leibler divergence of two
softmax outputs: every sentence goes through the network twice, with different dropout,
and the two arrays of scores have to fit the labels and each other,

.. math:: \frac{1}{B} \sum_b \Big( \frac{1}{m} \sum_a (c_{1ba} + c_{2ba})
          + \frac{\alpha}{2} D(s_{1b}, s_{2b}) \Big),

with c the multi-label cross-entropy of one type. What differs: the essay states neither
weight nor reduction. Here :math:`\alpha / 2` is R-Drop's. D is symmetric; adding it in
both orders, as code in use does, doubles the weight. Virtual adversarial training on
span scores is `igr.virtual_adversarial_loss` with `divergence=span_divergence`.
Example, with `scores_fn(params, x, key)` a network with dropout and a head::

    def loss_fn(params, x, labels, key):
        keys = jax.random.split(key)
        scores_1, scores_2 = (scores_fn(params, x, key) for key in keys)
        return span_rdrop_loss(scores_1, scores_2, labels, alpha=0.1)
"""

import jax
import jax.numpy as jnp
import numpy as np

from expkit.arguments import is_concrete, require_scalar, require_shape
from gp_kl.divergence import span_divergence
from gp_kl.losses import multilabel_cross_entropy


def span_rdrop_loss(
    scores_1: jax.typing.ArrayLike,
    scores_2: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    alpha: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
    reduction: str = "sum",
) -> jax.Array:
    r"""Cross-entropy of two passes plus the divergence between their scores.

    .. math:: \frac{1}{B} \sum_b \Big( \frac{1}{m} \sum_a (c_{1ba} + c_{2ba})
              + \frac{\alpha}{2} D(s_{1b}, s_{2b}) \Big).

    Where the scores are equal it is twice the loss of one pass.

    Args:
        scores_1: of the first pass, `[batch, types, n, n]` as the heads give them:
            cells that are -inf in both passes do not count.
        scores_2: of the second pass, the same shape. Both get a gradient.
        labels: the same shape; booleans, 0 and 1, or probabilities.
        alpha: :math:`\alpha`, at least 0, may be traced.
        where: boolean, broadcasts to the shape of the scores; the cells that count.
        reduction: of the divergence, `"sum"` or `"mean"` over the cells; see
            `span_divergence` for what it does to :math:`\alpha`.

    Returns:
        Scalar, float32 or wider.

    Raises:
        TypeError: if `where` is not boolean, or `alpha` no real number.
        ValueError: if the shapes do not fit, `reduction` is unknown, or a concrete
            `alpha` is negative or label out of range.

    References:
        Liang et al., *R-Drop: Regularized Dropout for Neural Networks*, 2021, eq. (4).
        https://arxiv.org/abs/2106.14448
        Su, *What should the KL divergence of GlobalPointer be?*, 2022.
        https://kexue.fm/archives/9039
    """
    require_scalar("alpha", alpha, "finite and at least 0", lambda x: x >= 0.0)
    first, second = jnp.asarray(scores_1), jnp.asarray(scores_2)
    if first.ndim != 4 or 0 in first.shape[:2]:
        raise ValueError(f"scores_1 must be [batch, types, n, n], got {first.shape}.")
    require_shape("scores_2", second, first.shape)
    entropies = [
        multilabel_cross_entropy(scores, labels, axis=(-2, -1), where=where)
        for scores in (first, second)
    ]
    loss = jnp.mean(entropies[0] + entropies[1])
    if is_concrete(alpha) and float(np.asarray(alpha)) == 0.0:
        return loss  # also where the divergence is infinite
    divergence = jnp.mean(
        span_divergence(first, second, where=where, reduction=reduction)
    )
    divergence = jnp.where((alpha == 0.0) & jnp.isinf(divergence), 0.0, divergence)
    return loss + 0.5 * jnp.asarray(alpha, loss.dtype) * divergence
