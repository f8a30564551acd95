"""Functions, positions and penalised arguments that cannot be used are named."""

import jax.numpy as jnp
import pytest

from igr import arguments


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


def test_what_converts_itself_to_an_array_is_one():
    class Wrapped:
        dtype = jnp.dtype("float32")

        def __jax_array__(self):
            return jnp.ones(2)

    assert arguments.is_array(Wrapped())
    assert not arguments.is_array(jnp.float32)
