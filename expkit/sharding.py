"""Where arrays live: a mesh over the devices, batches split over it, state replicated.

The numbers do not depend on the placement, up to the order of floating point sums.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from expkit.config import ConfigError

Tree = TypeVar("Tree")


def make_mesh(spec: str, batch_size: int) -> Mesh:
    """Makes a one-dimensional data-parallel mesh.

    Args:
        spec: `"data"` for all devices or `"data:N"` for the first N.
        batch_size: the largest number of devices that divides it is used.

    Returns:
        A mesh with one axis called `data`.

    Raises:
        ConfigError: if `spec` is something else or asks for more devices than exist.
    """
    kind, _, count = spec.partition(":")
    available = jax.device_count()
    if kind != "data" or (count and not count.isdecimal()):
        raise ConfigError(f"mesh={spec!r} is unknown; allowed: 'data', 'data:N'.")
    wanted = int(count or available)
    if not 1 <= wanted <= available:
        raise ConfigError(f"mesh={spec!r} asks for {wanted} of {available} device(s).")
    size = next(n for n in range(wanted, 0, -1) if batch_size % n == 0)
    # Auto: the compiler propagates shardings, so code stays free of annotations.
    return jax.make_mesh(
        (size,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:size]
    )


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


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Sends a batch of host arrays to the devices.

    Args:
        batch: arrays with the batch as leading axis, divisible by the mesh.
        mesh: from `make_mesh`.

    Returns:
        The same arrays on the devices, without waiting for the transfer.
    """
    return jax.device_put(batch, split_over_batch(mesh))


def place_state(state: Tree, mesh: Mesh) -> Tree:
    """Copies a state to every device of the mesh.

    Args:
        state: any pytree of arrays and typed keys.
        mesh: from `make_mesh`.

    Returns:
        A copy: donating it leaves the arrays of the caller alone.
    """
    # device_put may keep a buffer that is already in place, hence the copy. The dtype
    # is spelled out, or a weakly typed scalar would make the second step compile again.
    copy = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), state)
    return jax.device_put(copy, replicated(mesh))
