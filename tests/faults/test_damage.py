"""Damage to what a run keeps: the bits of an undisturbed run, or an error."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import bits, rows

import lion
from expkit import loop
from expkit.checkpoint import SEAL, Checkpointer, CheckpointError

OPTIMIZER = lion.lion(1e-2)
OLDER, NEWER = 4, 6


class Batches:
    """Batches drawn from the step number; `action` happens while one is made."""

    def __init__(self, action=None, at=None, value=None):
        self.asked = []
        self._action, self._at, self._value = action, at, value

    def __getitem__(self, step):
        self.asked.append(step)
        if self._action and step == self._at:
            self._action()
        x = np.random.default_rng([5, step]).normal(size=(4, 3)).astype(np.float32)
        y = x.sum(axis=1)
        if self._value is not None and step == self._at:
            x[1, 2] = self._value
        return {"x": x, "y": y}


def loss_fn(params, batch, key):
    del key
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2), {}


def initial():
    params = {"w": jnp.arange(3.0), "idle": jnp.ones(2)}
    return loop.init_state(params, OPTIMIZER, jax.random.key(2))


def fit(workdir, num_steps=8, batches=None, step=None):
    return loop.fit(
        step or loop.make_step(loss_fn, OPTIMIZER),
        initial(),
        batches or Batches(),
        num_steps=num_steps,
        workdir=workdir,
        checkpoint_every=2,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Bits and rows of eight steps in one go."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    state = fit(workdir)
    return bits(state), rows(workdir)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with six steps, and checkpoints at the fourth and the sixth."""
    workdir = tmp_path_factory.mktemp("stopped")
    fit(workdir, NEWER)
    return workdir


@pytest.fixture
def workdir(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(bytes(content))


def cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


def change_row(workdir: Path, step: int) -> None:
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert f'"step": {step},' in lines[step - 1]
    lines[step - 1] = lines[step - 1].replace('"loss": ', '"loss": 1')
    (workdir / "metrics.jsonl").write_text("".join(lines))


def assert_goes_on_from(step, workdir, undisturbed):
    batches = Batches()
    state = fit(workdir, batches=batches)
    assert batches.asked == list(range(step, 8))
    assert (bits(state), rows(workdir)) == undisturbed


def test_a_changed_late_row_costs_a_checkpoint_but_no_bits(workdir, undisturbed):
    change_row(workdir, 5)
    assert_goes_on_from(OLDER, workdir, undisturbed)
    assert (workdir / "checkpoints" / f"{NEWER}.damaged").is_dir()


def test_a_lost_late_row_costs_a_checkpoint_but_no_bits(workdir, undisturbed):
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:5]) + '{"step": 6, "lo')
    assert_goes_on_from(OLDER, workdir, undisturbed)


def test_rows_after_the_checkpoint_do_not_matter(workdir, undisturbed):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 5.0}\n{"step": 8, "lo')
    assert_goes_on_from(NEWER, workdir, undisturbed)


@pytest.mark.parametrize("damage", [lambda w: change_row(w, 2), None])
def test_changed_or_lost_early_rows_are_refused(workdir, damage):
    if damage:
        damage(workdir)
    else:
        (workdir / "metrics.jsonl").unlink()
    before = sorted(workdir.rglob("*"))
    with pytest.raises(CheckpointError, match=r"rows of metrics\.jsonl .* missing"):
        fit(workdir)
    assert sorted(workdir.rglob("*")) == before


def outcome(folder: Path) -> bytes:
    with Checkpointer(folder) as checkpoints:
        try:
            return b"".join(bits(checkpoints.restore(initial())))
        except CheckpointError:
            return b"refused"


def damages(path: Path, number: int):
    """A cut, or a flipped bit, at the start, in the middle, at the end and between."""
    size = path.stat().st_size
    rng = np.random.default_rng([size, number])
    for at in sorted({0, size // 3, size // 2, size - 1, int(rng.integers(size))}):
        yield lambda file, at=at: cut(file, at)
        yield lambda file, at=at: flip(file, at, int(rng.integers(8)))


def check_damages(stopped, tmp_path, is_chosen):
    """Damages the files of the newest checkpoint, one at a time, and reads it."""
    saved = stopped / "checkpoints"
    with Checkpointer(saved) as checkpoints:
        newest = b"".join(bits(checkpoints.restore(initial())))
    only_older = shutil.copytree(saved, tmp_path / "older")
    shutil.rmtree(only_older / str(NEWER))
    older = outcome(only_older)
    assert b"refused" != older != newest
    files = sorted(f for f in (saved / str(NEWER)).rglob("*") if f.is_file())
    seen = []
    for number, path in enumerate(filter(is_chosen, files)):
        if not path.stat().st_size:
            continue
        for damage in damages(path, number):
            folder = shutil.copytree(saved, tmp_path / "damaged")
            damage(folder / path.relative_to(saved))
            found = outcome(folder)
            # What has a digest is never used. The seal itself may lose a line break.
            is_sealed = path.parent.name != str(NEWER)
            assert found == older if is_sealed else found in (older, newest), path
            shutil.rmtree(folder)
            seen.append((path, found == older))
    return seen


def test_a_damaged_seal_never_gives_other_bits(stopped, tmp_path):
    seen = check_damages(stopped, tmp_path, lambda path: path.name == SEAL)
    assert sum(is_older for _, is_older in seen) >= 5


@pytest.mark.slow
def test_no_damage_to_any_file_gives_other_bits(stopped, tmp_path):
    seen = check_damages(stopped, tmp_path, lambda path: True)
    assert len({path for path, _ in seen}) > 8
    assert any("d" in path.parts for path, _ in seen)
