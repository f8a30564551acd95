"""Inside of `jax.shard_map`, which checks what differs from device to device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import lion
from expkit import testing

CUT = PartitionSpec("data")
RNG = np.random.default_rng(0)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(4, 300)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=6), jnp.bfloat16),
}
KEY = jax.random.key(0)
TRANSFORMATIONS = {
    "lion": lion.lion(1e-2, weight_decay=0.1),
    "in place": lion.scale_by_lion(in_place=True),
    "cautious": lion.scale_by_lion(cautious=True),
    "int8": lion.scale_by_lion(mu_dtype="int8", in_place=True),
    "rounding": lion.stochastic_rounding(KEY),
}


def three_steps(tx, params):
    """Updates of a loop, whose carry has to keep its type."""

    def step(state, scale):
        grads = jax.tree.map(lambda p: p * scale.astype(p.dtype), params)
        updates, state = tx.update(grads, state, params)
        return state, updates

    return jax.lax.scan(step, tx.init(params), jnp.array([1.0, -0.5, 0.1]))[1]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_updates_are_those_of_each_part_alone(name):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    steps = functools.partial(three_steps, TRANSFORMATIONS[name])
    mapped = jax.shard_map(
        steps, mesh=mesh, in_specs=CUT, out_specs=PartitionSpec(None, "data")
    )
    got = jax.jit(mapped)(PARAMS)
    for half in (0, 1):
        mine = jax.tree.map(lambda leaf, half=half: jnp.split(leaf, 2)[half], PARAMS)
        part = jax.tree.map(
            lambda leaf, half=half: jnp.split(leaf, 2, axis=1)[half], got
        )
        wanted = jax.jit(steps)(mine)
        assert all(leaf.any() for leaf in jax.tree.leaves(wanted))
        testing.assert_trees_equal(part, wanted, "updates")
