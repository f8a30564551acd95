import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from vmf_vae import table
from vmf_vae.table import FixedConcentrationSampler

pytestmark = pytest.mark.optimized

POINTS = [
    (2, 0.0),
    (2, 5.0),
    (2, 1e5),
    (3, 1e6),
    (4, 20.0),
    (10, 0.0),
    (16, 1e4),
    (64, 100.0),
    (768, 500.0),
    (16_384, 100.0),
]


def moments(dim, kappa):
    """Mean and variance of 1 - w, from mpmath's Bessel functions."""
    with mpmath.workdps(40):
        v, k = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
        if kappa == 0:
            return 1.0, 1.0 / dim
        ratio = mpmath.besseli(v + 1, k) / mpmath.besseli(v, k)
        variance = 1 - ratio**2 - (dim - 1) * ratio / k
        return float(1 - ratio), float(variance)


def standard_scores(t, dim, kappa):
    """Of the mean and of the variance of draws of 1 - w."""
    mean, variance = moments(dim, kappa)
    centred = t - mean
    squares = centred**2 - variance
    n = len(t)
    return (
        centred.mean() / np.sqrt(variance / n),
        squares.mean() / (squares.std() / np.sqrt(n)),
    )


def draws(dim, kappa, n, seed=0):
    angle = FixedConcentrationSampler(dim, kappa).sample_angle(
        jax.random.key(seed), (n,)
    )
    return 2.0 * np.sin(0.5 * np.asarray(angle, float)) ** 2


@pytest.mark.parametrize(("dim", "kappa"), POINTS)
def test_mean_and_variance_of_a_million_draws(dim, kappa):
    scores = standard_scores(draws(dim, kappa, 1_000_000), dim, kappa)
    assert np.abs(scores).max() < 4.5


def test_a_left_sum_is_biased():
    """The control: the sum of the essay's code, on a grid of this size."""
    dim, kappa, n = 768, 500.0, 1_000_000
    angle = np.linspace(0.0, np.pi, 4097)[1:-1]
    density = np.exp(kappa * np.cos(angle) + (dim - 2) * np.log(np.sin(angle)) - 300)
    cumulative = np.cumsum(density) / density.sum()
    u = np.random.default_rng(0).random(n)
    t = 2.0 * np.sin(0.5 * np.interp(u, cumulative, angle)) ** 2
    assert abs(standard_scores(t, dim, kappa)[0]) > 10


@pytest.mark.parametrize(("dim", "kappa"), [(3, 0.5), (3, 30.0), (5, 2.0), (40, 12.0)])
def test_law_of_the_first_coordinate(dim, kappa):
    mu = np.zeros(dim)
    mu[0] = 1.0
    reference = stats.vonmises_fisher(mu, kappa).rvs(20_000, random_state=1)[:, 0]
    p_value = stats.ks_2samp(1.0 - draws(dim, kappa, 20_000), reference).pvalue
    assert p_value > 1e-4
    other = 1.0 - draws(dim, 1.3 * kappa + 0.3, 20_000)
    assert stats.ks_2samp(other, reference).pvalue < 1e-4


@pytest.mark.parametrize("dim", [2, 3, 50])
def test_draws_lie_on_the_sphere_around_their_direction(dim):
    sampler = FixedConcentrationSampler(dim, 30.0)
    draw = jax.jit(lambda mu: sampler.sample(jax.random.key(0), mu, (20_000,)))
    for axis in (1.0, -1.0):
        x = np.asarray(draw(axis * np.eye(1, dim, dtype=np.float32)[0]), float)
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)
        mean, variance = moments(dim, 30.0)
        along = x[:, 0] * axis
        assert abs(along.mean() - (1 - mean)) < 4.5 * np.sqrt(variance / 20_000)
        across = x[:, 1:].mean(0) / (x[:, 1:].std(0) / np.sqrt(20_000))
        assert np.abs(across).max() < 4.5


def test_draws_are_of_unit_norm_around_a_direction_that_is_nearly():
    """A direction may differ from a unit vector by a rounding of three digits."""
    mu = 1.0009 * jnp.array([[0.6, 0.8], [1.0, 0.0]])  # closed over: it is checked
    draw = jax.jit(lambda key: FixedConcentrationSampler(2, 5.0).sample(key, mu, (50,)))
    x = draw(jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)


def test_shapes_trees_and_gradients():
    sampler, key = FixedConcentrationSampler(3, 4.0), jax.random.key(0)
    mu = np.eye(3, dtype=np.float32)[None, :2]
    shaped = jax.eval_shape(lambda s: s.sample(key, mu, (5,)), sampler)
    assert shaped.shape == (5, 1, 2, 3)
    # Of the shape that other tests draw, operation by operation.
    mu = jnp.asarray(mu[0, 1])
    x = sampler.sample(key, mu, 20_000)
    again = jax.jit(lambda s, mu: s.sample(key, mu, 20_000))(sampler, mu)
    np.testing.assert_allclose(again, x, atol=1e-6)
    assert not np.array_equal(x, sampler.sample(jax.random.key(1), mu, 20_000))
    assert [leaf.shape for leaf in jax.tree.leaves(sampler)] == [(2,), (4097,), (4097,)]
    assert repr(sampler) == "FixedConcentrationSampler(dim=3, concentration=4.0)"
    half = jax.eval_shape(lambda s: s.sample(key, mu.astype(jnp.bfloat16)), sampler)
    assert half.dtype == jnp.bfloat16


def test_gradient_in_the_mean_direction():
    sampler, n, a = FixedConcentrationSampler(3, 5.0), 50_000, jnp.array([0.3, -0.5, 1])

    def value(angle):
        mu = jnp.stack([jnp.cos(angle), jnp.sin(angle), 0.0 * angle])
        return sampler.sample(jax.random.key(3), mu, (n,)) @ a

    slope = jax.jit(lambda angle: jax.jvp(value, (angle,), (1.0,))[1])
    length = 1 - moments(3, 5.0)[0]
    for angle in (0.0, 0.7, jnp.pi):
        slopes = np.asarray(slope(angle), float)
        exact = length * (np.cos(angle) * a[1] - np.sin(angle) * a[0])
        assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(n)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FixedConcentrationSampler(1, 1.0), ValueError, "dim must be in"),
        (
            lambda: FixedConcentrationSampler(3, -1.0),
            ValueError,
            "at least 0, got -1.0",
        ),
        (lambda: FixedConcentrationSampler(3, np.inf), ValueError, "must be finite"),
        (lambda: FixedConcentrationSampler(3, "10"), TypeError, "number, got '10'"),
        (lambda: FixedConcentrationSampler(3, None), TypeError, "number, got None"),
        (
            lambda: jax.jit(lambda k: FixedConcentrationSampler(3, k))(1.0),
            TypeError,
            "use sample_vmf",
        ),
        (
            lambda: FixedConcentrationSampler(3, 1.0).sample(
                jax.random.key(0), jnp.eye(4)[0]
            ),
            ValueError,
            r"must be \[..., 3\], got shape \(4,\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_between_two_points_of_the_table_draws_are_uniform():
    """In the plane at concentration 0 angles are, so their place in a cell is too."""
    angle = FixedConcentrationSampler(2, 0.0).sample_angle(jax.random.key(0), (20_000,))
    place = np.asarray(angle, float) * (4096 / np.pi) % 1.0
    assert stats.kstest(place, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("kappa", [0.0, 3.0])
def test_the_density_is_linear_between_two_points_of_a_coarse_table(monkeypatch, kappa):
    monkeypatch.setattr(table, "NUM_CELLS", 5)
    angle = FixedConcentrationSampler(3, kappa).sample_angle(
        jax.random.key(0), (20_000,)
    )
    nodes = np.linspace(0.0, np.pi, 6)
    fine = np.linspace(0.0, np.pi, 5 * 400 + 1)
    density = np.interp(fine, nodes, np.exp(kappa * np.cos(nodes)) * np.sin(nodes))
    sums = integrate.cumulative_trapezoid(density, fine, initial=0.0)

    def distribution(x):
        return np.interp(x, fine, sums / sums[-1])

    assert stats.kstest(np.asarray(angle, float), distribution).pvalue > 1e-4


@pytest.mark.parametrize(
    "draw",
    [
        lambda k, n: FixedConcentrationSampler(3, 1.0).sample(k, jnp.eye(3)[0], n),
        lambda k, n: FixedConcentrationSampler(3, 1.0).sample_angle(k, n),
    ],
)
def test_a_number_is_a_shape_of_one_axis(draw):
    key = jax.random.key(0)
    np.testing.assert_array_equal(draw(key, 20_000), draw(key, (20_000,)))
    with pytest.raises(ValueError, match=r"shape must be integers >= 0, got \(-5,\)"):
        draw(key, (-5,))
