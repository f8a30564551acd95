"""Folders that commands write to: not that of the code, and one process each."""

import subprocess
import sys

import pytest

from expkit import claims, command_line, reproduce

OWNER = """
import pathlib, sys
from expkit.command_line import usable_folder
assert not usable_folder(pathlib.Path(sys.argv[1]))
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def taken(tmp_path, repository_root):
    """A folder that another process uses."""
    folder = tmp_path / "taken"
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        cwd=repository_root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"mine\n"
        yield folder
        process.stdin.close()


def refused(capsys, call):
    with pytest.raises(SystemExit) as stop:
        call()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


def test_two_reproductions_do_not_share_a_folder(taken, run):
    status, lines, error = run(f"--out={taken}")
    assert (status, lines, error.count("\n")) == (2, [], 1)
    assert "--out=taken is in use by another process" in error


def test_two_experiments_do_not_share_a_folder(taken, capsys):
    own = [claims.Claim("a", "s", "x", claims.not_testable("more"))]
    argv = ["--experiment=identities", f"--out={taken}"]
    error = refused(capsys, lambda: claims.main(own, argv, package="demo"))
    assert f"--out={taken} is in use by another process" in error
    assert [file.name for file in taken.iterdir()] == [".lock"]


@pytest.mark.parametrize("out", ["", ".", "lion/.."])
def test_results_do_not_go_among_the_code(capsys, monkeypatch, repository_root, out):
    monkeypatch.chdir(repository_root)
    error = refused(capsys, lambda: reproduce.main(["lion", f"--out={out}"]))
    assert "is the folder of the code; give another" in error
    assert not (repository_root / "lion" / "plan").exists()


def test_a_free_folder_is_made_and_kept(tmp_path):
    folder = tmp_path / "deep" / "out"
    assert command_line.usable_folder(folder) == ""
    assert command_line.usable_folder(folder) == ""
    assert [file.name for file in folder.iterdir()] == [".lock"]
