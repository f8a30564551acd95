"""One error for each argument that cannot be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from childtuning import arguments


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan"), True, "0.3"])
def test_fractions_outside_of_0_to_1_are_named(value):
    with pytest.raises(ValueError, match=r"reserve_p must be in .* got"):
        arguments.require_reserve_p(value)


def test_usable_fractions_and_traced_ones_pass():
    arguments.require_reserve_p(1)
    arguments.require_reserve_p(np.float32(0.3))
    jax.jit(lambda p: arguments.require_reserve_p(p) or p)(0.0)


@pytest.mark.parametrize("key", [0, np.zeros(2, np.uint32)])
def test_keys_must_be_typed(key):
    with pytest.raises(ValueError, match="key must be one typed key"):
        arguments.require_key(key)
    with pytest.raises(ValueError, match="key must be one typed key"):
        arguments.require_key(jax.random.split(jax.random.key(0)))
    arguments.require_key(jax.random.key(0))


@pytest.mark.parametrize(
    "mask",
    [
        {"w": np.ones(3, bool)},
        {"w": np.ones(2, bool), "b": np.ones(1, bool)},
        {"w": np.ones(3), "b": np.ones(1, bool)},
        {"w": np.ones(3, bool), "b": np.ones(1, bool), "c": np.ones(1, bool)},
    ],
)
def test_masks_that_do_not_match_are_refused(mask):
    params = {"w": jnp.ones(3), "b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"\bw\b|\bb\b|\bc\b"):
        arguments.require_mask(mask, params)
