r"""Dropout whose random bits cost next to nothing.

Which unit is dropped is decided by a hash of its position and two random words, not by
a counter-based generator: on a CPU the generator's bits took longer than the matrix
products around them, 30 times as long as the hash, which the compiler also fuses with
what it masks and computes anew in the backward pass instead of storing it.

For unit i and words :math:`s_0, s_1` of a key, modulo :math:`2^{32}`,

.. math::
    a = i \oplus s_0, \quad b = (a \oplus (a \gg 17)) \, c_1 + s_1, \quad
    d = (b \oplus (b \gg 11)) \, c_2, \quad e = (d \oplus (d \gg 15)) \, c_3, \quad
    h = e \oplus (e \gg 14),

and the unit is kept where :math:`h < (1 - \text{rate})\, 2^{32}`. Without the words
it is the hash `triple32`; words that differ in one bit give unrelated masks. It is no
generator for simulations.

References:
    Srivastava et al., *Dropout*, 2014, section 4. https://jmlr.org/papers/v15/srivastava14a.html
    Wellons, *Prospecting for Hash Functions*, 2018.
    https://nullprogram.com/blog/2018/07/31/
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def dropout_seeds(key: jax.Array, count: int) -> jax.Array:
    """Random words for `dropout`, all in one draw.

    Args:
        key: typed PRNG key.
        count: how many pairs.

    Returns:
        uint32 [count, 2].
    """
    return jax.random.bits(key, (count, 2), jnp.uint32)


def dropout(x: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
    """Drops units with probability `rate` and divides the others by `1 - rate`.

    Args:
        x: any shape, of less than 2^32 units.
        rate: in [0, 1); a multiple of 2^-32 is meant.
        seed: uint32 [2], a row of `dropout_seeds`; None drops nothing.

    Returns:
        Like `x`.

    References:
        Srivastava et al., *Dropout*, 2014, section 4.
        https://jmlr.org/papers/v15/srivastava14a.html
    """
    if seed is None or rate == 0.0:
        return x
    h = jax.lax.iota(jnp.uint32, math.prod(x.shape)) ^ seed[0]
    h = (h ^ (h >> 17)) * np.uint32(0xED5AD4BB) + seed[1]
    h = (h ^ (h >> 11)) * np.uint32(0xAC4C1B51)
    h = (h ^ (h >> 15)) * np.uint32(0x31848BAB)
    h = (h ^ (h >> 14)).reshape(x.shape)
    kept = h < np.uint32(round((1.0 - rate) * 2**32))
    return jnp.where(kept, x / (1.0 - rate), 0)
