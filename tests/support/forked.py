"""Training commands in forks of one process, which has imported all they need.

A fork skips the seconds of imports, starts JAX by itself, and can be given a fault to
install before the command begins. The parent must never start JAX: threads do not
survive a fork.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

from expkit import app
from lion import train

Fault = Callable[[Path], None]
CONFIG = (
    "configs/lion/digits.py:smoke,dataset=synthetic:8x8x1:10,num_steps=40,dropout=0.2,"
    "checkpoint_every=10,evaluate_every=20,mesh=data:{devices}"
)
CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


class Child:
    """A process that was forked, with what it prints in a pipe."""

    def __init__(self, pid: int, pipe: int):
        self._pid, self._pipe = pid, pipe
        self._printed = b""
        os.set_blocking(pipe, False)

    def wait(self, timeout: float = 300) -> int:
        """The exit status, or minus the number of the signal that killed it."""
        deadline = time.monotonic() + timeout
        pid, status = 0, 0
        while not pid:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                raise TimeoutError(f"no end in {timeout} s: {self.lines()[-3:]}")
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._read()
            time.sleep(0.005)
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)

    def lines(self) -> list[str]:
        """What it printed, without the progress."""
        text = self._printed.decode(errors="replace").replace("\r", "\n")
        return [line for line in text.splitlines() if line and line[0] != "["]

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, 1 << 16):
                self._printed += part


def fork(work: Callable[[], object]) -> Child:
    """Runs a function in a fork."""
    if jax._src.xla_bridge.backends_are_initialized():
        raise RuntimeError("JAX has started; its threads would not survive a fork.")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    status = 1
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        work()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def train_command(
    workdir: Path,
    *,
    fault: Fault | None = None,
    devices: int = 1,
    cache: Path | None = None,
) -> Child:
    """Starts `python -m lion.main` on a small model.

    Args:
        workdir: of the run.
        fault: called with the folder in the new process before the command begins.
        devices: number of virtual CPU devices, over which the batch is split.
        cache: folder in which compiled programs are kept.
    """

    def work():
        jax.config.update("jax_num_cpu_devices", devices)
        if cache:
            jax.config.update("jax_compilation_cache_dir", str(cache))
            for name, value in CACHE.items():
                jax.config.update(name, value)
        config = CONFIG.format(devices=devices)
        sys.argv = ["lion.main", f"--config={config}", f"--workdir={workdir}"]
        if fault:
            fault(workdir)
        app.main(train.run, name="lion.main", default_config="")

    return fork(work)
