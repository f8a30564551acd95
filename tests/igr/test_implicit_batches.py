"""The loss that an epoch follows: a loop as oracle, its memory, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from expkit import testing

RNG = np.random.default_rng(0)
PARAMS = (
    jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
    jnp.asarray(RNG.normal(size=4), jnp.float32),
)
BATCHES = (
    jnp.asarray(RNG.normal(size=(4, 6, 3)), jnp.float32),
    jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32),
)


def network(params, batch):
    x, y = batch
    w, v = params
    return jnp.mean((jnp.tanh(x @ w) @ v - y) ** 2)


def plain_stochastic_loss(params, batches, rate):
    losses = []
    for k in range(len(batches[0])):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        value, g = jax.value_and_grad(network)(params, batch)
        losses.append(value + rate / 4 * sum(jnp.sum(x**2) for x in g))
    return sum(losses) / len(losses)


def test_stochastic_modified_loss_is_the_mean_of_a_loop():
    batches = jax.tree.map(lambda leaf: leaf[:2], BATCHES)
    loss = igr.stochastic_modified_loss(network, 0.3)
    got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(PARAMS, batches)
    plain = jax.value_and_grad(plain_stochastic_loss, argnums=(0, 1))
    wanted = jax.jit(plain)(PARAMS, batches, 0.3)
    testing.assert_trees_close(got, wanted, "loss", rtol=5e-6, atol=1e-6)


def test_batches_may_hold_labels_and_keys():
    batches = (jnp.array([1, 2]), jax.random.split(jax.random.key(0), 2))

    def loss(theta, batch):
        label, key = batch
        return label * jnp.sum(theta * jax.random.normal(key, (5,)))

    got = igr.stochastic_modified_loss(loss, 0.4)(jnp.zeros(5), batches)
    draws = np.stack([jax.random.normal(key, (5,)) for key in batches[1]])
    squares = np.array([1, 4]) * np.sum(draws**2, axis=1)
    np.testing.assert_allclose(got, 0.1 * np.mean(squares), rtol=1e-5)


def test_penalties_of_batches_and_of_their_mean_differ_by_the_variance():
    rate = 0.3

    def mean_loss(params, batches):
        return jnp.mean(jax.vmap(lambda b: network(params, b))(batches))

    @jax.jit
    def both(params, batches):
        gradients = jax.vmap(jax.grad(network), (None, 0))(params, batches)
        stochastic = igr.stochastic_modified_loss(network, rate)(params, batches)
        full = igr.modified_loss(mean_loss, rate)(params, batches)
        return stochastic - full, sum(jnp.sum(jnp.var(g, axis=0)) for g in gradients)

    difference, variance = both(PARAMS, BATCHES)
    np.testing.assert_allclose(difference, rate / 4 * variance, rtol=1.5e-5)


def temp_bytes(loss, num_batches):
    shapes = [
        jax.ShapeDtypeStruct((num_batches, *x.shape[1:]), x.dtype) for x in BATCHES
    ]
    compiled = jax.jit(jax.value_and_grad(loss)).lower(PARAMS, tuple(shapes)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimized
def test_memory_of_the_gradient_does_not_grow_with_the_number_of_batches():
    loss = igr.stochastic_modified_loss(network, 0.1)
    growth = temp_bytes(loss, 256) - temp_bytes(loss, 64)
    assert growth <= 192 * 8  # one scalar a batch, and its cotangent
    one = igr.modified_loss(network, 0.1)

    def at_once(params, batches):
        return jnp.mean(jax.vmap(lambda batch: one(params, batch))(batches))

    assert temp_bytes(at_once, 256) > 10 * temp_bytes(loss, 256)


@pytest.mark.parametrize(
    "batches",
    [(), jnp.float32(1.0), (jnp.ones((2, 3)), jnp.ones(3)), jnp.ones((0, 3))],
    ids=["none", "scalar", "unequal", "empty"],
)
def test_batches_without_a_common_axis_are_refused(batches):
    loss = igr.stochastic_modified_loss(lambda p, b: jnp.sum(p), 0.1)
    with pytest.raises(ValueError, match=r"batches must be .* got shapes"):
        loss(jnp.ones(2), batches)
