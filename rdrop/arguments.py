"""Checks of arguments: one clear error that names the argument, before any work."""

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_concrete(value: Any) -> bool:
    """Whether the value is known now, so that it can be checked.

    Args:
        value: number or array.

    Returns:
        False under `jit`, `vmap` and `grad` of it.
    """
    return not isinstance(value, jax.core.Tracer)


def require_alpha(value: Any) -> None:
    """Refuses a coefficient that is negative or no number.

    Args:
        value: what the caller gave as `alpha`; a traced one must be a scalar.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is no scalar, negative or not finite.
    """
    dtype = getattr(value, "dtype", None)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_real = dtype is not None and (
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    )
    if not (is_number or is_real):
        raise TypeError(f"alpha must be a real number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"alpha must be a scalar, got shape {jnp.shape(value)}.")
    if is_concrete(value) and not 0.0 <= float(value) < np.inf:
        raise ValueError(
            f"alpha must be finite and at least 0, got {value!r}; 0 switches the "
            "divergence off."
        )


def require_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuses a name that is not known, and says which is the nearest.

    Args:
        name: of the argument.
        value: what the caller gave.
        known: the names that exist.

    Raises:
        ValueError: for any other.
    """
    known = list(known)
    if isinstance(value, str) and value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.{hint}")


def require_same_shape(names: tuple[str, str], a: jax.Array, b: jax.Array) -> None:
    """Refuses two arrays of different shapes: broadcasting would be another loss.

    Args:
        names: of the arguments.
        a: the first.
        b: the second.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one shape, got {a.shape} and "
            f"{b.shape}."
        )


def require_mask(where: jax.typing.ArrayLike) -> jax.Array:
    """The mask as an array.

    Args:
        where: what the caller gave.

    Returns:
        A boolean array.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it is known to select nothing.
    """
    mask = jnp.asarray(where)
    if mask.dtype != bool:
        raise TypeError(f"where must be boolean, got {mask.dtype}; pass where != 0.")
    if is_concrete(where) and not np.asarray(where).any():
        raise ValueError(
            f"where of shape {mask.shape} selects nothing; leave such a batch out."
        )
    return mask
