"""Standard streams that are closed, full or not read cost lines and never a run."""

import json
import os
import subprocess
import sys

import pytest
from waiting import has_rows, wait_until

PRINT = """
import os, sys
from expkit.streams import keep_going
keep_going()
keep_going()
file = open(sys.argv[1], "w")
for step in range(3):
    print("out", step, flush=True)
    print("err", step, file=sys.stderr, flush=True)
os.write(2, b"from a library")
file.write("all of it")
"""


@pytest.fixture
def script(tmp_path, repository_root):
    """Runs `PRINT` in a shell: `(redirections) -> (process, what it wrote)`."""

    def run(redirections, stdout=subprocess.PIPE):
        file = tmp_path / "file"
        command = f'"{sys.executable}" -c "$PRINT" "{file}" {redirections}'
        done = subprocess.run(
            ["bash", "-c", command],
            env=os.environ | {"PRINT": PRINT, "PYTHONPATH": str(repository_root)},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        return done, file.read_text()

    return run


@pytest.mark.parametrize(
    "redirections",
    ["", "2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"],
)
def test_a_process_outlives_its_streams(script, redirections):
    done, text = script(redirections)
    assert done.returncode == 0
    assert text == "all of it"
    assert "Error" not in done.stderr


@pytest.fixture
def unread():
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    ("redirections", "reason"),
    [(">/dev/full", "No space left on device"), ("", "Broken pipe")],
)
def test_it_says_once_that_the_output_is_lost(script, unread, redirections, reason):
    done, _ = script(redirections, stdout=unread)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("err")]
    assert done.returncode == 0
    assert lines == [
        f"standard output cannot be written ({reason}); going on without it.",
        "from a library",
    ]


def test_what_can_be_printed_is(script):
    done, _ = script("")
    assert done.stdout.split() == ["out", "0", "out", "1", "out", "2"]
    assert done.stderr == "err 0\nerr 1\nerr 2\nfrom a library"


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_its_lines(tmp_path, repository_root):
    config = "configs/lion/quadratic.py:smoke,num_steps=40"
    words = ["-m", "lion.main", f"--config={config}", f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=repository_root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert "test_loss" in json.loads((tmp_path / "result.json").read_text())


IN_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


def test_a_run_saves_and_ends_when_its_terminal_is_closed(tmp_path, repository_root):
    config = "configs/lion/quadratic.py:smoke,num_steps=1000000"
    words = ["-m", "lion.main", f"--config={config}", f"--workdir={tmp_path}"]
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, sys.executable, *words],
        cwd=repository_root,
        stdin=terminal,
    )
    os.close(terminal)
    wait_until(lambda: has_rows(1)(tmp_path), process)
    os.close(master)
    assert process.wait(timeout=60) == 129
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    last_row = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert int(checkpoint.name) >= json.loads(last_row)["step"]
