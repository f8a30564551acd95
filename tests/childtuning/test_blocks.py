"""Counts over bit patterns, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from childtuning import blocks
from expkit import testing


@pytest.fixture
def numbers():
    drawn = np.abs(np.random.default_rng(0).normal(size=70_001)).astype(np.float32)
    drawn[::7] = drawn[0]
    drawn[1::9] = 0.0
    return drawn


def test_patterns_are_ordered_as_the_numbers(numbers):
    patterns = np.asarray(blocks.patterns(jnp.asarray(numbers)))
    np.testing.assert_array_equal(
        np.argsort(patterns, kind="stable"), np.argsort(numbers, kind="stable")
    )
    assert blocks.patterns(jnp.float32(-0.0)) == 0
    for bad in (-1.0, np.inf, np.nan):
        assert blocks.patterns(jnp.float32(bad)) >= blocks.NOT_FINITE


@pytest.mark.parametrize("index", [0, 1, 5])
def test_counts_are_those_of_numpy(numbers, index):
    pattern = blocks.patterns(jnp.asarray(numbers))[index]
    value = numbers[index]
    above = numbers[numbers > value].min()
    got = blocks.smallest_above(jnp.asarray(numbers), pattern)
    assert got == blocks.patterns(jnp.float32(above))


@pytest.mark.parametrize("index", [0, 3, 5])
def test_neighbours_of_a_bound_are_those_of_numpy(numbers, index):
    value = numbers[index]
    assert value > 0.0
    bound = blocks.patterns(jnp.float32(value))
    for pattern, below in ((bound, numbers < value), (bound + 1, numbers <= value)):
        got = blocks.neighbours(jnp.asarray(numbers), pattern)
        expected = [numbers[below].max(), numbers[~below].min()]
        np.testing.assert_array_equal(got, np.array(expected).view(np.uint32))


@pytest.mark.parametrize(
    ("low", "shift"), [(0, 29), (0, 24), (0x3F000000, 21), (0x3F000000, 0)]
)
def test_digits_are_counted_as_by_numpy(numbers, low, shift):
    numbers[2:2001:2] = 0.5  # the pattern of which is the second window's begin
    numbers[3:300:3] = np.nextafter(np.float32(0.5), np.float32(1.0))
    digits = (numbers.view(np.uint32).astype(int) - low) >> shift
    expected = [np.sum(digits == digit) for digit in range(8)]
    window = jnp.asarray(numbers), jnp.uint32(low), jnp.uint32(shift)
    np.testing.assert_array_equal(blocks.count_digits(*window), expected)
    first, num_at_least, largest = blocks.count_first_digits(*window)
    np.testing.assert_array_equal(first, expected)
    assert num_at_least == (numbers.view(np.uint32) >= low).sum()
    assert largest == numbers.view(np.uint32).max()
    assert sum(n % 2 for n in expected)  # the lowest bit of a counter matters
    assert low == 0 or expected[0] >= 900


def test_every_block_has_a_count_of_its_own(numbers):
    numbers = numbers[:70_000].reshape(7, 10_000)
    value = numbers[0, 0]
    pattern = blocks.patterns(jnp.float32(value))
    got = blocks.count_equal(jnp.asarray(numbers), pattern)
    parts = [numbers.ravel()[i * 2**15 : (i + 1) * 2**15] for i in range(3)]
    np.testing.assert_array_equal(got, [(part == value).sum() for part in parts])
    assert (got > 0).all()


def test_a_second_count_compiles_nothing(numbers):
    first, second = jnp.asarray(numbers), jnp.asarray(2.0 * numbers)
    low, shift = jnp.uint32(0), jnp.uint32(29)
    counts = {
        blocks.neighbours: (low,),
        blocks.smallest_above: (low,),
        blocks.count_equal: (low,),
        blocks.count_digits: (low, shift),
        blocks.count_first_digits: (low, shift),
    }
    for count, arguments in counts.items():
        count(first, *arguments)
        with testing.count_compilations() as log:
            count(second, *arguments)
        assert not log.names
