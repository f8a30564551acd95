r"""The von Mises-Fisher distribution as a pytree, and its maximum likelihood fit.

A batch of distributions is one object with batched fields, so it passes through `jit`,
`vmap` and `grad` like any tree of arrays::

    >>> vmf = VonMisesFisher(jnp.array([0.0, 0.0, 1.0]), 10.0)
    >>> x = vmf.sample(jax.random.key(0), (1000,))
    >>> fit(x).concentration  # about 10
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae import density, sampler
from vmf_vae.arguments import (
    as_float,
    concrete_values,
    order_of,
    require_concrete,
    require_directions,
    require_points,
    where_valid,
)
from vmf_vae.bessel import bessel_ratio
from vmf_vae.directional import Directional
from vmf_vae.elementary import wide_dtype
from vmf_vae.expansion import ratio_over_x, ratio_slope
from vmf_vae.inverse import inverse_ratio


@jax.tree_util.register_pytree_with_keys_class
class VonMisesFisher(Directional):
    r"""Law on the unit sphere with density :math:`C_d(\kappa) e^{\kappa \mu^\top x}`.

    Attributes:
        mean_direction: :math:`\mu`, [..., d], unit vectors.
        concentration: :math:`\kappa`, [...], at least 0; 0 is the uniform law.
    """

    mean_direction: jax.Array
    concentration: jax.Array

    def sample(self, key: jax.Array, shape: int | Sequence[int] = ()) -> jax.Array:
        """Independent draws, differentiable in both fields; see `sample_vmf`.

        Args:
            key: typed PRNG key.
            shape: of the draws from each distribution; a number is one axis.

        Returns:
            [*shape, *batch, d], unit vectors.
        """
        return sampler.sample_vmf(key, self.mean_direction, self.concentration, shape)

    def log_prob(self, x: jax.typing.ArrayLike) -> jax.Array:
        r"""Log density with respect to the surface measure.

        .. math:: \log C_d(\kappa) + \kappa \mu^\top x.

        Args:
            x: [..., d], unit vectors (not checked).

        Returns:
            [...], the leading shapes of `x` and the batch broadcast; float32 or wider.

        Raises:
            ValueError: if `x` has another last axis.
        """
        x = require_points(x, self.dim)
        fields = (self.mean_direction, self.concentration, x)
        wide = wide_dtype(jnp.result_type(*fields))
        return density.log_density(*(f.astype(wide) for f in fields))

    def entropy(self) -> jax.Array:
        """Differential entropy in nats, see `density.entropy`.

        Returns:
            [*batch].
        """
        return self._spread(density.entropy(self.dim, self.concentration))

    def kl_to_uniform(self) -> jax.Array:
        """Divergence from the uniform law in nats, see `kl_to_uniform`.

        Returns:
            [*batch].
        """
        return self._spread(density.kl_to_uniform(self.dim, self.concentration))

    def mean(self) -> jax.Array:
        r"""The mean, :math:`A_d(\kappa) \mu`, inside the sphere.

        Returns:
            [*batch, d].
        """
        length = self._spread(bessel_ratio(self.dim, self.concentration))
        return length[..., None] * self.mode()

    def covariance(self) -> jax.Array:
        r"""Covariance matrix.

        .. math:: \frac{A_d}{\kappa} (I - \mu\mu^\top) + A_d' \mu\mu^\top.

        Returns:
            [*batch, d, d]; I / d at concentration 0.
        """
        order = order_of(self.dim)
        dtype = jnp.result_type(self.mean_direction, self.concentration)
        wide = wide_dtype(dtype)
        kappa = where_valid(self.concentration.astype(wide))
        across, along = (f(order, kappa) for f in (ratio_over_x, ratio_slope))
        mu = self.mean_direction.astype(wide)
        return self._matrix(mu, across, along).astype(dtype)

    def __repr__(self) -> str:
        return (
            f"VonMisesFisher(mean_direction={self.mean_direction!r}, "
            f"concentration={self.concentration!r})"
        )


def fit(
    x: jax.typing.ArrayLike, *, weights: jax.typing.ArrayLike | None = None
) -> VonMisesFisher:
    r"""Maximum likelihood.

    .. math:: \hat\mu = \bar x / |\bar x|, \qquad A_d(\hat\kappa) = |\bar x|.

    :math:`1 - |\bar x|` is the mean of :math:`|x_i - \hat\mu|^2 / 2`, which has the
    digits that a difference from 1 loses: in float32 concentrations of 100,000 come out
    right. Points that are all the same have no maximum: the concentration is inf (or,
    of rounded points, very large). Where they cancel, the concentration is 0 and the
    direction is the first axis. At a concentration far below
    :math:`\sqrt{d/n}` times :math:`\sqrt d` the estimate is dominated by the length of
    a random walk, as maximum likelihood is.

    Args:
        x: [n, d], unit vectors, n at least 1.
        weights: [n], at least 0 and not all 0, of which only the ratios count; None
            weighs all the same. Traced ones that are not give nan in both fields.

    Returns:
        One distribution, in float32 or wider.

    Raises:
        ValueError: if `x` is not [n, d] with n >= 1, concrete and not of unit norm, or
            `weights` is not [n], or concrete and negative, not finite, or of sum 0.
        TypeError: if an argument is complex.

    References:
        Mardia & Jupp, *Directional Statistics*, 2000, section 10.3.1.
        https://doi.org/10.1002/9780470316979
    """
    x = require_directions("x", x)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must be [n, d] with n >= 1, got shape {x.shape}.")
    x = x.astype(wide_dtype(x.dtype))
    if weights is None:
        w = jnp.full(len(x), 1.0 / len(x), x.dtype)
    else:
        w = _shares(weights, x)
    mean = jnp.sum(w[:, None] * x, axis=0)
    # What is less than this is rounding of the points, and its square may be 0.
    is_zero = jnp.max(jnp.abs(mean)) < jnp.finfo(mean.dtype).eps ** 2
    first_axis = jnp.zeros_like(mean).at[0].set(1.0)
    safe = jnp.where(is_zero, first_axis, mean)
    length = jnp.linalg.norm(safe)
    direction = safe / length
    complement = jnp.where(is_zero, 1.0, _one_minus_length(w, x, direction))
    # Rounded points may lie a little outside the sphere.
    length = jnp.where(is_zero, 0.0, jnp.minimum(length, 1.0))
    kappa = inverse_ratio(order_of(x.shape[-1]), length, complement)
    return VonMisesFisher(direction, kappa)


def _shares(weights, x):
    """Weights divided by their sum, in the dtype of the points."""
    require_concrete("weights", weights, "at least 0", lambda w: w < 0)
    require_concrete("weights", weights, "finite", lambda w: ~np.isfinite(w))
    values = concrete_values(weights)
    if values is not None and values.dtype.kind in "iufV" and values.size:
        # The sum may overflow, and a number that NumPy has may be 0 in XLA.
        values = values.astype(np.float64)
        if not values.max() > 0:
            raise ValueError(
                f"weights must have a positive sum, got {values.max().item()!r}; None "
                "weighs all the same."
            )
        weights = values / values.max()
    w = as_float("weights", weights)
    if w.shape != x.shape[:1]:
        raise ValueError(f"weights must be [{len(x)}], got shape {w.shape}.")
    w = w.astype(wide_dtype(w.dtype))
    is_wrong = ~jnp.all((w >= 0.0) & (w < jnp.inf))
    # The shares do not depend on this factor, so neither does the derivative. XLA
    # multiplies by its inverse, which must not be subnormal.
    largest = jax.lax.stop_gradient(w.max())
    fraction = jnp.where(largest > 1.0, 0.25, 1.0).astype(w.dtype)
    w = (fraction * w / (fraction * largest)).astype(x.dtype)
    # A sum, so that the derivative is nan there too.
    return w / w.sum() + jnp.where(is_wrong, jnp.nan, 0.0).astype(x.dtype)


@jax.custom_jvp
def _one_minus_length(w, x, direction):
    """1 - |sum_i w_i x_i|, given the direction of that sum."""
    apart = jnp.sum(jnp.square(x - direction[None]), axis=-1)
    return 0.5 * jnp.sum(w * apart)


@_one_minus_length.defjvp
def _one_minus_length_jvp(primals, tangents):
    # Turning the direction changes nothing to first order: what it adds is rounding.
    w, x, direction = primals
    dw, dx, _ = tangents
    apart = 0.5 * jnp.sum(jnp.square(x - direction[None]), axis=-1)
    fall = jnp.sum(dw * apart) - jnp.sum(w * jnp.sum(dx * direction[None], axis=-1))
    return _one_minus_length(*primals), fall
