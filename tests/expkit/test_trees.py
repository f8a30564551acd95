"""Norms and products of pytrees against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import trees


def tree(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "w": jax.random.normal(keys[0], (7, 5)).astype(dtype),
        "b": [jax.random.normal(keys[1], (3000,)).astype(dtype), jnp.ones((), dtype)],
    }


def flat(tree):
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in leaves])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_products_and_norms_are_those_of_numpy_in_float32(dtype):
    a, b = tree(0, dtype), tree(1, dtype)
    product, square = trees.inner_product(a, b), trees.squared_norm(a)
    assert product.dtype == square.dtype == jnp.float32
    scale = np.linalg.norm(flat(a)) * np.linalg.norm(flat(b))
    np.testing.assert_allclose(product, flat(a) @ flat(b), atol=1e-6 * scale)
    np.testing.assert_allclose(square, flat(a) @ flat(a), rtol=1e-6)


def test_the_empty_tree_has_norm_zero():
    assert trees.squared_norm({}) == trees.inner_product([], []) == 0.0


def test_wide_leaves_stay_wide():
    with jax.enable_x64(True):
        a = {"w": jnp.array([1.0, 1e-9])}
        assert trees.squared_norm(a).dtype == jnp.float64
        np.testing.assert_allclose(trees.squared_norm(a) - 1.0, 1e-18, atol=3e-16)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_multiple_is_added_in_the_dtype_of_the_first(dtype):
    a, b = tree(0, dtype), tree(1)
    got = trees.add_scaled(a, jnp.float32(0.25), b)
    assert all(x.dtype == dtype for x in jax.tree.leaves(got))
    tolerance = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(flat(got), flat(a) + 0.25 * flat(b), atol=8 * tolerance)


def test_other_structures_are_refused():
    with pytest.raises(ValueError):
        trees.inner_product({"a": jnp.ones(2)}, {"b": jnp.ones(2)})


def test_sums_are_wide_and_not_wider_than_the_numbers():
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert trees.wide_dtype(dtype) == jnp.float32
        assert trees.wide_dtype(jnp.ones(2, dtype)) == jnp.float32
    with jax.enable_x64(True):
        assert trees.wide_dtype(jnp.ones(2)) == jnp.float64
        assert trees.wide_dtype(jnp.float16, jnp.ones(2)) == jnp.float64


def test_leaves_are_not_broadcast():
    row, column = {"w": jnp.ones((1, 3))}, {"w": jnp.ones((3, 1))}
    for call in (
        lambda: trees.inner_product(row, column),
        lambda: trees.add_scaled(row, 2.0, column),
    ):
        with pytest.raises(
            ValueError, match=r"must have one shape, got \(1, 3\) and \(3, 1\)"
        ):
            call()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_wide_dtype_is_known_under_strict_promotion(dtype):
    with jax.numpy_dtype_promotion("strict"):
        assert trees.wide_dtype(jnp.ones(2, dtype)) == jnp.float32
