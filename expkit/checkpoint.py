"""Checkpoints of a training state: Orbax, sealed so that damage does not go unnoticed.

Orbax writes atomically and in the background. It restores a flipped bit in an array
without complaint, and leaves tracebacks from its threads when a file is cut. So the
last thing written into a checkpoint is a digest of each of its files, and none is read
unless all match; nor unless the rows of metrics up to its step are those it was saved
with, since a run resumed from it does not write them again. Leaves are stored by path,
with shape and dtype in a manifest: the structure (NamedTuples, empty leaves, integer
keys) comes from the state restored into.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from expkit import jsonfile, locks, sharding
from expkit.messages import one_line

State = TypeVar("State")
Manifest = dict[str, dict[str, Any]]
SEAL = "digests.json"
BESIDE = "beside"  # in the seal: the digest of what is kept outside of the checkpoint

# Orbax reports every step it takes; a reader of our log wants the training. It also
# logs the traceback of each error that it goes on to raise.
logging.getLogger("absl").addFilter(
    lambda record: record.levelno >= logging.WARNING and not record.exc_info
)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: damaged, or of another program or model."""


class Checkpointer:
    """Saves and restores one state under a folder; use it as a context manager.

    Raises:
        OSError: if Orbax could not read what it writes in the folder.
    """

    def __init__(self, directory: str | Path, *, max_to_keep: int = 2):
        self.directory = Path(directory).absolute()
        locks.require_plain_path(self.directory)
        self._being_saved: tuple[int, str] = (0, "")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._open = lambda: ocp.CheckpointManager(self.directory, options=options)
        self._manager = self._open()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            with self._naming_errors():
                self._manager.close()
        except OSError:
            if kind is None:  # otherwise what came first is what went wrong
                raise

    def save(self, step: int, state: Any, *, beside: str = "") -> None:
        """Starts to save, and returns once the state may be donated again.

        Args:
            step: number of updates done; a step that is already saved is left alone.
            state: pytree of arrays and typed PRNG keys.
            beside: digest of what belongs to the state and is kept elsewhere.

        Raises:
            OSError: if this or the checkpoint before cannot be written.
        """
        if step in self._manager.all_steps():
            return
        # A copy, since the writing goes on while the next step reuses the buffers.
        leaves = {path: jnp.copy(leaf) for path, leaf in _named_leaves(state).items()}
        arguments = ocp.args.Composite(
            # Orbax refuses arrays without elements.
            state=ocp.args.StandardSave({k: v for k, v in leaves.items() if v.size}),
            manifest=ocp.args.JsonSave(_manifest(leaves)),
        )
        with self._naming_errors():
            self._manager.wait_until_finished()
            self._being_saved = (step, beside)
            self._manager.save(step, args=arguments)

    def restore(
        self, like: State, *, beside: Callable[[int], str] | None = None
    ) -> State | None:
        """Restores the newest checkpoint that is intact.

        Damaged newer ones are renamed to `<step>.damaged` with a warning, so that the
        run can go on from the older one.

        Args:
            like: a state with the structure, shapes, dtypes and shardings wanted.
            beside: `step -> digest` of what is kept elsewhere, as it is now. Where it
                is not what the checkpoint was saved with, that counts as damage.

        Returns:
            The state, or None if the folder holds no checkpoint.

        Raises:
            CheckpointError: if a checkpoint is of another structure (it names the first
                leaf that differs), or if none is intact.
        """
        self._manager.wait_until_finished()
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            # The first process looks, so that all come to the same end.
            problem = ""
            if jax.process_index() == 0:
                problem = _damage(
                    self.directory / str(step), beside(step) if beside else None
                )
            problem = sharding.from_first_process(problem)
            if problem:
                damaged[step] = problem
                continue
            try:
                state = self._restore_step(step, like)
            except CheckpointError:
                raise
            except Exception as error:  # whole, but not as this program writes it
                reason = one_line(error, 300)
                raise CheckpointError(
                    f"checkpoint {self.directory / str(step)} cannot be read "
                    f"({type(error).__name__}: {reason}); delete it, or use another "
                    "workdir."
                ) from error
            self._set_aside(damaged)
            return state
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.directory} is intact, tried {list(damaged)}: "
                f"{next(iter(damaged.values()))}; delete the folder to start over."
            )
        return None

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Makes the errors of Orbax's threads, of any kind, say what failed."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            number = int(code[1]) if code else getattr(error, "errno", None)
            if number is None and "NOT_FOUND" in str(error):
                number = errno.ENOENT
            # The messages of Orbax go on for lines; the first sentence says enough.
            text = one_line(error).split(". ")[0]
            reason = os.strerror(number) if number else text
            raise OSError(
                f"cannot write a checkpoint in {self.directory}: {reason}"
            ) from error

    def _restore_step(self, step: int, like: State) -> State:
        manifest = self._manager.restore(
            step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore())
        )["manifest"]
        leaves = _named_leaves(like)
        _require_same_leaves(manifest, _manifest(leaves), self.directory / str(step))
        abstract = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for path, leaf in leaves.items()
            if leaf.size
        }
        leaves |= self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )["state"]
        return jax.tree.unflatten(jax.tree.structure(like), leaves.values())

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            folder = self.directory / str(step)
            if jax.process_index():
                continue
            logging.warning("Checkpoint %s is damaged, set aside: %s", folder, reason)
            aside = folder.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        if damaged:
            sharding.from_first_process("")  # all wait until the folders are renamed
            self._manager.close()
            self._manager = self._open()

    def _seal(self) -> None:
        """Called by Orbax when all is written, before it moves the folder in place."""
        step, beside = self._being_saved
        folder = self.directory / f"{step}{ocp.utils.TMP_DIR_SUFFIX}"
        if not folder.is_dir():
            raise CheckpointError(
                f"Orbax does not write in {folder}: its version is not supported."
            )
        seal = _digests(folder) | ({BESIDE: beside} if beside else {})
        jsonfile.write(folder / SEAL, seal)


def _digests(folder: Path) -> dict[str, str]:
    """Digests of the files in the folders of a checkpoint, by relative path."""
    digests = {}
    # What lies beside the folders is Orbax's own and may still change.
    for path in sorted(path for path in folder.glob("*/**/*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests[path.relative_to(folder).as_posix()] = digest
    return digests


def _damage(folder: Path, beside: str | None) -> str:
    """What is wrong with the files of a checkpoint; empty if nothing is."""
    sealed = jsonfile.read(folder / SEAL)
    if not isinstance(sealed, dict):
        return f"{SEAL} is missing, cut, or of another program"
    expected = sealed.pop(BESIDE, None)
    if beside is not None and expected not in (None, beside):
        return "the rows of metrics.jsonl up to it have changed or are missing"
    found = _digests(folder)
    changed = sorted(name for name in sealed if found.get(name) != sealed[name])
    return f"{changed[0]} has changed or is missing" if changed else ""


def _named_leaves(state: Any) -> dict[str, jax.Array]:
    """The leaves in order, by path: `opt_state/0/mu/w`."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }
    if len(named) < len(leaves):
        raise ValueError(f"two leaves have the same path; the paths are {list(named)}.")
    return named


def _manifest(leaves: dict[str, jax.Array]) -> Manifest:
    return {
        path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in leaves.items()
    }


def _require_same_leaves(found: Any, wanted: Manifest, folder: Path) -> None:
    advice = "it is of another model or optimizer; use another workdir."
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder} is not a checkpoint of this program: {advice}")
    for path in sorted(wanted.keys() ^ found.keys()):
        where = "lacks" if path in wanted else "also holds"
        raise CheckpointError(f"checkpoint {folder} {where} {path}: {advice}")
    for path, leaf in wanted.items():
        have = found[path]
        for field in ("shape", "dtype"):
            if have[field] != leaf[field]:
                raise CheckpointError(
                    f"checkpoint {folder} has {field} {have[field]} at {path}, "
                    f"needed {leaf[field]}: {advice}"
                )
