"""Whole training runs of a check: settings and seed vary, compilation happens once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from expkit import loop, sweep
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


def compile_descent(
    config: ml_collections.ConfigDict, record: Record, num_records: int = 1
) -> Callable[..., tuple[Any, dict[str, np.ndarray]]]:
    """As `compile_run`, for runs of many lengths: the number of steps is traced too.

    Args:
        config: see `configs/igr/digits.py`. A batch is a slice of a permutation that is
            drawn anew each epoch; one of the size of the training set is all of it.
        record: `(params, splits) -> pytree of arrays`.
        num_records: how often figures are recorded after the first time.

    Returns:
        `(*, seed, num_steps, **settings) -> (params, records)`, where `num_steps` is a
        multiple of num_records.
    """
    task = train.make_task(config)
    num_rows = len(task.splits["train"]["label"])
    per_epoch = num_rows // config.batch_size
    loss_fn = train.make_loss(config, task)

    @jax.jit
    def descend(key, learning_rate, strength, steps_a_record, splits):
        init_key, run_key = jax.random.split(key)
        optimizer = train.make_optimizer(config, learning_rate)
        step = loop.make_step(functools.partial(loss_fn, strength=strength), optimizer)

        def body(_, state):
            batch = splits["train"]
            if per_epoch > 1:
                epoch = jax.random.fold_in(run_key, state.step // per_epoch)
                rows = jax.random.permutation(epoch, num_rows)
                start = state.step % per_epoch * config.batch_size
                rows = jax.lax.dynamic_slice_in_dim(rows, start, config.batch_size)
                batch = {name: array[rows] for name, array in batch.items()}
            return step(state, batch)[0]

        def block(state, _):
            state = jax.lax.fori_loop(0, steps_a_record, body, state)
            return state, record(state.params, splits)

        state = loop.init_state(task.net.init(init_key), optimizer, run_key)
        first = record(state.params, splits)
        state, records = jax.lax.scan(block, state, length=num_records)
        return state.params, jax.tree.map(
            lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, records
        )

    def run(*, seed, num_steps, **settings):
        settings = {name: config[name] for name in SETTINGS} | settings
        steps, rest = divmod(num_steps, num_records)
        if rest:
            raise ValueError(f"num_steps={num_steps} is no multiple of {num_records}.")
        key = jax.random.key(seed)
        params, records = descend(
            key, **settings, steps_a_record=steps, splits=task.splits
        )
        return params, jax.tree.map(np.asarray, records)

    return run
