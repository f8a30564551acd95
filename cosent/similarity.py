r"""Cosines of vectors, 0 with a zero gradient where a vector is zero.

Feature-based matching (Su 2022, CoSENT) compares the vectors u and v of two sentences:

.. math:: \cos(u, v) = \frac{\langle u, v\rangle}{\|u\|\,\|v\|}.

What differs: the quotient is undefined for a zero vector, which an encoder emits for an
empty text. A constant under the root, as in most code, makes gradients there as large
as a million; here the cosine of a zero vector is the constant 0. Vectors are divided by
their largest entry first, so that squares neither overflow nor vanish.

Example::

    similarities = pairwise_cosine(u, v)      # [b], row by row
    table = cosine_matrix(queries, corpus)    # [m, n], all pairs
"""

import jax
import jax.numpy as jnp

from cosent.arguments import require_vectors
from expkit import explicit, trees
from expkit.arguments import require_floating


def unit_vectors(x: jax.typing.ArrayLike) -> jax.Array:
    r"""Vectors divided by their lengths; a zero vector stays zero.

    .. math:: x / \|x\|, \qquad 0 \text{ for } x = 0, \text{ with a zero gradient}.

    Args:
        x: `[..., dim]`, real floating-point and finite.

    Returns:
        Array like `x`, in float32 or wider.

    Raises:
        TypeError: if `x` is not floating-point.
        ValueError: if `x` is a scalar.

    References:
        Su, *CoSENT (1)*, 2022, the cosine. https://kexue.fm/archives/8847
    """
    x = jnp.asarray(x)
    require_floating("x", x)
    if not x.ndim:
        raise ValueError("x must be [..., dim], got a scalar.")
    x = x.astype(trees.wide_dtype(x.dtype))
    # The unit vector does not depend on this factor, hence the stopped gradient.
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
    largest = jax.lax.stop_gradient(largest)
    is_zero = largest == 0.0
    # XLA divides a row by multiplying by an inverse, which must not be subnormal.
    fraction = jnp.where(largest > 1.0, 0.25, 1.0)
    x = fraction * x / jnp.where(is_zero, 1.0, fraction * largest)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return jnp.where(is_zero, 0.0, x / jnp.sqrt(jnp.where(is_zero, 1.0, squares)))


def pairwise_cosine(u: jax.typing.ArrayLike, v: jax.typing.ArrayLike) -> jax.Array:
    r"""Cosine of each row of u with the same row of v.

    .. math:: s_i = \frac{\langle u_i, v_i\rangle}{\|u_i\|\,\|v_i\|}.

    Args:
        u: `[..., dim]`, real floating-point and finite.
        v: `[..., dim]`, the same shape.

    Returns:
        `[...]` in [-1, 1] up to rounding, float32 or wider; 0 with a zero gradient
        where a vector is zero.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes differ.

    References:
        Su, *CoSENT (1)*, 2022, the cosine. https://kexue.fm/archives/8847
    """
    u, v = jnp.asarray(u), jnp.asarray(v)
    require_vectors(u, v)
    return jnp.sum(unit_vectors(u) * unit_vectors(v), axis=-1)


def cosine_matrix(u: jax.typing.ArrayLike, v: jax.typing.ArrayLike) -> jax.Array:
    r"""Cosine of every row of u with every row of v.

    .. math:: S_{ij} = \frac{\langle u_i, v_j\rangle}{\|u_i\|\,\|v_j\|}.

    Args:
        u: `[m, dim]`, real floating-point and finite.
        v: `[n, dim]`.

    Returns:
        `[m, n]` in [-1, 1] up to rounding, float32 or wider; 0 with a zero gradient
        where a vector is zero.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes do not fit.

    References:
        Su, *CoSENT (2)*, 2022, the matrix of similarities.
        https://kexue.fm/archives/8860
    """
    u, v = jnp.asarray(u), jnp.asarray(v)
    require_vectors(u, v, is_paired=False)
    # In full precision: an accelerator may round the factors to 10 bits otherwise.
    precision = jax.lax.Precision.HIGHEST
    v = explicit.whole(unit_vectors(v))  # the rows of the matrix lie as those of u
    return jnp.matmul(unit_vectors(u), v.T, precision=precision)
