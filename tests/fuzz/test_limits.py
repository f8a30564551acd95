"""The limits in `docs/reliability.md`: just inside is read, just outside refused."""

import gzip
import hashlib
import json

import pytest

from expkit import jsonfile, locks, metrics
from expkit.data import DataError, load
from expkit.datasets import columns, errors, idx, lines
from expkit.datasets.splits import resolve_split
from expkit.text import folders, tokenizer_files

DEEP = "[" * 100_000


def test_the_page_states_the_limits_of_the_code(repository_root):
    page = (repository_root / "docs" / "reliability.md").read_text()
    start = page.index("## What is trusted")
    section = " ".join(page[start : page.index("\n## ", start + 1)].split())
    for limit in (
        f"{lines.MAX_LINE // 2**20} MiB in a line",
        f"{lines.MAX_ROWS // 2**20} Mi lines",
        f"{lines.MAX_BYTES // 2**30} GiB unpacked",
        f"{lines.MAX_RATIO} times its size, beyond {lines.FREE_BYTES // 2**20} MiB",
        f"{idx.MAX_BYTES // 2**30} GiB of values",
        f"{columns.MAX_COLUMNS // 2**10} Ki columns",
        f"{lines.MAX_VALUES // 2**20} Mi values",
        f"{jsonfile.MAX_BYTES // 2**20} MiB in a file",
        f"vocab.txt | {tokenizer_files.MAX_BYTES // 2**20} MiB",
    ):
        assert limit in section


def test_an_archive_may_unpack_to_the_ratio_and_no_further(tmp_path, monkeypatch):
    path = tmp_path / "train.txt.gz"
    path.write_bytes(gzip.compress(b"x\n" * 50_000, mtime=0))
    ratio = 100_000 / path.stat().st_size
    monkeypatch.setattr(lines, "FREE_BYTES", 50_000)
    monkeypatch.setattr(lines, "MAX_RATIO", int(ratio) + 1)
    assert len(load(f"file:{tmp_path}/{{split}}.txt.gz", "train")["text"]) == 50_000
    monkeypatch.setattr(lines, "MAX_RATIO", int(ratio))
    with pytest.raises(DataError, match=r"train\.txt\.gz, line \d+: unpacks to over"):
        load(f"file:{tmp_path}/{{split}}.txt.gz", "train")
    monkeypatch.setattr(lines, "FREE_BYTES", 100_000)
    assert len(load(f"file:{tmp_path}/{{split}}.txt.gz", "train")["text"]) == 50_000


def test_the_largest_content_is_a_multiple_of_the_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    assert lines.largest_content(path) == lines.FREE_BYTES
    path.write_bytes(b"1" * 2**17)
    assert lines.largest_content(path) == lines.MAX_RATIO * 2**17


@pytest.mark.parametrize("size", [0, 1, 2**18 + 1])
def test_a_digest_is_that_of_all_bytes(tmp_path, size):
    path = tmp_path / "x"
    path.write_bytes(b"\1" * size)
    assert idx.digest(path) == hashlib.sha256(b"\1" * size).hexdigest()


@pytest.mark.parametrize(
    ("spec", "rows"),
    [("train[:1_0]", (0, 10)), ("train[-1_0:]", (90, 100)), ("train[:1_0%]", (0, 10))],
)
def test_numbers_of_a_slice_are_written_as_in_python(spec, rows):
    (found,) = resolve_split(spec, {"train": 100}, "x")
    assert (found.start, found.stop) == rows


@pytest.mark.parametrize(
    "spec",
    ["train[:_1]", "train[:1__0]", "train[:1_]", "train[:_]", f"train[:{'9' * 19}]"],
)
def test_numbers_that_python_does_not_read_or_of_19_digits_are_refused(spec):
    with pytest.raises(ValueError, match="is not understood: write a name"):
        resolve_split(spec, {"train": 100}, "x")


def test_a_percentage_beyond_100_is_refused_with_an_underscore_too():
    with pytest.raises(ValueError, match="choose a slice inside"):
        resolve_split("train[:1_01%]", {"train": 3}, "x")


def test_json_that_is_nested_too_deep_is_as_damaged(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(DEEP)
    with pytest.raises(RecursionError):
        json.loads(DEEP)
    assert jsonfile.read(path, "default") == "default"
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        folders.read_json(path)
    rows = tmp_path / "metrics.jsonl"
    rows.write_text('{"step": 1}\n' + DEEP + "\n")
    assert metrics.read(rows) == [{"step": 1}]


def test_a_message_is_one_line_that_no_terminal_obeys():
    message = str(DataError("a\nb\x1b[2J\u2028c é日"))
    assert message == r"a\nb\x1b[2J\u2028c é日"


def test_names_in_a_message_are_bounded():
    assert errors.listed(["a", "b"]) == "'a', 'b'"
    assert errors.listed(map(str, range(30)), limit=2) == "'0', '1', ..."
    assert len(errors.listed(["x" * 10**6] * 10**3)) < 2000
    assert errors.suggestion("scor", ["score", "text"]) == "; did you mean 'score'?"
    assert errors.suggestion("x" * 10**6, ["x" * 10**6 + "y"]) == ""


def test_only_links_that_lead_out_are_refused(tmp_path):
    run = tmp_path / "run"
    locks.require_no_link_out(run)
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").symlink_to(run / "checkpoints" / "rows")
    (run / "notes").symlink_to(tmp_path)
    locks.require_no_link_out(run)
    (run / "checkpoints" / "5").symlink_to("../../elsewhere")
    with pytest.raises(OSError, match="checkpoints/5 is a link out of it"):
        locks.require_no_link_out(run)
