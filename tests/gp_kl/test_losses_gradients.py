"""Gradients of the multi-label losses where scores are large, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gp_kl import multilabel_cross_entropy, sparse_multilabel_cross_entropy

pytestmark = pytest.mark.optimized

LEVELS = [1.0, 100.0, 1e3, 1e5, 3e7]
NOTHING = np.zeros((20, 300), bool)


def scores(level):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 300)) * max(1.0, 1e-7 * level)
    return (level + noise).astype(np.float32)


def shares(s):
    """exp(s) / (1 + sum exp(s)), with 18 digits."""
    s = s.astype(np.longdouble)
    shift = np.maximum(s.max(axis=1, keepdims=True), 0.0)
    powers = np.exp(s - shift)
    return powers / (powers.sum(axis=1, keepdims=True) + np.exp(-shift))


def total(s, labels=NOTHING, **options):
    return multilabel_cross_entropy(s, labels, **options).sum()


def sparse(s):
    indices = np.full((20, 2), -1)
    return sparse_multilabel_cross_entropy(s, indices).sum()


LOSSES = {
    "labels": total,
    "positives": lambda s: total(-s, ~NOTHING),
    "integers": lambda s: total(s, NOTHING.astype(int)),
    "soft": lambda s: total(s, NOTHING.astype(np.float32)),
    "masked": lambda s: total(s, where=~NOTHING),
    "sparse": sparse,
}
# Made once, since each function that `jax.grad` returns is another program.
GRADIENTS = {name: jax.jit(jax.grad(loss)) for name, loss in LOSSES.items()}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_keep_their_digits_at_large_scores(name, level):
    s = scores(level)
    got = np.asarray(GRADIENTS[name](s))
    # A rounding each: s - shift, exp, the sum of 300 and the quotient.
    np.testing.assert_allclose(got, shares(s), rtol=1e-6)
    # "At most 1", but for the rounding of the 300 terms.
    assert got.sum(axis=1, dtype=np.longdouble).max() < 1.0 + 3e-7


def test_the_control_from_the_value_loses_them():
    """exp(s - value): the value has an error of half a unit of its last digit."""
    s = scores(1e5)
    value = multilabel_cross_entropy(s, NOTHING)
    wrong = np.exp(s - np.asarray(value)[:, None])
    assert np.abs(wrong / shares(s) - 1.0).max() > 1e-3


PRODUCTS = (
    jax.jit(lambda s, v: jax.jvp(jax.grad(total), (s,), (v,))[1]),
    jax.jit(jax.grad(lambda s, v: jnp.vdot(jax.grad(total)(s), v))),
)


@pytest.mark.parametrize("level", LEVELS)
def test_second_derivatives_are_those_of_the_closed_form(level):
    """The Hessian of the logarithm: diag p - p p^T, with 1 + sum exp in p."""
    s = scores(level)
    v = np.random.default_rng(1).normal(size=s.shape).astype(np.float32)
    p = shares(s)
    expected = p * (v - (p * v).sum(axis=1, keepdims=True))
    for product in PRODUCTS:
        error = np.abs(np.asarray(product(s, v)) - expected) / np.abs(expected).max()
        assert error.max() < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_scores_have_the_gradient_of_the_same_numbers(dtype):
    s = jnp.asarray(scores(100.0), dtype)
    got = GRADIENTS["labels"](s)
    assert got.dtype == dtype
    expected = shares(np.asarray(s, np.float32))
    eps = float(jnp.finfo(dtype).eps)
    tiny = float(jnp.finfo(dtype).tiny)
    np.testing.assert_allclose(got.astype("float32"), expected, 0.51 * eps, tiny)


@pytest.mark.parametrize("rows", ["-inf", "inf", "one inf", "nothing counts"])
def test_rows_without_a_share_have_no_gradient_and_change_no_other(rows):
    s = scores(10.0)[:2]
    expected = shares(s)
    where = np.ones(s.shape, bool)
    s[0] = {"-inf": -np.inf, "inf": np.inf}.get(rows, 1.0)
    if rows == "one inf":
        s[0, 0] = np.inf
    where[0] = rows != "nothing counts"
    gradient = jax.jit(jax.grad(total))(s, NOTHING[:2], where=where)
    np.testing.assert_array_equal(gradient[0], 0.0)
    np.testing.assert_allclose(gradient[1], expected[1], rtol=1e-6)


def test_a_step_keeps_the_scores_and_their_gradient_alone():
    rows, classes, width = 64, 1 << 12, 16
    floats = 4 * rows * classes

    def loss(s, labels):
        return multilabel_cross_entropy(s, labels).sum()

    def usual(s, labels):
        parts = (jnp.where(x, z, -jnp.inf) for x, z in ((labels, -s), (~labels, s)))
        padded = (jnp.pad(part, ((0, 0), (0, 1))) for part in parts)
        return sum(jax.nn.logsumexp(part, axis=1).sum() for part in padded)

    def temporary(loss):
        def step(kernel, x, labels):
            return jax.value_and_grad(lambda k: loss(x @ k, labels))(kernel)

        shapes = (width, classes), (rows, width)
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        labels = jax.ShapeDtypeStruct((rows, classes), bool)
        compiled = jax.jit(step).lower(*arrays, labels).compile()
        return compiled.memory_analysis().temp_size_in_bytes / floats

    assert temporary(loss) < 2.1
    assert temporary(usual) > 2.9  # the control
