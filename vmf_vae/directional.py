"""What laws around a direction have in common: two checked fields, and a pytree."""

from typing import Any

import jax
import jax.numpy as jnp

from vmf_vae.arguments import (
    as_float,
    require_broadcast,
    require_concrete,
    require_directions,
)


class Directional:
    """A mean direction and a concentration; a subclass says what law they make.

    Attributes:
        mean_direction: [..., d], unit vectors.
        concentration: [...], at least 0.
    """

    mean_direction: jax.Array
    concentration: jax.Array

    def __init__(
        self,
        mean_direction: jax.typing.ArrayLike,
        concentration: jax.typing.ArrayLike,
    ):
        """Checks what is concrete; the two leading shapes broadcast in every method.

        Raises:
            ValueError: if a concrete direction is not of unit norm (to 1e-3, or 3e-2 in
                half precision), has no axis of 2 to 200,000 entries, a concrete
                concentration is negative, or the shapes do not broadcast.
        """
        require_concrete("concentration", concentration, "at least 0", lambda x: x < 0)
        mu = require_directions("mean_direction", mean_direction)
        kappa = as_float("concentration", concentration)
        require_broadcast(mu, kappa)
        self._set(mu, kappa)

    @property
    def dim(self) -> int:
        """d, of the space that the sphere lies in."""
        return self.mean_direction.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return jnp.broadcast_shapes(
            self.mean_direction.shape[:-1], self.concentration.shape
        )

    def mode(self) -> jax.Array:
        """The direction of the highest density.

        Returns:
            [*batch, d], the mean direction.
        """
        shape = (*self.batch_shape, self.dim)
        return jnp.broadcast_to(self.mean_direction, shape)

    def _spread(self, x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, self.batch_shape)

    def _matrix(self, mu: jax.Array, across: jax.Array, along: jax.Array) -> jax.Array:
        """`across` (I - mu mu^T) + `along` mu mu^T; mu may have a wider dtype."""
        mu = jnp.broadcast_to(mu, (*self.batch_shape, self.dim))
        across, along = (self._spread(v)[..., None, None] for v in (across, along))
        projector = mu[..., :, None] * mu[..., None, :]
        eye = jnp.broadcast_to(jnp.eye(self.dim, dtype=mu.dtype), projector.shape)
        return across * (eye - projector) + along * projector

    def _set(self, mean_direction: Any, concentration: Any) -> None:
        # A subclass may be frozen.
        object.__setattr__(self, "mean_direction", mean_direction)
        object.__setattr__(self, "concentration", concentration)

    def tree_flatten_with_keys(self):
        """The two fields, with their names.

        Returns:
            What JAX asks of a registered class.
        """
        names = ("mean_direction", "concentration")
        keys = (jax.tree_util.GetAttrKey(name) for name in names)
        return tuple(zip(keys, self.tree_flatten()[0], strict=True)), None

    def tree_flatten(self):
        """The two fields.

        Returns:
            What JAX asks of a registered class.
        """
        return (self.mean_direction, self.concentration), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        """The object again, unchecked: JAX puts in what is no array, too.

        Args:
            aux: None.
            children: the two fields.

        Returns:
            An object of this class.
        """
        del aux
        new = object.__new__(cls)
        new._set(*children)
        return new
