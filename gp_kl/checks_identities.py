"""Exact statements about the divergence of sigmoids, each with a control."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import rel_entr

import gp_kl
import rdrop
from expkit import claims, plots
from expkit.claims import Context, Finding

TIGHT = 1e-10
"""Relative difference of two float64 programs for the same number."""

CELLS = (2, 12, 12)
"""Types, first and last tokens."""


def check_coins(context: Context) -> Finding:
    """Relative deviation from the divergences of coins, added up by scipy."""
    del context
    with jax.enable_x64(True):
        s, t = _scores()
        p, q = (np.asarray(jax.nn.sigmoid(z)) for z in (s, t))
        sides = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
        other = rel_entr(q, p) + rel_entr(1 - q, 1 - p)
        expected = np.sum(sides + other, axis=(1, 2, 3))
        got = np.asarray(jax.jit(gp_kl.span_divergence)(s, t))
        one_way = np.sum(2.0 * sides, axis=(1, 2, 3))
    found = np.abs(got / expected - 1.0).max()
    control = np.abs(one_way / expected - 1.0).max()
    return claims.exact(
        found < TIGHT and control > 1e-3,
        float(found),
        "8 pairs of 288 scores. Twice the divergence in one direction, the control, "
        f"deviates by {control:.2g}.",
    )


def check_bregman(context: Context) -> Finding:
    """Relative deviation from the two Bregman divergences of the softplus."""
    del context
    with jax.enable_x64(True):
        s, t = _scores()

        def potential(z):
            return jnp.sum(jax.nn.softplus(z), axis=(1, 2, 3))

        slope = jax.grad(lambda z: jnp.sum(potential(z)))

        @jax.jit
        def bregman(a, b):
            linear = jnp.sum(slope(b) * (a - b), axis=(1, 2, 3))
            return potential(a) - potential(b) - linear

        got = jax.jit(gp_kl.span_divergence)(s, t)
        one, other = bregman(s, t), bregman(t, s)
        found = float(jnp.abs(got / (one + other) - 1.0).max())
        control = float(jnp.abs(got / (2.0 * one) - 1.0).max())
    return claims.exact(
        found < TIGHT and control > 1e-3,
        found,
        f"Twice one of them, the control, deviates by {control:.2g}.",
    )


def check_softmax_form(context: Context) -> Finding:
    """Relative deviation of R-Drop's divergence from its inner product of scores."""
    del context
    with jax.enable_x64(True):
        s, t = (z.reshape(8, -1) for z in _scores())

        def inner(squash):
            return jnp.sum((squash(s) - squash(t)) * (s - t), axis=1)

        expected = jax.jit(rdrop.symmetric_kl)(s, t)
        found = float(jnp.abs(inner(jax.nn.softmax) / expected - 1.0).max())
        control = float(jnp.abs(inner(jax.nn.sigmoid) / expected - 1.0).max())
    return claims.exact(
        found < TIGHT and control > 0.1,
        found,
        "KL(p||q) + KL(q||p) as the sum of (p - q)(s - t). Sigmoids in its place, the "
        f"control, give another divergence, which deviates by {control:.2g}.",
    )


def check_gradient(context: Context) -> Finding:
    """Largest deviation of the gradient from the formula, relative to its largest."""
    del context
    with jax.enable_x64(True):
        s, t = _scores()
        got = jax.jit(jax.grad(lambda s: jnp.sum(gp_kl.span_divergence(s, t))))(s)
        p, q = jax.nn.sigmoid(s), jax.nn.sigmoid(t)
        full = p * (1 - p) * (s - t) + p - q
        size = jnp.abs(full).max()
        found = float(jnp.abs(got - full).max() / size)
        control = float(jnp.abs(got - 2.0 * (p - q)).max() / size)
    return claims.exact(
        found < TIGHT and control > 1e-2,
        found,
        f"Against twice the difference of the sigmoids, the control: {control:.2g}.",
    )


def check_saturation(context: Context) -> Finding:
    """Divergence of 10 and 20, and how it falls when both scores grow."""
    pairs = {(1.0, -1.0): 2 * np.tanh(0.5), (20.0, -20.0): 40.0, (20.0, 10.0): None}
    with jax.enable_x64(True):
        value = jax.jit(jax.value_and_grad(_one_cell))
        found, slope = map(float, value(20.0, 10.0))
        shifted = [float(value(c + 1.0, c - 1.0)[0]) for c in (0.0, 5.0, 20.0)]
        right = all(
            abs(float(value(*pair)[0]) / expected - 1.0) < 1e-6
            for pair, expected in pairs.items()
            if expected is not None
        )
        softmax = jax.jit(rdrop.symmetric_kl)
        s, t = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.0])
        plain, moved = (float(softmax(s + c, t + c)) for c in (0.0, 20.0))
    _draw_saturation(context)
    return claims.exact(
        right
        and abs(found / 4.5396e-4 - 1.0) < 1e-3
        and abs(slope / 4.5e-5 - 1.0) < 0.05
        and shifted[2] < 1e-6 * shifted[0]
        and abs(moved / plain - 1.0) < TIGHT,
        found,
        f"20 and 10 have the gradient {slope:.2g}. c + 1 and c - 1 have "
        f"{shifted[0]:.3g}, {shifted[1]:.2g} and {shifted[2]:.2g} at c = 0, 5, 20. The "
        f"divergence of softmax outputs, the control, stays {plain:.3f} when all "
        "scores grow by 20.",
    )


def _draw_saturation(context):
    levels = np.linspace(-12.0, 12.0, 121)
    curve = jax.jit(jax.vmap(lambda c, d: _one_cell(c + d / 2, c - d / 2), (0, None)))
    series = {
        f"{d:g} apart": (levels, np.asarray(curve(levels, d)), None, None)
        for d in (1.0, 2.0, 4.0, 8.0)
    }

    def draw(figure):
        axes = figure.subplots()
        labels = {"xlabel": "mean of the two scores", "ylabel": "divergence"}
        plots.curves(axes, series, **labels, log_y=True)

    context.figure(
        "saturation",
        draw,
        "The divergence of two scores that lie on the same side of 0 falls with their "
        "distance to 0: both say the same.",
        f"Scores 2 apart have {series['2 apart'][1][60]:.2f} around 0 and "
        f"{series['2 apart'][1][-1]:.1g} around 12.",
    )


def check_second_order(context: Context) -> Finding:
    """Ratio of the divergence to its second order, for a small change."""
    del context
    with jax.enable_x64(True):
        s, t = _scores()
        change = 1e-4 * (t - s)
        got = jax.jit(gp_kl.span_divergence)(s, s + change)
        p = jax.nn.sigmoid(s)
        expected = jnp.sum(p * (1 - p) * change**2, axis=(1, 2, 3))
        half = jnp.sum(0.25 * change**2, axis=(1, 2, 3))
        ratios, control = np.asarray(got / expected), np.asarray(got / half)
    return claims.exact(
        np.abs(ratios - 1.0).max() < 1e-4 and np.abs(control - 1.0).max() > 0.1,
        float(ratios.mean()),
        f"Changes of about 1e-4. Against a quarter of their squares, the control, "
        f"which is right at 0 only: {control.mean():.2f}.",
    )


def check_reduction(context: Context) -> Finding:
    """How many times weaker a mean over the cells makes alpha, for two lengths."""
    del context
    types, lengths = 5, (32, 64)
    ratios = []

    @jax.jit
    def evaluate(s, t):
        return [gp_kl.span_divergence(s, t, reduction=r) for r in ("sum", "mean")]

    for n in lengths:
        s, t = np.random.default_rng(n).normal(size=(2, 1, types, n, n))
        upper = np.triu(np.ones((n, n), bool))
        s, t = (np.where(upper, z, -np.inf).astype(np.float32) for z in (s, t))
        total, mean = evaluate(s, t)
        ratios.append(float(total[0] / mean[0]))
    cells = [types * n * (n + 1) / 2 for n in lengths]
    control = types * lengths[1] ** 2
    return claims.exact(
        np.allclose(ratios, cells, rtol=1e-5) and control > 1.5 * ratios[1],
        ", ".join(f"{ratio:.6g}" for ratio in ratios),
        f"{types} types, {lengths[0]} and {lengths[1]} tokens. All n x n cells, the "
        f"control, would be {control:,}: those that are no spans do not count.",
    )


def check_imbalance(context: Context) -> Finding:
    """Largest change of the gradient of true spans when other cells are added."""
    del context
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), 2)
        true = 2.0 + jax.random.normal(keys[0], (2, 1, 10))
        others = jax.random.normal(keys[1], (2, 1, 10_000)) - 2.0

        def slopes(divergence):
            def total(first, second):
                return jnp.sum(divergence(first, second))

            def gradient(scores):
                return np.abs(jax.jit(jax.grad(total))(*scores))[0]

            alone, all_cells = gradient(true), gradient(jnp.append(true, others, 2))
            change = np.abs(all_cells[:10] / alone - 1.0).max()
            return change, all_cells[:10].sum() / all_cells.sum()

        found, share = slopes(gp_kl.span_divergence)
        mean, _ = slopes(lambda s, t: gp_kl.span_divergence(s, t, reduction="mean"))
        softmax, _ = slopes(rdrop.symmetric_kl)
    return claims.exact(
        found < TIGHT and min(mean, softmax) > 0.5,
        float(found),
        "10 spans and 10,000 other cells. Cells do not see each other; the mean over "
        f"them and the softmax, the controls, change by {mean:.2f} and {softmax:.2f}. "
        f"Of the whole gradient the spans have {100 * share:.2g} %, though, where in "
        "the loss they have about half.",
    )


def _scores():
    """Two passes of 8 sentences."""
    keys = jax.random.split(jax.random.key(1))
    s = 2.0 * jax.random.normal(keys[0], (8, *CELLS))
    return s, s + jax.random.normal(keys[1], s.shape)


def _one_cell(s, t):
    """The divergence of two scores."""
    return gp_kl.span_divergence(jnp.reshape(s, 1), jnp.reshape(t, 1))[0]
