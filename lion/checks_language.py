"""Lion against AdamW on masked characters of reviews, with one tuning budget for both.

Each optimizer gets the same number of learning rates, a factor of 3 apart, on the first
seed; the one with the lowest validation loss is then run on the other seeds.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from expkit import claims, plots, supervised, sweep, text
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import checks_runs, train

# The betas are those of the authors' language models.
SETTINGS = {"lion": "optimizer=lion", "adamw": "optimizer=adamw,b1=0.9"}
NAMES = {"lion": "Lion", "adamw": "AdamW"}
RATES = {
    "lion": 1e-4 * 3.0 ** np.arange(4),
    "adamw": 1e-3 * 3.0 ** np.arange(4),
}
STRENGTH = 3e-5  # learning rate * weight decay, that of the config
# Smaller than the config's, whose runs take minutes.
QUICK = "max_length=16,max_vocabulary=512,width=32,depth=1,num_steps=400"
FULL = "max_length=32,max_vocabulary=2048,width=64,depth=2,num_steps=1200"
NUM_POINTS = 20  # of a curve; each is the mean over as many steps

Run = Callable[[str, float, int], dict[str, Any]]


class Arm(NamedTuple):
    """Runs of one optimizer.

    Attributes:
        tuning: validation losses [rates] of the first seed; nan where a run diverged.
        best: index of the lowest.
        test_losses: [seeds], at the best rate.
        curves: training losses [seeds, points], at the best rate.
    """

    tuning: np.ndarray
    best: int
    test_losses: np.ndarray
    curves: np.ndarray


def check_perplexity(context: Context) -> Finding:
    """Held-out perplexity of Lion divided by that of AdamW, each at its best rate."""
    config = _config(context, "lion")
    task = functools.cache(lambda: train.make_task(config))
    run = _remembered(context, task)
    arms = {name: _tuned(run, name, _seeds(context)) for name in NAMES}
    unigrams = context.memo(
        "unigrams",
        lambda: unigram_perplexity(task().splits),
        config=config.to_dict(),
    )
    _draw_curves(context, arms, unigrams, config.num_steps)
    _draw_rates(context, arms)
    mean, bounds = claims.paired_difference(*(arm.test_losses for arm in arms.values()))
    low, high = np.exp(bounds).tolist()
    is_open = any(arm.best in (0, len(arm.tuning) - 1) for arm in arms.values())
    figures = ", ".join(
        f"{NAMES[name]} {np.exp(arm.test_losses.mean()):.1f} at learning rate "
        f"{RATES[name][arm.best]:.0e}"
        for name, arm in arms.items()
    )
    beyond = ", one of them at an end of the grid" if is_open else ""
    return Finding(
        float(np.exp(mean)),
        claims.NOT_DECIDED if is_open else claims.decide((low, high), at_most=1.0),
        (low, high),
        _seeds(context),
        f"Lion's perplexity on masked test characters divided by AdamW's: {figures}, "
        f"unigrams {unigrams:.1f}. {config.num_steps} steps of an encoder of width "
        f"{config.width}; {len(RATES['lion'])} learning rates each, by validation loss "
        f"of the first seed{beyond}.",
        is_ratio=True,
    )


def unigram_perplexity(splits: Mapping[str, supervised.Arrays]) -> float:
    """Perplexity on the test split of a model that knows only the frequencies.

    Args:
        splits: of masked language modelling: `ids` of train and test, and `selected`,
            the mask, of test.

    Returns:
        The exponential of the mean negative logarithm of the frequency in training,
        with add-one smoothing, over the masked characters.
    """
    ids, test = splits["train"]["ids"], splits["test"]
    masked = test["ids"][test["selected"]]
    size = 1 + max(ids.max(), masked.max())
    counts = 1.0 + np.bincount(ids[ids != text.PAD], minlength=size)
    return float(np.exp(-np.log(counts[masked] / counts.sum()).mean()))


def _seeds(context: Context) -> range:
    return context.seeds(quick=3, full=5)


def _config(context: Context, optimizer: str) -> ml_collections.ConfigDict:
    size = FULL if context.full else QUICK
    return config_lib.load(f"configs/lion/zh_char.py:{SETTINGS[optimizer]},{size}")


def _tuned(run: Run, name: str, seeds: range) -> Arm:
    """Tries all rates on the first seed, and the best one on all."""
    tuning = [run(name, rate, seeds[0])["validation_loss"] for rate in RATES[name]]
    (best,) = sweep.lowest(np.array([tuning], float))
    rows = [run(name, RATES[name][best], seed) for seed in seeds]
    return Arm(
        np.array(tuning, float),
        best,
        np.array([row["test_loss"] for row in rows], float),
        np.array([row["curve"] for row in rows], float),
    )


def _remembered(context: Context, task: Callable[[], supervised.Task]) -> Run:
    """Makes `(optimizer, learning_rate, seed) -> figures and curve`, kept on disk."""

    @functools.cache
    def compiled(optimizer):
        return checks_runs.compile_run(_config(context, optimizer), task())

    def measure(optimizer, rate, seed):
        figures, losses = compiled(optimizer)(rate, STRENGTH, seed=seed)
        parts = np.array_split(losses, NUM_POINTS)
        return figures | {"curve": [part.mean() for part in parts]}

    def run(optimizer, rate, seed):
        return context.memo(
            f"{optimizer}-{rate:.0e}-{seed}",
            lambda: measure(optimizer, float(rate), seed),
            config=_config(context, optimizer).to_dict(),
            rate=rate,
            strength=STRENGTH,
        )

    return run


def _draw_curves(
    context: Context, arms: Mapping[str, Arm], unigrams: float, num_steps: int
) -> None:
    steps = num_steps * (np.arange(NUM_POINTS) + 0.5) / NUM_POINTS
    series = {}
    for name, arm in arms.items():
        values = np.exp(arm.curves)
        series[NAMES[name]] = (steps, values.mean(0), values.min(0), values.max(0))
    ends = np.array([0.0, num_steps])
    series["unigrams"] = (ends, np.full(2, unigrams), None, None)

    def draw(figure):
        axes = figure.subplots()
        plots.curves(axes, series, ylabel="perplexity of masked characters")

    context.figure(
        "perplexity_by_step",
        draw,
        "Perplexity of masked training characters, each optimizer at its best learning "
        f"rate: mean and range over {len(_seeds(context))} seeds. The line is a model "
        "that knows only how frequent each character is, on the test split.",
        "At the end on the test split: "
        + ", ".join(
            f"{NAMES[name]} {np.exp(arm.test_losses.mean()):.1f}"
            for name, arm in arms.items()
        )
        + f"; unigrams {unigrams:.1f}.",
    )


def _draw_rates(context: Context, arms: Mapping[str, Arm]) -> None:
    series = {
        NAMES[name]: (RATES[name], np.exp(arm.tuning), None, None)
        for name, arm in arms.items()
    }

    def draw(figure):
        axes = figure.subplots()
        plots.sweep(axes, series, ylabel="validation perplexity", best="min")

    context.figure(
        "perplexity_by_learning_rate",
        draw,
        "Validation perplexity of the first seed against the peak learning rate. A "
        "ring marks the rate that the other seeds are run with.",
        ", ".join(
            f"{NAMES[name]}: {np.exp(arm.tuning[arm.best]):.1f} at "
            f"{RATES[name][arm.best]:.0e}"
            for name, arm in arms.items()
        ),
    )
