import json
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from expkit import jsonfile


def test_what_is_not_finite_is_null_and_the_file_is_strict_json(tmp_path):
    values = {"a": float("nan"), "b": [np.inf, -1.5], "c": np.float32("nan"), 3: ()}
    jsonfile.write(tmp_path / "deep" / "x.json", values)

    def refuse(token):
        raise AssertionError(token)

    text = (tmp_path / "deep" / "x.json").read_text()
    got = json.loads(text, parse_constant=refuse)
    assert got == {"a": None, "b": [None, -1.5], "c": None, "3": []}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.arange(3), [0, 1, 2]),
        (jnp.float32(0.5), 0.5),
        (jnp.ones((2, 1), jnp.bfloat16), [[1.0], [1.0]]),
        (range(2), [0, 1]),
        ({2, 1}, [1, 2]),
        (np.bool_(True), True),
    ],
)
def test_arrays_ranges_and_sets_have_a_plain_form(value, expected):
    got = jsonfile.plain(value)
    assert got == expected
    assert type(got) is type(expected)


def test_other_kinds_are_refused_and_leave_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    jsonfile.write(path, 1)
    with pytest.raises(TypeError, match="object"):
        jsonfile.write(path, {"a": object()})
    assert jsonfile.read(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_move_leaves_the_old_text_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    jsonfile.write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        jsonfile.write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


def test_others_may_read_the_file(tmp_path):
    jsonfile.write(tmp_path / "x.json", 1)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o644


def test_missing_and_broken_files_read_as_the_default(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1')
    assert jsonfile.read(tmp_path / "x.json", []) == []
    assert jsonfile.read(tmp_path / "y.json") is None


def test_another_kind_than_that_of_the_default_reads_as_the_default(tmp_path):
    path = tmp_path / "x.json"
    for value, default in (([1], {}), ({"a": 1}, []), ("x", [])):
        jsonfile.write(path, value)
        assert jsonfile.read(path, default) == default
        assert jsonfile.read(path) == value


def test_objects_that_are_not_whole_are_left_out(tmp_path):
    path, whole = tmp_path / "x.json", {"id": "a", "n": 1}
    jsonfile.write(path, [whole, {"id": "b"}, {"id": 1, "n": 2}, 7, "id", None])
    assert jsonfile.read_objects(path, {"id": str, "n": int}) == [whole]


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"[1]" + b" " * (jsonfile.MAX_BYTES - 3))
    assert jsonfile.read(path) == [1]
    path.write_bytes(b"[1]" + b" " * (jsonfile.MAX_BYTES - 2))
    assert jsonfile.read(path, [2]) == [2]


def test_the_limit_is_of_bytes_and_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("\u00e9\u00e9\n", encoding="utf-8")
    assert jsonfile.read_text(path, 5) == "\u00e9\u00e9\n"
    with pytest.raises(jsonfile.TooLargeError, match=r"x\.txt has 5 bytes.* of 4;"):
        jsonfile.read_text(path, 4)


def test_a_device_without_an_end_is_not_read_for_ever():
    with pytest.raises(jsonfile.TooLargeError, match=r"zero has 11 bytes.* of 10;"):
        jsonfile.read_text(Path("/dev/zero"), 10)
