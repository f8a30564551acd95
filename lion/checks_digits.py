"""Lion, AdamW and SGD with momentum on digits, with one tuning budget for all.

Every optimizer gets a grid of the same size over learning rate and decay strength, the
same seeds, and its setting from the validation split.
"""

from typing import NamedTuple

import numpy as np

from expkit import claims, plots, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import checks_runs


class Budget(NamedTuple):
    """The grid of learning rates and the length of the runs of one model.

    Attributes:
        num_rates: how many learning rates each optimizer tries.
        factor: between neighbours of them.
        num_steps: of a run.
    """

    num_rates: int
    factor: float
    num_steps: int


BUDGETS = {"mlp": Budget(10, 2.0, 500), "vit": Budget(4, 4.0, 200)}
LOWEST = {"lion": 1e-4, "adamw": 1e-3, "sgd": 5e-3}  # learning rates
NAMES = {"lion": "Lion", "adamw": "AdamW", "sgd": "SGD"}
OFF = 4.0  # how many times too large or too small a setting off the best is
# A strength is learning rate * weight decay, the fraction of a weight that a step takes
# away: at the same strength a smaller learning rate goes with a larger decay, as the
# authors advise. All are below 1, where the first steps after the warm-up would leave
# nothing of the weights.
STRENGTHS = tuple(0.4 / OFF**k for k in (4, 3, 2, 1, 0))


def check_learning_rate(context: Context) -> Finding:
    """How many times the best learning rate of AdamW exceeds Lion's, seed by seed."""
    seeds = _seeds(context, "mlp")
    logs, by_accuracy, at_end = {}, {}, 0
    for name in ("adamw", "lion"):
        rates = _rates("mlp", name)
        figures = _sweep(context, "mlp", name)
        by_accuracy[name] = rates[checks_runs.best_setting(figures)[0]]
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
        is_ratio=True,
    )


def check_weight_decay(context: Context) -> Finding:
    """How many times the best weight decay of Lion exceeds AdamW's, seed by seed."""
    logs, is_open = {}, False
    for name in ("lion", "adamw"):
        rates, strengths = _rates("mlp", name), _strengths(context, "mlp")
        decays = np.array(strengths)[None] / rates[:, None]
        losses = _sweep(context, "mlp", name)["validation_loss"]
        best = [sweep.lowest(one[None]) for one in losses]
        is_open |= any(checks_runs.is_at_end(index, decays.shape) for index in best)
        logs[name] = [np.log(decays[index]) for index in best]
    mean, bounds = claims.paired_difference(logs["lion"], logs["adamw"])
    low, high = np.exp(bounds).tolist()
    verdict = claims.decide((low, high), at_least=3.0, at_most=10.0)
    middle = {name: np.exp(np.mean(values)) for name, values in logs.items()}
    beyond = ", one of them at an end of the grid" if is_open else ""
    return Finding(
        float(np.exp(mean)),
        claims.NOT_DECIDED if is_open else verdict,
        (low, high),
        _seeds(context, "mlp"),
        "Lion's decay divided by AdamW's. Geometric means: Lion "
        f"{middle['lion']:.2g}, AdamW {middle['adamw']:.2g}, at the lowest validation "
        f"loss of each seed{beyond}.",
        is_ratio=True,
    )


def check_sensitivity(context: Context) -> Finding:
    """Test accuracy that settings off the best cost Lion, minus that of AdamW."""
    lost, is_open = {}, False
    step = round(np.log(OFF) / np.log(BUDGETS["mlp"].factor))  # of the learning rates
    for name in ("lion", "adamw"):
        figures = _sweep(context, "mlp", name)
        hits = figures["test_hits"]  # [seeds, rates, strengths, images]
        rate, strength = checks_runs.best_setting(figures)
        # A larger rate at the same weight decay is a larger strength too.
        off = [(rate + step, strength + 1), (rate - step, strength - 1)]
        off += [(rate, strength + 1), (rate, strength - 1)]
        (_, count, num_strengths, _) = hits.shape
        tried = [(i, j) for i, j in off if 0 <= i < count and 0 <= j < num_strengths]
        is_open |= len(tried) < len(off)
        best = hits[:, rate, strength]
        lost[name] = np.array([best - hits[:, i, j] for i, j in tried])
    means = {name: values.mean(axis=0) for name, values in lost.items()}
    mean, interval = claims.crossed_difference(means["lion"], means["adamw"])
    verdict = claims.decide(interval, at_most=0.0)
    beyond = ", not all of which are in the grid" if is_open else ""
    words = "; ".join(
        f"{NAMES[name]} {values.mean():.4f}, the mean of "
        + ", ".join(f"{x:.4f}" for x in values.mean(axis=(1, 2)))
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
        f"{beyond}. Best setting by mean validation accuracy. "
        f"{claims.covered(hits)}",
    )


def check_accuracy(model: str, other: str, context: Context) -> Finding:
    """Test accuracy of Lion minus that of another optimizer, each at its best."""
    hits, by_loss, is_open = {}, {}, False
    for name in ("lion", other):
        figures = _sweep(context, model, name)
        best = checks_runs.best_setting(figures)
        is_open |= checks_runs.is_at_end(best, figures["test_accuracy"].shape[1:])
        hits[name] = figures["test_hits"][:, *best]
        second = sweep.lowest(figures["validation_loss"])
        by_loss[name] = figures["test_accuracy"][:, *second].mean()
    if other == "sgd":  # with it the sweep is complete
        _draw_sweep(context, model)
    mean, interval = claims.crossed_difference(hits["lion"], hits[other])
    verdict = claims.decide(interval, at_least=0.0)
    beyond = ", at an end of the grid" if is_open else ""
    means = ", ".join(
        f"{NAMES[name]} {values.mean():.4f} (sd {values.mean(axis=1).std(ddof=1):.4f})"
        for name, values in hits.items()
    )
    return Finding(
        mean,
        claims.NOT_DECIDED if is_open else verdict,
        interval,
        _seeds(context, model),
        f"Test accuracy, Lion minus {NAMES[other]}: {means}. Setting by mean "
        f"validation accuracy{beyond}; by validation loss the difference is "
        f"{by_loss['lion'] - by_loss[other]:+.4f}. {claims.covered(hits['lion'])}",
    )


def _seeds(context: Context, model: str) -> range:
    return context.seeds(quick=2, full=10 if model == "mlp" else 5)


def _rates(model: str, optimizer: str) -> np.ndarray:
    """Peak learning rates tried for an optimizer."""
    budget = BUDGETS[model]
    return LOWEST[optimizer] * budget.factor ** np.arange(budget.num_rates)


def _strengths(context: Context, model: str) -> tuple[float, ...]:
    """Decay strengths tried; quick mode has the middle one for the slower model."""
    return STRENGTHS[2:3] if model == "vit" and not context.full else STRENGTHS


def _sweep(context: Context, model: str, optimizer: str) -> dict[str, np.ndarray]:
    """Figures of all runs of an optimizer, each [seeds, rates, strengths]."""
    rates, strengths = _rates(model, optimizer), _strengths(context, model)
    config = config_lib.load(
        f"configs/lion/digits.py:model={model},optimizer={optimizer},batch_size=128,"
        f"num_steps={BUDGETS[model].num_steps},width=32"
    )
    name, seeds = f"{model}-{optimizer}", _seeds(context, model)
    return checks_runs.figures_over_grid(context, name, config, rates, strengths, seeds)


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
