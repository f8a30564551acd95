import time

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import vmf_reference
from scipy import special

from expkit import testing
from vmf_vae import bessel, expansion

pytestmark = pytest.mark.optimized

# Largest relative error over the table.
BOUNDS = {
    jnp.float32: {"log_iv": 8e-7, "ratio": 2.5e-7, "slope": 5e-7, "complement": 3e-7},
    jnp.float64: {"log_iv": 4e-15, "ratio": 6e-16, "slope": 8e-15, "complement": 1e-15},
}
FUNCTIONS = {
    "log_iv": lambda d, k: bessel.log_iv(d / 2 - 1, k),
    "ratio": bessel.bessel_ratio,
    "slope": lambda d, k: k * k * expansion.ratio_slope(d / 2 - 1, k),
    "complement": lambda d, k: expansion.scaled_complement(d / 2 - 1, k),
}


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def columns(points):
    """Points grouped by dimension: `{dim: (concentrations, [values])}`."""
    grouped = {}
    for dim, kappa, values in points:
        ks, rows = grouped.setdefault(dim, ([], []))
        ks.append(kappa)
        rows.append(values)
    return grouped


def largest_error(points, name, dtype):
    worst = 0.0
    for dim, (ks, rows) in columns(points).items():
        got = np.asarray(FUNCTIONS[name](dim, jnp.array(ks, dtype)))
        assert got.dtype == dtype
        errors = map(vmf_reference.error, got, (row[name] for row in rows))
        worst = max(worst, *errors)
    return worst


def assert_met(points, dtype):
    for name in FUNCTIONS:
        assert largest_error(points, name, dtype) <= BOUNDS[dtype][name]


def random_points(seed, count, dims, dtype):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        dim = int(rng.choice(dims))
        # Half of them where the functions bend and log I crosses zero.
        near = dim * rng.uniform(0.05, 6.0)
        kappa = float(dtype(rng.choice([near, 10 ** rng.uniform(-6, 6.3)])))
        yield dim, kappa, vmf_reference.values(dim, kappa)


@pytest.mark.parametrize(
    "dims",
    [vmf_reference.FEW_DIMS, pytest.param(None, marks=pytest.mark.slow)],
    ids=["few", "all"],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_table_is_met_in_every_row(name, dtype, dims):
    worst = largest_error(vmf_reference.table(dims), name, dtype)
    assert worst <= BOUNDS[dtype][name]


def test_scipy_does_not_meet_the_table():
    """The control: what a ratio of scaled Bessel functions gives."""
    failures = 0
    for dim, kappa, values in vmf_reference.table():
        with np.errstate(all="ignore"):
            got = special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa)
        failures += not vmf_reference.error(got, values["ratio"]) <= 6e-16
    assert failures > 60


def test_random_points_are_met(dtype):
    # As many of a dimension as the table has, for whose shapes there are programs.
    points = [p for dim in (2, 5, 20, 33) for p in random_points(0, 12, [dim], dtype)]
    assert_met(points, dtype)


@pytest.mark.parametrize(
    "dim",
    # Every low order, where the recursion is long, and the ends of `hankel`.
    [2, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 4, 5, 7, 9, 12, 16))],
)
def test_dense_points_of_low_dimensions_are_met(dim, dtype):
    kappas = np.exp(np.random.default_rng(2).uniform(np.log(0.5), np.log(2e3), 180))
    kappas = map(float, kappas.astype(dtype))
    points = [(dim, k, vmf_reference.values(dim, k)) for k in kappas]
    assert_met(points, dtype)


@pytest.mark.slow
def test_many_random_points_are_met(dtype):
    dims = [2, 3, 4, 5, 6, 7, 9, 10, 13, 16, 17, 18, 19, 20, 33, 34, 35, 77, 300, 3072]
    points = list(random_points(1, 500, dims, dtype))
    assert_met(points, dtype)


@pytest.mark.parametrize(
    "order",
    [
        *(0, 0.25, 7.99, 16.01),
        *(pytest.param(v, marks=pytest.mark.slow) for v in (1, 3.7, 15.5, 250.125)),
    ],
)
def test_log_iv_of_any_real_order(order, dtype):
    x = dtype(1.37 * max(order, 1.0))
    expected = mpmath.log(mpmath.besseli(order, mpmath.mpf(float(x))))
    got = bessel.log_iv(order, x)
    assert vmf_reference.error(got, expected) <= BOUNDS[dtype]["log_iv"]


def test_log_iv_has_its_digits_around_its_zero(dtype):
    for order in (1.0, 3.5, 7.0, 9.0, 40.0, 1535.0):
        with mpmath.workdps(40):
            zero = mpmath.findroot(
                lambda x, v=order: mpmath.log(mpmath.besseli(v, x)), 0.7 * order + 1
            )
        for shift in (-0.2, -1e-2, -1e-4, -3e-7, 3e-7, 1e-4, 1e-2, 0.2):
            x = dtype(float(zero) * (1 + shift))
            with mpmath.workdps(40):
                expected = mpmath.log(mpmath.besseli(order, mpmath.mpf(float(x))))
            got = bessel.log_iv(order, x)
            assert vmf_reference.error(got, expected) <= BOUNDS[dtype]["log_iv"]


@pytest.mark.parametrize(
    "order",
    [
        *(1e-15, 1e-17, 1e-300),
        *(pytest.param(v, marks=pytest.mark.slow) for v in (1e-24, 1e-30)),
    ],
)
def test_a_tiny_order_is_nearly_order_0(order, dtype):
    x = jnp.asarray([0.0, 1e-6, 1e-3, 1.0, 50.0, 1e3], dtype)
    with mpmath.workdps(80):
        want = [mpmath.log(mpmath.besseli(0, mpmath.mpf(float(k)))) for k in x[1:]]
    both = jax.value_and_grad(lambda x: bessel.log_iv(order, x))
    got, slopes = jax.jit(jax.vmap(both))(x)
    want = np.array([float(w) for w in want])
    np.testing.assert_allclose(got[1:], want, rtol=BOUNDS[dtype]["log_iv"], atol=3e-14)
    assert got[0] == -jnp.inf
    slope = float(special.i1e(1) / special.i0e(1))
    np.testing.assert_allclose(slopes[3], slope, rtol=1e-6)


@pytest.mark.parametrize("order", [1e-17, 1e-24])
def test_a_tiny_order_is_a_power_where_nothing_else_is_left(order, dtype):
    x = jnp.asarray([1e-20, 1e-15], dtype)
    with mpmath.workdps(80):
        want = [
            float(mpmath.log(mpmath.besseli(mpmath.mpf(order), mpmath.mpf(float(k)))))
            for k in x
        ]
    got = bessel.log_iv(order, x)
    np.testing.assert_allclose(got, want, rtol=BOUNDS[dtype]["log_iv"])


def test_elementary_orders():
    x = np.linspace(0.1, 30.0, 50, dtype=np.float32)
    wide = x.astype(np.float64)
    sinh = 0.5 * np.log(2 / (np.pi * wide)) + np.log(np.sinh(wide))
    np.testing.assert_allclose(bessel.log_iv(0.5, x), sinh, rtol=1e-6, atol=3e-7)
    langevin = 1 / np.tanh(wide) - 1 / wide
    np.testing.assert_allclose(bessel.bessel_ratio(3, x), langevin, rtol=3e-7)


def test_values_at_zero():
    assert bessel.log_iv(0, 0.0) == 0.0
    assert bessel.log_iv(2.5, 0.0) == -jnp.inf
    assert bessel.bessel_ratio(5, 0.0) == 0.0
    assert bessel.inverse_bessel_ratio(5, 0.0) == 0.0
    assert bessel.inverse_bessel_ratio(5, 1.0) == jnp.inf


@pytest.mark.parametrize(
    "dim",
    [2, 50, 200_000, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10, 768))],
)
def test_ratio_of_the_inverse_is_the_argument(dim, dtype):
    ends = 10.0 ** np.linspace(-6, -1, 100)
    r = np.concatenate([np.linspace(0, 1, 500)[:-1], ends, 1 - ends]).astype(dtype)
    back = np.asarray(bessel.bessel_ratio(dim, bessel.inverse_bessel_ratio(dim, r)))
    assert np.max(np.abs(back - r) / np.spacing(r)) <= 4


def test_derivative_of_the_inverse_is_that_of_the_inverse():

    @jax.jit
    def slopes(r):
        k, inverse = jax.value_and_grad(lambda r: bessel.inverse_bessel_ratio(7, r))(r)
        return inverse, jax.grad(lambda k: bessel.bessel_ratio(7, k))(k)

    with jax.enable_x64(True):
        for r in (0.0, 0.3, 0.9, 0.999):
            inverse, slope = slopes(r)
            np.testing.assert_allclose(inverse * slope, 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("fn", "derivative"),
    [
        (
            lambda x: bessel.log_iv(2.5, x),
            lambda x: mpmath.diff(lambda t: mpmath.log(mpmath.besseli(2.5, t)), x),
        ),
        (
            lambda x: bessel.bessel_ratio(7, x),
            lambda x: mpmath.diff(
                lambda t: mpmath.besseli(3.5, t) / mpmath.besseli(2.5, t), x
            ),
        ),
    ],
    ids=["log_iv", "bessel_ratio"],
)
def test_derivatives_in_both_modes(fn, derivative):
    both = jax.jit(lambda x: (jax.grad(fn)(x), jax.jacfwd(fn)(x)))
    with jax.enable_x64(True), mpmath.workdps(40):
        for x in (0.01, 3.0, 40.0):
            expected = float(derivative(mpmath.mpf(x)))
            np.testing.assert_allclose(both(x), (expected, expected), rtol=1e-13)


@pytest.mark.parametrize(
    "dim", [2, 40, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 8))]
)
def test_second_derivative_of_the_ratio(dim):
    def closed(k):
        a = mpmath.besseli(mpmath.mpf(dim) / 2, k)
        a /= mpmath.besseli(mpmath.mpf(dim) / 2 - 1, k)
        slope = 1 - a * a - (dim - 1) * a / k
        return -2 * a * slope - (dim - 1) * (slope / k - a / k**2)

    first = jax.grad(lambda k: bessel.bessel_ratio(dim, k))
    derivatives = jax.jit(jax.value_and_grad(first))
    with jax.enable_x64(True), mpmath.workdps(40):
        for k in (1e-3, 0.5, 2.0, 30.0, 1e3):
            expected = float(closed(mpmath.mpf(k)))
            np.testing.assert_allclose(derivatives(k)[1], expected, rtol=1e-10)
        slope, bend = derivatives(0.0)
        assert bend == 0.0
        np.testing.assert_allclose(slope, 1 / dim, rtol=1e-6)


@pytest.mark.parametrize(
    "order", [0.5, 20.0, *(pytest.param(v, marks=pytest.mark.slow) for v in (3.5, 383))]
)
def test_second_derivative_of_log_iv_far_out(order, dtype):
    """Where A' and nu / x^2 are close; their difference tends to 1 / (2 x^2)."""
    xs = jnp.array([order + 1.5, 4 * order, 1e3, 1e4, 1e5, 2e6], dtype)
    bending = jax.grad(jax.grad(lambda x: bessel.log_iv(order, x)))
    second, third = jax.jit(jax.vmap(jax.value_and_grad(bending)))(xs)
    assert second.dtype == dtype
    with mpmath.workdps(60):
        for at, bend, twist in zip(xs, second, third, strict=True):
            x = mpmath.mpf(float(at))
            a = mpmath.besseli(order + 1, x) / mpmath.besseli(order, x)
            slope = 1 - a * a - (2 * order + 1) * a / x
            # It is this much from its limit: near its zero no more can be asked for.
            lack = abs(x * x * slope - order - 0.5) / (x * x)
            want = slope - order / x**2
            eps = float(jnp.finfo(dtype).eps)
            size = min(lack + 0.5 / x**2, order / x**2)
            assert abs(float(bend) - want) < 8 * eps * max(size, abs(want))
            bent = -2 * a * slope - (2 * order + 1) * (slope / x - a / x**2)
            want = bent + 2 * order / x**3
            floor = (2 * lack + 1 / x**2) / x
            assert abs(float(twist) - want) < 64 * eps * max(floor, abs(want))


@pytest.mark.parametrize("narrow", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(narrow):
    x = jnp.array([0.0, 0.3, 12.0, 700.0], narrow)
    for fn in (lambda x: bessel.bessel_ratio(20, x), lambda x: bessel.log_iv(9, x)):
        got = fn(x)
        assert got.dtype == narrow
        np.testing.assert_array_equal(got, fn(x.astype(jnp.float32)).astype(narrow))


def test_shapes_and_kinds_of_arguments():
    assert bessel.bessel_ratio(40, np.zeros((0, 2))).shape == (0, 2)
    assert bessel.bessel_ratio(40, 5).dtype == jnp.float32
    assert bessel.bessel_ratio(40, [1, 2]).shape == (2,)
    grid = jnp.linspace(0.1, 9.0, 12).reshape(3, 4)
    together = bessel.log_iv(1.5, grid)
    mapped = jax.vmap(jax.vmap(lambda x: bessel.log_iv(1.5, x)))(grid)
    np.testing.assert_array_equal(together, mapped)
    np.testing.assert_array_equal(
        together, jax.jit(lambda x: bessel.log_iv(1.5, x))(grid)
    )


def test_what_is_no_concentration_gives_nan_when_traced():
    x = jnp.array([-1.0, jnp.inf, jnp.nan])
    for fn in (
        lambda x: bessel.log_iv(1.5, x),
        lambda x: bessel.bessel_ratio(5, x),
        lambda x: jax.vmap(jax.grad(lambda k: bessel.bessel_ratio(5, k)))(x),
    ):
        assert np.isnan(jax.jit(fn)(x)).all()
    inverse = jax.jit(lambda r: bessel.inverse_bessel_ratio(5, r))
    assert np.isnan(inverse(jnp.array([-0.1, 1.1, jnp.nan]))).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bessel.log_iv(-1, 2.0), ValueError, "order must be finite and at le"),
        (lambda: bessel.log_iv("2", 2.0), TypeError, "order must be a Python number"),
        (lambda: bessel.log_iv(1, -2.0), ValueError, "x must be at least 0, got -2.0"),
        (lambda: bessel.bessel_ratio(1, 2.0), ValueError, r"dim must be in \[2"),
        (lambda: bessel.bessel_ratio(3.0, 2.0), TypeError, "dim must be a Python int"),
        (
            lambda: bessel.bessel_ratio(3, [1.0, -3.0]),
            ValueError,
            "concentration must be at least 0, got -3.0",
        ),
        (
            lambda: bessel.inverse_bessel_ratio(3, 1.5),
            ValueError,
            r"mean_length must be in \[0, 1\], got 1.5",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_host_callback():
    for dim in (2, 3, 50):
        jaxpr = jax.make_jaxpr(lambda k, d=dim: bessel.bessel_ratio(d, k))(jnp.ones(3))
        assert "callback" not in str(jaxpr)


def test_a_second_call_compiles_nothing():
    x = jnp.ones(3), jnp.zeros(3)
    bessel.bessel_ratio(11, x[0])
    with testing.count_compilations() as log:
        bessel.bessel_ratio(11, x[1])
    assert not log.names


@pytest.mark.parametrize("dim", [2, 3, 19, 768, 200_000])
def test_any_dimension_compiles_in_seconds(dim):
    start = time.perf_counter()
    jax.jit(lambda k: bessel.log_iv(dim / 2 - 1, k)).lower(jnp.ones(7)).compile()
    assert time.perf_counter() - start < 3.0
