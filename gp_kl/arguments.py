"""Checks of arguments: one clear error that names the argument, before any work."""

import difflib
import operator
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


def require_size(name: str, value: Any) -> int:
    """The value as an integer of at least 1.

    Args:
        name: of the argument.
        value: what the caller gave.

    Returns:
        It as a Python integer.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is below 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if operator.index(value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}.")
    return operator.index(value)


def require_scalar(name: str, value: Any, *, above_zero: bool = False) -> None:
    """Refuses a coefficient that is no finite number of at least 0.

    Args:
        name: of the argument.
        value: what the caller gave; a traced one must be a scalar.
        above_zero: whether 0 is refused too.

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
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}.")
    if not is_concrete(value):
        return
    number = float(np.asarray(value))
    if not 0.0 <= number < np.inf or (above_zero and number == 0.0):
        allowed = "above 0" if above_zero else "at least 0"
        raise ValueError(f"{name} must be finite and {allowed}, got {value!r}.")


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


def require_shape(name: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape: broadcasting would be another loss.

    Args:
        name: of the argument.
        value: the array.
        shape: what it must have.

    Raises:
        ValueError: if the shape differs.
    """
    if value.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {value.shape}.")


def require_mask(name: str, value: jax.typing.ArrayLike) -> jax.Array:
    """The mask as an array.

    Args:
        name: of the argument.
        value: what the caller gave.

    Returns:
        A boolean array.

    Raises:
        TypeError: if it is not boolean.
    """
    mask = jnp.asarray(value)
    if mask.dtype != bool:
        raise TypeError(f"{name} must be boolean, got {mask.dtype}; pass {name} != 0.")
    return mask


def broadcast_mask(
    where: jax.typing.ArrayLike | None, shape: tuple[int, ...]
) -> jax.Array:
    """The mask in the shape of what it selects from.

    Args:
        where: boolean, broadcasts to the shape; None selects everything.
        shape: of the array that is masked.

    Returns:
        A boolean array of that shape.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it does not broadcast to the shape.
    """
    if where is None:
        return jnp.ones(shape, bool)
    mask = require_mask("where", where)
    try:
        return jnp.broadcast_to(mask, shape)
    except ValueError as error:
        raise ValueError(
            f"where must broadcast to the shape {shape}, got {mask.shape}."
        ) from error
