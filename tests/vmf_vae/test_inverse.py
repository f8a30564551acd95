import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vmf_vae import inverse


@pytest.mark.parametrize("order", [0.0, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("x", [1e-3, 0.4, 5.0, 80.0, 1e4, 1e6])
def test_inverse_ratio_uses_the_digits_of_the_complement(order, x):
    """In float32 a mean length of 0.9999995 says nothing; its complement does."""
    with mpmath.workdps(40):
        ratio = mpmath.besseli(order + 1, x) / mpmath.besseli(order, x)
        r, complement = np.float32(float(ratio)), np.float32(float(1 - ratio))
    got = inverse.inverse_ratio(order, jnp.float32(r), jnp.float32(complement))
    np.testing.assert_allclose(got, x, rtol=5e-7)


@pytest.mark.parametrize("order", [0.0, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("x", [1e-3, 0.4, 5.0, 80.0, 1e4, 1e6])
def test_inverse_kl_finds_the_argument(order, x):
    with jax.enable_x64(True), mpmath.workdps(40):
        lower = mpmath.besseli(order, x)
        log_m = mpmath.log(lower) + mpmath.loggamma(order + 1)
        log_m -= order * mpmath.log(mpmath.mpf(x) / 2)
        target = float(x * mpmath.besseli(order + 1, x) / lower - log_m)
        # KL grows like (order + 1/2) log x: its last digit is several of x.
        np.testing.assert_allclose(inverse.inverse_kl(order, target), x, rtol=1e-13)


@pytest.mark.parametrize("x", [0.4, 5.0, 1e4, 1e6])
def test_the_derivative_is_in_the_smaller_of_the_two(x):
    """At order 1/2, I_{3/2} / I_{1/2} = coth x - 1/x rises by 1/x^2 - 1/sinh(x)^2."""
    with mpmath.workdps(40):
        ratio = mpmath.coth(x) - 1 / mpmath.mpf(x)
        r, complement = np.float32(float(ratio)), np.float32(float(1 - ratio))
        slope = float(1 / (1 / mpmath.mpf(x) ** 2 - mpmath.csch(x) ** 2))
    of_r, of_complement = jax.grad(inverse.inverse_ratio, (1, 2))(0.5, r, complement)
    expected = (slope, 0.0) if r < 0.5 else (0.0, -slope)
    np.testing.assert_allclose((of_r, of_complement), expected, rtol=2e-6)


def test_outside_of_the_domain():
    r = jnp.array([-0.1, 1.1, jnp.nan])
    assert np.isnan(inverse.inverse_ratio(2.0, r, 1.0 - r)).all()
    assert np.isnan(inverse.inverse_kl(2.0, jnp.float32(jnp.nan)))


def test_divergences_whose_concentration_has_no_square_in_float32():
    """d = 3: KL = log 2x - 1, so the derivative of x is x."""
    target = jnp.array([20.0, 40.0, 60.0, 80.0])
    x, dx = jax.vmap(jax.value_and_grad(lambda t: inverse.inverse_kl(0.5, t)))(target)
    np.testing.assert_allclose(x, np.exp(1.0 + np.float64(target)) / 2, rtol=2e-5)
    np.testing.assert_allclose(dx, x, rtol=1e-6)


def test_float32_is_inverted_where_float64_is_enabled():
    """On the sphere in three dimensions, of x = 2: coth x - 1/x, and sinh x / x."""
    ratio = 1 / np.tanh(2.0) - 0.5
    kl = 2.0 * ratio - np.log(np.sinh(2.0) / 2.0)
    with jax.enable_x64(True):
        r, target = jnp.float32(ratio), jnp.float32(kl)
        found = inverse.inverse_ratio(0.5, r, 1 - r), inverse.inverse_kl(0.5, target)
    for x in found:
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, 2.0, rtol=1e-6)
