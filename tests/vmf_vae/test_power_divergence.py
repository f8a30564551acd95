"""Divergence and peak of the power spherical law against Gamma functions of mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import vmf_reference

from vmf_vae.power_divergence import kl_of_power, log_peak_of_power
from vmf_vae.spherical import PowerSpherical

KAPPAS = [1e-4, 1e-2, 0.1, 1.0, 7.5, 60.0, 1e3, 1e5, 1e6]


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def exact(dim, kappa):
    """Area minus entropy, from the density, and its derivative."""
    with mpmath.workdps(60):
        half, kappa = mpmath.mpf(dim - 1) / 2, mpmath.mpf(float(kappa))
        alpha, both = half + kappa, 2 * half + kappa
        log_mass = both * mpmath.log(2) + half * mpmath.log(mpmath.pi)
        log_mass += mpmath.loggamma(alpha) - mpmath.loggamma(both)
        mean = mpmath.log(2) + mpmath.digamma(alpha) - mpmath.digamma(both)
        value = kappa * mean - log_mass + vmf_reference.log_area(dim)
        rise = mpmath.polygamma(1, alpha) - mpmath.polygamma(1, both)
        return value, kappa * rise


@pytest.mark.parametrize(
    "dim",
    [
        2,
        17,
        18,
        100_000,
        *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 8, 768)),
    ],
)
def test_value_and_slope_have_all_digits(dim, dtype):
    kappas = jnp.asarray(KAPPAS, dtype)
    both = jax.jit(
        jax.vmap(jax.value_and_grad(lambda k: kl_of_power(dim / 2 - 0.5, k)))
    )
    values, slopes = both(kappas)
    slack = 8 * float(jnp.finfo(dtype).eps)
    if dtype == jnp.float64:
        slack = 1e-12
    for kappa, value, slope in zip(kappas, values, slopes, strict=True):
        want = exact(dim, kappa)
        assert vmf_reference.error(value, want[0]) < slack
        assert vmf_reference.error(slope, want[1]) < slack


def peak_over_uniform(dim, kappa):
    """The ratio of the two densities, and its first two derivatives."""
    with mpmath.workdps(60):
        half, kappa = mpmath.mpf(dim - 1) / 2, mpmath.mpf(float(kappa))
        value = mpmath.loggamma(2 * half + kappa) - mpmath.loggamma(half + kappa)
        value -= mpmath.loggamma(2 * half) - mpmath.loggamma(half)
        rises = (
            mpmath.polygamma(n, 2 * half + kappa) - mpmath.polygamma(n, half + kappa)
            for n in range(2)
        )
        return value, *rises


@pytest.mark.parametrize(
    "dim",
    [2, 17, 100_000, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 768))],
)
def test_the_peak_and_its_derivatives_have_all_digits(dim, dtype):
    def peak(kappa):
        return log_peak_of_power(dim / 2 - 0.5, kappa)

    kappas = jnp.asarray([1e-4, 0.3, 2.0, 7.1, 10.0, 40.0, 300.0, 1e4, 2e6], dtype)
    functions = (peak, jax.grad(peak), jax.grad(jax.grad(peak)))
    found = jax.jit(jax.vmap(lambda k: [fn(k) for fn in functions]))(kappas)
    slack = 8 * float(jnp.finfo(dtype).eps)
    for kappa, *values in zip(kappas, *found, strict=True):
        wanted = peak_over_uniform(dim, kappa)
        # Near 0 the value is a difference of what is left of Stirling's series.
        for value, want, floor in zip(values, wanted, (0.01, 0, 0), strict=True):
            assert vmf_reference.error(value, want, floor=floor) < slack
    flat = jnp.zeros((), dtype)
    assert abs(peak(flat)) < float(jnp.finfo(dtype).eps) / 64
    slope, bend = peak_over_uniform(dim, 0.0)[1:]
    assert vmf_reference.error(functions[1](flat), slope) < slack
    assert vmf_reference.error(functions[2](flat), bend) < slack


def test_area_minus_entropy_does_not():
    """The control: a difference of numbers of the size of the dimension."""
    law = PowerSpherical(jnp.eye(1, 768)[0], jnp.array([0.1, 0.3]))
    difference = float(vmf_reference.log_area(768)) - np.asarray(law.entropy(), float)
    want = np.array([float(exact(768, k)[0]) for k in (0.1, 0.3)], float)
    assert (np.abs(difference / want - 1.0) > 0.1).all()
    np.testing.assert_allclose(law.kl_to_uniform(), want, rtol=2e-6)


@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow), 50])
def test_the_uniform_law_is_a_minimum_with_its_curvature(dim, dtype):
    def kl(kappa):
        return kl_of_power(dim / 2 - 0.5, kappa)

    @jax.jit
    def derivatives(kappa):
        return kl(kappa), jax.grad(kl)(kappa), jax.hessian(kl)(kappa)

    value, slope, bend = derivatives(jnp.zeros((), dtype))
    assert value == slope == 0.0
    half = mpmath.mpf(dim - 1) / 2
    curvature = mpmath.polygamma(1, half) - mpmath.polygamma(1, 2 * half)
    np.testing.assert_allclose(bend, float(curvature), rtol=2e-6)


def test_it_is_never_negative_and_rises():
    kappas = jnp.logspace(-6.0, 6.0, 300)
    for dim in (2, 5, 768, 100_000):
        values = np.asarray(
            jax.jit(lambda k, d=dim: kl_of_power(d / 2 - 0.5, k))(kappas)
        )
        assert (values > 0.0).all()
        assert (np.diff(values) > 0.0).all()


def test_the_method_has_the_shape_and_dtype_of_its_fields():
    mu = jnp.eye(3)[:2]
    law = PowerSpherical(mu, jnp.array([[0.0], [2.0], [1e4]]))
    got = jax.jit(lambda law: law.kl_to_uniform())(law)
    want = [[float(exact(3, k)[0])] * 2 for k in (0.0, 2.0, 1e4)]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    half = PowerSpherical(mu.astype(jnp.bfloat16), jnp.bfloat16(3.0)).kl_to_uniform()
    assert half.dtype == jnp.bfloat16
    assert half.shape == (2,)
    bad = jax.jit(lambda k: PowerSpherical(mu[0], k).kl_to_uniform())
    assert np.isnan([bad(k) for k in (-1.0, jnp.nan, jnp.inf)]).all()
