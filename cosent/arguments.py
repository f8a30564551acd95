"""Checks of what the functions share: scores, labels, vectors, masks and the scale."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit import arguments


def require_scale(value: Any) -> None:
    """Refuses a factor that is not a positive number.

    Args:
        value: what the caller gave as `scale`; a traced one must be a scalar.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is no scalar, not positive or not finite.
    """
    allowed = "finite and positive (CoSENT uses 20)"
    arguments.require_scalar("scale", value, allowed, lambda x: x > 0.0)


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


def require_vectors(
    u: jax.Array,
    v: jax.Array,
    *,
    is_paired: bool = True,
    names: tuple[str, str] = ("u", "v"),
) -> None:
    """Refuses vectors that cannot be compared.

    Args:
        u: the first, `[..., dim]`.
        v: the second, `[..., dim]`.
        is_paired: whether every axis must agree, or the last one only.
        names: of the arguments.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes do not fit.
    """
    for name, x in zip(names, (u, v), strict=True):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating-point, got {x.dtype}.")
    if is_paired and u.shape == v.shape and u.ndim:
        return
    if not is_paired and u.ndim == v.ndim == 2 and u.shape[1] == v.shape[1]:
        return
    wanted = "one shape [..., dim]" if is_paired else "shapes [m, dim] and [n, dim]"
    raise ValueError(
        f"{names[0]} and {names[1]} must have {wanted}, got {u.shape} and {v.shape}."
    )


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
    mask = arguments.require_mask("where", where)
    arguments.require_shape("where", mask, shape)
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
    if values.dtype != bool and not arguments.is_real(values):
        raise TypeError(f"{name} must be real numbers, got {values.dtype}.")
    is_narrowed = jax.dtypes.canonicalize_dtype(values.dtype) != values.dtype
    if isinstance(values, jax.Array) or not is_narrowed:
        return jnp.asarray(values)
    ranks = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    if np.isnan(values).any():
        return jnp.asarray(np.where(np.isnan(values), np.nan, ranks), jnp.float32)
    return jnp.asarray(ranks, jnp.int32)
