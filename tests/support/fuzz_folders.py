"""Mutated folders of runs: configs, metrics and checkpoints, some sealed anew."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from fuzz_bytes import mutate, pick
from fuzz_check import check_message, snapshot
from training_runs import bits

import lion
from expkit import loop, workdirs
from expkit.checkpoint import BESIDE, SEAL, CheckpointError, _digests
from expkit.config import ConfigError

OPTIMIZER = lion.lion(1e-2)
ENTRIES = ("0", "-5", "007", "99999999999999999999", "x", "5.damaged", "6.tmp", "..5")
JSON = (
    "{}",
    "[]",
    "null",
    "[" * 20_000,
    '{"params/w": 5}',
    '{"params/w": {}}',
    "\udcff",
)


def loss_fn(params, batch, key):
    """Half a squared error."""
    del key
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2), {}


class Batches:
    """Batches drawn from the step number."""

    def __getitem__(self, step):
        x = np.random.default_rng([5, step]).normal(size=(4, 3)).astype(np.float32)
        return {"x": x, "y": x.sum(axis=1)}


STEP = loop.make_step(loss_fn, OPTIMIZER)


def fit(workdir: Path):
    """Six steps with a checkpoint after every second, or what is left of them."""
    config = ml_collections.ConfigDict({"learning_rate": 1e-2, "num_steps": 6})
    return loop.fit(
        STEP,
        loop.init_state({"w": jnp.arange(3.0)}, OPTIMIZER, jax.random.key(2)),
        Batches(),
        num_steps=6,
        workdir=workdirs.prepare(config, workdir),
        checkpoint_every=2,
    )


@functools.cache
def finished():
    """The folder of a run and the bits of its state."""
    folder = tempfile.TemporaryDirectory()
    state = bits(fit(Path(folder.name) / "run"))
    return folder, state


def copy(root: Path) -> Path:
    """A copy of the folder of the run."""
    run = root / "run"
    shutil.copytree(Path(finished()[0].name) / "run", run)
    return run


def folder_case(rng, root):
    """Whatever was changed, the state has the right bits or the run is refused."""
    run, is_sealed_anew = _damaged_copy(rng, root)
    (root / "beside").write_text("kept")
    outside = {k: v for k, v in snapshot(root).items() if not k.startswith("run")}
    try:
        state = fit(run)
    except (ConfigError, CheckpointError) as error:
        check_message(str(error), str(run))
        state = None
    assert outside == {
        k: v for k, v in snapshot(root).items() if not k.startswith("run")
    }
    if state is not None and not is_sealed_anew:
        assert bits(state) == finished()[1]


def _damaged_copy(rng, root):
    run = copy(root)
    checkpoints = run / "checkpoints"
    newest = checkpoints / "6"
    how = rng.integers(5)
    if how == 0:
        path = run / pick(rng, ["config.json", "metrics.jsonl"])
        is_text = rng.random() < 0.5
        content = pick(rng, JSON).encode(errors="surrogateescape")
        path.write_bytes(content if is_text else mutate(rng, path.read_bytes()))
    elif how == 1:
        path = checkpoints / pick(rng, ENTRIES)
        if rng.random() < 0.5:
            shutil.copytree(newest, path)
        else:
            path.write_text("x")
    elif how == 2:
        content = pick(rng, JSON).encode(errors="surrogateescape")
        (newest / SEAL).write_bytes(content)
        return run, True
    else:
        files = sorted(p for p in newest.rglob("*") if p.is_file() and p.name != SEAL)
        path = pick(rng, files)
        content = pick(rng, JSON).encode(errors="surrogateescape")
        is_json = rng.random() < 0.3
        path.write_bytes(content if is_json else mutate(rng, path.read_bytes()))
        if how == 4:
            seal(newest)
            return run, True
        return run, path.parent == newest  # beside the folders, it is Orbax's own
    return run, False


def seal(folder: Path) -> None:
    """What somebody can do who wants a changed checkpoint to be taken."""
    old = json.loads((folder / SEAL).read_text())
    seal = _digests(folder) | {k: v for k, v in old.items() if k == BESIDE}
    (folder / SEAL).write_text(json.dumps(seal))


CASES = {"run folders": folder_case}
