"""Checks of arguments: one clear error that names the argument, before any work.

    require_scalar("alpha", alpha, "at least 0", lambda x: x >= 0.0)

What is traced is not known yet and passes, so that a function that checks its arguments
can still be jitted, differentiated and given injected hyperparameters.
"""

import difflib
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_concrete(value: Any) -> bool:
    """Whether the value is known now, so that it can be checked.

    Args:
        value: number or array, or a list of such.

    Returns:
        False under `jit`, `vmap` and `grad` of it, or of a part of it.
    """
    # A parameter of Flax holds its array.
    value = jnp.asarray(value) if hasattr(type(value), "__jax_array__") else value
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(value))


def is_real(value: Any) -> bool:
    """Whether it is a real number, or an array of them.

    Args:
        value: anything.

    Returns:
        True for integers and floating-point numbers of Python, NumPy and JAX, of any
        shape; False for bools, complex numbers, keys and everything else.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def require_scalar(
    name: str,
    value: Any,
    allowed: str = "finite",
    is_allowed: Callable[[float], bool] = lambda x: True,
) -> None:
    """Checks a number; of a traced one only that it is a real scalar.

    Args:
        name: of the argument.
        value: what the caller gave: a number or an array of shape ().
        allowed: what it must be, for the message.
        is_allowed: whether a finite value is that.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it has another shape, is not finite or not allowed.
    """
    if not is_real(value):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}.")
    if not is_concrete(value):
        return
    try:
        number = float(np.asarray(value))
    except OverflowError:  # an integer of Python
        number = np.inf
    if not (np.isfinite(number) and is_allowed(number)):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def require_count(
    name: str, value: Any, largest: int | None = None, *, smallest: int = 1
) -> int:
    """The value as an integer of at least 1, or another bound.

    Args:
        name: of the argument.
        value: what the caller gave; shapes depend on it, so it must be known.
        largest: what it may be at most; None: no bound.
        smallest: what it must be at least.

    Returns:
        It as a Python integer.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is out of range.
    """
    if not is_concrete(value):
        raise TypeError(f"{name} must be an integer known in advance, got {value!r}.")
    if isinstance(value, (bool, np.bool)):  # numpy 2.0 lets its own count
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    try:
        count = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}.") from error
    if count < smallest or (largest is not None and count > largest):
        allowed = f"at least {smallest}"
        if largest is not None:
            allowed = f"between {smallest} and {largest}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")
    return count


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


def as_real(name: str, value: Any) -> jax.Array:
    """The value as an array, unless its imaginary part would be lost.

    Args:
        name: of the argument.
        value: what the caller gave.

    Returns:
        It as an array.

    Raises:
        TypeError: if it is complex.
    """
    array = jnp.asarray(value)
    require_real(name, array)
    return array


def require_real(name: str, value: jax.Array | np.ndarray) -> None:
    """Refuses an array whose imaginary part would be lost.

    Args:
        name: of the argument.
        value: the array.

    Raises:
        TypeError: if it is complex.
    """
    if jnp.iscomplexobj(value):
        raise TypeError(f"{name} must be real, got {value.dtype}.")


def as_integers(name: str, value: Any) -> jax.Array:
    """An array of integers, whose values do not change on the way.

    JAX cuts 64-bit integers of the host to 32 bits by default, which makes 2**32 a 0.

    Args:
        name: of the argument.
        value: integers, an array or a nested list.

    Returns:
        The array; what 32 bits cannot hold is the closest that they can.

    Raises:
        TypeError: if they are no integers.
    """
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {value.dtype}.")
    dtype = jax.dtypes.canonicalize_dtype(value.dtype)
    if isinstance(value, np.ndarray) and dtype != value.dtype:
        value = np.clip(value, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return jnp.asarray(value)


def wide_integers(value: jax.Array) -> jax.Array:
    """Integers that can be compared with the number of classes.

    A narrow dtype cannot hold that number, which would wrap to another class.

    Args:
        value: integers.

    Returns:
        The same numbers in 32 bits or more.
    """
    is_narrow = jnp.iinfo(value.dtype).bits < 32
    return value.astype(jnp.int32) if is_narrow else value


def require_floating(name: str, value: jax.Array) -> None:
    """Refuses an array that cannot hold what is computed from it.

    Args:
        name: of the argument.
        value: the array.

    Raises:
        TypeError: if it is not real floating-point.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be real floating-point, got {value.dtype}; use "
            ".astype(jnp.float32)."
        )


def require_shape(name: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape: broadcasting would compute something else.

    Args:
        name: of the argument.
        value: the array.
        shape: what it must have.

    Raises:
        ValueError: if the shape differs.
    """
    if value.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {value.shape}.")


def require_same_shape(names: tuple[str, str], a: jax.Array, b: jax.Array) -> None:
    """Refuses two arrays of different shapes: broadcasting would compute another thing.

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
        where: what the caller gave; None selects everything.
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
