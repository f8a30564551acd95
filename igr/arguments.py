"""Checks of arguments: one clear error that names the argument, before any work."""

import operator
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


def is_float(leaf: Any) -> bool:
    """Whether a leaf is an array of real floating-point numbers.

    Args:
        leaf: anything.

    Returns:
        False also for Python numbers.
    """
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def position(argnum: int, num_args: int) -> int:
    """The position that `argnum` means, counted from 0.

    Args:
        argnum: counted from the end if negative.
        num_args: how many positional arguments the call has.

    Returns:
        The position, in [0, num_args).

    Raises:
        ValueError: if there is no such argument.
    """
    if not -num_args <= argnum < num_args:
        raise ValueError(
            f"argnum={argnum} is not among the {num_args} positional arguments of the "
            "call; pass the penalised argument by position."
        )
    return operator.index(argnum) % num_args


def as_floats(argnum: int, tree: Any) -> Any:
    """The penalised argument as arrays.

    Args:
        argnum: its position, for the message.
        tree: pytree of floating-point arrays or Python floats.

    Returns:
        The pytree, with arrays in the place of Python floats.

    Raises:
        TypeError: if a leaf is not floating-point.
    """

    def convert(path, leaf):
        x = jnp.asarray(leaf) if isinstance(leaf, (float, np.floating)) else leaf
        if not is_float(x):
            name = jax.tree_util.keystr(path)
            kind = getattr(x, "dtype", type(x).__name__)
            raise TypeError(
                f"argument {argnum} must hold floating-point arrays, got {kind}"
                f"{f' at {name}' if name else ''}; keep it out of the argument that is "
                "penalised."
            )
        return x

    return jax.tree_util.tree_map_with_path(convert, tree)
