"""Fully sharded runs: which axis is cut, what a device holds, and that runs go on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import childtuning
import lion
from expkit import app, loop, metrics, sharding
from expkit.config import ConfigError
from expkit.datasets.batches import Batches

SIZES = {"w": (16, 128), "tall": (512, 8), "odd": (63, 33), "bias": (64,)}


class State(NamedTuple):
    params: dict
    opt_state: tuple
    key: jax.Array


def make_params():
    keys = jax.random.split(jax.random.key(1), len(SIZES))
    return {
        name: 0.1 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, SIZES.items(), strict=True)
    }


def make_optimizer(params):
    mask = jax.tree.map(lambda p: p > 0, params)
    return optax.chain(childtuning.child_tuning_d(mask), lion.lion(1e-3))


def specs(tree):
    return jax.tree.map(lambda sharding: sharding.spec, tree)


def test_the_longest_axis_that_the_devices_divide_is_cut_also_in_moments_and_masks():
    params = make_params()
    optimizer = make_optimizer(params)
    state = State(params, optimizer.init(params), jax.random.key(0))
    mesh = sharding.make_mesh("fsdp:4", 8)
    found = sharding.state_shardings(state, mesh, fully_sharded=True)
    expected = {
        "w": PartitionSpec(None, "data"),
        "tall": PartitionSpec("data"),
        "odd": PartitionSpec(),  # four devices divide neither axis
        "bias": PartitionSpec(),  # small
    }
    assert specs(found.params) == expected
    assert found.key.spec == PartitionSpec()
    by_name = {"w": (16, 16), "tall": (512, 1), "odd": (260,), "bias": (8,)}
    packed = state.opt_state[0].mask
    assert {name: leaf.shape for name, leaf in packed.items()} == by_name
    # Of its own shape alone, [16, 16] would be cut along the first axis, and is small.
    assert specs(found.opt_state[0].mask) == expected
    momentum = jax.tree.leaves(found.opt_state[1])
    assert sum(s.spec != PartitionSpec() for s in momentum) == 2


def test_a_mask_whose_bytes_the_devices_do_not_divide_stays_whole():
    state = State({"w": jnp.zeros((63, 24))}, ({"w": jnp.zeros((63, 3), "uint8")},), 0)
    mesh = sharding.make_mesh("fsdp:4", 8)
    found = sharding.state_shardings(state, mesh, fully_sharded=True)
    assert found.params["w"].spec == PartitionSpec(None, "data")
    assert found.opt_state[0]["w"].spec == PartitionSpec()


class Rows:
    """Batches drawn from the step; one of them may fail."""

    def __init__(self, stop=None):
        self._stop = stop

    def __getitem__(self, step):
        if step == self._stop:
            raise InterruptedError
        x = np.random.default_rng([3, step]).normal(size=(16, 16))
        return {"x": x.astype(np.float32)}


def loss_fn(params, batch, key):
    hidden = jnp.tanh(batch["x"] @ params["w"])
    keep = jax.random.bernoulli(key, 0.9, hidden.shape)
    out = jnp.tanh((hidden * keep).reshape(-1, 512) @ params["tall"])
    penalty = jnp.sum(params["odd"] ** 2) + jnp.sum(params["bias"] ** 2)
    return jnp.mean((out - 1.0) ** 2) + 1e-3 * penalty, {}


def fit(workdir, spec, stop=None):
    params = make_params()
    optimizer = make_optimizer(params)
    return loop.fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(params, optimizer, jax.random.key(2)),
        Rows(stop),
        num_steps=12,
        workdir=workdir,
        checkpoint_every=4,
        mesh=sharding.make_mesh(spec, 16),
        fully_sharded=sharding.is_fully_sharded(spec),
    )


def losses(workdir):
    return [row["loss"] for row in metrics.read(workdir / "metrics.jsonl")]


def bytes_on_one_device(state):
    device = jax.devices()[0]
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.opt_state))
        for shard in leaf.addressable_shards
        if shard.device == device
    )


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    return fit(workdir, "data:1"), losses(workdir)


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("four")
    return fit(workdir, "fsdp"), losses(workdir)


def test_a_fully_sharded_run_keeps_its_layout_and_its_losses(four_devices, one_device):
    state, found = four_devices
    one, expected = one_device
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(set(expected)) == 12
    wanted = sharding.state_shardings(
        state, sharding.make_mesh("fsdp", 16), fully_sharded=True
    )
    is_kept = jax.tree.map(
        lambda leaf, w: leaf.sharding.is_equivalent_to(w, leaf.ndim), state, wanted
    )
    assert all(jax.tree.leaves(is_kept))
    masks = [s.opt_state[0].mask for s in (state, one)]
    jax.tree.map(np.testing.assert_array_equal, *masks)


def test_a_device_holds_its_part_of_the_state_and_with_data_all_of_it(
    four_devices, one_device
):
    whole = bytes_on_one_device(one_device[0])
    cut = bytes_on_one_device(four_devices[0])
    control = bytes_on_one_device(
        sharding.place_state(one_device[0], sharding.make_mesh("data:4", 16))
    )
    # "odd" and "bias" stay whole: value, momentum, an eighth of a byte of mask.
    left = sum(8 * n + -(-n // 8) for n in (63 * 33, 64))
    assert cut - left == pytest.approx((whole - left) / 4, abs=16)  # counters
    assert control == whole


def test_the_buffers_of_a_cut_state_are_used_again():
    mesh = sharding.make_mesh("fsdp", 16)
    state = sharding.place_state({"w": jnp.ones((64, 64))}, mesh, fully_sharded=True)
    placed = state["w"].sharding
    step = jax.jit(
        lambda s: {"w": s["w"] + 1}, donate_argnums=0, out_shardings={"w": placed}
    )
    assert step(state)["w"].sharding == placed
    assert state["w"].is_deleted()


def test_a_run_goes_on_under_another_mesh(tmp_path, one_device):
    for spec, stop in (("fsdp:4", 5), ("data:2", 9), ("data:1", None)):
        try:
            fit(tmp_path, spec, stop=stop)
        except InterruptedError:
            assert stop
    np.testing.assert_allclose(losses(tmp_path), one_device[1], rtol=1e-6)


@pytest.mark.parametrize("remainder", ["drop", "wrap", "pad"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_parts_of_a_batch_are_the_batch(remainder, count):
    arrays = {"x": np.arange(20), "y": np.arange(40.0).reshape(20, 2)}
    batches = Batches(arrays, 6, seed=3, remainder=remainder)
    for step in range(9):
        parts = [batches.part(step, index, count) for index in range(count)]
        whole = batches[step]
        assert all(part.keys() == whole.keys() for part in parts)
        for name, array in whole.items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, array)
    with pytest.raises(ValueError, match="multiple of the 4 parts, got 6"):
        batches.part(0, 0, 4)


def test_a_process_loads_its_rows_only(monkeypatch):
    batches = Batches({"x": np.arange(12)}, 12, seed=None)
    expected = {n: batches.part(0, n, 3)["x"].tolist() for n in range(3)}
    assert expected == {0: [0, 1, 2, 3], 1: [4, 5, 6, 7], 2: [8, 9, 10, 11]}
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    for index, rows in expected.items():
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        for source in (batches, {0: batches[0]}):
            assert sharding.load_rows(source, 0)["x"].tolist() == rows


@pytest.mark.parametrize(
    ("spec", "batch_size", "expected"),
    [
        ("fsdp:3", 8, "share 3 device(s) evenly between 2 processes"),
        ("data", 9, "share 9 rows of a batch evenly between 2 processes"),
    ],
)
def test_a_mesh_that_does_not_divide_the_processes_is_refused(
    monkeypatch, spec, batch_size, expected
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError) as caught:
        sharding.make_mesh(spec, batch_size)
    assert expected in str(caught.value)
    assert f"mesh={spec!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS"),
        ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, "JAX_NUM_PROCESSES"),
        (
            {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "two"},
            "JAX_NUM_PROCESSES=two",
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "2",
            },
            "JAX_PROCESS_ID=2",
        ),
    ],
)
def test_variables_that_do_not_say_enough_are_named(monkeypatch, variables, expected):
    for name in app.PROCESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not app.join_processes()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", bool)
    with pytest.raises(ConfigError, match="cannot join the other processes") as caught:
        app.join_processes()
    assert expected in str(caught.value)
