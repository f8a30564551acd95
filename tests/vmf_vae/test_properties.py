"""Von Mises-Fisher laws of generated concentrations: SciPy and mpmath in float64."""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
import vmf_reference
from properties import assert_close, filled, wide
from scipy import special, stats

import vmf_vae

pytestmark = pytest.mark.optimized
PROPERTIES = properties.Properties("vmf_vae")
EPS = 2.0**-24
DIMS = st.sampled_from((2, 3, 5, 16))
# SciPy is exact to 1e-12 between these; mpmath has the rest.
MODERATE = st.floats(-1.3, 4.0).map(lambda power: 10.0**power)
FAR = st.sampled_from((0.0, 1e-6, 1e-3, 1e5, 2e6))
SEEDS = st.integers(0, 2**31)


@functools.cache
def far_away(dim, kappa):
    """From mpmath, as floats."""
    if kappa == 0:
        area = float(vmf_reference.log_area(dim))
        log_iv = 0.0 if dim == 2 else -np.inf
        return {"log_iv": log_iv, "log_normalizer": -area, "ratio": 0.0, "kl": 0.0}
    return {k: float(v) for k, v in vmf_reference.values(dim, kappa).items()}


def reference(dim, kappa):
    """Values at one concentration in float64."""
    if not 0.05 <= kappa <= 1e4:
        return far_away(dim, kappa)
    order, area = dim / 2 - 1, float(vmf_reference.log_area(dim))
    scaled = special.ive(order, kappa)
    ratio, log_iv = special.ive(order + 1, kappa) / scaled, np.log(scaled) + kappa
    log_c = order * np.log(kappa) - (order + 1) * np.log(2 * np.pi) - log_iv
    kl = log_c + kappa * ratio + area
    return {"log_iv": log_iv, "log_normalizer": log_c, "ratio": ratio, "kl": kl}


def ratio_slope(dim, kappa):
    """The derivative of the ratio, by its differential equation."""
    ratio = reference(dim, kappa)["ratio"]
    return 1 - ratio**2 - (dim - 1) * ratio / kappa


def within(got, want, bound, floor=0.0):
    """Compares at a relative error, on the scale of at least `floor`."""
    got, want = np.float64(got), np.float64(want)
    is_finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~is_finite], want[~is_finite])
    apart = np.abs(got[is_finite] - want[is_finite])
    allowed = bound * np.maximum(np.abs(want), floor)[is_finite]
    assert (apart <= allowed + 2.0**-126).all(), (got, want)


@functools.partial(jax.jit, static_argnums=0)
def functions(dim, kappa):
    """The functions of a concentration, and a derivative."""
    axis = jnp.eye(1, dim, dtype=kappa.dtype)[0]
    law = vmf_vae.VonMisesFisher(axis, kappa)
    slope = jax.grad(lambda k: jnp.sum(vmf_vae.log_normalizer(dim, k)))
    return {
        "log_iv": vmf_vae.log_iv(dim / 2 - 1, kappa),
        "ratio": vmf_vae.bessel_ratio(dim, kappa),
        "log_normalizer": vmf_vae.log_normalizer(dim, kappa),
        "kl": vmf_vae.kl_to_uniform(dim, kappa),
        "entropy": law.entropy(),
        "slope": slope(kappa),
    }


# Relative errors and scales that `test_bessel.py` and `test_density.py` measure.
BOUNDS = {
    "log_iv": (8e-7, 0.0),
    "ratio": (2.5e-7, 0.0),
    "log_normalizer": (5e-7, 1.0),
    "kl": (5e-7, 0.0),
    "entropy": (1e-6, 1.0),
    "slope": (5e-7, 0.0),
}
NAMES = ("log_iv", "ratio", "log_normalizer", "kl")


@PROPERTIES.of(
    "log_iv",
    "bessel_ratio",
    "log_normalizer",
    "kl_to_uniform",
    "VonMisesFisher",
    cases=450,
    dim=DIMS,
    dtype=st.sampled_from(("float32", "bfloat16")),
    data=st.data(),
)
def test_functions_of_a_concentration_are_those_of_float64(dim, dtype, data):
    kappa = data.draw(filled((6,), dtype, st.one_of(MODERATE, FAR)))
    got = functions(dim, kappa)
    rows = [reference(dim, k) for k in wide(kappa)]
    want = {name: np.array([row[name] for row in rows]) for name in NAMES}
    want["entropy"] = float(vmf_reference.log_area(dim)) - want["kl"]
    want["slope"] = -want["ratio"]
    for name, (bound, floor) in BOUNDS.items():
        assert got[name].dtype == kappa.dtype
        if dtype == "bfloat16":  # computed in float32, and rounded once
            bound += float(jnp.finfo(kappa.dtype).eps) / 2
        within(got[name], want[name], bound, floor)


@functools.partial(jax.jit, static_argnums=0)
def inverses(dim, length, kl):
    by_length = vmf_vae.inverse_bessel_ratio(dim, length)
    return by_length, vmf_vae.concentration_for_kl(dim, kl)


@PROPERTIES.of(
    "inverse_bessel_ratio",
    "concentration_for_kl",
    cases=350,
    dim=DIMS,
    data=st.data(),
    layout=st.sampled_from(properties.LAYOUTS),
)
def test_inverses_lead_back(dim, data, layout):
    wanted = data.draw(st.lists(MODERATE, min_size=6, max_size=6))
    rows = [reference(dim, k) for k in wanted]
    length, kl = (
        properties.lay_out(np.float32([0.0] + [row[name] for row in rows]), layout)
        for name in ("ratio", "kl")
    )
    by_length, by_kl = inverses(dim, length, kl)
    assert by_length.dtype == by_kl.dtype == jnp.float32
    assert by_length[0] == by_kl[0] == 0
    for i in range(1, 7):
        # A relative error of the concentration, carried over to what it came from.
        kappa = float(by_length[i])
        if kappa < 2e4 and kappa > 0.04:
            apart = reference(dim, kappa)["ratio"] - float(length[i])
            assert abs(apart) <= 5e-7 * kappa * ratio_slope(dim, kappa) + 1e-14
        kappa = float(by_kl[i])
        if kappa < 2e4 and kappa > 0.04:
            apart = reference(dim, kappa)["kl"] - float(kl[i])
            slope = kappa * ratio_slope(dim, kappa)
            assert abs(apart) <= 40 * EPS * kappa * slope + 1e-11


def directions(rng, *shape):
    """Unit vectors in float32, some of them axes."""
    x = rng.normal(size=shape)
    if rng.uniform() < 0.3:
        x[..., 1:] = 0.0
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


@jax.jit
def laws(mu, nu, x, kappa, other):
    """What two laws say of points and of each other."""
    p = vmf_vae.VonMisesFisher(mu, kappa)
    return {
        "log_prob": p.log_prob(x),
        "mean": p.mean(),
        "covariance": p.covariance(),
        "kl": vmf_vae.kl(mu, kappa, nu, other),
        "same": vmf_vae.kl(mu, kappa, mu, kappa),
    }


@PROPERTIES.of("VonMisesFisher", "kl", cases=300, dim=DIMS, seed=SEEDS, data=st.data())
def test_densities_moments_and_divergences_are_those_of_float64(dim, seed, data):
    mu, nu, x = directions(np.random.default_rng(seed), 3, 4, dim)
    kappa, other = (data.draw(filled((4,), elements=MODERATE)) for _ in range(2))
    got = laws(mu, nu, x, kappa, other)
    a, b, x_64, k, m = map(wide, (mu, nu, x, kappa, other))
    p, q = ([reference(dim, v) for v in z] for z in (k, m))
    log_c, log_d = (np.array([r["log_normalizer"] for r in z]) for z in (p, q))
    ratio = np.array([r["ratio"] for r in p])
    slope = np.array([ratio_slope(dim, v) for v in k])
    apart = np.sum((a - x_64) ** 2, -1) / 2
    # The constant to its own bound; the vectors are of unit length to a rounding.
    size = np.abs(log_c) + 2 * k + 1
    want = log_c + k - k * apart
    assert_close(got["log_prob"], want, roundings=dim + 16, size=size)
    assert_close(got["mean"], ratio[:, None] * a, roundings=8)
    outer = a[:, :, None] * a[:, None, :]
    across = (ratio / k)[:, None, None]
    along = slope[:, None, None]
    want = across * (np.eye(dim) - outer) + along * outer
    assert_close(got["covariance"], want, roundings=24, size=across + along)
    turned = np.sum((a - b) ** 2, -1) / 2
    want = log_c - log_d + ratio * (k - m) + m * ratio * turned
    # As `test_divergence.py` has it, and the errors of the oracle, which subtracts.
    apart = np.abs(np.float64(got["kl"]) - want)
    assert (apart <= 80 * EPS * want + 1e-11 * (1 + k + m)).all()
    assert (np.asarray(got["kl"]) >= 0).all()
    np.testing.assert_array_equal(got["same"], 0.0)


NUM_DRAWS = 200


@functools.partial(jax.jit, static_argnums=(0, 1))
def draws(dim, shape, key, mu, kappa):
    spherical = vmf_vae.PowerSpherical(mu, kappa)
    return {
        "vmf": vmf_vae.sample_vmf(key, mu, kappa, shape),
        "radial": vmf_vae.sample_radial(key, dim, kappa, shape),
        "complement": vmf_vae.sample_radial(key, dim, kappa, shape, complement=True),
        "uniform": vmf_vae.SphericalUniform(dim).sample(key, shape),
        "power": spherical.sample(key, shape),
    }


@PROPERTIES.of(
    "sample_vmf",
    "sample_radial",
    "SphericalUniform",
    "PowerSpherical",
    cases=250,
    dim=st.sampled_from((2, 3, 8)),
    seed=SEEDS,
    data=st.data(),
)
def test_draws_are_unit_vectors_with_the_mean_of_the_law(dim, seed, data):
    mu = directions(np.random.default_rng(seed), 2, dim)
    kappa = data.draw(filled((2,), elements=MODERATE))
    key = jax.random.key(seed)
    got = draws(dim, (NUM_DRAWS,), key, mu, kappa)
    for name in ("vmf", "power", "uniform"):
        x = np.float64(got[name])
        norms = np.linalg.norm(x, axis=-1)
        # A square, a sum, a root and a quotient, and a reflection.
        assert (np.abs(norms - 1) <= (2 * dim + 12) * EPS).all()
    properties.same(draws(dim, (NUM_DRAWS,), key, mu, kappa), got)
    other = draws(dim, (NUM_DRAWS,), jax.random.key(seed + 1), mu, kappa)
    assert (np.asarray(other["vmf"]) != np.asarray(got["vmf"])).any()
    radial, rest = np.float64(got["radial"]), np.float64(got["complement"])
    assert (np.abs(radial) <= 1).all()
    np.testing.assert_allclose(radial, 1 - rest, atol=2 * EPS)
    for i, k in enumerate(wide(kappa)):
        ratio, slope = reference(dim, k)["ratio"], ratio_slope(dim, k)
        half = (dim - 1) / 2
        beta = stats.beta(half + k, half)
        along = np.float64(got["vmf"])[:, i] @ wide(mu)[i]
        power = np.float64(got["power"])[:, i] @ wide(mu)[i]
        for w, mean, variance in (
            (along, ratio, slope),
            (radial[:, i], ratio, slope),
            (power, 2 * beta.mean() - 1, 4 * beta.var()),
        ):
            # The square of a normal variable in 1 - w has the longest tail; its mean
            # of 200 is beyond 9 deviations once in 1e9.
            allowed = 9 * math.sqrt(variance / NUM_DRAWS) + 8 * EPS
            assert abs(w.mean() - mean) <= allowed
    total = np.float64(got["uniform"]).sum(0)
    # Nearly a chi-squared variable, and no heavier.
    assert total @ total * dim / NUM_DRAWS <= stats.chi2(dim).isf(1e-10)


@functools.cache
def table(dim, kappa):
    """A tabulated law, and its draws, jitted."""
    law = vmf_vae.FixedConcentrationSampler(dim, kappa)
    return law, jax.jit(lambda key, mu: law.sample(key, mu, (NUM_DRAWS,)))


@PROPERTIES.of(
    "FixedConcentrationSampler",
    cases=150,
    dim=st.sampled_from((2, 3, 8)),
    kappa=st.sampled_from((0.0, 0.5, 20.0, 5e3)),
    seed=SEEDS,
)
def test_tabulated_draws_have_the_mean_of_the_law(dim, kappa, seed):
    mu = directions(np.random.default_rng(seed), dim)
    law, sample = table(dim, kappa)
    assert (law.dim, law.concentration) == (dim, kappa)
    x = np.float64(sample(jax.random.key(seed), mu))
    assert (np.abs(np.linalg.norm(x, axis=-1) - 1) <= (2 * dim + 12) * EPS).all()
    ratio = reference(dim, kappa)["ratio"]
    variance = ratio_slope(dim, kappa) if kappa else 1 / dim
    allowed = 9 * math.sqrt(variance / NUM_DRAWS) + 1e-5
    assert abs((x @ wide(mu)).mean() - ratio) <= allowed


@jax.jit
def fitted(x, weights):
    law = vmf_vae.fit(x, weights=weights)
    return law.mean_direction, law.concentration


@PROPERTIES.of(
    "fit",
    cases=250,
    dim=DIMS,
    seed=SEEDS,
    spread=st.sampled_from((0.05, 0.3, 1.0, 10.0)),
    weighted=st.booleans(),
)
def test_fits_solve_the_likelihood_equations(dim, seed, spread, weighted):
    rng = np.random.default_rng(seed)
    x = directions(rng, dim) + spread * rng.normal(size=(6, dim))
    x = np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))
    weights = np.float32(rng.integers(0, 4, 6) + np.eye(6)[0]) if weighted else None
    direction, kappa = fitted(x, weights)
    w = np.ones(6) if weights is None else np.float64(weights)
    mean = (w / w.sum()) @ np.float64(x)
    length = np.linalg.norm(mean)
    # A weight and a product of it, and a sum of six, over the length.
    assert_close(direction, mean / length, roundings=16, size=1 / length)
    kappa = float(kappa)
    if 0.05 <= kappa <= 1e4:
        allowed = 5e-7 * kappa * ratio_slope(dim, kappa) + 32 * EPS
        assert abs(reference(dim, kappa)["ratio"] - length) <= allowed


@jax.jit
def power_spherical(mu, x, kappa):
    law = vmf_vae.PowerSpherical(mu, kappa)
    uniform = vmf_vae.SphericalUniform(mu.shape[-1])
    return (
        law.log_prob(x),
        law.entropy(),
        law.kl_to_uniform(),
        law.mean(),
        uniform.log_prob(x),
        uniform.entropy(),
    )


@PROPERTIES.of(
    "PowerSpherical",
    "SphericalUniform",
    cases=200,
    dim=DIMS,
    seed=SEEDS,
    data=st.data(),
)
def test_the_other_laws_are_those_of_scipy(dim, seed, data):
    mu, x = directions(np.random.default_rng(seed), 2, 4, dim)
    kappa = data.draw(filled((4,), elements=st.one_of(MODERATE, st.just(0.0))))
    density, entropy, kl, mean, flat, spread = power_spherical(mu, x, kappa)
    area, k = float(vmf_reference.log_area(dim)), wide(kappa)
    assert_close(flat, np.full(4, -area), roundings=4)
    assert_close(spread, np.float64(area), roundings=4)
    half = (dim - 1) / 2
    peak = special.gammaln(half) - special.betaln(half + k, half)
    peak = peak - half * math.log(4 * math.pi)
    cosine = np.sum((wide(mu) + wide(x)) ** 2, -1) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        want = peak + np.where(k > 0, k * np.log(cosine), 0.0)
    # A logarithm of a beta function in float32 has the errors of those of gamma
    # functions, which are as large as its arguments times their logarithm.
    gammas = sum(np.abs(special.gammaln(z)) for z in (half + k, 2 * half + k)) + 1
    near = np.minimum(1 / np.maximum(cosine, 1e-12), 1e12)
    size = np.abs(want) + gammas + k * near * (dim + 4)
    is_finite = np.isfinite(want) & (cosine > 1e-6)
    assert_close(
        density[is_finite], want[is_finite], roundings=24, size=size[is_finite]
    )
    fall = k * (special.digamma(2 * half + k) - special.digamma(half + k))
    size = np.abs(peak) + gammas + fall + 1
    assert_close(entropy, fall - peak, roundings=48, size=size)
    assert_close(kl, area - fall + peak, roundings=48, size=size + area)
    length = k / (k + dim - 1)
    assert_close(mean, length[:, None] * wide(mu), roundings=6)


class Line:
    """x = z + noise with z normal: everything is known, the posterior included."""

    class _Latent:
        def prior_log_prob(self, z):
            return -0.5 * (z[..., 0] ** 2 + math.log(2 * math.pi))

    class _Posterior:
        def __init__(self, mean, scale):
            self.center, self.scale = mean, scale

        def sample(self, key, shape):
            noise = jax.random.normal(key, (*shape, *self.center.shape))
            return self.center[None] + self.scale * noise

        def log_prob(self, z):
            square = ((z - self.center[None]) / self.scale) ** 2
            constant = math.log(2 * math.pi) + 2 * jnp.log(self.scale)
            return -0.5 * (square + constant)[..., 0]

    latent = _Latent()

    def encode(self, noise, x):
        variance = noise**2 / (1 + noise**2)
        return self._Posterior(x / (1 + noise**2), jnp.sqrt(variance))

    def log_likelihood(self, noise, x, z):
        constant = math.log(2 * math.pi) + 2 * jnp.log(noise)
        return -0.5 * (((x - z) / noise) ** 2 + constant)[..., 0]


@functools.partial(jax.jit, static_argnums=3)
def estimated(noise, x, key, num_samples):
    return vmf_vae.importance_log_likelihood(
        Line(), noise, x, key, num_samples=num_samples
    )


@PROPERTIES.of(
    "importance_log_likelihood",
    cases=150,
    x=filled((3, 1), elements=st.integers(-64, 64).map(lambda i: i / 8)),
    noise=st.sampled_from((0.5, 1.0, 3.0)),
    seed=SEEDS,
    num_samples=st.sampled_from((1, 7, 23)),
)
def test_with_the_true_posterior_every_draw_says_the_likelihood(
    x, noise, seed, num_samples
):
    got = estimated(noise, x, jax.random.key(seed), num_samples)
    assert got.shape == (3,)
    scale = math.sqrt(1 + noise**2)
    want = stats.norm(0, scale).logpdf(wide(x)[:, 0])
    # Three log densities cancel: a draw lies within 6 deviations of the posterior.
    reach = (np.abs(wide(x)[:, 0]) + 6) ** 2 * (1 + 1 / noise**2) + 6**2 + 4
    assert_close(got, want, roundings=24, size=reach)


MODELS = ("VMFVAE", "GaussianVAE", "BatchNormVAE")


@functools.cache
def model(name, likelihood):
    """A small model, its parameters, and what it says of examples, jitted."""
    made = getattr(vmf_vae, name)((2, 2, 1), 3, hidden=(4,), likelihood=likelihood)

    @jax.jit
    def says(params, x, key):
        q = made.encode(params, x)
        z = q.sample(key)
        return q, z, made.decode(params, z), made.elbo(params, x, key)

    return made.init(jax.random.key(0)), says


@PROPERTIES.of(
    *MODELS,
    cases=100,
    name=st.sampled_from(MODELS),
    likelihood=st.sampled_from(("bernoulli", "gaussian")),
    x=filled((4, 2, 2, 1), elements=st.integers(0, 8).map(lambda i: i / 8)),
    seed=SEEDS,
)
def test_bounds_are_a_likelihood_less_a_divergence(name, likelihood, x, seed):
    params, says = model(name, likelihood)
    q, _, out, (elbo, parts) = says(params, x, jax.random.key(seed))
    out, rows = np.float64(out), wide(x)
    if likelihood == "bernoulli":
        terms = rows * out - np.logaddexp(0.0, out)
        size = np.abs(rows * out) + np.logaddexp(0.0, out)
    else:
        terms = stats.norm(out, 0.1).logpdf(rows)
        size = np.abs(terms) + 200 * (np.abs(rows) + np.abs(out)) ** 2
    want, size = (z.reshape(4, -1).sum(1) for z in (terms, size))
    # Four terms of some roundings each, and their sum.
    assert_close(parts["reconstruction"], want, roundings=24, size=size)
    if name == "VMFVAE":
        kappa = wide(q.concentration)
        kl = np.array([reference(3, k)["kl"] for k in kappa])
        within(parts["kl"], kl, BOUNDS["kl"][0])
    else:
        loc, scale = np.float64(q.loc), np.float64(q.scale)
        terms = (loc**2 + scale**2 - 1 - 2 * np.log(scale)) / 2
        reach = (loc**2 + scale**2 + 1 + 2 * np.abs(np.log(scale))).sum(1)
        assert_close(parts["kl"], terms.sum(1), roundings=16, size=reach)
    both = np.float64(parts["reconstruction"]) - np.float64(parts["kl"])
    assert_close(elbo, both, roundings=1)


@PROPERTIES.of(
    "log_iv",
    "bessel_ratio",
    "inverse_bessel_ratio",
    "log_normalizer",
    "kl_to_uniform",
    "concentration_for_kl",
    "VonMisesFisher",
    "sample_vmf",
    "sample_radial",
    "FixedConcentrationSampler",
    cases=100,
    short=True,
    number=st.floats(-1e30, -1e-30),
    dim=st.one_of(st.integers(max_value=1), st.integers(200_001)),
    length=st.floats(1.01, 1e6),
)
def test_what_is_out_of_range_is_refused_by_name(number, dim, length):
    mu, key = np.float32([1.0, 0.0]), jax.random.key(0)
    value = np.float32(number)
    calls = [
        ("x", lambda: vmf_vae.log_iv(1.0, value)),
        ("order", lambda: vmf_vae.log_iv(number, 1.0)),
        ("mean_length", lambda: vmf_vae.inverse_bessel_ratio(3, np.float32(length))),
        ("kl", lambda: vmf_vae.concentration_for_kl(3, value)),
        ("concentration", lambda: vmf_vae.VonMisesFisher(mu, value)),
        ("concentration", lambda: vmf_vae.sample_vmf(key, mu, value)),
        ("concentration", lambda: vmf_vae.sample_radial(key, 3, value)),
        ("concentration", lambda: vmf_vae.FixedConcentrationSampler(3, number)),
        ("mean_direction", lambda: vmf_vae.VonMisesFisher(mu * length, 1.0)),
        ("weights", lambda: vmf_vae.fit(mu[None], weights=np.float32([number]))),
    ]
    for function in ("bessel_ratio", "log_normalizer", "kl_to_uniform"):
        made = getattr(vmf_vae, function)
        calls.append(("concentration", functools.partial(made, 3, value)))
        calls.append(("dim", functools.partial(made, dim, 1.0)))
    for name, call in calls:
        with pytest.raises(ValueError, match=rf"^{name} must "):
            call()


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(vmf_vae.__all__)
