"""Runs that crash or are stopped by a signal end in the bits of one that was not."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import bits, rows

from expkit import loop, sharding

NUM_STEPS = 12
OPTIMIZER = optax.adamw(1e-2)


class CrashError(Exception):
    pass


class Noisy:
    """Batches drawn from the step number; `action` happens while one is made."""

    def __init__(self, at=None, action=None):
        self.asked = []
        self._at, self._action = at, action

    def __getitem__(self, step):
        self.asked.append(step)
        if step == self._at:
            self._action()
        x = np.random.default_rng([7, step]).normal(size=(8, 4)).astype(np.float32)
        return {"x": x, "y": x.sum(axis=1)}


def crash():
    raise CrashError


def loss_fn(params, batch, key):
    """A network with dropout, so that a wrong key changes every later number."""
    hidden = jnp.tanh(batch["x"] @ params["in"])
    keep = jax.random.bernoulli(key, 0.5, hidden.shape)
    out = (hidden * keep) @ params["out"]
    return jnp.mean((out - batch["y"]) ** 2), {"kept": keep.mean()}


def fit(workdir, batches, **options):
    in_key, out_key, run_key = jax.random.split(jax.random.key(3), 3)
    params = {
        "in": jax.random.normal(in_key, (4, 16)),
        "out": jax.random.normal(out_key, (16,)),
    }
    return loop.fit(
        loop.make_step(loss_fn, OPTIMIZER),
        loop.init_state(params, OPTIMIZER, run_key),
        batches,
        num_steps=NUM_STEPS,
        workdir=workdir,
        checkpoint_every=5,
        evaluate=lambda params: {"norm": float(optax.tree.norm(params))},
        evaluate_every=4,
        **options,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    state = fit(workdir, Noisy())
    found = rows(workdir)
    assert [row["step"] for row in found] == list(range(1, NUM_STEPS + 1))
    assert len({row["loss"] for row in found}) == NUM_STEPS
    return bits(state), found


def assert_same_run(workdir, state, uninterrupted):
    expected_bits, expected_rows = uninterrupted
    assert rows(workdir) == expected_rows
    assert bits(state) == expected_bits


@pytest.mark.parametrize(
    "at", [4, 5, 11, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 6))]
)
def test_a_crash_at_any_step_changes_nothing(tmp_path, uninterrupted, at):
    with pytest.raises(CrashError):
        fit(tmp_path, Noisy(at, crash))
    batches = Noisy()
    state = fit(tmp_path, batches)
    assert batches.asked == list(range(at // 5 * 5, NUM_STEPS))
    assert_same_run(tmp_path, state, uninterrupted)


def test_many_crashes_in_a_row_change_nothing(tmp_path, uninterrupted):
    for at in (2, 7, 6, 10):
        with pytest.raises(CrashError):
            fit(tmp_path, Noisy(at, crash))
    assert_same_run(tmp_path, fit(tmp_path, Noisy()), uninterrupted)


@pytest.fixture
def hangup():
    """Gives SIGHUP its old handler back, which is ignored once it has come."""
    handler = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, handler)


@pytest.mark.parametrize(
    ("signum", "status", "at"),
    [
        (signal.SIGTERM, 143, 0),
        (signal.SIGINT, 130, 7),
        (signal.SIGHUP, 129, 7),
        pytest.param(signal.SIGTERM, 143, 7, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, 0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("hangup")
def test_a_signal_saves_the_running_step_and_exits_with_its_number(
    tmp_path, uninterrupted, signum, status, at
):
    with pytest.raises(loop.Interrupted) as caught:
        fit(tmp_path, Noisy(at, lambda: os.kill(os.getpid(), signum)))
    assert caught.value.code == status
    assert caught.value.step == at + 1
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, at + 2))
    batches = Noisy()
    state = fit(tmp_path, batches)
    assert batches.asked == list(range(at + 1, NUM_STEPS))
    assert_same_run(tmp_path, state, uninterrupted)


def test_a_signal_during_the_last_step_finds_the_run_finished(tmp_path, uninterrupted):
    stop = Noisy(NUM_STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert_same_run(tmp_path, fit(tmp_path, stop), uninterrupted)


def test_half_a_line_and_rows_without_checkpoint_are_written_again(
    tmp_path, uninterrupted
):
    with pytest.raises(CrashError):
        fit(tmp_path, Noisy(8, crash))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1.23')
    assert_same_run(tmp_path, fit(tmp_path, Noisy()), uninterrupted)


def test_a_damaged_last_checkpoint_costs_time_but_no_bits(tmp_path, uninterrupted):
    with pytest.raises(CrashError):
        fit(tmp_path, Noisy(11, crash))
    for file in (tmp_path / "checkpoints" / "10" / "state" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    batches = Noisy()
    state = fit(tmp_path, batches)
    assert batches.asked == list(range(5, NUM_STEPS))
    assert_same_run(tmp_path, state, uninterrupted)


def test_a_run_may_go_on_with_other_devices(tmp_path, uninterrupted):
    with pytest.raises(CrashError):
        fit(tmp_path, Noisy(7, crash), mesh=sharding.make_mesh("data:4", 8))
    fit(tmp_path, Noisy(), mesh=sharding.make_mesh("data:2", 8))
    for found, expected in zip(rows(tmp_path), uninterrupted[1], strict=True):
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)
