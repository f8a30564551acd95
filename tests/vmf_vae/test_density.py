import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import vmf_reference
from scipy import special, stats

from vmf_vae import debye, density, expansion

pytestmark = pytest.mark.optimized

BOUNDS = {
    jnp.float32: {"log_normalizer": 5e-7, "kl": 5e-7, "entropy": 1e-6},
    jnp.float64: {"log_normalizer": 3e-15, "kl": 2e-15, "entropy": 5e-15},
}
FUNCTIONS = {
    "log_normalizer": density.log_normalizer,
    "kl": density.kl_to_uniform,
    "entropy": density.entropy,
}
# The entropy and the logarithm of the constant cross zero.
FLOORS = {"log_normalizer": 1, "kl": 0, "entropy": 1}


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def largest_error(points, name, dtype):
    worst = 0.0
    for dim, kappa, values in points:
        got = FUNCTIONS[name](dim, dtype(kappa))
        error = vmf_reference.error(got, values[name], floor=FLOORS[name])
        worst = max(worst, error)
    return worst


@pytest.mark.parametrize(
    "dims",
    [vmf_reference.FEW_DIMS, pytest.param(None, marks=pytest.mark.slow)],
    ids=["few", "all"],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_table_is_met_in_every_row(name, dtype, dims):
    rows = vmf_reference.table(dims)
    assert largest_error(rows, name, dtype) <= BOUNDS[dtype][name]


@pytest.mark.slow
def test_many_random_points_are_met(dtype):
    rng = np.random.default_rng(2)
    dims = [2, 3, 4, 5, 9, 13, 17, 18, 19, 20, 33, 34, 35, 77, 300, 1001, 3072]
    points = []
    for _ in range(500):
        dim = int(rng.choice(dims))
        near = dim * rng.uniform(0.05, 6.0)
        kappa = float(dtype(rng.choice([near, 10 ** rng.uniform(-6, 6.3)])))
        points.append((dim, kappa, vmf_reference.values(dim, kappa)))
    for name in FUNCTIONS:
        assert largest_error(points, name, dtype) <= BOUNDS[dtype][name]


def test_scaled_bessel_functions_do_not_give_the_divergence():
    """The control: the formula of the papers with scipy's functions, in float64."""
    failures, worst = 0, 0.0
    for dim, kappa, values in vmf_reference.table():
        v = dim / 2 - 1
        with np.errstate(all="ignore"):
            lower, upper = special.ive(v, kappa), special.ive(v + 1, kappa)
            log_c = v * np.log(kappa) - (v + 1) * np.log(2 * np.pi)
            log_c -= np.log(lower) + kappa
            kl = log_c + kappa * upper / lower + float(vmf_reference.log_area(dim))
        error = vmf_reference.error(kl, values["kl"]) if np.isfinite(kl) else np.inf
        failures += not error <= BOUNDS[jnp.float64]["kl"]
        worst = max(worst, error if np.isfinite(error) else 0.0)
    assert failures > 100
    assert worst > 1e-3


@functools.cache
def zero_of_log_normalizer(dim):
    with mpmath.workdps(40):
        return mpmath.findroot(
            lambda k: vmf_reference.values(dim, k)["log_normalizer"],
            (0.3 * dim, 4.0 * dim),
            solver="anderson",
            tol=1e-18,
        )


@pytest.mark.parametrize("dim", [40, 100, 3072])
def test_log_normalizer_has_its_digits_around_its_zero(dim, dtype):
    zero = float(zero_of_log_normalizer(dim))
    for shift in (-1e-2, -1e-3, 1e-3, 1e-2):
        kappa = float(dtype(zero * (1 + shift)))
        expected = vmf_reference.values(dim, kappa)["log_normalizer"]
        got = density.log_normalizer(dim, dtype(kappa))
        assert vmf_reference.error(got, expected) <= 8 * float(jnp.finfo(dtype).eps)


def test_a_difference_loses_digits_around_the_zero():
    """The control: log C(0) - log M, each right to the last digit, in float32."""
    dim, order = 3072, 3072 / 2 - 1
    kappa = float(np.float32(1.001 * float(zero_of_log_normalizer(dim))))
    expected = vmf_reference.values(dim, kappa)["log_normalizer"]
    plain = debye.log_constant_at_zero(order) - expansion.log_0f1(
        order, jnp.float32(kappa)
    )
    assert vmf_reference.error(plain, expected) > 1e-5


@pytest.mark.parametrize(
    "dim", [2, 100, *(pytest.param(d, marks=pytest.mark.slow) for d in (10, 4096))]
)
def test_derivatives_are_the_closed_ones(dim, dtype):
    @jax.jit
    @jax.vmap
    def derivatives(k):
        slope = jax.grad(lambda k: density.log_normalizer(dim, k))(k)
        return slope, jax.jacfwd(lambda k: density.kl_to_uniform(dim, k))(k)

    _, kappas, rows = zip(*vmf_reference.table((dim,)), strict=True)
    slopes, rises = derivatives(jnp.array(kappas, dtype))
    slack = 4 * float(jnp.finfo(dtype).eps)
    for kappa, values, slope, rise in zip(kappas, rows, slopes, rises, strict=True):
        assert vmf_reference.error(slope, -values["ratio"]) <= slack
        assert vmf_reference.error(rise * kappa, values["slope"]) <= 16 * slack


@pytest.mark.parametrize(
    "dim",
    [2, 100_000, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10, 50, 768))],
)
def test_derivatives_at_zero(dim):
    def divergence(k):
        return density.kl_to_uniform(dim, k)

    def log_constant(k):
        return density.log_normalizer(dim, k)

    @jax.jit
    def at(k):
        values = divergence(k), log_constant(k), density.entropy(dim, k)
        seconds = (jax.hessian(fn)(k) for fn in (divergence, log_constant))
        return *values, jax.grad(divergence)(k), *seconds

    value, constant, entropy, first, second, bend = at(0.0)
    assert value == first == 0.0
    np.testing.assert_allclose(second, 1 / dim, rtol=1e-6)
    np.testing.assert_allclose(bend, -1 / dim, rtol=1e-6)
    area = float(vmf_reference.log_area(dim))
    np.testing.assert_allclose(constant, -area, rtol=1e-6)
    np.testing.assert_allclose(entropy, area, rtol=1e-6)


def test_closed_form_in_three_dimensions():
    k = np.linspace(0.5, 20.0, 9)
    expected = np.log(k / (4 * np.pi * np.sinh(k)))
    np.testing.assert_allclose(density.log_normalizer(3, k), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "dim",
    [2, 768, 100_000, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10))],
)
def test_concentration_for_kl_inverts_the_divergence(dim, dtype):
    target = (10.0 ** np.linspace(-8, 3, 60)).astype(dtype)
    kappa = jax.jit(density.concentration_for_kl, static_argnums=0)(dim, target)
    back = jax.jit(density.kl_to_uniform, static_argnums=0)(dim, kappa)
    is_in_range = np.asarray(kappa) < 2e6
    assert is_in_range.sum() > 30
    rtol = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(back[is_in_range], target[is_in_range], rtol=rtol)
    assert not np.isnan(kappa).any()


def test_concentration_for_kl_at_the_ends():
    assert density.concentration_for_kl(5, 0.0) == 0.0
    assert density.concentration_for_kl(5, 1e4) == jnp.inf
    slope = jax.grad(lambda t: density.concentration_for_kl(5, t))(1.3)
    kappa = density.concentration_for_kl(5, 1.3)
    rise = jax.grad(lambda k: density.kl_to_uniform(5, k))(kappa)
    np.testing.assert_allclose(slope * rise, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: density.log_normalizer(200_001, 1.0), ValueError, "dim must be in"),
        (lambda: density.kl_to_uniform(3, -1.0), ValueError, "got -1.0"),
        (lambda: density.concentration_for_kl(3, -1.0), ValueError, "kl must be at"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_half_precision_and_traced_nonsense():
    k = jnp.array([0.0, 0.5, 300.0], jnp.bfloat16)
    for fn in FUNCTIONS.values():
        got = fn(12, k)
        assert got.dtype == jnp.bfloat16
        exact = fn(12, k.astype(jnp.float32)).astype(jnp.bfloat16)
        np.testing.assert_array_equal(got, exact)
        assert fn(12, jnp.zeros((0, 3))).shape == (0, 3)
    bad = jnp.array([-1.0, jnp.nan, jnp.inf])
    found = jax.jit(lambda k: [fn(12, k) for fn in FUNCTIONS.values()])(bad)
    assert np.isnan(found).all()


def test_a_batch_has_the_log_density_of_scipy_and_its_derivatives():
    rng = np.random.default_rng(0)
    mu, x = (
        a / np.linalg.norm(a, axis=-1, keepdims=True)
        for a in rng.normal(size=(2, 4, 3, 5))
    )
    kappa = rng.uniform(0.5, 20.0, size=(4, 3))
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in (mu, kappa, x)]
        got = density.log_density(*arrays)
        derivatives = jax.grad(lambda *a: density.log_density(*a).sum(), (0, 2))
        by_mu, by_x = jax.jit(derivatives)(*arrays)
    expected = [
        stats.vonmises_fisher(mu[i], kappa[i]).logpdf(x[i])
        for i in np.ndindex(kappa.shape)
    ]
    np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-12)
    np.testing.assert_allclose(by_mu, kappa[..., None] * x, rtol=1e-14)
    np.testing.assert_allclose(by_x, kappa[..., None] * mu, rtol=1e-14)
