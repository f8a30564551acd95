"""A folder has one owner, who loses it only by ending."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["lr=[1]", "what?", "a*b", "a\\b", "\udc80"])
def test_a_path_that_is_not_plain_is_refused(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    with pytest.raises(OSError, match="in the path Orbax could not read"):
        locks.require_usable(folder / "run")
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(OSError, match="in the path Orbax could not read"):
        locks.require_usable(Path("run"))


@pytest.mark.parametrize("name", ["a]b", "a b", "{a}", "ü", "~", "$HOME", "#"])
def test_other_odd_names_are_usable(tmp_path, name):
    locks.require_usable(tmp_path / name)


def test_a_named_pipe_in_place_of_the_lock_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(OSError, match=r"\.lock is not a regular file, move it away"):
        locks.acquire(tmp_path)
