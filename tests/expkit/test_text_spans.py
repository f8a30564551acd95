"""Texts with spans as a config names them, the tagger, labels of cells, and the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_texts

from expkit import text, text_spans

pytest.importorskip("tokenizers")
TRAIN = [("好", "B-good"), ("书", "O"), ("坏", "B-bad"), ("苦", "I-bad"), ("店", "O")]
OTHER = [("房", "O"), ("好", "B-new"), ("美", "B-good")]


@pytest.fixture(scope="module")
def load(tmp_path_factory, pytestconfig):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"))
    for split, rows, count in (
        ("train", TRAIN, 6),
        ("dev", OTHER, 3),
        ("test", OTHER, 2),
    ):
        lines = [f"{token} {tag}" for token, tag in rows]
        content = "\n\n".join(["\n".join(lines)] * count) + "\n"
        (folder / f"{split}.conll").write_text(content, encoding="utf-8")

    def call(**options):
        path = f"{pytestconfig.rootpath}/configs/gp_kl/news_entities.py:smoke"
        config = tiny_texts.load(path, folder)
        config.dataset = f"file:{folder}/{{split}}.conll"
        config.update({"train_split": "train", "validation_split": "dev"})
        config.update(
            {"test_split": "test", "max_length": 16, "batch_size": 2} | options
        )
        return config

    return call


def test_windows_have_the_spans_of_known_types_and_texts_all_of_them(load):
    spans = text_spans.load_spans(load())
    assert spans.types == ("bad", "good")
    arrays = spans.arrays("train")
    assert text_spans.listed(arrays["spans"])[0] == [(0, 4, 6), (1, 0, 0)]
    assert arrays["is_token"][0].sum() == 9  # tokens are joined by spaces
    assert text_spans.listed(spans.arrays("test")["spans"]) == [[(1, 4, 4)]] * 2
    kinds = {kind for found in spans.splits["test"].spans for kind, _, _ in found}
    assert kinds == {"new", "good"}  # a type that training lacks counts as missed


def test_labels_are_the_cells_of_the_spans():
    spans = jnp.array([[[0, 2, 3], [1, 0, 0]], [[1, 1, 1], [-1, -1, -1]]])
    labels = text_spans.dense_labels(spans, jnp.zeros((2, 2, 4, 4)))
    expected = np.zeros((2, 2, 4, 4), bool)
    expected[0, 0, 2, 3] = expected[0, 1, 0, 0] = expected[1, 1, 1, 1] = True
    np.testing.assert_array_equal(labels, expected)
    jitted = jax.jit(text_spans.dense_labels)(spans, jnp.zeros((2, 2, 4, 4)))
    np.testing.assert_array_equal(jitted, expected)


def test_the_head_gets_the_hidden_states_and_which_are_tokens(load):
    spans = text_spans.load_spans(load(dropout=0.0))
    net = text_spans.tagger(
        spans,
        lambda key: {"w": jax.random.normal(key, (8, 3))},
        lambda head, hidden, is_token: (hidden @ head["w"]) * is_token[..., None],
    )
    params = net.init(jax.random.key(0))
    x = text_spans.inputs({k: v[:2] for k, v in spans.arrays("train").items()})
    out = jax.jit(net.apply)(params, x)
    run = jax.jit(text.apply_encoder, static_argnums=0)
    hidden = run(spans.sizes, spans.encoder, x["ids"], x["ids"] != spans.pad_id)
    expected = np.asarray(hidden, float) @ np.asarray(params["head"]["w"], float)
    expected *= x["is_token"][..., None]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    offset = jax.random.normal(jax.random.key(1), (*x["ids"].shape, 8))
    moved = jax.jit(net.apply)(params, {**x, "offset": offset})
    assert np.abs(moved - out).max() > 1e-2


def test_what_is_found_in_windows_is_told_in_characters(load, monkeypatch):
    monkeypatch.setattr(text_spans, "EVALUATION_ROWS", 4)  # 6 rows: one batch is padded
    spans = text_spans.load_spans(load())
    found = text_spans.find_spans(
        lambda batch: jnp.asarray(batch["spans"]),
        lambda rows: [tuple(row) for row in rows.tolist() if row[0] >= 0],
        spans.arrays("train"),
        spans.splits["train"].rows,
    )
    assert found == spans.splits["train"].spans
    assert found[0] == {("good", 0, 0), ("bad", 4, 6)}


def test_training_texts_are_drawn_by_seed(load):
    spans = text_spans.load_spans(load(num_labels=4))
    assert len(spans.splits["train"].texts) == 4
    assert len(spans.splits["test"].texts) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "words"}, "set text_column and span_column"),
        (
            {"text_column": "tags"},
            r"'tags' of .* holds \['B-good', .* which is no text",
        ),
        ({"span_column": "text"}, "'text' of .* which is no list of spans"),
        ({"span_column": "tokens"}, r"holds \['好', .* which is no list of spans"),
        ({"num_labels": -1}, "num_labels must be in 0..6, got -1"),
        ({"batch_size": 7}, "batch_size must be at most 6"),
    ],
)
def test_what_cannot_be_used_is_refused(load, options, message):
    with pytest.raises(ValueError, match=message):
        text_spans.load_spans(load(**options))
