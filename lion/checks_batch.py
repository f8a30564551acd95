"""Lion against AdamW at several batch sizes, each with its own learning rate."""

import numpy as np
from scipy import stats

from expkit import claims, plots, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import checks_digits

SIZES = (16, 64, 256, 1024)
NUM_STEPS = 300
STRENGTH = 1e-2  # learning rate * weight decay, about the best of the digits sweep
# Learning rates tried at every size, a factor of 3 apart.
RATES = {
    "lion": 1e-4 * 3.0 ** np.arange(5),
    "adamw": 1e-3 * 3.0 ** np.arange(5),
}


def check_gain_grows(context: Context) -> Finding:
    """Slope of Lion's advantage over AdamW in log2(batch size), seed by seed."""
    gains = _accuracies(context, "lion") - _accuracies(context, "adamw")
    _draw(context, gains)
    slopes = [stats.linregress(np.log2(SIZES), gain).slope for gain in gains]
    mean, interval = claims.mean_interval(slopes)
    by_size = ", ".join(
        f"{size}: {gain:+.4f}" for size, gain in zip(SIZES, gains.mean(0), strict=True)
    )
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        context.seeds(quick=2),
        f"Test accuracy a doubling of the batch. Lion minus AdamW at {by_size}; "
        f"{NUM_STEPS} steps each, learning rate by mean validation loss.",
    )


def check_small_batches(context: Context) -> Finding:
    """Test accuracy of Lion minus AdamW at batch size 16 without warm-up."""
    gains = np.subtract(
        *(
            _figures(context, name, SIZES[0], warmup=0.0)["test_accuracy"]
            for name in ("lion", "adamw")
        )
    )
    mean, interval = claims.mean_interval(gains)
    return Finding(
        mean,
        claims.decide(interval, at_most=0.0),
        interval,
        context.seeds(quick=2),
        f"{NUM_STEPS} steps each, learning rate by mean validation loss.",
    )


def _accuracies(context: Context, optimizer: str) -> np.ndarray:
    """Test accuracies [seeds, sizes]."""
    figures = [_figures(context, optimizer, size, warmup=0.05) for size in SIZES]
    return np.stack([f["test_accuracy"] for f in figures], axis=1)


def _figures(
    context: Context, optimizer: str, batch_size: int, *, warmup: float
) -> dict[str, np.ndarray]:
    """Figures [seeds] at the best learning rate of an optimizer."""
    config = config_lib.load(
        f"configs/lion/digits.py:optimizer={optimizer},batch_size={batch_size},"
        f"num_steps={NUM_STEPS},warmup_fraction={warmup}"
    )
    figures = checks_digits.figures_over_grid(
        context,
        f"batch{batch_size}-{optimizer}-{warmup:g}",
        config,
        RATES[optimizer],
        [STRENGTH],
        context.seeds(quick=2),
    )
    best = sweep.lowest(figures["validation_loss"])
    return {key: values[:, *best] for key, values in figures.items()}


def _draw(context: Context, gains: np.ndarray) -> None:
    ends = [claims.mean_interval(column) for column in gains.T]
    means, lows, highs = zip(*((m, low, high) for m, (low, high) in ends), strict=True)

    def draw(figure):
        axes = figure.subplots()
        series = {"Lion minus AdamW": (SIZES, means, lows, highs)}
        plots.curves(axes, series, xlabel="batch size", ylabel="test accuracy")
        axes.set_xscale("log", base=2)
        axes.axhline(0.0, color=axes.spines["left"].get_edgecolor(), zorder=0)

    context.figure(
        "gain_by_batch_size",
        draw,
        "Test accuracy of Lion minus that of AdamW against the batch size, with 95 % "
        "intervals over seeds.",
        ", ".join(f"{s}: {m:+.3f}" for s, m in zip(SIZES, means, strict=True)),
    )
