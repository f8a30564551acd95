"""What the functions of a concentration accept: dtypes, ranges, static orders."""

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from vmf_vae.elementary import wide_dtype

MAX_DIM = 200_000


def elementwise(
    fn: Callable[[float, jax.Array], jax.Array],
    order: float,
    x: jax.typing.ArrayLike,
    *,
    name: str = "concentration",
) -> jax.Array:
    """Applies a function in at least float32, and returns the dtype of the argument.

    Args:
        fn: `(order, x) -> array`, for x >= 0 or nan.
        order: its first argument.
        x: any shape; integers become the default float.
        name: of `x`, for the messages.

    Returns:
        `fn(order, x)`, nan where `x` is negative or not finite.

    Raises:
        ValueError: if an entry of a concrete `x` is negative.
        TypeError: if `x` is complex or no number.
    """
    require_concrete(name, x, "at least 0", lambda x: x < 0)
    x = as_float(name, x)
    return fn(order, where_valid(x.astype(wide_dtype(x.dtype)))).astype(x.dtype)


def where_valid(x: jax.Array) -> jax.Array:
    """Puts nan where a concentration is negative, infinite or nan.

    Args:
        x: any floating-point array.

    Returns:
        Same shape and dtype.
    """
    # A sum, so that the derivative is nan there too.
    return x + jnp.where((x >= 0.0) & (x < jnp.inf), 0.0, jnp.nan).astype(x.dtype)


def align(x: jax.typing.ArrayLike, ndim: int) -> jax.Array:
    """Puts axes of size 1 in front.

    Args:
        x: an array of at most `ndim` axes.
        ndim: axes of the result.

    Returns:
        The same numbers.
    """
    shape = jnp.shape(x)
    return jnp.reshape(x, (1,) * (ndim - len(shape)) + shape)


def as_float(name: str, x: jax.typing.ArrayLike) -> jax.Array:
    """An array of a floating-point dtype; integers become the default float.

    Args:
        name: of `x`, for the message.
        x: any shape.

    Returns:
        Same shape.

    Raises:
        TypeError: if `x` is complex or no number.
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jnp.result_type(float))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be real numbers, got dtype {x.dtype}.")
    return x


def require_concrete(
    name: str,
    x: Any,
    allowed: str,
    is_wrong: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Checks the values of an array that is not traced.

    Args:
        name: of `x`, for the message.
        x: any array, or a number.
        allowed: what is expected, for the message.
        is_wrong: marks the entries that are not allowed.

    Raises:
        ValueError: naming the first entry that is not allowed.
    """
    values = concrete_values(x)
    if values is None:
        return
    if not np.issubdtype(values.dtype, np.integer):
        if values.dtype.kind not in "fV":  # V: bfloat16 and the like
            return
        values = values.astype(np.promote_types(np.float32, values.dtype))
    wrong = values[is_wrong(values)]
    if wrong.size:
        raise ValueError(f"{name} must be {allowed}, got {wrong.flat[0].item()!r}.")


def concrete_values(x: Any) -> np.ndarray | None:
    """The numbers of an argument as they are given, where it is not traced.

    Inside of `jax.jit` what is converted to an array of JAX counts as traced, and the
    conversion may round: an argument is looked at before.

    Args:
        x: any array, a number, or nested sequences of such.

    Returns:
        An array of NumPy; None if a part of `x` is traced.
    """
    x = jnp.asarray(x) if hasattr(type(x), "__jax_array__") else x  # such as Flax's
    is_traced = any(isinstance(part, jax.core.Tracer) for part in jax.tree.leaves(x))
    return None if is_traced else np.asarray(x)


def order_of(dim: int) -> float:
    """The order d/2 - 1 of the Bessel function that normalises on the sphere in R^d.

    Args:
        dim: d, 2 to 200,000.

    Returns:
        A Python float.

    Raises:
        ValueError: if `dim` is out of range. On the line there are two directions, -1
            and 1, and the law is a Bernoulli with logit 2 * concentration.
        TypeError: if `dim` is no Python integer.
    """
    try:
        size = operator.index(dim)
    except TypeError as error:
        raise TypeError(f"dim must be a Python integer, got {dim!r}.") from error
    if not 2 <= size <= MAX_DIM or isinstance(dim, (bool, np.bool)):
        hint = ""
        if size == 1:
            hint = " (two directions: a Bernoulli with logit 2 * concentration)"
        raise ValueError(f"dim must be in [2, {MAX_DIM:,}], got {dim!r}{hint}.")
    return 0.5 * size - 1.0


def check_order(order: float) -> float:
    """The order of a Bessel function as a Python float.

    Args:
        order: at least 0.

    Returns:
        The same number.

    Raises:
        ValueError: if `order` is negative or not finite.
        TypeError: if `order` is traced or no real number.
    """
    if isinstance(order, bool) or not isinstance(order, numbers.Real):
        raise TypeError(f"order must be a Python number (it is static), got {order!r}.")
    if not 0.0 <= order < math.inf:
        raise ValueError(f"order must be finite and at least 0, got {order!r}.")
    return float(order)


def require_directions(name: str, x: jax.typing.ArrayLike) -> jax.Array:
    """An array of unit vectors; the norm is checked where they are not traced.

    Args:
        name: of `x`, for the messages.
        x: [..., d], d from 2 to 200,000.

    Returns:
        The array, floating-point.

    Raises:
        ValueError: if there is no such axis, or a concrete norm differs from 1 by more
            than 1e-3 (3e-2 in half precision).
        TypeError: if `x` is complex or no number.
    """
    array = as_float(name, x)
    if array.ndim == 0:
        raise ValueError(f"{name} must be [..., dim], got a scalar.")
    order_of(array.shape[-1])
    tolerance = 1e-3 if jnp.finfo(array.dtype).bits > 16 else 3e-2
    values = concrete_values(x)
    if values is not None:
        norms = np.linalg.norm(values.astype(np.float64), axis=-1)
        off = np.abs(norms - 1.0)
        if off.size and not off.max() <= tolerance:
            raise ValueError(
                f"{name} must have unit norm, got norm {norms.flat[off.argmax()]:.6g}; "
                "divide it by its norm."
            )
    return array


def shape_of_draws(shape: int | Sequence[int]) -> tuple[Any, ...]:
    """The `shape` argument of a sampler as a tuple.

    Args:
        shape: a size, or sizes; those of an exported function may be symbolic.

    Returns:
        Integers of at least 0.

    Raises:
        ValueError or TypeError: if there is a negative size, or no integer.
    """
    message = f"shape must be integers >= 0, got {shape!r}."
    is_one = not isinstance(shape, Sequence) and getattr(shape, "ndim", 0) == 0
    sizes: Any = (shape,) if is_one else shape
    if not all(hasattr(n, "__index__") or is_symbolic_dim(n) for n in sizes):
        raise TypeError(message)
    if any(not is_symbolic_dim(n) and n < 0 for n in sizes):
        raise ValueError(message)
    return (*(n if is_symbolic_dim(n) else operator.index(n) for n in sizes),)


def require_broadcast(
    mean_direction: jax.Array, concentration: jax.Array
) -> tuple[int, ...]:
    """The shape of the batch that directions and concentrations make.

    Args:
        mean_direction: [..., d].
        concentration: [...].

    Returns:
        The two leading shapes, broadcast.

    Raises:
        ValueError: if they do not broadcast.
    """
    try:
        return np.broadcast_shapes(mean_direction.shape[:-1], concentration.shape)
    except ValueError as error:
        raise ValueError(
            "mean_direction [..., d] and concentration [...] must broadcast, got "
            f"shapes {mean_direction.shape} and {concentration.shape}."
        ) from error


def require_points(x: jax.typing.ArrayLike, dim: int) -> jax.Array:
    """An array of points, of which only the last axis is checked.

    Args:
        x: [..., dim].
        dim: d.

    Returns:
        The array, floating-point.

    Raises:
        ValueError: if `x` has another last axis.
        TypeError: if `x` is complex or no number.
    """
    x = as_float("x", x)
    if x.shape[-1:] != (dim,):
        raise ValueError(f"x must be [..., {dim}], got shape {x.shape}.")
    return x
