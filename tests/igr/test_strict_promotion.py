"""Under JAX's strict promotion of dtypes penalties give the same numbers.

Parameters of half precision meet sums in float32, and trees may mix dtypes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strict_promotion

import igr

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 2)) / 2
TREES = {
    "bfloat16": {
        "w": jnp.asarray(W, jnp.bfloat16),
        "b": jnp.ones((1, 2), jnp.bfloat16),
    },
    "mixed": {"w": jnp.asarray(W, jnp.bfloat16), "b": jnp.ones((1, 2), jnp.float32)},
}
X = RNG.normal(size=(2, 5, 3))


def loss(params, x):
    outputs = x.astype(params["w"].dtype) @ params["w"]
    return jnp.mean(jnp.tanh(outputs.astype(params["b"].dtype) + params["b"]) ** 2)


def one_loss(params, x):
    return loss(params, x[None])


PENALISED = {
    mode: functools.partial(igr.with_gradient_penalty, loss, 0.1, mode=mode)
    for mode in ("exact", "nested")
} | {"modified": functools.partial(igr.modified_loss, loss, 0.1)}


# In the mixed tree half precision meets float32 too.
most_trees = pytest.mark.parametrize(
    "tree", [pytest.param("bfloat16", marks=pytest.mark.slow), "mixed"]
)


@most_trees
@pytest.mark.parametrize("name", PENALISED)
def test_penalised_losses_and_their_gradients(tree, name):
    penalised = jax.value_and_grad(PENALISED[name]())
    strict_promotion.assert_the_same(
        lambda: jax.jit(penalised)(TREES[tree], jnp.asarray(X[0], jnp.float32))
    )


@most_trees
@pytest.mark.parametrize("mode", ["exact", "nested"])
def test_penalties_of_every_example(tree, mode):
    penalised = jax.value_and_grad(
        igr.with_per_example_gradient_penalty(one_loss, 0.1, mode=mode)
    )
    strict_promotion.assert_the_same(
        lambda: jax.jit(penalised)(TREES[tree], jnp.asarray(X[0], jnp.float32))
    )


@pytest.mark.parametrize("tree", TREES)
def test_the_penalty_of_two_batches(tree):
    penalised = jax.value_and_grad(igr.two_batch_gradient_penalty(loss, 0.1))
    batches = [jnp.asarray(x, jnp.float32) for x in X]
    strict_promotion.assert_the_same(lambda: jax.jit(penalised)(TREES[tree], *batches))


@pytest.mark.parametrize("tree", TREES)
def test_the_tracker_of_gradient_norms(tree):
    tracker = igr.track_gradient_norm(1e-3)
    params = TREES[tree]
    strict_promotion.assert_the_same(
        lambda: jax.jit(tracker.update)(params, tracker.init(params), params)
    )


@pytest.mark.parametrize("norm", ["joint", "spectral", "frobenius"])
def test_both_sides_of_the_inequality(norm):
    layers = [(TREES["mixed"]["w"], jnp.ones(2, jnp.float32))]
    fn = functools.partial(
        igr.penalty_inequality, fn=jnp.sum, activation=jnp.tanh, norm=norm
    )
    x = jnp.asarray(X[0, 0], jnp.bfloat16)
    strict_promotion.assert_the_same(lambda: jax.jit(fn)(layers, x))
