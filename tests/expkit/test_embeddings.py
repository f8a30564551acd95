"""Sentence embeddings against PyTorch and transformers, and how often they compile.

The reference embeddings are in encoder_references.json, made in float64 by
make_encoder_references.py: run it with torch and transformers to make them anew.
"""

import base64
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_encoder import random_params

from expkit import text
from expkit.testing.compilation import count_compilations

pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

REFERENCES = json.loads(
    Path(__file__).with_name("encoder_references.json").read_text(encoding="utf-8")
)
TEXTS = REFERENCES["texts"]
EXPECTED = np.frombuffer(base64.b64decode(REFERENCES["embeddings"]), "<f4").reshape(
    len(TEXTS), -1
)
CONFIG = text.EncoderConfig(
    vocab_size=9,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    intermediate_size=8,
    max_positions=128,
)


@pytest.fixture
def tiny(tmp_path):
    """A character encoder of a few parameters, in a folder."""
    save(tmp_path, 0)
    return tmp_path


def save(folder, seed):
    params = random_params(CONFIG, seed)
    vocabulary = text.CharVocabulary(tuple("abcdef"))
    text.save_encoder(folder, CONFIG, params, dtype="float32", tokenizer=vocabulary)


@pytest.mark.slow
def test_embeddings_are_those_of_transformers():
    got = text.sentence_embeddings(TEXTS)
    assert got.shape == (15, 384)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, EXPECTED, rtol=0, atol=1e-6)
    # The bar is far below the distance to the embedding of another text.
    assert np.abs(got[1:] - EXPECTED[0]).max(axis=1).min() > 1e-3


def test_short_texts_have_the_embeddings_of_transformers():
    chosen = [TEXTS.index(""), TEXTS.index("A sentence."), 5]
    got = text.sentence_embeddings([TEXTS[i] for i in chosen], max_length=32)
    np.testing.assert_allclose(got, EXPECTED[chosen], rtol=0, atol=1e-6)


def test_order_batches_and_neighbours_change_nothing(tiny):
    sentences = ["abc", "", "f" * 40, "a b c"]
    got = text.sentence_embeddings(sentences * 2, encoder=tiny, batch_size=4)
    alone = [text.sentence_embeddings([s], encoder=tiny)[0] for s in sentences]
    np.testing.assert_allclose(got, alone * 2, atol=1e-6)
    norms = np.linalg.norm(got, axis=1)
    expected = [1.0 if s else 0.0 for s in sentences * 2]
    np.testing.assert_allclose(norms, expected, atol=1e-6)


def test_embeddings_are_the_normalised_mean_of_the_states(tiny):
    config, params = text.load_encoder(tiny)
    apply = jax.jit(text.apply_encoder, static_argnums=0)
    hidden = apply(config, params, np.array([[3, 4, 8]]), np.array([[1, 1, 1]]))
    mean = np.asarray(hidden, np.float64)[0].mean(axis=0)
    got = text.sentence_embeddings(["abf"], encoder=tiny)
    np.testing.assert_allclose(got[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_the_number_of_compilations_is_bounded(tiny):
    rng = np.random.default_rng(0)
    sentences = ["a" * n for n in rng.integers(0, 200, 300)]
    jax.clear_caches()
    with count_compilations() as log:
        text.sentence_embeddings(sentences, encoder=tiny, batch_size=16)
    compiled = [name for name in log.names if "_embed" in name]
    assert 2 <= len(compiled) <= 4  # lengths 32, 64 and 128, and the batch left over
    with count_compilations() as log:
        text.sentence_embeddings(sentences[::-1], encoder=tiny, batch_size=16)
    assert log.names == []


def test_no_sentences_give_no_rows(tiny):
    assert text.sentence_embeddings([], encoder=tiny).shape == (0, 8)


def test_an_encoder_is_read_once_until_its_files_change(tiny, monkeypatch):
    embeddings = text.sentence_embeddings.__globals__
    original, reads = embeddings["load_encoder"], []

    def counted(path):
        reads.append(path)
        return original(path)

    monkeypatch.setitem(embeddings, "load_encoder", counted)
    first = text.sentence_embeddings(["abc"], encoder=tiny)
    again = text.sentence_embeddings(["abc"], encoder=str(tiny))
    assert len(reads) == 1
    np.testing.assert_array_equal(first, again)
    save(tiny, 1)
    other = text.sentence_embeddings(["abc"], encoder=tiny)
    assert len(reads) == 2
    assert np.abs(other - first).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mean_pooling_is_the_mean_of_what_is_not_masked(dtype):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(3, 5, 4)), dtype)
    mask = np.arange(5) < np.array([[5], [2], [0]])
    got = jax.jit(text.mean_pool)(hidden, mask)
    exact = np.asarray(hidden.astype(jnp.float32), np.float64)
    expected = [exact[0].mean(axis=0), exact[1, :2].mean(axis=0), np.zeros(4)]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    hidden = hidden.at[1, 2:].set(jnp.nan)
    np.testing.assert_array_equal(text.mean_pool(hidden, mask), got)


def test_the_gradient_of_mean_pooling_is_finite_without_tokens():
    def total(hidden):
        return jnp.sum(text.mean_pool(hidden, jnp.zeros((2, 3), bool)) ** 2)

    np.testing.assert_array_equal(jax.grad(total)(jnp.ones((2, 3, 4))), 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_length": 129}, "at most 128, the positions of the encoder, got 129"),
        ({"max_length": 0}, "max_length must be at least 1.*got 0"),
        ({"encoder": "nowhere"}, "'nowhere' is not a folder"),
    ],
)
def test_wrong_arguments_are_named(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        text.sentence_embeddings(["a"], **{"encoder": tiny, **arguments})


def test_one_string_is_no_list_of_sentences(tiny):
    with pytest.raises(TypeError, match="a list of strings, got one: 'abc'"):
        text.sentence_embeddings("abc", encoder=tiny)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 4\)"):
        text.mean_pool(np.ones((2, 3, 4)), np.ones((2, 4)))


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(tmp_path):
    params = random_params(CONFIG)
    vocabulary = text.CharVocabulary(tuple("abcdefg"))
    text.save_encoder(tmp_path, CONFIG, params, tokenizer=vocabulary)
    with pytest.raises(ValueError, match="10 ids and the encoder 9 embeddings"):
        text.sentence_embeddings(["a"], encoder=tmp_path)
