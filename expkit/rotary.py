r"""Positions as rotations of queries and keys.

Su et al. (2021), *RoFormer: Enhanced Transformer with Rotary Position Embedding*, eq.
(34): a rotation of queries and keys by angles proportional to their positions makes
their product depend on the difference of the positions only,

.. math:: (R_i q)^\top (R_j k) = q^\top R_{j-i}\, k.

What differs from the paper: coordinate k is paired with coordinate k + d/2 in place of
its neighbour, which is the same up to the order of the coordinates. Angles are float32
or wider whatever the dtype of the input. Example::

    >>> x = jnp.ones((3, 4))
    >>> rotary(x, jnp.arange(3)).shape
    (3, 4)
"""

import jax
import jax.numpy as jnp

from expkit import trees
from expkit.arguments import require_floating


def rotary(x: jax.typing.ArrayLike, positions: jax.typing.ArrayLike) -> jax.Array:
    r"""Turns pairs of coordinates by angles that grow with the position.

    .. math::
        (x_k, x_{k+d/2}) \mapsto
        \begin{pmatrix} \cos m\theta_k & -\sin m\theta_k \\
                        \sin m\theta_k & \cos m\theta_k \end{pmatrix}
        (x_k, x_{k+d/2}), \qquad \theta_k = 10000^{-2k/d},

    at position m. Norms stay, and a product of two rows depends on the difference of
    their positions only.

    Args:
        x: `[..., n, d]`, real floating-point, d even.
        positions: `[n]`, integers or real numbers. In float32 an angle is known to
            1e-7 of the position, so up to about 1e5.

    Returns:
        Same shape and dtype as `x`.

    Raises:
        TypeError: if `x` is not floating-point.
        ValueError: if d is odd, or the shapes do not fit.

    References:
        Su, Lu, Pan, Murtadha, Wen, Liu, *RoFormer: Enhanced Transformer with Rotary
        Position Embedding*, 2021, eq. (34). https://arxiv.org/abs/2104.09864
    """
    x = jnp.asarray(x)
    require_floating("x", x)  # integers would be cut
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(f"x must be [..., n, d] with an even d, got shape {x.shape}.")
    wide = trees.wide_dtype(x)
    positions = jnp.asarray(positions, wide)
    if positions.shape != (x.shape[-2],):
        raise ValueError(
            f"positions must be [n] = [{x.shape[-2]}], got shape {positions.shape}."
        )
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-jnp.arange(half, dtype=wide) / half)
    angles = jnp.outer(positions, frequencies)
    angles = angles.reshape((1,) * (x.ndim - 2) + angles.shape)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., :half].astype(wide), x[..., half:].astype(wide)
    rotated = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return rotated.astype(x.dtype)
