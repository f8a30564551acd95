"""Folders that commands write to: not that of the code, and one process each."""

import os
import subprocess
import sys
import tempfile

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


@pytest.mark.parametrize("name", ["code", "link", "missing/.."])
def test_nothing_is_written_in_the_folder_of_the_code(tmp_path, monkeypatch, name):
    code = tmp_path.resolve() / "code"
    code.mkdir()
    (tmp_path / "link").symlink_to(code)
    os.utime(code, ns=(0, 0))
    monkeypatch.setattr(command_line, "CHECKOUT", code)
    folder = code / name if ".." in name else tmp_path / name
    assert "is the folder of the code" in command_line.usable_folder(folder)
    assert (list(code.iterdir()), code.stat().st_mtime_ns) == ([], 0)
    # The control: what was written shows, also where it was removed again.
    (code / "probe").touch()
    (code / "probe").unlink()
    assert code.stat().st_mtime_ns > 0


def test_nothing_is_written_in_a_folder_before_it_is_ours(taken, monkeypatch):
    def fail(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    os.utime(taken, ns=(0, 0))
    assert "is in use by another process" in command_line.usable_folder(taken)
    assert taken.stat().st_mtime_ns == 0
    free = taken.parent / "free"  # the control: here it tries
    reason = f"cannot write to --out={free}: No space left on device."
    assert command_line.usable_folder(free) == reason


def test_what_others_write_in_the_folder_meanwhile_is_left_to_them(tmp_path):
    """Such as the file of a fixed name with which another version tries to write."""
    (tmp_path / ".writable").write_text("theirs")
    assert command_line.usable_folder(tmp_path) == ""
    assert (tmp_path / ".writable").read_text() == "theirs"


@pytest.mark.parametrize("name", ["file", "file/below", "circle"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    folder = tmp_path / name
    problem = command_line.usable_folder(folder)
    assert problem.startswith(f"cannot write to --out={folder}: ")


def test_a_free_folder_is_made_and_kept(tmp_path):
    folder = tmp_path / "deep" / "out"
    assert command_line.usable_folder(folder) == ""
    assert command_line.usable_folder(folder) == ""
    assert [file.name for file in folder.iterdir()] == [".lock"]
