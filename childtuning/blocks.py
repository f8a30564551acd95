"""Counts over flat arrays on one device, block by block, so that blocks stay cached.

Numbers are taken as their bit patterns, which for non-negative float32 numbers are
ordered as the numbers are.

Example::

    >>> x = jnp.array([3.0, 1.0, 2.0])
    >>> int(smallest_above(x, patterns(jnp.float32(2.0)))) == patterns(jnp.float32(3.0))
    True
"""

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 3  # bits of a digit
BLOCK = 2**15  # entries that are counted together
COLUMNS = 2**8  # of a block; numbers of one column are reduced first, by vectors
MINUS_ZERO = np.uint32(0x80000000)
NOT_FINITE = 0x7F800000  # this pattern and larger ones are infinite, nan or negative


def patterns(x: jax.Array) -> jax.Array:
    """Bit patterns of float32 numbers, ordered as the numbers where they are finite.

    Args:
        x: floating-point, any shape; cast to float32.

    Returns:
        uint32 of that shape. Negative numbers, except -0, have patterns of
        `NOT_FINITE` and more.
    """
    bits = _bits(x)
    return jnp.where(bits == MINUS_ZERO, jnp.uint32(0), bits)


@jax.jit
def smallest_above(x: jax.Array, pattern: jax.Array) -> jax.Array:
    """The smallest bit pattern above another.

    Args:
        x: floating-point.
        pattern: uint32 scalar.

    Returns:
        uint32 scalar; 2**32 - 1 if there is none.
    """
    largest = jnp.uint32(0xFFFFFFFF)

    def add(total, bits):
        above = jnp.where(bits > pattern, bits, largest)
        return jnp.minimum(total, jnp.min(_rows(above), axis=0))

    return jnp.min(_over_blocks(x, add, jnp.full(COLUMNS, largest)))


@jax.jit
def neighbours(x: jax.Array, pattern: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bit patterns around a bound.

    Args:
        x: floating-point.
        pattern: uint32 scalar, at least 1.

    Returns:
        The largest below it, 0 if there is none, and the smallest of at least it,
        2**32 - 1 if there is none: uint32 scalars.
    """
    largest = jnp.uint32(0xFFFFFFFF)

    def add(total, bits):
        is_below = bits < pattern
        below, above = jnp.where(is_below, bits, 0), jnp.where(is_below, largest, bits)
        return (
            jnp.maximum(total[0], jnp.max(_rows(below), axis=0)),
            jnp.minimum(total[1], jnp.min(_rows(above), axis=0)),
        )

    start = jnp.zeros(COLUMNS, jnp.uint32)
    below, above = _over_blocks(x, add, (start, ~start))
    return jnp.max(below), jnp.min(above)


@jax.jit
def count_digits(x: jax.Array, low: jax.Array, shift: jax.Array) -> jax.Array:
    """How many patterns have each digit: lie from `low + (d << shift)` to the next.

    Args:
        x: floating-point.
        low: uint32 scalar, where the window begins.
        shift: uint32 scalar.

    Returns:
        int32 [8].
    """

    def add(total, bits):
        return total + _digits(bits & ~MINUS_ZERO, low, shift)

    counts = _over_blocks(x, add, jnp.zeros(2**WIDTH, jnp.int32), of=_bits)
    return counts - _filled_digits(x, low, shift)


@jax.jit
def count_first_digits(
    x: jax.Array, low: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`count_digits`, with what the first look at the data has to know.

    Args:
        x: floating-point.
        low: uint32 scalar, where the window begins.
        shift: uint32 scalar.

    Returns:
        The counts, int32 [8]; how many patterns are at least `low`; and the largest
        pattern, which is `NOT_FINITE` or more if a number is not finite or negative.
    """

    def add(total, bits):
        counts, num_at_least, largest = total
        valid = jnp.where(bits == MINUS_ZERO, jnp.uint32(0), bits)
        bits &= ~MINUS_ZERO  # cheaper than a choice
        is_at_least = (bits >= low).astype(jnp.int32)
        return (
            counts + _digits(bits, low, shift),
            num_at_least + jnp.sum(_rows(is_at_least), axis=0),
            jnp.maximum(largest, jnp.max(_rows(valid), axis=0)),
        )

    zeros = jnp.zeros(COLUMNS, jnp.int32)
    start = jnp.zeros(2**WIDTH, jnp.int32), zeros, zeros.astype(jnp.uint32)
    counts, num_at_least, largest = _over_blocks(x, add, start, of=_bits)
    num_at_least = jnp.sum(num_at_least) - jnp.where(low == 0, _num_filled(x), 0)
    return counts - _filled_digits(x, low, shift), num_at_least, jnp.max(largest)


@jax.jit
def count_equal(x: jax.Array, pattern: jax.Array) -> jax.Array:
    """How many entries of each block have a bit pattern.

    Args:
        x: floating-point, any shape; blocks are those of the flat array.
        pattern: uint32 scalar.

    Returns:
        int32 [blocks], the last of them short and perhaps empty.
    """
    x = x.reshape(-1)
    num_blocks = x.size // BLOCK

    def of_block(i, counts):
        return counts.at[i].set(_count(patterns(_block(x, i)) == pattern))

    rest = _count(patterns(x[num_blocks * BLOCK :]) == pattern)
    counts = jnp.zeros(num_blocks + 1, jnp.int32).at[num_blocks].set(rest)
    return jax.lax.fori_loop(0, num_blocks, of_block, counts) if num_blocks else counts


@jax.jit
def block(x: jax.Array, index: jax.typing.ArrayLike) -> jax.Array:
    """One block of an array.

    Args:
        x: any shape.
        index: from 0.

    Returns:
        [BLOCK], or all of a smaller array; where the last block is short, it begins
        before it.
    """
    return _block(x.reshape(-1), index)


def _block(x: jax.Array, index: jax.typing.ArrayLike) -> jax.Array:
    """`block` without a `jax.jit` of its own, which XLA would not fuse."""
    return jax.lax.dynamic_slice_in_dim(x, index * BLOCK, min(BLOCK, x.size))


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, COLUMNS)


def _count(where: jax.Array) -> jax.Array:
    return jnp.sum(where, dtype=jnp.int32)


def _digits(bits: jax.Array, low: jax.Array, shift: jax.Array) -> jax.Array:
    """Counts of each digit in a block of patterns."""
    # Below the window it wraps, and is too large as well.
    digits = jnp.minimum((bits - low) >> shift, jnp.uint32(2**WIDTH)) * 8
    counts = []
    for first in range(0, 2**WIDTH, 4):
        # Four counters a word, of 8 bits. A shift of 32 bits and more, which is also
        # what a negative number is read as, gives 0.
        one = jax.lax.shift_left(jnp.ones_like(bits), digits - jnp.uint32(8 * first))
        # No more than 255 are added up in a counter.
        sums = jnp.sum(_rows(one), axis=0, dtype=jnp.uint32)
        counts += [jnp.sum((sums >> (8 * i)) & 255, dtype=jnp.int32) for i in range(4)]
    return jnp.stack(counts)


def _filled_digits(x: jax.Array, low: jax.Array, shift: jax.Array) -> jax.Array:
    """What the zeros that fill the last block have added to the counts."""
    is_theirs = (0 - low) >> shift == jnp.arange(2**WIDTH, dtype=jnp.uint32)
    return is_theirs.astype(jnp.int32) * _num_filled(x)


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)


def _over_blocks(x, add, total, of=patterns):
    """Folds a function over the patterns of an array, a block at a time."""
    x = x.reshape(-1)
    num_blocks = x.size // BLOCK

    def body(i, total):
        return add(total, of(_block(x, i)))

    if num_blocks:
        total = jax.lax.fori_loop(0, num_blocks, body, total)
    rest = of(x[num_blocks * BLOCK :])
    filled = jnp.pad(rest, (0, _num_filled(x)))
    return add(total, filled) if rest.size else total


def _num_filled(x: jax.Array) -> int:
    """How many entries of the last block are not those of the array."""
    return -x.size % BLOCK
