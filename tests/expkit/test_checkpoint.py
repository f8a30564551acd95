"""Checkpoints: the same bits come back, or an error; never other numbers."""

import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import lion
from expkit import locks, sharding
from expkit.checkpoint import SEAL, Checkpointer, CheckpointError


class Carried(NamedTuple):
    count: jax.Array
    trees: Any


def make_state(seed):
    """Everything that a state may hold: see the keys."""
    key = jax.random.key(seed)
    weights = jax.random.normal(key, (3, 2))
    return {
        "params": {"layers": {0: weights, 1: 2 * weights}, "~/odd name": weights[0]},
        "opt_state": optax.adamw(1e-3).init({"w": weights}),
        "named tuple": Carried(jnp.int32(seed), [weights[:, 0], (None, weights[1])]),
        "key": key,
        "keys": jax.random.split(key, 4),
        "rbg key": jax.random.key(seed, impl="rbg"),
        "bfloat16": weights.astype(jnp.bfloat16),
        "float16": weights.astype(jnp.float16),
        "special": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45], jnp.float32),
        "bool": weights > 0,
        "int8": jnp.arange(-4, 4, dtype=jnp.int8),
        "scalar": jnp.float32(seed + 0.1),
        "empty": jnp.zeros((0, 4)),
        "none": None,
        "no leaves": {},
    }


def bits(state):
    """The bytes, shape and dtype of every leaf."""

    def describe(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return [describe(leaf) for leaf in jax.tree.leaves(state)]


def restore(folder, like):
    with Checkpointer(folder) as checkpoints:
        return checkpoints.restore(like)


def save(folder, states, **options):
    with Checkpointer(folder, **options) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the states of seeds 1 and 2 at steps 1 and 2; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    return save(folder, {1: make_state(1), 2: make_state(2)})


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_a_state_comes_back_with_structure_and_bits(saved):
    restored = restore(saved, make_state(0))
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(2))
    assert bits(restored) == bits(make_state(2))
    assert bits(restored) != bits(make_state(1))
    assert isinstance(restored["named tuple"], Carried)
    draws = [jax.random.normal(s["rbg key"]) for s in (restored, make_state(2))]
    assert draws[0] == draws[1]


def test_a_folder_without_checkpoints_restores_nothing(tmp_path):
    assert restore(tmp_path / "none", make_state(0)) is None


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    scramble = jax.jit(lambda x: -x, donate_argnums=0)
    state = {"w": jnp.arange(200_000.0)}
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        for _ in range(3):
            state = {"w": scramble(state["w"])}
        restored = checkpoints.restore(state)
    np.testing.assert_array_equal(restored["w"], np.arange(200_000.0))


@pytest.mark.parametrize("max_to_keep", [1, 3])
def test_only_the_newest_checkpoints_are_kept(tmp_path, max_to_keep):
    states = {step: {"x": jnp.float32(step)} for step in range(1, 6)}
    save(tmp_path, states, max_to_keep=max_to_keep)
    kept = sorted(int(folder.name) for folder in tmp_path.iterdir())
    assert kept == list(range(6 - max_to_keep, 6))


def test_a_step_that_is_saved_already_is_left_alone(tmp_path):
    save(tmp_path, {3: {"x": jnp.float32(1)}})
    save(tmp_path, {3: {"x": jnp.float32(2)}})
    assert restore(tmp_path, {"x": jnp.float32(0)})["x"] == 1


def test_a_checkpoint_of_four_devices_restores_on_one_and_back(tmp_path):
    state = make_state(3)
    four, one = (sharding.make_mesh(spec, 4) for spec in ("data:4", "data:1"))
    save(tmp_path / "a", {1: sharding.place_state(state, four)})
    restored = restore(tmp_path / "a", sharding.place_state(state, one))
    assert all(len(x.sharding.device_set) == 1 for x in jax.tree.leaves(restored))
    save(tmp_path / "b", {1: restored})
    again = restore(tmp_path / "b", sharding.place_state(state, four))
    assert all(len(x.sharding.device_set) == 4 for x in jax.tree.leaves(again))
    assert bits(restored) == bits(again) == bits(state)


def delete(path, rng):
    path.unlink()


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def flip_a_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage", [delete, pytest.param(truncate, marks=pytest.mark.slow), flip_a_bit]
)
def test_damage_to_any_file_gives_the_right_bits_or_the_older_ones(
    saved, tmp_path, damage
):
    rng = np.random.default_rng(0)
    newest, older = bits(make_state(2)), bits(make_state(1))
    files = [path for path in (saved / "2").rglob("*") if path.is_file()]
    outcomes = {}
    for number, path in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        damage(folder / path.relative_to(saved), rng)
        outcomes[path] = bits(restore(folder, make_state(0)))
        assert outcomes[path] in (newest, older)
        # What was set aside does not come back.
        assert bits(restore(folder, make_state(0))) == outcomes[path]
    arrays = [path for path in files if "d" in path.parts]
    assert arrays
    assert all(outcomes[path] == older for path in arrays)


def test_a_damaged_checkpoint_is_set_aside_and_its_step_can_be_saved_again(
    copy, caplog
):
    for _ in range(2):
        (copy / "2" / SEAL).write_text("{")
        with Checkpointer(copy) as checkpoints:
            assert bits(checkpoints.restore(make_state(0))) == bits(make_state(1))
            checkpoints.save(2, make_state(2))
        assert (copy / "2.damaged").is_dir()
        assert bits(restore(copy, make_state(0))) == bits(make_state(2))
    assert "2 is damaged, set aside" in caplog.text


def test_when_none_is_intact_the_error_names_the_folder_and_nothing_is_lost(
    copy, capfd
):
    for file in copy.glob("*/state/d/*"):
        file.write_bytes(b"")
    before = sorted(copy.rglob("*"))
    with pytest.raises(CheckpointError, match="is intact") as caught:
        restore(copy, make_state(0))
    assert str(copy) in str(caught.value)
    assert "[2, 1]" in str(caught.value)
    assert sorted(copy.rglob("*")) == before
    assert "Traceback" not in capfd.readouterr().err


def test_a_write_that_was_cut_is_swept_away(copy):
    shutil.copytree(copy / "2", copy / f"3{ocp.utils.TMP_DIR_SUFFIX}")
    assert bits(restore(copy, make_state(0))) == bits(make_state(2))
    assert sorted(path.name for path in copy.iterdir()) == ["1", "2"]


def test_a_checkpoint_of_another_program_is_refused_and_kept(tmp_path):
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.StandardSave({"w": jnp.ones(3)}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"of another program") as caught:
        restore(tmp_path, {"w": jnp.ones(3)})
    assert str(tmp_path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"a": {"w": jnp.ones(3)}, "b": jnp.ones(2)}, "lacks b"),
        ({"a": {}}, "also holds a/w"),
        ({"a": {"v": jnp.ones(3)}}, "lacks a/v"),
        ({"a": {"w": jnp.ones(4)}}, r"shape \[3\] at a/w, needed \[4\]"),
        ({"a": {"w": jnp.ones((3, 1))}}, r"shape \[3\] at a/w, needed \[3, 1\]"),
        ({"a": {"w": jnp.ones(3, jnp.bfloat16)}}, "dtype float32 at a/w, needed bf"),
        ({"a": {"w": jnp.ones(3, jnp.int32)}}, "dtype float32 at a/w, needed int32"),
    ],
)
def test_a_state_of_another_model_is_refused_naming_the_leaf(
    tmp_path, wanted, expected
):
    save(tmp_path, {1: {"a": {"w": jnp.ones(3)}}})
    with pytest.raises(CheckpointError, match=expected.replace("bf", "bfloat16")):
        restore(tmp_path, wanted)
    assert (tmp_path / "1").is_dir()


def test_another_kind_of_key_is_another_dtype(tmp_path):
    save(tmp_path, {1: {"key": jax.random.key(0)}})
    with pytest.raises(CheckpointError, match=r"key<fry> at key, needed key<rbg>"):
        restore(tmp_path, {"key": jax.random.key(0, impl="rbg")})


def test_leaves_whose_paths_collide_are_refused(tmp_path):
    state = {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}
    with (
        Checkpointer(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="same path"),
    ):
        checkpoints.save(1, state)


@pytest.mark.parametrize("mu_dtype", [None, jnp.bfloat16])
def test_a_state_of_optax_lion_restores_into_ours(tmp_path, mu_dtype):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    theirs = optax.lion(1e-3, mu_dtype=mu_dtype)
    ours = lion.lion(1e-3, mu_dtype=mu_dtype)
    state = theirs.init(params)
    for _ in range(3):
        _, state = theirs.update(jax.tree.map(jnp.cos, params), state, params)
    state = optax.tree.cast_like(state, theirs.init(params))
    save(tmp_path, {3: state})
    restored = restore(tmp_path, ours.init(params))
    assert jax.tree.structure(restored) == jax.tree.structure(ours.init(params))
    assert bits(restored) == bits(state)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(restored))


def test_the_seal_covers_every_file_that_holds_data(saved):
    for step in ("1", "2"):
        sealed = json.loads((saved / step / SEAL).read_text())
        files = [path for path in (saved / step).glob("*/**/*") if path.is_file()]
        assert {str(path.relative_to(saved / step)) for path in files} == set(sealed)
        assert any(name.startswith("state/d/") for name in sealed)


@pytest.mark.parametrize("name", ["a]b", "a b", "{a}", "ü", "~", "$HOME", "#"])
def test_a_checkpoint_in_a_folder_with_an_odd_name_comes_back(tmp_path, name):
    state = make_state(0)
    folder = save(tmp_path / name, {1: state})
    assert bits(restore(folder, make_state(1))) == bits(state)


@pytest.mark.parametrize("name", ["lr=[1]", "a\\b"])
def test_a_folder_where_orbax_loses_checkpoints_is_refused(tmp_path, monkeypatch, name):
    folder, state = tmp_path / name, make_state(0)
    with pytest.raises(OSError, match="in the path Orbax could not read"):
        Checkpointer(folder)
    monkeypatch.setattr(locks, "PATTERN", frozenset())  # what is refused does not work
    save(folder, {1: state})
    with pytest.raises(CheckpointError, match="cannot be read"):
        restore(folder, state)
