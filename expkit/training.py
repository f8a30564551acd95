"""One training run as a config describes it: batches, devices, folder, then `loop.fit`.

`prepare` checks all that can be wrong before any work is done, `fit` does the work::

    with config_lib.reporting_errors():
        task, optimizer = make_task(config), make_optimizer(config)
        fit = training.prepare(config, workdir, task.splits["train"], evaluate)
    state = fit(loop.make_step(task.loss_fn, optimizer), state)
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from expkit import config as config_lib
from expkit import loop, sharding
from expkit.datasets.batches import Batches

Fit = Callable[[loop.StepFn, loop.TrainState], loop.TrainState]


def prepare(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    arrays: Mapping[str, np.ndarray],
    evaluate: Callable[[Any], Mapping[str, float]],
    *,
    batches: loop.Batches | None = None,
) -> Fit:
    """Makes the batches, the mesh and the folder of a run.

    Args:
        config: has `batch_size`, `num_steps`, `seed`, `mesh`, `log_every`,
            `evaluate_every` and `checkpoint_every`.
        workdir: folder for config, metrics and checkpoints; locked from here on.
        arrays: the training set.
        evaluate: `params -> figures` that join the row of their step.
        batches: batches by step, where those of one array a name would not do.

    Returns:
        `(step, initial state) -> state after the last step`, as `loop.fit`.

    Raises:
        ValueError: if a field or the folder cannot be used.
    """
    if batches is None:
        batches = Batches(arrays, config.batch_size, seed=config.seed, remainder="wrap")
    mesh = sharding.make_mesh(config.mesh, config.batch_size)
    return functools.partial(
        loop.fit,
        batches=batches,
        num_steps=config.num_steps,
        workdir=config_lib.prepare_workdir(config, workdir),
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        evaluate=evaluate,
        evaluate_every=config.evaluate_every,
        mesh=mesh,
    )
