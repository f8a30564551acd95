"""One error for each argument that cannot be used."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import childtuning
from childtuning import arguments

SCALARS = [float, np.float32, np.float64, np.array, jnp.float32, jnp.bfloat16]


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan"), True, "0.3"])
def test_fractions_outside_of_0_to_1_are_named(value):
    with pytest.raises(ValueError, match=r"reserve_p must be in .* got"):
        arguments.require_reserve_p(value)


def test_usable_fractions_and_traced_ones_pass():
    arguments.require_reserve_p(1)
    for make in SCALARS:
        arguments.require_reserve_p(make(0.3))
    jax.jit(lambda p: arguments.require_reserve_p(p) or p)(0.0)


MASK = np.ones(2, bool)
CALLS = {
    "reserve_p": lambda x: childtuning.child_tuning_f(x, jax.random.key(0)),
    "learning_rate": lambda x: childtuning.child_adamw(x, MASK),
    "b1": lambda x: childtuning.child_adamw(1e-3, MASK, b1=x),
    "b2": lambda x: childtuning.child_adamw(1e-3, MASK, b2=x),
    "eps": lambda x: childtuning.child_adamw(1e-3, MASK, eps=x),
    "weight_decay": lambda x: childtuning.child_adamw(1e-3, MASK, weight_decay=x),
    "clip_norm": lambda x: childtuning.fisher_information(
        lambda p, batch: jnp.sum(p * batch[0]),
        jnp.ones(2),
        [jnp.ones((1, 2))],
        clip_norm=x,
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("make", SCALARS)
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_known_scalars_of_every_library_are_checked(name, make, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got .*(-1|nan)"):
        CALLS[name](make(value))


@pytest.mark.parametrize("make", SCALARS)
def test_a_fraction_of_0_or_beyond_1_is_refused_by_every_function(make):
    calls = (CALLS["reserve_p"], lambda p: childtuning.fisher_mask(jnp.ones(4), p))
    for value in (0.0, 1.5):
        for call in calls:
            with pytest.raises(
                ValueError, match=rf"reserve_p must be in .*got .*{value:g}"
            ):
                call(make(value))


@pytest.mark.parametrize(
    "value", [np.ones(1), jnp.ones(2), np.True_, jnp.array(True), 1j, np.complex64(0.5)]
)
def test_what_is_no_real_scalar_is_refused(value):
    with pytest.raises(ValueError, match="reserve_p must be in"):
        arguments.require_reserve_p(value)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("make", [float, np.float64, jnp.float32])
def test_injected_values_pass_traced_and_known(wrap, make):
    """The value set between two steps acts, as a constant of the optimizer does."""
    build = optax.inject_hyperparams(childtuning.child_adamw, static_args=("decay",))
    tx = build(make(0.1), MASK, weight_decay=make(0.0))
    params, grads = jnp.ones(2), jnp.ones(2)
    state = tx.init(params)
    for rate in (0.1, 0.3):
        state.hyperparams["learning_rate"] = jnp.asarray(rate)
        updates, _ = wrap(tx.update)(grads, state, params)
        # The first step of Adam is the learning rate.
        np.testing.assert_allclose(updates, -rate, rtol=1e-5)


def test_a_norm_to_clip_to_may_be_an_array():
    def information(norm):
        return childtuning.fisher_information(
            lambda p, batch: jnp.sum(p * batch[0]),
            jnp.ones(2),
            [3.0 * jnp.ones((1, 2))],
            convention="authors",
            clip_norm=norm,
        )

    np.testing.assert_allclose(information(jnp.float32(1.0)), 0.5, rtol=1e-5)
    np.testing.assert_array_equal(information(np.float64(1.0)), information(1.0))


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


def test_a_leaf_beside_a_hidden_subtree_is_left_over():
    class Model(NamedTuple):
        kernel: Any
        bias: Any

    class Larger(NamedTuple):
        kernel: Any
        bias: Any
        bias_2: Any

    hidden = Model(jnp.ones(3), optax.MaskedNode())
    kernel, bias = np.ones(3, bool), {"hidden": np.ones(1, bool)}
    arguments.require_mask(Model(kernel, bias), hidden)
    with pytest.raises(ValueError, match=r"a leaf at '\.bias_2'"):
        arguments.require_mask(Larger(kernel, bias, np.ones(1, bool)), hidden)
