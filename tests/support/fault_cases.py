"""Faults of a training command: what happens, and what it must say."""

import contextlib
import os
import pwd
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expkit import loop
from expkit.datasets.batches import Batches
from expkit.metrics import MetricsWriter

FULL_DISK = "the disk is full"
ROW = 25  # the row after which things happen; checkpoints are at 10, 20, ...


class Case(NamedTuple):
    """A fault.

    Attributes:
        name: what happens.
        says: a part of the one line on stderr; empty where the run must go on.
        status: how the command that meets the fault exits.
        fault: installs it in the process, before the command begins.
        before: done to the folder first; the run was stopped after row 25 already.
        after: undoes it, before the command is run again.
        recovers: whether the next run ends exactly as an undisturbed one.
    """

    name: str
    says: str
    status: int
    fault: Callable[[Path], object] | None = None
    before: Callable[[Path], object] | None = None
    after: Callable[[Path], object] | None = None
    recovers: bool = True


def after_row(act: Callable[[], object], row: int = ROW) -> None:
    """Does something once, after a row was written."""
    write = MetricsWriter.write

    def counted(self, step, **values):
        write(self, step, **values)
        if step == row:
            act()

    MetricsWriter.write = counted


def send(signum: int) -> Callable[[Path], None]:
    """A fault: the process gets a signal."""
    return lambda workdir: after_row(lambda: os.kill(os.getpid(), signum))


def remove(name: str) -> Callable[[Path], None]:
    """A fault: a part of the folder disappears."""

    def act(workdir):
        gone = workdir.with_name(f"{workdir.name}-gone")
        (workdir / name).resolve().rename(gone)  # the run may be writing there
        while gone.is_dir():
            shutil.rmtree(gone, ignore_errors=True)
        gone.unlink(missing_ok=True)

    return lambda workdir: after_row(lambda: act(workdir))


def limit_files(extra: int) -> Callable[[Path], None]:
    """A fault: no file may grow past the size of the metrics and some bytes."""

    def act(workdir):
        size = (workdir / "metrics.jsonl").stat().st_size + extra
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return lambda workdir: after_row(lambda: act(workdir))


def nobody(workdir: Path) -> None:
    """A fault: the folder belongs to somebody else, who lets us only read."""
    workdir.mkdir(mode=0o555)
    if os.getuid() == 0:
        os.setuid(pwd.getpwnam("nobody").pw_uid)


def fill_disk(workdir: Path) -> None:
    """A fault: another program fills the disk that the folder is on."""

    def act():
        with contextlib.suppress(OSError), (workdir.parent / "filler").open("wb") as f:
            while True:
                f.write(bytes(4096))
                f.flush()

    after_row(act)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a disk of 4 MB; yields False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def batch_of(value: float) -> Callable[[Path], None]:
    """A fault: one number of a batch."""

    def install(workdir):
        get = Batches.__getitem__

        def broken(self, step):
            batch = get(self, step)
            if step == ROW:
                image = np.array(batch["image"], np.float32)
                image.flat[0] = value
                batch = batch | {"image": image}
            return batch

        Batches.__getitem__ = broken

    return install


def gradient_of(value: float) -> Callable[[Path], None]:
    """A fault: one number of the gradient, with an optimizer that keeps its state."""

    def install(workdir):
        make = loop.make_step

        def broken(loss_fn, optimizer):
            due = []

            def update(grads, state, params):
                leaves, structure = jax.tree.flatten(grads)
                bad = leaves[-1].at[(0,) * leaves[-1].ndim].set(value)
                leaves[-1] = jnp.where(due.pop(), bad, leaves[-1])
                grads = jax.tree.unflatten(structure, leaves)
                return optimizer.update(grads, state, params)

            changed = optax.GradientTransformation(optimizer.init, update)
            step_fn = make(loss_fn, changed)

            def step(state, batch):
                due.append(state.step == ROW)
                return step_fn(state, batch)

            return step

        loop.make_step = broken

    return install


def loss_of(value: float) -> Callable[[Path], None]:
    """A fault: the value of the loss."""

    def install(workdir):
        make = loop.make_step

        def broken(loss_fn, optimizer):
            step_fn = make(loss_fn, optimizer)

            def step(state, batch):
                is_due = state.step == ROW
                state, metrics = step_fn(state, batch)
                loss = jnp.where(is_due, value, metrics["loss"])
                return state, metrics | {"loss": loss}

            return step

        loop.make_step = broken

    return install


def half_a_line(workdir: Path) -> None:
    """Damage: what a process leaves that was killed while it wrote a row."""
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 26, "lo')


def change_row(step: int) -> Callable[[Path], None]:
    """Damage: one bit of a digit of the loss in a row."""

    def act(workdir):
        path = workdir / "metrics.jsonl"
        content = bytearray(path.read_bytes())
        start = sum(map(len, content.splitlines(keepends=True)[: step - 1]))
        content[content.index(b"loss", start) + 9] ^= 1
        path.write_bytes(bytes(content))

    return act


def damage_arrays(cut: bool, *steps: int) -> Callable[[Path], None]:
    """Damage: the largest file of checkpoints is cut, or one bit of it is flipped."""

    def act(workdir):
        for step in steps:
            files = (workdir / "checkpoints" / str(step) / "state").rglob("d/*")
            path = max(files, key=lambda file: file.stat().st_size)
            content = bytearray(path.read_bytes())
            middle = len(content) // 2
            content[middle] ^= 16
            path.write_bytes(bytes(content[:middle] if cut else content))

    return act


NOTHING_INTACT = "is intact, tried"
CASES = [
    Case("SIGTERM", "stopped at step", 143, send(signal.SIGTERM)),
    Case("Ctrl-C", "stopped at step", 130, send(signal.SIGINT)),
    Case("a write to the metrics fails", "cannot write", 1, limit_files(10)),
    Case("a write of a checkpoint fails", "cannot write", 1, limit_files(2500)),
    Case(
        "the workdir is read-only",
        "cannot be written",
        2,
        nobody,
        after=lambda workdir: workdir.rmdir(),
    ),
    Case("the workdir is removed", "was removed", 1, remove(".")),
    Case("its checkpoints are removed", "cannot write", 1, remove("checkpoints")),
    Case(
        "its metrics are removed",
        "was removed",
        1,
        remove("metrics.jsonl"),
        recovers=False,
    ),
    Case("NaN in a batch", "loss is nan at step 26", 1, batch_of(np.nan)),
    Case("NaN in a gradient", "loss is nan at step 27", 1, gradient_of(np.nan)),
    Case("infinity in a gradient", "not finite after step 30", 1, gradient_of(np.inf)),
    Case("NaN as the loss", "loss is nan at step 26", 1, loss_of(np.nan)),
    Case("half a line of metrics", "", 0, before=half_a_line),
    Case(
        "a bit of an early row is flipped",
        NOTHING_INTACT,
        2,
        before=change_row(5),
        recovers=False,
    ),
    Case("a bit of a late row is flipped", "", 0, before=change_row(23)),
    Case("a bit of the newest checkpoint", "", 0, before=damage_arrays(False, 26)),
    Case("the newest checkpoint is cut", "", 0, before=damage_arrays(True, 26)),
    Case(
        "a bit of all checkpoints",
        NOTHING_INTACT,
        2,
        before=damage_arrays(False, 20, 26),
        recovers=False,
    ),
]
