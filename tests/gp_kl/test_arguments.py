"""One error for each argument that cannot be used; traced values pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gp_kl import arguments


def test_sizes_are_integers_of_at_least_1():
    assert arguments.require_size("n", np.int32(3)) == 3
    with pytest.raises(ValueError, match=r"n must be .*got 0"):
        arguments.require_size("n", 0)
    for value in (1.0, True, "1"):
        with pytest.raises(TypeError, match="n must be an integer"):
            arguments.require_size("n", value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), np.ones(2)])
def test_coefficients_that_cannot_be_used_are_named(value):
    with pytest.raises(ValueError, match="alpha must be"):
        arguments.require_scalar("alpha", value)


def test_zero_is_refused_where_it_has_no_meaning():
    arguments.require_scalar("alpha", 0.0)
    with pytest.raises(ValueError, match=r"temperature must be .*got 0"):
        arguments.require_scalar("temperature", 0.0, above_zero=True)
    with pytest.raises(TypeError, match="alpha"):
        arguments.require_scalar("alpha", "1")


def test_traced_coefficients_pass_if_they_are_scalars():
    check = jax.jit(lambda x: arguments.require_scalar("alpha", x) or x)
    assert check(-1.0) == -1.0
    with pytest.raises(ValueError, match="alpha"):
        check(jnp.ones(2))


def test_the_nearest_name_is_proposed():
    arguments.require_choice("reduction", "sum", ("sum", "mean"))
    with pytest.raises(ValueError, match=r"reduction.*'means'.*mean"):
        arguments.require_choice("reduction", "means", ("sum", "mean"))


def test_shapes_are_not_broadcast():
    arguments.require_shape("s", jnp.ones((2, 3)), (2, 3))
    with pytest.raises(ValueError, match=r"s must have the shape \(2, 3\), got \(3,\)"):
        arguments.require_shape("s", jnp.ones(3), (2, 3))


def test_masks_are_boolean_and_may_be_broadcast():
    with pytest.raises(TypeError, match="mask must be"):
        arguments.require_mask("mask", np.ones(3))
    assert arguments.broadcast_mask(None, (2, 3)).all()
    mask = arguments.broadcast_mask(np.array([True, False, True]), (2, 3))
    np.testing.assert_array_equal(mask, [[True, False, True]] * 2)
    with pytest.raises(ValueError, match="where"):
        arguments.broadcast_mask(np.ones(4, bool), (2, 3))
