"""Results that no experiment of ours wrote are neither read nor replaced."""

import os

import pytest

from expkit import claim_rows, claim_runner
from expkit.claims import Claim, exact


def measured(context):
    return exact(True, 1)


@pytest.fixture
def run(tmp_path, capsys):
    """Measures one claim in `out`; gives status and standard error."""

    def call(check=measured):
        claims = [Claim("a", "a is so.", "A. Author, 2020.", check)]
        argv = ["--only=a", f"--out={tmp_path / 'out'}"]
        try:
            status = claim_runner.main(claims, argv, package="demo")
        except SystemExit as error:
            status = error.code
        return status, capsys.readouterr().err

    return call


@pytest.mark.parametrize("name", ["claims.json", "figures.json"])
def test_results_that_no_experiment_wrote_are_not_replaced(run, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"claims": "of a whole reproduction"}')
    status, error = run()
    assert status == 2
    assert error == (
        f"python -m demo.claims: {out} holds {name} but no run.json, so it is not the "
        f"folder of an experiment; give another --out, or move {name} away.\n"
    )
    assert (out / name).read_text() == '{"claims": "of a whole reproduction"}'
    assert {path.name for path in out.iterdir()} == {".lock", name}
    with pytest.raises(FileExistsError, match="but no run"):
        claim_rows.discard_stale(out, {})
    assert {path.name for path in out.iterdir()} == {".lock", name}


@pytest.mark.parametrize("name", ["claims.json", "figures.json", "run.json", ".lock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_file_is_refused_and_not_waited_for(run, tmp_path, name, make):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / name)
    status, error = run()
    assert (status, error.count("\n")) == (2, 1)
    assert f"{name} is not a regular file" in error


def test_an_experiment_stopped_at_its_first_claim_is_gone_on_with(run, tmp_path):
    def stopped(context):
        context.figure("loss", lambda fig: None, "caption", "alt")
        raise SystemExit(143)

    assert run(stopped)[0] == 143
    assert (tmp_path / "out" / "figures.json").is_file()
    assert not (tmp_path / "out" / "claims.json").exists()
    assert run()[0] == 0
    assert (tmp_path / "out" / "claims.json").is_file()


class Killed(BaseException):
    """In place of the signal."""


def test_a_run_killed_while_its_stale_training_is_removed_keeps_its_config(
    tmp_path, monkeypatch
):
    for name in ("config.json", "metrics.jsonl", "result.json"):
        (tmp_path / name).write_text("old")
    removed, unlink = [], claim_rows.Path.unlink

    def kill(path, missing_ok=False):
        if path.name == "config.json":
            raise Killed
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(claim_rows.Path, "unlink", kill)
    with pytest.raises(Killed):
        claim_rows.discard_stale_training(tmp_path, {"code": "new"})
    assert {"metrics.jsonl", "result.json"} <= set(removed)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    monkeypatch.undo()
    claim_rows.discard_stale_training(tmp_path, {"code": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
