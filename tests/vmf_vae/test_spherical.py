import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import vmf_reference
from scipy import integrate, special, stats

from vmf_vae.spherical import PowerSpherical, SphericalUniform

NUM_DRAWS = 20_000  # of one shape, so that tests share programs


def unit(*coordinates):
    x = jnp.array(coordinates)
    return x / jnp.linalg.norm(x)


@pytest.mark.parametrize("dim", [2, 3, 10, pytest.param(768, marks=pytest.mark.slow)])
def test_uniform_draws(dim):
    x = np.asarray(SphericalUniform(dim).sample(jax.random.key(0), (NUM_DRAWS,)))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)
    law = stats.beta((dim - 1) / 2, (dim - 1) / 2, loc=-1, scale=2)
    for coordinate in (0, dim - 1):
        assert stats.kstest(x[:, coordinate], law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("dim", [2, 3, 40, 100_000])
def test_uniform_density(dim):
    area = float(vmf_reference.log_area(dim))
    uniform = SphericalUniform(dim)
    np.testing.assert_allclose(uniform.entropy(), area, rtol=1e-6)
    got = uniform.log_prob(jnp.ones((4, 1, dim)))
    np.testing.assert_allclose(got, np.full((4, 1), -area), rtol=1e-6)
    assert jax.jit(lambda u, x: u.log_prob(x))(uniform, jnp.ones(dim)).shape == ()


@pytest.mark.parametrize("kappa", [0.0, 0.5, 30.0, 1e5])
@pytest.mark.parametrize("dim", [2, 3, 20])
def test_power_spherical_draws(dim, kappa):
    mu = unit(*np.linspace(1.0, -2.0, dim))
    x = PowerSpherical(mu, kappa).sample(jax.random.key(1), (NUM_DRAWS,))
    x = np.asarray(x, float)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)
    half = 0.25 * np.square(x - np.asarray(mu, float)).sum(-1)  # (1 - w) / 2
    law = stats.beta((dim - 1) / 2, (dim - 1) / 2 + kappa)
    assert stats.kstest(half, law.cdf).pvalue > 1e-4
    other = stats.beta((dim - 1) / 2, (dim - 1) / 2 + 1.2 * kappa + 0.2)
    assert stats.kstest(half, other.cdf).pvalue < 1e-4  # the control


@pytest.mark.parametrize("dim", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_power_spherical_first_coordinate_is_independent_of_the_others(dim):
    """One set of normal numbers gives both: their length and their direction."""
    mu = unit(*[0.0] * (dim - 1), 1.0)
    draw = jax.jit(lambda key: PowerSpherical(mu, 3.0).sample(key, (50_000,)))
    x = np.asarray(draw(jax.random.key(5)), float)
    tangent = x[:, 0] / np.linalg.norm(x[:, :-1], axis=-1)
    for direction in (tangent, np.abs(tangent)):
        assert stats.spearmanr(x[:, -1], direction).pvalue > 1e-4
    assert stats.spearmanr(x[:, -1], np.abs(x[:, 0])).pvalue < 1e-4  # the control


@pytest.mark.parametrize("kappa", [0.0, 0.7, 12.0])
@pytest.mark.parametrize("dim", [2, 3, 8])
def test_power_spherical_density_integrates_to_one(dim, kappa):
    """And its moments and entropy are integrals over the angle."""
    mu = jnp.zeros(dim).at[0].set(1.0)
    law = PowerSpherical(mu, kappa)

    compiled = jax.jit(law.log_prob)

    def log_prob(angle):
        x = np.zeros(dim, np.float32)
        x[:2] = np.cos(angle), np.sin(angle)
        return float(compiled(x))

    log_area = float(vmf_reference.log_area(dim - 1)) if dim > 2 else np.log(2.0)

    def integral(fn):
        def integrand(angle):
            density = np.exp(log_prob(angle) + log_area)
            return fn(angle) * density * np.sin(angle) ** (dim - 2)

        return integrate.quad(integrand, 0.0, np.pi - 1e-9, limit=50, epsrel=1e-5)[0]

    np.testing.assert_allclose(integral(lambda angle: 1.0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(law.mean()[0], integral(np.cos), rtol=2e-6, atol=1e-6)
    entropy = integral(lambda angle: -log_prob(angle))
    np.testing.assert_allclose(law.entropy(), entropy, rtol=2e-6, atol=2e-6)
    kl = float(vmf_reference.log_area(dim)) - entropy
    np.testing.assert_allclose(law.kl_to_uniform(), kl, atol=2e-6)


def test_power_spherical_entropy_keeps_its_digits():
    for dim, kappa in ((3, 1e6), (50, 1e3), (768, 10.0)):
        half = mpmath.mpf(dim - 1) / 2
        alpha, beta = half + mpmath.mpf(kappa), half
        log_c = mpmath.loggamma(alpha + beta) - mpmath.loggamma(alpha)
        log_c -= beta * mpmath.log(4 * mpmath.pi)
        fall = mpmath.mpf(kappa) * (
            mpmath.digamma(alpha + beta) - mpmath.digamma(alpha)
        )
        mu = jnp.zeros(dim).at[0].set(1.0)
        got = PowerSpherical(mu, kappa).entropy()
        np.testing.assert_allclose(got, float(fall - log_c), rtol=3e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "dim", [2, 3, 17, 768, *(pytest.param(d, marks=pytest.mark.slow) for d in (4, 40))]
)
def test_power_spherical_density_and_entropy_have_the_digits_of_their_dtype(dim, dtype):
    """Where JAX's beta function has those of float32 in float64, too."""
    with jax.enable_x64(dtype == jnp.float64):
        kappas = jnp.array([0, 0.3, 2, 7.1, 7.9, 8, 10, 20, 40, 100, 300], dtype)
        mu = jnp.zeros(dim, dtype).at[0].set(1.0)
        law = PowerSpherical(mu, kappas)
        found = np.stack(jax.jit(lambda law: [law.log_prob(mu), law.entropy()])(law))
    half = mpmath.mpf(dim - 1) / 2
    for kappa, values in zip(map(float, kappas), found.T, strict=True):
        with mpmath.workdps(50):
            rise = mpmath.loggamma(2 * half + kappa) - mpmath.loggamma(half + kappa)
            peak = rise - half * mpmath.log(4 * mpmath.pi)
            fall = mpmath.digamma(2 * half + kappa) - mpmath.digamma(half + kappa)
            errors = [abs(values[0] - peak), abs(values[1] + peak - kappa * fall)]
            # They are sums with the log area, which has Gamma and pi in it.
            size = 1 + half + abs(vmf_reference.log_area(dim)) + abs(peak)
            assert max(errors) < 4 * float(jnp.finfo(dtype).eps) * size
    if dim == 3:
        want = np.log((np.asarray(kappas, float) + 1) / (4 * np.pi))
        slack = 8 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(found[0], want, rtol=0, atol=slack)


def central_moments_of_power(dim, kappa):
    """Variances across and along the direction, by integrals over the angle."""
    far = min(np.pi, 14.0 * np.sqrt((dim + 1.0) / (kappa + 1.0)))

    def integral(fn):
        def integrand(angle):
            log_weight = 2 * kappa * np.log(np.cos(angle / 2))
            return fn(angle) * np.exp(log_weight) * np.sin(angle) ** (dim - 2)

        return integrate.quad(integrand, 0.0, far, epsabs=0, epsrel=1e-11, limit=200)[0]

    mass = integral(lambda angle: 1.0)
    apart = integral(lambda angle: 2 * np.sin(angle / 2) ** 2) / mass
    along = integral(lambda angle: (2 * np.sin(angle / 2) ** 2 - apart) ** 2) / mass
    across = integral(lambda angle: np.sin(angle) ** 2) / mass / (dim - 1)
    return across, along


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 0.7, 30.0, 2e6])
@pytest.mark.parametrize("dim", [2, 3, pytest.param(8, marks=pytest.mark.slow), 50])
def test_power_spherical_covariance_is_an_integral(dim, kappa):
    across, along = central_moments_of_power(dim, kappa)
    got = PowerSpherical(jnp.eye(dim)[0], kappa).covariance()
    want = np.diag([along, *[across] * (dim - 1)])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    # Along any other direction it is turned, and the points have norm 1.
    law = PowerSpherical(unit(*np.linspace(1.0, -2.0, dim)), kappa)
    mu = np.asarray(law.mode(), float)
    np.testing.assert_array_equal(law.mode(), law.mean_direction)
    got, mean = np.asarray(law.covariance(), float), np.asarray(law.mean(), float)
    want = across * (np.eye(dim) - np.outer(mu, mu)) + along * np.outer(mu, mu)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=3e-7 * across)
    np.testing.assert_allclose(np.trace(got) + mean @ mean, 1.0, rtol=1e-6)
    slope = jax.grad(lambda k: PowerSpherical(mu, k).covariance().sum())(kappa)
    assert np.isfinite(slope)


@pytest.mark.parametrize("dim", [2, 3, 9])
def test_power_spherical_derivatives_in_the_concentration(dim):
    """Those of the Gamma functions, and log((1 + w) / 2) of the power."""
    mu, across = np.eye(dim, dtype=np.float32)[:2]
    points = np.stack([mu, across, 0.6 * across + 0.8 * mu, 0.6 * across - 0.8 * mu])
    w = (points @ mu).astype(float)

    def log_prob(k):
        return PowerSpherical(mu, k).log_prob(points)

    @jax.jit
    def derivatives(k):
        slope = jax.jacfwd(log_prob)
        curvature = jax.jacfwd(jax.grad(lambda k: PowerSpherical(mu, k).entropy()))(k)
        return slope(k), jax.jacfwd(slope)(k), curvature

    for kappa in (0.0, 1e-6, 2.0):
        first, second, curvature = derivatives(kappa)
        alpha, both = (dim - 1) / 2 + kappa, dim - 1 + kappa
        rise = [
            special.polygamma(n, both) - special.polygamma(n, alpha) for n in range(3)
        ]
        np.testing.assert_allclose(first, rise[0] + np.log((1 + w) / 2), rtol=1e-5)
        np.testing.assert_allclose(second, np.full(4, rise[1]), rtol=1e-5)
        np.testing.assert_allclose(curvature, rise[1] + kappa * rise[2], rtol=1e-6)


def test_the_derivative_in_both_arguments_at_the_uniform_law():
    """It is mu / (1 + w), up to what points away from the sphere."""
    mu, x = jnp.array([1.0, 0.0, 0.0]), jnp.array([-0.8, 0.6, 0.0])
    mixed = jax.jacfwd(jax.grad(lambda k, x: PowerSpherical(mu, k).log_prob(x)), 1)
    tangent = jnp.array([0.6, 0.8, 0.0])
    got = jax.jit(mixed)(0.0, x)
    np.testing.assert_allclose(got @ tangent, 0.6 / 0.2, rtol=1e-5)


def test_the_uniform_law_has_finite_derivatives_at_the_antipode():
    mu = jnp.array([0.0, 0.6, 0.8])

    def log_prob(k, x):
        return PowerSpherical(mu, k).log_prob(x)

    for order in (jax.jacobian, jax.hessian):
        derivatives = jax.jit(order(log_prob, (0, 1)))(0.0, -mu)
        assert all(np.isfinite(d).all() for d in jax.tree.leaves(derivatives))


@pytest.mark.parametrize(("dim", "kappa"), [(3, 0.5), (3, 10.0), (20, 40.0)])
def test_power_spherical_gradient_of_the_mean(dim, kappa):
    mu, n = jnp.zeros(dim).at[0].set(1.0), NUM_DRAWS

    def first(k):
        return PowerSpherical(mu, k).sample(jax.random.key(2), (n,))[:, 0]

    @jax.jit
    def forward_and_back(k):
        slopes = jax.jvp(first, (k,), (1.0,))[1]
        return slopes, jax.grad(lambda k: first(k).mean())(k)

    slopes, grad = forward_and_back(kappa)
    slopes = np.asarray(slopes, float)
    exact = (dim - 1) / (kappa + dim - 1) ** 2  # of kappa / (kappa + d - 1)
    assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(n)
    np.testing.assert_allclose(grad, slopes.mean(), rtol=1e-4)


def test_power_spherical_turns_with_its_mean_direction():
    n = 100_000
    a = jnp.array([0.3, -0.5, 1.0])

    def value(angle):
        mu = jnp.stack([jnp.cos(angle), jnp.sin(angle), 0.0 * angle])
        x = PowerSpherical(mu, 5.0).sample(jax.random.key(3), (n,))
        return x @ a

    slope = jax.jit(lambda angle: jax.jvp(value, (angle,), (1.0,))[1])
    for angle in (0.0, 0.7, jnp.pi):  # the first axis, and its antipode
        slopes = np.asarray(slope(angle), float)
        tangent = np.array([-np.sin(angle), np.cos(angle), 0.0])
        exact = 5.0 / (5.0 + 2) * tangent @ np.asarray(a)
        assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(n)


def test_shapes_dtypes_and_the_antipode():
    mu = jnp.stack([unit(1.0, 0.0, 0.0), unit(0.0, 1.0, 1.0)])
    law = PowerSpherical(mu, jnp.array([[1.0], [2.0], [0.0]]))
    key, outcome = jax.random.key(0), jax.eval_shape
    assert outcome(lambda law: law.sample(key, (4,)), law).shape == (4, 3, 2, 3)
    assert outcome(lambda law: law.log_prob(mu), law).shape == (3, 2)
    assert outcome(lambda law: law.entropy(), law).shape == (3, 2)
    assert outcome(lambda law: law.mean(), law).shape == law.mode().shape == (3, 2, 3)
    assert outcome(lambda law: law.covariance(), law).shape == (3, 2, 3, 3)
    assert (law.batch_shape, law.dim) == ((3, 2), 3)
    assert jax.jit(lambda p: p.sample(key))(law).shape == (3, 2, 3)
    antipode = PowerSpherical(mu[0], 2.0).log_prob(-mu[0])
    assert antipode == -jnp.inf
    flat = PowerSpherical(mu[0], 0.0).log_prob(-mu[0])
    np.testing.assert_allclose(flat, -np.log(4 * np.pi), rtol=1e-6)
    half = PowerSpherical(mu[0].astype(jnp.bfloat16), jnp.bfloat16(3.0))
    assert outcome(lambda law: law.sample(key), half).dtype == jnp.bfloat16
    assert outcome(lambda law: law.covariance(), half).dtype == jnp.bfloat16
    assert half.mode().dtype == jnp.bfloat16

    @jax.jit
    def bad(kappa):
        law = PowerSpherical(mu[0], kappa)
        return law.sample(key, (2,)), law.covariance()

    for kappa in (-1.0, jnp.nan, jnp.inf):
        assert all(np.isnan(values).all() for values in bad(kappa))


def test_draws_are_of_unit_norm_around_a_direction_that_is_nearly():
    """A direction may differ from a unit vector by a rounding of three digits."""
    for mu in 1.0009 * jnp.array([[0.6, 0.8], [1.0, 0.0]]):
        x = PowerSpherical(mu, 5.0).sample(jax.random.key(0), (NUM_DRAWS,))
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)


def test_power_spherical_is_a_pytree():
    """JAX puts gradients, shapes and None in, which are no valid fields."""
    law = PowerSpherical(unit(0.6, 0.0, 0.8), 5.0)
    leaves, structure = jax.tree.flatten(law)
    assert [leaf.shape for leaf in leaves] == [(3,), ()]
    assert structure.unflatten([None, object()]).mean_direction is None  # unchecked
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(law)]
    assert paths == [".mean_direction", ".concentration"]
    shapes = jax.eval_shape(lambda law: law, law)
    assert isinstance(shapes, PowerSpherical)
    assert shapes.mean_direction.shape == (3,)
    gradient = jax.grad(lambda law: law.entropy())(law)
    # kappa times the slope of digamma(kappa + 2) - digamma(kappa + 1)
    slope = 5.0 * (special.polygamma(1, 7.0) - special.polygamma(1, 6.0))
    np.testing.assert_allclose(gradient.concentration, slope, rtol=1e-5)
    np.testing.assert_array_equal(gradient.mean_direction, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SphericalUniform(1), "dim must be in"),
        (lambda: SphericalUniform(3).log_prob(jnp.ones(2)), r"x must be \[..., 3\]"),
        (lambda: PowerSpherical(jnp.ones(3), 1.0), "unit norm"),
        (lambda: PowerSpherical(jnp.eye(3)[0], -1.0), "concentration must be at least"),
        (
            lambda: PowerSpherical(jnp.eye(3), jnp.ones(2)),
            r"must broadcast, got shapes \(3, 3\) and \(2,\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "draw",
    [
        lambda k, shape: SphericalUniform(3).sample(k, shape),
        lambda k, shape: PowerSpherical(jnp.eye(3)[0], 1.0).sample(k, shape),
    ],
)
def test_a_number_is_a_shape_of_one_axis(draw):
    key = jax.random.key(0)
    np.testing.assert_array_equal(draw(key, NUM_DRAWS), draw(key, (NUM_DRAWS,)))
    with pytest.raises(ValueError, match=r"shape must be integers >= 0, got \(-5,\)"):
        draw(key, (-5,))


@pytest.mark.parametrize("dim", [3, 768])
def test_log_densities_of_half_precision_are_sums_in_float32(dim):
    x = jnp.zeros(dim, jnp.bfloat16).at[0].set(1.0)
    power = PowerSpherical(x, jnp.bfloat16(3.0))
    for law in (SphericalUniform(dim), power):
        got = law.log_prob(x)
        assert got.dtype == jnp.float32
        wide = jax.tree.map(lambda a: a.astype(jnp.float32), law)
        np.testing.assert_allclose(got, wide.log_prob(x.astype(jnp.float32)), rtol=1e-6)
