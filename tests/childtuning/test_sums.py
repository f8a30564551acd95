"""Order statistics of traced arrays, against numpy's sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from childtuning import blocks, sums


@pytest.mark.parametrize("k", [1, 2, 50, 99, 100])
def test_the_kth_largest_is_that_of_a_sort(k):
    numbers = np.abs(np.random.default_rng(0).normal(size=100)).astype(np.float32)
    numbers[10:40] = numbers[0]
    parts = [jnp.asarray(numbers[:30]), jnp.asarray(numbers[30:])]
    found = jax.jit(lambda parts: sums.select(parts, k))(parts)
    assert found == blocks.patterns(jnp.float32(np.sort(numbers)[-k]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_end_of_the_first_is_behind_as_many(count):
    numbers = jnp.array([2.0, 1.0, 2.0, 5.0, 2.0])
    end = sums.end_of_first(numbers, blocks.patterns(jnp.float32(2.0)), count)
    assert end == [1, 3, 5][count - 1]


def test_flat_indices_count_in_the_order_of_rows():
    np.testing.assert_array_equal(
        sums.flat_index((3, 4, 2)), np.arange(24).reshape(3, 4, 2)
    )
