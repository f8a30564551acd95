"""The training loop: its arithmetic, rows, compilations, donation and refusals."""

import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit import loop, metrics, sharding
from expkit.checkpoint import Checkpointer, CheckpointError

RATE = 0.1


class Regression:
    """Batches of a linear regression; remembers in which order they were asked for."""

    def __init__(self, on_access=lambda step: None):
        self.asked = []
        self._on_access = on_access

    def __getitem__(self, step):
        self.asked.append(step)
        self._on_access(step)
        rng = np.random.default_rng(step)
        x = rng.normal(size=(8, 3)).astype(np.float32)
        return {"x": x, "y": x @ np.float32([1, -2, 3]) + 0.5}


def squared_loss(params, batch, key):
    del key
    errors = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return 0.5 * jnp.mean(errors**2), {"worst": jnp.abs(errors).max()}


def initial(optimizer=None):
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    return loop.init_state(params, optimizer or optax.sgd(RATE), jax.random.key(0))


class Counted:
    """A step that knows how often it was traced."""

    def __init__(self, step_fn=None):
        self.traces = 0
        self._step_fn = step_fn or loop.make_step(squared_loss, optax.sgd(RATE))

    def __call__(self, state, batch):
        self.traces += 1
        return self._step_fn(state, batch)


def fit(workdir, num_steps, step_fn=None, state=None, batches=None, **options):
    return loop.fit(
        step_fn or Counted(),
        state or initial(),
        batches or Regression(),
        num_steps=num_steps,
        workdir=workdir,
        **options,
    )


def rows(workdir):
    return metrics.read(Path(workdir) / "metrics.jsonl")


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_training_equals_gradient_descent_written_in_numpy(tmp_path):
    state = fit(tmp_path, 20)
    w, b, losses = np.zeros(3), 0.0, []
    for step in range(20):
        batch = Regression()[step]
        errors = batch["x"].astype(np.float64) @ w + b - batch["y"]
        losses.append(0.5 * np.mean(errors**2))
        w = w - RATE * errors @ batch["x"] / 8
        b = b - RATE * errors.mean()
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(state.params["b"], b, rtol=1e-5)
    np.testing.assert_allclose([r["loss"] for r in rows(tmp_path)], losses, rtol=1e-4)
    assert int(state.step) == 20


def test_every_batch_is_asked_for_once_and_in_order(tmp_path):
    batches = Regression()
    fit(tmp_path, 7, batches=batches, checkpoint_every=2)
    assert batches.asked == list(range(7))
    resumed = Regression()
    fit(tmp_path, 10, batches=resumed)
    assert resumed.asked == [7, 8, 9]


@pytest.mark.parametrize("mesh_size", [None, 1, 4])
def test_the_step_compiles_once_whatever_else_goes_on(tmp_path, mesh_size):
    mesh = mesh_size and sharding.make_mesh(f"data:{mesh_size}", 8)
    options = {
        "checkpoint_every": 2,
        "evaluate": lambda params: {"norm": float(optax.tree.norm(params))},
        "evaluate_every": 3,
        "mesh": mesh,
    }
    first, second = Counted(), Counted()
    fit(tmp_path, 7, first, **options)
    fit(tmp_path, 12, second, **options)
    assert (first.traces, second.traces) == (1, 1)


def test_a_step_that_adds_weakly_typed_numbers_to_the_state_compiles_once(tmp_path):
    step_fn = loop.make_step(squared_loss, optax.sgd(RATE))

    def step(state, batch):
        state, figures = step_fn(state, batch)
        return state._replace(extra={"x": jnp.where(state.step > 2, 1.0, 2.0)}), figures

    for number, start in enumerate((jnp.float32(0), jnp.asarray(0.0), 0.0)):
        counted = Counted(step)
        state = initial()._replace(extra={"x": start})
        fit(tmp_path / str(number), 5, counted, state)
        assert counted.traces == 1


def test_the_state_is_donated_but_the_callers_arrays_live_on(tmp_path):
    state, seen = initial(), []

    def evaluate(params):
        seen.append(params["w"])
        return {}

    trained = fit(tmp_path, 3, state=state, evaluate=evaluate, evaluate_every=1)
    np.testing.assert_array_equal(state.params["w"], np.zeros(3))
    assert int(state.step) == 0
    assert [w.is_deleted() for w in seen] == [True, True, False]
    assert not trained.params["w"].is_deleted()


def test_rows_are_those_of_every_nth_step_and_the_last(tmp_path):
    fit(tmp_path, 11, log_every=4)
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 11]
    assert {*rows(tmp_path)[0]} == {"step", "loss", "worst", "elapsed_seconds"}


def test_without_log_every_only_the_last_step_has_a_row(tmp_path):
    fit(tmp_path, 3, log_every=0)
    assert [row["step"] for row in rows(tmp_path)] == [3]


def test_evaluations_join_the_row_of_their_step(tmp_path):
    norms = []

    def evaluate(params):
        norms.append(float(optax.tree.norm(params)))
        return {"norm": norms[-1]}

    final = fit(tmp_path, 7, log_every=4, evaluate=evaluate, evaluate_every=3)
    found = {row["step"]: row.get("norm") for row in rows(tmp_path)}
    assert found == {3: norms[0], 4: None, 6: norms[1], 7: norms[2]}
    assert norms[2] == float(optax.tree.norm(final.params))


def test_the_metrics_of_a_step_are_fetched_after_the_next_is_dispatched(tmp_path):
    written = []
    batches = Regression(lambda step: written.append(len(rows(tmp_path))))
    fit(tmp_path, 6, batches=batches)
    # Asked for batch i, the loop has dispatched steps 1..i and fetched one less.
    assert written == [0, 0, 1, 2, 3, 4]
    assert len(rows(tmp_path)) == 6


@pytest.mark.parametrize("checkpoint_every", [0, 2])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_figures(
    tmp_path, checkpoint_every
):
    def loss_fn(params, batch, key):
        loss, figures = squared_loss(params, batch, key)
        return loss + jnp.where(batch["bad"].any(), jnp.nan, 0.0), figures

    batches = [Regression()[i] | {"bad": np.full(8, i == 5)} for i in range(9)]
    step_fn = loop.make_step(loss_fn, optax.sgd(RATE))
    with pytest.raises(loop.NonFiniteError) as caught:
        fit(tmp_path, 9, step_fn, batches=batches, checkpoint_every=checkpoint_every)
    good = rows(tmp_path)
    assert [row["step"] for row in good] == [1, 2, 3, 4, 5]
    message = str(caught.value)
    assert "loss is nan at step 6; last finite metrics: step 5," in message
    assert f"loss {good[-1]['loss']:.6g}" in message
    assert saved_steps(tmp_path) == ([2, 4] if checkpoint_every else [])
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        restored = checkpoints.restore(initial())
    if checkpoint_every:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(restored.params))


def test_parameters_that_are_not_finite_under_a_finite_loss_are_not_saved(tmp_path):
    step_fn = loop.make_step(squared_loss, optax.sgd(RATE))

    def step(state, batch):
        state, figures = step_fn(state, batch)
        broken = state.params["w"].at[1].set(jnp.inf)
        w = jnp.where(state.step == 3, broken, state.params["w"])
        return state._replace(params=state.params | {"w": w}), figures

    with pytest.raises(
        loop.NonFiniteError, match=r"\['w'\] is not finite after step 3"
    ):
        fit(tmp_path, 5, step, checkpoint_every=1)
    assert saved_steps(tmp_path) == [1, 2]
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    with pytest.raises(loop.NonFiniteError, match="at step 4"):
        fit(tmp_path / "late", 5, step)


def test_a_workdir_of_another_model_is_refused(tmp_path):
    fit(tmp_path, 2)
    adam = optax.adam(RATE)
    with pytest.raises(CheckpointError, match="opt_state"):
        fit(tmp_path, 4, loop.make_step(squared_loss, adam), initial(adam))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_a_finished_run_is_not_trained_again(tmp_path):
    state = fit(tmp_path, 5)
    content = (tmp_path / "metrics.jsonl").read_bytes()
    step_fn, batches = Counted(), Regression()
    again = fit(tmp_path, 5, step_fn, batches=batches)
    assert (step_fn.traces, batches.asked) == (0, [])
    assert (tmp_path / "metrics.jsonl").read_bytes() == content
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)


def test_every_step_has_its_own_key(tmp_path):
    def loss_fn(params, batch, key):
        return squared_loss(params, batch, key)[0], {"draw": jax.random.uniform(key)}

    state = fit(tmp_path, 5, loop.make_step(loss_fn, optax.sgd(RATE)))
    draws = [row["draw"] for row in rows(tmp_path)]
    key = jax.random.key(0)
    expected = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(5)]
    assert draws == [float(draw) for draw in expected]
    assert len(set(draws)) == 5
    assert state.key == key


def test_training_works_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=fit, args=(tmp_path, 3))
    thread.start()
    thread.join()
    assert saved_steps(tmp_path) == [3]
