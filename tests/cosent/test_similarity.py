"""Cosines: right at any length, defined and flat where a vector is zero."""

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from cosent import cosine_matrix, pairwise_cosine, unit_vectors
from expkit import testing

RNG = np.random.default_rng(0)
U = RNG.normal(size=(5, 3)).astype(np.float32)
V = RNG.normal(size=(5, 3)).astype(np.float32)

CHECKS = testing.loss_checks(pairwise_cosine, (U, V), argnums=(0, 1), second_order=True)
SLOW = ("second_derivative_matches_finite_differences",)


@pytest.mark.parametrize("check", conformance.cases(CHECKS, slow=SLOW))
def test_the_cosine_conforms(check):
    check()


def test_cosines_are_those_of_scipy():
    table = 1.0 - distance.cdist(U.astype(float), V.astype(float), "cosine")
    np.testing.assert_allclose(cosine_matrix(U, V), table, atol=3e-7)
    np.testing.assert_allclose(pairwise_cosine(U, V), np.diag(table), atol=3e-7)
    np.testing.assert_allclose(cosine_matrix(U[:2], V).shape, (2, 5))


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e19, 1e35])
def test_no_length_is_too_small_or_too_large(scale):
    scale = np.float32(scale)
    expected = pairwise_cosine(U, V)
    np.testing.assert_allclose(pairwise_cosine(scale * U, V), expected, atol=3e-7)
    gradient = jax.jit(jax.grad(lambda u: pairwise_cosine(u, V[0])))
    np.testing.assert_allclose(
        scale * gradient(scale * U[0]), gradient(U[0]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("length", [1e38, 3.4e38])
def test_an_entry_whose_inverse_is_subnormal_makes_no_nan(length):
    u = np.float32([[length, 0.0, -length], [0.0, length, 1.0]])
    root = np.sqrt(0.5)
    np.testing.assert_allclose(
        unit_vectors(u), [[root, 0, -root], [0, 1, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(pairwise_cosine(u, u[::-1]), [0, 0], atol=1e-30)
    slopes = jax.jit(jax.grad(lambda u: jnp.sum(pairwise_cosine(u, U[:2]))))(u)
    np.testing.assert_allclose(slopes, np.zeros((2, 3)), atol=2 / length)


def test_entries_near_the_smallest_normal_number_have_a_direction():
    tiny = np.finfo(np.float32).tiny
    u = np.float32([[tiny, 0.0, -1.5 * tiny], [0.0, 3.9 * tiny, tiny]])
    expected = u.astype(float) / np.linalg.norm(u.astype(float), axis=1, keepdims=True)
    np.testing.assert_allclose(unit_vectors(u), expected, rtol=3e-7)


def test_vectors_without_entries_have_the_cosine_zero():
    empty = np.zeros((2, 0), np.float32)
    np.testing.assert_array_equal(pairwise_cosine(empty, empty), [0, 0])
    np.testing.assert_array_equal(cosine_matrix(empty, empty), np.zeros((2, 2)))


def plain(u, v):
    """With a constant under the root, as it is usually written."""
    norms = [jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1), 1e-12)) for x in (u, v)]
    return jnp.sum(u * v, axis=-1) / (norms[0] * norms[1])


def test_a_zero_vector_has_the_cosine_zero_and_no_gradient():
    u = jnp.asarray(U).at[1].set(0.0)
    value, pullback = jax.vjp(pairwise_cosine, u, V)
    slopes = pullback(jnp.ones(5))
    assert value[1] == 0.0
    for slope in slopes:
        np.testing.assert_array_equal(slope[1], 0.0)
        assert np.isfinite(slope).all()
    table, pullback = jax.vjp(cosine_matrix, u, V)
    np.testing.assert_array_equal(table[1], 0.0)
    np.testing.assert_array_equal(pullback(jnp.ones((5, 5)))[0][1], 0.0)
    steep = jax.grad(lambda u: jnp.sum(plain(u, jnp.asarray(V))))(u)
    assert np.abs(steep[1]).max() > 1e5  # the usual way, as a control


def test_the_gradient_is_orthogonal_to_the_vector():
    slope = jax.grad(lambda u: jnp.sum(pairwise_cosine(u, V)))(jnp.asarray(U))
    np.testing.assert_allclose(np.sum(slope * U, axis=1), 0.0, atol=1e-6)
    norms = np.linalg.norm(unit_vectors(U), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=3e-7)


def test_half_precision_gives_float32():
    for dtype in ("float16", "bfloat16"):
        u, v = (jnp.asarray(x, dtype) for x in (U, V))
        expected = pairwise_cosine(u.astype(jnp.float32), v.astype(jnp.float32))
        assert pairwise_cosine(u, v).dtype == cosine_matrix(u, v).dtype == jnp.float32
        np.testing.assert_allclose(pairwise_cosine(u, v), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pairwise_cosine(U, V[:2]), ValueError, r"\(5, 3\) and \(2, 3\)"),
        (lambda: cosine_matrix(U, V[:, :2]), ValueError, r"\[m, dim\] and \[n, dim\]"),
        (lambda: cosine_matrix(U[0], V), ValueError, r"got \(3,\)"),
        (lambda: pairwise_cosine([1], [2]), TypeError, "u must be floating-point"),
        (lambda: pairwise_cosine(1.0, 2.0), ValueError, r"\[..., dim\]"),
        (lambda: unit_vectors(1.0), ValueError, r"x must be \[..., dim\]"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
