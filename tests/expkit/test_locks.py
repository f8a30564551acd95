"""A folder has one owner, who loses it only by ending."""

import subprocess
import sys

from expkit import locks

OTHER = "import sys, pathlib; from expkit import locks; " + (
    "print(locks.acquire(pathlib.Path(sys.argv[1])))"
)


def other_process_gets(folder):
    command = [sys.executable, "-c", OTHER, str(folder)]
    return subprocess.check_output(command, text=True).strip() == "True"


def test_a_held_folder_is_refused_to_another_process_only(tmp_path):
    assert locks.acquire(tmp_path)
    assert locks.acquire(tmp_path)
    assert not other_process_gets(tmp_path)


def test_a_free_folder_is_given_and_freed_when_its_owner_ends(tmp_path):
    assert other_process_gets(tmp_path)
    assert other_process_gets(tmp_path)
    assert locks.acquire(tmp_path)
