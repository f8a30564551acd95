"""Order statistics of the non-negative float32 numbers of many arrays, without a sort.

The bit patterns of such numbers, read as integers, are ordered as the numbers are. The
k-th largest is found digit by digit: each pass over the data counts how many patterns
have each value of the next three bits among those that agree in the bits before. Eight
counters of eight bits share two words of 32, so that a pass costs little more than
reading the data. A sample tells in which window to begin; where it misleads, the search
begins with all 32 bits.

Counts and the sample are all that devices send, so nothing is gathered: every device
counts the shards it holds.

Example::

    >>> select(local_shards([jnp.array([3.0, 1.0, 2.0])]), 2).num_at_least
    2
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from childtuning import blocks, sums

SAMPLE = 2**18  # entries that tell where to begin, of many more


class Threshold(NamedTuple):
    """A bound on bit patterns, and how many reach it.

    Attributes:
        pattern: in [0, 2**32).
        num_at_least: number of entries with this pattern or a larger one.
    """

    pattern: int
    num_at_least: int


def local_shards(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """All entries of arrays as flat arrays on single devices, none of them twice.

    Args:
        arrays: floating-point, addressable, sharded in any way.

    Returns:
        The shards where they lie; small ones of a device are put together.
    """
    large, small = [], {}
    for array in arrays:
        for shard in array.addressable_shards:
            data = shard.data
            if shard.replica_id == 0 and data.size >= blocks.BLOCK:
                large.append(data)
            elif shard.replica_id == 0 and data.size:
                small.setdefault(shard.device, []).append(data)
    return large + [_join(shards) for shards in small.values()]


def select(
    shards: Sequence[jax.Array], k: int, *, stop_early: bool = False
) -> Threshold:
    """Finds the bit pattern of the k-th largest entry.

    Args:
        shards: of `local_shards`; entries at least 0 and finite.
        k: at least 1 and at most the number of entries.
        stop_early: any threshold will do that exactly k entries reach.

    Returns:
        The pattern, and how many entries have at least this one: k, or more where the
        k-th largest is equal to the next.

    Raises:
        ValueError: if an entry is not finite or negative.
    """
    low, high = _sample_window(shards, k)
    shift = max(0, (high - low).bit_length() - blocks.WIDTH)
    counts, num_at_least, largest = _first_digits(shards, low, shift)
    if largest >= blocks.NOT_FINITE:
        raise ValueError("some entries are negative, infinite or nan.")
    if num_at_least < k or num_at_least - counts[0] >= k:  # the sample has misled
        low, shift = 0, 32 - blocks.WIDTH
        num_at_least, counts = sum(x.size for x in shards), None
    while True:
        if counts is None:
            counts = _at_least_digits(shards, low, shift)
        above = num_at_least - int(counts[0])  # beyond the window
        at_least = above + counts
        digit = int(np.flatnonzero(at_least >= k)[-1])
        low, num_at_least = low + (digit << shift), int(at_least[digit])
        if shift == 0 or (stop_early and num_at_least == k):
            return Threshold(low, num_at_least)
        if num_at_least == k and low:  # it is the smallest from here on
            return Threshold(_smallest_above(shards, low - 1), k)
        shift, counts = max(0, shift - blocks.WIDTH), None


def end_without_last(array: jax.Array, pattern: int, surplus: int) -> tuple[int, int]:
    """Drops the last of the entries of an array that have a bit pattern.

    Args:
        array: floating-point, addressable, fewer than 2**31 entries.
        pattern: in [0, 2**32).
        surplus: at least 1: how many to drop, if there are so many.

    Returns:
        The flat index before which those that stay are, and how many are dropped.
    """
    shards = [s for s in array.addressable_shards if s.replica_id == 0]
    shards.sort(key=lambda shard: [s.start or 0 for s in shard.index])
    counts = [
        np.asarray(blocks.count_equal(s.data, np.uint32(pattern))) for s in shards
    ]
    num_equal = sum(int(count.sum()) for count in counts)
    if num_equal <= surplus:
        return 0, num_equal
    left = num_equal - surplus
    if any(shard.data.shape[1:] != array.shape[1:] for shard in shards):
        return int(sums.end_of_first(array, np.uint32(pattern), left)), surplus
    # One after the other, the shards are the array.
    totals = np.cumsum([count.sum() for count in counts])
    which = int(np.searchsorted(totals, left))
    left -= int(totals[which] - counts[which].sum())
    start = sum(shard.data.size for shard in shards[:which])
    return start + _end_in_shard(
        shards[which].data, pattern, counts[which], left
    ), surplus


def _end_in_shard(data: jax.Array, pattern: int, counts: np.ndarray, left: int) -> int:
    """One more than the flat index of one of a shard's entries of a pattern."""
    before = np.cumsum(counts) - counts
    index = int(np.flatnonzero(before < left)[-1])
    first = index * blocks.BLOCK
    bits = np.asarray(blocks.patterns(blocks.block(data, index)))
    # Where the last block is short, what is returned begins before it.
    places = min(first, data.size - bits.size) + np.flatnonzero(bits == pattern)
    return int(places[places >= first][left - before[index] - 1]) + 1


def percentile(shards: Sequence[jax.Array], fraction: float) -> int:
    """Bit pattern of `np.percentile(all, 100 * fraction)`, to the last bit.

    That of numpy 2.4 or later: before, numpy rounds the place of a percentile among
    float32 entries to float32 too, which is a few entries off among 10**8.

    Args:
        shards: of `local_shards`; entries at least 0 and finite.
        fraction: in [0, 1].

    Returns:
        The pattern of a number between two entries that follow each other.

    Raises:
        ValueError: if an entry is not finite or negative.
    """
    size = sum(x.size for x in shards)
    index, weight = percentile_position(size, fraction)
    if not weight:
        return select(shards, size - index).pattern
    # Any bound between the two entries finds both of them, if they differ.
    num_above = size - index - 1
    bound = select(shards, num_above, stop_early=True)
    below = above = bound.pattern
    if bound.num_at_least == num_above:
        below, above = _neighbours(shards, bound.pattern)
    a, b = (np.uint32(x).view(np.float32) for x in (below, above))
    # In numpy's order of operations, in float32.
    gap = b - a
    value = b - gap * (1 - weight) if weight >= 0.5 else a + gap * weight
    return int(np.float32(value).view(np.uint32))


def percentile_position(size: int, fraction: float) -> tuple[int, float]:
    """Where among sorted entries a percentile is, as numpy 2.4 computes it.

    Args:
        size: number of entries.
        fraction: in [0, 1].

    Returns:
        The index of the entry below, and the weight of the next one, in [0, 1).
    """
    position = (size - 1) * (100 * fraction / 100)
    if position >= size - 1:
        return size - 1, 0.0
    index = math.floor(position)
    return index, position - index


def _sample_window(shards: Sequence[jax.Array], k: int) -> tuple[int, int]:
    """Two patterns between which the k-th largest is, almost surely, in random order.

    At a fraction q of the entries, a sample of s is off by sqrt(q (1 - q) / s).
    """
    size = sum(x.size for x in shards)
    step = size // SAMPLE
    if step < 2:
        return 0, 2**32 - 1
    drawn = [np.asarray(_every(x, step)) for x in shards]
    sample = np.concatenate(drawn)
    position = (1 - k / size) * len(sample)
    margin = 3 * np.sqrt(position * (1 - position / len(sample))) + 2
    ranks = [int(position - margin), int(position + margin)]
    ranks = np.clip(ranks, 0, len(sample) - 1)
    low, high = np.partition(sample, ranks)[ranks].tolist()
    # The ends of the sample are not those of the data.
    low = 0 if ranks[0] == 0 else low
    high = blocks.NOT_FINITE if ranks[1] == len(sample) - 1 else high
    return low, high


def _at_least_digits(shards, low: int, shift: int) -> np.ndarray:
    """How many patterns of a window have at least the digits 0, 1, ... 7."""
    window = (np.uint32(low), np.uint32(shift))
    counts = [blocks.count_digits(x, *window) for x in shards]  # all of them in flight
    return _summed_from_above(counts)


def _first_digits(shards, low: int, shift: int) -> tuple[np.ndarray, int, int]:
    """The same, how many have at least `low`, and the largest pattern."""
    window = (np.uint32(low), np.uint32(shift))
    counts = [blocks.count_first_digits(x, *window) for x in shards]
    digits, num_at_least, largest = zip(*counts, strict=True)
    return (
        _summed_from_above(digits),
        sum(map(int, num_at_least)),
        max(map(int, largest)),
    )


def _summed_from_above(counts) -> np.ndarray:
    total = np.sum([np.asarray(count, np.int64) for count in counts], axis=0)
    return np.cumsum(total[::-1])[::-1]


def _neighbours(shards: Sequence[jax.Array], pattern: int) -> tuple[int, int]:
    found = [blocks.neighbours(x, np.uint32(pattern)) for x in shards]
    below, above = zip(*found, strict=True)
    return max(map(int, below)), min(map(int, above))


def _smallest_above(shards: Sequence[jax.Array], pattern: int) -> int:
    found = [blocks.smallest_above(x, np.uint32(pattern)) for x in shards]
    return min(map(int, found))


@jax.jit
def _join(shards: list[jax.Array]) -> jax.Array:
    flat = [shard.reshape(-1).astype(jnp.float32) for shard in shards]
    return jnp.concatenate(flat)


@functools.partial(jax.jit, static_argnums=1)
def _every(x: jax.Array, step: int) -> jax.Array:
    return blocks.patterns(x.reshape(-1)[::step])
