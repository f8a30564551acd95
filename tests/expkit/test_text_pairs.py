"""The bi-encoder against the encoder, and pairs as a config names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_texts
from random_encoder import random_params

from expkit import config as config_lib
from expkit import text, text_pairs

SIZES = text.EncoderConfig(
    12, 8, 1, 2, 16, 10, hidden_dropout=0.0, attention_dropout=0.0
)
RUN = jax.jit(text.apply_encoder, static_argnums=0)
IDS_1 = jnp.array([[3, 4, 5, 0], [6, 0, 0, 0]], jnp.int32)
IDS_2 = jnp.array([[7, 8, 0, 0], [3, 4, 5, 9]], jnp.int32)


@pytest.fixture(scope="module")
def load(tmp_path_factory, pytestconfig):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"), num_token_types=2)

    def call(**options):
        path = f"{pytestconfig.rootpath}/configs/cosent/api_docs_pairs.py:smoke"
        config = tiny_texts.load(path, folder)
        config.update({"text_columns": ("text", "other"), "label_column": "label"})
        config.update(options)
        return config

    return call


def test_each_text_of_a_pair_has_the_mean_of_its_own_hidden_states():
    encoder = random_params(SIZES)
    net = text_pairs.bi_encoder(SIZES, 0, 3, encoder, dropout=0.5)
    params = net.init(jax.random.key(0))
    assert params["head"]["w"].shape == (24, 3)
    out = jax.jit(net.apply)(params, {"ids_1": IDS_1, "ids_2": IDS_2})
    for vectors, ids in zip(out, (IDS_1, IDS_2), strict=True):
        hidden = np.asarray(RUN(SIZES, encoder, ids, ids > 0), float)
        lengths = np.asarray(ids > 0).sum(axis=1)
        expected = [h[:n].mean(axis=0) for h, n in zip(hidden, lengths, strict=True)]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_parameters_are_copies_of_the_encoder_that_was_given():
    encoder = random_params(SIZES)
    net = text_pairs.bi_encoder(SIZES, 0, 3, encoder, dropout=0.0)
    one, other = net.init(jax.random.key(0)), net.init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, one["encoder"], encoder)
    assert all(
        a is not b
        for a, b in zip(
            jax.tree.leaves(one["encoder"]), jax.tree.leaves(encoder), strict=True
        )
    )
    assert np.abs(one["head"]["w"] - other["head"]["w"]).max() > 0


def test_texts_are_encoded_apart_or_as_one_sequence(load):
    pytest.importorskip("tokenizers")
    apart = text_pairs.load_pairs(load()).splits["train"]
    together = text_pairs.load_pairs(load(model="interaction")).splits["train"]
    assert sorted(apart) == ["ids_1", "ids_2", "label"]
    assert sorted(together) == ["ids", "label", "types"]
    lengths = [np.sum(apart[f"ids_{i}"] != 0, axis=1) for i in (1, 2)]
    np.testing.assert_array_equal(np.sum(together["types"], axis=1), lengths[1])
    np.testing.assert_array_equal(np.sum(together["ids"] != 0, axis=1), sum(lengths))
    np.testing.assert_array_equal(apart["label"], together["label"])
    assert apart["label"].dtype == np.float32


def test_rows_are_drawn_by_seed(load):
    pytest.importorskip("tokenizers")
    one, same, other = (
        text_pairs.load_pairs(load(num_labels=20, seed=seed)).splits["train"]
        for seed in (0, 0, 1)
    )
    assert len(one["label"]) == 20
    np.testing.assert_array_equal(one["ids_1"], same["ids_1"])
    assert (one["ids_1"] != other["ids_1"]).any()


def test_training_labels_that_are_all_the_same_are_refused(load, tmp_path):
    pytest.importorskip("tokenizers")
    for split in ("train", "validation", "test"):
        tiny_texts.write_lines(
            tmp_path, split, ["text,other,label", "好,房,1", "坏,书,1"]
        )
    config = load(batch_size=1, train_split="train", validation_split="validation")
    config.update({"test_split": "test", "dataset": f"file:{tmp_path}/{{split}}.csv"})
    with pytest.raises(ValueError, match=r"have the label 1\.0: there is nothing"):
        text_pairs.load_pairs(config)
    with pytest.raises(config_lib.ConfigError, match="model='both' is unknown"):
        text_pairs.load_pairs(load(model="both"))
