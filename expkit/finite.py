"""Which arrays of a state are free of nan and infinities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def finite_leaves(tree: Any) -> dict[str, bool | jax.Array]:
    """Tells of each leaf of floats whether all its values are finite.

    What lies in the memory of the host is read there, where no program need be compiled
    for each shape; other devices, and other processes, look at their own parts.

    Args:
        tree: pytree of arrays, on any devices.

    Returns:
        The answers by path, in the notation of `jax.tree_util.keystr`.
    """
    return {
        jax.tree_util.keystr(path): _is_finite(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def _is_finite(leaf: jax.Array) -> bool | jax.Array:
    on_host = all(device.platform == "cpu" for device in leaf.devices())
    if on_host and leaf.is_fully_addressable:
        parts = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        return all(bool(np.isfinite(part).all()) for part in parts)
    return jnp.isfinite(leaf).all()
