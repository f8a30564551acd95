"""The product of two gradients: dense Hessians, and exact means over all batches."""

import functools
import itertools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit.testing import assert_trees_close, loss_checks
from igr import (
    two_batch_gradient_penalty,
    with_gradient_penalty,
    with_per_example_gradient_penalty,
)

RNG = np.random.default_rng(0)
C = 0.3
NUM_ROWS, SIZE = 4, 2
X, Y = RNG.normal(size=(NUM_ROWS, 3)), RNG.normal(size=NUM_ROWS)
PARAMS = RNG.normal(size=3)


def loss_fn(params, batch, *, scale=1.0):
    errors = jnp.tanh(batch["x"] @ params) - batch["y"]
    return scale * 0.5 * jnp.mean(jnp.square(errors), dtype=_wide(errors))


def _wide(x):
    return jnp.promote_types(x.dtype, jnp.float32)


def rows(*indices):
    return {"x": jnp.asarray(X[list(indices)]), "y": jnp.asarray(Y[list(indices)])}


hessian = jax.jit(jax.hessian(loss_fn))


def slopes_of_examples():
    """In numpy: the gradient of every example [n, d], and the losses [n]."""
    h = np.tanh(X @ PARAMS)
    return ((h - Y) * (1 - h**2))[:, None] * X, 0.5 * (h - Y) ** 2


def test_value_and_gradient_are_those_of_dense_hessians():
    with jax.enable_x64(True):
        params, a, b = jnp.asarray(PARAMS), rows(0, 1, 2), rows(3)
        penalised = two_batch_gradient_penalty(loss_fn, C)
        value, got = jax.jit(jax.value_and_grad(penalised))(params, a, b)
        hessians = [np.asarray(hessian(params, x)) for x in (a, b)]
    slopes, losses = slopes_of_examples()
    g = slopes[:3].mean(axis=0), slopes[3]
    expected = 0.5 * (losses[:3].mean() + losses[3]) + C * g[0] @ g[1]
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    products = hessians[0] @ g[1] + hessians[1] @ g[0]
    np.testing.assert_allclose(got, 0.5 * (g[0] + g[1]) + C * products, rtol=1e-12)


def mean_over(fn, choices):
    """Means of value and gradient over batches, each a tuple of rows for each one."""
    indices = np.array(choices)  # [choice, batch, row]

    def one(index):
        batches = [{"x": jnp.asarray(X)[i], "y": jnp.asarray(Y)[i]} for i in index]
        return jax.value_and_grad(fn)(jnp.asarray(PARAMS), *batches)

    values = jax.jit(jax.vmap(one))(jnp.asarray(indices))
    return [np.asarray(x).mean(axis=0) for x in values]


def full_batch():
    """The penalised loss of all rows and its gradient, by a dense Hessian."""
    slopes, losses = slopes_of_examples()
    g = slopes.mean(axis=0)
    dense = np.asarray(hessian(jnp.asarray(PARAMS), rows(*range(NUM_ROWS))))
    return losses.mean() + C * g @ g, g + 2 * C * dense @ g


def variance():
    slopes, _ = slopes_of_examples()
    return np.trace(np.cov(slopes.T, bias=True))


BATCHES = list(itertools.product(range(NUM_ROWS), repeat=SIZE))


def test_over_all_pairs_of_independent_batches_there_is_no_bias():
    with jax.enable_x64(True):
        value, got = mean_over(
            two_batch_gradient_penalty(loss_fn, C),
            list(itertools.product(BATCHES, repeat=2)),
        )
        expected, slope = full_batch()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(got, slope, rtol=1e-12)


def test_one_batch_is_biased_by_the_variance_of_its_gradient():
    with jax.enable_x64(True):
        value, got = mean_over(
            with_gradient_penalty(loss_fn, C), [(batch,) for batch in BATCHES]
        )
        expected, slope = full_batch()
    bias = C * variance() / SIZE
    np.testing.assert_allclose(value - expected, bias, rtol=1e-11)
    assert bias > 0.01 * expected  # so that it is no rounding
    assert np.abs(got - slope).max() > 0.01 * np.abs(slope).max()


def test_the_mean_over_the_examples_has_the_whole_variance():
    def loss_of_one(params, x, y):
        return loss_fn(params, {"x": x[None], "y": y[None]})

    with jax.enable_x64(True):
        penalised = with_per_example_gradient_penalty(loss_of_one, C, chunk_size=4)
        value = jax.jit(penalised)(PARAMS, X, Y)
        expected, _ = full_batch()
    np.testing.assert_allclose(float(value) - expected, C * variance(), rtol=1e-11)


def test_disjoint_batches_of_few_rows_are_not_independent():
    disjoint = list(itertools.permutations(range(NUM_ROWS), 2 * SIZE))
    with jax.enable_x64(True):
        value, _ = mean_over(
            two_batch_gradient_penalty(loss_fn, C),
            [(pair[:SIZE], pair[SIZE:]) for pair in disjoint],
        )
        expected, _ = full_batch()
    bias = -C * variance() / (NUM_ROWS - 1)
    np.testing.assert_allclose(value - expected, bias, rtol=1e-11)


def test_it_is_differentiated_from_outside_in_all_that_it_depends_on():
    @jax.jit
    def built_inside(params, a, b, scale, c):
        offset = jnp.arange(3)  # an integer array that the loss closes over

        def loss(params, batch, *, scale):
            return c * loss_fn(params + 0.1 * offset, batch, scale=scale)

        return two_batch_gradient_penalty(loss, c)(params, a, b, scale=scale)

    def explicit(params, a, b, scale, c):
        def loss(params, batch):
            return c * loss_fn(params + 0.1 * jnp.arange(3), batch, scale=scale)

        product = jax.grad(loss)(params, a) @ jax.grad(loss)(params, b)
        return 0.5 * (loss(params, a) + loss(params, b)) + c * product

    with jax.enable_x64(True):
        args = jnp.asarray(PARAMS), rows(0, 1), rows(2), jnp.asarray(0.8), C
        got, expected = (
            jax.jit(jax.value_and_grad(f, argnums=range(5)))(*args)
            for f in (built_inside, explicit)
        )
    assert_trees_close(got, expected, "gradient", rtol=1e-12, atol=1e-14)


def test_the_derivative_in_the_coefficient_is_wider_than_the_parameters():
    def value(c):
        def loss(params, scale):
            return 0.5 * jnp.sum(scale * params.astype(jnp.float32) ** 2)

        params = jnp.array([3.0, 16.0], jnp.bfloat16)
        return two_batch_gradient_penalty(loss, c)(params, jnp.ones(2), jnp.ones(2))

    slope = jax.jit(jax.grad(value))(jnp.float32(0.1))
    assert slope == 3.0**2 + 16.0**2
    assert float(slope.astype(jnp.bfloat16)) != slope  # the control


def test_both_batches_see_the_same_dropout():
    def loss(params, batch, *, key):
        keep = jax.random.bernoulli(key, 0.5, params.shape)
        return loss_fn(jnp.where(keep, 2 * params, 0.0), batch)

    key = jax.random.key(1)
    keep = np.asarray(jax.random.bernoulli(key, 0.5, (3,)))
    assert 0 < keep.sum() < 3
    got = jax.jit(two_batch_gradient_penalty(loss, C))
    value = got(jnp.float32(PARAMS), rows(0), rows(1), key=key)
    h = np.tanh(X @ np.where(keep, 2 * PARAMS, 0.0))
    slopes = 2 * keep * ((h - Y) * (1 - h**2))[:, None] * X
    losses = 0.5 * (h - Y) ** 2
    expected = losses[:2].mean() + C * slopes[0] @ slopes[1]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_equal_batches_give_the_penalty_of_one():
    penalised = jax.jit(jax.value_and_grad(two_batch_gradient_penalty(loss_fn, C)))
    one = jax.jit(jax.value_and_grad(with_gradient_penalty(loss_fn, C)))
    params, batch = jnp.float32(PARAMS), rows(0, 1)
    got, expected = penalised(params, batch, batch), one(params, batch)
    assert_trees_close(got, expected, "penalty", rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("coefficient", [np.nan, -np.inf])
def test_a_coefficient_that_is_not_finite_is_refused(coefficient):
    with pytest.raises(ValueError, match=f"coefficient must be .* {coefficient}"):
        two_batch_gradient_penalty(loss_fn, coefficient)


def test_losses_and_parameters_without_a_gradient_are_refused():
    def vector(params, batch):
        return batch["x"] @ params

    with pytest.raises(ValueError, match=r"one floating-point scalar, got f.*\[2\]"):
        two_batch_gradient_penalty(vector, C)(jnp.ones(3), rows(0, 1), rows(2))
    with pytest.raises(TypeError, match=r"argument 0 must hold .* got int32"):
        two_batch_gradient_penalty(loss_fn, C)(jnp.ones(3, jnp.int32), rows(0), rows(1))


def example():
    rng = np.random.default_rng(1)
    batches = [{"x": rng.normal(size=(n, 3)), "y": rng.normal(size=n)} for n in (3, 2)]
    return jax.tree.map(np.float32, (PARAMS, *batches))


# Compiled op by op, and checked of all arguments by `test_it_is_differentiated_...`.
SLOW = ("jit_equals_eager", "closes_over_traced_arrays")


@pytest.mark.parametrize(
    "check",
    conformance.cases(
        loss_checks(
            loss_fn,
            example(),
            argnums=(0, 1, 2),
            wrap=functools.partial(two_batch_gradient_penalty, coefficient=C),
            second_order=True,
            extremes=(0.0, 30.0, -30.0),  # whose squares float16 holds
        ),
        slow=SLOW,
    ),
)
def test_the_penalised_loss_conforms(check):
    check()
