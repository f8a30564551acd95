"""Under JAX's strict promotion of dtypes every function gives the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import strict_promotion

import lion
from expkit import testing

KEY = jax.random.key(0)
PARAMS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 200)), jnp.float32)


def two_steps(tx, dtype="float32"):
    @jax.jit
    def both(params):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
        return updates, state

    return both(PARAMS.astype(dtype))


RULES = {
    f"{dtype} {mu_dtype} {in_place=} {cautious=}": (
        dtype,
        {"mu_dtype": mu_dtype, "in_place": in_place, "cautious": cautious},
    )
    for dtype, mu_dtype in (
        *(("float32", mu_dtype) for mu_dtype in (None, "bfloat16", "int8")),
        *(("bfloat16", mu_dtype) for mu_dtype in (None, "float32", "int8")),
    )
    for in_place, cautious in ((False, False), (False, True), (True, True))
}


@pytest.mark.parametrize("name", RULES)
def test_no_dtype_of_the_rule_is_left_to_implicit_promotion(name):
    dtype, options = RULES[name]
    strict_promotion.assert_the_same(
        lambda: two_steps(lion.scale_by_lion(**options), dtype)
    )


@pytest.mark.parametrize("rate", [1e-2, optax.linear_schedule(1e-2, 0.0, 4)])
def test_the_optimizer_takes_numbers_and_schedules_under_strict_promotion(rate):
    tx = lion.lion(rate, weight_decay=0.1, in_place=True, cautious=True)
    strict_promotion.assert_the_same(lambda: two_steps(tx))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_needs_no_implicit_promotion(dtype):
    tx = lion.stochastic_rounding(KEY)
    strict_promotion.assert_the_same(lambda: two_steps(tx, dtype))


def test_under_strict_promotion_it_is_the_rule_of_optax():
    plain = two_steps(optax.scale_by_lion())
    with jax.numpy_dtype_promotion("strict"):
        got = two_steps(lion.scale_by_lion())
    testing.assert_trees_equal(got[0], plain[0], "updates")
