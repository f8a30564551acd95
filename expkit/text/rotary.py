"""Positions as rotations of queries and keys.

References:
    Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021,
    eq. (34). https://arxiv.org/abs/2104.09864
"""

import jax
import jax.numpy as jnp


def rotary(x: jax.Array, positions: jax.typing.ArrayLike) -> jax.Array:
    r"""Turns pairs of coordinates by angles that grow with the position.

    With :math:`\theta_k = 10000^{-2k/d}`, the pair :math:`(x_k, x_{k+d/2})` at position
    m turns by :math:`m \theta_k`, so a product of two rows depends on the difference of
    their positions only. (The paper pairs neighbours; that is the same up to the order
    of the coordinates.)

    Args:
        x: [..., n, d], d even.
        positions: [n].

    Returns:
        Same shape and dtype as `x`.
    """
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.outer(jnp.asarray(positions, jnp.float32), frequencies)
    shape = (1,) * (x.ndim - 2) + angles.shape
    cos, sin = (f(angles).reshape(shape).astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
