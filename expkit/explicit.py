"""Arrays that lie over a mesh with explicit axes.

With such axes, which `jax.make_mesh` makes by default, JAX refuses an operation whose
outcome could lie over the devices in several ways, such as a sort or a reshape along an
axis that is cut. Inside of `freely` the compiler decides, as it does with automatic
axes.

Inside of `jax.shard_map` arrays are parts of their own on every device or the same on
all, and JAX tells the two apart by type: what a loop starts with must be of the kind
that it ends with (`varying_like`).
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec


def placement(x: Any) -> NamedSharding | None:
    """How an array lies over the explicit axes of a mesh.

    Args:
        x: an array or a tracer; nothing else is cut.

    Returns:
        Its sharding, or None where no axis is cut.
    """
    if not isinstance(x, jax.Array):
        return None
    sharding = jax.typeof(x).sharding
    if all(axes is None for axes in sharding.spec):
        return None
    return NamedSharding(sharding.mesh, sharding.spec)


def whole(x: Any, axes: Collection[str] | None = None) -> Any:
    """An array that is not cut along explicit axes of a mesh.

    Args:
        x: an array or a tracer; anything else is returned.
        axes: names of the axes; None stands for all.

    Returns:
        The same values, on every device along these axes.
    """
    cut = placement(x)
    if cut is None:
        return x
    if axes is None:
        return jax.reshard(x, _on_every_device(cut))
    split = [dim if isinstance(dim, tuple) else (dim,) for dim in cut.spec]
    kept = [tuple(a for a in dim if a and a not in axes) or None for dim in split]
    return jax.reshard(x, NamedSharding(cut.mesh, PartitionSpec(*kept)))


def freely(function: Callable[..., Any], *args: Any, like: Any = None) -> Any:
    """The outcome of a function inside of which the compiler places the arrays.

    Args:
        function: of pytrees.
        *args: its arguments. Where no array in them is cut along an explicit axis, this
            is just `function(*args)`.
        like: the `placement` of the outcome, None for whole on every device; or a
            pytree of these, a prefix of the outcome.

    Returns:
        `function(*args)`.

    References:
        https://docs.jax.dev/en/latest/notebooks/explicit-sharding.html
    """
    leaves, structure = jax.tree.flatten(args)
    cut = next(filter(None, map(placement, leaves)), None)
    if cut is None:
        return function(*args)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def of_arrays(*arrays: jax.Array) -> Any:
        found = dict(zip(places, arrays, strict=True))
        return function(
            *structure.unflatten(found.get(i, leaf) for i, leaf in enumerate(leaves))
        )

    out = jax.tree.map(
        lambda place: place or _on_every_device(cut), like, is_leaf=lambda x: x is None
    )
    free = jax.sharding.auto_axes(of_arrays, out_sharding=out)
    return free(*(leaves[i] for i in places))


def _on_every_device(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, PartitionSpec())


def varying_like(tree: Any, *like: Any) -> Any:
    """Arrays that count as different on the devices where others are.

    Args:
        tree: pytree of arrays.
        *like: pytrees of arrays, of which some may be parts inside of `jax.shard_map`.

    Returns:
        `tree` with the same values, varying over each axis over which one of `like`
        varies; the gradient of a part sums over the devices. `tree` itself elsewhere.

    References:
        `jax.lax.pcast`, and the types of `jax.shard_map`.
        https://docs.jax.dev/en/latest/notebooks/shard_map.html
    """
    axes = _varying_axes(like)

    def cast(x):
        missing = tuple(axes - _varying_axes(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def varies(tree: Any) -> bool:
    """Whether an array may differ from device to device inside of `jax.shard_map`.

    Args:
        tree: pytree of arrays.

    Returns:
        False outside of it.
    """
    return bool(_varying_axes(tree))


def _varying_axes(tree: Any) -> frozenset[str]:
    """Names of the axes of `jax.shard_map` over which an array varies."""
    kinds = (
        getattr(jax.typeof(x), "manual_axis_type", None) for x in jax.tree.leaves(tree)
    )
    return frozenset().union(*(getattr(k, "varying", frozenset()) for k in kinds))
