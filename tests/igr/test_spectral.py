"""The spectral norm and its derivatives against numpy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.spectral import spectral_norm

SHAPES = [(1, 4), (4, 1), (3, 5), (5, 3), (4, 4)]


def matrix(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def with_singular_values(values, shape=(4, 5)):
    u, _, vt = np.linalg.svd(matrix(shape), full_matrices=False)
    return u @ np.diag(values) @ vt


MATRICES = {
    "general": matrix((4, 5)),
    "two equal below": with_singular_values([3.0, 1.0, 1.0, 0.5]),
    "dead units": with_singular_values([3.0, 1.0, 0.0, 0.0]),
    "rank one": with_singular_values([3.0, 0.0, 0.0, 0.0]),
    "tall": matrix((6, 3)),
    "row": matrix((1, 4)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_value_is_that_of_numpy(shape):
    a = matrix(shape)
    got = jax.jit(spectral_norm)(jnp.float32(a))
    np.testing.assert_allclose(got, np.linalg.norm(a, 2), rtol=1e-6)


@jax.jit
def derivatives(a, direction):
    return jax.value_and_grad(jax.grad(lambda t: spectral_norm(a + t * direction)))(0.0)


@pytest.mark.parametrize("a", MATRICES.values(), ids=MATRICES)
def test_two_derivatives_are_those_of_finite_differences(a):
    direction, step = matrix(a.shape, 1), 1e-3

    def along(t):
        return np.linalg.norm(a + t * direction, 2)

    near, far = [along(k * step) + along(-k * step) - 2 * along(0.0) for k in (1, 2)]
    second = (16 * near - far) / (12 * step**2)
    near, far = [along(k * step) - along(-k * step) for k in (1, 2)]
    first = (8 * near - far) / (12 * step)
    with jax.enable_x64(True):
        got = derivatives(a, direction)
        np.testing.assert_allclose(got[0], first, rtol=1e-9)
        np.testing.assert_allclose(got[1], second, rtol=1e-6)


def test_the_derivatives_of_the_svd_are_not_finite_there():
    # The control: why this function exists.
    a = jnp.diag(jnp.array([3.0, 1.0, 0.0, 0.0]))
    control = jax.jit(jax.hessian(lambda a: jnp.linalg.norm(a, 2)))(a)
    assert not np.all(np.isfinite(control))
    assert np.all(np.isfinite(jax.jit(jax.hessian(spectral_norm))(a)))


@pytest.mark.parametrize("a", [jnp.zeros((3, 2)), jnp.eye(3)], ids=["zeros", "eye"])
def test_derivatives_are_finite_where_there_are_none(a):
    evaluate = jax.value_and_grad(spectral_norm)
    (value, gradient), (_, hessian) = jax.jit(
        lambda a: (evaluate(a), jax.jacfwd(evaluate)(a))
    )(a)
    assert np.all(np.isfinite(hessian))
    # A subgradient has nuclear norm at most 1, and agrees with the value.
    assert np.sum(np.linalg.svd(gradient, compute_uv=False)) <= 1.0 + 1e-6
    np.testing.assert_allclose(np.sum(gradient * a), value, atol=1e-6)


def test_a_batch_of_matrices_is_a_loop_over_them():
    batch = jnp.float32(matrix((6, 3, 4)))
    one = jax.jit(jax.value_and_grad(spectral_norm))
    got = jax.jit(jax.vmap(one))(batch)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(one, batch))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected
    )
