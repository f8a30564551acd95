"""Whole training runs of a check: settings and seed vary, compilation happens once."""

import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from expkit import supervised, sweep
from lion import train

Run = Callable[..., tuple[dict[str, float], np.ndarray]]


def compile_run(
    config: ml_collections.ConfigDict, task: supervised.Task | None = None
) -> Run:
    """Makes a function that trains a model of a config from scratch.

    Args:
        config: see `configs/lion/digits.py`; its learning rate, weight decay and seed
            are not used.
        task: model and data; None makes those of the config.

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
        figures = evaluate(params, "validation") | evaluate(params, "test")
        return figures, np.asarray(losses)

    return run
