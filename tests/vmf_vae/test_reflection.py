import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmf_vae.reflection import reflect, reflect_parts, reflection_matrix


def directions(dim):
    random = np.random.default_rng(dim).normal(size=(5, dim))
    random /= np.linalg.norm(random, axis=-1, keepdims=True)
    first, last = np.eye(dim)[[0, -1]]
    return jnp.array([*random, first, -first, last], jnp.float32)


@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow), 50])
def test_first_axis_goes_to_the_mean_direction(dim):
    mu = directions(dim)
    first = np.eye(1, dim, dtype=np.float32).repeat(len(mu), axis=0)
    np.testing.assert_allclose(jax.jit(reflect)(mu, first), mu, atol=1e-6)


@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow), 50])
def test_it_is_orthogonal_and_its_own_inverse(dim):
    mu = directions(dim)
    matrix = np.asarray(reflection_matrix(mu), float)
    eye = np.broadcast_to(np.eye(dim), matrix.shape)
    np.testing.assert_allclose(matrix @ matrix, eye, atol=3e-6)
    np.testing.assert_allclose(matrix, matrix.swapaxes(-1, -2), atol=1e-7)
    x = jax.random.normal(jax.random.key(0), mu.shape)
    np.testing.assert_allclose(
        reflect(mu, x), np.einsum("bij,bj->bi", matrix, x), atol=3e-6
    )


@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow), 50])
def test_parts_are_reflected_like_the_whole(dim):
    mu = directions(dim)
    first, scale = jax.random.normal(jax.random.key(1), (2, len(mu)))
    rest = jax.random.normal(jax.random.key(2), mu.shape)
    x = np.concatenate([first[:, None], scale[:, None] * rest[:, 1:]], axis=1)
    expected = np.empty_like(x)
    for row, (m, vector) in enumerate(zip(np.asarray(mu, float), x, strict=True)):
        sign = 1.0 if m[0] >= 0 else -1.0
        u = m + sign * np.eye(dim)[0]
        expected[row] = sign * (2.0 * u * (u @ vector) / (u @ u) - vector)
    got = reflect_parts(mu, first, scale, rest)
    np.testing.assert_allclose(got, expected, atol=3e-6)
    for row in range(len(mu)):  # one mean direction for all is a product with a matrix
        got = reflect_parts(mu[row], first, scale, rest)[row]
        np.testing.assert_allclose(got, expected[row], atol=3e-6)


def test_gradient_is_finite_at_both_ends_of_the_first_axis():
    x = jnp.array([0.3, 0.4, 0.5])
    for sign in (1.0, -1.0):
        mu = jnp.array([sign, 0.0, 0.0])
        jacobian = jax.jit(jax.jacobian(lambda mu: reflect(mu, x)))(mu)
        assert np.isfinite(jacobian).all()
