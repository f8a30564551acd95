"""`benchmarks/faults.py` kills real commands: what it finds is exact, and repeats."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def measure(repository_root, tmp_path):
    """Runs the script with some arguments, and reads what it wrote."""

    def call(*arguments):
        out = tmp_path / "faults.json"
        script = repository_root / "benchmarks/faults.py"
        done = subprocess.run(
            [sys.executable, str(script), "--out", str(out), *arguments],
            cwd=repository_root,
            env=os.environ | {"PYTHONPATH": str(repository_root)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    return call


@pytest.mark.slow
def test_kills_in_all_windows_change_nothing(measure):
    rows = measure("--parts", "kills", "--kills", "0", "8", "--seed", "1")["kills"]
    assert [row["exact"] for row in rows] == 8 * [True]
    assert len({row["window"] for row in rows}) == 4


@pytest.mark.slow
def test_what_is_lost_is_noticed(measure):
    (row,) = measure("--parts", "faults", "--only", "early row")["faults"]
    assert row["status"] == row["next_status"] == 2
    assert not row["exact"]
    assert "rows of metrics.jsonl" in row["line"]
