"""Runs that differ in learning rate and length, compiled once, and how they end."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from expkit import config as config_lib
from expkit import loop
from igr import train
from igr.checks_sharpness import largest_eigenvalue

SETTINGS = ("learning_rate", "strength")
NOISE, DRAWS = 0.1, 10  # standard deviation on every parameter, draws
BATCHES = 20  # whose squared gradients are averaged in `batch_squares`


class Runs:
    """The runs of one config, from scratch to the end.

    Args:
        config: see `configs/igr/digits.py`; learning rate, strength, seed and number of
            steps are not used.
        time: learning rate * number of steps.
    """

    def __init__(self, config: ml_collections.ConfigDict, time: float):
        task = train.make_task(config)
        arrays = task.splits["train"]
        self._time, self._train = time, arrays
        size = len(arrays["label"]) // BATCHES
        self._batches = jax.tree.map(
            lambda x: x[: BATCHES * size].reshape(BATCHES, size, *x.shape[1:]), arrays
        )

        def loss_fn(params, arrays):
            return task.loss_fn(params, arrays, None)[0]

        def record(params, splits):
            slope = jax.grad(loss_fn)(params, splits["train"])
            size = ravel_pytree(params)[0].size
            figures = {"regularizer": optax.tree.norm(slope, squared=True) / size}
            for name in ("train", "validation", "test"):
                loss, more = task.loss_fn(params, splits[name], None)
                figures |= {f"{name}_loss": loss, f"{name}_accuracy": more["accuracy"]}
            return figures

        def batch_squares(params, batches):
            def square(batch):
                return optax.tree.norm(jax.grad(loss_fn)(params, batch), squared=True)

            return jnp.mean(jax.lax.map(square, batches))

        def noisy_accuracy(params, arrays):
            def one(key):
                noise = optax.tree.random_like(key, params)
                moved = optax.tree.add_scale(params, NOISE, noise)
                return task.loss_fn(moved, arrays, None)[1]["accuracy"]

            return jnp.mean(
                jax.lax.map(one, jax.random.split(jax.random.key(0), DRAWS))
            )

        self._loss_fn, self._batch_squares = loss_fn, jax.jit(batch_squares)
        self._noisy_accuracy = jax.jit(noisy_accuracy)
        self._run = compile_descent(config, record)

    @functools.lru_cache(maxsize=2)  # noqa: B019, there are few such objects
    def _end(self, seed, rate, strength):
        return self._run(
            seed=seed,
            num_steps=round(self._time / rate),
            learning_rate=rate,
            strength=strength,
        )

    def params(self, seed: int, rate: float, strength: float = 0.0) -> np.ndarray:
        """The parameters at the end.

        Args:
            seed: of start and batches.
            rate: learning rate.
            strength: of the regulariser.

        Returns:
            One flat array.
        """
        return np.asarray(ravel_pytree(self._end(seed, rate, strength)[0])[0])

    def figures(
        self, seed: int, rate: float, strength: float = 0.0, *, curvature: bool = True
    ) -> dict[str, float]:
        """What the run ends with.

        Args:
            seed: of start and batches.
            rate: learning rate.
            strength: of the regulariser.
            curvature: whether `sharpness` is wanted, which takes longest.

        Returns:
            Loss and accuracy of each split; on the training set `regularizer` (R_IG),
            `batch_squares` (mean squared gradient norm of fixed batches),
            `noisy_accuracy` (under noise on the parameters) and `sharpness` (largest
            Hessian eigenvalue; nan if the run diverged, which is a training loss above
            that at the start or not finite).
        """
        params, records = self._end(seed, rate, strength)
        figures = {name: float(values[-1]) for name, values in records.items()}
        figures["batch_squares"] = float(self._batch_squares(params, self._batches))
        noisy = self._noisy_accuracy(params, self._train)
        figures["noisy_accuracy"] = float(noisy)
        if curvature:
            # Far out the loss can be finite and its Hessian 0: no eigenvalue to find.
            has_fallen = figures["train_loss"] <= records["train_loss"][0]
            figures["sharpness"] = (
                largest_eigenvalue(self._loss_fn, params, self._train)
                if has_fallen
                else np.nan
            )
        return figures


@functools.cache
def runs(reference: str, time: float) -> Runs:
    """The runs of a config, made once in a process.

    Args:
        reference: of the config, as on the command line.
        time: learning rate * number of steps.

    Returns:
        The runs.
    """
    return Runs(config_lib.load(reference), time)


def compile_descent(
    config: ml_collections.ConfigDict,
    record: Callable[[Any, Any], Any],
    num_records: int = 1,
) -> Callable[..., tuple[Any, dict[str, np.ndarray]]]:
    """Makes a function that trains from scratch, with the number of steps traced too.

    Args:
        config: see `configs/igr/digits.py`. A batch is a slice of a permutation that is
            drawn anew each epoch; one of the size of the training set is all of it.
            Learning rate and strength are defaults, seed and num_steps are not used.
        record: `(params, splits) -> pytree of arrays`.
        num_records: how often figures are recorded after the first time.

    Returns:
        `(*, seed, num_steps, **settings) -> (params, records)`, where `num_steps` is a
        multiple of num_records, settings are `learning_rate` and `strength`, and
        records have the axis 1 + num_records.

    Raises:
        ValueError: if the batch size does not divide the training set.
    """
    task = train.make_task(config)
    num_rows = len(task.splits["train"]["label"])
    per_epoch, rest = divmod(num_rows, config.batch_size)
    if rest:
        raise ValueError(
            f"batch_size={config.batch_size} must divide the {num_rows} rows of the "
            "training set, so that an epoch is every row once."
        )
    loss_fn = train.make_loss(config, task)

    @jax.jit
    def descend(key, learning_rate, strength, steps_a_record, splits):
        init_key, run_key, order_key = jax.random.split(key, 3)
        optimizer = train.make_optimizer(config, learning_rate)
        step = loop.make_step(functools.partial(loss_fn, strength=strength), optimizer)

        def body(_, state):
            batch = splits["train"]
            if per_epoch > 1:
                epoch = jax.random.fold_in(order_key, state.step // per_epoch)
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
            raise ValueError(
                f"num_steps={num_steps} must be a multiple of "
                f"num_records={num_records}."
            )
        key = jax.random.key(seed)
        params, records = descend(
            key, **settings, steps_a_record=steps, splits=task.splits
        )
        return params, jax.tree.map(np.asarray, records)

    return run
