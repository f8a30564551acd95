"""Small functions of arrays that several modules need.

`wide_dtype` and `vary_like` are those of `expkit`, which the distributions, like
`lion`, do not need.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def horner(coefficients: tuple[float, ...], p: jax.Array) -> jax.Array:
    """A polynomial.

    Args:
        coefficients: highest first.
        p: where to evaluate it.

    Returns:
        Shape and dtype of `p`.
    """
    total = jnp.full_like(p, coefficients[0])
    for c in coefficients[1:]:
        total = total * p + c
    return total


def secant(z: jax.Array) -> jax.Array:
    """sqrt(1 + z^2), which is z to working precision long before the square overflows.

    Args:
        z: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `z`.
    """
    near = jnp.minimum(z, 2.0**32)
    return jnp.where(z > near, z, jnp.sqrt(1.0 + near * near))


def wide_dtype(dtype: jax.typing.DTypeLike) -> np.dtype:
    """The dtype to compute in: float32, or float64 where the numbers are.

    Args:
        dtype: floating-point.

    Returns:
        What `jnp.promote_types` makes of it and float32, also where promotion is
        strict, which refuses that.
    """
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)


def along(
    fn: Callable[[jax.Array], jax.Array], primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    """Rule for an elementwise function: forward mode, also where it is transposed.

    Reverse mode through a recursion would cost several times more to compile and run.

    Args:
        fn: of one array.
        primals: the array.
        tangents: its tangent.

    Returns:
        What `jax.custom_jvp` asks of a rule.
    """
    (x,), (dx,) = primals, tangents
    value, slope = jax.jvp(fn, (x,), (jnp.ones_like(x),))
    return value, slope * dx


def vary_like(tree: Any, *others: jax.Array) -> Any:
    """Marks arrays as different on the devices that others are different on.

    The state of a loop keeps its type. In `jax.shard_map` that says over which axes of
    the mesh an array varies: what a loop starts with must vary as what it becomes.

    Args:
        tree: arrays.
        *others: arrays that they will be mixed with.

    Returns:
        The same numbers; the same arrays outside of `jax.shard_map`, and in versions of
        JAX without these types.
    """
    axes = frozenset[Any]().union(*(_varying_axes(x) for x in others))

    def cast(x):
        missing = tuple(axes - _varying_axes(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def freely(
    draw: Callable[..., tuple[jax.Array, Any]],
    key: jax.Array,
    *arrays: jax.Array,
    like: jax.Array | None,
    leading: int,
) -> tuple[jax.Array, Any]:
    """Draws, for arrays that may be cut along explicit axes of a mesh.

    With such axes, which `jax.make_mesh` makes by default, JAX refuses the reshapes and
    the loop of a sampler; as in `expkit.explicit`, the compiler places what is in it.

    Args:
        draw: `(key, *arrays) -> (draws, more)`.
        key: typed PRNG key, a scalar.
        *arrays: parameters of the draws.
        like: the one that the draws lie like; None for whole on every device.
        leading: number of axes of the draws before those of `like`.

    Returns:
        `draw(key, *arrays)`, with `more` whole on every device.
    """
    places = [jax.typeof(x).sharding for x in arrays]
    mesh = next((place.mesh for place in places if any(place.spec)), None)
    if mesh is None:
        return draw(key, *arrays)
    spec = [] if like is None else [*[None] * leading, *jax.typeof(like).sharding.spec]
    out = (
        NamedSharding(mesh, PartitionSpec(*spec)),
        NamedSharding(mesh, PartitionSpec()),
    )
    free: Callable[..., Any] = jax.sharding.auto_axes(draw, out_sharding=out)
    return free(key, *arrays)


def _varying_axes(x: jax.Array) -> frozenset[Any]:
    """Of the mesh; an attribute of the type whose name depends on the version."""
    kind = jax.typeof(x)
    kind = getattr(kind, "manual_axis_type", kind)
    axes = getattr(kind, "varying", getattr(kind, "vma", frozenset()))
    return axes if hasattr(jax.lax, "pcast") else frozenset()
