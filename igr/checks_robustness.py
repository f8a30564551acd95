"""Regularisers of the input against each other, on digits and with one budget.

Each has the same number of strengths and of steps, the same seeds, and its strength
from the validation split. Plain training has no strength, and as many learning rates.
It is also trained for three times the steps: no step of a regulariser costs more than
three plain ones (in XLA's operations 2.5 for the input penalty, 2.6 for FGM, 2.8 for
VAT, 1.0 for noise).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from expkit import claims, grids, plots, supervised, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from igr import checks_runs, checks_trends, objectives, train
from igr.checks_attack import RADII, STDDEV, measure

PLAIN, LONGER = "none", "longer"
NAMES = {
    PLAIN: "plain",
    LONGER: "plain, 3x steps",
    "input_penalty": "input penalty",
    "fgm": "FGM",
    "noise": "Gaussian noise",
    "vat": "VAT",
}
# Learning rates of plain training, the first of which is that of the others, and their
# coefficients, radii or standard deviations; pixels have the standard deviation 1.
RATES = (0.1, 0.2, 0.4, 0.8)
STRENGTHS = {
    PLAIN: RATES,
    LONGER: RATES,
    "input_penalty": (0.3, 1.0, 3.0, 10.0),
    "fgm": (0.5, 1.0, 2.0, 4.0),
    "noise": (0.2, 0.4, 0.8, 1.6),
    "vat": (0.5, 1.0, 2.0, 4.0),
}
NUM_STEPS = {"quick": 500, "full": 1000}
RADIUS = 1.5  # length of the attack that is reported; one of RADII

Figures = dict[str, np.ndarray]


def check_input_gradient(regularizer: str, context: Context) -> Finding:
    """E |grad_x loss|^2 on test images over that of plain training at the same rate."""
    ours, strength = _chosen(context, regularizer)
    tuned, rate = _chosen(context, PLAIN)
    plain = _figures(context, PLAIN)["squared_gradient"][:, 0]
    values = ours["squared_gradient"], plain, tuned["squared_gradient"]
    mean, bounds = claims.paired_difference(*map(np.log, values[:2]))
    low, high = np.exp(bounds).tolist()
    middle = [f"{np.exp(np.log(x).mean()):.3g}" for x in values]
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_most=1.0),
        (low, high),
        _seeds(context),
        f"Geometric means {middle[0]} at strength {strength:g} and {middle[1]} plain, "
        f"both at learning rate {RATES[0]:g}; {middle[2]} plain at {rate:g}. Strength "
        f"and {rate:g} are best in validation.",
        is_ratio=True,
    )


def check_attacked_accuracy(regularizer: str, context: Context) -> Finding:
    """Test accuracy under the fast gradient attack, minus that of plain training."""
    return _compare(
        context, regularizer, PLAIN, "attacked", f"attacked with radius {RADIUS:g}"
    )


def check_noisy_accuracy(regularizer: str, context: Context) -> Finding:
    """Test accuracy under Gaussian noise, minus that of plain training."""
    return _compare(
        context, regularizer, PLAIN, "noisy", f"under noise of sd {STDDEV:g}"
    )


def check_clean_accuracy(regularizer: str, context: Context) -> Finding:
    """Test accuracy minus that of plain training."""
    return _compare(context, regularizer, PLAIN, "clean", "as they are")


def check_clean_accuracy_at_equal_cost(regularizer: str, context: Context) -> Finding:
    """Test accuracy minus that of plain training for three times the steps."""
    return _compare(context, regularizer, LONGER, "clean", "as they are")


def check_virtual_against_random(context: Context) -> Finding:
    """Test accuracy under attack, VAT minus Gaussian noise, each tuned for that."""
    return _compare(
        context,
        "vat",
        "noise",
        "attacked",
        f"attacked with radius {RADIUS:g}",
        tuned_for="validation_attacked",
    )


def check_gradient_tells_robustness(context: Context) -> Finding:
    """Rank correlation of E |grad_x loss|^2 and accuracy under attack, seed by seed."""
    every = [_figures(context, name) for name in STRENGTHS]
    gradients = np.concatenate([f["squared_gradient"] for f in every], axis=1)
    accuracies = np.concatenate([_hits(f, "attacked") for f in every], axis=1)
    correlations = [
        checks_trends.rank_correlation(g, a)
        for g, a in zip(gradients, accuracies.mean(axis=-1), strict=True)
    ]
    _draw_radii(context)
    _draw_gradients(context)
    mean, interval = checks_trends.correlation_interval(correlations)
    return Finding(
        mean,
        claims.decide(interval, at_most=0.0),
        interval,
        _seeds(context),
        f"Spearman's, over {gradients.shape[1]} trained networks a seed: all "
        f"regularisers at all strengths; attacked with radius {RADIUS:g}.",
    )


def _compare(
    context: Context,
    one: str,
    other: str,
    name: str,
    what: str,
    tuned_for: str = "validation_accuracy",
) -> Finding:
    """Difference of two accuracies over paired seeds and images."""
    values, shown, is_open = {}, [], {}
    for regularizer in dict.fromkeys((one, other, LONGER)):
        figures, value = _chosen(context, regularizer, tuned_for)
        values[regularizer] = _hits(figures, name)
        is_plain = regularizer in (PLAIN, LONGER)
        grid = {"learning_rate" if is_plain else "strength": STRENGTHS[regularizer]}
        chosen = dict.fromkeys(grid, value)
        is_open[regularizer] = grids.is_at_end(chosen, grid)
        means = values[regularizer].mean(axis=1)
        words = f"{NAMES[regularizer]} {means.mean():.4f} (sd {means.std(ddof=1):.4f})"
        shown.append(f"{words} at {grids.listed(chosen, grid)}")
        if name != "clean":
            shown[-1] += f" ({figures['clean'].mean():.4f} as they are)"
    mean, interval = claims.crossed_difference(values[one], values[other])
    images = values[one].shape[1]
    ends = is_open[one], is_open[other]
    attack = " under the same attack" if tuned_for == "validation_attacked" else ""
    return Finding(
        mean,
        claims.decide(interval, ends, at_least=0.0),
        interval,
        _seeds(context),
        f"Test images {what}, {_num_steps(context)} steps: {'; '.join(shown)}. "
        f"Strengths and rates by mean accuracy on the validation images{attack}. "
        f"{claims.covered(values[one])} The difference is {abs(mean) * images:.1f} of "
        "these.",
    )


def _hits(figures: Figures, name: str) -> np.ndarray:
    """Which test images are right [..., images], at the reported radius if attacked."""
    values = figures[name]
    return values[..., RADII.index(RADIUS), :] if name == "attacked" else values


def _seeds(context: Context) -> range:
    return context.seeds(quick=3, full=10)


def _num_steps(context: Context) -> int:
    return NUM_STEPS["full" if context.full else "quick"]


def _chosen(
    context: Context, regularizer: str, tuned_for: str = "validation_accuracy"
) -> tuple[Figures, float]:
    """Figures [seeds, ...] at the strength with the best mean accuracy, and it."""
    figures = _figures(context, regularizer)
    accuracy = figures[tuned_for]
    if tuned_for == "validation_attacked":
        accuracy = accuracy[..., RADII.index(RADIUS)]
    (best,) = sweep.most_accurate(accuracy, figures["validation_loss"])
    return {k: v[:, best] for k, v in figures.items()}, STRENGTHS[regularizer][best]


def _figures(context: Context, regularizer: str) -> Figures:
    """Figures of all runs under a regulariser, each [seeds, strengths, ...]."""
    name = PLAIN if regularizer == LONGER else regularizer
    num_steps = _num_steps(context) * (3 if regularizer == LONGER else 1)
    config = config_lib.load(
        f"configs/igr/digits.py:regularizer={name},num_steps={num_steps}"
    )

    def runs(seed):
        run = _compiled(name)
        rows = [run(s, seed, num_steps) for s in STRENGTHS[regularizer]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    by_seed = [
        context.memo(
            f"{regularizer}-{seed}",
            functools.partial(runs, seed),
            config=config.to_dict(),
            strengths=STRENGTHS[regularizer],
        )
        for seed in _seeds(context)
    ]
    return sweep.stacked(by_seed)


@functools.cache
def _compiled(regularizer: str) -> Callable[[float, int, int], dict[str, Any]]:
    """Trains: `(strength, or rate of plain training, seed, num_steps) -> figures`."""
    config = config_lib.load(f"configs/igr/digits.py:regularizer={regularizer}")
    run = checks_runs.compile_run(config, lambda params, splits: {})
    task, measure_one = _measurement()

    def figures(value, seed, num_steps):
        setting = "learning_rate" if regularizer == PLAIN else "strength"
        params, _ = run(seed=seed, num_steps=num_steps, **{setting: value})
        measured = measure_one(params, task.splits["validation"], task.splits["test"])
        return {name: value.tolist() for name, value in measured.items()}

    return figures


@functools.cache
def _measurement() -> tuple[supervised.Task, Callable[..., dict[str, Any]]]:
    """The task, and the compiled `measure`: one for all regularisers."""
    task = train.make_task(config_lib.load("configs/igr/digits.py"))
    prepare = supervised.standardizer(task.splits["train"]["image"])
    problem = objectives.Problem(task.net.apply, prepare)
    return task, jax.jit(functools.partial(measure, problem))


def _draw_radii(context: Context) -> None:
    series, ends = {}, []
    for regularizer, label in NAMES.items():
        attacked = 100.0 * _chosen(context, regularizer)[0]["attacked"].mean(axis=-1)
        series[label] = (
            RADII,
            attacked.mean(axis=0),
            attacked.min(axis=0),
            attacked.max(axis=0),
        )
        ends.append(f"{label} {attacked.mean(axis=0)[RADII.index(RADIUS)]:.0f} %")

    def draw(figure):
        plots.curves(
            figure.subplots(),
            series,
            xlabel="L2 length of the attack",
            ylabel="test accuracy, %",
        )

    context.figure(
        "attacked_accuracy",
        draw,
        "Test accuracy when every image is moved along the gradient of its own loss: "
        f"mean and range over {len(_seeds(context))} seeds, each regulariser at the "
        "strength with the best validation accuracy.",
        f"At length {RADIUS:g}: {', '.join(ends)}.",
        size=(4.6, 3.9),
    )


def _draw_gradients(context: Context) -> None:
    series = {}
    for regularizer, label in NAMES.items():
        figures = _figures(context, regularizer)
        accuracy = 100.0 * _hits(figures, "attacked").mean(axis=-1)
        gradient = np.exp(np.log(figures["squared_gradient"]).mean(axis=0))
        series[label] = (gradient, accuracy.mean(axis=0), None, None)

    def draw(figure):
        plots.sweep(
            figure.subplots(),
            series,
            xlabel="mean squared input gradient",
            ylabel="accuracy under attack, %",
        )

    context.figure(
        "input_gradient",
        draw,
        f"Test accuracy under an attack of length {RADIUS:g} against the mean squared "
        "gradient of the loss in the input; a point is a strength, or a learning rate "
        "of plain training, a ring the highest of a regulariser.",
        "; ".join(
            f"{label}: highest {y.max():.0f} % at {x[int(y.argmax())]:.2g}"
            for label, (x, y, _, _) in series.items()
        ),
        size=(4.6, 3.9),
    )
