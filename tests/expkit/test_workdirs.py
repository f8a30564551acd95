"""The folder of a run: whose it is, and what in it no run wrote or can use."""

import contextlib
import json
import os

import ml_collections
import numpy as np
import pytest

from expkit import workdirs
from expkit.config import ConfigError

FIELDS = {"learning_rate": 1e-3, "hidden": (4, 4), "dataset": "digits", "mesh": "data"}
FILES = (".lock", "config.json", "data.json", "metrics.jsonl", "result.json")
FOLDERS = ("checkpoints", "encoder")


def make_config(**changes):
    return ml_collections.ConfigDict(FIELDS | changes)


def refusal(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_folder_of_a_run_holds_its_config(tmp_path):
    workdir = workdirs.prepare(make_config(), tmp_path / "deep" / "run")
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["hidden"] == [4, 4]
    assert stored["learning_rate"] == 1e-3
    assert stored.keys() == FIELDS.keys()
    assert listing(workdir) == [".lock", "checkpoints", "config.json"]


def test_a_rerun_with_the_same_config_is_welcome_also_on_another_mesh(tmp_path):
    workdirs.prepare(make_config(), tmp_path / "run")
    workdir = workdirs.prepare(make_config(mesh="data:1"), tmp_path / "run")
    assert json.loads((workdir / "config.json").read_text())["mesh"] == "data:1"


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 2e-3), ("hidden", (128, 64)), ("dataset", "mnist")],
)
def test_a_folder_of_another_run_is_refused_naming_the_field(tmp_path, field, value):
    workdir = workdirs.prepare(make_config(), tmp_path / "run")
    before = (workdir / "config.json").read_text()
    message = refusal(workdirs.prepare, make_config(**{field: value}), workdir)
    assert field in message
    assert str(workdir) in message
    assert (workdir / "config.json").read_text() == before


def test_a_config_that_gained_a_field_is_another_run(tmp_path):
    workdirs.prepare(make_config(), tmp_path / "run")
    message = refusal(workdirs.prepare, make_config(momentum=0.9), tmp_path / "run")
    assert "momentum=None, not 0.9" in message


def test_checkpoints_whose_config_is_lost_are_not_gone_on_from(tmp_path):
    workdir = workdirs.prepare(make_config(), tmp_path / "run")
    (workdir / "checkpoints" / "20").mkdir()
    workdirs.prepare(make_config(), workdir)
    (workdir / "config.json").unlink()
    message = refusal(workdirs.prepare, make_config(), workdir)
    assert f"{workdir / 'config.json'} is no config; restore it" in message
    assert not (workdir / "config.json").exists()


@pytest.mark.parametrize("content", ["[1]", "not json", ""])
def test_a_foreign_config_json_is_not_overwritten(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert "is no config" in refusal(workdirs.prepare, make_config(), tmp_path)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("below", ["", "run"])
def test_a_workdir_that_cannot_be_written_is_named(tmp_path, below):
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / below
    message = refusal(workdirs.prepare, make_config(), workdir)
    assert repr(str(workdir)) in message
    assert "cannot be written" in message


def test_a_workdir_where_checkpoints_would_be_lost_is_refused(tmp_path):
    workdir = tmp_path / "lr=[1]"
    message = refusal(workdirs.prepare, make_config(), workdir)
    assert "with '[' in the path Orbax could not read" in message
    assert not workdir.exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_begun", [False, True])
def test_what_is_not_a_file_is_refused_before_it_is_opened(
    tmp_path, make, name, is_begun
):
    if is_begun:
        workdirs.prepare(make_config(), tmp_path)
        (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    before = listing(tmp_path)
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert message == (
        f"workdir {str(tmp_path)!r} cannot be written ({tmp_path}: {name} is not a "
        "regular file, move it away); give --workdir a folder that can."
    )
    assert listing(tmp_path) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mknod])
@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_not_a_folder_is_refused(tmp_path, make, name):
    make(tmp_path / name)
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert f"({tmp_path}: {name} is not a folder, move it away)" in message


@pytest.mark.parametrize("name", ["checkpoints/5/digests.json", "encoder/x"])
def test_a_named_pipe_where_a_run_reads_or_writes_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / name)
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert f"{name} is not a file or folder, move it away" in message


@pytest.mark.parametrize("target", [".lock", "nothing"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, target):
    (tmp_path / ".lock").symlink_to(target)
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert ".lock is not a regular file" in message


@pytest.mark.parametrize("name", ["data.json", "metrics.jsonl", "result.json"])
def test_a_file_beside_no_config_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert message == (
        f"workdir {str(tmp_path)!r} holds {name} but no config.json, so it is not the "
        f"folder of a run; use another --workdir, or move {name} away."
    )
    assert listing(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_encoder_beside_no_config_is_not_replaced(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_text("mine")
    message = refusal(workdirs.prepare, make_config(), tmp_path)
    assert "holds encoder but no config.json" in message
    assert listing(tmp_path) == ["encoder", "encoder/model.safetensors"]


def test_what_no_run_writes_may_lie_in_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    workdirs.prepare(make_config(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


class Killed(BaseException):
    """In place of the signal."""


def test_a_run_killed_anywhere_in_the_preparation_can_be_rerun(tmp_path, monkeypatch):
    def run(folder):
        workdirs.prepare(make_config(), folder)
        workdirs.require_same_data(folder, {"train": "a"})

    def killing(function, calls, last):
        def call(*args, **options):
            calls.append(function)
            if len(calls) == last:
                raise Killed
            return function(*args, **options)

        return call

    points = [
        *((workdirs.Path, name) for name in ("mkdir", "touch", "unlink")),
        (os, "replace"),
        (workdirs.locks, "acquire"),
    ]
    for last in range(1, 100):
        folder, is_killed = tmp_path / str(last), True
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            calls = []
            for place, name in points:
                patch.setattr(place, name, killing(getattr(place, name), calls, last))
            run(folder)
            is_killed = False
        run(folder)
        assert (folder / "config.json").is_file()
        assert json.loads((folder / "data.json").read_text()) == {"train": "a"}
        if not is_killed:
            break
    assert 8 < last < 99


A = np.arange(6, dtype=np.int32)


@pytest.mark.parametrize(
    "other",
    [
        {"y": A},
        {"x": A + 1},
        {"x": A[::-1]},
        {"x": A[:5]},
        {"x": A.reshape(2, 3)},
        {"x": A.astype(np.int64)},
        {"x": A.view(np.float32)},
        {"x": A, "y": A},
        {"x": A[:0]},
        {},
    ],
)
def test_arrays_that_differ_have_another_digest(other):
    assert workdirs.digest({"x": A}) != workdirs.digest(other)


def test_the_same_arrays_have_the_same_digest_in_any_order_and_layout():
    square = np.arange(12.0).reshape(3, 4)
    words = np.array(["a", "\udcff", ["b", 1]], dtype=object)
    one = {"a": square, "b": words, "c": np.array("c"), "d": np.zeros(0)}
    other = {
        "d": np.zeros(0),
        "c": np.array("c"),
        "b": np.array(["a", "\udcff", ["b", int("1")]], dtype=object),
        "a": np.asfortranarray(square),
    }
    assert workdirs.digest(one) == workdirs.digest(other)
    other["b"][2][1] = 2
    assert workdirs.digest(one) != workdirs.digest(other)


def test_data_are_those_of_the_first_run_or_refused(tmp_path):
    workdirs.require_same_data(tmp_path, {"train": "a"})
    workdirs.require_same_data(tmp_path, {"train": "a", "test": "b"})
    stored = (tmp_path / "data.json").read_text()
    assert json.loads(stored) == {"train": "a", "test": "b"}
    workdirs.require_same_data(tmp_path, {"train": "a"})
    other = {"train": "c", "test": "d"}
    assert refusal(workdirs.require_same_data, tmp_path, other) == (
        f"the training, test data differ from those of the run in {tmp_path}: restore "
        "them, or use another --workdir."
    )
    assert (tmp_path / "data.json").read_text() == stored


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"train": 1}'])
def test_a_damaged_digest_is_no_reason_to_go_on(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    message = refusal(workdirs.require_same_data, tmp_path, {"train": "a"})
    assert "use another --workdir" in message
    assert (tmp_path / "data.json").read_text() == text
