"""The tracker says what is wrong with its options and with a call."""

import jax.numpy as jnp
import numpy as np
import pytest

import igr

POINT = {"a": jnp.ones(4), "b": jnp.ones(2)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be at least 0, got -0.1"),
        ({"learning_rate": jnp.float32(-0.5)}, "learning_rate .*got Array.-0.5"),
        ({"learning_rate": float("inf")}, "learning_rate .* got inf"),
        ({"learning_rate": jnp.ones(2)}, r"learning_rate .* scalar, got shape \(2,\)"),
        ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"decay": np.float32(2.0)}, r"decay must be in \[0, 1\), got np.float32"),
        ({"curvature_every": -1}, "curvature_every must be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        igr.track_gradient_norm(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature_every": 2.0}, "curvature_every must be a Python integer"),
        ({"decay": "0.9"}, "decay must be a real number, got '0.9'"),
        ({"decay": (0.9, 0.99)}, "decay must be a real number, got .0.9, 0.99"),
        ({"decay": None}, "decay must be a real number, got None"),
        ({"learning_rate": 1j}, "learning_rate must be a real number, got 1j"),
    ],
)
def test_options_of_another_kind_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        igr.track_gradient_norm(**options)


def test_a_period_of_0_measures_nothing():
    tx = igr.track_gradient_norm(curvature_every=0)
    _, state = tx.update(POINT, tx.init(POINT))
    assert state.curvature is None
    assert state.squared_norm == 6.0


def test_missing_gradient_function_is_named():
    tx = igr.track_gradient_norm(curvature_every=2)
    with pytest.raises(ValueError, match="needs grad_fn; call update"):
        tx.update(POINT, tx.init(POINT), POINT)
    with pytest.raises(ValueError, match="needs params and grad_fn; call update"):
        tx.update(POINT, tx.init(POINT))


def test_the_decay_has_its_name():
    with pytest.raises(TypeError, match="positional"):
        igr.track_gradient_norm(0.1, 0.99)
