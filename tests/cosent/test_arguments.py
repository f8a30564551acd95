"""Arguments are checked where they are known, and compared without rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cosent import arguments


def test_numbers_that_jax_would_narrow_are_ranked():
    got = arguments.comparable("x", [0.3, 0.1 + 0.2, 0.3])
    np.testing.assert_array_equal(got, [0, 1, 0])
    assert got.dtype == jnp.int32
    got = arguments.comparable("x", np.array([2.0, np.nan, 1.0]))
    np.testing.assert_array_equal(got, [1.0, np.nan, 0.0])
    with jax.enable_x64(True):
        got = arguments.comparable("x", [0.3, 0.1 + 0.2])
        np.testing.assert_array_equal(got, [0.3, 0.1 + 0.2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8", "bool"])
def test_other_numbers_are_left_alone(dtype):
    x = np.array([3, 1, 2]).astype(dtype)
    got = arguments.comparable("x", x)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x)


def test_a_traced_scale_is_not_checked():
    assert jax.jit(lambda x: arguments.require_scale(x) or x)(-1.0) == -1.0


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan, jnp.float32(0.0)])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        arguments.require_scale(value)


@pytest.mark.parametrize("value", ["20", None, True, jnp.array(True)])
def test_a_scale_must_be_a_number(value):
    with pytest.raises(TypeError, match="scale must be a real number"):
        arguments.require_scale(value)


def test_a_scale_must_be_one_number():
    with pytest.raises(ValueError, match=r"scale must be a scalar, got shape \(2,\)"):
        arguments.require_scale(jnp.ones(2))


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 1), (2, 1)), ((0,), (0,))])
def test_rows_have_one_length_and_one_axis(shapes):
    arguments.require_rows(("u", "v"), jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"u and v must have one shape \[n\]"):
        arguments.require_rows(("u", "v"), *map(jnp.zeros, shapes))


def test_vectors_of_two_sets_share_their_dimension():
    rows = jnp.zeros((2, 5)), jnp.zeros((3, 5))
    arguments.require_vectors(*rows, is_paired=False)
    for u, v in ((jnp.zeros((4, 3)), jnp.zeros((3, 4))), (rows[0], rows[1].T)):
        with pytest.raises(ValueError, match=r"shapes \[m, dim\] and \[n, dim\], got"):
            arguments.require_vectors(u, v, is_paired=False)
    with pytest.raises(ValueError, match=r"one shape \[..., dim\]"):
        arguments.require_vectors(*rows, is_paired=True)
