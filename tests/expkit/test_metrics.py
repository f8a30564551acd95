"""`metrics.jsonl`: what is read back after a clean end, a kill, or foreign hands."""

import json

import numpy as np
import pytest

from expkit import metrics
from expkit.metrics import MetricsWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write_rows(path, steps):
    with MetricsWriter(path) as writer:
        for step in steps:
            writer.write(step, loss=step / 3, accuracy=1 / step)
    return metrics.read(path)


def test_rows_come_back_with_the_same_bits(path):
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(0, 20, 50)).astype(np.float32).tolist()
    with MetricsWriter(path) as writer:
        for step, loss in enumerate(losses):
            writer.write(step, loss=loss)
    assert metrics.read(path) == [
        {"step": step, "loss": loss} for step, loss in enumerate(losses)
    ]


def test_every_line_is_strict_json_and_a_nan_is_null(path):
    with MetricsWriter(path) as writer:
        writer.write(1, loss=float("nan"), gap=float("inf"), ratio=np.float32(0.5))

    def refuse(constant):
        raise AssertionError(constant)

    [line] = path.read_text().splitlines()
    row = json.loads(line, parse_constant=refuse)
    assert row == {"step": 1, "loss": None, "gap": None, "ratio": 0.5}


def test_a_row_can_be_read_before_the_writer_is_closed(path):
    with MetricsWriter(path) as writer:
        writer.write(1, loss=1.0)
        assert metrics.read(path) == [{"step": 1, "loss": 1.0}]


def test_a_missing_file_has_no_rows(path):
    assert metrics.read(path) == []


def test_a_file_cut_at_any_byte_reads_as_the_rows_that_are_whole(path):
    rows = write_rows(path, [1, 2, 3])
    content = path.read_bytes()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        assert metrics.read(path) == rows[: content[:size].count(b"\n")]


def test_resuming_after_a_cut_at_any_byte_leaves_no_gap_and_no_repeat(path):
    rows = write_rows(path, [1, 2, 3, 4])
    content = path.read_bytes()
    start_of_4 = content.rindex(b'{"step"')
    for size in range(start_of_4, len(content) + 1):
        path.write_bytes(content[:size])
        with MetricsWriter(path, resume_step=3) as writer:
            writer.write(4, loss=4 / 3, accuracy=1 / 4)
        assert path.read_bytes() == content
        assert metrics.read(path) == rows


@pytest.mark.parametrize("resume_step", [0, 1, 2, 5, 9])
def test_rows_after_the_resumed_step_are_cut(path, resume_step):
    rows = write_rows(path, [1, 2, 3, 4, 5])
    MetricsWriter(path, resume_step=resume_step).close()
    assert metrics.read(path) == rows[:resume_step]


def test_a_file_with_nothing_to_cut_is_not_rewritten(path):
    write_rows(path, [1, 2])
    inode = path.stat().st_ino
    MetricsWriter(path, resume_step=2).close()
    assert path.stat().st_ino == inode
    MetricsWriter(path, resume_step=1).close()
    assert path.stat().st_ino != inode


@pytest.mark.parametrize(
    "garbage",
    [
        "5",
        "null",
        '"step"',
        "[1, 2]",
        "{}",
        '{"step": "two"}',
        "{{",
        "",
        "\udcff",
        "\x00",
    ],
)
def test_reading_stops_at_a_line_that_is_no_row(path, garbage):
    rows = write_rows(path, [1])
    with path.open("a", errors="surrogateescape") as file:
        file.write(garbage + '\n{"step": 2}\n')
    assert metrics.read(path) == rows
    MetricsWriter(path, resume_step=5).close()
    assert metrics.read(path) == rows
    assert len(path.read_text().splitlines()) == 1
