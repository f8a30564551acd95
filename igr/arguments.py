"""Checks of functions, and of the argument that is penalised."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, a scalar of NumPy, or converts itself to an array.

    Args:
        leaf: anything.

    Returns:
        False for what only has a dtype, like a scalar type or a module of Flax.
    """
    is_known = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
    return is_known or hasattr(type(leaf), "__jax_array__")


def is_float(leaf: Any) -> bool:
    """Whether a leaf is an array of real floating-point numbers.

    Args:
        leaf: anything.

    Returns:
        False also for Python numbers.
    """
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


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


def require_floating_tree(x: Any) -> None:
    """Refuses what has no gradient.

    Args:
        x: what the caller gave.

    Raises:
        TypeError: if a leaf is not real floating-point.
    """
    for leaf in jax.tree.leaves(x):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"x must be real floating-point, got {dtype}: cast it first, or "
                "perturb its embedding."
            )
