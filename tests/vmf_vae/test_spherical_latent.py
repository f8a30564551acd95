"""The latent on the sphere: safe directions, and a KL that knows no encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vmf_vae.spherical_latent import VMFLatent, unit_vector


def test_directions_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(7, 5))
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_vector(jnp.array(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e30])
def test_directions_and_their_gradients_survive_extreme_lengths(size):
    x = jnp.array([3.0, -4.0]) * size
    np.testing.assert_allclose(unit_vector(x), [0.6, -0.8], rtol=1e-6)
    jacobian = jax.jit(jax.jacobian(unit_vector))(x) * (5.0 * size)
    # (I - u u^T) / |x|
    np.testing.assert_allclose(jacobian, [[0.64, 0.48], [0.48, 0.36]], rtol=1.5e-6)


def test_the_largest_float_has_a_direction():
    """An inverse of it is subnormal, which a device may take for 0."""
    x = jnp.array([[3e38, 1e38, 0.0], [-2e38, 3e38, 3e38], [1.0, 2.0, 2.0]])
    wide = np.asarray(x, np.float64)
    exact = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    for fn in (unit_vector, jax.jit(unit_vector)):
        np.testing.assert_allclose(fn(x), exact, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: unit_vector(x)[:, 0].sum()))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[2], np.array([8.0, -2.0, -2.0]) / 27, rtol=1e-5)


def test_the_zero_vector_has_a_direction_and_a_zero_gradient():
    x = jnp.zeros((2, 3)).at[1, 2].set(2.0)
    np.testing.assert_array_equal(unit_vector(x), [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    gradient = jax.jit(jax.grad(lambda x: unit_vector(x).sum()))(x)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0.5, 0.5, 0]], atol=1e-7)


def test_kl_in_three_coordinates_is_elementary():
    kappa = 7.0
    q = VMFLatent(3, kappa).posterior({}, jnp.ones((4, 3)))
    mean = 1 / np.tanh(kappa) - 1 / kappa
    expected = kappa * mean + np.log(kappa / np.sinh(kappa))
    np.testing.assert_allclose(VMFLatent(3, kappa).kl(q), 4 * [expected], rtol=1.5e-6)


def test_kl_of_a_fixed_concentration_is_constant_and_has_no_gradient():
    latent, x = VMFLatent(6, 20.0), jax.random.normal(jax.random.key(0), (5, 6))
    kl, gradient = jax.jit(
        jax.value_and_grad(lambda x: latent.kl(latent.posterior({}, x)).sum())
    )(x)
    v = 2.0
    expected = 20.0 * scipy.special.ive(v + 1, 20.0) / scipy.special.ive(v, 20.0)
    expected += v * np.log(10.0) - scipy.special.gammaln(v + 1)
    expected -= np.log(scipy.special.ive(v, 20.0)) + 20.0
    np.testing.assert_allclose(kl / 5, expected, rtol=1.5e-6)
    np.testing.assert_array_equal(gradient, 0.0)


def test_a_learned_concentration_has_a_gradient():
    latent = VMFLatent(6)
    x = jax.random.normal(jax.random.key(0), (5, latent.num_features))
    gradient = jax.jit(jax.grad(lambda x: latent.kl(latent.posterior({}, x)).sum()))(x)
    assert (gradient[:, 6] > 0).all()
    np.testing.assert_array_equal(gradient[:, :6], 0.0)


def test_a_learned_concentration_is_above_one():
    raw = np.array([-90.0, -1.0, 0.0, 3.0, 1e4], np.float32)
    x = np.column_stack([np.ones((5, 2), np.float32), raw])
    kappa = VMFLatent(2).posterior({}, jnp.asarray(x)).concentration
    expected = 1.0 + np.logaddexp(0.0, raw.astype(float))
    np.testing.assert_allclose(kappa, expected, rtol=2e-7)


def test_a_shared_concentration_is_one_parameter():
    latent = VMFLatent(4, "shared")
    params = {"raw_concentration": jnp.float32(2.0)}
    assert latent.init().keys() == params.keys()
    q = latent.posterior(params, jnp.ones((3, 4)))
    np.testing.assert_allclose(q.concentration, np.log1p(np.exp(2.0)) + 1, rtol=1e-6)
    gradient = jax.jit(
        jax.grad(lambda p: latent.kl(latent.posterior(p, jnp.ones((3, 4)))).sum())
    )(params)
    assert gradient["raw_concentration"]


def test_at_concentration_zero_the_posterior_is_the_uniform_prior():
    latent = VMFLatent(20, 0.0)
    q = latent.posterior({}, jnp.ones((1, 20)))
    z = q.sample(jax.random.key(0), (4000,))[:, 0]
    np.testing.assert_allclose(latent.kl(q), 0.0, atol=1e-6)
    log_area = np.log(2) + 10 * np.log(np.pi) - scipy.special.gammaln(10)
    np.testing.assert_allclose(q.log_prob(z[:, None]), -log_area, rtol=1.5e-6)
    np.testing.assert_allclose(latent.prior_log_prob(z), -log_area, rtol=1.5e-6)
    # Every coordinate has mean 0 and variance 1/20.
    assert (np.abs(z.mean(axis=0)) < 4.5 * np.sqrt(0.05 / 4000)).all()


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan"), "both"])
def test_a_wrong_concentration_is_named(value):
    with pytest.raises(ValueError, match=f"number >= 0, got {value!r}"):
        VMFLatent(3, value)


@pytest.mark.parametrize("value", [jnp.float32(4.0), np.float64(4.0), np.array(4)])
def test_an_array_of_a_concentration_is_the_number(value):
    latent = VMFLatent(3, value)
    assert latent == VMFLatent(3, 4.0)
    assert hash(latent) == hash(VMFLatent(3, 4.0))


def test_a_sphere_needs_two_coordinates():
    with pytest.raises(ValueError, match="dim must be an integer >= 2, got 1"):
        VMFLatent(1)


def test_two_coordinates_are_a_circle():
    kappa = 3.0
    latent = VMFLatent(2, kappa)
    ratio = scipy.special.i1(kappa) / scipy.special.i0(kappa)
    expected = kappa * ratio - np.log(scipy.special.i0(kappa))
    kl = latent.kl(latent.posterior({}, jnp.ones((1, 2))))
    np.testing.assert_allclose(kl, [expected], rtol=1.5e-6)
