"""The text encoder: padding, rotary positions, size, output bias, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import text, text_nets

VOCABULARY, LENGTH, WIDTH, DEPTH = 11, 8, 12, 1


def make(**options):
    sizes = {"max_length": LENGTH, "width": WIDTH, "depth": DEPTH, "num_heads": 3}
    return text_nets.text_encoder(VOCABULARY, **(sizes | options))


@functools.cache
def initial():
    return jax.jit(make().init)(jax.random.key(0))


@functools.cache
def apply():
    return jax.jit(make().apply)


@pytest.fixture
def ids():
    drawn = np.random.default_rng(0).integers(3, VOCABULARY, (4, LENGTH))
    return drawn.astype(np.int32)


def test_logits_are_float32_of_the_agreed_shape_and_rows_do_not_mix(ids):
    out = apply()(initial(), ids)
    assert out.shape == (4, LENGTH, VOCABULARY)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(apply()(initial(), ids[:1]), out[:1], atol=1e-5)
    np.testing.assert_allclose(make().apply(initial(), ids), out, atol=1e-5)


def test_padding_does_not_influence_the_logits(ids):
    short = ids[:, :5]
    padded = np.concatenate([short, np.zeros_like(ids[:, 5:])], axis=1)
    without, within = apply()(initial(), short), apply()(initial(), padded)
    np.testing.assert_allclose(within[:, :5], without, rtol=1e-5, atol=1e-6)
    unmasked = apply()(initial(), np.where(padded == 0, 1, padded))
    assert not np.allclose(unmasked[:, :5], without, atol=1e-4)


@jax.jit
def gradient(params, ids):
    return jax.grad(lambda p: jnp.sum(make().apply(p, ids) ** 2))(params)


def test_an_empty_row_is_finite_and_so_is_its_gradient(ids):
    ids[0] = 0
    grads = gradient(initial(), ids)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_gradients_reach_every_leaf(ids):
    grads = gradient(initial(), ids)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.any(grad), path


def test_the_order_of_tokens_matters(ids):
    params = initial()
    forward, backward = apply()(params, ids), apply()(params, ids[:, ::-1])
    assert not np.allclose(forward, backward[:, ::-1], atol=1e-4)


def test_rotary_scores_depend_on_the_difference_of_positions_only():
    queries, keys = jax.random.normal(jax.random.key(0), (2, 5, 16))

    def scores(start):
        positions = start + jnp.arange(5)
        rotated = [text_nets.rotary(x, positions) for x in (queries, keys)]
        return rotated[0] @ rotated[1].T

    np.testing.assert_allclose(scores(0), scores(37), rtol=1e-4, atol=1e-4)
    assert not np.allclose(scores(0), queries @ keys.T, atol=1e-2)


def test_rotary_is_the_turn_of_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    positions = np.array([0, 1, 5, 63])
    angles = positions[:, None] * 10000.0 ** (-2 * np.arange(3) / 6)
    turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(text_nets.rotary(x, positions), expected, atol=1e-5)
    low = text_nets.rotary(jnp.asarray(x, jnp.bfloat16), positions)
    assert low.dtype == jnp.bfloat16


def test_attention_is_that_of_jax_on_rotated_queries_and_keys():
    queries, keys, values = jax.random.normal(jax.random.key(1), (3, 2, 3, LENGTH, 4))
    mask = np.arange(LENGTH) < np.array([[5], [8]])

    @jax.jit
    def both(queries, keys, values):
        rotated = [text_nets.rotary(x, np.arange(LENGTH)) for x in (queries, keys)]
        swapped = [jnp.swapaxes(x, 1, 2) for x in (*rotated, values)]
        expected = jax.nn.dot_product_attention(*swapped, mask=mask[:, None, None, :])
        got = text_nets.attention(queries, keys, values, mask)
        return got, jnp.swapaxes(expected, 1, 2)

    got, expected = both(queries, keys, values)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_output_starts_near_its_bias_which_is_copied(ids):
    bias = np.linspace(-8.0, 0.0, VOCABULARY)
    net = make(output_bias=bias)
    first, second = (net.init(jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_allclose(first["bias"], bias, rtol=1e-6)
    assert first["bias"].unsafe_buffer_pointer() != (
        second["bias"].unsafe_buffer_pointer()
    )
    logits = jax.jit(net.apply)(first, ids)
    assert np.abs(logits - bias.astype(np.float32)[None, None]).max() < 0.5


def test_the_number_of_parameters_is_the_closed_formula():
    norm, w = 2 * WIDTH, WIDTH
    block = 2 * norm + 3 * w * w + (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w)
    expected = VOCABULARY * w + VOCABULARY + 2 * norm + 3 * block
    params = jax.eval_shape(make(depth=3).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_dropout_acts_with_a_key_only_and_differs_between_keys(ids):
    dropped, keys = (
        jax.jit(make(dropout=0.5).apply),
        jax.random.split(jax.random.key(1)),
    )
    without = dropped(initial(), ids)
    np.testing.assert_array_equal(apply()(initial(), ids, keys[0]), without)
    drawn = [dropped(initial(), ids, key) for key in keys]
    assert not np.allclose(drawn[0], without)
    assert not np.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "width=9 .* num_heads=3"),
        ({"depth": 0}, "depth .* got 0"),
        ({"dropout": 1.0}, r"dropout .* got 1\.0"),
        ({"output_bias": np.zeros(3)}, r"output_bias must be \[11\], got \(3,\)"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_row_that_is_too_long_is_refused(ids):
    with pytest.raises(ValueError, match=r"max_length is 4, got ids \(4, 8\)"):
        make(max_length=4).apply(initial(), ids)


def test_outputs_at_positions_are_those_of_the_whole_row(ids):
    positions = np.array([[0, 3], [7, 1], [2, 2], [4, 5]])
    got = apply()(initial(), (ids, positions))
    whole = apply()(initial(), ids)
    wanted = np.take_along_axis(np.asarray(whole), positions[:, :, None], axis=1)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def language_model(**options):
    sizes = {"hidden_size": 12, "num_layers": 1, "num_heads": 3, "max_positions": 8}
    config = text.EncoderConfig(VOCABULARY, intermediate_size=24, **sizes)
    return config, text_nets.encoder_language_model(config, **options)


def test_a_encoder_language_model_is_its_encoder_times_the_embeddings(ids):
    bias = np.linspace(-1, 1, VOCABULARY)
    config, net = language_model(output_bias=bias)
    params = jax.jit(net.init)(jax.random.key(0))
    run, apply = jax.jit(text.apply_encoder, static_argnums=0), jax.jit(net.apply)
    hidden = run(config, params["encoder"], ids, ids != text.PAD)
    word = params["encoder"]["embeddings"]["word"]
    wanted = np.einsum("bnd,vd->bnv", hidden, word) + bias[None, None]
    np.testing.assert_allclose(apply(params, ids), wanted, atol=1e-5)
    positions = np.array([[0, 3], [7, 1], [2, 2], [4, 5]])
    got = apply(params, (ids, positions))
    wanted = np.take_along_axis(wanted, positions[:, :, None], axis=1)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_kernels_start_with_a_variance_of_one_over_their_inputs():
    kernel = 0.02 * np.random.default_rng(0).normal(size=(400, 100))
    got = text_nets.unit_gain(jnp.asarray(kernel))
    np.testing.assert_allclose(np.std(got), 1 / 20, rtol=0.02)
    bias = jnp.ones(3)
    assert text_nets.unit_gain(bias) is bias
