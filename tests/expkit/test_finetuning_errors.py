"""Configs and texts of fine-tuning that cannot be used are named before any work."""

import re

import jax
import numpy as np
import pytest
import tiny_texts

from expkit import finetuning, text

pytest.importorskip("tokenizers")

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def load(folder, repository_root):
    return lambda data=None: tiny_texts.load(
        f"{repository_root}/configs/rdrop/reviews.py:smoke", folder, data
    )


@pytest.fixture
def load_lines(load, tmp_path):
    """Makes a config whose three splits are a CSV file with these lines each."""

    def load_lines(train, test=None):
        for split in SPLITS:
            lines = test if test and split == "test" else train
            tiny_texts.write_lines(tmp_path, split, lines)
        return with_splits(load(tmp_path))

    return load_lines


def with_splits(config):
    """The same config with the splits of a folder, and all labels."""
    config.num_labels, config.batch_size = 0, 2
    for name in SPLITS:
        config[f"{name}_split"] = name
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text_columns": ("words",)},
            "the columns 'text', 'other', 'label', 'score', not ",
        ),
        ({"label_column": "class"}, "not 'class': set text_columns and label_column"),
        ({"text_columns": ()}, r"text_columns must be one or two, got \(\)"),
        ({"text_columns": ("text", "other")}, "cannot tell two texts apart"),
        ({"label_column": "other"}, "column 'other' has labels that are no numbers"),
        ({"num_labels": 59}, r"num_labels must be 0, 2\.\.58 or 60, got 59"),
        ({"num_labels": 1}, "got 1"),
        ({"num_layers": 3}, r"num_layers must be in 0\.\.2, got 3"),
        ({"num_layers": -1}, r"num_layers must be in 0\.\.2, got -1"),
        ({"batch_size": 21}, "batch_size must be at most 20, the training rows"),
        ({"max_length": 17}, "max_length must be at most 16, the positions"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"encoder": "nowhere"}, "encoder 'nowhere' is not a folder"),
        ({"train_split": "train[:0]"}, "train"),
    ],
)
def test_fields_that_cannot_be_used(load, changes, message):
    config = load()
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        finetuning.load_texts(config)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["text,label", "好,0", "坏,-1"], "label -1 in 'test' of .* is out of range"),
        (["text,label", "好,0", "坏,-1"], "finite numbers with a point, as -1.0"),
        (
            ["text, label", "好,0", "坏,1"],
            "has the columns 'text', ' label', not 'label'",
        ),
        (["text,label", "好,0.5", "坏,nan"], "label nan in 'test' of .* out of range"),
        (
            ["text,label", "好,0", "坏,2147483648"],
            "label 2147483648 in 'test' .* range",
        ),
        (["text,label", "好,0", f"坏,{10**20}"], f"label {10**20} in 'test' .* range"),
        (["text,label", "好,0.5", "坏,1e39"], r"label 1e\+39 in 'test' of .* range"),
        (["text,label", "好,0", "坏,1_0"], "labels that are no numbers: '1_0'"),
        (["text,label", "好,0", "坏,bad"], "no numbers: 'bad'; number classes from 0"),
        (["text,label", "好,0", "坏,2"], "training labels of .* end at 1, others at 2"),
        (["text,label", '"",0', '"  ",1'], "all texts of 'test' of .* are empty"),
    ],
)
def test_texts_and_labels_that_cannot_be_used(load_lines, lines, message):
    fine = ["text,label", "好,0", "坏,1"]
    config = load_lines(fine, test=lines)
    with pytest.raises(ValueError, match=message):
        finetuning.load_texts(config)


def test_lists_of_tokens_are_no_texts(load, tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.conll").write_text("好 O\n坏 B-x\n", encoding="utf-8")
    config = with_splits(load())
    config.dataset = f"file:{tmp_path}/{{split}}.conll"
    config.text_columns, config.label_column = ("tokens",), "tags"
    message = r"column 'tokens' of .* holds \['好', '坏'\], which is no text"
    with pytest.raises(ValueError, match=message):
        finetuning.load_texts(config)


def test_a_single_class_is_refused(load_lines):
    config = load_lines(["text,label", "好,1", "坏,1"])
    with pytest.raises(ValueError, match=r"all training rows of .* the label 1"):
        finetuning.load_texts(config)


def test_identifiers_are_no_classes(load_lines):
    config = load_lines(["text,label", "好,0", "坏,100000000"])
    with pytest.raises(
        ValueError, match=r"up to 100000000, and classes .* label_column"
    ):
        finetuning.load_texts(config)


def test_some_texts_may_be_empty(load_lines):
    config = load_lines(["text,label", '"",0', "坏,1"])
    texts = finetuning.load_texts(config)
    batch = texts.task.splits["train"]
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda params: texts.task.loss_fn(params, batch, None)[0])
    )(texts.params)
    assert all(map(np.isfinite, (loss, *map(np.sum, jax.tree.leaves(gradient)))))


def test_a_tokenizer_of_another_encoder_is_refused(load, folder, tmp_path):
    sizes, params = text.load_encoder(folder / "encoder")
    more = text.CharVocabulary(tuple("一二三四五六七八九十百千万上中下左右"))
    text.save_encoder(tmp_path, sizes, params, tokenizer=more)
    config = load()
    config.encoder = str(tmp_path)
    message = f"has {more.size} ids and the encoder {sizes.vocab_size} embeddings"
    with pytest.raises(ValueError, match=re.escape(message)):
        finetuning.load_texts(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"weight_decay": float("nan")}, "weight_decay must be at least 0, got nan"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, got 0.0"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction must be in \[0, 1\), got 1.0"),
        ({"warmup_fraction": -0.1}, r"warmup_fraction must be in \[0, 1\), got -0.1"),
    ],
)
def test_an_optimizer_that_cannot_be_used(load, changes, message):
    config = load()
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        finetuning.make_adamw(config)
