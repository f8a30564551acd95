"""Small functions of one array that several modules need."""

import jax
import jax.numpy as jnp


def horner(coefficients: tuple[float, ...], p: jax.Array) -> jax.Array:
    """A polynomial.

    Args:
        coefficients: highest first.
        p: where to evaluate it.

    Returns:
        Shape and dtype of `p`.
    """
    total = jnp.full_like(p, coefficients[0])
    for c in coefficients[1:]:
        total = total * p + c
    return total


def secant(z: jax.Array) -> jax.Array:
    """sqrt(1 + z^2), which is z to working precision long before the square overflows.

    Args:
        z: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `z`.
    """
    near = jnp.minimum(z, 2.0**32)
    return jnp.where(z > near, z, jnp.sqrt(1.0 + near * near))
