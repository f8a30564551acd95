"""Mutated tables, texts, CoNLL and IDX files, and other readings of them.

The readings here share no code with the product: the modules csv and json over the
whole text, splits of strings, and `np.frombuffer`.
"""

import csv
import gzip
import io
import json
import math
from pathlib import Path
from unittest import mock

import numpy as np
from fuzz_bytes import mutate, mutate_text, pick
from fuzz_check import attempt

from expkit.data import load
from expkit.datasets import idx, lines

CSV = 'text,label,score\nx,1,0.5\n"a, ""b""",0,-1e3\n"two\nlines",2,3\n\né日,1,1.25\n'
TSV = 'text\tlabel\tscore\nx\t1\t0.5\n"a, b\t0\t-1e3\n\né日\t1\t1.25\n'
TXT = "one\n\n two words\r\né日\n"
JSONL = (
    '{"text": "x", "label": 1, "score": 0.5}\n\n'
    '{"label": 0, "text": "\\u00e9 b", "score": "-1e3"}\n'
    '{"text": "日本", "label": -2, "score": 7}\n'
)
MENTIONS = (
    '{"text": "Ada met Bob.", "label": {"name": {"Ada": [[0, 2]], "Bob": [[8, 10]]}}}\n'
    '{"text": "日本 is far", "label": {"place": {"日本": [[0, 1]]}}}\n'
    '{"text": "nothing", "label": {}}\n'
)
CONLL = (
    "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\nmet VBD O\nBob NNP B-PER\n"
    "\nIn\tIN\tO\nNew York\tNNP\tB-LOC\n日本\tNNP\tI-LOC\n"
)
COLUMNS = {"text": "text", "label": "label:int", "score": "score:float"}
KINDS = {"text": str, "label": int, "score": float}


def read(folder: Path, suffix: str, content: bytes, columns=None):
    """Writes the content as a split and loads it under the rule of `attempt`."""
    path = folder / f"train{suffix}"
    path.write_bytes(content)
    return attempt(
        lambda: load(f"file:{folder}/{{split}}{suffix}", "train", columns=columns),
        folder,
        str(path),
    )


def _table(suffix: str, text: str, other_reading):
    def case(rng, folder):
        content = mutate(rng, text.encode())
        columns = COLUMNS if rng.random() < 0.5 else None
        outcome = read(folder, suffix, content, columns)
        if outcome.message is None:
            rows = other_reading(content.decode("utf-8-sig"))
            assert_same_table(outcome.value, rows, columns)

    return case


def assert_same_table(data, rows, columns) -> None:
    """Compares with a list of dicts by the names of columns."""
    names = list(columns or rows[0])
    assert list(data) == names
    for name in names:
        kind = KINDS[name] if columns else str
        expected = [kind(row[name]) for row in rows]
        assert data[name].tolist() == expected, name
        assert {type(value) for value in data[name].tolist()} == {kind}


def csv_rows(text: str) -> list[dict]:
    """Rows of comma-separated values by the module csv, over the whole text."""
    header, *rows = filter(None, csv.reader(io.StringIO(text, newline="\n")))
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def tsv_rows(text: str) -> list[dict]:
    """Rows of tab-separated values by splitting."""
    split = [line.rstrip("\r").split("\t") for line in text.split("\n")]
    header, *rows = (line for line in split if line != [""])
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def json_rows(text: str) -> list[dict]:
    """Rows of JSON lines by the module json."""
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def plain_text(rng, folder):
    """Lines of a text file; nothing of a text is damage but its encoding."""
    content = mutate(rng, TXT.encode())
    outcome = read(folder, ".txt", content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        assert outcome.message is not None
        return
    told = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    if text:
        assert outcome.value["text"].tolist() == told
    else:
        assert "holds no rows" in outcome.message


def mentions(rng, folder):
    """CLUENER lines: every span is where its mention says."""
    content = mutate(rng, MENTIONS.encode())
    outcome = read(folder, ".jsonl", content)
    if outcome.message is not None:
        return
    rows = json_rows(content.decode("utf-8-sig"))
    if "spans" not in outcome.value:
        assert not any(isinstance(row.get("label"), dict) for row in rows)
        return
    for row, found in zip(rows, outcome.value["spans"], strict=True):
        told = {
            (kind, start, end)
            for kind, names in row["label"].items()
            for name, places in names.items()
            for start, end in places
            if row["text"][start : end + 1] == name
        }
        assert set(found) == told
        assert all(kind.encode() for kind, _, _ in found)


def conll(rng, folder):
    """Tokens by splitting, spans by looking at where tags begin and go on."""
    content = mutate(rng, CONLL.encode())
    outcome = read(folder, ".conll", content)
    if outcome.message is not None:
        return
    sentences = [[]]
    for line in content.decode("utf-8-sig").split("\n"):
        if not line.strip():
            sentences.append([])
        elif not line.startswith("-DOCSTART-"):
            line = line.rstrip("\r")
            fields = line.split("\t") if "\t" in line else line.split()
            sentences[-1].append((fields[0], fields[-1]))
    sentences = [sentence for sentence in sentences if sentence]
    data = outcome.value
    assert [list(zip(*pair, strict=True)) for pair in _pairs(data)] == sentences
    for text, spans, sentence in zip(
        data["text"], data["spans"], sentences, strict=True
    ):
        assert text == " ".join(token for token, _ in sentence)
        begun = [tag[2:] for _, tag in sentence if tag.startswith("B-")]
        assert [kind for kind, _, _ in spans] == begun
        inside = sum(tag != "O" for _, tag in sentence)
        words = [text[start : end + 1] for _, start, end in spans]
        told = [token for token, tag in sentence if tag != "O"]
        assert " ".join(words) == " ".join(told)
        assert inside >= len(spans)


def _pairs(data):
    return zip(data["tokens"], data["tags"], strict=True)


FORMATS = {
    ".csv": (CSV, csv_rows),
    ".tsv": (TSV, tsv_rows),
    ".jsonl": (JSONL, json_rows),
}


def archive(rng, folder):
    """Damage to the packed bytes, or before packing."""
    suffix = pick(rng, FORMATS)
    text, other_reading = FORMATS[suffix]
    if rng.random() < 0.5:
        content = gzip.compress(mutate(rng, text.encode()), mtime=0)
    else:
        content = mutate(rng, gzip.compress(text.encode(), mtime=0))
    outcome = read(folder, f"{suffix}.gz", content)
    if outcome.message is None:
        unpacked = gzip.decompress(content).decode("utf-8-sig")
        assert_same_table(outcome.value, other_reading(unpacked), None)


def bomb(rng, folder):
    """Archives that unpack to a thousand times their size."""
    suffix = pick(rng, [".csv", ".tsv", ".txt", ".jsonl", ".conll"])
    line = pick(rng, [b"\0", b"a\n", b"a" * 2**16 + b"\n", b"a b O\n", b"a,b\n"])
    free = 2**16  # the limit itself, 256 times as much, would take seconds
    packed = gzip.compress(line * (16 * free // len(line)), mtime=0)
    with mock.patch.object(lines, "FREE_BYTES", free):
        outcome = read(folder, f"{suffix}.gz", packed)
    assert outcome.message is not None


def idx_bytes(array: np.ndarray, shape=None) -> bytes:
    """An array as IDX, which may declare another shape."""
    shape = array.shape if shape is None else shape
    sizes = b"".join((n % 2**32).to_bytes(4, "big") for n in shape)
    return bytes([0, 0, 8, len(shape)]) + sizes + array.tobytes()


IMAGES = np.random.default_rng(1).integers(0, 256, (3, 28, 28), np.uint8)
LABELS = np.array([7, 0, 9], np.uint8)
SIZES = (0, 1, 2, 4, 27, 29, 255, 2**16, 2**21, 2**31 - 1, 2**31, 2**32 - 1)


def images(rng, folder):
    """IDX files with changed bytes, packed bytes, or declared sizes."""
    image_name, label_name = idx.pair_names("train")
    content = {image_name: idx_bytes(IMAGES), label_name: idx_bytes(LABELS)}
    name = pick(rng, content)
    how = rng.integers(3)
    if how == 0:
        content[name] = mutate(rng, content[name])
    elif how == 1:
        array = IMAGES if name == image_name else LABELS
        shape = [pick(rng, SIZES) if rng.random() < 0.6 else n for n in array.shape]
        content[name] = idx_bytes(array, shape)
    packed = {k: gzip.compress(v, mtime=0) for k, v in content.items()}
    if how == 2:
        packed[name] = mutate(rng, packed[name])
    for file, value in packed.items():
        (folder / file).write_bytes(value)
    outcome = attempt(lambda: idx.read_pair(folder, "train"), folder, name)
    if outcome.message is None:
        unpacked = {k: gzip.decompress(v) for k, v in packed.items()}
        expected = np.frombuffer(unpacked[image_name], np.uint8, offset=16)
        told = np.frombuffer(unpacked[label_name], np.uint8, offset=8)
        np.testing.assert_array_equal(outcome.value[0].ravel(), expected)
        np.testing.assert_array_equal(outcome.value[1], told)
        assert len(expected) == 784 * len(told)
        assert told.max() < 10


NAMES = (
    "file:{folder}/{{split}}.csv",
    "file:{folder}/{{split}}.conll",
    "file:~nobody-at-all/{{split}}.csv",
    "synthetic:8x8x1:10",
    "synthetic:linear:32",
)
SPLITS = ("train", "train[:2]", "train[50%:]", "train+test", "test[-1:]")


def arguments(rng, folder):
    """Names of sources, splits and columns with mistakes in them."""
    (folder / "train.csv").write_text("a,b\n1,x\n2,y\n3,z\n")
    (folder / "test.csv").write_text("a,b\n4,w\n")
    (folder / "train.conll").write_text("x O\n")
    name = pick(rng, NAMES).format(folder=folder)
    split = pick(rng, SPLITS)
    columns = pick(rng, [None, {"n": "a:int"}, {"tokens": "0", "tags": "-1"}])
    which = rng.integers(5)
    if which == 0:
        name = name[:5] + mutate_text(rng, name[5:])
    elif which == 1:
        split = mutate_text(rng, split)
    elif which == 2 and columns:
        columns = {mutate_text(rng, k): mutate_text(rng, v) for k, v in columns.items()}
    elif which == 3:
        split += pick(rng, ["[", "[:0]", "[::2]", "[:1e9]", "[5:3]", "[:101%]", "+"])
    if name.partition(":")[0] not in ("file", "synthetic"):
        name = f"file:{name}"
    outcome = attempt(lambda: load(name, split, columns=columns), folder)
    if outcome.message is None:
        sizes = {len(array) for array in outcome.value.values()}
        assert len(sizes) == 1
        assert 0 < sizes.pop() <= 320
        if "n" in outcome.value:
            rows = outcome.value["n"].tolist()
            assert all(row == math.floor(row) and 1 <= row <= 4 for row in rows)


CASES = {
    "csv": _table(".csv", CSV, csv_rows),
    "tsv": _table(".tsv", TSV, tsv_rows),
    "txt": plain_text,
    "jsonl": _table(".jsonl", JSONL, json_rows),
    "mentions": mentions,
    "conll": conll,
    "archives": archive,
    "bombs": bomb,
    "idx": images,
    "arguments": arguments,
}
