"""Comparisons of pytrees whose failure names the leaf, the value and the expectation.

`jax.tree.map(np.testing.assert_allclose, ...)` reports neither the leaf nor a
difference in structure. Typed keys are compared by their bits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def assert_trees_close(
    got: Any, expected: Any, what: str, *, rtol: float, atol: float
) -> None:
    """Asserts equal structure and shapes, and values equal up to a tolerance.

    The tolerance is `atol + rtol * |expected|`. NaN equals NaN, and an infinity itself:
    finiteness is another property.

    Args:
        got: pytree of arrays.
        expected: pytree of arrays.
        what: what is compared; the message begins with it.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Raises:
        AssertionError: naming the first leaf, and in it the worst element.
    """
    assert_same_structure(got, expected, what)
    wanted = jax.tree.leaves(expected)
    for (path, value), target in zip(named_leaves(got), wanted, strict=True):
        value, target = to_host(value), to_host(target)
        if value.shape != target.shape:
            raise AssertionError(
                f"{what}, leaf {path}: got shape {value.shape}, "
                f"expected {target.shape}."
            )
        wide = _widest(value, target)
        value, target = value.astype(wide), target.astype(wide)
        if np.allclose(value, target, rtol=rtol, atol=atol, equal_nan=True):
            continue
        raise AssertionError(f"{what}, leaf {path}: {_worst_element(value, target)}")


def assert_trees_equal(got: Any, expected: Any, what: str) -> None:
    """Asserts equal structure, shapes, dtypes and bits (-0.0 differs from 0.0).

    Args:
        got: pytree of arrays.
        expected: pytree of arrays.
        what: what is compared; the message begins with it.

    Raises:
        AssertionError: naming the first leaf that differs.
    """
    assert_same_structure(got, expected, what)
    wanted = jax.tree.leaves(expected)
    for (path, value), target in zip(named_leaves(got), wanted, strict=True):
        value, target = to_host(value), to_host(target)
        for name in ("shape", "dtype"):
            if getattr(value, name) != getattr(target, name):
                raise AssertionError(
                    f"{what}, leaf {path}: got {name} {getattr(value, name)}, "
                    f"expected {getattr(target, name)}."
                )
        if value.tobytes() != target.tobytes():
            raise AssertionError(
                f"{what}, leaf {path}: bits differ: {_worst_element(value, target)}"
            )


def assert_same_structure(got: Any, expected: Any, what: str) -> None:
    """Asserts that two pytrees have the same containers, keys and `None` leaves.

    Args:
        got: any pytree.
        expected: any pytree.
        what: what is compared; the message begins with it.

    Raises:
        AssertionError: with both structures.
    """
    if (mine := jax.tree.structure(got)) != (other := jax.tree.structure(expected)):
        raise AssertionError(f"{what}: got the structure {mine}, expected {other}.")


def assert_tree_finite(tree: Any, what: str) -> None:
    """Asserts that no floating-point leaf holds a NaN or an infinity.

    Args:
        tree: pytree of arrays.
        what: what is examined; the message begins with it.

    Raises:
        AssertionError: naming the first leaf and its first bad value.
    """
    for path, leaf in named_leaves(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        values = to_host(leaf)
        if (bad := ~np.isfinite(values)).any():
            raise AssertionError(
                f"{what}, leaf {path}: got {values[bad][0]} at index "
                f"{_first_index(bad)}, expected finite values."
            )


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Lists the leaves of a tree with their paths.

    Args:
        tree: any pytree.

    Returns:
        `(path, leaf)` pairs, the path as in source code: `['layer'][0]`.
    """
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path) or "(root)", leaf) for path, leaf in leaves]


def to_host(leaf: Any) -> np.ndarray:
    """Copies a leaf to the host.

    Args:
        leaf: array, scalar or typed key.

    Returns:
        A numpy array; for a typed key, its bits.
    """
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _widest(value: np.ndarray, target: np.ndarray) -> type:
    kinds = {value.dtype.kind, target.dtype.kind}
    return np.complex128 if "c" in kinds else np.float64


def _worst_element(value: np.ndarray, target: np.ndarray) -> str:
    wide = _widest(value, target)
    with np.errstate(invalid="ignore"):
        distance = np.abs(value.astype(wide) - target.astype(wide))
    same = (value == target) | ((value != value) & (target != target))
    distance = np.where(np.isnan(distance), np.inf, distance)
    distance = np.where(same, 0.0, distance)
    index = np.unravel_index(np.argmax(distance), distance.shape)
    place = tuple(int(i) for i in index)
    return f"got {value[index]}, expected {target[index]} at index {place}."


def _first_index(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
