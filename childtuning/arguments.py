"""Checks of arguments: one error that names the argument, before any work."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from expkit.arguments import is_concrete, is_real


def require_number(
    name: str, value: Any, allowed: str, is_allowed: Callable[[float], bool]
) -> None:
    """Checks a number of Python, NumPy or JAX; a traced one is unknown and passes.

    Args:
        name: of the argument.
        value: what the caller gave.
        allowed: what it must be, for the message.
        is_allowed: whether a finite value is that.

    Raises:
        ValueError: if it is known and is no real scalar, or one that is not allowed.
    """
    if not is_concrete(value):
        return
    is_scalar = is_real(value) and jnp.shape(value) == ()
    number = float(value) if is_scalar else math.nan
    if not (math.isfinite(number) and is_allowed(number)):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def require_reserve_p(reserve_p: Any) -> None:
    """Checks the fraction to keep.

    Args:
        reserve_p: what the caller gave.

    Raises:
        ValueError: if it is known and no number in (0, 1].
    """
    require_number(
        "reserve_p",
        reserve_p,
        "in (0, 1], the fraction that is kept",
        lambda p: 0.0 < p <= 1.0,
    )


def require_key(key: Any) -> None:
    """Checks that a key is typed, so that a checkpoint knows what it is.

    Args:
        key: what the caller gave.

    Raises:
        ValueError: if it is not one key of `jax.random.key`.
    """
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not is_key or key.shape != ():
        raise ValueError(
            f"key must be one typed key from jax.random.key, got {key!r:.80}."
        )


def require_mask(mask: Any, params: Any) -> None:
    """Checks that a mask has a bool for every entry of the parameters.

    Args:
        mask: what the caller gave.
        params: the parameters; `optax.MaskedNode` in them stands for any subtree.

    Raises:
        ValueError: naming the first leaf that is missing, left over, of another shape
            or not bool.
    """
    leaves, expected = _leaves(mask), _leaves(params)
    for path, param in expected.items():
        if _is_hidden(param):
            continue
        if path not in leaves:
            raise ValueError(
                f"mask has no leaf at {path!r}, where the parameters have one of shape "
                f"{jnp.shape(param)}; make it with fisher_mask or jax.tree.map."
            )
        _require_bools(path, leaves[path], jnp.shape(param))
    # The path of what lies in a hidden subtree continues the path of that subtree.
    inside = tuple(
        path + mark
        for path, param in expected.items()
        if _is_hidden(param)
        for mark in ".["
    )
    for path, leaf in leaves.items():
        is_known = path in expected or path.startswith(inside)
        if not is_known and not _is_hidden(leaf):
            raise ValueError(
                f"mask has a leaf at {path!r}, where the parameters have none."
            )


def _require_bools(path: str, leaf: Any, shape: tuple[int, ...]) -> None:
    """Refuses a leaf of the mask that is not one bool for each parameter."""
    dtype = getattr(leaf, "dtype", type(leaf).__name__)
    is_bool = isinstance(leaf, bool) or dtype == jnp.bool_
    if not is_bool or jnp.shape(leaf) != shape:
        raise ValueError(
            f"mask must hold bools of shape {shape} at {path!r}, got {dtype} of shape "
            f"{jnp.shape(leaf)}."
        )


def _leaves(tree: Any) -> dict[str, Any]:
    """The leaves by path, with those that `optax.masked` hides."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=_is_hidden)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _is_hidden(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)
