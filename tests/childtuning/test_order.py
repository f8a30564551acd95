"""Order statistics of concrete arrays, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from childtuning import blocks, order


@pytest.fixture
def parts():
    drawn = np.abs(np.random.default_rng(0).normal(size=9_000)).astype(np.float32)
    drawn[::5] = drawn[0]
    return [drawn[:4_000].reshape(40, 100), drawn[4_000:]]


@pytest.mark.parametrize("k", [1, 500, 3_000, 9_000])
def test_the_kth_largest_is_that_of_a_sort(parts, k):
    numbers = np.concatenate([part.ravel() for part in parts])
    value = np.sort(numbers)[-k]
    found = order.select(order.local_shards([jnp.asarray(p) for p in parts]), k)
    assert found.pattern == blocks.patterns(jnp.float32(value))
    assert found.num_at_least == (numbers >= value).sum()


@pytest.mark.parametrize("value", [0.25, 0.5, 1.0])
def test_a_power_of_two_is_found_where_it_is_the_kth_largest(parts, value):
    """It begins the window that exactly the k largest fill."""
    parts[1][7] = value
    numbers = np.concatenate([part.ravel() for part in parts])
    k = int((numbers >= value).sum())
    found = order.select(order.local_shards([jnp.asarray(p) for p in parts]), k)
    assert found == (blocks.patterns(jnp.float32(value)), k)


@pytest.mark.parametrize("seen", [7.0, 0.0])
def test_a_sample_that_misleads_changes_nothing(monkeypatch, seen):
    monkeypatch.setattr(order, "SAMPLE", 2**9)
    numbers = np.random.default_rng(0).random(2 * blocks.BLOCK, np.float32)
    numbers[:: len(numbers) // 2**9] = seen  # all that the sample sees
    k = len(numbers) // 3
    found = order.select(order.local_shards([jnp.asarray(numbers)]), k)
    value = np.sort(numbers)[-k]
    assert found.pattern == blocks.patterns(jnp.float32(value))
    assert found.num_at_least == (numbers >= value).sum()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.77])
def test_the_percentile_selects_what_numpys_does(parts, fraction):
    numbers = np.concatenate([part.ravel() for part in parts])
    shards = order.local_shards([jnp.asarray(part) for part in parts])
    pattern = order.percentile(shards, fraction)
    kept = np.asarray(blocks.patterns(jnp.asarray(numbers))) >= np.uint32(pattern)
    threshold = np.percentile(numbers, 100 * fraction)
    np.testing.assert_array_equal(kept, numbers >= threshold)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.4.0",
    reason="numpy before 2.4 rounds the place of a percentile to float32",
)
@pytest.mark.parametrize("gap", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.52, 0.7, 1.0])
def test_the_percentile_is_numpys_to_the_last_bit(gap, fraction):
    # Around the position that is asked for, entries that are this far apart in bits.
    bits = np.random.default_rng(0).permutation(70_000) // 3 * gap + 0x3F000000
    numbers = bits.astype(np.uint32).view(np.float32)
    shards = order.local_shards([jnp.asarray(numbers)])
    expected = np.percentile(numbers, 100 * fraction)
    assert expected.dtype == np.float32
    assert order.percentile(shards, fraction) == expected.view(np.uint32)


@pytest.mark.parametrize("spec", [(), ("data",), (None, "data")])
@pytest.mark.parametrize("surplus", [1, 2, 3, 17, 47, 48, 60])
def test_the_last_of_equal_entries_go_wherever_the_shards_lie(spec, surplus):
    numbers = np.zeros((16, 12), np.float32)
    numbers[:, ::4] = 2.0
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    array = jax.device_put(numbers, NamedSharding(mesh, PartitionSpec(*spec)))
    (places,) = np.nonzero(numbers.reshape(-1))
    end, dropped = order.end_without_last(
        array, int(blocks.patterns(jnp.float32(2.0))), surplus
    )
    assert dropped == min(surplus, len(places))
    kept = places[: len(places) - dropped]
    assert set(places[places < end]) == set(kept)


@pytest.mark.parametrize("size", [2, 5, 1000])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.77, 1.0])
def test_the_position_of_a_percentile_is_numpys(size, fraction):
    index, weight = order.percentile_position(size, fraction)
    assert 0.0 <= weight < 1.0
    expected = np.percentile(np.arange(size), 100 * fraction)
    np.testing.assert_allclose(index + weight, expected, rtol=1e-12)
