"""Under JAX's strict promotion of dtypes every function gives the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import strict_promotion

import childtuning

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=4), jnp.float32),
}
MASK = jax.tree.map(lambda p: p > 0.2, PARAMS)
FISHER = jax.tree.map(jnp.abs, PARAMS)
EQUAL = jnp.zeros((4, 8))
SCHEDULE = optax.linear_schedule(0.1, 0.0, 4)


def two_steps(tx):
    state = tx.init(PARAMS)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
    return updates


def information(convention):
    def loss(params, x):
        return jnp.mean(jnp.square(x @ params["w"].T + params["b"][None, :]))

    batch = jnp.ones((3, 8))
    return childtuning.fisher_information(loss, PARAMS, [batch], convention=convention)


CALLS = {
    "f": lambda: two_steps(childtuning.child_tuning_f(0.3, KEY)),
    "dropout": lambda: two_steps(childtuning.update_dropout(0.3, KEY, rescale=False)),
    "d": lambda: two_steps(childtuning.child_tuning_d(MASK)),
    "adamw": lambda: two_steps(
        childtuning.child_adamw(0.1, MASK, weight_decay=0.1, decay="child")
    ),
    "adamw of schedules": lambda: two_steps(
        childtuning.child_adamw(SCHEDULE, MASK, weight_decay=SCHEDULE)
    ),
    "information": lambda: information("paper"),
    "information of the authors": lambda: information("authors"),
    "fraction": lambda: childtuning.trainable_fraction(MASK),
}
for ties in ("exact", "keep"):
    of = functools.partial(childtuning.fisher_mask, reserve_p=0.3, ties=ties)
    CALLS[f"mask {ties}"] = functools.partial(of, EQUAL)
    CALLS[f"mask {ties} traced"] = functools.partial(jax.jit(of), FISHER)


@pytest.mark.parametrize("name", CALLS)
def test_no_dtype_is_left_to_implicit_promotion(name):
    strict_promotion.assert_the_same(CALLS[name])


@pytest.mark.parametrize("ties", ["exact", "keep"])
def test_a_mask_found_under_strict_promotion_is_that_of_a_sort(ties):
    entries = np.float32(np.random.default_rng(1).random(70_000))  # of three blocks
    with jax.numpy_dtype_promotion("strict"):
        mask = childtuning.fisher_mask(entries, 0.25, ties=ties)
    bound = np.sort(entries)[-len(entries) // 4]
    np.testing.assert_array_equal(mask, entries >= bound)
