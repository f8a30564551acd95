"""The encoder against a network written with numpy in float64, and its properties.

transformers' numbers for it are in test_embeddings.py and test_weights.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_encoder import random_params

from expkit import text
from expkit.testing.derivatives import (
    finite_difference_gradient,
    inner_product,
    random_direction,
)
from expkit.text.dropout import dropout, dropout_seeds

CONFIG = text.EncoderConfig(
    vocab_size=20,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    intermediate_size=12,
    max_positions=10,
    layer_norm_eps=1e-6,
)
SIZES = dataclasses.asdict(CONFIG)
IDS = np.random.default_rng(0).integers(0, 20, (3, 7)).astype(np.int32)
MASK = np.arange(7) < np.array([[7], [4], [1]])
PARAMS = random_params(CONFIG)
RUN = jax.jit(text.apply_encoder, static_argnums=0)


def by_numpy(config, params, ids, mask, types):
    """Devlin et al. 2019, one row and one head at a time, padding cut off."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return (
            p["scale"] * centred / np.sqrt(variance + config.layer_norm_eps)
            + (p["bias"])
        )

    rows = []
    for row, keep, kinds in zip(ids, mask, types, strict=True):
        tables = params["embeddings"]
        x = tables["word"][row[keep]] + tables["token_type"][kinds[keep]]
        x = norm(tables["norm"], x + tables["position"][: len(x)])
        for i in range(config.num_layers):
            p = params["layer"][i]
            means = []
            for head in np.split(np.arange(config.hidden_size), config.num_heads):
                q, k, v = (dense(p[n], x)[:, head] for n in ("query", "key", "value"))
                weights = np.exp(q @ k.T / math.sqrt(len(head)))
                means.append(weights / weights.sum(axis=1, keepdims=True) @ v)
            h = dense(p["merge"], np.concatenate(means, axis=1))
            x = norm(p["attention_norm"], x + h)
            h = dense(p["expand"], x)
            h *= 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
            x = norm(p["output_norm"], x + dense(p["contract"], h))
        rows.append(x)
    return np.concatenate(rows)


def test_hidden_states_are_those_of_the_definition():
    types = np.random.default_rng(1).integers(0, 2, IDS.shape)
    got = RUN(CONFIG, PARAMS, IDS, MASK, token_type_ids=types)
    expected = by_numpy(CONFIG, PARAMS, IDS, MASK, types)
    np.testing.assert_allclose(got[MASK], expected, atol=3e-6)
    other = by_numpy(CONFIG, PARAMS, IDS, MASK, 1 - types)
    assert np.abs(other - expected).max() > 0.01


def test_float64_is_exact():
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
        got = RUN(CONFIG, params, IDS, MASK)
        assert got.dtype == jnp.float64
    expected = by_numpy(CONFIG, PARAMS, IDS, MASK, np.zeros_like(IDS))
    np.testing.assert_allclose(got[MASK], expected, atol=1e-12)


def test_padding_has_no_influence():
    changed = np.where(MASK, IDS, 19 - IDS)
    longer = np.pad(changed, ((0, 0), (0, 3)), constant_values=5)
    for key in (None,):
        one = RUN(CONFIG, PARAMS, IDS, MASK, key=key)
        two = RUN(CONFIG, PARAMS, changed, MASK, key=key)
        np.testing.assert_array_equal(one[MASK], two[MASK])
    long_mask = np.pad(MASK, ((0, 0), (0, 3)))
    three = RUN(CONFIG, PARAMS, longer, long_mask)
    np.testing.assert_allclose(three[long_mask], one[MASK], atol=2e-6)


def test_a_row_of_padding_alone_is_finite_in_value_and_gradient():
    def total(params):
        return jnp.sum(RUN(CONFIG, params, IDS, np.zeros_like(MASK)) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(total))(PARAMS)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_follows_the_key():
    plain = RUN(CONFIG, PARAMS, IDS, MASK)
    one, same, other = (
        RUN(CONFIG, PARAMS, IDS, MASK, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    assert np.abs(one - plain).max() > 0.01


@pytest.mark.parametrize("name", ["hidden_dropout", "attention_dropout"])
def test_each_kind_of_dropout_acts(name):
    none = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    off = text.EncoderConfig(**SIZES | none)
    key = jax.random.key(0)
    plain = RUN(off, PARAMS, IDS, MASK)
    np.testing.assert_array_equal(RUN(off, PARAMS, IDS, MASK, key=key), plain)
    on = text.EncoderConfig(**SIZES | none | {name: 0.5})
    assert np.abs(RUN(on, PARAMS, IDS, MASK, key=key) - plain).max() > 0.01


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_of_dropout_are_independent_and_have_the_rate(rate):
    seeds = np.asarray(dropout_seeds(jax.random.key(0), 24))
    # Words that differ in one bit, or in one place only, too.
    seeds = np.concatenate([seeds, seeds[:1] ^ [[1, 0]], seeds[:1] ^ [[0, 1]]])
    seeds = jnp.asarray(seeds.astype(np.uint32))
    size = 4096
    x = jnp.ones((16, size // 16))
    out = np.asarray(jax.jit(jax.vmap(lambda s: dropout(x, rate, s)))(seeds))
    out = out.reshape(len(seeds), size).astype(np.float64)
    values = np.unique(out)
    np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)
    kept = out > 0
    # Correlations of n independent pairs are normal with deviation 1/sqrt(n); 5 of
    # them leave 1 in a million for each of the 325 pairs and 128 lags.
    bound = 5 / math.sqrt(size)
    deviation = math.sqrt(rate * (1 - rate))
    assert np.abs(kept.mean(axis=1) - (1 - rate)).max() < bound * deviation
    centred = (kept - (1 - rate)) / deviation
    between = centred @ centred.T / size
    assert np.abs(between[~np.eye(len(seeds), dtype=bool)]).max() < bound
    for lag in range(1, 129):
        within = (centred[:, lag:] * centred[:, :-lag]).mean(axis=1)
        assert np.abs(within.mean()) < bound / math.sqrt(len(seeds) / 2)


def test_gradients_are_finite_differences():
    config = dataclasses.replace(CONFIG, num_layers=1)
    params = {**PARAMS, "layer": {0: PARAMS["layer"][0]}}
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)

        @jax.jit
        def loss(params):
            hidden = text.apply_encoder(
                config, params, IDS, MASK, key=jax.random.key(0)
            )
            return jnp.sum(jnp.sin(text.mean_pool(hidden, MASK)))

        direction = random_direction(params)
        got = inner_product(jax.jit(jax.grad(loss))(params), direction)
        expected = finite_difference_gradient(loss, params, direction)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_bfloat16_parameters_give_bfloat16_states_near_the_others():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    got = RUN(CONFIG, params, IDS, MASK, key=None)
    assert got.dtype == jnp.bfloat16
    expected = RUN(CONFIG, PARAMS, IDS, MASK)
    difference = np.abs(got.astype(jnp.float32) - expected)[MASK]
    assert np.median(difference) < 0.02


def test_parameters_start_as_those_of_bert():
    config = text.EncoderConfig(**SIZES | {"vocab_size": 4000})
    params = text.init_encoder(config, jax.random.key(0))
    word = np.asarray(params["embeddings"]["word"])
    assert abs(word.std() - 0.02) < 4 * 0.02 / math.sqrt(2 * word.size)
    assert not params["layer"][1]["merge"]["bias"].any()
    assert (params["layer"][0]["output_norm"]["scale"] == 1).all()
    assert set(params) == {"embeddings", "layer"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, r"num_layers must be at least 1 .*, got 0"),
        ({"hidden_size": 2**31}, r"hidden_size must be .* below 2\*\*31"),
        ({"layer_norm_eps": 0.0}, r"layer_norm_eps must be above 0, got 0\.0"),
        ({"hidden_dropout": 1.0}, r"hidden_dropout must be in \[0, 1\), got 1\.0"),
        ({"attention_dropout": -0.1}, "attention_dropout must be in"),
        ({"num_heads": 3}, "hidden_size=8 does not divide into num_heads=3"),
        ({"activation": "mish"}, "activation must be one of gelu, .*'mish'"),
    ],
)
def test_sizes_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        text.EncoderConfig(**SIZES | change)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (IDS, MASK[:2], r"got \(3, 7\), \(2, 7\)"),
        (IDS[0], MASK[0], r"must be \[batch, n\], got \(7,\)"),
        (np.tile(IDS, 2), np.tile(MASK, 2), "14 tokens and the encoder 10 positions"),
    ],
)
def test_wrong_shapes_are_named(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        text.apply_encoder(CONFIG, PARAMS, ids, mask)
