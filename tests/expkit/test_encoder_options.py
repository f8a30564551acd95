"""Rotary positions, norms in front, and offsets: by numpy, and on disk."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_encoder import random_params

from expkit import text
from expkit.rotary import rotary

PLAIN = text.EncoderConfig(20, 8, 2, 2, 12, 10, layer_norm_eps=1e-6)
ROTARY = dataclasses.replace(PLAIN, is_rotary=True)
FIRST = dataclasses.replace(PLAIN, norm_first=True)
BOTH = dataclasses.replace(ROTARY, norm_first=True)
CONFIGS = {"plain": PLAIN, "rotary": ROTARY, "first": FIRST, "both": BOTH}
# Plain, and with all that is new; the others have one of two changes each.
most_configs = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("rotary", "first")))
        for name in CONFIGS
    ],
)
IDS = np.random.default_rng(0).integers(0, 20, (3, 7)).astype(np.int32)
MASK = np.arange(7) < np.array([[7], [4], [1]])
RUN = jax.jit(text.apply_encoder, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    return {name: random_params(config) for name, config in CONFIGS.items()}


def by_numpy(params, ids):
    """One row of `BOTH`: Su et al. 2021, and norms before each part and at the end."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return p["scale"] * centred / scale + p["bias"]

    def turned(x):  # pairs of coordinates as complex numbers
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(len(x)), 10000.0 ** (-np.arange(half) / half))
        return (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)

    tables = params["embeddings"]
    x = norm(tables["norm"], tables["word"][ids] + tables["token_type"][0])
    for i in range(2):
        p = params["layer"][i]
        h, means = norm(p["attention_norm"], x), []
        for head in np.split(np.arange(8), 2):
            q, k, v = (dense(p[name], h)[:, head] for name in ("query", "key", "value"))
            scores = np.exp((turned(q) @ turned(k).conj().T).real / 2)
            means.append(scores / scores.sum(axis=1, keepdims=True) @ v)
        x = x + dense(p["merge"], np.concatenate(means, axis=1))
        h = dense(p["expand"], norm(p["output_norm"], x))
        h *= 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        x = x + dense(p["contract"], h)
    return norm(params["norm"], x)


def test_rotary_states_with_norms_in_front_are_those_of_the_definition(params):
    got = RUN(BOTH, params["both"], IDS, MASK)
    for row, ids, mask in zip(got, IDS, MASK, strict=True):
        expected = by_numpy(params["both"], ids[mask])
        np.testing.assert_allclose(row[mask], expected, atol=5e-6)
    # The control: reversed texts have other states at the same tokens.
    other = by_numpy(params["both"], IDS[0][::-1])[::-1]
    assert np.abs(other - got[0]).max() > 0.01


@most_configs
def test_what_is_padding_influences_nothing(params, name):
    config = CONFIGS[name]
    offset = np.where(MASK[..., None], 0.0, 7.0) * np.ones(8)
    noise = jnp.asarray(offset, jnp.float32)
    whole = RUN(config, params[name], IDS, MASK, offset=0 * noise)
    other = np.where(MASK, IDS, (IDS + 5) % 20)
    changed = RUN(config, params[name], other, MASK, offset=noise)
    np.testing.assert_array_equal(changed[MASK], whole[MASK])
    # The control: the same change where the mask does not hide it.
    seen = RUN(config, params[name], other, np.ones_like(MASK), offset=noise)
    assert np.abs(seen - whole)[MASK].max() > 0.01


@most_configs
def test_padding_in_front_changes_nothing_where_positions_are_rotary(params, name):
    config, ids = CONFIGS[name], IDS[:, :6]
    mask = MASK[:, :6]
    plain = RUN(config, params[name], np.pad(ids, ((0, 0), (0, 4))), pad(mask, 0, 4))
    moved = RUN(config, params[name], np.pad(ids, ((0, 0), (4, 0))), pad(mask, 4, 0))
    distance = np.abs(moved[:, 4:][mask] - plain[:, :6][mask]).max()
    if config.is_rotary:
        assert distance < 5e-6
    else:  # the control
        assert distance > 0.01


def pad(mask, before, after):
    return np.pad(mask, ((0, 0), (before, after)))


def test_products_of_turned_rows_depend_on_the_difference_of_positions():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 6))
    with jax.enable_x64(True):
        turn = jax.jit(lambda x, p: rotary(x[None], p)[0])
        products = {
            (m, n): float(turn(q, jnp.array([m])) @ turn(k, jnp.array([n])))
            for m, n in ((0, 0), (9, 9), (2, 5), (11, 14), (5, 2))
        }
        norm = np.linalg.norm(turn(q, jnp.array([9])))
    assert products[0, 0] == pytest.approx(q @ k, abs=1e-6)
    assert products[9, 9] == pytest.approx(products[0, 0], abs=1e-6)
    assert products[11, 14] == pytest.approx(products[2, 5], abs=1e-6)
    assert abs(products[5, 2] - products[2, 5]) > 0.01
    assert norm == pytest.approx(np.linalg.norm(q), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_turned_rows_keep_shape_and_dtype(dtype):
    x = jnp.ones((2, 3, 4, 6), dtype)
    out = rotary(x, jnp.arange(4))
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(out[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("name", ["plain", "both"])
def test_no_offset_and_one_of_zeros_are_the_same(params, name):
    zeros = np.zeros((*IDS.shape, 8), np.float32)
    np.testing.assert_allclose(
        RUN(CONFIGS[name], params[name], IDS, MASK, offset=zeros),
        RUN(CONFIGS[name], params[name], IDS, MASK),
        atol=5e-7,  # two programs, which XLA fuses in different ways
    )


@pytest.mark.parametrize("name", ["plain", "both"])
def test_an_offset_is_added_to_the_embedding_of_its_token(params, name):
    config, table = CONFIGS[name], params[name]["embeddings"]["word"]
    others = (IDS + 3) % 20
    moved = RUN(config, params[name], IDS, MASK, offset=table[others] - table[IDS])
    expected = RUN(config, params[name], others, MASK)
    np.testing.assert_allclose(moved[MASK], expected[MASK], atol=5e-6)


@pytest.mark.parametrize(
    "name", [pytest.param("plain", marks=pytest.mark.slow), "both"]
)
def test_gradients_in_the_offset_are_finite_differences(params, name):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(*IDS.shape, 8))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params[name])

        @jax.jit
        def loss(offset):
            out = text.apply_encoder(CONFIGS[name], wide, IDS, MASK, offset=offset)
            return jnp.sum(weights * jnp.where(MASK[..., None], out, 0))

        zero = jnp.zeros((*IDS.shape, 8))
        gradient = jax.jit(jax.grad(loss))(zero)
        direction = jnp.asarray(rng.normal(size=zero.shape))
        step = 1e-5
        expected = (loss(step * direction) - loss(-step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(gradient, direction), expected, rtol=1e-7)
    assert not gradient[~MASK].any()
    assert (np.abs(gradient[MASK]).max(axis=-1) > 1e-3).all()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("rotary", "float32"),
        ("first", "float32"),
        ("both", "float32"),
        ("both", "float16"),
        pytest.param("rotary", "float16", marks=pytest.mark.slow),
        pytest.param("first", "float16", marks=pytest.mark.slow),
    ],
)
def test_what_is_written_is_read_back(params, tmp_path, name, dtype):
    text.save_encoder(tmp_path, CONFIGS[name], params[name], dtype=dtype)
    config, read = text.load_encoder(tmp_path)
    assert config == CONFIGS[name]
    assert jax.tree.structure(read) == jax.tree.structure(params[name])
    # Half precision has 11 bits, and steps of 2^-24 near 0.
    rtol, atol = (0.0, 0.0) if dtype == "float32" else (2.0**-11, 2.0**-25)
    for ours, theirs in zip(
        jax.tree.leaves(params[name]), jax.tree.leaves(read), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, rtol=rtol, atol=atol)
        assert theirs.dtype == jnp.float32


def test_an_encoder_that_is_no_bert_says_so(params, tmp_path):
    for name, config in CONFIGS.items():
        text.save_encoder(tmp_path / name, config, params[name])
    fields = {
        name: json.loads((tmp_path / name / "config.json").read_text())
        for name in CONFIGS
    }
    types = {name: content["model_type"] for name, content in fields.items()}
    assert types.pop("plain") == "bert"
    assert set(types.values()) == {"expkit_encoder"}
    assert not {"is_rotary", "norm_first"} & fields["plain"].keys()
    assert (fields["first"]["is_rotary"], fields["first"]["norm_first"]) == (
        False,
        True,
    )
    # Only an encoder of ours has the two fields.
    content = fields["plain"] | {"is_rotary": True, "norm_first": True}
    (tmp_path / "plain" / "config.json").write_text(json.dumps(content))
    assert text.load_encoder(tmp_path / "plain")[0] == PLAIN


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("is_rotary", 1, "is_rotary in .* must be bool, got 1"),
        ("norm_first", "yes", "norm_first in .* must be bool, got 'yes'"),
        ("num_attention_heads", 8, "is_rotary needs heads of even width, got 1"),
        ("model_type", "roformer", "model_type in .* is 'roformer'"),
    ],
)
def test_fields_that_cannot_be_used_are_named(params, tmp_path, field, value, message):
    text.save_encoder(tmp_path, BOTH, params["both"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=message):
        text.load_encoder(tmp_path)


def test_the_last_norm_must_be_in_the_file(params, tmp_path):
    text.save_encoder(tmp_path, ROTARY, params["rotary"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"norm_first": True}))
    with pytest.raises(ValueError, match=r"'encoder\.LayerNorm\.bias' is missing"):
        text.load_encoder(tmp_path)
