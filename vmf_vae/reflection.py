r"""The reflection that carries the first axis to a mean direction.

Samples are made around :math:`e_1 = (1, 0, \ldots, 0)`, where the first coordinate and
the rest are separate numbers and nothing cancels, and then reflected. The usual vector
:math:`e_1 - \mu` (Davidson et al. 2018, Algorithm 1) vanishes when the mean direction
is the first axis; here the sign is chosen so that it never does:

.. math:: u = \mu + \sigma e_1, \qquad \sigma = \mathrm{sign}(\mu_1), \qquad
          H x = \sigma \left(\frac{u\, u^\top x}{1 + |\mu_1|} - x\right), \qquad
          H e_1 = \mu .

Example::

    >>> reflect(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
    Array([0., 1.], dtype=float32)
"""

import jax
import jax.numpy as jnp


def reflect(mean_direction: jax.Array, x: jax.Array) -> jax.Array:
    r"""Applies the reflection that carries :math:`e_1` to the mean direction.

    Args:
        mean_direction: :math:`\mu`, [d] or the shape of `x`, unit vectors.
        x: [..., d].

    Returns:
        :math:`H x`, shape of `x`; lengths are kept.
    """
    mean_direction = jnp.broadcast_to(mean_direction, x.shape)
    sign, u = _axis(mean_direction)
    along = jnp.sum(u * x, axis=-1, keepdims=True)
    return sign * (u * (along / (1.0 + jnp.abs(mean_direction[..., :1]))) - x)


def reflect_parts(
    mean_direction: jax.Array, first: jax.Array, scale: jax.Array, rest: jax.Array
) -> jax.Array:
    r"""`reflect` of a vector that is not put together before, which reads it once less.

    Args:
        mean_direction: :math:`\mu`, [d] or the shape of `rest`, unit vectors.
        first: first coordinate of x, [...].
        scale: factor of the others, [...].
        rest: the others before scaling, [..., d]; entry 0 of the last axis is ignored.

    Returns:
        :math:`H x`, [..., d].
    """
    mu_1 = mean_direction[..., 0]
    sign = jnp.where(mu_1 < 0.0, -1.0, 1.0).astype(rest.dtype)
    others = mean_direction.at[..., 0].set(0.0)
    if mean_direction.ndim == 1:
        along = jnp.matmul(rest, others, precision=jax.lax.Precision.HIGHEST)
    else:
        along = jnp.sum(rest * others, axis=-1)
    # u^T x / (1 + |mu_1|), in which u_1 / (1 + |mu_1|) = sigma.
    along = sign * first + scale * along / (1.0 + jnp.abs(mu_1))
    mean_direction = jnp.broadcast_to(mean_direction, rest.shape)
    x = (sign * along)[..., None] * mean_direction - (sign * scale)[..., None] * rest
    return x.at[..., 0].set(sign * ((mu_1 + sign) * along - first))


def reflection_matrix(mean_direction: jax.Array) -> jax.Array:
    r"""The matrix H, symmetric: cheaper than `reflect` for a small dimension.

    Args:
        mean_direction: :math:`\mu`, [..., d], unit vectors.

    Returns:
        [..., d, d].
    """
    sign, u = _axis(mean_direction)
    scale = 1.0 + jnp.abs(mean_direction[..., :1, None])
    identity = jnp.eye(u.shape[-1], dtype=u.dtype)
    identity = jnp.broadcast_to(identity, (*u.shape, u.shape[-1]))
    return sign[..., None] * (u[..., :, None] * u[..., None, :] / scale - identity)


def _axis(mean_direction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sigma, [..., 1], and u, [..., d]."""
    sign = jnp.where(mean_direction[..., :1] < 0.0, -1.0, 1.0)
    sign = sign.astype(mean_direction.dtype)
    is_first = jnp.arange(mean_direction.shape[-1]) == 0
    is_first = jnp.broadcast_to(is_first, mean_direction.shape)
    return sign, jnp.where(is_first, mean_direction + sign, mean_direction)
