r"""Two laws beside the von Mises-Fisher: the uniform one, and the power spherical.

The power spherical distribution of De Cao & Aziz (2020) has density
:math:`\propto (1 + \mu^\top x)^\kappa`. It is *not* the von Mises-Fisher law, though it
looks alike: its tails are heavier, and its concentration has another scale. Its first
coordinate is a transformed Beta variable, so nothing is rejected.

>>> x = PowerSpherical(jnp.array([0.0, 0.0, 1.0]), 10.0).sample(jax.random.key(0), (5,))
>>> x.shape
(5, 3)
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vmf_vae.arguments import (
    align,
    order_of,
    require_points,
    shape_of_draws,
    where_valid,
)
from vmf_vae.debye import log_constant_at_zero
from vmf_vae.density import one_minus_dot
from vmf_vae.directional import Directional
from vmf_vae.elementary import wide_dtype
from vmf_vae.power_divergence import kl_of_power, log_peak_of_power
from vmf_vae.reflection import reflect


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SphericalUniform:
    """The uniform law on the unit sphere.

    Attributes:
        dim: d, of the space that the sphere lies in, 2 to 200,000.
    """

    dim: int

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError for a dimension that cannot be used."""
        order_of(self.dim)

    def sample(self, key: jax.Array, shape: int | Sequence[int] = ()) -> jax.Array:
        """Independent draws: normal vectors divided by their length.

        Args:
            key: typed PRNG key.
            shape: of the draws; a number is one axis.

        Returns:
            [*shape, d], unit vectors of the default float.
        """
        normal = jax.random.normal(key, (*shape_of_draws(shape), self.dim))
        return normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)

    def log_prob(self, x: jax.typing.ArrayLike) -> jax.Array:
        """Log density with respect to the surface measure: minus the log area.

        Args:
            x: [..., d], unit vectors (not checked).

        Returns:
            [...], float32 or wider.

        Raises:
            ValueError: if `x` has another last axis.
        """
        x = require_points(x, self.dim)
        log_density = log_constant_at_zero(order_of(self.dim))
        return jnp.full(x.shape[:-1], log_density, wide_dtype(x.dtype))

    def entropy(self) -> jax.Array:
        """Differential entropy in nats: the log area.

        Returns:
            A scalar.
        """
        return jnp.asarray(-log_constant_at_zero(order_of(self.dim)))


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False)
class PowerSpherical(Directional):
    r"""Law on the unit sphere with density :math:`\propto (1 + \mu^\top x)^\kappa`.

    With :math:`\beta = (d-1)/2` and :math:`\alpha = \beta + \kappa`, the coordinate
    :math:`(1 + \mu^\top x)/2` is :math:`\mathrm{Beta}(\alpha, \beta)`.

    Attributes:
        mean_direction: :math:`\mu`, [..., d], unit vectors.
        concentration: :math:`\kappa`, [...], at least 0.

    References:
        De Cao & Aziz, *The Power Spherical distribution*, 2020, section 3.
        https://arxiv.org/abs/2006.04437
    """

    # Fields of the dataclass, which is frozen where the other law is not.
    mean_direction: jax.Array  # pyrefly: ignore[bad-override]
    concentration: jax.Array  # pyrefly: ignore[bad-override]

    def sample(self, key: jax.Array, shape: int | Sequence[int] = ()) -> jax.Array:
        """Independent draws, differentiable in both fields.

        Args:
            key: typed PRNG key.
            shape: of the draws from each distribution; a number is one axis.

        Returns:
            [*shape, *batch, d], unit vectors; nan where the concentration is traced and
            negative, or not finite.
        """
        mu, kappa, dtype = self._wide()
        mu = mu / jnp.linalg.norm(mu, axis=-1, keepdims=True)
        dim = mu.shape[-1]
        batch = jnp.broadcast_shapes(mu.shape[:-1], kappa.shape)
        full = (*shape_of_draws(shape), *batch)
        gamma_key, normal_key = jax.random.split(key)
        rest = jax.random.normal(normal_key, (*full, dim - 1), mu.dtype)
        rest = jnp.where(rest == 0.0, 1e-7, rest) if dim == 2 else rest
        squares = jnp.sum(rest * rest, axis=-1)
        # Half of it is a Gamma(beta) variable, independent of the direction of `rest`.
        t = _one_minus_first(gamma_key, dim, align(kappa, len(full)), 0.5 * squares)
        rest *= jnp.sqrt(t * (2.0 - t) / squares)[..., None]
        x = jnp.concatenate([1.0 - t[..., None], rest], axis=-1)
        mu = jnp.broadcast_to(align(mu, x.ndim), x.shape)
        return reflect(mu, x).astype(dtype)

    def log_prob(self, x: jax.typing.ArrayLike) -> jax.Array:
        """Log density with respect to the surface measure.

        Args:
            x: [..., d], unit vectors (not checked).

        Returns:
            [...], float32 or wider; -inf at the antipode of the mean direction, where
            the concentration is not 0.

        Raises:
            ValueError: if `x` has another last axis.
        """
        mu, kappa, _ = self._wide()
        x = require_points(x, mu.shape[-1])
        x = x.astype(wide_dtype(x.dtype))
        wide = jnp.result_type(mu, x)
        shape = jnp.broadcast_shapes(x.shape[:-1], mu.shape[:-1], kappa.shape)
        full = (*shape, mu.shape[-1])
        x, mu = (jnp.broadcast_to(a.astype(wide), full) for a in (x, mu))
        kappa = jnp.broadcast_to(kappa.astype(wide), shape)
        apart = one_minus_dot(mu, x)
        is_near = apart < 1.0
        near = jnp.log1p(-0.5 * jnp.where(is_near, apart, 0.0))
        share = 0.5 * jnp.where(is_near, 1.0, one_minus_dot(-mu, x))
        # The uniform law has no antipode; 0 * log(0) would be nan.
        is_flat = (kappa == 0.0) & (share == 0.0)
        far = jnp.log(jnp.where(is_flat, 1.0, share))
        log_share = jnp.where(is_near, near, far)
        peak = self._log_uniform() + log_peak_of_power(0.5 * (self.dim - 1), kappa)
        return peak + kappa * log_share

    def entropy(self) -> jax.Array:
        """Differential entropy in nats: the log area minus `kl_to_uniform`.

        Returns:
            [*batch].
        """
        mu, kappa, dtype = self._wide()
        value = -self._log_uniform() - kl_of_power(0.5 * (mu.shape[-1] - 1), kappa)
        return self._spread(value.astype(dtype))

    def kl_to_uniform(self) -> jax.Array:
        r"""Divergence from the uniform law in nats, see `power_divergence`.

        Returns:
            [*batch], at least 0, with all digits also where it is small. The derivative
            is :math:`\kappa (\psi'(\beta + \kappa) - \psi'(2\beta + \kappa))`.
        """
        mu, kappa, dtype = self._wide()
        value = kl_of_power(0.5 * (mu.shape[-1] - 1), kappa)
        return self._spread(value.astype(dtype))

    def mean(self) -> jax.Array:
        r"""The mean, :math:`\frac{\kappa}{\kappa + d - 1} \mu`.

        Returns:
            [*batch, d].
        """
        mu, kappa, dtype = self._wide()
        length = self._spread(kappa / (kappa + (mu.shape[-1] - 1)))[..., None]
        mu = jnp.broadcast_to(mu, (*self.batch_shape, self.dim))
        return (length * mu).astype(dtype)

    def covariance(self) -> jax.Array:
        r"""Covariance matrix.

        .. math:: v \left(I - \frac{\kappa}{n} \mu\mu^\top\right), \qquad
                  v = \frac{2 (\beta + \kappa)}{n (n + 1)}, \qquad n = \kappa + d - 1,

        from the first two moments of the Beta variable.

        Returns:
            [*batch, d, d]; I / d at concentration 0.
        """
        mu, kappa, dtype = self._wide()
        spheres = mu.shape[-1] - 1
        total = kappa + spheres
        across = (2.0 * (0.5 * spheres + kappa) / total) / (total + 1.0)
        along = across * (spheres / total)
        return self._matrix(mu, across, along).astype(dtype)

    def _wide(self):
        """The fields in float32 at least, and the dtype of results."""
        dtype = jnp.result_type(self.mean_direction, self.concentration)
        wide = wide_dtype(dtype)
        kappa = where_valid(self.concentration.astype(wide))
        return self.mean_direction.astype(wide), kappa, dtype

    def _log_uniform(self):
        """Log density of the uniform law."""
        return log_constant_at_zero(order_of(self.dim))


def _one_minus_first(key, dim, kappa, gamma_beta):
    """1 - w = 2 (1 - Beta) from one of the two Gamma variables behind the Beta."""
    if dim == 3:  # Beta(alpha, 1) has a quantile function
        return -2.0 * jnp.expm1(-gamma_beta / (1.0 + kappa))
    # The generator of gamma variables must not see nan.
    shift = jnp.where(jnp.isnan(kappa), 0.0, kappa)
    alpha = jnp.broadcast_to(shift, gamma_beta.shape) + 0.5 * (dim - 1)
    log_alpha = jax.random.loggamma(key, alpha, dtype=alpha.dtype)
    return 2.0 * jax.nn.sigmoid(jnp.log(gamma_beta) - log_alpha) + (kappa - shift)
