"""Whole training runs of a check: settings and seed vary, compilation happens once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from expkit import supervised, sweep
from expkit.claims import Context
from lion import train

Run = Callable[..., tuple[dict[str, Any], np.ndarray]]


def compile_run(
    config: ml_collections.ConfigDict,
    task: supervised.Task | None = None,
    *,
    by_row: bool = False,
) -> Run:
    """Makes a function that trains a model of a config from scratch.

    Args:
        config: see `configs/lion/digits.py`; its learning rate, weight decay and seed
            are not used.
        task: model and data; None makes those of the config.
        by_row: whether the figures have `test_hits`, whether each test row is right.

    Returns:
        `(learning_rate, strength, *, seed) -> (figures, losses)`: the figures on the
        validation and test splits at the end, and the training loss of every step. A
        strength is learning rate * weight decay, the fraction of a weight that a step
        takes away.
    """
    task = train.make_task(config) if task is None else task
    arrays = task.splits["train"]
    num_rows = len(next(iter(arrays.values())))
    evaluate = supervised.make_evaluation(task)
    row_figures = jax.jit(supervised.make_row_figures(task))
    fit = sweep.compile_training(
        task.loss_fn,
        task.net.init,
        functools.partial(train.make_optimizer, config),
    )

    def run(learning_rate, strength, *, seed):
        rows = sweep.batch_rows(num_rows, config.batch_size, config.num_steps, seed)
        settings = {
            "learning_rate": learning_rate,
            "weight_decay": strength / learning_rate,
        }
        params, losses = fit(settings, jax.random.key(seed), arrays, rows)
        figures: dict[str, Any] = {
            **evaluate(params, "validation"),
            **evaluate(params, "test"),
        }
        if by_row:
            hits = row_figures(params, task.splits["test"])["accuracy"]
            figures["test_hits"] = np.asarray(hits, int)
        return figures, np.asarray(losses)

    return run


def figures_over_grid(
    context: Context,
    name: str,
    config: ml_collections.ConfigDict,
    rates: Sequence[float] | np.ndarray,
    strengths: Sequence[float],
    seeds: range,
) -> dict[str, np.ndarray]:
    """Figures of a classifier over a grid, kept by seed.

    Args:
        context: of the check.
        name: of the files, unique in the experiment.
        config: as for `compile_run`.
        rates: peak learning rates.
        strengths: decay strengths.
        seeds: of the runs.

    Returns:
        Each figure as [seeds, rates, strengths], and `test_hits`, whether each test
        row is right, with the axis of these more.
    """
    compiled = functools.cache(lambda: compile_run(config, by_row=True))

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
    return sweep.stacked(by_seed)


def best_setting(figures: dict[str, np.ndarray]) -> tuple[int, ...]:
    """The setting with the highest mean validation accuracy, ties by the loss.

    Args:
        figures: as `figures_over_grid` gives them.

    Returns:
        Its index in (rates, strengths).
    """
    return sweep.most_accurate(
        figures["validation_accuracy"], figures["validation_loss"]
    )


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
