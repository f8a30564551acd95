"""One training run as a config describes it: batches, devices, folder, then `loop.fit`.

`prepare` checks all that can be wrong before any work is done, `fit` does the work::

    with config_lib.reporting_errors():
        task, optimizer = make_task(config), make_optimizer(config)
        fit = training.prepare(config, workdir, task.splits, evaluate)
    state = fit(loop.make_step(task.loss_fn, optimizer), state)
"""

import functools
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from expkit import config as config_lib
from expkit import jsonfile, loop, sharding, workdirs
from expkit.datasets.batches import Batches

Fit = Callable[[loop.StepFn, loop.TrainState], loop.TrainState]


def prepare(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    splits: Mapping[str, Mapping[str, np.ndarray]],
    evaluate: Callable[[Any], Mapping[str, float]],
    *,
    batches: loop.Batches | None = None,
) -> Fit:
    """Makes the batches, the mesh and the folder of a run.

    A digest of the data stays in the folder, and a rerun with other data is refused.

    Args:
        config: has `batch_size`, `num_steps`, `seed`, `mesh`, `log_every`,
            `evaluate_every` and `checkpoint_every`.
        workdir: folder for config, metrics and checkpoints; locked from here on.
        splits: arrays of the training set, `train`, and of what figures come from.
        evaluate: `params -> figures` that join the row of their step.
        batches: batches by step, where those of one array a name would not do.

    Returns:
        `(step, initial state) -> state after the last step`, as `loop.fit`.

    Raises:
        ValueError: if a field or the folder cannot be used, or the folder belongs to a
            run with other data.
    """
    if batches is None:
        arrays = splits["train"]
        batches = Batches(arrays, config.batch_size, seed=config.seed, remainder="wrap")
    _require_same_config(config)
    mesh = sharding.make_mesh(config.mesh, config.batch_size)
    digests = {name: workdirs.digest(arrays) for name, arrays in splits.items()}
    return functools.partial(
        loop.fit,
        batches=batches,
        num_steps=config.num_steps,
        workdir=_prepare_workdir(config, workdir, digests),
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        evaluate=evaluate,
        evaluate_every=config.evaluate_every,
        mesh=mesh,
        fully_sharded=sharding.is_fully_sharded(config.mesh),
    )


def is_decayed(params: Any) -> Any:
    """Which leaves have weight decay: matrices, not biases and norms.

    Args:
        params: pytree of arrays.

    Returns:
        Pytree of bool.
    """
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def _require_same_config(config: ml_collections.ConfigDict) -> None:
    """Raises in every process if they were not started with the same config."""
    _require_same(
        json.dumps(jsonfile.plain(config.to_dict()), sort_keys=True),
        "have different configs; start all of them with the same command",
    )


def _require_same(text: str, otherwise: str) -> None:
    """Raises in every process if this text is not the same in all of them."""
    hashes = sharding.from_all_processes(zlib.crc32(text.encode()) & 0x7FFFFFFF)
    if len(set(hashes)) > 1:
        raise config_lib.ConfigError(f"the {len(hashes)} processes {otherwise}.")


def _prepare_workdir(
    config: ml_collections.ConfigDict, workdir: str | Path, digests: dict[str, str]
) -> Path:
    """Has the first process prepare and lock the folder, while the others wait."""
    _require_same(
        json.dumps(digests, sort_keys=True),
        "loaded different data; give all of them the same files",
    )
    if jax.process_count() == 1:
        return _take_workdir(config, workdir, digests)
    problem = ""
    if jax.process_index() == 0:
        try:
            _take_workdir(config, workdir, digests)
        except config_lib.ConfigError as error:
            problem = str(error)
    problem = sharding.from_first_process(problem)
    if problem:
        raise config_lib.ConfigError(problem)
    if not all(sharding.from_all_processes(Path(workdir, "config.json").exists())):
        raise config_lib.ConfigError(
            f"workdir {str(workdir)!r} must be one folder that all processes see."
        )
    return Path(workdir)


def _take_workdir(config, workdir, digests) -> Path:
    folder = workdirs.prepare(config, workdir)
    workdirs.require_same_data(folder, digests)
    return folder
