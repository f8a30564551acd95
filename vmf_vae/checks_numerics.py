"""What the sources say of the distribution itself: its divergence, draws, gradients.

The oracles are integrals over the angle to the mean direction, by quadrature.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import vmf_vae
from expkit import claims, plots
from expkit.claims import Context, Finding
from vmf_vae import rejection, sampler

XU_TABLE = tuple((dim, kappa) for dim in (25, 50, 100) for kappa in (40, 80, 100))
GRADIENT_POINTS = ((5, 2.0), (10, 10.0), (50, 20.0), (50, 100.0))


def check_closed_form(context: Context) -> Finding:
    """The divergence in float32 against an integral, and against a plain float32."""
    del context
    ours, plain = 0.0, 0.0
    for dim in (2, 3, 10, 50):
        for kappa in (1e-3, 0.1, 1.0, 10.0, 100.0, 1e3):
            exact = _integrate_kl(dim, kappa)
            got = float(vmf_vae.kl_to_uniform(dim, kappa))
            ours = max(ours, abs(got / exact - 1))
            plain = max(plain, abs(_plain_kl(dim, kappa) / exact - 1))
    return claims.exact(
        ours < 1e-6 < plain,
        ours,
        "Largest relative error in float32 over d = 2 to 50 and concentrations .001 to "
        "1,000, against an integral over the angle. The same formula term by term in "
        f"float32, the control: {plain:.2g}.",
    )


def check_printed_formula(context: Context) -> Finding:
    """The divergence as Xu & Durrett print it, over that of the distribution."""
    del context
    gaps, own = {}, 0.0
    for dim, kappa in XU_TABLE:
        exact = _integrate_kl(dim, kappa)
        gaps[dim, kappa] = _printed_kl(dim, kappa) / exact - 1
        own = max(own, abs(float(vmf_vae.kl_to_uniform(dim, kappa)) / exact - 1))
    point, gap = max(gaps.items(), key=lambda item: abs(item[1]))
    return claims.exact(
        max(map(abs, gaps.values())) < 1e-3,
        float(gap),
        "Relative error where it is largest on their grid, d = 25, 50, 100 and "
        f"concentrations 40, 80, 100: at d = {point[0]}, {point[1]}. Their orders of "
        "the Bessel function are one too high: it is the divergence in d + 2 "
        "dimensions. "
        f"The control, ours: {own:.0e}.",
    )


def check_acceptance(context: Context) -> Finding:
    """Smallest acceptance rate over dimensions and concentrations, as measured."""
    kappas = np.geomspace(0.1, 1e6, 15)
    curves = {}
    for dim in (2, 5, 10, 50, 768):
        rates = []
        for kappa in kappas:
            _, info = sampler.sample_radial_with_info(
                jax.random.key(dim), dim, float(kappa), (40_000,)
            )
            rates.append(float(info.acceptance_rate))
        curves[f"d = {dim}"] = kappas, rates, None, None
    least = {name: min(rates) for name, (_, rates, _, _) in curves.items()}

    def draw(figure):
        axes = figure.subplots()
        plots.curves(axes, curves, xlabel="concentration", ylabel="acceptance rate")
        axes.set_xscale("log")

    context.figure(
        "acceptance",
        draw,
        "Share of the proposals that is accepted: all of them near the uniform law, "
        "and in the limit of large concentrations .6577 in the plane, more on spheres.",
        "Least: " + ", ".join(f"{name} {x:.3f}" for name, x in least.items()),
    )
    # The limit in the plane, .6577, is 4 standard errors of 40,000 draws above .65.
    worst = min(least.values())
    return claims.exact(
        worst > 0.65 and least["d = 768"] > least["d = 2"],
        worst,
        "Least measured rate: "
        + ", ".join(f"{name} {x:.3f}" for name, x in least.items())
        + "; 40,000 draws each, concentrations .1 to 1,000,000. The limits are .6577 "
        "at d = 2 and .7071 for large d.",
    )


def check_shortcut(context: Context) -> Finding:
    """Mean of w under the published approximation of b, over its true mean."""
    del context
    errors, control = {}, 0.0
    for dim, kappa in ((40, 12.0), (50, 20.0), (100, 100.0), (768, 50.0)):
        exact = float(vmf_vae.bessel_ratio(dim, kappa))
        root = np.sqrt(4 * kappa**2 + (dim - 1) ** 2)
        right = (dim - 1) / (2 * kappa + root)
        errors[dim, kappa] = _accepted_mean(dim, kappa, (dim - 1) / (4 * kappa)) / exact
        control = max(control, abs(_accepted_mean(dim, kappa, right) / exact - 1))
    worst = max(abs(e - 1) for e in errors.values())
    listed = ", ".join(f"({d}, {k:g}) {e - 1:+.1%}" for (d, k), e in errors.items())
    return claims.exact(
        worst < 1e-3,
        worst,
        "Relative error of the mean of w when b is (d-1)/(4 kappa), at (d, kappa): "
        f"{listed}. The control, Wood's b itself: {control:.0e}.",
    )


def check_table(context: Context) -> Finding:
    """Standard scores of the mean of w under the table sampler."""
    num_draws = 1_000_000 if context.full else 200_000
    scores = []
    for dim, kappa in ((2, 5.0), (4, 20.0), (16, 1e4), (64, 100.0), (768, 500.0)):
        tabled = vmf_vae.FixedConcentrationSampler(dim, kappa)
        mu = jnp.zeros(dim).at[0].set(1.0)
        scores.append(_mean_score(tabled, dim, kappa, mu, num_draws))
    worst = float(np.abs(scores).max())
    left = _left_sum_score(768, 500.0, num_draws)
    return claims.exact(
        worst < 4.5 < abs(left),
        worst,
        f"Largest standard score of the mean of w over {num_draws:,} draws at five "
        "dimensions from 2 to 768. The control, a left sum over as many cells, as in "
        f"the essay's code but on this grid: {left:+.0f} at d = 768.",
    )


def check_pathwise(context: Context) -> Finding:
    """Bias of the derivative of E[w] without the correction of the accept step."""
    num_draws = 400_000 if context.full else 100_000
    pathwise, implicit = {}, {}
    for dim, kappa in GRADIENT_POINTS:
        slope = float(jax.grad(lambda k, d=dim: vmf_vae.bessel_ratio(d, k))(kappa))
        for name, estimates in _estimators(dim, kappa, num_draws).items():
            error = estimates.std() / np.sqrt(num_draws) / slope
            found = pathwise if name == "pathwise" else implicit
            found[dim, kappa] = estimates.mean() / slope - 1, error
    bias, error = pathwise[5, 2.0]
    scores = [abs(b / e) for b, e in implicit.values()]
    listed = ", ".join(f"({d}, {k:g}) {b:+.2%}" for (d, k), (b, _) in pathwise.items())
    is_biased = bias + 4.5 * error < 0 and max(scores) < 4.5
    return Finding(
        float(bias),
        claims.HOLDS if is_biased else claims.DOES_NOT_HOLD,
        (float(bias - 1.96 * error), float(bias + 1.96 * error)),
        None,
        f"Relative bias at d = 5, concentration 2, over {num_draws:,} draws; all: "
        f"{listed}. The implicit gradient, the control: largest standard score "
        f"{max(scores):.1f}.",
    )


@functools.cache
def _angles() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes in (0, pi) and weights."""
    nodes, weights = np.polynomial.legendre.leggauss(1500)
    return 0.5 * np.pi * (nodes + 1), weights


def _integrate(dim: int, kappa: float, *functions):
    """log of the integral of e^(kappa w) sin^(d-2), and means of functions of w."""
    angle, weights = _angles()
    height = kappa * (np.cos(angle) - 1) + (dim - 2) * np.log(np.sin(angle))
    top = height.max()
    density = weights * np.exp(height - top)
    w = np.cos(angle)
    norm = density.sum()
    log_norm = np.log(norm * 0.5 * np.pi) + top + kappa
    return log_norm, [float((density * f(w)).sum() / norm) for f in functions]


def _integrate_kl(dim: int, kappa: float) -> float:
    """E[kappa w] - log(Z_kappa / Z_0)."""
    log_norm, (mean,) = _integrate(dim, kappa, lambda w: w)
    if kappa <= 0.1:  # the difference loses digits; the derivative is kappa A'
        nodes, weights = np.polynomial.legendre.leggauss(4)
        points = 0.5 * kappa * (nodes + 1)
        rises = [k * _variance(dim, k) for k in points]
        return float(0.5 * kappa * weights @ rises)
    return kappa * mean - (log_norm - _integrate(dim, 0.0)[0])


def _variance(dim: int, kappa: float) -> float:
    _, (mean, square) = _integrate(dim, kappa, lambda w: w, lambda w: w * w)
    return square - mean**2


def _plain_kl(dim: int, kappa: float) -> float:
    """The closed form term by term, rounded to float32 after each."""
    f = np.float32
    v = dim / 2 - 1
    with np.errstate(all="ignore"):
        ratio = f(special.ive(v + 1, kappa) / special.ive(v, kappa))
        log_iv = f(f(np.log(special.ive(v, kappa))) + f(kappa))
        log_c = f(f(f(v * np.log(kappa)) - f((v + 1) * np.log(2 * np.pi))) - log_iv)
    area = f(np.log(2) + (v + 1) * np.log(np.pi) - special.gammaln(v + 1))
    return float(f(f(f(kappa) * ratio) + log_c) + area)


def _printed_kl(dim: int, kappa: float) -> float:
    """Xu & Durrett 2018, the equation after (3), with scaled Bessel functions."""
    v = dim / 2
    lower, upper = special.ive(v, kappa), special.ive(v + 1, kappa)
    log_iv = np.log(lower) + kappa
    rest = special.gammaln(v + 1) + v * np.log(2)
    return float(kappa * upper / lower + v * np.log(kappa) - log_iv - rest)


def _accepted_mean(dim: int, kappa: float, b: float) -> float:
    """Mean of w when proposals with this b pass the accept test of Algorithm 2."""
    angle, weights = _angles()
    epsilon = 0.5 * (1 - np.cos(angle))  # Beta((d - 1) / 2, (d - 1) / 2)
    root = np.sqrt(4 * kappa**2 + (dim - 1) ** 2)
    a = (dim - 1 + 2 * kappa + root) / 4
    shift = 4 * a * b / (1 + b) - (dim - 1) * np.log(dim - 1)
    below = 1 - (1 - b) * epsilon
    w, t = (1 - (1 + b) * epsilon) / below, 2 * a * b / below
    log_accept = np.minimum((dim - 1) * np.log(t) - t + shift, 0.0)
    log_density = (dim - 2) * np.log(np.sin(angle)) + log_accept
    density = weights * np.exp(log_density - log_density.max())
    return float((density * w).sum() / density.sum())


def _mean_score(tabled, dim, kappa, mu, num_draws) -> float:
    """Standard score of the mean of 1 - w, from draws in portions."""
    portion = max(1, 20_000_000 // dim)
    draw = jax.jit(
        lambda key, n: (
            0.5 * jnp.sum((tabled.sample(key, mu, (n,)) - mu[None]) ** 2, -1)
        ),
        static_argnums=1,
    )
    parts, done = [], 0
    while done < num_draws:
        n = min(portion, num_draws - done)
        key = jax.random.fold_in(jax.random.key(dim), done)
        parts.append(np.asarray(draw(key, n), float))
        done += n
    t = np.concatenate(parts)
    return _standard_score(dim, kappa, t)


def _standard_score(dim: int, kappa: float, t: np.ndarray) -> float:
    """How far the mean of draws of 1 - w is from that of the law."""
    _, (mean, square) = _integrate(dim, kappa, lambda w: 1 - w, lambda w: (1 - w) ** 2)
    return float((t.mean() - mean) / np.sqrt((square - mean**2) / len(t)))


def _left_sum_score(dim: int, kappa: float, num_draws: int) -> float:
    """The same for a table whose cells have the density of their left ends."""
    angle = np.linspace(0.0, np.pi, 4097)[1:-1]
    height = kappa * np.cos(angle) + (dim - 2) * np.log(np.sin(angle))
    cumulative = np.cumsum(np.exp(height - height.max()))
    u = np.random.default_rng(0).random(num_draws)
    drawn = np.interp(u, cumulative / cumulative[-1], angle)
    return _standard_score(dim, kappa, 1 - np.cos(drawn))


def _estimators(dim: int, kappa: float, num_draws: int) -> dict[str, np.ndarray]:
    """Derivatives of w in the concentration, one a draw."""
    key = jax.random.key(dim)

    def radial(k):
        return vmf_vae.sample_radial(key, dim, k, (num_draws,), complement=True)

    t, slope = jax.jvp(radial, (jnp.float32(kappa),), (jnp.float32(1.0),))
    # The accepted proposal's y stays, and the map from y to t moves.
    pull, gap = rejection.moebius(dim, jnp.float32(kappa))
    y = (gap - t) / (gap + pull * t)
    proposal = functools.partial(_proposal, dim, y)
    _, path = jax.jvp(proposal, (jnp.float32(kappa),), (jnp.float32(1.0),))
    return {"pathwise": -np.asarray(path, float), "implicit": -np.asarray(slope, float)}


def _proposal(dim: int, y: jax.Array, kappa: jax.Array) -> jax.Array:
    pull, gap = rejection.moebius(dim, kappa)
    return gap * (1.0 - y) / (1.0 + pull * y)
