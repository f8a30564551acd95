"""`file:` sources: every format, and an error with its place for every damage."""

import gzip
import json
import math

import numpy as np
import pytest

from expkit.data import DataError, load
from expkit.datasets import columns as columns_lib
from expkit.datasets import lines


def write(path, text):
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return f"file:{path.parent}/{path.name.replace('train', '{split}')}"


def read(tmp_path, suffix, text, columns=None, split="train"):
    return load(write(tmp_path / f"train{suffix}", text), split, columns=columns)


def as_lists(data):
    return {key: array.tolist() for key, array in data.items()}


CSV = 'a,b\n1,"x, ""y"""\n2,"two\nlines"\n\n3,é\n'
TABLE = {"a": ["1", "2", "3"], "b": ['x, "y"', "two\nlines", "é"]}
JSONL = '{"a": 1, "b": "x"}\n\n{"b": "\\u00e9", "a": 2.5}\n'


@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (".csv", CSV, TABLE),
        (".csv", "\ufeff" + CSV, TABLE),
        (".CSV", CSV, TABLE),
        (".csv", "a,b\r\n1,x\r\n", {"a": ["1"], "b": ["x"]}),
        (".csv", "a,b\n1,x", {"a": ["1"], "b": ["x"]}),
        (".tsv", 'a\tb\n1\t"x, y\n', {"a": ["1"], "b": ['"x, y']}),
        (".tsv", "a\tb\r\n\t x \r\n", {"a": [""], "b": [" x "]}),
        (".txt", "one\r\n\n two\n", {"text": ["one", "", " two"]}),
        (".txt", "a\u2028b\x0cc\n", {"text": ["a\u2028b\x0cc"]}),
        (".jsonl", JSONL, {"a": ["1", "2.5"], "b": ["x", "é"]}),
    ],
)
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_every_format_gives_the_values_written(
    tmp_path, suffix, text, expected, packing
):
    data = read(tmp_path, suffix + packing, text)
    assert as_lists(data) == expected
    assert all(array.dtype == object for array in data.values())


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", "s,n,label\nx,4.25,3\ny,-1e3,-2\n"),
        (".tsv", "s\tn\tlabel\nx\t4.25\t3\ny\t-1e3\t-2\n"),
        (".txt", "s\tn\tlabel\nx\t4.25\t3\ny\t-1e3\t-2\n"),
        (
            ".jsonl",
            '{"s": "x", "n": 4.25, "label": 3}\n{"s": "y", "n": "-1e3", "label": -2}\n',
        ),
    ],
)
def test_columns_choose_rename_and_convert(tmp_path, suffix, text):
    columns = {"score": "n:float", "text_1": "s", "id": "label:int", "raw": "n:str"}
    data = read(tmp_path, suffix, text, columns)
    assert list(data) == list(columns)
    assert as_lists(data) | {"raw": 0} == {
        "score": [4.25, -1000.0],
        "text_1": ["x", "y"],
        "id": [3, -2],
        "raw": 0,
    }
    kinds = [array.dtype for array in data.values()]
    assert kinds == [np.float64, object, np.int64, object]


def test_lists_and_objects_beside_the_texts_of_json_lines_are_left_out(tmp_path):
    rows = [
        {"text": "good", "label": 1, "meta": {"id": 7}, "tokens": ["good"]},
        {"text": "bad", "label": 0, "meta": {}, "more": [1]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(text)
    table = load(f"file:{tmp_path}/{{split}}.jsonl", "train")
    assert {key: list(values) for key, values in table.items()} == {
        "text": ["good", "bad"],
        "label": ["1", "0"],
    }


def test_a_text_file_can_be_renamed_and_a_colon_can_be_in_a_name(tmp_path):
    assert as_lists(read(tmp_path, ".txt", "x\n", {"s": "text"})) == {"s": ["x"]}
    data = read(tmp_path, ".csv", "a:b,c\n1,2\n", {"k": "a:b", "n": "a:b:int"})
    assert as_lists(data) == {"k": ["1"], "n": [1]}


def test_slices_and_sums_of_splits(tmp_path):
    pattern = write(tmp_path / "train.txt", "".join(f"{i}\n" for i in range(10)))
    write(tmp_path / "dev.txt", "a\nb\n")
    for split, expected in {
        "train[:3]": "012",
        "train[50%:]": "56789",
        "train[-2:]+dev": "89ab",
        "dev[1:]+train[:1]": "b0",
    }.items():
        assert "".join(load(pattern, split)["text"]) == expected


MALFORMED = [
    (".csv", "a,b\n1,2\n3\n", None, r"line 3: 1 fields .* header has 2: \['3'\]"),
    (".csv", "a,b\n1,2,3\n", None, r"line 2: 3 fields"),
    (".csv", 'a,b\n1,"x\n\n2,3\n', None, r"line 2: .*correct the quotes"),
    (".csv", 'a,b\n"1"2,x\n', None, r"line 2: .*correct the quotes"),
    (".csv", 'a\n"1\n2"\nx\n', {"a": "a:int"}, r"line 2, column 'a': '1\\n2'"),
    (".csv", 'a,b\n"1\n2",3\nx\n', None, r"line 4: 1 fields"),
    (".csv", "a,a\n1,2\n", None, "line 1: two columns are called 'a'"),
    (".csv", "score\n1\n", {"s": "scor"}, r"line 1: no column 'scor' .*mean 'score'"),
    (".csv", "score\n1\n", {"s": "score:flot"}, "no column 'score:flot'"),
    (".csv", "n\n1\nx\n", {"n": "n:int"}, "line 3, column 'n': 'x' is not a whole"),
    (".csv", "n\n1.0\n", {"n": "n:int"}, "'1.0' is not a whole number"),
    (".csv", "n\n1_0\n", {"n": "n:int"}, "'1_0' is not a whole number"),
    (".csv", "n\n9223372036854775808\n", {"n": "n:int"}, "is not a whole number"),
    (".csv", "n\n" + "9" * 5000 + "\n", {"n": "n:int"}, r"'9{59}\.\.\. is not a whole"),
    (".csv", "n,m\n,1\n", {"n": "n:float"}, "line 2, column 'n': '' is not a number"),
    (".csv", "n\nnan\n", {"n": "n:float"}, "'nan' is not a number"),
    (".csv", "n\n1e999\n", {"n": "n:float"}, "'1e999' is not a number"),
    (".csv", b"a\nx\n\xff\n", None, "line 3: byte 0xff at position 0 is not UTF-8"),
    (".csv", "", None, "is empty; it needs a header"),
    (".csv", "a,b\n", None, "holds no rows"),
    (".tsv", "a\tb\nx\n", None, "line 2: 1 fields"),
    (".txt", "", None, "holds no rows"),
    (".txt", "x".encode("utf-16"), None, "line 1: byte 0xff at position 0"),
    (".txt", "x\n", {"a": "b"}, "line 1: no column 'b'"),
    (".jsonl", '{"a": 1}\n{"a": \n', None, r"line 2: '\{\"a\":' is not valid JSON"),
    (".jsonl", "[1]\n", None, r"line 1: '\[1\]' is not a JSON object"),
    (".jsonl", "[" * 100_000 + "\n", None, "line 1: .* is not valid JSON"),
    (".jsonl", '{"a": 1, "a": 2}\n', None, "a key occurs twice"),
    (".jsonl", '{"a": 1}\n{"b": 1}\n', None, "line 2: .*'b' is not in the first row"),
    (".jsonl", '{"a": 1, "b": 2}\n{"b": 1}\n', None, "line 2: no column 'a'"),
    (".jsonl", '{"a": [1]}\n', None, r"line 1, column 'a': \[1\] is not a text"),
    (".jsonl", '{"a": 1}\n{"a": [1]}\n', None, r"line 2, column 'a': \[1\] is not a"),
    (".jsonl", '{"a": null}\n', None, "column 'a': None is not a text; remove the col"),
    (".jsonl", '{"a": true}\n', {"a": "a:int"}, "True is not a whole number"),
    (".jsonl", '{"a": 1.5}\n', {"a": "a:int"}, "1.5 is not a whole number"),
    (".jsonl", '{"a": NaN}\n', {"a": "a:float"}, "nan is not a number"),
    (".jsonl", '{"a": "\\ud800"}\n', None, "column 'a': .* is not a text"),
]


@pytest.mark.parametrize(("suffix", "text", "columns", "message"), MALFORMED)
def test_a_malformed_file_names_its_place_in_one_line(
    tmp_path, suffix, text, columns, message
):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, suffix, text, columns)
    assert str(tmp_path / f"train{suffix}") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("cut", [1, 9, 20])
def test_a_truncated_archive_is_named(tmp_path, cut):
    path = tmp_path / "train.csv.gz"
    pattern = write(path, CSV)
    assert as_lists(load(pattern, "train")) == TABLE
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=rf"{path}: cannot be read"):
        load(pattern, "train")


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"\x1f\x8b\x08" + b"\0" * 6 + b"\xff"]
)
def test_what_is_not_an_archive_is_named(tmp_path, content):
    (tmp_path / "train.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.csv\.gz: cannot be read"):
        load(f"file:{tmp_path}/{{split}}.csv.gz", "train")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_BYTES", 99, "line 50: more than 99 bytes unpacked"),
        ("MAX_ROWS", 20, "line 21: more than 20 lines"),
        ("MAX_LINE", 1, "line 1: more than 1 bytes in one line"),
    ],
)
def test_reading_stops_at_the_limits_and_not_before(
    tmp_path, monkeypatch, limit, value, message
):
    pattern = write(tmp_path / "train.txt.gz", "x\n" * 50)
    monkeypatch.setattr(lines, limit, {"MAX_BYTES": 100, "MAX_ROWS": 50}.get(limit, 2))
    assert len(load(pattern, "train")["text"]) == 50
    monkeypatch.setattr(lines, limit, value)
    with pytest.raises(DataError, match=message):
        load(pattern, "train")


JSON_SPAN = '{"text": "ab", "label": {"x": {"a": [[0, 0]]}}}\n'


@pytest.mark.parametrize(
    ("suffix", "text", "count"),
    [
        (".txt", "x\n" * 3, 3),
        (".csv", "a,b\n" + "1,2\n" * 3, 6),
        (".tsv", "a\tb\n" + "1\t2\n" * 3, 6),
        (".jsonl", '{"a": 1, "b": 2}\n' * 3, 6),
        (".jsonl", JSON_SPAN * 3, 12),  # texts, lists, and two places of a span each
        (".conll", "a O\n" * 3, 6),
        (".conll", "a B-x\nb I-x\n\na O\n", 12),  # 4 columns of the first sentence
    ],
)
def test_values_are_counted_where_they_are_kept(
    tmp_path, monkeypatch, suffix, text, count
):
    pattern = write(tmp_path / f"train{suffix}", text)
    monkeypatch.setattr(lines, "MAX_VALUES", count)
    load(pattern, "train")
    monkeypatch.setattr(lines, "MAX_VALUES", count - 1)
    with pytest.raises(DataError, match=rf"line \d: more than {count - 1} values"):
        load(pattern, "train")


def test_columns_that_nobody_wants_are_no_values(tmp_path, monkeypatch):
    pattern = write(tmp_path / "train.csv", "a,b\n" + "1,2\n" * 3)
    monkeypatch.setattr(lines, "MAX_VALUES", 3)
    assert as_lists(load(pattern, "train", columns={"k": "b"})) == {"k": ["2"] * 3}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_may_have_so_many_columns_and_no_more(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(columns_lib, "MAX_COLUMNS", 2)
    for names, is_read in (("ab", True), ("abc", False)):
        row = json.dumps(dict.fromkeys(names, 1))
        text = ",".join(names) + "\n" + ",".join("1" * len(names))
        pattern = write(
            tmp_path / f"train{suffix}", row if suffix == ".jsonl" else text
        )
        if is_read:
            assert list(load(pattern, "train")) == list(names)
        else:
            with pytest.raises(DataError, match="line 1: more than 2 columns"):
                load(pattern, "train")


def test_a_split_may_be_the_name_of_a_user():
    with pytest.raises(DataError, match=r"no such file, so there is no split 'root'"):
        load("file:~{split}/no such folder/x.csv", "root")


def test_a_bomb_in_one_line_is_refused_before_it_fills_the_memory(tmp_path):
    pattern = write(tmp_path / "train.csv.gz", b"\0" * 2**25)
    assert (tmp_path / "train.csv.gz").stat().st_size < 2**16
    with pytest.raises(DataError, match="bytes in one line"):
        load(pattern, "train")


def test_a_long_field_is_read_and_the_limit_of_csv_restored(tmp_path):
    import csv

    before = csv.field_size_limit()
    text = "x" * (before + 1)
    assert read(tmp_path, ".csv", f"a\n{text}\n")["a"][0] == text
    assert csv.field_size_limit() == before


def test_a_missing_split_lists_those_that_exist(tmp_path):
    pattern = write(tmp_path / "train.csv", CSV)
    write(tmp_path / "test.csv", CSV)
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(DataError, match=r"no split 'tset'; found 'test' .*'train'"):
        load(pattern, "tset")
    with pytest.raises(DataError, match="no other split matches"):
        load(f"file:{tmp_path}/{{split}}.tsv", "train")


def test_a_split_may_be_a_folder_and_occur_twice(tmp_path):
    (tmp_path / "dev").mkdir()
    write(tmp_path / "dev" / "dev.txt", "x\n")
    pattern = f"file:{tmp_path}/{{split}}/{{split}}.txt"
    assert load(pattern, "dev")["text"].tolist() == ["x"]
    with pytest.raises(DataError, match=r"found 'dev' \("):
        load(pattern, "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file:data.csv", r"must contain \{split\}"),
        ("file:{split}.parquet", r"one of \.csv, \.tsv, \.txt, \.jsonl, \.conll"),
        ("file:", r"must contain \{split\}"),
    ],
)
def test_unusable_paths_say_what_is_wanted(name, message):
    with pytest.raises(DataError, match=message):
        load(name, "train")


@pytest.mark.parametrize("value", [1, None, ""])
def test_a_column_that_is_no_name_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"columns\['k'\] must be a column name"):
        read(tmp_path, ".csv", CSV, {"k": value})


def test_added_splits_need_the_same_columns(tmp_path):
    pattern = write(tmp_path / "train.csv", "a,b\n1,2\n")
    write(tmp_path / "test.csv", "a,c\n3,4\n")
    with pytest.raises(DataError, match="different columns"):
        load(pattern, "train+test")
    data = load(pattern, "train+test", columns={"n": "a:float"})
    assert math.isclose(data["n"].sum(), 4.0)
