"""Rotary positions against complex numbers, in every precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import testing
from expkit.rotary import rotary

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 5, 6))
POSITIONS = np.array([0, 1, 5, 63, 1000])


def turned(x, positions):
    """The rotation as a product of complex numbers, in float64."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-12), ("float32", 2e-4), ("bfloat16", 0.02), ("float16", 2e-3)],
)
def test_it_is_a_turn_in_the_complex_plane_that_keeps_the_dtype(dtype, tolerance):
    # A position of 1000 costs three digits of the angle in float32.
    with jax.enable_x64(dtype == "float64"):
        got = rotary(jnp.asarray(X, dtype), POSITIONS)
        assert got.dtype == dtype
        got = np.asarray(got, np.float64)
    np.testing.assert_allclose(got, turned(X, POSITIONS), atol=tolerance)


def test_products_depend_on_the_difference_of_positions_only():
    with jax.enable_x64(True):
        q, k = RNG.normal(size=(2, 5, 6))

        def scores(positions):
            return rotary(q, positions) @ rotary(k, positions).T

        near, far = (scores(np.arange(5) + shift) for shift in (0, 200))
        np.testing.assert_allclose(near, far, rtol=0, atol=1e-12)
        assert np.abs(scores(2 * np.arange(5)) - near).max() > 0.1  # the control
        assert np.abs(near - near.T).max() > 0.1


def test_norms_stay_and_position_zero_changes_nothing():
    x = X.astype(np.float32)
    got = rotary(x, POSITIONS)
    np.testing.assert_allclose(
        np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
    )
    np.testing.assert_array_equal(got[..., 0, :], x[..., 0, :])


def test_it_can_be_jitted_batched_and_differentiated():
    x = jnp.asarray(X, jnp.float32)

    def total(x):
        return jnp.sum(rotary(x, POSITIONS) ** 2)

    jitted = jax.jit(rotary)(x, POSITIONS)
    np.testing.assert_allclose(jitted, rotary(x, POSITIONS), atol=1e-6)
    batched = jax.vmap(lambda x: rotary(x, POSITIONS))(x)
    testing.assert_trees_close(batched, jitted, "vmap", rtol=1e-5, atol=1e-6)
    # The norm is that of x, so the gradient is 2 x.
    np.testing.assert_allclose(jax.grad(total)(x), 2 * x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_what_cannot_be_turned_is_named(dtype):
    with pytest.raises(TypeError, match=f"x must be real floating.*, got {dtype}"):
        rotary(jnp.ones((5, 6), dtype), POSITIONS)


@pytest.mark.parametrize(
    ("shape", "positions", "message"),
    [
        ((5, 7), POSITIONS, r"with an even d, got shape \(5, 7\)"),
        ((6,), POSITIONS, r"x must be \[..., n, d\]"),
        ((4, 6), POSITIONS, r"positions must be \[n\] = \[4\], got shape \(5,\)"),
        ((5, 6), POSITIONS[:, None], r"got shape \(5, 1\)"),
    ],
)
def test_bad_input_is_named(shape, positions, message):
    with pytest.raises(ValueError, match=message):
        rotary(np.ones(shape), positions)
