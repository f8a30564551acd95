import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vmf_vae.implicit import follow, follow_radial, slope_over_sine2

pytestmark = pytest.mark.optimized


def exact_slope(dim, kappa, t):
    """(dw/dkappa) / (1 - w^2), from the distribution function in the angle."""
    with mpmath.workdps(20):
        k, t = mpmath.mpf(kappa), mpmath.mpf(t)
        v = mpmath.mpf(dim) / 2 - 1
        mean = mpmath.besseli(v + 1, k) / mpmath.besseli(v, k)
        angle = mpmath.acos(1 - t)

        def height(phi):
            return (mpmath.cos(phi) - mean) * mpmath.exp(
                k * (mpmath.cos(phi) - mpmath.cos(angle))
                + (dim - 2) * mpmath.log(mpmath.sin(phi) / mpmath.sin(angle))
            )

        # On the side of the mean that the sample is on, where nothing cancels.
        is_near = 1 - t > mean
        ends = (mpmath.mpf(0), angle) if is_near else (angle, mpmath.pi)
        width = 40 / mpmath.sqrt(max(dim - 2, 1) + k)
        if is_near:
            points = [max(ends[0], angle - width), angle]
        else:
            points = [angle, min(ends[1], angle + width)]
        grid = [points[0] + (points[1] - points[0]) * i / 12 for i in range(13)]
        integral = mpmath.quad(height, grid)
        return float(abs(integral) / mpmath.sin(angle))


POINTS = [
    (2, 0.5),
    (2, 1e3),
    (3, 0.1),
    (3, 50.0),
    (5, 2.0),
    (10, 10.0),
    (50, 20.0),
    (50, 1e4),
    (768, 100.0),
]


def typical(dim, kappa):
    """t at the mean and some deviations around it, inside (0, 2)."""
    with mpmath.workdps(30):
        v = mpmath.mpf(dim) / 2 - 1
        mean = mpmath.besseli(v + 1, kappa) / mpmath.besseli(v, kappa)
        variance = 1 - mean**2 - (dim - 1) * mean / kappa
        centre, deviation = float(1 - mean), float(mpmath.sqrt(variance))
    shifts = np.array([-2.0, -0.7, 0.01, 0.8, 2.5])
    t = centre + shifts * deviation
    return t[(t > 0) & (t < 2)]


@pytest.mark.parametrize(
    ("dim", "kappa"),
    [
        pytest.param(*point, marks=[pytest.mark.slow] * (i % 2 or point == (50, 20.0)))
        for i, point in enumerate(POINTS)
    ],
)
def test_slope_is_the_integral(dim, kappa):
    # Far out the nodes are few beyond the mean.
    wide = {(2, 1e3): 1e-7, (50, 1e4): 5e-9}.get((dim, kappa), 1e-12)
    kappa, points = np.float32(kappa), np.float32(typical(dim, kappa))
    exact = [exact_slope(dim, float(kappa), float(x)) for x in points]
    for dtype, rtol in ((jnp.float32, 3e-5), (jnp.float64, wide)):
        with jax.enable_x64(dtype == jnp.float64):
            got = slope_over_sine2(dim, dtype(kappa), jnp.array(points, dtype))
            np.testing.assert_allclose(got, exact, rtol=rtol)


@pytest.mark.parametrize("dim", [2, 3, pytest.param(10, marks=pytest.mark.slow), 768])
def test_slope_is_finite_at_the_poles_and_at_zero(dim):
    t = jnp.array([0.0, 1e-7, 1.0, 2.0])
    for kappa in (0.0, 1e-6, 1.0, 1e6):
        slope = slope_over_sine2(dim, jnp.float32(kappa), t)
        assert np.isfinite(slope).all()
        assert (slope >= 0).all()


def test_uniform_law_in_three_dimensions():
    """F is linear there: dw/dkappa = (1 - w^2) / 2."""
    got = slope_over_sine2(3, jnp.float32(0.0), jnp.linspace(0.1, 1.9, 7))
    np.testing.assert_allclose(got, np.full(7, 0.5), rtol=1e-6)


def test_samples_move_with_their_parameters():
    """A step in both parameters, against the derivative of the sphere's coordinates."""
    mu = jnp.array([0.6, 0.0, 0.8])
    z = jnp.array([0.0, 0.6, 0.8])
    t = 1.0 - mu @ z
    d_mu = jnp.array([0.8, 0.5, -0.6])  # tangent to the sphere at mu

    (same, _), (dz, dt) = jax.jvp(
        lambda mu, k: follow(mu, k, z, t), (mu, jnp.float32(3.0)), (d_mu, 1.0)
    )
    np.testing.assert_array_equal(same, z)
    assert abs(dz @ z) < 1e-6  # it stays on the sphere
    slope = slope_over_sine2(3, jnp.float32(3.0), t) * t * (2 - t)
    np.testing.assert_allclose(-dt, slope, rtol=1e-6)
    # w = mu.z changes by the slope: turning both leaves it.
    np.testing.assert_allclose(dz @ mu + z @ d_mu, slope, rtol=1e-5)
    radial = jax.grad(lambda k: follow_radial(3, k, t))(3.0)
    np.testing.assert_allclose(radial, -slope, rtol=1e-6)


@pytest.mark.parametrize("kappa", [0.1, 0.3, 0.499])
def test_small_concentrations_on_the_sphere_lose_only_the_end_of_a_series(kappa):
    t = np.array([0.01, 0.5, 1.0, 1.7, 1.99])
    exact = [exact_slope(3, kappa, x) for x in t]
    with jax.enable_x64(True):
        got = slope_over_sine2(3, jnp.float64(kappa), jnp.asarray(t))
    # The first term left out of sinh(x) / x.
    np.testing.assert_allclose(
        got, exact, rtol=2 * kappa**8 / math.factorial(9) + 1e-13
    )


def test_float32_has_a_slope_where_float64_is_enabled():
    t = np.array([0.125, 0.875])
    exact = [exact_slope(5, 2.0, x) for x in t]
    with jax.enable_x64(True):
        got = slope_over_sine2(5, jnp.float32(2.0), jnp.asarray(t, jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact, rtol=1e-5)
