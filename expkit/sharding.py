"""Where arrays live: a mesh over the devices, batches split over it, and the state.

The numbers do not depend on the placement, up to the order of floating point sums. With
several processes (`jax.distributed`) each runs the same program, loads its rows of
every batch, and holds the parts of the state that lie on its own devices.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from expkit.config import ConfigError

Tree = TypeVar("Tree")
KINDS = ("data", "fsdp")
SMALLEST_CUT = 1024
"""Entries of the smallest leaf that is worth cutting."""


def make_mesh(spec: str, batch_size: int) -> Mesh:
    """Makes a one-dimensional mesh, over which the batch is split.

    Args:
        spec: `"data"` or `"fsdp"` for all devices, `"data:N"` or `"fsdp:N"` for N of
            them, as many of each process. The mesh is the same for both; see
            `is_fully_sharded`.
        batch_size: the largest number of devices that divides it is used.

    Returns:
        A mesh with one axis called `data`; each process has as many devices in it, and
        they lie side by side.

    Raises:
        ConfigError: if `spec` is something else, asks for more devices than exist, or
            cannot give every process the same number of devices and of rows.
    """
    kind, colon, count = spec.partition(":")
    devices, processes = jax.devices(), jax.process_count()
    if kind not in KINDS or (colon and not count.isdecimal()):
        allowed = ", ".join(f"{name!r}, '{name}:N'" for name in KINDS)
        raise ConfigError(f"mesh={spec!r} is unknown; allowed: {allowed}.")
    wanted = int(count or len(devices))
    if not 1 <= wanted <= len(devices):
        raise ConfigError(
            f"mesh={spec!r} asks for {wanted} of {len(devices)} device(s)."
        )
    for what, number in (("device(s)", wanted), ("rows of a batch", batch_size)):
        if number % processes:
            raise ConfigError(
                f"mesh={spec!r} cannot share {number} {what} evenly between "
                f"{processes} processes; make it a multiple of {processes}."
            )
    size = next(n for n in range(wanted, 0, -processes) if batch_size % n == 0)
    # Auto: the compiler propagates shardings, so code stays free of annotations.
    options = {"axis_types": (AxisType.Auto,)}
    if processes == 1:
        return jax.make_mesh((size,), ("data",), devices=devices[:size], **options)
    return Mesh(_even_share(devices, size, processes), ("data",), **options)


def is_fully_sharded(spec: str) -> bool:
    """Whether a mesh is meant to cut parameters and optimizer state, too.

    Args:
        spec: as `make_mesh` takes it.

    Returns:
        True for `"fsdp"` and `"fsdp:N"`.
    """
    return spec.partition(":")[0] == "fsdp"


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole.

    Args:
        mesh: from `make_mesh`.

    Returns:
        The sharding.
    """
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose leading axis is the batch.

    Args:
        mesh: from `make_mesh`.

    Returns:
        The sharding.
    """
    return NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(state: Tree, mesh: Mesh, *, fully_sharded: bool = False) -> Tree:
    """Sharding of each leaf of a state.

    Args:
        state: any pytree of arrays and typed keys. Where it has a field `params`,
            leaves elsewhere whose path ends in that of a parameter (its moments, its
            packed mask) are cut along the same axis, if the devices divide it there.
        mesh: from `make_mesh`.
        fully_sharded: whether leaves are cut over the devices, along the longest axis
            that their number divides. Keys, leaves of fewer than `SMALLEST_CUT` entries
            and leaves without such an axis stay whole.

    Returns:
        Pytree of shardings; without `fully_sharded`, all leaves are whole.
    """
    if not fully_sharded:
        return jax.tree.map(lambda _: replicated(mesh), state)
    axes = {
        path: (_longest_axis(leaf, mesh.size), jnp.ndim(leaf))
        for path, leaf in jax.tree.leaves_with_path(getattr(state, "params", ()))
    }

    def of_leaf(path, leaf):
        axis = _longest_axis(leaf, mesh.size)
        for start in range(len(path)):
            followed, ndim = axes.get(path[start:], (None, 0))
            if followed is not None and ndim == jnp.ndim(leaf):
                if jnp.shape(leaf)[followed] % mesh.size == 0:
                    axis = followed
                break
        cut = () if axis is None else (*[None] * axis, "data")
        return NamedSharding(mesh, PartitionSpec(*cut))

    return jax.tree.map_with_path(of_leaf, state)


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends a batch of host arrays to the devices.

    Args:
        batch: arrays with the batch as leading axis, divisible by the mesh; with
            several processes, only the rows of this one, as `load_rows` gives them.
        mesh: from `make_mesh`.

    Returns:
        The whole batch on the devices, without waiting for the transfer.
    """
    rows = split_over_batch(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, rows)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
    )


def load_rows(batches: Any, step: int) -> dict[str, np.ndarray]:
    """The rows of a batch that this process sends to its devices.

    Args:
        batches: `batches[step]` is the whole batch; `batches.part(step, index, count)`,
            where it is there, makes only part `index` of `count`.
        step: global step, from 0.

    Returns:
        The whole batch where there is one process, otherwise as many rows for each
        process, in the order of the processes.
    """
    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return batches[step]
    if hasattr(batches, "part"):
        return batches.part(step, index, count)
    return {
        name: array[len(array) // count * index :][: len(array) // count]
        for name, array in batches[step].items()
    }


def place_state(state: Tree, mesh: Mesh, *, fully_sharded: bool = False) -> Tree:
    """Copies a state to the devices of the mesh.

    Args:
        state: any pytree of arrays and typed keys, the same in every process.
        mesh: from `make_mesh`.
        fully_sharded: as in `state_shardings`.

    Returns:
        A copy: donating it leaves the arrays of the caller alone.
    """
    # device_put may keep a buffer that is already in place, hence the copy. The dtype
    # is spelled out, or a weakly typed scalar would make the second step compile again.
    copy = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), state)
    shardings = state_shardings(copy, mesh, fully_sharded=fully_sharded)
    if jax.process_count() == 1:
        return jax.device_put(copy, shardings)
    return jax.tree.map(_place_own_part, copy, shardings)


def on_this_process(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that this process can use without the others.

    Args:
        tree: pytree of arrays on the mesh.
        mesh: from `make_mesh`.

    Returns:
        With several processes, the whole arrays on one device of each; all of them have
        to call. With one process, the arrays as they are.
    """
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(_identity, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)


def from_first_process(text: str) -> str:
    """What the first process says, in all of them.

    Args:
        text: of this process; at most 4000 bytes are sent.

    Returns:
        The text of process 0. All processes have to call; they wait for each other.
    """
    if jax.process_count() == 1:
        return text
    padded = text.encode()[:4000].ljust(4000, b"\0")
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(padded, np.uint8))
    return np.asarray(sent).tobytes().rstrip(b"\0").decode(errors="ignore")


def from_all_processes(number: int) -> list[int]:
    """What every process says, in all of them.

    Args:
        number: of this process, int32.

    Returns:
        The numbers in the order of the processes. All have to call, and wait.
    """
    if jax.process_count() == 1:
        return [number]
    gathered = multihost_utils.process_allgather(np.array([number], np.int32))
    return np.asarray(gathered).reshape(-1).tolist()


def _identity(tree):
    return tree


def _place_own_part(leaf: jax.Array, placement: NamedSharding) -> jax.Array:
    """An array over several processes, of which this one knows all."""
    if _is_key(leaf):
        data = _place_own_part(jax.random.key_data(leaf), placement)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, placement, lambda cut: host[cut])


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _even_share(devices: list[jax.Device], size: int, processes: int) -> np.ndarray:
    """The first `size / processes` devices of each process."""
    chosen = [
        [device for device in devices if device.process_index == process]
        for process in range(processes)
    ]
    each = size // processes
    if min(map(len, chosen)) < each:
        raise ConfigError(
            f"mesh needs {each} devices of each process, which have "
            f"{[len(own) for own in chosen]}."
        )
    return np.array([device for own in chosen for device in own[:each]])


def _longest_axis(leaf: Any, size: int) -> int | None:
    """The axis to cut a leaf along; None for one that stays whole."""
    shape = jnp.shape(leaf)
    axes = [axis for axis, length in enumerate(shape) if length % size == 0]
    if _is_key(leaf) or jnp.size(leaf) < SMALLEST_CUT or not axes:
        return None
    return max(axes, key=lambda axis: shape[axis])
