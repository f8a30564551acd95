"""Whole training runs of a check: settings and seed vary, compilation happens once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from expkit import sweep
from igr import train

SETTINGS = ("learning_rate", "strength")
Record = Callable[[Any, Any], Any]


def compile_run(
    config: ml_collections.ConfigDict, record: Record, num_records: int = 1
) -> Callable[..., tuple[Any, dict[str, np.ndarray]]]:
    """Makes a function that trains a model of a config from scratch.

    Args:
        config: see `configs/igr/digits.py`; its learning rate and strength are defaults
            and its seed is not used.
        record: `(params, splits) -> pytree of arrays`, jitted into the run.
        num_records: how often figures are recorded after the first time, before the
            first step; divides the steps.

    Returns:
        `(*, seed, num_steps=None, **settings) -> (params, records)`, where settings are
        `learning_rate` and `strength`, and records have the axis 1 + num_records. Runs
        of another length compile once more.
    """
    task = train.make_task(config)
    fit = sweep.compile_recorded_training(
        train.make_loss(config, task),
        task.net.init,
        functools.partial(train.make_optimizer, config),
        record,
        loss_settings=("strength",),
    )

    def run(*, seed, num_steps=None, **settings):
        steps = config.num_steps if num_steps is None else num_steps
        if steps % num_records:
            raise ValueError(
                f"num_steps={steps} must be a multiple of num_records={num_records}."
            )
        splits = task.splits
        if config.label_noise:  # which labels are wrong depends on the seed
            noisy = config.copy_and_resolve_references()
            noisy.seed = seed
            splits = train.make_task(noisy).splits
        arrays = splits["train"]
        rows = sweep.batch_rows(len(arrays["label"]), config.batch_size, steps, seed)
        rows = rows.reshape(num_records, -1, config.batch_size)
        settings = {name: config[name] for name in SETTINGS} | settings
        key = jax.random.key(seed)
        params, _, records = fit(settings, key, arrays, rows, splits)
        return params, jax.tree.map(np.asarray, records)

    return run
