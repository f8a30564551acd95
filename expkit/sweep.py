"""Many short runs of one model: compiled once, every arm with the same budget.

A sweep trains the same model over a grid of settings and some seeds. The whole run is
one `lax.scan` with the settings traced, so a grid costs one compilation an optimizer::

    train = compile_training(loss_fn, net.init, make_optimizer)
    params, losses = train({"learning_rate": 1e-3}, key, arrays, rows)
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expkit import loop
from expkit.datasets.batches import Batches

Train = Callable[..., tuple[Any, jax.Array]]
RecordedTrain = Callable[..., tuple[Any, jax.Array, Any]]


def compile_training(
    loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    init: Callable[[jax.Array], Any],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    loss_settings: Collection[str] = (),
) -> Train:
    """Makes a jitted function that trains from scratch.

    Args:
        loss_fn: `(params, batch, key) -> (loss, metrics)`, as for `loop.make_step`.
        init: `key -> params`.
        make_optimizer: called with the settings as keyword arguments, which are traced.
        loss_settings: names of settings that go to the loss, as keyword arguments, and
            not to the optimizer.

    Returns:
        `(settings, key, arrays, rows) -> (params, losses [num_steps])`, where step i
        sees `{name: array[rows[i]]}`. The same key and rows give the run that
        `loop.fit` makes of `key -> split -> (init, run)`, up to rounding.
    """

    @jax.jit
    def train(settings, key, arrays, rows):
        start, steps = _run(loss_fn, init, make_optimizer, loss_settings, settings)
        state, losses = steps(start(key), arrays, rows)
        return state.params, losses

    return train


def compile_finetuning(
    loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    loss_settings: Collection[str] = (),
) -> Train:
    """As `compile_training`, from given parameters.

    Args:
        loss_fn: as there.
        make_optimizer: as there.
        loss_settings: as there.

    Returns:
        `(settings, params, key, arrays, rows) -> (params, losses [num_steps])`. Rows
        may be a dict of one such array for each name in `arrays`.
    """

    @jax.jit
    def train(settings, params, key, arrays, rows):
        start, steps = _run(
            loss_fn, lambda key: params, make_optimizer, loss_settings, settings
        )
        state, losses = steps(start(key), arrays, rows)
        return state.params, losses

    return train


def compile_recorded_training(
    loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    init: Callable[[jax.Array], Any],
    make_optimizer: Callable[..., optax.GradientTransformation],
    record: Callable[[Any, Any], Any],
    *,
    loss_settings: Collection[str] = (),
) -> RecordedTrain:
    """As `compile_training`, with figures of the parameters along the way.

    Args:
        loss_fn: as there.
        init: as there.
        make_optimizer: as there.
        record: `(params, held_out) -> pytree of arrays`.
        loss_settings: as there.

    Returns:
        `(settings, key, arrays, rows, held_out) -> (params, losses, records)`, where
        rows [num_blocks, steps, batch] are steps between records, losses are
        [num_blocks * steps], and records have the leading axis 1 + num_blocks: before
        the first step and after every block.
    """

    @jax.jit
    def train(settings, key, arrays, rows, held_out):
        run = _run(loss_fn, init, make_optimizer, loss_settings, settings)
        return _recorded(run, record, key, arrays, rows, held_out)

    return train


def compile_recorded_finetuning(
    loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    make_optimizer: Callable[..., optax.GradientTransformation],
    record: Callable[[Any, Any], Any],
) -> RecordedTrain:
    """As `compile_recorded_training`, from given parameters.

    Args:
        loss_fn: as there.
        make_optimizer: as there; it gets all settings.
        record: as there.

    Returns:
        `(settings, params, key, arrays, rows, held_out) -> (params, losses, records)`.
    """

    @jax.jit
    def train(settings, params, key, arrays, rows, held_out):
        run = _run(loss_fn, lambda key: params, make_optimizer, (), settings)
        return _recorded(run, record, key, arrays, rows, held_out)

    return train


def _recorded(run, record, key, arrays, rows, held_out):
    """Blocks of steps with a record before the first and after each."""
    start, steps = run

    def block(state, rows_of_block):
        state, losses = steps(state, arrays, rows_of_block)
        return state, (losses, record(state.params, held_out))

    state = start(key)
    first = record(state.params, held_out)
    state, (losses, records) = jax.lax.scan(block, state, rows)
    records = jax.tree.map(
        lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, records
    )
    return state.params, losses.ravel(), records


def _run(loss_fn, init, make_optimizer, loss_settings, settings):
    """`(key -> first state, (state, arrays, rows) -> (state, losses))`."""
    of_loss = {k: v for k, v in settings.items() if k in loss_settings}
    optimizer = make_optimizer(
        **{k: v for k, v in settings.items() if k not in loss_settings}
    )
    step = loop.make_step(functools.partial(loss_fn, **of_loss), optimizer)

    def start(key):
        init_key, run_key = jax.random.split(key)
        return loop.init_state(init(init_key), optimizer, run_key)

    def steps(state, arrays, rows):
        def body(state, rows_of_step):
            if not isinstance(rows_of_step, dict):
                rows_of_step = dict.fromkeys(arrays, rows_of_step)
            batch = {name: array[rows_of_step[name]] for name, array in arrays.items()}
            state, metrics = step(state, batch)
            return state, metrics["loss"]

        return jax.lax.scan(body, state, rows)

    return start, steps


def batch_rows(num_rows: int, batch_size: int, num_steps: int, seed: int) -> np.ndarray:
    """Which rows each step sees, in the order that `data.Batches` gives them.

    Args:
        num_rows: rows of the training set.
        batch_size: rows a step.
        num_steps: steps.
        seed: of the order.

    Returns:
        Indices, int32 [num_steps, batch_size].
    """
    index = {"row": np.arange(num_rows, dtype=np.int32)}
    batches = Batches(index, batch_size, seed=seed, remainder="wrap")
    return np.stack([batches[step]["row"] for step in range(num_steps)])


def over_grid(
    run: Callable[..., dict[str, Any]], *axes: Sequence[float] | np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Runs every combination of settings once.

    Args:
        run: `(*settings, seed=seed) -> figures`, numbers or arrays.
        *axes: values of each setting.
        seed: of all runs.

    Returns:
        Each figure as an array with one axis a setting, before its own.
    """
    shape = tuple(len(axis) for axis in axes)
    cells = [
        run(*(float(axis[i]) for axis, i in zip(axes, index, strict=True)), seed=seed)
        for index in np.ndindex(shape)
    ]
    return {
        key: np.reshape([c[key] for c in cells], shape + np.shape(first))
        for key, first in cells[0].items()
    }


def stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Figures of several runs as arrays.

    Args:
        rows: figures by name, of each run.

    Returns:
        Each figure with one axis more, that of the runs, in front; nan for None.
    """
    return {key: np.array([row[key] for row in rows], float) for key in rows[0]}


def lowest(losses: np.ndarray) -> tuple[int, ...]:
    """Where the mean over seeds is lowest.

    Args:
        losses: [seeds, *settings]; a loss that is not finite (a run that diverged)
            counts as infinite.

    Returns:
        The index of the setting; the first one if all are infinite.
    """
    mean = np.where(np.isfinite(losses), losses, np.inf).mean(axis=0)
    return tuple(int(i) for i in np.unravel_index(mean.argmin(), mean.shape))


def most_accurate(accuracies: np.ndarray, losses: np.ndarray) -> tuple[int, ...]:
    """Where the mean accuracy over seeds is highest, and of equals the loss lowest.

    Args:
        accuracies: accuracies [seeds, *settings].
        losses: losses of the same runs; not finite where one diverged.

    Returns:
        The index of the setting, as `lowest`.
    """
    return lowest(1.0 - accuracies + 1e-6 * losses)


def refined_minimum(x: np.ndarray, losses: np.ndarray) -> float:
    """Where a curve over a logarithmic grid is lowest, between the grid points too.

    Args:
        x: settings [n], positive and increasing, n >= 3.
        losses: losses [n], positive; one that is not finite counts as infinite.

    Returns:
        The vertex of the parabola in (log x, log loss) through the lowest point and its
        neighbours; the lowest point itself where it is an end of the grid or has a
        neighbour that is not finite; nan if nothing is finite.
    """
    losses = np.where(np.isfinite(losses), losses, np.inf)
    i = int(losses.argmin())
    if not np.isfinite(losses[i]):
        return float("nan")
    near = slice(i - 1, i + 2)
    if not 0 < i < len(x) - 1 or not np.isfinite(losses[near]).all():
        return float(x[i])
    curvature, slope, _ = np.polyfit(np.log(x[near]), np.log(losses[near]), 2)
    return float(np.exp(-slope / (2 * curvature))) if curvature > 0 else float(x[i])
