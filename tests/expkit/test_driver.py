"""What ran with other code or in the other mode is neither resumed nor reported."""

import pytest
from fake_package import add_package, evidence, verdicts


def test_training_is_resumed_with_the_same_code_and_begins_anew_with_other(
    run, checkout
):
    config, train = checkout / "configs" / "demo" / "x.py", checkout / "out/demo/train"
    config.parent.mkdir(parents=True)
    config.write_text('{"rate": 1}')
    assert run()[0] == 0
    (train / "checkpoints").mkdir()
    (train / "checkpoints" / "7").write_text("")
    assert run("--full")[0] == 0  # training is the same in both modes
    assert (train / "checkpoints" / "7").is_file()
    config.write_text('{"rate": 2}')
    assert run()[0] == 0
    assert not (train / "checkpoints").exists()
    assert (train / "config.json").read_text() == '{"rate": 2}'


DAMAGED = ('{"claims": [{}]}', "[1]", "[{}]")


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_a_damaged_step_runs_again(run, checkout, shift):
    assert run()[0] == 0
    before = verdicts(checkout)
    names = ("claims.json", "run.json", "status.json")
    for name, text in zip(names, DAMAGED[shift:] + DAMAGED[:shift], strict=True):
        (checkout / "out" / "demo" / "identities" / name).write_text(text)
        assert run("--only=demo/identities")[0] == 0
    assert verdicts(checkout) == before


def test_a_damaged_plan_of_another_package_ends_no_run(run, checkout):
    add_package(checkout, "other")
    assert run("other")[0] == 0
    (checkout / "out" / "other" / "plan" / "plan.json").write_text("[1]")
    assert run("demo")[0] == 0
    assert set(verdicts(checkout)) == {"demo.a", "demo.b", "demo.c"}


def test_what_no_run_wrote_stays_where_one_begins_anew(run, checkout):
    photos = checkout / "out" / "demo" / "train" / "photos"
    photos.mkdir(parents=True)
    (photos / "1.jpg").write_text("")
    (photos.parent / "notes.txt").write_text("")
    (photos.parent / "config.json").write_text("of a run by hand")
    assert run()[0] == 0
    assert (photos / "1.jpg").is_file()
    assert (photos.parent / "notes.txt").is_file()
    assert (photos.parent / "config.json").read_text() == "{}"


def test_rows_of_the_other_mode_are_not_run_in_the_report(run, checkout):
    run()
    run("--only=demo.c")
    assert list(verdicts(checkout)) == ["demo.a", "demo.b", "demo.c"]
    assert run("--only=demo.c", "--full")[0] == 0
    assert list(verdicts(checkout)) == ["demo.c"]
    assert evidence(checkout)["environment"]["stale"] == ["demo/identities"]
    page = (checkout / "out" / "report.html").read_text()
    assert page.count('not-run">not run') == 2
    # The quick rows are still there, for the next quick run.
    run("--only=demo.c")
    assert (checkout / "count.txt").read_text() == "xx"
    assert list(verdicts(checkout)) == ["demo.a", "demo.b", "demo.c"]


def test_training_of_other_code_is_not_in_the_report(run, checkout):
    run()
    page = checkout / "out" / "report.html"
    assert 'id="demo-train"' in page.read_text()
    (checkout / "demo" / "other.py").write_text("")
    run("--only=demo.c")
    assert 'id="demo-train"' not in page.read_text()


def test_results_of_other_code_are_not_passed_off_when_an_experiment_breaks(
    run, checkout
):
    assert run()[0] == 0
    file = checkout / "demo" / "claims.py"
    guard = "import sys\nassert '--list' in sys.argv, 'broken now'\n"
    file.write_text(guard + file.read_text())
    assert run()[0] == 1
    assert set(verdicts(checkout).values()) == {"not decided"}
