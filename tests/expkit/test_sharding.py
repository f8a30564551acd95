"""Placement: how many devices, what lies where, and that it does not change numbers."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit import loop, metrics, nets, sharding
from expkit.config import ConfigError

ALLOWED = "allowed: 'data', 'data:N', 'fsdp', 'fsdp:N'"


@pytest.mark.parametrize("spec", ["data", "data:1", "data:2", "data:3", "data:4"])
@pytest.mark.parametrize("kind", ["data", "fsdp"])
def test_the_largest_number_of_devices_that_divides_the_batch_is_used(spec, kind):
    assert jax.device_count() == 4
    spec = spec.replace("data", kind)
    assert sharding.is_fully_sharded(spec) == (kind == "fsdp")
    wanted = int(spec.partition(":")[2] or 4)
    for batch_size in range(1, 50):
        mesh = sharding.make_mesh(spec, batch_size)
        divisors = [n for n in range(1, wanted + 1) if batch_size % n == 0]
        assert mesh.size == max(divisors)
        assert mesh.axis_names == ("data",)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("model", ALLOWED),
        ("", ALLOWED),
        ("data:two", ALLOWED),
        ("data:-1", ALLOWED),
        ("data:1.5", ALLOWED),
        ("data:", ALLOWED),
        ("fsdp:", ALLOWED),
        ("fsdp2", ALLOWED),
        ("fsdp:0", "asks for 0 of 4 device"),
        ("fsdp:5", "asks for 5 of 4 device"),
        ("data:0", "asks for 0 of 4 device"),
        ("data:5", "asks for 5 of 4 device"),
    ],
)
def test_a_mesh_that_cannot_be_made_names_what_was_received(spec, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        sharding.make_mesh(spec, 8)
    assert f"mesh={spec!r}" in str(caught.value)


def test_a_batch_is_split_in_order_and_a_state_lies_whole_on_every_device():
    mesh = sharding.make_mesh("data", 8)
    x = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    batch = sharding.place_batch({"x": x}, mesh)
    for shard in batch["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, x[shard.index])
        assert shard.data.shape == (2, 3)
    state = sharding.place_state({"w": x, "key": jax.random.key(0)}, mesh)
    assert len(state["w"].addressable_shards) == 4
    for shard in state["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, x)
    assert state["key"] == jax.random.key(0)


@pytest.mark.parametrize("spec", ["data:1", "data:4"])
def test_a_placed_state_may_be_donated_without_harm_to_its_source(spec):
    source = {"w": jnp.arange(5.0), "key": jax.random.key(1), "n": jnp.int32(3)}
    placed = sharding.place_state(source, sharding.make_mesh(spec, 4))
    jax.jit(lambda tree: tree, donate_argnums=0)(placed)
    np.testing.assert_array_equal(source["w"], np.arange(5.0))
    assert source["key"] == jax.random.key(1)
    assert source["n"] == 3


def test_placing_keeps_dtypes_and_drops_weak_types():
    source = {"weak": jnp.asarray(1.0), "half": jnp.ones(2, jnp.bfloat16), "float": 2.0}
    assert source["weak"].weak_type
    placed = sharding.place_state(source, sharding.make_mesh("data", 4))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(placed))
    assert [str(placed[name].dtype) for name in source] == [
        "float32",
        "bfloat16",
        "float32",
    ]


class Images:
    """Batches of noise with labels that a small network can learn."""

    def __getitem__(self, step):
        rng = np.random.default_rng([5, step])
        x = rng.normal(size=(64, 16)).astype(np.float32)
        return {"x": x, "label": x[:, :4].argmax(axis=1)}


def losses_and_state(workdir, mesh):
    net = nets.mlp((16,), (32,), 4, dropout=0.1)
    optimizer = lion.lion(1e-3, weight_decay=0.1)

    def loss_fn(params, batch, key):
        logits = net.apply(params, batch["x"], key)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return loss.mean(), {}

    key = jax.random.key(0)
    state = loop.fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(jax.jit(net.init)(key), optimizer, key),
        Images(),
        num_steps=50,
        workdir=workdir,
        mesh=mesh,
    )
    return [row["loss"] for row in metrics.read(workdir / "metrics.jsonl")], state


def test_one_device_and_four_give_the_same_first_losses(tmp_path):
    meshes = {size: sharding.make_mesh(f"data:{size}", 64) for size in (1, 4)}
    one, state_1 = losses_and_state(tmp_path / "1", meshes[1])
    four, state_4 = losses_and_state(tmp_path / "4", meshes[4])
    np.testing.assert_allclose(four, one, rtol=1e-5)
    assert one[-1] < 0.9 * one[0]
    devices = [
        {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.params)}
        for state in (state_1, state_4)
    ]
    assert devices == [{1}, {4}]


@pytest.mark.slow
def test_one_device_and_eight_give_the_same_first_losses(tmp_path, repository_root):
    config = (
        "configs/lion/digits.py:smoke,dataset=synthetic:8x8x1:10,num_steps=50,"
        "checkpoint_every=0,evaluate_every=0"
    )
    flags = {"1": "", "8": "--xla_force_host_platform_device_count=8"}
    for count, xla_flags in flags.items():
        command = [sys.executable, "-m", "lion.main", f"--config={config}"]
        subprocess.run(
            [*command, f"--workdir={tmp_path / count}"],
            cwd=repository_root,
            env=os.environ | {"XLA_FLAGS": xla_flags},
            check=True,
        )
    one, eight = (
        [row["loss"] for row in metrics.read(tmp_path / count / "metrics.jsonl")]
        for count in flags
    )
    assert len(one) == 50
    assert one != eight  # or both ran on the same number of devices
    np.testing.assert_allclose(eight, one, rtol=1e-5)
