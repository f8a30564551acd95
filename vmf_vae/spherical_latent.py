r"""A latent variable on the unit sphere: :math:`q = \mathrm{vMF}(\mu, \kappa)`.

The prior is uniform, so the KL depends on the concentration alone (Davidson et al.
2018, section 3.2); with a fixed concentration it is a constant and the loss is the
reconstruction (Xu & Durrett 2018; Su, https://kexue.fm/archives/8404).

>>> latent = VMFLatent(3, concentration=5.0)
>>> q = latent.posterior(latent.init(), jnp.ones((4, latent.num_features)))
>>> q.sample(jax.random.key(0)).shape, latent.kl(q).shape
((4, 3), (4,))
"""

import dataclasses
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae.density import kl_to_uniform
from vmf_vae.distribution import VonMisesFisher
from vmf_vae.spherical import SphericalUniform

Params = dict[str, Any]
LEARNED, SHARED = "learned", "shared"


@dataclasses.dataclass(frozen=True)
class VMFLatent:
    r"""A von Mises-Fisher posterior on the unit sphere, with the uniform prior.

    Attributes:
        dim: number of coordinates of z, at least 2. The sphere has one dimension less:
            the :math:`S^m` that Davidson et al. compare with a normal in m dimensions
            has `dim` m + 1.
        concentration: `"learned"` (softplus + 1 of a feature, as in the authors' code),
            `"shared"` (one trained number for all inputs) or a fixed number >= 0. If it
            is fixed, or shared, the KL is the same for every input.

    References:
        Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018, section 3.
        https://arxiv.org/abs/1804.00891

        Xu & Durrett, *Spherical Latent Spaces for Stable Variational Autoencoders*,
        2018, section 3. https://arxiv.org/abs/1808.10805
    """

    dim: int
    concentration: float | str = LEARNED

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        if not hasattr(self.dim, "__index__") or self.dim < 2:
            raise ValueError(f"dim must be an integer >= 2, got {self.dim!r}.")
        object.__setattr__(self, "dim", operator.index(self.dim))
        value = self.concentration
        if isinstance(value, jax.Array | np.generic | np.ndarray):
            is_concrete = not isinstance(value, jax.core.Tracer) and value.ndim == 0
            value = value.item() if is_concrete else value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_named = isinstance(value, str) and value in (LEARNED, SHARED)
        if not is_named and not (is_number and 0 <= value < math.inf):
            raise ValueError(
                "concentration must be 'learned', 'shared' or a number >= 0, got "
                f"{value!r}."
            )
        object.__setattr__(self, "concentration", value)  # an array has no hash

    @property
    def num_features(self) -> int:
        """Features of an encoder: a direction, and a raw concentration if learned."""
        return self.dim + (self.concentration == LEARNED)

    def init(self) -> Params:
        """Makes the parameters.

        Returns:
            A raw concentration in float32, as the networks are, if it is shared,
            otherwise nothing.
        """
        is_shared = self.concentration == SHARED
        return {"raw_concentration": jnp.zeros((), jnp.float32)} if is_shared else {}

    def posterior(self, params: Params, features: jax.Array) -> VonMisesFisher:
        """Reads a posterior from the features of an encoder.

        Args:
            params: of `init`.
            features: [batch, num_features]; direction first.

        Returns:
            The posterior of the batch.
        """
        direction = unit_vector(features[..., : self.dim])
        batch = direction.shape[:-1]
        if self.concentration == LEARNED:
            kappa = jax.nn.softplus(features[..., self.dim]) + 1.0
        elif self.concentration == SHARED:
            raw = params["raw_concentration"]
            kappa = jnp.broadcast_to(jax.nn.softplus(raw) + 1.0, batch)
        else:
            kappa = jnp.full(batch, float(self.concentration), direction.dtype)
        return VonMisesFisher(direction, kappa)

    def kl(self, q: VonMisesFisher) -> jax.Array:
        """KL from the prior: a function of the concentration alone.

        Args:
            q: posterior of a batch.

        Returns:
            [batch].
        """
        return kl_to_uniform(self.dim, q.concentration)

    def center(self, q: VonMisesFisher) -> jax.Array:
        """The point that stands for a posterior: its mean direction.

        Args:
            q: posterior of a batch.

        Returns:
            [batch, dim].
        """
        return q.mean_direction

    def prior_sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the prior.

        Args:
            key: typed PRNG key.
            num_samples: n.

        Returns:
            [n, dim].
        """
        return SphericalUniform(self.dim).sample(key, (num_samples,))

    def prior_log_prob(self, z: jax.Array) -> jax.Array:
        """Log density of the prior: minus the log area of the sphere.

        Args:
            z: points [..., dim].

        Returns:
            [...].
        """
        return SphericalUniform(self.dim).log_prob(z)


def unit_vector(x: jax.Array) -> jax.Array:
    r""":math:`x / \|x\|`, and the first basis vector where x is 0.

    Args:
        x: [..., d].

    Returns:
        Same shape; without overflow or underflow, and with a finite gradient
        everywhere (0 where x is 0).
    """
    largest = jax.lax.stop_gradient(jnp.abs(x).max(axis=-1, keepdims=True))
    is_zero = largest == 0.0
    first = jnp.zeros(x.shape[-1], x.dtype).at[0].set(1.0)
    first = jnp.broadcast_to(first.reshape((1,) * (x.ndim - 1) + (-1,)), x.shape)
    # The direction does not depend on the factor, so neither does the derivative.
    # XLA divides a row by multiplying by an inverse, which must not be subnormal.
    fraction = jnp.where(largest > 1.0, 0.25, 1.0).astype(x.dtype)
    scaled = fraction * x / jnp.where(is_zero, 1.0, fraction * largest)
    scaled = jnp.where(is_zero, first, scaled)
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1, keepdims=True))
    return scaled / norm
