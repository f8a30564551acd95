"""A training command under `kill -9` and signals: started again, it ends the same."""

import json
import signal
import subprocess
import sys

import pytest
from training_runs import rows
from waiting import has_rows, wait_until

from expkit import config as config_lib
from lion import train

CONFIG = (
    "configs/lion/digits.py:smoke,dataset=synthetic:8x8x1:10,num_steps=300,"
    "dropout=0.2,checkpoint_every=20,evaluate_every=50,mesh=data:1"
)


@pytest.fixture(scope="module")
def start(repository_root):
    """Starts `python -m lion.main`; whatever still runs at the end is killed."""
    processes = []

    def call(workdir):
        command = [sys.executable, "-m", "lion.main"]
        processes.append(
            subprocess.Popen(
                [*command, f"--config={CONFIG}", f"--workdir={workdir}"],
                cwd=repository_root,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def finish(process):
    errors = process.communicate(timeout=100)[1]
    assert process.returncode == 0, errors


def is_writing_a_checkpoint(workdir):
    return any(workdir.glob("checkpoints/*tmp*"))


INSTANTS = {
    "while Python starts": lambda workdir: True,
    "at the first file": lambda workdir: (workdir / "config.json").exists(),
    "before the first checkpoint": has_rows(3),
    "while a checkpoint is written": is_writing_a_checkpoint,
    "in the middle": has_rows(137),
    "near the end": has_rows(290),
}


@pytest.fixture(scope="module")
def reference(repository_root, tmp_path_factory):
    """Rows and result of a run that nothing disturbs, in this process."""
    workdir = tmp_path_factory.mktemp("reference")
    result = train.run(config_lib.load(f"{repository_root}/{CONFIG}"), workdir)
    return rows(workdir), result


def assert_same_as(reference, workdir):
    expected_rows, expected_result = reference
    assert rows(workdir) == expected_rows
    assert [row["step"] for row in expected_rows] == list(range(1, 301))
    assert json.loads((workdir / "result.json").read_text()) == expected_result


def kill_and_rerun(start, workdir, condition):
    process = start(workdir)
    wait_until(lambda: condition(workdir), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    finish(start(workdir))


def test_a_run_killed_in_the_middle_and_started_again_writes_the_same(
    start, reference, tmp_path
):
    kill_and_rerun(start, tmp_path, has_rows(50))
    assert_same_as(reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_kill_at_any_instant_changes_nothing(start, reference, tmp_path, instant):
    kill_and_rerun(start, tmp_path, INSTANTS[instant])
    assert_same_as(reference, tmp_path)


@pytest.mark.slow
def test_a_run_killed_again_and_again_gets_there(start, reference, tmp_path):
    for n in (30, 90, 95, 170, 260):
        process = start(tmp_path)
        wait_until(lambda n=n: has_rows(n)(tmp_path), process)
        process.kill()
        process.communicate()
    finish(start(tmp_path))
    assert_same_as(reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_to_the_command_costs_one_line_and_no_bits(
    start, reference, tmp_path, signum, status
):
    process = start(tmp_path)
    wait_until(lambda: has_rows(100)(tmp_path), process)
    process.send_signal(signum)
    last_line = process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == status
    assert last_line.startswith("lion.main: stopped at step ")
    assert last_line.endswith("; rerun to resume.")
    finish(start(tmp_path))
    assert_same_as(reference, tmp_path)
