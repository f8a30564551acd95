"""What noise does to a sign step: exact formulas for Gaussian gradients, measured."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

import lion
from expkit import claims, plots
from expkit.claims import Context, Finding

SIZE, STEPS = 4000, 400
BETAS = (0.9, 0.99)


def check_signum(context: Context) -> Finding:
    """Coordinates in which Lion with b1 = b2 and SIGNUM differ in any bit."""
    del context
    grads = _noise(0.1)
    signum = optax.chain(optax.ema(0.9, debias=False), optax.scale_by_sign())

    def differing(tx):
        return int((_updates(tx, grads) != _updates(signum, grads)).any(axis=0).sum())

    ours, control = (
        differing(lion.scale_by_lion(0.9, 0.9)),
        differing(lion.scale_by_lion(*BETAS)),
    )
    return claims.exact(
        ours == 0 < control, ours, f"Of {SIZE}; with b2 = 0.99, the control: {control}."
    )


def check_sign_agreement(context: Context) -> Finding:
    """Largest gap between the share of right signs and the normal law's."""
    ratios = np.logspace(-3, 0, 7)
    b1, b2 = BETAS
    # Weights of the direction: 1 - b1 on the newest gradient, b1 (1 - b2) b2^k before.
    spread = np.sqrt((1 - b1) ** 2 + (b1 * (1 - b2)) ** 2 / (1 - b2**2))
    predicted = stats.norm.cdf(ratios / spread)
    single = stats.norm.cdf(ratios)
    measured = np.array([_right_signs(lion.scale_by_lion(*BETAS), r) for r in ratios])
    series = {
        "Lion": (ratios, measured, None, None),
        "normal law": (ratios, predicted, None, None),
        "sign of one gradient": (ratios, single, None, None),
    }

    def draw(figure):
        axes = figure.subplots()
        plots.curves(
            axes,
            series,
            xlabel="mean / standard deviation of a gradient",
            ylabel="right signs",
        )
        axes.set_xscale("log")

    context.figure(
        "sign_agreement",
        draw,
        "Share of coordinates that move the right way, against the signal-to-noise "
        f"ratio of one gradient. Lion's memory divides the noise by {1 / spread:.1f}.",
        f"At a ratio of 0.1: Lion {np.interp(0.1, ratios, measured):.2f}, one gradient "
        f"{np.interp(0.1, ratios, single):.2f}.",
    )
    gap = float(np.abs(measured - predicted).max())
    # Steps are correlated over 1 / (1 - b2) of them: fewer independent signs.
    tolerance = 4 * 0.5 / np.sqrt(SIZE * STEPS / 2 * (1 - b2))
    control = float(np.abs(single - predicted).max())
    return claims.exact(
        gap <= tolerance < control,
        gap,
        f"Tolerance {tolerance:.3f}; the sign of one gradient, the control: "
        f"{control:.2f}.",
    )


def check_noise_ratio(context: Context) -> Finding:
    """How many times longer than Adam's a Lion step is under pure noise."""
    del context
    grads = _noise(0.0)
    adam = _updates(optax.scale_by_adam(0.9, 0.999), grads)[STEPS // 2 :]
    mean, (low, high) = claims.mean_interval(np.square(adam).mean(axis=0))
    interval = (high**-0.5, low**-0.5)
    predicted = float(np.sqrt((1 + 0.9) / (1 - 0.9)))
    return Finding(
        mean**-0.5,
        claims.decide(interval, at_least=9.5, at_most=10.5),
        interval,
        None,
        f"Exact for large b2: sqrt((1 + b1) / (1 - b1)) = {predicted:.2f}.",
    )


def _noise(mean: float) -> jax.Array:
    """Gradients [steps, size] with standard deviation 1."""
    return mean + jax.random.normal(jax.random.key(0), (STEPS, SIZE))


def _updates(tx: optax.GradientTransformation, grads: jax.Array) -> np.ndarray:
    def step(state, grad):
        updates, state = tx.update(grad, state)
        return state, updates

    start = tx.init(jnp.zeros(SIZE))
    return np.asarray(jax.jit(lambda g: jax.lax.scan(step, start, g)[1])(grads))


def _right_signs(tx: optax.GradientTransformation, ratio: float) -> float:
    """Share of signs that are those of the mean, in the second half of the steps."""
    return float((_updates(tx, _noise(ratio))[STEPS // 2 :] > 0).mean())
