"""Packed bools, against numpy's own packing."""

import jax.numpy as jnp
import numpy as np
import pytest

from childtuning import bits


@pytest.mark.parametrize("shape", [(), (0,), (5,), (16,), (3, 8), (3, 7), (2, 0, 8)])
def test_bools_come_back_and_take_an_eighth_of_a_byte(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    packed = bits.pack(jnp.asarray(mask))
    assert packed.dtype == jnp.uint8
    assert packed.size == -(-mask.size // 8)
    np.testing.assert_array_equal(bits.unpack(packed, shape), mask)


def test_bits_are_those_of_numpy():
    mask = np.random.default_rng(0).random(37) < 0.5
    np.testing.assert_array_equal(bits.pack(mask), np.packbits(mask))
