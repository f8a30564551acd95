"""`optax.tree_map_params` finds the parameters in the states, and only them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning

PARAMS = {"w": jnp.ones((4, 16)), "b": jnp.ones(5), "none": None}
MASK = jax.tree.map(lambda p: p > 0, PARAMS)


def names(tx, state, params=PARAMS):
    """The state with the names of parameters, and "other" for what is none."""
    labels = jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path), params)
    return optax.tree_map_params(
        tx, lambda _, name: name, state, labels, transform_non_params=lambda _: "other"
    )


NAMES = {"w": "['w']", "b": "['b']", "none": None}
OTHERS = {"w": "other", "b": "other", "none": None}


def test_moments_of_child_adamw_are_found_as_those_of_optax():
    tx, reference = childtuning.child_adamw(1e-3, MASK), optax.adamw(1e-3)
    got = names(tx, tx.init(PARAMS))
    wanted = names(reference, reference.init(PARAMS))[0]
    assert (got.count, got.mu, got.nu) == (wanted.count, wanted.mu, wanted.nu)
    assert (got.count, got.mu, got.nu) == ("other", NAMES, NAMES)
    assert got.mask == OTHERS


def test_packed_bits_are_no_parameters():
    tx = optax.chain(childtuning.child_tuning_d(MASK), optax.adamw(1e-3))
    first, (adam, *_) = names(tx, tx.init(PARAMS))
    assert first.mask == OTHERS
    assert (adam.mu, adam.nu) == (NAMES, NAMES)


@pytest.mark.parametrize(
    "make", [childtuning.child_tuning_d, lambda mask: childtuning.child_adamw(1, mask)]
)
def test_without_a_function_for_the_others_they_stay(make):
    tx = make(MASK)
    state = tx.init(PARAMS)
    doubled = optax.tree_map_params(tx, lambda leaf: leaf + 2, state)
    jax.tree.map(np.testing.assert_array_equal, doubled.mask, state.mask)
    if hasattr(state, "mu"):
        jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 2), doubled.mu)


def test_random_masks_have_no_parameters():
    key = jax.random.key(0)
    for tx in (childtuning.child_tuning_f(0.5, key), optax.add_noise(1, 1, key)):
        got = names(tx, tx.init(PARAMS))
        assert set(got) == {"other"}


def test_where_optax_hides_a_leaf_its_mask_is_hidden_too():
    params = {"w": PARAMS["w"], "b": PARAMS["b"]}
    tx = optax.masked(
        childtuning.child_adamw(1e-3, jax.tree.map(lambda p: p > 0, params)),
        {"w": True, "b": False},
    )
    state = tx.init(params)
    same = optax.tree_map_params(tx, lambda leaf: leaf, state)
    assert jax.tree.structure(same) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_a_state_may_be_placed_as_its_parameters():
    """What the function of optax is for."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    cut, whole = (NamedSharding(mesh, PartitionSpec(*s)) for s in (["data"], []))
    tx = childtuning.child_adamw(1e-3, MASK)
    places = optax.tree_map_params(
        tx,
        lambda _, place: place,
        tx.init(PARAMS),
        {"w": cut, "b": whole, "none": None},
        transform_non_params=lambda _: whole,
    )
    state = jax.jit(tx.init, out_shardings=places)(PARAMS)
    assert state.mu["w"].sharding.is_equivalent_to(cut, 2)
    assert state.mask["w"].sharding.is_equivalent_to(whole, 2)


def test_parameters_without_a_leaf_are_no_placeholder():
    """An error stays one where there is nothing to map over."""
    for nothing in ({}, None, [], ()):
        with pytest.raises(ValueError, match="where the parameters have none"):
            childtuning.child_tuning_d(MASK).init(nothing)
