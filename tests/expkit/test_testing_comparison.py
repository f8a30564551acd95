import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit.testing import (
    Check,
    TraceCounter,
    assert_tree_finite,
    assert_trees_close,
    assert_trees_equal,
    count_compilations,
)

CLOSE = {"rtol": 1e-3, "atol": 0.0}


def test_the_worst_element_is_named():
    got = {"layer": [jnp.array([[1.0, 2.0], [3.0, 4.0]])]}
    expected = {"layer": [jnp.array([[1.0, 2.1], [3.5, 4.0]])]}
    message = r"state, leaf \['layer'\]\[0\]: got 3\.0, expected 3\.5 at index \(1, 0\)"
    with pytest.raises(AssertionError, match=message):
        assert_trees_close(got, expected, "state", **CLOSE)


def test_values_within_the_tolerance_are_close():
    assert_trees_close(jnp.array([1.0005]), jnp.array([1.0]), "x", **CLOSE)
    special = jnp.array([jnp.nan, jnp.inf, -jnp.inf])
    assert_trees_close(special, special, "x", **CLOSE)
    half = jnp.ones(2, jnp.bfloat16)
    assert_trees_close(half, jnp.ones(2), "x", **CLOSE)


@pytest.mark.parametrize(
    ("got", "expected", "message"),
    [
        ({"a": 1.0}, {"b": 1.0}, "got the structure"),
        ((1.0, None), (1.0, 2.0), "got the structure"),
        (np.ones(2), np.ones(3), r"leaf \(root\): got shape \(2,\), expected \(3,\)"),
        (np.array([np.nan, 1.0]), np.ones(2), r"got nan, expected 1\.0 at index \(0,"),
        (np.array([0.0, np.inf]), np.zeros(2), r"got inf, expected 0\.0 at index \(1,"),
    ],
)
def test_differences_are_not_close(got, expected, message):
    with pytest.raises(AssertionError, match=message):
        assert_trees_close(got, expected, "x", **CLOSE)


@pytest.mark.parametrize(
    ("got", "expected", "message"),
    [
        (np.float32(1.0), np.float32(1.0000001), "bits differ"),
        (np.array([-0.0]), np.array([0.0]), "bits differ"),
        (np.ones(1, np.float32), np.ones(1), "got dtype float32, expected float64"),
        (jax.random.key(0), jax.random.key(1), "bits differ: got 0, expected 1"),
    ],
)
def test_bits_are_compared(got, expected, message):
    assert_trees_equal(got, got, "x")
    with pytest.raises(AssertionError, match=message):
        assert_trees_equal(got, expected, "x")


def test_the_first_value_that_is_not_finite_is_named():
    assert_tree_finite({"n": jnp.arange(3), "x": jnp.ones(2), "none": None}, "x")
    tree = {"n": jnp.arange(3), "x": jnp.array([[1.0, jnp.inf]], jnp.bfloat16)}
    with pytest.raises(
        AssertionError, match=r"updates, leaf \['x'\]: got inf at index"
    ):
        assert_tree_finite(tree, "updates")


def test_compilations_are_counted_and_logging_restored():
    logger = logging.getLogger("jax")
    before = logger.handlers[:], logger.propagate, jax.config.jax_log_compiles
    step = jax.jit(lambda x: 2 * x + 1)
    x, y = np.ones(3, np.float32), np.ones(4, np.float32)
    with count_compilations() as log:
        step(x)
        step(x)
        assert len(log.names) == 1
        step(y)
    assert len(log.names) == 2
    step(np.ones(5, np.float32))
    assert len(log.names) == 2
    assert before == (logger.handlers, logger.propagate, jax.config.jax_log_compiles)


def test_traces_are_counted():
    counter = TraceCounter()
    step = jax.jit(counter.wrap(lambda x: x))
    for shape in (2, 2, 3):
        step(jnp.ones(shape))
    assert counter.count == 2


def test_a_check_reports_any_exception_as_a_failure_of_its_property():
    def raises():
        raise TypeError("no such thing")

    check = Check("name", "It does not raise.", raises)
    message = r"name: raised TypeError: no such thing\n  property: It does not raise\."
    with pytest.raises(AssertionError, match=message):
        check()
