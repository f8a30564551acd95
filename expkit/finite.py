"""Which arrays of a state are free of nan and infinities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def finite_leaves(tree: Any) -> dict[str, bool]:
    """Tells of each leaf of floats whether all its values are finite.

    Each process looks at what it holds, without a program that spans devices: many of
    those, one a leaf, wait for each other on a CPU. Several processes then agree, so
    all of them must call this with the same tree.

    Args:
        tree: pytree of arrays, on any devices.

    Returns:
        The answers by path, in the notation of `jax.tree_util.keystr`; equal in all
        processes.

    Raises:
        jax.errors.JaxRuntimeError: if a leaf could not be computed, as without memory.
    """
    jax.block_until_ready(tree)  # numpy would abort on an array without memory
    found = {
        jax.tree_util.keystr(path): all(
            _is_finite(shard.data) for shard in leaf.addressable_shards
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    if jax.process_count() > 1 and found:
        everywhere = multihost_utils.process_allgather(np.array([*found.values()]))
        found = dict(zip(found, everywhere.all(axis=0).tolist(), strict=True))
    return found


def _is_finite(part: jax.Array) -> bool:
    """Of an array on one device; one of the host is read without compiling for it."""
    if all(device.platform == "cpu" for device in part.devices()):
        return bool(np.isfinite(np.asarray(part)).all())
    return bool(jnp.isfinite(part).all())
