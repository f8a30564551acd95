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


def require_scale(value: Any) -> None:
    """Refuses a factor that is not a positive number.

    Args:
        value: what the caller gave as `scale`; a traced one must be a scalar.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is no scalar, not positive or not finite.
    """
    dtype = getattr(value, "dtype", None)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_real = dtype is not None and (
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    )
    if not (is_number or is_real):
        raise TypeError(f"scale must be a real number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"scale must be a scalar, got shape {jnp.shape(value)}.")
    if is_concrete(value) and not 0.0 < float(value) < np.inf:
        raise ValueError(
            f"scale must be finite and positive, got {value!r}; CoSENT uses 20."
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


def require_count(name: str, value: Any, largest: int | None = None) -> None:
    """Refuses what is not a whole number of at least one.

    Args:
        name: of the argument.
        value: what the caller gave; shapes depend on it, so it must be known.
        largest: what it may be at most; None: no bound.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer known in advance, got {value!r}.")
    if value < 1 or (largest is not None and value > largest):
        allowed = "at least 1" if largest is None else f"between 1 and {largest}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def require_rows(names: tuple[str, str], a: Any, b: Any) -> None:
    """Refuses anything but two vectors of one length, which is at least one.

    Args:
        names: of the arguments.
        a: the first, an array.
        b: the second, an array.

    Raises:
        ValueError: if the shapes are not `[n]` and `[n]`.
    """
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one shape [n] with n >= 1, got "
            f"{a.shape} and {b.shape}; vmap over further axes."
        )


def require_vectors(u: jax.Array, v: jax.Array, *, is_paired: bool = True) -> None:
    """Refuses vectors that cannot be compared.

    Args:
        u: the first, `[..., dim]`.
        v: the second, `[..., dim]`.
        is_paired: whether every axis must agree, or the last one only.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes do not fit.
    """
    for name, x in (("u", u), ("v", v)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating-point, got {x.dtype}.")
    if is_paired and u.shape == v.shape and u.ndim:
        return
    if not is_paired and u.ndim == v.ndim == 2 and u.shape[1] == v.shape[1]:
        return
    wanted = "one shape [..., dim]" if is_paired else "shapes [m, dim] and [n, dim]"
    raise ValueError(f"u and v must have {wanted}, got {u.shape} and {v.shape}.")


def require_mask(where: Any, shape: tuple[int, ...]) -> jax.Array:
    """The mask as an array.

    Args:
        where: what the caller gave.
        shape: of the examples.

    Returns:
        A boolean array of that shape.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it has another shape.
    """
    mask = jnp.asarray(where)
    if mask.dtype != bool:
        raise TypeError(f"where must be boolean, got {mask.dtype}; pass where != 0.")
    if mask.shape != shape:
        raise ValueError(f"where must have the shape {shape}, got {mask.shape}.")
    return mask


def comparable(name: str, values: Any) -> jax.Array:
    """Numbers that are only compared with each other, without rounding them.

    JAX narrows 64-bit numbers to 32 bits by default, which may make two of them equal.
    Where they are still on the host, their ranks stand for them instead.

    Args:
        name: of the argument.
        values: real numbers, an array or a nested list.

    Returns:
        An array in the dtype of the numbers or, where JAX would narrow it, of 0, 1, ...
        in the order of the numbers, with nan for nan.

    Raises:
        TypeError: if they are no real numbers.
    """
    if not isinstance(values, jax.Array):
        values = np.asarray(values)
    if values.dtype != bool and not jnp.issubdtype(values.dtype, jnp.number):
        raise TypeError(f"{name} must be real numbers, got {values.dtype}.")
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be real numbers, got {values.dtype}.")
    is_narrowed = jax.dtypes.canonicalize_dtype(values.dtype) != values.dtype
    if isinstance(values, jax.Array) or not is_narrowed:
        return jnp.asarray(values)
    ranks = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    if np.isnan(values).any():
        return jnp.asarray(np.where(np.isnan(values), np.nan, ranks), jnp.float32)
    return jnp.asarray(ranks, jnp.int32)
