import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from expkit import testing
from vmf_vae import sampler
from vmf_vae.distribution import VonMisesFisher
from vmf_vae.sampler import sample_radial, sample_vmf

LAWS = [
    (2, 1e-6),
    (3, 1e6),
    (10, 0.0),
    (128, 1e6),
    (16_384, 100.0),
    *(
        pytest.param(*law, marks=pytest.mark.slow)
        for law in (
            (2, 1e5),
            (4, 1e6),
            (10, 1e6),
            (40, 12.0),
            (50, 20.0),
            (768, 50.0),
            (768, 100.0),
            (2048, 1e3),
        )
    ),
]
GRADIENTS = {(5, 2.0): 0.416, (10, 10.0): 0.424, (50, 20.0): 0.130, (50, 100.0): 0.197}
# Tests that draw in the same shapes share a program, which takes longer than the draws.
NUM_DRAWS = 50_000
KAPPAS = jnp.array([0.0, 1e-3, 1.0, 1e3, 1e6, 2e6])


@functools.cache
def moments(dim, kappa):
    """Mean and variance of w, from mpmath's Bessel functions."""
    if kappa == 0:
        return 0.0, 1.0 / dim, 1.0
    with mpmath.workdps(50):
        v, k = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
        ratio = mpmath.besseli(v + 1, k) / mpmath.besseli(v, k)
        variance = 1 - ratio**2 - (dim - 1) * ratio / k
        return float(ratio), float(variance), float(1 - ratio)


def distribution_function(dim, kappa, t):
    """F of t = 1 - w by quadrature in the angle, in float64."""
    _, variance, mean = moments(dim, kappa)
    deviation = np.sqrt(variance)
    low, high = max(0.0, mean - 12 * deviation), min(2.0, mean + 40 * deviation)
    angles = np.linspace(*(2 * np.arcsin(np.sqrt(np.array([low, high]) / 2))), 40_001)
    middle = 0.5 * (angles[1:] + angles[:-1])
    log_density = -2 * kappa * np.sin(middle / 2) ** 2
    log_density += (dim - 2) * np.log(np.sin(middle))
    cumulative = np.cumsum(np.exp(log_density - log_density.max()))
    cumulative = np.concatenate([[0.0], cumulative / cumulative[-1]])
    return np.interp(2 * np.arcsin(np.sqrt(t / 2)), angles, cumulative)


def standard_scores(t, dim, kappa):
    _, variance, mean = moments(dim, kappa)
    centred = t - mean
    squares = centred**2 - variance
    root = np.sqrt(len(t))
    return centred.mean() * root / np.sqrt(
        variance
    ), squares.mean() * root / squares.std()


def first_axis(dim, dtype=jnp.float32):
    return jnp.zeros(dim, dtype).at[0].set(1.0)


@pytest.mark.parametrize(("dim", "kappa"), LAWS)
def test_law_of_the_first_coordinate(dim, kappa):
    t = sample_radial(jax.random.key(dim), dim, kappa, (NUM_DRAWS,), complement=True)
    t = np.asarray(t, float)
    assert np.abs(standard_scores(t, dim, kappa)).max() < 4.5
    cdf = functools.partial(distribution_function, dim, kappa)
    assert stats.kstest(t, cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("dim", "kappa"),
    [
        (2, 5.0),
        (3, 1e6),
        (40, 12.0),
        pytest.param(768, 50.0, marks=pytest.mark.slow),
    ],
)
def test_law_of_whole_samples(dim, kappa):
    """First coordinate and a coordinate across, with the mean direction turned."""
    n = NUM_DRAWS
    mu = np.linspace(1.0, -1.5, dim)
    mu = jnp.array(mu / np.linalg.norm(mu), jnp.float32)
    x = np.asarray(sample_vmf(jax.random.key(1), mu, kappa, (n,)), float)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-6)
    wide = np.asarray(mu, float) / np.linalg.norm(np.asarray(mu, float))
    t = 0.5 * np.square(x - wide).sum(-1)
    if kappa < 1e5:  # where rounding of x is small next to t
        assert np.abs(standard_scores(t, dim, kappa)).max() < 4.5
    across = np.zeros(dim)
    across[:2] = wide[1], -wide[0]
    across /= np.linalg.norm(across)
    share = (x @ across) / np.sqrt(t * (2 - t))
    law = stats.beta((dim - 2) / 2, (dim - 2) / 2, loc=-1, scale=2)
    if dim > 2:
        assert stats.kstest(share, law.cdf).pvalue > 1e-4
    else:
        assert abs((share > 0).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)


def test_published_shortcut_fails_the_same_test():
    """The control: b = (d - 1) / (4 kappa) in the accept-reject step of Algorithm 2."""
    dim, kappa, n = 50, 20.0, 50_000
    rng = np.random.default_rng(0)
    b = (dim - 1) / (4 * kappa)
    root = np.sqrt(4 * kappa**2 + (dim - 1) ** 2)
    a = (dim - 1 + 2 * kappa + root) / 4
    shift = 4 * a * b / (1 + b) - (dim - 1) * np.log(dim - 1)
    kept = []
    while sum(map(len, kept)) < n:
        epsilon = rng.beta((dim - 1) / 2, (dim - 1) / 2, n)
        below = 1 - (1 - b) * epsilon
        scale = 2 * a * b / below
        is_accepted = (dim - 1) * np.log(scale) - scale + shift >= np.log(rng.random(n))
        kept.append((1 - (1 - (1 + b) * epsilon) / below)[is_accepted])
    t = np.concatenate(kept)[:n]
    assert abs(standard_scores(t, dim, kappa)[0]) > 50


@pytest.mark.parametrize(
    "dim", [2, 3, 8, *(pytest.param(d, marks=pytest.mark.slow) for d in (4, 50))]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_unit_norm_at_both_ends_of_the_first_axis(dim, sign):
    x = sample_vmf(jax.random.key(0), sign * first_axis(dim), KAPPAS, (10_000,))
    norm = np.linalg.norm(np.asarray(x, float), axis=-1)
    np.testing.assert_allclose(norm, 1.0, atol=1e-6)


def test_samples_turn_with_the_mean_direction():
    """In the frame of its mean direction every sample is the same."""
    keys = jax.random.split(jax.random.key(5), 3)
    mu = jax.random.normal(keys[0], (2, 40))
    mu /= jnp.linalg.norm(mu, axis=-1, keepdims=True)
    w = [sample_vmf(keys[1], m, 7.0, (NUM_DRAWS,)) @ m for m in mu]
    np.testing.assert_allclose(w[0], w[1], atol=1e-5)


@pytest.mark.parametrize(
    ("dim", "kappa"),
    [
        pytest.param(*law, marks=[pytest.mark.slow] * (law != (5, 2.0)))
        for law in GRADIENTS
    ],
)
def test_derivative_of_the_mean(dim, kappa):
    n = 100_000
    key = jax.random.key(dim)
    w, slopes = jax.jvp(
        lambda k: sample_radial(key, dim, k, (n,)), (jnp.float32(kappa),), (1.0,)
    )
    slopes, exact = np.asarray(slopes, float), moments(dim, kappa)[1]  # A' = var w
    assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(n)
    assert slopes.std() / exact < 1.1 * GRADIENTS[dim, kappa]
    assert np.isfinite(w).all()


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "kappa"), GRADIENTS)
def test_derivative_of_the_mean_of_many(dim, kappa):
    n = 400_000
    key = jax.random.key(dim + 1)
    _, slopes = jax.jvp(
        lambda k: sample_radial(key, dim, k, (n,)), (jnp.float32(kappa),), (1.0,)
    )
    slopes, exact = np.asarray(slopes, float), moments(dim, kappa)[1]
    assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(n)


def test_accepted_proposal_alone_has_a_biased_derivative():
    """The control, -13 % at d = 5 and concentration 2."""
    dim, kappa, n = 5, 2.0, 100_000
    t = 1.0 - stats.vonmises_fisher(np.eye(dim)[0], kappa).rvs(n, 0)[:, 0]

    def parts(k):
        b = (dim - 1) / (2 * k + np.sqrt(4 * k**2 + (dim - 1) ** 2))
        return (1 - b) / (1 + b), 2 * b / (1 + b)

    pull, gap = parts(kappa)
    y = (gap - t) / (gap + pull * t)
    h = 1e-5
    moved = [
        (g * (1 - y)) / (1 + p * y) for p, g in (parts(kappa + h), parts(kappa - h))
    ]
    slopes = -(moved[0] - moved[1]) / (2 * h)
    bias = slopes.mean() / moments(dim, kappa)[1] - 1
    assert -0.145 < bias < -0.125


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi])
@pytest.mark.parametrize("dim", [2, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_derivative_in_the_mean_direction(dim, angle):
    """E[a.z] = A a.mu, and E[(a.z)^2] from the covariance; at +-e1 too."""
    n, kappa = 100_000, 4.0
    a = jnp.linspace(1.0, -0.4, dim)

    def values(angle):
        mu = jnp.zeros(dim).at[0].set(jnp.cos(angle)).at[1].set(jnp.sin(angle))
        along = sample_vmf(jax.random.key(2), mu, kappa, (n,)) @ a
        return along, along**2

    _, slopes = jax.jvp(values, (jnp.float32(angle),), (1.0,))
    mean, variance, _ = moments(dim, kappa)
    wide = np.asarray(a, float)
    along = wide[0] * np.cos(angle) + wide[1] * np.sin(angle)
    rise = -wide[0] * np.sin(angle) + wide[1] * np.cos(angle)
    across = mean / kappa  # variance of a direction across
    square = (variance + mean**2 - across) * 2 * along * rise
    for slope, exact in zip(slopes, (mean * rise, square), strict=True):
        slope = np.asarray(slope, float)
        assert abs(slope.mean() - exact) < 4.5 * slope.std() / np.sqrt(n)


def test_reverse_mode_is_forward_mode():
    mu, kappa = jnp.array([[0.6, 0.8, 0.0, 0.0]]), jnp.array([2.0, 30.0])
    a = jnp.array([1.0, -1.0, 0.5, 2.0])

    def value(mu, kappa):
        return jnp.sin(sample_vmf(jax.random.key(0), mu, kappa, (50,)) @ a).mean()

    gradient = jax.jit(jax.grad(value, argnums=(0, 1)))
    reverse = gradient(mu, kappa)
    forward = jax.jit(jax.jacfwd(value, argnums=(0, 1)))(mu, kappa)
    for x, y in zip(reverse, forward, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
        assert np.isfinite(x).all()
    _, at_zero = gradient(mu, jnp.zeros(2))
    assert np.isfinite(at_zero).all()


@pytest.mark.parametrize(
    ("mean_shape", "kappa_shape", "shape", "expected"),
    [
        ((3,), (), (), (3,)),
        ((3,), (), (4, 2), (4, 2, 3)),
        ((3,), (5,), (2,), (2, 5, 3)),
        ((5, 3), (), (2,), (2, 5, 3)),
        ((5, 1, 3), (4,), (), (5, 4, 3)),
        ((1, 4), (6, 1), (7,), (7, 6, 1, 4)),
        ((3,), (), (0,), (0, 3)),
        ((0, 10), (1,), (2,), (2, 0, 10)),
    ],
)
def test_shapes(mean_shape, kappa_shape, shape, expected):
    mu = jnp.broadcast_to(first_axis(mean_shape[-1]), mean_shape)
    key, kappa = jax.random.key(0), jnp.full(kappa_shape, 3.0)

    def draws(mu, kappa):
        return sample_vmf(key, mu, kappa, shape), sample_radial(key, 5, kappa, shape)

    # Nothing is compiled, but for the empty ones: each shape would be a program.
    run = jax.jit(draws) if 0 in expected else functools.partial(jax.eval_shape, draws)
    x, radial = run(mu, kappa)
    assert x.shape == expected
    assert radial.shape == (*shape, *kappa_shape)


def test_every_element_has_its_own_draw():
    x = sample_vmf(jax.random.key(0), first_axis(8), jnp.full(6, 2.0), (10_000,))
    assert len(np.unique(np.asarray(x)[:50, :, 0])) == 300


def test_elements_keep_their_own_concentration():
    kappa = jnp.array([0.1, 5.0, 2000.0, 0.0, 30.0, 1.0])
    for dim in (2, 3, 8):
        w = sample_vmf(jax.random.key(0), first_axis(dim), kappa, (10_000,))[..., 0]
        for i, k in enumerate(kappa):
            mean, variance, _ = moments(dim, float(k))
            error = np.sqrt(variance / 10_000) + 1e-7
            assert abs(np.asarray(w[:, i], float).mean() - mean) < 4.5 * error


@pytest.mark.parametrize("dim", [3, 40])
def test_keys_and_compilation(dim):
    mu = first_axis(dim)

    def draw(key):
        return sample_vmf(key, mu, 9.0, (NUM_DRAWS,))

    x = draw(jax.random.key(0))
    np.testing.assert_array_equal(x, draw(jax.random.key(0)))
    jitted = jax.jit(lambda key: 1.0 * draw(key))(jax.random.key(0))
    is_other = np.abs(x - jitted).max(axis=-1) > 1e-5
    assert is_other.mean() <= 1e-5
    other = draw(jax.random.key(1))
    correlation = np.corrcoef(x[:, 0], other[:, 0])[0, 1]
    assert abs(correlation) < 4.5 / np.sqrt(NUM_DRAWS)


def test_a_second_draw_of_first_coordinates_compiles_nothing():
    sample_radial(jax.random.key(0), 6, jnp.float32(2.0), (5,))
    with testing.count_compilations() as log:
        sample_radial(jax.random.key(1), 6, jnp.float32(3.0), (5,))
    assert not log.names


@pytest.mark.parametrize("dim", [pytest.param(3, marks=pytest.mark.slow), 7])
def test_vmap_over_keys_and_parameters(dim):
    keys = jax.random.split(jax.random.key(0), 4)
    kappa = jnp.array([0.0, 1.0, 40.0, 1e4])
    mu = jnp.broadcast_to(first_axis(dim), (4, dim))
    mapped = jax.vmap(lambda key, m, k: sample_vmf(key, m, k, (100,)))(keys, mu, kappa)
    loop = [sample_vmf(*args, (100,)) for args in zip(keys, mu, kappa, strict=True)]
    np.testing.assert_allclose(mapped, jnp.stack(loop), atol=1e-5)


def test_sharded_is_unsharded():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    kappa = jnp.linspace(0.1, 50.0, 64)
    mu = first_axis(6)

    def draw(kappa):
        return sample_vmf(jax.random.key(0), mu, kappa, ())

    sharded = jax.jit(draw)(jax.device_put(kappa, split))
    np.testing.assert_allclose(sharded, jax.jit(draw)(kappa), atol=1e-6)


@pytest.mark.parametrize("dim", [pytest.param(2, marks=pytest.mark.slow), 3, 10])
def test_it_exports_for_accelerators(dim):
    mu = first_axis(dim)

    def draw(seed, kappa):
        return sample_vmf(jax.random.key(seed), mu, kappa, (8,))

    exported = jax.export.export(jax.jit(draw), platforms=("cpu", "cuda", "tpu"))
    text = exported(jnp.uint32(0), jnp.float32(1.0)).mlir_module()
    assert "callback" not in text


def test_rounding_leads_nowhere_beyond_the_opposite_point():
    """Where u is nearly 1, in three dimensions, t = 1 - w is nearly 2."""
    kappa = np.geomspace(1e-5, 1.0, 100_001, dtype=np.float32)
    u = 1.0 - 0.5 * jnp.finfo(jnp.float32).eps
    assert (-jnp.log1p(u * jnp.expm1(-2.0 * kappa)) / kappa > 2.0).any()
    t = sampler._invert(kappa, u)
    np.testing.assert_allclose(t, 2.0, rtol=1e-6)
    assert (t <= 2.0).all()


def test_no_nan_hangs():
    mu = first_axis(5)
    draw = jax.jit(lambda k: sample_vmf(jax.random.key(0), mu, k, (3,)))
    for kappa in (-1.0, jnp.nan, jnp.inf):
        assert np.isnan(draw(kappa)).all()
    kappa = KAPPAS.at[1].set(jnp.nan)
    mixed = np.asarray(sample_vmf(jax.random.key(0), first_axis(8), kappa, (10_000,)))
    assert np.isfinite(mixed[:, [0, 2, 3, 4, 5]]).all()
    assert np.isnan(mixed[:, 1]).all()


def test_dtypes():
    mu = first_axis(5)
    draw = functools.partial(jax.eval_shape, sample_vmf, jax.random.key(0))
    half = draw(mu.astype(jnp.bfloat16), jnp.bfloat16(2.0))
    assert half.dtype == jnp.bfloat16
    assert draw(mu, 2).dtype == jnp.float32
    radial = jax.eval_shape(lambda key: sample_radial(key, 5, 2), jax.random.key(0))
    assert radial.dtype == jnp.float32
    with jax.enable_x64(True):
        x = sample_vmf(jax.random.key(0), first_axis(3, jnp.float64), 30.0, (1000,))
        assert x.dtype == jnp.float64
        np.testing.assert_allclose(jnp.linalg.norm(x, axis=-1), 1.0, atol=1e-14)


def test_diagnostics():
    t, info = sampler.sample_radial_with_info(
        jax.random.key(0), 10, 10.0, (NUM_DRAWS,), complement=True
    )
    assert abs(info.acceptance_rate - 0.838) < 0.01
    again = sample_radial(jax.random.key(0), 10, 10.0, (NUM_DRAWS,), complement=True)
    np.testing.assert_array_equal(t, again)
    _, closed = sampler.sample_radial_with_info(jax.random.key(0), 3, 10.0, (10,))
    assert closed.rounds == closed.acceptance_rate == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda k: sample_vmf(k, jnp.ones(3), 1.0), ValueError, "must have unit norm"),
        (lambda k: sample_vmf(k, first_axis(3), -1.0), ValueError, "got -1.0"),
        (
            lambda k: sample_vmf(k, jnp.eye(3), jnp.ones(2)),
            ValueError,
            "must broadcast",
        ),
        (lambda k: sample_vmf(0, first_axis(3), 1.0), TypeError, "jax.random.key"),
        (
            lambda k: sample_vmf(jax.random.PRNGKey(0), first_axis(3), 1.0),
            TypeError,
            "typed PRNG key",
        ),
        (
            lambda k: sample_vmf(jax.random.split(k), first_axis(3), 1.0),
            ValueError,
            "key must be one key",
        ),
        (lambda k: sample_radial(k, 1, 1.0), ValueError, "dim must be in"),
        (lambda k: sample_radial(k, 3, -0.5), ValueError, "got -0.5"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(jax.random.key(0))


@pytest.mark.parametrize(
    "draw",
    [
        lambda k, shape: sample_vmf(k, first_axis(3), 1.0, shape),
        lambda k, shape: sample_radial(k, 3, 1.0, shape),
        lambda k, shape: VonMisesFisher(first_axis(3), 1.0).sample(k, shape),
    ],
    ids=["sample_vmf", "sample_radial", "VonMisesFisher"],
)
def test_a_number_is_a_shape_of_one_axis(draw):
    key = jax.random.key(0)
    np.testing.assert_array_equal(draw(key, 5), draw(key, (5,)))
    for shape in (-5, (2, -5)):
        with pytest.raises(ValueError, match=r"shape must be integers >= 0, got .*-5"):
            draw(key, shape)
    with pytest.raises(TypeError, match=r"shape must be integers >= 0, got 2.5"):
        draw(key, 2.5)
