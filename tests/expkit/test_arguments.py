"""Arguments that cannot be used are named, and traced ones pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from expkit import arguments


def positive(value):
    arguments.require_scalar("radius", value, "above 0", lambda x: x > 0)


@pytest.mark.parametrize(
    "value", [1, 0.5, np.float32(2.0), np.int64(3), jnp.ones(()), jnp.bfloat16(1.0)]
)
def test_numbers_and_arrays_without_axes_pass(value):
    positive(value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.0, ValueError, "radius must be above 0, got 0.0"),
        (np.float32(-1.0), ValueError, "radius must be above 0, got "),
        (jnp.array(-1.0), ValueError, "radius must be above 0, got "),
        (float("nan"), ValueError, "radius must be above 0, got nan"),
        (float("inf"), ValueError, "radius must be above 0, got inf"),
        (10**400, ValueError, "radius must be above 0, got 1000"),
        (np.ones(2), ValueError, r"radius must be a scalar, got shape \(2,\)"),
        ("a", TypeError, "radius must be a real number, got 'a'"),
        (None, TypeError, "radius must be a real number, got None"),
        (1 + 1j, TypeError, "radius must be a real number"),
        (np.complex64(1.0), TypeError, "radius must be a real number"),
        (True, TypeError, "radius must be a real number, got True"),
        (lambda step: 0.1, TypeError, "radius must be a real number"),
    ],
)
def test_others_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        positive(value)


def test_traced_values_pass_and_their_shape_does_not():
    jax.jit(positive)(-1.0)
    with pytest.raises(ValueError, match="radius must be a scalar"):
        jax.jit(positive)(jnp.ones(3))


def test_counts_are_integers_in_range():
    assert arguments.require_count("n", np.int32(3)) == 3
    assert arguments.require_count("n", 3, largest=3) == 3
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        arguments.require_count("n", 0)
    with pytest.raises(ValueError, match="n must be between 1 and 3, got 4"):
        arguments.require_count("n", 4, largest=3)
    for value in (1.0, True, "1"):
        with pytest.raises(TypeError, match="n must be an integer"):
            arguments.require_count("n", value)


def test_a_traced_count_is_refused():
    with pytest.raises(TypeError, match="n must be an integer known in advance"):
        jax.jit(lambda n: arguments.require_count("n", n))(3)


def test_the_nearest_name_is_proposed():
    arguments.require_choice("reduction", "sum", ("sum", "mean"))
    with pytest.raises(ValueError, match=r"reduction.*'means'.*Did you mean 'mean'"):
        arguments.require_choice("reduction", "means", ("sum", "mean"))
    with pytest.raises(ValueError, match=r"one of sum, mean, got None\.$"):
        arguments.require_choice("reduction", None, ("sum", "mean"))


def test_only_real_floating_point_arrays_pass():
    for dtype in ("float16", "bfloat16", "float32"):
        arguments.require_floating("x", jnp.ones(2, dtype))
    for dtype in ("int32", "uint8", "bool", "complex64"):
        with pytest.raises(TypeError, match=f"x must be real .*, got {dtype}; use"):
            arguments.require_floating("x", jnp.ones(2, dtype))


def test_shapes_are_not_broadcast():
    arguments.require_shape("s", jnp.ones((2, 3)), (2, 3))
    with pytest.raises(ValueError, match=r"s must have the shape \(2, 3\), got \(3,\)"):
        arguments.require_shape("s", jnp.ones(3), (2, 3))
    with pytest.raises(ValueError, match=r"s and t must have one shape, got \(3,\)"):
        arguments.require_same_shape(("s", "t"), jnp.ones(3), jnp.ones((1, 3)))


def test_masks_are_boolean():
    assert arguments.require_mask("mask", np.ones(3, bool)).dtype == bool
    with pytest.raises(TypeError, match=r"mask must be boolean, .*; pass mask != 0"):
        arguments.require_mask("mask", np.ones(3))


def test_tracers_are_not_concrete():
    assert arguments.is_concrete(np.float32(1.0))
    assert arguments.is_concrete([1.0, [np.float32(2.0)], None])
    assert jax.jit(lambda x: jnp.array(arguments.is_concrete([0.0, x])))(1.0) == False  # noqa: E712
    assert jax.jit(lambda x: jnp.array(arguments.is_concrete(x)))(1.0) == False  # noqa: E712


def test_a_parameter_of_flax_is_what_it_holds():
    assert arguments.is_concrete(nnx.Param(jnp.ones(())))
    jax.jit(lambda x: positive(nnx.Param(x)))(-1.0)
    with pytest.raises(ValueError, match="radius must be above 0"):
        positive(nnx.Param(jnp.array(-1.0)))


def test_masks_may_be_broadcast():
    with pytest.raises(TypeError, match="where must be boolean"):
        arguments.broadcast_mask(np.ones(3), (2, 3))
    assert arguments.broadcast_mask(None, (2, 3)).all()
    mask = arguments.broadcast_mask(np.array([True, False, True]), (2, 3))
    np.testing.assert_array_equal(mask, [[True, False, True]] * 2)
    with pytest.raises(ValueError, match=r"where must broadcast to .*2, 3.*got \(4,\)"):
        arguments.broadcast_mask(np.ones(4, bool), (2, 3))


@pytest.mark.parametrize(
    ("value", "is_real"),
    [
        (1, True),
        (0.5, True),
        (np.float16(1.0), True),
        (jnp.ones(3, jnp.bfloat16), True),
        (np.arange(2), True),
        (True, False),
        (np.bool_(True), False),
        (1j, False),
        (jnp.ones(2, complex), False),
        ("1", False),
        (None, False),
    ],
)
def test_bools_and_complex_numbers_are_not_real(value, is_real):
    assert arguments.is_real(value) == is_real


def test_keys_are_not_real():
    assert not arguments.is_real(jax.random.key(0))


def test_complex_arrays_would_lose_their_imaginary_part():
    np.testing.assert_array_equal(arguments.as_real("x", [1, 2.5]), [1, 2.5])
    with pytest.raises(TypeError, match="x must be real, got complex64"):
        arguments.as_real("x", np.ones(2, np.complex64))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_narrow_integers_become_wide_and_others_stay(dtype):
    x = jnp.array([0, 100], dtype)
    wide = arguments.wide_integers(x)
    np.testing.assert_array_equal(wide, x)
    assert wide.dtype == (jnp.int32 if x.dtype.itemsize < 4 else x.dtype)
    assert (wide < 300).all()


def test_counts_may_begin_at_zero():
    assert arguments.require_count("n", np.int8(0), smallest=0) == 0
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        arguments.require_count("n", -1, smallest=0)
    with pytest.raises(ValueError, match="n must be between 0 and 3, got 4"):
        arguments.require_count("n", 4, 3, smallest=0)


def test_integers_that_32_bits_cannot_hold_do_not_become_others():
    got = arguments.as_integers("labels", np.array([2**32, -(2**40), 5]))
    np.testing.assert_array_equal(got, [2**31 - 1, -(2**31), 5])
    assert np.asarray(np.int64(2**32)).astype(np.int32) == 0  # the control
    with jax.enable_x64(True):
        assert arguments.as_integers("labels", np.array([2**32]))[0] == 2**32
    assert arguments.as_integers("labels", [[1, 2]]).dtype == jnp.int32


@pytest.mark.parametrize("value", [[0.5], [True], ["a"]])
def test_what_is_no_integer_is_named(value):
    with pytest.raises(TypeError, match=r"^labels must be integers, got "):
        arguments.as_integers("labels", value)
