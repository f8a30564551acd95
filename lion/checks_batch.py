"""Lion against AdamW at several batch sizes, each with its own rate and decay.

Accuracies are compared, so they are chosen by validation accuracy: at large batches
the loss still falls for rates that are too small for the highest accuracy.
"""

from collections.abc import Sequence

import numpy as np

from expkit import claims, plots
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import checks_runs

SIZES = (16, 64, 256, 1024)
NUM_STEPS = 300
# Learning rate * weight decay; quick mode has the middle one alone.
STRENGTHS = (1e-2, 1e-1, 4e-1)
# Learning rates tried at every size, a factor of 3 apart.
RATES = {
    "lion": 3e-4 * 3.0 ** np.arange(6),
    "adamw": 1e-3 * 3.0 ** np.arange(6),
}


def check_gain_grows(context: Context) -> Finding:
    """Slope of Lion's advantage over AdamW in log2(batch size), seed by seed."""
    gains, is_open = _gains(context, SIZES, warmup=0.05)
    by_seed = gains.mean(axis=-1)
    _draw(context, by_seed)
    # The slope of a line through the gains of each seed on each image.
    x = np.log2(SIZES) - np.mean(np.log2(SIZES))
    slopes = np.einsum("i,sie->se", x / (x @ x), gains)
    mean, interval = claims.crossed_difference(slopes, np.zeros_like(slopes))
    means = zip(SIZES, by_seed.mean(axis=0), strict=True)
    by_size = ", ".join(f"{size}: {gain:+.4f}" for size, gain in means)
    verdict = claims.decide(interval, at_least=0.0)
    return Finding(
        mean,
        claims.NOT_DECIDED if is_open else verdict,
        interval,
        context.seeds(quick=2),
        f"Test accuracy a doubling of the batch. Lion minus AdamW at {by_size}; "
        f"{_budget(context, is_open)} {claims.covered(gains)}",
    )


def check_small_batches(context: Context) -> Finding:
    """Test accuracy of Lion minus AdamW at batch size 16 without warm-up."""
    gains, is_open = _gains(context, SIZES[:1], warmup=0.0)
    mean, interval = claims.crossed_difference(gains[:, 0], np.zeros_like(gains[:, 0]))
    verdict = claims.decide(interval, at_most=0.0)
    return Finding(
        mean,
        claims.NOT_DECIDED if is_open else verdict,
        interval,
        context.seeds(quick=2),
        f"Test accuracy at batch size {SIZES[0]}, Lion minus AdamW; "
        f"{_budget(context, is_open)} {claims.covered(gains)}",
    )


def _strengths(context: Context) -> tuple[float, ...]:
    return STRENGTHS if context.full else STRENGTHS[1:2]


def _budget(context: Context, is_open: bool) -> str:
    count = len(RATES["lion"]) * len(_strengths(context))
    beyond = ", one of them at an end of the grid" if is_open else ""
    return (
        f"{NUM_STEPS} steps each; of {count} pairs of learning rate and decay strength "
        f"that with the best mean validation accuracy{beyond}."
    )


def _gains(
    context: Context, sizes: Sequence[int], *, warmup: float
) -> tuple[np.ndarray, bool]:
    """Lion minus AdamW [seeds, sizes, test images], each at its best setting.

    1 where only Lion is right, -1 where only AdamW is; also whether one of the settings
    is at an end of its grid.
    """
    hits, is_open = {}, False
    for name in RATES:
        columns = []
        for size in sizes:
            figures = _figures(context, name, size, warmup=warmup)
            best = checks_runs.best_setting(figures)
            is_open |= checks_runs.is_at_end(best, figures["test_accuracy"].shape[1:])
            columns.append(figures["test_hits"][:, *best])
        hits[name] = np.stack(columns, axis=1)
    return hits["lion"] - hits["adamw"], is_open


def _figures(
    context: Context, optimizer: str, batch_size: int, *, warmup: float
) -> dict[str, np.ndarray]:
    """Figures of all runs of an optimizer, each [seeds, rates, strengths]."""
    config = config_lib.load(
        f"configs/lion/digits.py:optimizer={optimizer},batch_size={batch_size},"
        f"num_steps={NUM_STEPS},warmup_fraction={warmup}"
    )
    return checks_runs.figures_over_grid(
        context,
        f"batch{batch_size}-{optimizer}-{warmup:g}",
        config,
        RATES[optimizer],
        _strengths(context),
        context.seeds(quick=2),
    )


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
