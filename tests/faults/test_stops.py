"""Runs that cannot end exact stop with an error that says why."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit import loop
from expkit.metrics import MetricsWriter

STEPS = 8


class Batches:
    """Batches drawn from the step number; `action` happens while one is made."""

    def __init__(self, action=None, at=4):
        self._action, self._at = action, at

    def __getitem__(self, step):
        x = np.random.default_rng([5, step]).normal(size=(4, 3)).astype(np.float32)
        if self._action and step == self._at:
            self._action(x)
        return {"x": x}


def loss_fn(params, batch, key):
    del key
    return jnp.mean((batch["x"] @ params["w"] - 1) ** 2), {}


def broken_gradient(value, at=4):
    """A transformation that puts a value into the gradient of one step."""

    def update(grads, count, params=None):
        del params
        bad = jax.tree.map(lambda g: g.at[0].set(value), grads)
        grads = jax.tree.map(lambda b, g: jnp.where(count == at, b, g), bad, grads)
        return grads, count + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def fit(workdir, batches=None, optimizer=None, step=None, **options):
    optimizer = optimizer or lion.lion(1e-2)
    state = loop.init_state({"w": jnp.arange(3.0)}, optimizer, jax.random.key(2))
    return loop.fit(
        step or loop.make_step(loss_fn, optimizer),
        state,
        batches or Batches(),
        num_steps=STEPS,
        workdir=workdir,
        **options,
    )


def saved_steps(workdir):
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_nan_in_a_batch_stops_at_its_step(tmp_path):
    def spoil(x):
        x[1, 2] = np.nan

    with pytest.raises(loop.NonFiniteError, match="loss is nan at step 5"):
        fit(tmp_path, Batches(spoil), checkpoint_every=2)
    assert saved_steps(tmp_path) == [2, 4]


def test_nan_in_a_gradient_is_not_saved(tmp_path):
    optimizer = optax.chain(broken_gradient(np.nan), lion.lion(1e-2))
    with pytest.raises(loop.NonFiniteError, match=r"w'.* not finite after step 5"):
        fit(tmp_path, optimizer=optimizer, checkpoint_every=1)
    assert saved_steps(tmp_path) == [3, 4]


def test_nan_as_the_loss_stops_at_its_step(tmp_path):
    step_fn = loop.make_step(loss_fn, lion.lion(1e-2))

    def step(state, batch):
        is_due = state.step == 4
        state, metrics = step_fn(state, batch)
        return state, {"loss": jnp.where(is_due, jnp.nan, metrics["loss"])}

    with pytest.raises(loop.NonFiniteError, match="loss is nan at step 5"):
        fit(tmp_path, step=step)


@pytest.mark.parametrize("checkpoint_every", [0, 3])
def test_infinity_that_lion_hides_in_its_momentum_is_found(tmp_path, checkpoint_every):
    optimizer = optax.chain(broken_gradient(np.inf), lion.lion(1e-2))
    # The sign is finite, and so are the parameters and all later losses.
    state = optimizer.init({"w": jnp.arange(3.0)})
    params = {"w": jnp.arange(3.0)}
    for _ in range(STEPS):
        updates, state = optimizer.update({"w": jnp.ones(3)}, state, params)
        params = optax.apply_updates(params, updates)
    assert jnp.isfinite(params["w"]).all()
    assert not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    step = checkpoint_every * 2 or STEPS
    with pytest.raises(
        loop.NonFiniteError, match=rf"opt_state.*mu.* is not finite after step {step}"
    ):
        fit(tmp_path, optimizer=optimizer, checkpoint_every=checkpoint_every)
    assert saved_steps(tmp_path) == ([3] if checkpoint_every else [])


def test_what_an_optimizer_begins_with_may_be_infinite(tmp_path):
    def init(params):
        del params
        return {"best": jnp.float32(jnp.inf)}

    idle = optax.GradientTransformation(init, lambda g, state, params=None: (g, state))
    state = fit(tmp_path, optimizer=optax.chain(idle, lion.lion(1e-2)))
    assert int(state.step) == STEPS
    assert saved_steps(tmp_path) == [STEPS]


def test_metrics_that_are_removed_stop_the_run(tmp_path):
    def remove(x):
        del x
        (tmp_path / "metrics.jsonl").unlink()

    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl was removed"):
        fit(tmp_path, Batches(remove))


def test_a_checkpoint_that_cannot_be_written_is_an_os_error(tmp_path, capfd):
    def block(x):
        del x
        (tmp_path / "checkpoints").rename(tmp_path / "away")
        (tmp_path / "checkpoints").write_text("not a folder")

    with pytest.raises(
        OSError, match=r"cannot write a checkpoint in .*: Not a directory"
    ):
        fit(tmp_path, Batches(block), checkpoint_every=6)
    assert "Traceback" not in capfd.readouterr().err


def test_the_digest_of_a_writer_is_that_of_its_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(1, loss=0.1)
        first = writer.sync()
        writer.write(2, loss=float("nan"))
        second = writer.sync()
    with MetricsWriter(path, resume_step=1) as writer:
        assert writer.sync() == first
        writer.write(2, loss=float("nan"))
        assert writer.sync() == second != first
