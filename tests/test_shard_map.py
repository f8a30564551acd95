"""Methods on the parts of a batch inside of `jax.shard_map`, with its checks of types.

Each must give what it gives on the parts one by one, and the gradient of what all
devices share must be the sum of theirs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import cosent
import gp_kl
import igr

NUM_PARTS = 2
MESH = jax.make_mesh((NUM_PARTS,), ("data",), axis_types=(AxisType.Auto,))
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 3))
PARAMS = {"w": jax.random.normal(KEY, (3, 2)), "b": jnp.zeros(2)}
CHAIN = gp_kl.LinearChainCRF(2, 3)
CHAIN_PARAMS = CHAIN.init(KEY)
HIDDEN = jax.random.normal(KEY, (4, 5, 2))
TAGS, MASK = jnp.ones((4, 5), int), jnp.ones((4, 5), bool)


def logits(params, x):
    return x @ params["w"] + jnp.broadcast_to(params["b"], (len(x), 2))


def loss(params, x):
    return jnp.mean(jnp.tanh(logits(params, x)) ** 2)


def loss_of_one(params, x):
    return loss(params, x[None])


def over_closed_batch(params, x):
    """The same, of a loss that closes over the part of the batch."""
    return igr.with_gradient_penalty(lambda p: loss(p, x), 0.1)(params)


def adversarial(params, x):
    # A row has the same noise on every device and alone: the key is that of all.
    of_rows = functools.partial(logits, params)
    return igr.virtual_adversarial_loss(of_rows, x, KEY, epsilon=1.0).sum()


def inequality(params, x):
    layers = [(params["w"], params["b"])]
    found = jax.vmap(lambda one: igr.penalty_inequality(layers, one, jnp.sum, "tanh"))
    return sum(leaf.sum() for leaf in found(x))


def two_batches(params, x):
    return igr.two_batch_gradient_penalty(loss, 0.1)(params, x, x + 1.0)


def likelihood(params, hidden, tags, mask):
    return CHAIN.log_likelihood(params, hidden, tags, mask).sum()


SCALARS = {
    **{
        f"penalty-{mode}": (igr.with_gradient_penalty(loss, 0.1, mode=mode), PARAMS, X)
        for mode in ("exact", "nested", "finite_difference")
    },
    **{
        f"per example-{mode}": (
            igr.with_per_example_gradient_penalty(loss_of_one, 0.1, mode=mode),
            PARAMS,
            X,
        )
        for mode in ("exact", "nested")
    },
    "closure": (over_closed_batch, PARAMS, X),
    "two batches": (two_batches, PARAMS, X),
    "adversarial": (adversarial, PARAMS, X),
    "inequality": (inequality, PARAMS, X),
    "likelihood": (likelihood, CHAIN_PARAMS, HIDDEN, TAGS, MASK),
    "control": (loss, PARAMS, X),
}


def on_devices(fn, num_shared, num_parts, out):
    specs = (P(),) * num_shared + (P("data"),) * num_parts
    return jax.jit(jax.shard_map(fn, mesh=MESH, in_specs=specs, out_specs=out))


def parts(arrays):
    """The arguments of each device."""
    split = [np.split(np.asarray(x), NUM_PARTS) for x in arrays]
    return list(zip(*split, strict=True))


@pytest.mark.parametrize("name", SCALARS)
def test_values_and_gradients_are_those_of_the_parts(name):
    fn, params, *batch = SCALARS[name]
    got = on_devices(lambda *args: fn(*args)[None], 1, len(batch), P("data"))(
        params, *batch
    )
    alone = jax.jit(jax.value_and_grad(fn))
    found = [alone(params, *part) for part in parts(batch)]
    np.testing.assert_allclose(got, [value for value, _ in found], rtol=1e-5)
    gradient = on_devices(jax.grad(fn), 1, len(batch), P())(params, *batch)
    expected = jax.tree.map(lambda *g: sum(g), *(g for _, g in found))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient,
        expected,
    )


def test_the_best_tags_are_those_of_the_parts():
    decode = functools.partial(CHAIN.decode, CHAIN_PARAMS)
    got = on_devices(decode, 0, 2, P("data"))(HIDDEN, MASK)
    np.testing.assert_array_equal(got, decode(HIDDEN, MASK))


def test_the_nearest_are_those_of_the_parts():
    def nearest(corpus, queries):
        return cosent.top_k(queries, corpus, 2, block_size=2)

    got = on_devices(nearest, 1, 1, P("data"))(X, X)
    for found, expected in zip(got, nearest(X, X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
