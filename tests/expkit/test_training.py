"""A run as its config says: batches, devices, folder, and the loop that gets them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from expkit import config as config_lib
from expkit import jsonfile, loop, metrics, training

ARRAYS = {"x": np.arange(20.0, dtype=np.float32)}
SPLITS = {"train": ARRAYS}
FIELDS = {
    "batch_size": 8,
    "num_steps": 7,
    "seed": 5,
    "mesh": "data:2",
    "log_every": 3,
    "evaluate_every": 4,
    "checkpoint_every": 6,
}
OTHER = "import sys, pathlib; from expkit import locks; " + (
    "sys.exit(locks.acquire(pathlib.Path(sys.argv[1])))"
)


def make_config(**changes):
    return ml_collections.ConfigDict(FIELDS | changes)


def evaluate(params):
    return {"figure": float(params)}


def test_the_loop_gets_what_the_config_says(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(loop, "fit", lambda *args, **options: calls.append(options))
    fit = training.prepare(make_config(), tmp_path / "run", SPLITS, evaluate)
    assert not calls  # no work is done yet
    fit("step", "state")
    (options,) = calls
    batches, mesh = options.pop("batches"), options.pop("mesh")
    assert options == {
        "num_steps": 7,
        "workdir": tmp_path / "run",
        "checkpoint_every": 6,
        "log_every": 3,
        "evaluate": evaluate,
        "evaluate_every": 4,
        "fully_sharded": False,
    }
    assert dict(mesh.shape) == {"data": 2}
    seen = np.concatenate([batches[step]["x"] for step in range(5)])
    # Two epochs of 20 rows in five batches of 8, each row once an epoch.
    np.testing.assert_array_equal(np.sort(seen[:20]), ARRAYS["x"])
    np.testing.assert_array_equal(np.sort(seen[20:]), ARRAYS["x"])
    assert (seen[:20] != seen[20:]).any()


def test_the_order_of_the_rows_is_that_of_the_seed(tmp_path):
    orders = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        config = make_config(seed=seed)
        fit = training.prepare(config, tmp_path / name, SPLITS, evaluate)
        orders.append(fit.keywords["batches"][0]["x"])
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()


def test_a_prepared_run_trains(tmp_path):
    fit = training.prepare(make_config(), tmp_path, SPLITS, evaluate)

    def loss_fn(params, batch, key):  # a step halves the distance to the mean
        del key
        return 0.5 * jnp.mean(jnp.square(params - batch["x"])), {}

    optimizer = optax.sgd(0.5)
    state = loop.init_state(jnp.zeros(()), optimizer, jax.random.key(0))
    state = fit(loop.make_step(loss_fn, optimizer), state)
    expected, figures = 0.0, {}
    for step in range(7):
        mean = fit.keywords["batches"][step]["x"].astype(float).mean()
        expected = 0.5 * (expected + mean)
        figures[step + 1] = expected
    np.testing.assert_allclose(state.params, expected, rtol=1e-6)
    found = metrics.read(tmp_path / "metrics.jsonl")
    assert {3, 4, 6, 7} <= {row["step"] for row in found} < set(range(1, 8))
    evaluated = {row["step"]: row["figure"] for row in found if "figure" in row}
    assert evaluated.keys() == {4, 7}
    for step, value in evaluated.items():
        np.testing.assert_allclose(value, figures[step], rtol=1e-6)
    assert jsonfile.read(tmp_path / "config.json") == FIELDS


def test_the_folder_is_locked_from_then_on(tmp_path):
    def other_process_gets():
        command = [sys.executable, "-c", OTHER, str(tmp_path)]
        return bool(subprocess.run(command, check=False).returncode)

    assert other_process_gets()
    training.prepare(make_config(), tmp_path, SPLITS, evaluate)
    assert not other_process_gets()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": "data:9"}, "mesh='data:9' asks for 9 of 4 device"),
        ({"mesh": "model"}, "mesh='model' is unknown"),
        ({"batch_size": 0}, "batch_size must be .* got 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_used_is_refused_before_there_is_a_folder(
    tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        training.prepare(make_config(**changes), tmp_path / "run", SPLITS, evaluate)
    assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused(tmp_path):
    training.prepare(make_config(), tmp_path, SPLITS, evaluate)
    with pytest.raises(config_lib.ConfigError, match="a run with num_steps=7, not 8"):
        training.prepare(make_config(num_steps=8), tmp_path, SPLITS, evaluate)
    training.prepare(make_config(mesh="data"), tmp_path, SPLITS, evaluate)


def test_a_rerun_with_other_data_is_refused(tmp_path):
    def prepare(train=ARRAYS["x"], validation=ARRAYS["x"][:3]):
        splits = {"train": {"x": train}, "validation": {"x": validation}}
        training.prepare(make_config(), tmp_path, splits, evaluate)

    prepare()
    stored = jsonfile.read(tmp_path / "data.json")
    assert stored.keys() == {"train", "validation"}
    changed = ARRAYS["x"].copy()
    changed[7] += 1
    with pytest.raises(config_lib.ConfigError, match="the training data differ from"):
        prepare(train=changed)
    with pytest.raises(config_lib.ConfigError, match="the validation data differ"):
        prepare(validation=ARRAYS["x"][:4])
    assert jsonfile.read(tmp_path / "data.json") == stored
    prepare(train=ARRAYS["x"].copy())


def test_a_folder_from_before_the_digests_is_gone_on_with(tmp_path):
    training.prepare(make_config(), tmp_path, SPLITS, evaluate)
    (tmp_path / "data.json").unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    training.prepare(make_config(), tmp_path, SPLITS, evaluate)
    assert jsonfile.read(tmp_path / "data.json").keys() == {"train"}


@pytest.mark.parametrize("own", [0, 1])
def test_processes_that_loaded_different_data_are_all_refused(
    tmp_path, monkeypatch, own
):
    said = []

    def gather(number):
        said.append(number)
        return [number, number] if len(said) == 1 else [number, number ^ 1]

    monkeypatch.setattr(training.sharding, "from_all_processes", gather)
    monkeypatch.setattr(training.jax, "process_index", lambda: own)
    with pytest.raises(config_lib.ConfigError, match="2 processes loaded different"):
        training.prepare(make_config(), tmp_path / "run", SPLITS, evaluate)
    assert not (tmp_path / "run").exists()


def test_batches_of_ones_own_are_what_the_loop_gets(tmp_path):
    class Own:
        def __getitem__(self, step):
            return {"x": np.full(8, float(step), np.float32)}

    fit = training.prepare(make_config(), tmp_path, SPLITS, evaluate, batches=Own())

    def loss_fn(params, batch, key):  # the gradient is minus the number of the step
        del key
        return -params * jnp.mean(batch["x"]), {}

    optimizer = optax.sgd(1.0)
    state = loop.init_state(jnp.zeros(()), optimizer, jax.random.key(0))
    state = fit(loop.make_step(loss_fn, optimizer), state)
    np.testing.assert_allclose(state.params, sum(range(7)), rtol=1e-6)
