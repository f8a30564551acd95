import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vmf_reference
from scipy import optimize, stats

from vmf_vae import expansion
from vmf_vae.distribution import VonMisesFisher, fit


def unit(*coordinates, dtype=jnp.float32):
    x = jnp.array(coordinates, dtype)
    return x / jnp.linalg.norm(x)


def scipy_draws(mu, kappa, n, seed):
    draws = stats.vonmises_fisher(np.asarray(mu, float), kappa).rvs(n, seed)
    return draws.astype(np.float32)


@pytest.mark.parametrize("kappa", [0.3, 5.0, 200.0])
@pytest.mark.parametrize("dim", [2, 3, pytest.param(7, marks=pytest.mark.slow), 20])
def test_density_and_entropy_are_scipys(dim, kappa):
    mu = np.linspace(1.0, 2.0, dim) / np.linalg.norm(np.linspace(1.0, 2.0, dim))
    reference = stats.vonmises_fisher(mu, kappa)
    x = reference.rvs(20, 0).reshape(20, dim)
    with jax.enable_x64(True):
        vmf = VonMisesFisher(jnp.array(mu), kappa)
        np.testing.assert_allclose(vmf.log_prob(x), reference.logpdf(x), rtol=1e-12)
        np.testing.assert_allclose(vmf.entropy(), reference.entropy(), rtol=1e-10)


def test_density_integrates_to_one():
    """On the circle, by the trapezoid rule, which is exact for periodic functions."""
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    for kappa in (0.0, 1.0, 50.0, 2e4):
        log_prob = VonMisesFisher(unit(0.6, 0.8), kappa).log_prob(circle)
        mass = np.exp(np.asarray(log_prob, float)).mean() * 2 * np.pi
        np.testing.assert_allclose(mass, 1.0, rtol=2e-6)


def test_log_prob_keeps_its_digits_at_high_concentration():
    """In float32, on points that are float32 numbers, against float64."""
    mu = unit(1.0, 2.0, -1.0)
    x = scipy_draws(mu, 1e5, 50, 1)
    got = VonMisesFisher(mu, 1e5).log_prob(x)
    wide_mu, wide_x = np.asarray(mu, float), x.astype(float)
    apart = 0.5 * ((wide_x - wide_mu) ** 2).sum(-1)
    peak = np.log(1e5 / (2 * np.pi))  # the constant of d = 3 times e^kappa
    np.testing.assert_allclose(got, peak - 1e5 * apart, atol=5e-6)
    naive = np.float32(peak - 1e5) + np.float32(1e5) * (x @ np.asarray(mu))
    assert np.abs(naive - (peak - 1e5 * apart)).max() > 1e-3


@pytest.mark.parametrize("kappa", [0.5, 30.0])
def test_gradients_of_log_prob(kappa):
    mu, x = unit(1.0, 2.0, 3.0, 0.5), unit(0.2, -1.0, 1.0, 1.0)
    grads = jax.grad(
        lambda mu, kappa, x: VonMisesFisher(mu, kappa).log_prob(x), argnums=(0, 1, 2)
    )(mu, kappa, x)
    np.testing.assert_allclose(grads[0], kappa * x, rtol=1e-6)
    np.testing.assert_allclose(grads[2], kappa * mu, rtol=1e-6)
    mean = VonMisesFisher(mu, kappa).mean() @ mu
    np.testing.assert_allclose(grads[1], mu @ x - mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 4.0, 1e4])
@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow), 12])
def test_moments(dim, kappa):
    mu = unit(*np.arange(1, dim + 1))
    vmf = VonMisesFisher(mu, kappa)
    mean, covariance = np.asarray(vmf.mean(), float), np.asarray(vmf.covariance())
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-7)
    # The points have norm 1.
    np.testing.assert_allclose(np.trace(covariance) + mean @ mean, 1.0, rtol=1e-6)
    length = jax.grad(lambda k: -VonMisesFisher(mu, k).log_prob(mu) + k)(kappa)
    np.testing.assert_allclose(np.linalg.norm(mean), length, rtol=1e-6, atol=1e-7)
    assert np.linalg.eigvalsh(covariance).min() >= 0
    if kappa == 0.0:
        np.testing.assert_allclose(covariance, np.eye(dim) / dim, atol=1e-7)
    np.testing.assert_array_equal(vmf.mode(), mu)


@pytest.mark.parametrize("kappa", [1e-3, 4.0, 1e4])
@pytest.mark.parametrize("dim", [2, 3, 12])
def test_variances_along_and_across_are_those_of_the_bessel_functions(dim, kappa):
    exact = vmf_reference.values(dim, kappa)
    along = float(exact["slope"]) / kappa**2
    ratio = 1 - exact["complement"] / kappa
    across = float(ratio) / kappa
    got = VonMisesFisher(jnp.eye(dim)[0], kappa).covariance()
    want = np.diag([along, *[across] * (dim - 1)])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    mu = unit(*np.arange(1, dim + 1))
    got, outer = VonMisesFisher(mu, kappa).covariance(), np.outer(mu, mu).astype(float)
    want = across * (np.eye(dim) - outer) + along * outer
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * across)


def test_moments_are_those_of_scipys_draws():
    mu, kappa, n = unit(1.0, -1.0, 0.5), 4.0, 200_000
    x = scipy_draws(mu, kappa, n, 3).astype(float)
    vmf = VonMisesFisher(mu, kappa)
    error = np.abs(x.mean(0) - vmf.mean()) / (x.std(0) / np.sqrt(n))
    assert error.max() < 4.5
    np.testing.assert_allclose(np.cov(x.T), vmf.covariance(), atol=4.5 / np.sqrt(n))


def test_directions_and_concentrations_broadcast():
    mu = jnp.stack([unit(1.0, 0.0, 0.0), unit(0.0, 1.0, 1.0)])
    kappa = jnp.array([[0.0], [2.0], [50.0]])
    vmf = VonMisesFisher(mu, kappa)
    assert vmf.batch_shape == (3, 2)
    assert vmf.dim == 3
    entropy, kl, mean, mode, covariance, density, of_points = jax.eval_shape(
        lambda law: (
            *(law.entropy(), law.kl_to_uniform(), law.mean(), law.mode()),
            *(law.covariance(), law.log_prob(mu), law.log_prob(jnp.ones((5, 1, 1, 3)))),
        ),
        vmf,
    )
    assert entropy.shape == kl.shape == density.shape == (3, 2)
    assert mean.shape == mode.shape == (3, 2, 3)
    assert covariance.shape == (3, 2, 3, 3)
    assert of_points.shape == (5, 3, 2)
    one = VonMisesFisher(mu[1], 2.0)
    np.testing.assert_allclose(vmf.covariance()[1, 1], one.covariance(), rtol=1e-6)


def test_it_is_a_pytree():
    mu = jnp.stack([unit(1.0, 0.0), unit(0.0, 1.0)])
    vmf = VonMisesFisher(mu, jnp.array([1.0, 2.0]))
    leaves, structure = jax.tree.flatten(vmf)
    assert [leaf.shape for leaf in leaves] == [(2, 2), (2,)]
    assert structure.unflatten([None, object()]).mean_direction is None  # unchecked
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(vmf)]
    assert paths == [".mean_direction", ".concentration"]
    mapped = jax.vmap(lambda v, x: v.log_prob(x))(vmf, mu[::-1])
    np.testing.assert_array_equal(mapped, vmf.log_prob(mu[::-1]))
    jitted = jax.jit(lambda v: (v, v.entropy()))(vmf)
    assert isinstance(jitted[0], VonMisesFisher)
    np.testing.assert_allclose(jitted[1], vmf.entropy(), rtol=1e-6)
    assert "concentration=Array([1., 2.]" in repr(vmf)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VonMisesFisher(jnp.ones(3), 1.0), "must have unit norm, got norm 1.7"),
        (lambda: VonMisesFisher(unit(1.0, 0.0), -1.0), "concentration must be at lea"),
        (lambda: VonMisesFisher(jnp.ones(1), 1.0), "Bernoulli"),
        (
            lambda: VonMisesFisher(jnp.eye(3), jnp.ones(2)),
            r"must broadcast, got shapes \(3, 3\) and \(2,\)",
        ),
        (
            lambda: VonMisesFisher(unit(1.0, 0.0), 1.0).log_prob(jnp.ones(3)),
            r"x must be \[..., 2\], got shape \(3,\)",
        ),
        (lambda: fit(jnp.eye(3)[0]), r"x must be \[n, d\] with n >= 1, got shape"),
        (lambda: fit(jnp.zeros((0, 3))), "n >= 1"),
        (lambda: fit(2 * jnp.eye(3)), "x must have unit norm, got norm 2"),
        (lambda: fit(jnp.eye(3), weights=jnp.ones(2)), r"weights must be \[3\]"),
        (lambda: fit(jnp.eye(3), weights=[1.0, 1.0, -1.0]), "weights must be at least"),
        (lambda: fit(jnp.eye(3), weights=[1.0, jnp.nan, 1.0]), "weights must be finit"),
        (lambda: fit(jnp.eye(3), weights=[1.0, jnp.inf, 1.0]), "weights must be finit"),
        (lambda: fit(jnp.eye(3), weights=jnp.zeros(3)), "weights must have a positive"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_traced_nonsense_gives_nan():
    def all_of_it(kappa):
        vmf = VonMisesFisher(jnp.array([1.0, 0.0]), kappa)
        return vmf.log_prob(vmf.mode()), vmf.entropy(), vmf.mean(), vmf.covariance()

    for bad in (-1.0, jnp.nan, jnp.inf):
        for value in jax.jit(all_of_it)(bad):
            assert np.isnan(value).all()
    for bad in (0.0, jnp.nan, jnp.inf):
        fitted = jax.jit(lambda w: fit(jnp.eye(3), weights=w))(jnp.full(3, bad))
        assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(fitted))


def test_half_precision():
    mu = unit(1.0, 2.0, 2.0).astype(jnp.bfloat16)
    vmf = VonMisesFisher(mu, jnp.bfloat16(3.0))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), vmf)
    for method in ("entropy", "mean", "covariance"):
        value, expected = (getattr(law, method)() for law in (vmf, wide))
        assert value.dtype == jnp.bfloat16
        value = value.astype(jnp.float32)
        np.testing.assert_allclose(value, expected, rtol=2.0**-7)
    # What is a sum has the digits of float32.
    log_prob = vmf.log_prob(mu)
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, wide.log_prob(mu), rtol=1e-6)
    fitted = fit(jnp.stack([mu, mu[::-1]]))
    assert fitted.concentration.dtype == fitted.mean_direction.dtype == jnp.float32


@pytest.mark.parametrize("kappa", [1e-2, 1.0, 30.0, 1e3, 1e5])
@pytest.mark.parametrize("dim", [2, 3, 10])
def test_fit_recovers_the_concentration(dim, kappa):
    mu, n = unit(*np.arange(1, dim + 1)), 20_000
    got = fit(scipy_draws(mu, kappa, n, 5))
    information = float(expansion.ratio_slope(dim / 2 - 1, jnp.float32(kappa)))
    assert abs(got.concentration - kappa) < 4 / np.sqrt(n * information)
    if kappa >= 1.0:
        np.testing.assert_allclose(got.mean_direction, mu, atol=0.1 / np.sqrt(kappa))


def test_fit_is_scipys():
    x = scipy_draws(unit(1.0, 1.0, 0.0, 2.0), 12.0, 500, 6)
    mu, kappa = stats.vonmises_fisher.fit(x.astype(float))
    got = fit(x=x)
    np.testing.assert_allclose(got.mean_direction, mu, atol=1e-6)
    np.testing.assert_allclose(got.concentration, kappa, rtol=7e-7)


def test_a_difference_from_one_would_lose_the_concentration():
    """The control: in float32 the mean length of these points is 1 - k 2^-24."""
    x = scipy_draws(unit(0.0, 0.6, 0.8), 1e6, 4000, 7)
    good = float(fit(x).concentration)
    length = np.linalg.norm(x.mean(0, dtype=np.float32)).astype(np.float32)
    naive = 1.0 / (1.0 - float(length))  # d = 3, far out: kappa = 1 / (1 - r)
    assert abs(good / 1e6 - 1) < 4 / np.sqrt(4000)
    assert abs(naive / good - 1) > 0.01


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_weights_count_by_their_ratios(size):
    x = jnp.eye(3)[jnp.array([0, 0, 1])]
    found = fit(x, weights=size * jnp.array([1.0, 2.0, 3.0]))
    expected = fit(x, weights=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(found.concentration, expected.concentration, rtol=1e-6)
    np.testing.assert_allclose(found.mean_direction, [2**-0.5, 2**-0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-323, 1e-38, 1e-3, 1e30, 1e37, 1e38, 1e308])
def test_the_size_of_the_weights_counts_nothing(size):
    """Sums of them overflow in float32; at d = 3 the length is coth(k) - 1 / k."""
    x = np.eye(3, dtype=np.float32)[np.arange(100) % 4 // 3]  # 3 to 1
    length = np.sqrt(3**2 + 1) / 4
    want = optimize.brentq(lambda k: 1 / np.tanh(k) - 1 / k - length, 1.0, 50.0)
    weights = [np.full(100, size)]
    if 1e-44 < size < 1e39:
        weights.append(jnp.full(100, size))
    found = [fit(x, weights=w) for w in weights]
    if 1.2e-38 < size < 1e39:  # what is subnormal is 0 in XLA
        found.append(jax.jit(lambda w: fit(x, weights=w))(weights[1]))
    for law in found:
        np.testing.assert_allclose(law.concentration, want, rtol=1e-6)
        direction = np.array([3, 1, 0]) / 10**0.5
        np.testing.assert_allclose(law.mean_direction, direction, rtol=1e-6)


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 0.2, -0.1],
        [-1.0, -1.0, -1.0],
        [3.0, -1.0, 0.5],
        [1.0, np.inf, 1.0],
        [np.nan, 1.0, 1.0],
        [0.0, 0.0, 0.0],
    ],
)
def test_traced_weights_that_are_none_give_nan(weights):
    def fitted(w):
        return fit(jnp.eye(3), weights=w)

    law = jax.jit(fitted)(jnp.array(weights))
    assert np.isnan(law.concentration)
    assert np.isnan(law.mean_direction).all()
    good = jax.jit(fitted)(jnp.array([1.0, 0.2, 0.0]))  # the control
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good))


def test_weights_count_like_repetitions():
    x = scipy_draws(unit(1.0, 1.0, 1.0), 3.0, 40, 8)
    counts = np.arange(40) % 4
    repeated = fit(np.repeat(x, counts, axis=0))
    weighted = fit(x, weights=counts)
    for a, b in zip(*map(jax.tree.leaves, (repeated, weighted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=7e-7)


def test_degenerate_data():
    same = fit(jnp.tile(jnp.array([[0.0, 1.0, 0.0]]), (5, 1)))
    assert same.concentration == jnp.inf
    np.testing.assert_array_equal(same.mean_direction, [0.0, 1.0, 0.0])
    for apart in (0.0, 1e-25, 1e-20):  # of which the square is 0
        opposite = fit(jnp.array([[1.0, 0.0], [-1.0, apart]]))
        assert opposite.concentration == 0.0
        np.testing.assert_array_equal(opposite.mean_direction, [1.0, 0.0])
    little = fit(jnp.array([[0.6, 0.8], [-0.6, -0.799999]]))  # the control
    np.testing.assert_allclose(little.concentration, 1e-6, rtol=0.1)  # d |mean|
    np.testing.assert_allclose(little.mean_direction, [0.0, 1.0], atol=1e-6)


@jax.jit
def derivatives_in_the_weights(x, weights):
    def concentration(weights):
        return fit(x, weights=weights).concentration

    return jax.grad(concentration)(weights), jax.hessian(concentration)(weights)


def test_fit_jits_and_differentiates():
    x = scipy_draws(unit(1.0, 1.0, 1.0), 3.0, 40, 9)
    np.testing.assert_allclose(
        jax.jit(fit)(x).concentration, fit(x).concentration, rtol=1e-6
    )
    grad, _ = derivatives_in_the_weights(x, jnp.ones(40))
    assert np.isfinite(grad).all()
    h = 1e-5
    up, down = np.ones(40), np.ones(40)
    up[3], down[3] = 1 + h, 1 - h
    with jax.enable_x64(True):
        high, low = (
            float(fit(x.astype(float), weights=w).concentration) for w in (up, down)
        )
    difference = high - low
    np.testing.assert_allclose(grad[3], difference / (2 * h), rtol=1e-6)


@pytest.mark.parametrize(("kappa", "tol"), [(1e3, 4e-6), (1e5, 1e-4), (1e6, 3e-4)])
def test_the_derivative_in_the_weights_keeps_its_digits(kappa, tol):
    """At d = 3 a large concentration is 1 / (1 - r), in float64 from the points."""
    x = scipy_draws(unit(1.0, 1.0, 1.0), kappa, 40, 10).astype(np.float32)
    grad, second = derivatives_in_the_weights(x, jnp.ones(40))
    points = x.astype(np.float64)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    length = np.linalg.norm(points.mean(axis=0))
    rise = (points @ points.mean(axis=0) / length - length) / 40
    expected = rise / (1 - length) ** 2
    np.testing.assert_allclose(
        grad, expected, rtol=0, atol=tol * np.abs(expected).max()
    )
    # The direction turns with the weights, and what is divided by is their sum.
    across = points @ points.T - np.outer(*2 * [points @ points.mean(axis=0) / length])
    bend = across / (1600 * length) - (rise[:, None] + rise[None]) / 40
    bend /= (1 - length) ** 2
    bend += 2 * np.outer(rise, rise) / (1 - length) ** 3
    np.testing.assert_allclose(second, bend, rtol=0, atol=tol * np.abs(bend).max())


def test_points_that_are_rounded_beyond_the_sphere_leave_the_derivative():
    """Half precision leaves unit vectors that are longer by up to 2^-8."""
    angle = np.array([0.54, 0.57, 0.59])
    x = 1.002 * np.stack([np.cos(angle), np.sin(angle), np.zeros(3)], axis=-1)

    x = jnp.array(x, jnp.bfloat16).astype(jnp.float32)
    # What is traced is not checked.
    concentration = jax.jit(lambda w, x: fit(x, weights=w).concentration)
    up, down = (concentration(jnp.array([1 + h, 1.0, 1.0]), x) for h in (0.01, -0.01))
    grad = jax.grad(concentration)(jnp.ones(3), x)
    np.testing.assert_allclose(grad[0], (up - down) / 0.02, rtol=1e-3)
