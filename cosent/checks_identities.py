"""Exact statements about CoSENT's loss, each with a control that must fail."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import cosent
from expkit import claims, plots
from expkit.claims import Context, Finding

TIGHT = 1e-12
"""Relative difference of two float64 programs for the same number."""
SIZE, LEVELS, SCALE = 200, 6, 20.0


def check_order_only(context: Context) -> Finding:
    """Largest change of loss and gradient when the labels become others, in order."""
    del context
    with jax.enable_x64(True):
        s, y = _example()
        expected = _evaluate(s, y)

        def change(labels):
            got = _evaluate(s, labels)
            return float(jnp.max(jnp.abs(got - expected)) / jnp.max(jnp.abs(expected)))

        table = jnp.array([0.0, 1.0, 2.0, 3.0, 50.0, 51.0])[y.astype(int)]
        orders = jnp.exp(y), y**3 - 100.0, 0.1 * y, table
        found = max(change(labels) for labels in orders)
        control = change(jnp.abs(y - 2.0))
    return claims.exact(
        found == 0.0 < control,
        found,
        f"{SIZE} rows of {LEVELS} labels, in float64: exp(y), y^3 - 100, y/10 and a "
        f"table in order, value and gradient. |y - 2|, the control, which is no order "
        f"of the labels, changes them by {control:.2g}.",
    )


def check_shift(context: Context) -> Finding:
    """Relative change of loss and gradient when all cosines get the same constant."""
    del context
    with jax.enable_x64(True):
        s, y = _example()
        expected = _evaluate(s, y)

        def change(similarities):
            got = _evaluate(similarities, y)
            return float(jnp.max(jnp.abs(got - expected)) / jnp.max(jnp.abs(expected)))

        found = max(change(s + constant) for constant in (-0.5, 0.01, 3.0))
        control = change(jnp.where(y == 0, s + 0.5, s))
    return claims.exact(
        found < TIGHT < 1e-4 < control,
        found,
        "Constants -0.5, 0.01 and 3, in float64. 0.5 on the cosines of one label, the "
        f"control, changes loss and gradient by {control:.2g}.",
    )


def check_scale(context: Context) -> Finding:
    """Largest excess of the loss over the worst violation, in units of its bound."""
    with jax.enable_x64(True):
        s, y = _example()
        gaps = s[None, :] - s[:, None]
        is_pair = y[:, None] > y[None, :]
        worst = jnp.max(jnp.where(is_pair, gaps, 0.0))
        scales = 2.0 ** np.arange(-2, 15)
        losses = np.array([_evaluate(s, y, scale)[0] for scale in scales])
        bounds = np.log1p(float(jnp.sum(is_pair))) / scales
        excess = (losses / scales - float(worst)) / bounds
        halves = np.array([_evaluate(0.5 * s, y, scale)[0] for scale in scales])
        control = np.min(halves / scales - float(worst))
    share = _share_of_worst(s, is_pair, scales)
    _draw_scale(context, scales, share)
    at_20, at_1000 = _share_of_worst(s, is_pair, (SCALE, 1000.0))
    return claims.exact(
        np.all((excess >= 0.0) & (excess <= 1.0)) and control < 0.0,
        float(excess.max()),
        "loss / scale lies between the worst violation and that plus log(1 + pairs) / "
        f"scale, at scales of 1/4 to {scales[-1]:.0f}. The most violated of "
        f"{int(jnp.sum(is_pair)):,} pairs has {100 * at_20:.3g} % of the gradient at "
        f"20 and {100 * at_1000:.3g} % at 1,000. The loss of halved cosines, the "
        "control, falls below the lower bound.",
    )


def _share_of_worst(s, is_pair, scales):
    """Weight of the most violated pair among all pairs."""
    s = np.asarray(s)
    gaps = np.where(is_pair, s[None, :] - s[:, None], -np.inf)
    with np.errstate(under="ignore"):
        powers = [np.exp(scale * (gaps - gaps.max())) for scale in scales]
    return np.array([1.0 / table.sum() for table in powers])


def _draw_scale(context, scales, share):
    def draw(figure):
        axes = figure.subplots()
        plots.curves(
            axes,
            {"weight of the worst pair": (scales, share, None, None)},
            xlabel="scale",
            ylabel="share of the gradient",
        )
        axes.set_xscale("log", base=2)
        axes.axvline(SCALE, linestyle="--", color="C1")

    context.figure(
        "scale",
        draw,
        "How much of the gradient the most violated of all pairs has. With a large "
        "scale the loss is the margin of that pair; the dashed line is at 20.",
        f"The share rises from {share[0]:.1e} to {share[-1]:.2f}.",
    )


def check_binary(context: Context) -> Finding:
    """Relative difference of the factored loss of two labels and the sum over pairs."""
    del context
    with jax.enable_x64(True):
        s, y = _example()
        labels = y >= 3

        def pairs(s):
            gaps = SCALE * (s[None, :] - s[:, None])
            gaps = jnp.where(labels[:, None] > labels[None, :], gaps, -jnp.inf)
            return jnp.logaddexp(0.0, jax.nn.logsumexp(gaps))

        value, gradient = jax.jit(jax.value_and_grad(pairs))(s)
        expected = jnp.append(value, gradient)

        def change(labels):
            got = _evaluate(s, labels, fn=cosent.binary_cosent_loss)
            return float(jnp.max(jnp.abs(got - expected)) / jnp.max(jnp.abs(expected)))

        found, control = change(labels), change(y >= 4)
    return claims.exact(
        found < TIGHT < 1e-4 < control,
        found,
        f"{SIZE} rows, value and gradient in float64. Other labels, the control, "
        f"differ by {control:.2g}.",
    )


def check_growth(context: Context) -> Finding:
    """Slope of the loss over the logarithm of the number of pairs."""
    del context
    sizes = (32, 128, 512, 2048)

    def one(size, seed):
        rng = np.random.default_rng(seed)
        labels = rng.random(size) < 0.5
        s = np.clip(rng.normal(0.2 + 0.3 * labels, 0.15), -1.0, 1.0)
        loss = _compiled(cosent.binary_cosent_loss)
        value = float(loss(s.astype(np.float32), labels, SCALE)[0])
        return np.log(labels.sum() * (~labels).sum()), value

    rows = np.array([[one(n, k) for k in range(20)] for n in sizes]).mean(axis=1)
    slope = float(np.polyfit(rows[:, 0], rows[:, 1], 1)[0])
    means = "/".join(f"{value:.1f}" for value in rows[:, 1])
    return claims.exact(
        0.5 < slope < 1.5,
        slope,
        f"{means} at {'/'.join(map(str, sizes))} rows of two labels with the same law "
        "of cosines, 20 batches each. A mean over pairs would have the slope 0: a "
        "learning rate belongs to a batch size.",
    )


@functools.cache
def _compiled(fn):
    def loss(s, labels, scale):
        return fn(s, labels, scale=scale)

    return jax.jit(jax.value_and_grad(loss))


def _evaluate(s, labels, scale=SCALE, fn=None):
    """Value, then gradient, in one vector."""
    fn = cosent.cosent_loss if fn is None else fn
    value, gradient = _compiled(fn)(s, labels, jnp.asarray(scale, s.dtype))
    return jnp.append(value, gradient)


def _example() -> tuple[jax.Array, jax.Array]:
    """Cosines that follow the labels roughly, and the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, LEVELS, SIZE)
    noise = rng.normal(0.0, 0.2, SIZE)
    return jnp.asarray(np.tanh(0.2 * labels - 0.4 + noise)), jnp.asarray(labels, float)
