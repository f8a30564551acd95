"""Inside of `jax.shard_map`, which checks what differs from device to device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import childtuning

KEY = jax.random.key(0)
CUT, WHOLE = PartitionSpec("data"), PartitionSpec()
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(8, 3)), RNG.normal(size=8), RNG.normal(size=3)


def on_two_devices(function, in_specs=CUT, out_specs=CUT):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped)


@pytest.mark.parametrize("ties", ["exact", "keep"])
def test_each_device_ranks_what_it_holds(ties):
    fisher = {
        "a": np.float32(RNG.random((4, 10))),
        "b": np.float32(RNG.random(40)),
        "c": np.float32(RNG.random((2, 100))),
    }
    find = functools.partial(childtuning.fisher_mask, reserve_p=0.25, ties=ties)
    mask = on_two_devices(find)(fisher)
    for half in (0, 1):
        mine = [np.split(leaf, 2)[half] for leaf in fisher.values()]
        bound = np.sort(np.concatenate([leaf.reshape(-1) for leaf in mine]))[-35]
        for name, leaf in zip(fisher, mine, strict=True):
            np.testing.assert_array_equal(np.split(mask[name], 2)[half], leaf >= bound)


def test_of_equal_entries_each_device_keeps_its_first():
    find = functools.partial(childtuning.fisher_mask, reserve_p=0.5)
    mask = on_two_devices(find)([jnp.ones(8), jnp.ones((4, 2))])
    np.testing.assert_array_equal(np.split(mask[0], 2), np.ones((2, 4)))
    np.testing.assert_array_equal(np.split(mask[1], 2), np.zeros((2, 2, 2)))


def test_a_leaf_that_all_devices_hold_may_compete_with_one_that_is_cut():
    whole, cut = np.float32(RNG.random(6)), np.float32(RNG.random(12))
    find = functools.partial(childtuning.fisher_mask, reserve_p=0.5)
    masks = on_two_devices(find, ([WHOLE, CUT],))([whole, cut])
    for half in (0, 1):
        mine = whole, np.split(cut, 2)[half]
        bound = np.sort(np.concatenate(mine))[-6]
        for mask, leaf in zip(masks, mine, strict=True):
            np.testing.assert_array_equal(np.split(mask, 2)[half], leaf >= bound)


def squared_error(w, batch):
    x, y = batch
    return jnp.mean((x @ w - y) ** 2)


def mean_over_devices(w, batch):
    return jax.lax.pmean(squared_error(w, batch), "data")


def information(loss, convention, w, x, y):
    return childtuning.fisher_information(
        loss, w, [(x, y)], convention=convention, clip_norm=None
    )


@pytest.mark.parametrize("place", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("convention", ["paper", "authors"])
def test_the_information_is_of_the_examples_that_a_device_holds(convention, place):
    function = functools.partial(information, squared_error, convention)
    w = W if place == WHOLE else np.concatenate([W, W])
    arrays = (jnp.asarray(z, jnp.float32) for z in (w, X, Y))
    got = on_two_devices(function, (place, CUT, CUT))(*arrays)
    gradients = (2 * (X @ W - Y)[:, None] * X).reshape(2, 4, 3)

    def mean_square(gradients):
        if convention == "paper":
            return np.mean(gradients**2, axis=-2)
        return np.mean(gradients, axis=-2) ** 2

    wanted = mean_square(gradients)
    np.testing.assert_allclose(got.reshape(2, 3), wanted, rtol=1e-5)
    # The control: the derivative by an array that all devices hold is their sum.
    assert not np.allclose(mean_square(gradients.sum(axis=0))[None], wanted, rtol=0.1)


def test_the_mean_over_devices_is_the_information_of_the_whole_batch():
    def paper(*arrays):
        return jax.lax.pmean(information(squared_error, "paper", *arrays), "data")

    arrays = tuple(jnp.asarray(z, jnp.float32) for z in (W, X, Y))
    gradients = 2 * (X @ W - Y)[:, None] * X
    got = on_two_devices(paper, (WHOLE, CUT, CUT), WHOLE)(*arrays)
    np.testing.assert_allclose(got, np.mean(gradients**2, axis=0), rtol=1e-5)
    # The authors' mean is inside of the square, so it belongs into the loss.
    authors = functools.partial(information, mean_over_devices, "authors")
    got = on_two_devices(authors, (WHOLE, CUT, CUT), WHOLE)(*arrays)
    np.testing.assert_allclose(got, np.mean(gradients, axis=0) ** 2, rtol=1e-5)


def two_steps(make, params, grads, mask):
    tx = make(mask)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
    return updates


MAKERS = {
    "d": childtuning.child_tuning_d,
    "adamw": functools.partial(
        childtuning.child_adamw, 1e-2, weight_decay=0.1, decay="child"
    ),
    "f": lambda mask: childtuning.child_tuning_f(0.3, KEY),
    "dropout": lambda mask: childtuning.update_dropout(0.3, KEY),
}


@pytest.mark.parametrize("name", MAKERS)
def test_updates_are_those_of_each_part_alone(name):
    params = [jnp.asarray(RNG.normal(size=(4, 16)), jnp.float32), jnp.arange(1.0, 7.0)]
    grads = jax.tree.map(lambda p: p - 2.0, params)
    mask = jax.tree.map(lambda p: p > 0.5, params)
    arguments = params, grads, mask
    steps = functools.partial(two_steps, MAKERS[name])
    got = on_two_devices(steps)(*arguments)
    for half in (0, 1):
        alone = jax.jit(steps)(
            *jax.tree.map(lambda leaf, half=half: jnp.split(leaf, 2)[half], arguments)
        )
        for leaf, wanted in zip(got, alone, strict=True):
            assert wanted.any()
            np.testing.assert_array_equal(np.split(leaf, 2)[half], wanted)
