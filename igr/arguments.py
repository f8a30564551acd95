"""Checks of arguments: one clear error that names the argument, before any work."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def require_scalar(
    name: str,
    value: Any,
    allowed: str = "finite",
    is_allowed: Callable[[float], bool] = lambda x: True,
) -> None:
    """Checks a scalar; of a traced one only that it is a scalar.

    Args:
        name: of the argument.
        value: what the caller gave: a number or an array of shape ().
        allowed: what it must be, for the message.
        is_allowed: whether a finite value is that.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it has another shape, is not finite or not allowed.
    """
    if not isinstance(value, jax.core.Tracer):
        dtype = getattr(value, "dtype", None)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_real = dtype is not None and (
            jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
        )
        if not (is_number or is_real):
            raise TypeError(f"{name} must be a real number, got {value!r}.")
    shape = jnp.shape(value)
    if shape != ():
        raise ValueError(f"{name} must be a scalar, got shape {shape}.")
    if isinstance(value, jax.core.Tracer):
        return
    number = float(np.asarray(value))
    if not (np.isfinite(number) and is_allowed(number)):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def require_callable(name: str, value: Any) -> None:
    """Refuses what cannot be called.

    Args:
        name: of the argument.
        value: what the caller gave.

    Raises:
        TypeError: if it is no function.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}.")
