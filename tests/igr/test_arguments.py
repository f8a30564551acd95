"""Arguments that cannot be used are named, and traced ones pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr import arguments


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


def test_what_cannot_be_called_is_refused():
    arguments.require_callable("loss_fn", len)
    with pytest.raises(TypeError, match="loss_fn must be a function, got 3"):
        arguments.require_callable("loss_fn", 3)


@pytest.mark.parametrize(("argnum", "expected"), [(0, 0), (2, 2), (-1, 2), (-3, 0)])
def test_positions_are_counted_from_either_end(argnum, expected):
    assert arguments.position(argnum, 3) == expected


@pytest.mark.parametrize("argnum", [3, -4])
def test_a_position_outside_is_refused(argnum):
    with pytest.raises(ValueError, match=f"argnum={argnum} is not among the 3 posit"):
        arguments.position(argnum, 3)


def test_python_floats_may_be_penalised_and_integers_not():
    tree = arguments.as_floats(1, {"a": 0.5, "b": jnp.ones(2)})
    assert (tree["a"].dtype, tree["a"].shape) == (jnp.float32, ())
    for bad, kind in ((3, "int"), (jnp.arange(2), "int32"), (1j, "complex")):
        with pytest.raises(TypeError, match=rf"argument 1 .*, got {kind} at \['a'\]"):
            arguments.as_floats(1, {"a": bad})
