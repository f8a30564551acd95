"""One training loop: a jitted, donated step, checkpoints, metrics, graceful stops.

The loop is plain: `state, metrics = step(state, batches[i])`. What makes it long-lived
is that a batch is a function of the step number and every random key is derived from
the state, so a run that is killed anywhere and started again ends in the same bits.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expkit import metrics as metrics_lib
from expkit import sharding
from expkit.checkpoint import Checkpointer
from expkit.finite import finite_leaves
from expkit.metrics import MetricsWriter
from expkit.progress import Progress
from expkit.signals import stop_signal

Batch = Any
Key = jax.Array | None
SIGNAL = "_signal"  # key of a batch and of the metrics
LossFn = Callable[[Any, Batch, Key], tuple[jax.Array, dict[str, jax.Array]]]
StepFn = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds.

    Attributes:
        step: number of updates done, int32.
        params: parameters of the model.
        opt_state: state of the optimizer.
        key: typed PRNG key of the run; step `n` uses `fold_in(key, n)`.
        extra: anything else, such as batch statistics.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array
    extra: Any


class Batches(Protocol):
    """Random access to batches by global step, from 0."""

    def __getitem__(self, step: int, /) -> dict[str, np.ndarray]: ...


class NonFiniteError(RuntimeError):
    """Training stopped because a loss or a parameter was not finite."""


class Interrupted(SystemExit):
    """Training was stopped by a signal and its state saved; exits 128 + signal."""

    def __init__(self, signum: int, step: int):
        self.status = 128 + signum
        super().__init__(self.status)
        self.step = step


def init_state(
    params: Any, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """Makes the state before the first step.

    Args:
        params: initial parameters.
        optimizer: initialises its state from them.
        key: typed PRNG key of the run.

    Returns:
        The state, at step 0.
    """
    return TrainState(jnp.int32(0), params, optimizer.init(params), key, {})


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> StepFn:
    """Makes the step that most experiments need.

    Args:
        loss_fn: `(params, batch, key) -> (loss, metrics)`, the mean over the batch.
        optimizer: turns gradients into updates.

    Returns:
        `(state, batch) -> (state, {"loss", **metrics})`, pure, not jitted.
    """

    def step(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = grad_fn(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
        return state, {"loss": loss, **metrics}

    return step


def fit(
    step_fn: StepFn,
    state: TrainState,
    batches: Batches,
    *,
    num_steps: int,
    workdir: str | Path,
    checkpoint_every: int = 0,
    log_every: int = 1,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    fully_sharded: bool = False,
) -> TrainState:
    """Trains to `num_steps`, from the newest checkpoint in `workdir` if there is one.

    The metrics of a step are fetched while the next one runs, so the device waits for
    the host only at evaluations and checkpoints. `metrics.jsonl` gets a row a logged
    step, always including the last; a row's `step` is the number of updates done, its
    `loss` is that of the batch before the update.

    Args:
        step_fn: pure `(state, batch) -> (state, metrics)`; `metrics["loss"]` is the
            minimised scalar. It is compiled once, with the state donated.
        state: initial state; also says what a checkpoint must look like.
        batches: `batches[i]` is the batch of step i, leading axis = batch.
        num_steps: number of updates in total.
        workdir: folder for `metrics.jsonl` and `checkpoints/`.
        checkpoint_every: steps between checkpoints; 0 saves only at the end and when
            stopped.
        log_every: steps between rows.
        evaluate: `params -> figures` that join the row of their step; it runs on the
            host and may jit inside.
        evaluate_every: steps between evaluations; 0 evaluates only after the last.
        mesh: devices to split the batch over; default: the first device alone.
        fully_sharded: whether they split the state as well, see
            `sharding.state_shardings`.

    Returns:
        The state after `num_steps` updates. With several processes its parameters are
        whole in each of them, as `evaluate` gets them.

    Raises:
        NonFiniteError: if a loss, or part of a state about to be saved, is not finite
            where the initial state was; the message names the step and, for a loss, the
            last finite metrics. Checkpoints stay.
        Interrupted: after SIGINT, SIGTERM or SIGHUP, once the state is saved.
        CheckpointError: if `workdir` holds checkpoints that cannot be used.
    """
    mesh = mesh or sharding.make_mesh("data:1", 1)
    state = sharding.place_state(state, mesh, fully_sharded=fully_sharded)
    compiled_step = _compile(step_fn, state, mesh)
    finite = finite_leaves(state)
    # Every process trains; the first one tells.
    tells = jax.process_index() == 0
    metrics_path = Path(workdir, "metrics.jsonl" if tells else os.devnull)
    with (
        Checkpointer(Path(workdir) / "checkpoints") as checkpoints,
        stop_signal() as stop,
    ):
        told = functools.partial(metrics_lib.digest, metrics_path)
        state = checkpoints.restore(state, beside=told) or state
        first = int(state.step)
        with (
            MetricsWriter(metrics_path, resume_step=first) as writer,
            Progress(first, num_steps, is_shown=tells) as progress,
        ):
            log = _Log(
                writer,
                progress,
                log_every=log_every,
                num_steps=num_steps,
                evaluate=_on_this_process(evaluate, mesh),
                evaluate_every=evaluate_every,
            )
            for done in range(first + 1, num_steps + 1):
                rows = _with_signal(sharding.load_rows(batches, done - 1), stop.signum)
                batch = sharding.place_batch(rows, mesh)
                state, metrics = compiled_step(state, batch)
                log.finish_pending()
                log.add(done, metrics, state.params)
                signum = stop.signum if jax.process_count() == 1 else log.signum
                if done == num_steps or signum or _is_due(done, checkpoint_every):
                    log.finish_pending()
                    _require_finite(state, finite, done)
                    checkpoints.save(done, state, beside=writer.sync())
                if signum and done < num_steps:
                    raise Interrupted(signum, done)
        if stop.signum and first >= num_steps:
            raise Interrupted(stop.signum, first)
    return state._replace(params=sharding.on_this_process(state.params, mesh))


def _compile(step_fn: StepFn, state: TrainState, mesh: jax.sharding.Mesh) -> StepFn:
    """A jitted step whose state has the types and the placement of the one before.

    So it compiles once, and the buffers of the old state can hold the new one.
    """

    def step(state, batch):
        signals = batch.pop(SIGNAL) if jax.process_count() > 1 else None
        state, metrics = step_fn(state, batch)
        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)
        if signals is not None:
            metrics = {**metrics, SIGNAL: signals.max()}
        return state, metrics

    placed = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(
        step, donate_argnums=0, out_shardings=(placed, sharding.replicated(mesh))
    )


def _with_signal(rows: dict[str, np.ndarray], signum: int | None) -> dict:
    """A batch that tells the other processes of a signal, so that all stop at once."""
    if jax.process_count() == 1:
        return rows
    num_rows = len(next(iter(rows.values())))
    return {**rows, SIGNAL: np.full(num_rows, signum or 0, np.int32)}


def _on_this_process(evaluate, mesh: jax.sharding.Mesh):
    """An evaluation that each process can do without the others."""
    if evaluate is None:
        return None
    return lambda params: evaluate(sharding.on_this_process(params, mesh))


class _Log:
    """Holds the metrics of the newest step until the next one has been dispatched."""

    def __init__(
        self, writer, progress, *, log_every, num_steps, evaluate, evaluate_every
    ):
        self._writer, self._progress = writer, progress
        self._log_every, self._num_steps = log_every, num_steps
        self._evaluate, self._evaluate_every = evaluate, evaluate_every
        self._pending: tuple[int, dict[str, jax.Array], dict[str, float]] | None = None
        self._last_finite = "none before"
        self.signum = 0  # of the signal that a process had before a finished step
        self._start = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array], params: Any) -> None:
        """Takes the metrics of a step that may still be running, and evaluates."""
        due = step == self._num_steps or _is_due(step, self._evaluate_every)
        figures = dict(self._evaluate(params)) if self._evaluate and due else {}
        self._pending = (step, metrics, figures)

    def finish_pending(self) -> None:
        """Fetches, checks and writes the metrics that were held back."""
        if self._pending is None:
            return
        step, metrics, figures = self._pending
        self._pending = None
        values = {k: float(v) for k, v in jax.device_get(metrics).items()} | figures
        self.signum = int(values.pop(SIGNAL, 0))
        if not math.isfinite(values["loss"]):
            raise NonFiniteError(
                f"loss is {values['loss']} at step {step}; last finite metrics: "
                f"{self._last_finite}. Checkpoints before it are kept."
            )
        self._last_finite = f"step {step}, " + ", ".join(
            f"{name} {value:.6g}" for name, value in values.items()
        )
        self._progress.update(step, self._last_finite)
        if step == self._num_steps or figures or _is_due(step, self._log_every):
            seconds = time.perf_counter() - self._start
            self._writer.write(step, **values, elapsed_seconds=round(seconds, 3))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _require_finite(state: TrainState, before: Mapping[str, Any], step: int) -> None:
    """Refuses what was finite in the beginning: Lion hides an infinite momentum."""
    for path, is_finite in finite_leaves(state).items():
        if before.get(path) and not is_finite:
            raise NonFiniteError(
                f"state{path} is not finite after step {step}, with a "
                "finite loss; it is not saved, checkpoints before it are kept."
            )
