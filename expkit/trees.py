"""Norms and products of pytrees, added up in at least float32."""

from typing import Any

import jax
import jax.numpy as jnp

from expkit.arguments import require_same_shape


def inner_product(a: Any, b: Any) -> jax.Array:
    r"""Sum over all entries of the product of two pytrees.

    .. math:: \langle a, b\rangle = \sum_i a_i b_i.

    Args:
        a: pytree of real floating-point arrays; may be empty.
        b: one of the same structure and shapes.

    Returns:
        Scalar, float32 or wider, whatever the dtypes of the leaves.

    Raises:
        ValueError: if the structures or the shapes differ.

    References:
        `jax.tree.map` defines what equal structures are.
        https://docs.jax.dev/en/latest/pytrees.html
    """

    def multiply(x, y):
        x, y = _wide(x), _wide(y)
        require_same_shape(("a leaf of a", "its twin in b"), x, y)
        return jnp.sum(x * y)

    products = jax.tree.map(multiply, a, b)
    return _total(jax.tree.leaves(products))


def squared_norm(tree: Any) -> jax.Array:
    r"""Sum of the squares of all entries of a pytree.

    .. math:: \|a\|^2 = \sum_i a_i^2.

    Args:
        tree: pytree of real floating-point arrays; may be empty.

    Returns:
        Scalar, float32 or wider, whatever the dtypes of the leaves.

    References:
        `jax.tree.map` defines what the leaves are.
        https://docs.jax.dev/en/latest/pytrees.html
    """
    return _total([jnp.sum(jnp.square(_wide(x))) for x in jax.tree.leaves(tree)])


def add_scaled(tree: Any, scale: jax.typing.ArrayLike, other: Any) -> Any:
    r"""A pytree plus a multiple of another, in the dtypes of the first.

    .. math:: a + s\, b.

    Args:
        tree: pytree of arrays.
        scale: the scalar :math:`s`.
        other: pytree of the same structure and shapes.

    Returns:
        Pytree like `tree`, every leaf in its dtype.

    Raises:
        ValueError: if the structures or the shapes differ.

    References:
        `jax.tree.map` defines what equal structures are.
        https://docs.jax.dev/en/latest/pytrees.html
    """

    def add(x, y):
        dtype, x, y = jnp.result_type(x), _wide(x), _wide(y)
        require_same_shape(("a leaf of tree", "its twin in other"), x, y)
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(x + scale * y, dtype)

    return jax.tree.map(add, tree, other)


def wide_dtype(*arrays: Any) -> Any:
    """The dtype to add up in: float32, or wider where the numbers are.

    Args:
        *arrays: arrays or dtypes, floating-point or complex.

    Returns:
        The dtype.

    References:
        `jax.numpy.promote_types` defines what is wider.
        https://docs.jax.dev/en/latest/jep/9407-type-promotion.html
    """
    with jax.numpy_dtype_promotion("standard"):  # strict refuses to answer
        return jnp.result_type(jnp.float32, *(jnp.result_type(x) for x in arrays))


def _total(sums: list[jax.Array]) -> jax.Array:
    """In the widest dtype of them, also where JAX promotes nothing by itself."""
    with jax.numpy_dtype_promotion("standard"):
        return sum(sums, start=jnp.zeros((), jnp.float32))


def _wide(x: jax.typing.ArrayLike) -> jax.Array:
    return jnp.asarray(x, wide_dtype(x))
