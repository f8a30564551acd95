"""Lion, AdamW and SGD with momentum on digits, with one tuning budget for all.

Every optimizer gets a grid of the same size over learning rate and decay strength, the
same seeds, and its setting from the validation split.
"""

import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from expkit import claims, plots, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from lion import train

# Lowest learning rate of each grid; the next ones are a factor apart.
LOWEST = {
    "mlp": {"lion": 2.5e-5, "adamw": 5e-4, "sgd": 5e-3},
    "vit": {"lion": 1e-4, "adamw": 1e-3, "sgd": 5e-3},
}
NAMES = {"lion": "Lion", "adamw": "AdamW", "sgd": "SGD"}
# Number of learning rates, the factor between them, the decay strengths, steps a run.
# A strength is learning rate * weight decay, the fraction of a weight that a step takes
# away: at the same strength a smaller learning rate goes with a larger decay, as the
# authors advise.
BUDGETS = {
    "mlp": (10, 2.0, (1e-5, 1e-4, 1e-3, 1e-2), 500),
    "vit": (4, 4.0, (1e-3,), 300),
}


def check_learning_rate(model: str, context: Context) -> Finding:
    """How many times the best learning rate of AdamW exceeds Lion's, seed by seed."""
    logs, by_accuracy, at_end = {}, {}, 0
    for name in ("adamw", "lion"):
        rates = _rates(model, name)
        errors = 1.0 - _sweep(context, model, name)["validation_accuracy"]
        by_accuracy[name] = rates[sweep.lowest(errors)[0]]
        curves = _losses_by_rate(context, model, name)
        best = [sweep.refined_minimum(rates, curve) for curve in curves]
        at_end += sum(x in (rates[0], rates[-1]) for x in best)
        logs[name] = np.log(best)
    mean, bounds = claims.paired_difference(logs["adamw"], logs["lion"])
    low, high = np.exp(bounds).tolist()
    middle = {name: np.exp(values.mean()) for name, values in logs.items()}
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_least=3.0, at_most=10.0),
        (low, high),
        _seeds(context, model),
        f"Geometric means: Lion {middle['lion']:.2g}, AdamW {middle['adamw']:.2g}, by "
        "validation loss at the best decay of each rate; at an end of the grid: "
        f"{at_end} of {2 * len(_seeds(context, model))}. By mean validation accuracy: "
        f"{by_accuracy['lion']:.2g} and {by_accuracy['adamw']:.2g}.",
    )


def check_weight_decay(context: Context) -> Finding:
    """How many times the best weight decay of Lion exceeds AdamW's, seed by seed."""
    logs = {}
    for name in ("lion", "adamw"):
        rates, strengths = _rates("mlp", name), np.array(BUDGETS["mlp"][2])
        decays = strengths[None] / rates[:, None]
        losses = _sweep(context, "mlp", name)["validation_loss"]
        logs[name] = [np.log(decays[sweep.lowest(one[None])]) for one in losses]
    mean, bounds = claims.paired_difference(logs["lion"], logs["adamw"])
    low, high = np.exp(bounds).tolist()
    middle = {name: np.exp(np.mean(values)) for name, values in logs.items()}
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_least=3.0, at_most=10.0),
        (low, high),
        _seeds(context, "mlp"),
        f"Geometric means: Lion {middle['lion']:.2g}, AdamW {middle['adamw']:.2g}, at "
        "the lowest validation loss of each seed.",
    )


def check_accuracy(model: str, other: str, context: Context) -> Finding:
    """Test accuracy of Lion minus that of another optimizer, each at its best."""
    _draw_sweep(context, model)
    accuracies = {}
    for name in ("lion", other):
        figures = _sweep(context, model, name)
        best = sweep.lowest(figures["validation_loss"])
        accuracies[name] = figures["test_accuracy"][:, *best]
    mean, interval = claims.paired_difference(accuracies["lion"], accuracies[other])
    means = ", ".join(
        f"{NAMES[name]} {values.mean():.4f} (sd {values.std(ddof=1):.4f})"
        for name, values in accuracies.items()
    )
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context, model),
        f"{means}. Learning rate and decay by mean validation loss.",
    )


def _seeds(context: Context, model: str) -> range:
    return context.seeds(quick=3, full=10 if model == "mlp" else 5)


def _rates(model: str, optimizer: str) -> np.ndarray:
    """Peak learning rates tried for an optimizer."""
    count, factor, _, _ = BUDGETS[model]
    return LOWEST[model][optimizer] * factor ** np.arange(count)


def _sweep(context: Context, model: str, optimizer: str) -> dict[str, np.ndarray]:
    """Figures of all runs of an optimizer, each [seeds, rates, strengths]."""
    rates = _rates(model, optimizer)
    _, _, strengths, num_steps = BUDGETS[model]
    config = config_lib.load(
        f"configs/lion/digits.py:model={model},optimizer={optimizer},batch_size=128,"
        f"num_steps={num_steps},width=32"
    )
    compiled = functools.cache(lambda: compile_run(config))
    by_seed = [
        context.memo(
            f"{model}-{optimizer}-{seed}",
            lambda seed=seed: sweep.over_grid(compiled(), rates, strengths, seed=seed),
            config=config.to_dict(),
            rates=rates,
            strengths=strengths,
        )
        for seed in _seeds(context, model)
    ]
    return {key: np.array([f[key] for f in by_seed], float) for key in by_seed[0]}


def _losses_by_rate(context: Context, model: str, optimizer: str) -> np.ndarray:
    """Validation losses at the best strength [seeds, rates], nan where all diverged."""
    losses = _sweep(context, model, optimizer)["validation_loss"]
    lowest = np.where(np.isfinite(losses), losses, np.inf).min(axis=-1)
    return np.where(np.isfinite(lowest), lowest, np.nan)


def compile_run(config: ml_collections.ConfigDict) -> Callable[..., dict[str, float]]:
    """Makes `(learning_rate, strength, seed) -> figures` of one whole run."""
    task = train.make_task(config)
    arrays = task.splits["train"]
    evaluate = train.make_evaluation(task)
    fit = sweep.compile_training(
        task.loss_fn,
        task.net.init,
        functools.partial(train.make_optimizer, config),
    )

    def run(learning_rate, strength, *, seed):
        rows = sweep.batch_rows(
            len(arrays["label"]), config.batch_size, config.num_steps, seed
        )
        settings = {
            "learning_rate": learning_rate,
            "weight_decay": strength / learning_rate,
        }
        params, _ = fit(settings, jax.random.key(seed), arrays, rows)
        return evaluate(params, "validation") | evaluate(params, "test")

    return run


def _draw_sweep(context: Context, model: str) -> None:
    """Draws the best validation loss against the learning rate."""
    series = {}
    for name, label in NAMES.items():
        rates = _rates(model, name)
        losses = _losses_by_rate(context, model, name)
        middle = np.median(losses, axis=0)
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
