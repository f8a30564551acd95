"""Two passes see different dropout, and the two ways to make them are equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdrop import consistency_loss, rdrop_loss, two_passes
from rdrop.passes import MODES

KEY = jax.random.key(0)
BATCH = 6


def example():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 16)), "v": rng.normal(size=(16, 3))}
    x = {"x": rng.normal(size=(BATCH, 5)), "scale": rng.normal(size=BATCH)}
    return jax.tree.map(lambda a: a.astype(np.float32), (params, x))


def network(params, x, mask):
    hidden = jnp.tanh(x["x"] @ params["w"]) * x["scale"][:, None]
    return {
        "logits": jnp.where(mask, 2.0 * hidden, 0.0) @ params["v"],
        "hidden": hidden,
    }


def apply_fn(params, x, key):
    mask = jax.random.bernoulli(key, 0.5, (len(x["x"]), 16))
    return network(params, x, mask)


def with_masks_of_two_passes(params, x, key):
    """The same dropout whether called twice or on the doubled batch."""
    keys = jax.random.split(key) if len(x["x"]) > BATCH else key[None]
    masks = [jax.random.bernoulli(k, 0.5, (BATCH, 16)) for k in keys]
    return network(params, x, jnp.concatenate(masks))


def with_shared_key(apply_fn, params, x, key):
    """The mistake: both passes drop the same units."""
    return apply_fn(params, x, key), apply_fn(params, x, key)


@pytest.mark.parametrize("mode", MODES)
def test_the_passes_drop_different_units_and_a_shared_key_would_not(mode):
    params, x = example()

    def divergence(passes):
        first, second = passes(apply_fn, params, x, KEY)
        np.testing.assert_array_equal(first["hidden"], second["hidden"])
        return consistency_loss(first["logits"], second["logits"])

    assert divergence(functools.partial(two_passes, mode=mode)) > 0.1
    assert divergence(with_shared_key) == 0.0


@pytest.mark.parametrize("mode", MODES)
def test_no_row_has_the_dropout_of_another(mode):
    params, _ = example()
    x = {"x": np.ones((BATCH, 5), np.float32), "scale": np.ones(BATCH, np.float32)}
    outputs = two_passes(apply_fn, params, x, KEY, mode=mode)
    logits = np.concatenate([out["logits"] for out in outputs])
    assert len(np.unique(logits.round(5), axis=0)) == 2 * BATCH


def test_the_modes_are_equal_given_the_same_masks():
    params, x = example()
    labels = np.arange(BATCH) % 3

    def run(apply_fn, mode):
        def loss(params):
            outputs = two_passes(apply_fn, params, x, KEY, mode=mode)
            return rdrop_loss(*(out["logits"] for out in outputs), labels, 3.0)

        return jax.jit(jax.value_and_grad(loss))(params)

    two, concat = (run(with_masks_of_two_passes, mode) for mode in MODES)
    assert abs(run(apply_fn, "concat")[0] - two[0]) > 1e-2  # other masks
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), two, concat
    )


def test_the_first_pass_is_the_network_at_the_first_part_of_the_key():
    params, x = example()
    got = two_passes(apply_fn, params, x, KEY)
    for out, key in zip(got, jax.random.split(KEY), strict=True):
        jax.tree.map(np.testing.assert_array_equal, out, apply_fn(params, x, key))


@pytest.mark.parametrize("mode", MODES)
def test_the_key_decides_the_outputs(mode):
    params, x = example()
    passes = jax.jit(
        lambda key: two_passes(apply_fn, params, x, key, mode=mode)[0]["logits"]
    )
    np.testing.assert_array_equal(passes(KEY), passes(KEY))
    assert not np.allclose(passes(KEY), passes(jax.random.key(1)))


@pytest.mark.parametrize("mode", MODES)
def test_without_dropout_the_divergence_and_its_gradient_are_exactly_zero(mode):
    params, x = example()

    def plain(params, x, key):
        return network(params, x, True)["logits"]

    def loss(params):
        return consistency_loss(*two_passes(plain, params, x, KEY, mode=mode))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert value == 0.0
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradient)


@pytest.mark.parametrize("mode", MODES)
def test_passes_can_be_batched_over_keys(mode):
    params, x = example()

    def logits(key):
        outputs = two_passes(apply_fn, params, x, key, mode=mode)
        return jnp.stack([out["logits"] for out in outputs])

    keys = jax.random.split(KEY, 3)
    got = jax.jit(jax.vmap(logits))(keys)
    expected = jnp.stack([logits(key) for key in keys])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tow"}, "mode must be one of two, concat, got 'tow'. Did you mean"),
        ({"key": None}, "key must be a typed key, got None"),
        ({"mode": "concat", "x": np.float32(1.0)}, "one batch size, got the shapes"),
        (
            {"mode": "concat", "x": [np.ones((2, 3)), np.ones(3)]},
            r"one batch size, got the shapes \(2, 3\), \(3,\)",
        ),
        (
            {"mode": "concat", "apply_fn": lambda p, x, key: x.sum()},
            r"gave apply_fn 4 rows and got an output of shape \(\)",
        ),
    ],
)
def test_bad_input_is_named(options, message):
    arguments = {
        "apply_fn": lambda params, x, key: x,
        "params": {},
        "x": np.ones((2, 3)),
        "key": KEY,
    }
    with pytest.raises(ValueError, match=message):
        two_passes(**(arguments | options))
