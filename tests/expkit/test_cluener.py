"""JSON lines with mentions by type, and an error with its place for every damage."""

import gzip
import json

import pytest

from expkit.data import DataError, load

LINES = [
    {"text": "Ada met Bob", "label": {"name": {"Ada": [[0, 2]], "Bob": [[8, 10]]}}},
    {
        "text": "北京大学在北京\U0001f600",
        "label": {
            "place": {"北京": [[5, 6], [0, 1], [0, 1]]},
            "school": {"北京大学": [[0, 3]], "\U0001f600": [[7, 7]]},
        },
    },
    {"text": "nothing", "label": {}},
]
SPANS = [
    [("name", 0, 2), ("name", 8, 10)],
    [("school", 0, 3), ("place", 0, 1), ("place", 5, 6), ("school", 7, 7)],
    [],
]


def read(folder, rows, suffix=".jsonl", columns=None):
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    content = lines.encode()
    path = folder / f"train{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return load(f"file:{folder}/{{split}}{suffix}", "train", columns=columns)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".json.gz"])
def test_mentions_become_spans(tmp_path, suffix):
    data = read(tmp_path, LINES, suffix)
    assert set(data) == {"text", "spans"}
    assert data["text"].tolist() == [row["text"] for row in LINES]
    assert data["spans"].tolist() == SPANS
    assert all(type(found) is list for found in data["spans"])


def test_a_first_row_without_mentions_has_spans_too(tmp_path):
    assert read(tmp_path, LINES[::-1])["spans"].tolist() == SPANS[::-1]


def test_other_columns_stay_and_can_be_chosen(tmp_path):
    rows = [{"id": i, **row} for i, row in enumerate(LINES)]
    data = read(tmp_path, rows)
    assert (list(data), data["id"].tolist()) == (["id", "text", "spans"], list("012"))
    data = read(tmp_path, rows, columns={"n": "id:int", "where": "spans"})
    assert data["n"].tolist() == [0, 1, 2]
    assert data["where"].tolist() == SPANS


def test_labels_that_are_texts_stay_as_they_are(tmp_path):
    data = read(tmp_path, [{"text": "a", "label": "x"}, {"text": "b", "label": 1}])
    assert data["label"].tolist() == ["x", "1"]
    assert "spans" not in data


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            {"name": {"Ada": [[0, 3]]}},
            r"text at \[0, 3\] is 'Ada ', not 'Ada'; correct",
        ),
        ({"name": {"ada": [[0, 2]]}}, "is 'Ada', not 'ada'"),
        (
            {"name": {"Bob": [[8, 11]]}},
            r"\[8, 11\] .* outside the text of 11 characters",
        ),
        ({"name": {"Ada": [[-11, 2]]}}, r"\[-11, 2\] .* outside the text"),
        ({"name": {"": [[1, 0]]}}, r"\[1, 0\] of the mention '' lies outside"),
        (
            {"name": {"Ada": [0, 2]}},
            r"0 is no place of the mention 'Ada'; write \{type",
        ),
        ({"name": {"Ada": [[0.0, 2]]}}, r"\[0.0, 2\] is no place"),
        ({"name": {"Ada": [[False, 2]]}}, r"\[False, 2\] is no place"),
        ({"name": {"Ada": [[0, 1, 2]]}}, r"\[0, 1, 2\] is no place"),
        ({"name": {"Ada": []}}, r"\[\] is no place of the mention 'Ada'"),
        ({"name": {"Ada": None}}, "None is no place"),
        (
            {"name": [[0, 2]]},
            r"\{'name': \[\[0, 2\]\]\} has no type or no mentions; wr",
        ),
        ({"": {"Ada": [[0, 2]]}}, "has no type or no mentions"),
        ("name", "line 2: .* has no text with a label of mentions, as rows before"),
        (None, r"has no text with a label .* or \{\} for none"),
    ],
)
def test_a_wrong_label_names_its_place_in_one_line(tmp_path, label, message):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, [LINES[0], {"text": "Ada met Bob", "label": label}])
    assert f"{tmp_path / 'train.jsonl'}, line 2" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_row_without_label_after_rows_with_one_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"line 2: \{'text': 'x'\} has no text with a label"
    ):
        read(tmp_path, [LINES[0], {"text": "x"}])


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no column 'label' .* among 'text', 'spans'"):
        read(tmp_path, LINES, columns={"spans": "label"})
    with pytest.raises(DataError, match=r"column 'spans': .* is not a whole number"):
        read(tmp_path, LINES, columns={"spans": "spans:int"})
