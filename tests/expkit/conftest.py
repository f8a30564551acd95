"""A checkout with one package, and the command that runs it."""

from pathlib import Path

import pytest
from fake_package import add_package

import expkit
from expkit import reproduce


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one package, `demo`, of two experiments that run."""
    (tmp_path / "setup.cfg").write_text("")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "claims.py").write_text("")  # no main.py: no package
    add_package(tmp_path, "demo", experiment="sweep")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(expkit.__path__[0]).parent))
    return tmp_path


@pytest.fixture
def run(checkout, capsys):
    """Runs the command in this process; gives status and lines of output."""

    def call(*argv):
        try:
            status = reproduce.main(argv)
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return call
