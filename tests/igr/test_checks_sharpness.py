"""The largest Hessian eigenvalue against dense linear algebra in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from expkit import testing
from igr.checks_sharpness import largest_eigenvalue


def quadratic(params, matrix):
    return 0.5 * params @ matrix @ params


def spectrum(values):
    """A matrix with known eigenvalues and no preferred axes."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(len(values),) * 2))[0]
    return (basis * values) @ basis.T


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0.1, 5.0, 40),
        np.linspace(-7.0, -0.5, 40),  # all negative: the one nearest to 0
        np.linspace(-100.0, 3.0, 40),  # the largest is not the largest in size
        np.array([1.0, 2.0]),
        np.array([2.0, 2.0, 2.0]),  # Lanczos breaks down at once
        np.zeros(5),  # and has nothing to begin with
    ],
    ids=["positive", "negative", "indefinite", "two", "multiple", "zero"],
)
def test_the_spectrum_of_a_quadratic_is_found(values):
    matrix = spectrum(values).astype(np.float32)
    start = np.ones(len(values), np.float32)
    got = largest_eigenvalue(quadratic, start, matrix)
    assert got == pytest.approx(values.max(), rel=1e-4)


@pytest.mark.parametrize("slope", [3.0, -3.0])
def test_one_parameter_has_its_second_derivative(slope):
    got = largest_eigenvalue(lambda p: slope * jnp.sin(p["a"]), {"a": jnp.array(0.4)})
    assert got == pytest.approx(-slope * np.sin(0.4), rel=1e-6)


def loss(params, x, y):
    w, b, v = (params[name] for name in "wbv")
    return jnp.mean((jnp.tanh(x @ w + b[None]) @ v - y) ** 2)


def example(seed):
    rng = np.random.default_rng(seed)
    params = {
        "w": rng.normal(size=(3, 5)),
        "b": rng.normal(size=5),
        "v": rng.normal(size=5),
    }
    return params, rng.normal(size=(16, 3)), rng.normal(size=16)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_dense_hessian_of_a_network_agrees(seed):
    with jax.enable_x64(True):
        params, x, y = example(seed)
        flat, unflatten = ravel_pytree(params)
        dense = jax.jit(jax.hessian(lambda flat: loss(unflatten(flat), x, y)))(flat)
        expected = np.linalg.eigvalsh(dense)
        got = largest_eigenvalue(loss, params, x, y, rtol=1e-10)
    assert got == pytest.approx(expected[-1], rel=1e-9)
    assert got != pytest.approx(expected[-2], rel=1e-2)
    single = jax.tree.map(lambda a: a.astype(np.float32), (params, x, y))
    got = largest_eigenvalue(loss, *single)
    assert got == pytest.approx(expected[-1], rel=1e-4)
    assert largest_eigenvalue(loss, *single) == got


def test_new_parameters_and_data_compile_nothing():
    first, second = (
        jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), example(seed))
        for seed in (2, 3)
    )
    largest_eigenvalue(loss, *first)
    with testing.count_compilations() as log:
        largest_eigenvalue(loss, *second)
    assert log.names == []


def test_no_parameters_are_refused():
    with pytest.raises(ValueError, match="params must hold at least one number"):
        largest_eigenvalue(loss, {})
