"""Lion, AdamW and SGD with momentum on digits, with one tuning budget for all.

Every optimizer gets a grid of the same size over learning rate and decay strength, the
same seeds, and its setting from the validation split.
"""

import functools
from collections.abc import Sequence

import ml_collections
import numpy as np

from expkit import claims, plots, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import checks_runs

# Lowest learning rate of each grid; the next ones are a factor apart.
LOWEST = {
    "mlp": {"lion": 1e-4, "adamw": 1e-3, "sgd": 5e-3},
    "vit": {"lion": 1e-4, "adamw": 1e-3, "sgd": 5e-3},
}
NAMES = {"lion": "Lion", "adamw": "AdamW", "sgd": "SGD"}
# Number of learning rates, the factor between them, the decay strengths, steps a run.
# A strength is learning rate * weight decay, the fraction of a weight that a step takes
# away: at the same strength a smaller learning rate goes with a larger decay, as the
# authors advise. Neighbours are a factor apart, and all are below 1, where the first
# steps after the warm-up would leave nothing of the weights.
OFF = 4.0  # how many times too large or too small a setting off the best is
STRENGTHS = tuple(0.4 / OFF**k for k in (4, 3, 2, 1, 0))
BUDGETS = {"mlp": (10, 2.0, STRENGTHS, 500), "vit": (4, 4.0, STRENGTHS, 200)}


def check_learning_rate(context: Context) -> Finding:
    """How many times the best learning rate of AdamW exceeds Lion's, seed by seed."""
    seeds = _seeds(context, "mlp")
    logs, by_accuracy, at_end = {}, {}, 0
    for name in ("adamw", "lion"):
        rates = _rates("mlp", name)
        figures = _sweep(context, "mlp", name)
        by_accuracy[name] = rates[best_setting(figures)[0]]
        curves = _losses_by_rate(context, "mlp", name)
        best = [sweep.refined_minimum(rates, curve) for curve in curves]
        at_end += sum(not rates[0] < x < rates[-1] for x in best)
        logs[name] = np.log(best)
    mean, bounds = claims.paired_difference(logs["adamw"], logs["lion"])
    low, high = np.exp(bounds).tolist()
    verdict = claims.decide((low, high), at_least=3.0, at_most=10.0)
    middle = {name: np.exp(values.mean()) for name, values in logs.items()}
    return Finding(
        float(np.exp(mean)),
        claims.NOT_DECIDED if at_end else verdict,
        (low, high),
        seeds,
        "AdamW's rate divided by Lion's. Geometric means: Lion "
        f"{middle['lion']:.2g}, AdamW {middle['adamw']:.2g}, by validation loss at the "
        f"best decay of each rate; {at_end} of {2 * len(seeds)} at an end of the grid, "
        "where the verdict would be open. By mean validation accuracy: "
        f"{by_accuracy['lion']:.2g} and {by_accuracy['adamw']:.2g}.",
    )


def check_weight_decay(context: Context) -> Finding:
    """How many times the best weight decay of Lion exceeds AdamW's, seed by seed."""
    logs, is_open = {}, False
    for name in ("lion", "adamw"):
        rates, strengths = _rates("mlp", name), _strengths(context, "mlp")
        decays = np.array(strengths)[None] / rates[:, None]
        losses = _sweep(context, "mlp", name)["validation_loss"]
        best = [sweep.lowest(one[None]) for one in losses]
        is_open |= any(is_at_end(index, decays.shape) for index in best)
        logs[name] = [np.log(decays[index]) for index in best]
    mean, bounds = claims.paired_difference(logs["lion"], logs["adamw"])
    low, high = np.exp(bounds).tolist()
    verdict = claims.decide((low, high), at_least=3.0, at_most=10.0)
    middle = {name: np.exp(np.mean(values)) for name, values in logs.items()}
    return Finding(
        float(np.exp(mean)),
        claims.NOT_DECIDED if is_open else verdict,
        (low, high),
        _seeds(context, "mlp"),
        "Lion's decay divided by AdamW's. Geometric means: Lion "
        f"{middle['lion']:.2g}, AdamW {middle['adamw']:.2g}, at the lowest validation "
        f"loss of each seed{', one of them at an end of the grid' * is_open}.",
    )


def check_sensitivity(context: Context) -> Finding:
    """Test accuracy that settings off the best cost Lion, minus that of AdamW."""
    lost, is_open = {}, False
    step = round(np.log(OFF) / np.log(BUDGETS["mlp"][1]))  # of the learning rates
    for name in ("lion", "adamw"):
        figures = _sweep(context, "mlp", name)
        accuracy, (rate, strength) = figures["test_accuracy"], best_setting(figures)
        # A larger rate at the same weight decay is a larger strength too.
        off = [(rate + step, strength + 1), (rate - step, strength - 1)]
        off += [(rate, strength + 1), (rate, strength - 1)]
        (_, count, num_strengths) = accuracy.shape
        tried = [(i, j) for i, j in off if 0 <= i < count and 0 <= j < num_strengths]
        is_open |= len(tried) < len(off)
        best = accuracy[:, rate, strength]
        lost[name] = np.array([best - accuracy[:, i, j] for i, j in tried])
    means = {name: values.mean(axis=0) for name, values in lost.items()}
    mean, interval = claims.paired_difference(means["lion"], means["adamw"])
    verdict = claims.decide(interval, at_most=0.0)
    words = "; ".join(
        f"{NAMES[name]} {values.mean():.4f}, the mean of "
        + ", ".join(f"{x:.4f}" for x in values.mean(axis=1))
        for name, values in lost.items()
    )
    return Finding(
        mean,
        claims.NOT_DECIDED if is_open else verdict,
        interval,
        _seeds(context, "mlp"),
        f"Test accuracy lost, Lion minus AdamW: {words}. These are at a learning rate "
        f"{OFF:g} times the best, at a {OFF:g}th of it, each with the same weight "
        f"decay, at a weight decay {OFF:g} times the best and at a {OFF:g}th of it"
        f"{', not all of which are in the grid' * is_open}. Best setting by mean "
        "validation accuracy.",
    )


def check_accuracy(model: str, other: str, context: Context) -> Finding:
    """Test accuracy of Lion minus that of another optimizer, each at its best."""
    accuracies, by_loss, is_open = {}, {}, False
    for name in ("lion", other):
        figures = _sweep(context, model, name)
        best = best_setting(figures)
        is_open |= is_at_end(best, figures["test_accuracy"].shape[1:])
        accuracies[name] = figures["test_accuracy"][:, *best]
        by_loss[name] = figures["test_accuracy"][
            :, *sweep.lowest(figures["validation_loss"])
        ]
    if other == "sgd":  # with it the sweep is complete
        _draw_sweep(context, model)
    mean, interval = claims.paired_difference(accuracies["lion"], accuracies[other])
    second = by_loss["lion"].mean() - by_loss[other].mean()
    verdict = claims.decide(interval, at_least=0.0)
    means = ", ".join(
        f"{NAMES[name]} {values.mean():.4f} (sd {values.std(ddof=1):.4f})"
        for name, values in accuracies.items()
    )
    return Finding(
        mean,
        claims.NOT_DECIDED if is_open else verdict,
        interval,
        _seeds(context, model),
        f"Test accuracy, Lion minus {NAMES[other]}: {means}. Setting by mean "
        f"validation accuracy{', at an end of the grid' * is_open}; by validation loss "
        f"the difference is {second:+.4f}. The interval is over seeds, on 270 images.",
    )


def best_setting(figures: dict[str, np.ndarray]) -> tuple[int, ...]:
    """The setting with the highest mean validation accuracy, ties by the loss.

    Args:
        figures: as `figures_over_grid` gives them.

    Returns:
        Its index in (rates, strengths).
    """
    errors = 1.0 - figures["validation_accuracy"]
    return sweep.lowest(errors + 1e-6 * figures["validation_loss"])


def is_at_end(index: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a better setting may lie beyond the grid of (rates, strengths).

    The lowest strength is next to no decay at all, so only the highest counts.

    Args:
        index: of the best setting.
        shape: of the grid.

    Returns:
        True or False.
    """
    (rate, strength), (num_rates, num_strengths) = index, shape
    is_strongest = num_strengths > 1 and strength == num_strengths - 1
    return rate in (0, num_rates - 1) or is_strongest


def _seeds(context: Context, model: str) -> range:
    return context.seeds(quick=2, full=10 if model == "mlp" else 5)


def _rates(model: str, optimizer: str) -> np.ndarray:
    """Peak learning rates tried for an optimizer."""
    count, factor, _, _ = BUDGETS[model]
    return LOWEST[model][optimizer] * factor ** np.arange(count)


def _strengths(context: Context, model: str) -> tuple[float, ...]:
    """Decay strengths tried; quick mode has the middle one for the slower model."""
    strengths = BUDGETS[model][2]
    return strengths[2:3] if model == "vit" and not context.full else strengths


def _sweep(context: Context, model: str, optimizer: str) -> dict[str, np.ndarray]:
    """Figures of all runs of an optimizer, each [seeds, rates, strengths]."""
    rates, strengths = _rates(model, optimizer), _strengths(context, model)
    num_steps = BUDGETS[model][3]
    config = config_lib.load(
        f"configs/lion/digits.py:model={model},optimizer={optimizer},batch_size=128,"
        f"num_steps={num_steps},width=32"
    )
    name = f"{model}-{optimizer}"
    return figures_over_grid(
        context, name, config, rates, strengths, _seeds(context, model)
    )


def figures_over_grid(
    context: Context,
    name: str,
    config: ml_collections.ConfigDict,
    rates: Sequence[float] | np.ndarray,
    strengths: Sequence[float],
    seeds: range,
) -> dict[str, np.ndarray]:
    """Figures of a config over a grid, each [seeds, rates, strengths], kept by seed."""
    compiled = functools.cache(lambda: checks_runs.compile_run(config))

    def run(*settings, seed):
        return compiled()(*settings, seed=seed)[0]

    by_seed = [
        context.memo(
            f"{name}-{seed}",
            lambda seed=seed: sweep.over_grid(run, rates, strengths, seed=seed),
            config=config.to_dict(),
            rates=rates,
            strengths=strengths,
        )
        for seed in seeds
    ]
    return {key: np.array([f[key] for f in by_seed], float) for key in by_seed[0]}


def _losses_by_rate(context: Context, model: str, optimizer: str) -> np.ndarray:
    """Validation losses at the best strength [seeds, rates], nan where all diverged."""
    losses = _sweep(context, model, optimizer)["validation_loss"]
    lowest = np.where(np.isfinite(losses), losses, np.inf).min(axis=-1)
    return np.where(np.isfinite(lowest), lowest, np.nan)


def _draw_sweep(context: Context, model: str) -> None:
    """Draws validation loss against the learning rate, and Lion's grid."""
    series = {}
    for name, label in NAMES.items():
        losses = _losses_by_rate(context, model, name)
        middle = np.median(losses, axis=0)
        rates = _rates(model, name)
        series[label] = (rates, middle, losses.min(axis=0), losses.max(axis=0))

    def draw(figure):
        axes = figure.subplots()
        plots.sweep(axes, series, ylabel="validation loss", best="min")
        axes.set_yscale("log")

    context.figure(
        f"{model}_learning_rate",
        draw,
        "Validation loss at the best decay strength against the peak learning rate: "
        f"median and range over {len(_seeds(context, model))} seeds. A ring marks each "
        "optimizer's best; runs that diverged leave a gap.",
        "; ".join(
            f"{name}: lowest {np.nanmin(y):.3f} at {x[int(np.nanargmin(y))]:.2g}"
            for name, (x, y, _, _) in series.items()
        ),
    )
    if len(_strengths(context, model)) > 1:
        _draw_grid(context, model)


def _draw_grid(context: Context, model: str) -> None:
    accuracy = _sweep(context, model, "lion")["validation_accuracy"].mean(axis=0)
    strengths = [f"{strength:.2g}" for strength in _strengths(context, model)]
    rates = [f"{rate:.0e}".replace("e-0", "e-") for rate in _rates(model, "lion")]

    def draw(figure):
        plots.heat_map(
            figure.subplots(),
            100 * accuracy.T,
            strengths,
            rates,
            row_label="learning rate · weight decay",
            form=".0f",
        )

    context.figure(
        f"{model}_lion_grid",
        draw,
        "Lion's mean validation accuracy in percent over learning rate and decay "
        "strength. The frame marks the best.",
        f"Best: {100 * accuracy.max():.1f} %.",
        size=(6.2, 2.8),
    )
