"""A checkout with one package, and the command that runs it."""

import functools
from pathlib import Path

import jinja2
import pytest
from fake_package import add_package

import expkit
from expkit import reproduce


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory):
    """Compiles the template of the report once, not for each report."""
    kept = jinja2.FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    environment = functools.partial(jinja2.Environment, bytecode_cache=kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Environment", environment)
        yield


@pytest.fixture
def checkout(tmp_path, monkeypatch, compiled_templates):
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
