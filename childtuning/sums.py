"""Order statistics by sums over whole arrays, for values that are traced.

Slower than `childtuning.order`, one bit a pass, and without anything that has to know
where the entries are: XLA distributes the sums over any sharding.

Example::

    >>> found = jax.jit(lambda x: select([x], 2))(jnp.array([3.0, 1.0, 2.0]))
    >>> int(found) == int(patterns(jnp.float32(2.0)))
    True
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from childtuning.blocks import patterns
from expkit import explicit


def select(arrays: Sequence[jax.Array], k: int) -> jax.Array:
    """Bit pattern of the k-th largest entry of traced arrays, one bit a pass.

    Args:
        arrays: floating-point, at least 0; fewer than 2**32 entries.
        k: at least 1 and at most the number of entries.

    Returns:
        The pattern, uint32 scalar.
    """
    all_bits = [patterns(x) for x in arrays]

    def is_reached(pattern):
        counts = [jnp.sum(bits >= pattern, dtype=jnp.uint32) for bits in all_bits]
        return sum(counts, start=jnp.uint32(0)) >= jnp.uint32(k)

    return _largest_that(is_reached, 31, explicit.varying_like(jnp.uint32(0), all_bits))


@jax.jit
def end_of_first(
    array: jax.Array, pattern: jax.typing.ArrayLike, count: jax.typing.ArrayLike
) -> jax.Array:
    """The flat index before which an array has so many entries of a pattern.

    Args:
        array: floating-point, fewer than 2**31 entries, sharded in any way.
        pattern: uint32 scalar.
        count: how many entries of that pattern.

    Returns:
        uint32 scalar; where there are no more than `count`, it is beyond the last.
    """
    is_equal = patterns(array) == jnp.asarray(pattern).astype(jnp.uint32)
    count, index = jnp.asarray(count).astype(jnp.uint32), flat_index(array.shape)

    def is_short(end):
        return jnp.sum(is_equal & (index < end), dtype=jnp.uint32) < count

    # The largest end before which too few are, and one more.
    start = explicit.varying_like(jnp.uint32(0), (is_equal, count))
    return 1 + _largest_that(is_short, array.size.bit_length(), start)


def flat_index(shape: tuple[int, ...]) -> jax.Array:
    """The flat index of every entry, without a reshape that a sharding would feel.

    Args:
        shape: of an array of fewer than 2**32 entries.

    Returns:
        uint32 of that shape.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * size + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return index


def _largest_that(
    holds: Callable[[jax.Array], jax.Array], num_bits: int, zero: jax.Array
) -> jax.Array:
    """The largest number of so many bits for which a falling predicate holds."""

    def ask(i, number):
        candidate = number | (jnp.uint32(1) << (num_bits - 1 - i).astype(jnp.uint32))
        return jnp.where(holds(candidate), candidate, number)

    return jax.lax.fori_loop(0, num_bits, ask, zero)
