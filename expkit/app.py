"""The command line of every experiment.

`python -m lion.main --config=configs/lion/digits.py:smoke --workdir=out/x` loads the
config, applies `--config.field=value`, trains, and writes `result.json`. Input that
cannot be used costs one line on stderr and exit status 2, before any training.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import flags

try:
    import ml_collections
except ModuleNotFoundError as error:  # the methods are installed without the rest
    print(
        f"The library {error.name!r} is not installed: install the experiments with "
        "`pip install '.[experiments]'` in the repository.",
        file=sys.stderr,
    )
    sys.exit(2)

from expkit import config as config_lib
from expkit import jsonfile
from expkit.checkpoint import CheckpointError
from expkit.config import ConfigError
from expkit.loop import Interrupted, NonFiniteError
from expkit.messages import one_line
from expkit.signals import exit_on_signals
from expkit.streams import keep_going

TrainFn = Callable[[ml_collections.ConfigDict, str], dict[str, float]]

PROCESS_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
DEVICE_VARIABLES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
HEARTBEAT = 30
"""Seconds of silence after which a process counts as lost."""

# Flags defined here belong to the module that calls, so that its --help shows them.
flags.disclaim_key_flags()


def main(run: TrainFn, *, name: str, default_config: str) -> None:
    """Parses the command line, trains, writes and prints the result, exits.

    Args:
        run: `(config, workdir) -> figures`.
        name: how the command is called, for messages: `lion.main`.
        default_config: config file used when `--config` is not given.

    Raises:
        SystemExit: always. Status 0; 1 for a run that broke, also for a loss that is
            not finite; 2 for wrong input; 130, 143 and 129 for Ctrl-C, SIGTERM and a
            terminal that is closed.
    """
    keep_going()
    flags.DEFINE_string(
        "config",
        default_config,
        "Config file, with an optional argument behind a colon: 'smoke' for a run of "
        "seconds, 'field=value', comma-separated. --config.field=value does the same.",
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder for config.json, metrics.jsonl, checkpoints and result.json. A rerun "
        "with the same folder resumes.",
    )
    _ignore_closed_loops()
    # Until `fit` notes signals itself there is nothing to save.
    exit_on_signals(name)
    try:
        if {"--help", "-help", "-h", "--helpfull"} & set(sys.argv[1:]):
            _exit(0, flags.FLAGS.main_module_help())
        config, workdir = _parse(sys.argv)
        if join_processes():
            exit_on_signals(name)  # JAX has taken SIGTERM
        start_devices()
        result = run(config, workdir)
        if _is_first():
            jsonfile.write(Path(workdir) / "result.json", result)
    except (ConfigError, CheckpointError, flags.Error) as error:
        _exit(2, f"{name}: {one_line(error)}")
    except (AttributeError, KeyError) as error:
        field = _missing_field(error)
        if field is None:
            raise
        path = flags.FLAGS.config.partition(":")[0]
        reason = "add it, or use a config of this command"
        _exit(2, f"{name}: config file {path!r} defines no field {field!r}; {reason}.")
    except NonFiniteError as error:
        _exit(1, f"{name}: {error}")
    except Interrupted as error:
        _exit(error.status, f"{name}: stopped at step {error.step}; rerun to resume.")
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        _exit(1, f"{name}: {reason}.")
    except OSError as error:
        print(f"{name}: {error}; rerun to resume.", file=sys.stderr, flush=True)
        os._exit(1)  # threads that still try to write would keep the process alive
    else:
        _exit(0, " ".join(f"{key}={value:.6g}" for key, value in result.items()))


def join_processes() -> bool:
    """Starts `jax.distributed` where the environment says that there are others.

    JAX itself reads `JAX_COORDINATOR_ADDRESS`, host:port of process 0, and asks Slurm
    or Open MPI for the rest; elsewhere `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say it.

    Returns:
        Whether one of the three variables is set.

    Raises:
        ConfigError: if they do not say enough, or the others are not found in time.
    """
    found = {name: os.environ[name] for name in PROCESS_VARIABLES if name in os.environ}
    if not found:
        return False
    numbers = [found.get(name) for name in PROCESS_VARIABLES[1:]]
    said = ", ".join(f"{name}={value}" for name, value in found.items())
    try:
        count, index = (None if text is None else int(text) for text in numbers)
        jax.distributed.initialize(
            num_processes=count, process_id=index, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ConfigError(
            f"cannot join the other processes ({said}): {error}; needed are "
            f"{', '.join(PROCESS_VARIABLES)}."
        ) from error
    return True


def start_devices() -> None:
    """Lets JAX look for its devices, as the environment asks for them.

    Raises:
        ConfigError: if it finds none.
    """
    try:
        jax.devices()
    except Exception as error:  # an AssertionError where there is no CUDA
        said = " and ".join(
            f"{name}={os.environ[name]!r:.60}"
            for name in DEVICE_VARIABLES
            if name in os.environ
        )
        reason = one_line(error, 300).rstrip(".") or type(error).__name__
        raise ConfigError(
            f"JAX finds no devices with {said or 'JAX_PLATFORMS not set'}: {reason}; "
            "unset what is wrong there, or set JAX_PLATFORMS to what this machine has, "
            "such as cpu."
        ) from error


def _ignore_closed_loops() -> None:
    """Lets the threads of a save that failed find its event loop closed in silence.

    TensorStore has nobody to raise that to, and a traceback would be printed beside the
    line that says what failed.
    """
    show = sys.unraisablehook

    def hook(unraisable):
        error = unraisable.exc_value
        if not isinstance(error, RuntimeError) or str(error) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


def _parse(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, str]:
    """Reads the flags, loads the config and applies the overrides."""
    rest, overrides = [], []
    words = iter(argv)
    for word in words:
        field = word.lstrip("-").removeprefix("config.")
        if not word.startswith(("-config.", "--config.")):
            rest.append(word)
        elif "=" in field:
            overrides.append(field.split("=", 1))
        else:
            value = next(words, "--")
            if value.startswith("--"):
                raise ConfigError(f"{word} has no value; write {word}=VALUE.")
            overrides.append([field, value])
    unused = flags.FLAGS(rest)[1:]
    if unused:
        raise ConfigError(f"unexpected argument {unused[0]!r}; flags start with --.")
    if not flags.FLAGS.workdir:
        raise ConfigError("--workdir is missing: the folder that the run writes to.")
    config = config_lib.load(flags.FLAGS.config)
    for field, text in overrides:
        config_lib.override(config, field, text)
    config_lib.check_ranges(config)
    return config, os.path.expanduser(flags.FLAGS.workdir)  # as the paths of data


def _missing_field(error: Exception) -> str | None:
    """The field that a config lacks, or None for an error from elsewhere."""
    *_, last = traceback.walk_tb(error.__traceback__)
    if last[0].f_globals["__name__"] != ml_collections.ConfigDict.__module__:
        return None
    while isinstance(error.args[0], Exception):
        (error,) = error.args
    return str(error.args[0]).split("'")[1]


def _reason(error: Exception) -> str | None:
    """What ended a computation, if not a bug."""
    first = str(error).partition("\n")[0].rstrip(".") or "MemoryError"
    is_full = first.startswith("RESOURCE_EXHAUSTED") or "Out of memory" in first
    if isinstance(error, MemoryError) or is_full:
        return f"{first}; rerun with a smaller model or batch_size in another --workdir"
    if _has_others():
        return f"{first}; if a process was lost, rerun all to resume"
    return None


def _has_others() -> bool:
    """Whether there are other processes; it starts no devices to find out."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _is_first() -> bool:
    """Whether this is the process that tells and writes."""
    return not _has_others() or jax.process_index() == 0


def _exit(status: int, line: str) -> NoReturn:
    """Prints one line, on stderr unless all is well, and exits."""
    is_done = status == 0
    if not is_done or _is_first():
        print(line, file=sys.stderr if status else sys.stdout, flush=True)
    if not is_done and _has_others():
        os._exit(status)  # waiting for the others at the exit would take minutes
    sys.exit(status)
