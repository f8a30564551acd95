"""Results in the repository are those of a run, and README tables are those results."""

import json

import pytest

from expkit import result_tables, results

CLAIM = {
    "id": "a",
    "package": "pkg",
    "experiment": "identities",
    "statement": "Half | half.",
    "source": "A. Author, 2020.",
    "measured": 0.5,
    "interval": [0.25, 0.75],
    "verdict": "holds",
    "seeds": [0, 1, 2],
}
ENVIRONMENT = {
    "state": "finished",
    "mode": "full",
    "cpu": "Some CPU",
    "cores": 2,
    "date": "2026-01-02 03:04 UTC",
    "versions": {"jax": "0.10.2"},
    "commit": "abc",
    "command": "./reproduce.sh pkg",
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "device": None,
}
README = f"""# Pkg

Before.

{result_tables.BEGIN}
previous table
{result_tables.END}

After.
"""
OTHER_KINDS = ("[1]", '"x"', "7", "[{}]", "{}", '{"claims": [{}]}')
OVERVIEW = (
    f"# All\n\n{result_tables.BEGIN_SUMMARY}\nprevious\n{result_tables.END}\n\nAfter.\n"
)


def make_run(folder, *unmeasured, claims=(CLAIM,), **environment):
    """A folder as a run leaves it, with a plan of `claims` and `unmeasured`."""
    (folder / "pkg").mkdir(exist_ok=True)
    (folder / "pkg/README.md").write_text(README)
    (folder / "README.md").write_text(OVERVIEW)
    content = {"environment": ENVIRONMENT | environment, "claims": claims}
    plan = {"package": "pkg", "claims": [*claims, *unmeasured]}
    plan["experiments"] = ["identities"]
    (folder / "out/pkg/plan").mkdir(parents=True, exist_ok=True)
    (folder / "out/claims.json").write_text(json.dumps(content))
    (folder / "out/pkg/plan/plan.json").write_text(json.dumps(plan))
    return folder / "out"


def published(folder):
    """Measured values by claim, and the commits of their runs."""
    content = json.loads((folder / "results/pkg.json").read_text())
    runs = [run["commit"] for run in content["runs"]]
    return {
        row["id"]: (row["measured"], runs[row["run"]]) for row in content["claims"]
    }, runs


def test_publishing_writes_the_figures_of_the_run_and_keeps_the_rest(tmp_path):
    results.publish(make_run(tmp_path), tmp_path)
    text = (tmp_path / "pkg/README.md").read_text()
    assert "| Half \\| half. | 0.5 | 0.25 to 0.75 | holds | 3 |" in text
    assert "`./reproduce.sh pkg --full` on Some CPU (2 cores), 2026-01-02" in text
    assert text.startswith("# Pkg\n\nBefore.")
    assert text.endswith("After.\n")
    assert "previous table" not in text
    stored = json.loads((tmp_path / "results/pkg.json").read_text())
    assert stored["claims"] == [CLAIM | {"run": 0}]
    assert stored["runs"] == [ENVIRONMENT]


def test_rows_have_the_command_and_the_date_of_their_experiment(tmp_path):
    other = CLAIM | {"id": "b", "experiment": "timing"}
    out = make_run(tmp_path, claims=[CLAIM, other])
    report = json.loads((out / "claims.json").read_text())
    origin = {"command": "./reproduce.sh pkg --only pkg/timing", "cores": 1}
    origin["date"] = "2026-01-01 00:00 UTC"
    report["origins"] = {"pkg/timing": origin, "pkg/identities": {"cores": "two"}}
    (out / "claims.json").write_text(json.dumps(report))
    results.publish(out, tmp_path)
    results.publish(out, tmp_path)  # the same runs again are no further ones
    stored = json.loads((tmp_path / "results/pkg.json").read_text())
    assert stored["runs"] == [ENVIRONMENT, ENVIRONMENT | origin]
    text = (tmp_path / "pkg/README.md").read_text()
    assert "1. `./reproduce.sh pkg --full` on Some CPU (2 cores)" in text
    assert (
        "2. `./reproduce.sh pkg --full --only pkg/timing` on Some CPU (1 core)" in text
    )
    assert [row["run"] for row in stored["claims"]] == [0, 1]


def test_a_run_in_parts_is_told_by_its_experiments(tmp_path):
    """The folder keeps the command of the last part, of another package or a claim."""
    command = "./reproduce.sh --jobs 1 --full other --only other/timing"
    other = CLAIM | {"id": "b", "experiment": "timing"}
    out = make_run(tmp_path, claims=[CLAIM, other], command=command)
    results.publish(out, tmp_path)
    text = (tmp_path / "pkg/README.md").read_text()
    parts = [
        f"`./reproduce.sh pkg --full --only pkg/{x}`" for x in ("identities", "timing")
    ]
    assert f"{parts[0]} and {parts[1]} on Some CPU (2 cores)" in text
    assert "other" not in text


def test_publishing_counts_the_verdicts_of_all_packages(tmp_path):
    other = {"package": "other", "runs": [ENVIRONMENT], "claims": [CLAIM | {"run": 0}]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/other.json").write_text(json.dumps(other))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/README.md").write_text(README)
    failed = CLAIM | {"id": "b", "verdict": "does not hold"}
    results.publish(make_run(tmp_path, claims=[CLAIM, failed]), tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| [`other`](other/README.md#results) | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| [`pkg`](pkg/README.md#results) | 2 | 1 | 1 | 0 | 0 |" in text
    assert "| all | 3 | 2 | 1 | 0 | 0 |" in text
    assert text.startswith("# All\n\n")
    assert text.endswith("After.\n")
    assert "previous" not in text


def test_publishing_twice_changes_nothing(tmp_path):
    out = make_run(tmp_path)
    results.publish(out, tmp_path)
    files = [tmp_path / "pkg/README.md", tmp_path / "README.md"]
    once = [file.read_text() for file in files]
    results.publish(out, tmp_path)
    assert [file.read_text() for file in files] == once


def test_without_a_run_the_tables_are_written_again(tmp_path, monkeypatch, capsys):
    results.publish(make_run(tmp_path), tmp_path)
    files = [tmp_path / "pkg/README.md", tmp_path / "README.md"]
    written = [file.read_text() for file in files]
    for file, text in zip(files, (README, OVERVIEW), strict=True):
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert results.main([]) == 0
    assert [file.read_text() for file in files] == written
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("text", OTHER_KINDS)
@pytest.mark.parametrize("name", ["claims.json", "pkg/plan/plan.json"])
def test_a_damaged_run_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, name, text
):
    (make_run(tmp_path) / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        results.main(["out"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("argv", [["out"], []])
@pytest.mark.parametrize("text", [*OTHER_KINDS, "<<<<<<< HEAD\n{}"])
def test_damaged_results_are_told_and_never_replaced(
    tmp_path, monkeypatch, capsys, argv, text
):
    results.publish(make_run(tmp_path), tmp_path)
    file = tmp_path / "results/pkg.json"
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        results.main(argv)
    assert caught.value.code == 2
    assert f"{file} is damaged; restore it" in capsys.readouterr().err
    assert file.read_text() == text


def test_another_folder_is_one_line_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        results.main([])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "has no README.md; start from the root" in error


def test_an_unfinished_run_is_not_published(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        results.publish(make_run(tmp_path, state="running"), tmp_path)
    assert "previous table" in (tmp_path / "pkg/README.md").read_text()


@pytest.mark.parametrize("commit", [None, "abc (modified)"])
def test_a_run_of_code_that_is_not_committed_is_not_published(tmp_path, commit):
    with pytest.raises(ValueError, match="not committed") as caught:
        results.publish(make_run(tmp_path, commit=commit), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_run_that_did_not_measure_a_planned_claim_is_not_published(tmp_path):
    out = make_run(tmp_path, CLAIM | {"id": "b"}, CLAIM | {"id": "c"})
    with pytest.raises(ValueError, match=r"not measured: b, c\.$"):
        results.publish(out, tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_run_of_a_part_replaces_its_rows_and_keeps_the_others(tmp_path):
    other = CLAIM | {"id": "b", "statement": "Other."}
    results.publish(make_run(tmp_path, claims=[CLAIM, other]), tmp_path)
    later = other | {"measured": 0.75}
    plan = CLAIM  # the claim is still made, and not measured again
    results.publish(make_run(tmp_path, plan, claims=[later], commit="def"), tmp_path)
    rows, runs = published(tmp_path)
    assert rows == {"a": (0.5, "abc"), "b": (0.75, "def")}
    assert runs == ["abc", "def"]
    text = (tmp_path / "pkg/README.md").read_text()
    assert "| verdict | seeds | run |" in text
    assert "| Other. | 0.75 | 0.25 to 0.75 | holds | 3 | 2 |" in text
    assert "\n2. `./reproduce.sh pkg --full` on Some CPU" in text
    assert "commit def" in text


def test_a_run_whose_rows_were_all_replaced_is_forgotten(tmp_path):
    results.publish(make_run(tmp_path), tmp_path)
    results.publish(make_run(tmp_path, commit="def"), tmp_path)
    assert published(tmp_path) == ({"a": (0.5, "def")}, ["def"])


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("full", "quick", "abc"),
        ("quick", "full", "def"),
        ("quick", "quick", "def"),
        ("full", "full", "def"),
    ],
)
def test_a_quick_run_does_not_replace_a_full_one(tmp_path, before, after, kept):
    results.publish(make_run(tmp_path, mode=before), tmp_path)
    results.publish(make_run(tmp_path, mode=after, commit="def"), tmp_path)
    assert published(tmp_path)[1] == [kept]


def test_a_row_of_another_statement_is_not_kept(tmp_path):
    other = CLAIM | {"id": "b"}
    results.publish(make_run(tmp_path, claims=[CLAIM, other]), tmp_path)
    changed = other | {"statement": "Something else."}
    out = make_run(tmp_path, changed, claims=[CLAIM])
    with pytest.raises(ValueError, match=r"not measured: b\.$"):
        results.publish(out, tmp_path)


def test_a_kept_row_has_the_source_of_today(tmp_path):
    other = CLAIM | {"id": "b"}
    results.publish(make_run(tmp_path, claims=[CLAIM, other]), tmp_path)
    out = make_run(tmp_path, other | {"source": "B. Author."}, claims=[CLAIM])
    results.publish(out, tmp_path)
    rows = json.loads((tmp_path / "results/pkg.json").read_text())["claims"]
    assert [row["source"] for row in rows] == [CLAIM["source"], "B. Author."]


def test_a_claim_that_is_no_longer_made_is_dropped(tmp_path):
    results.publish(make_run(tmp_path, claims=[CLAIM, CLAIM | {"id": "b"}]), tmp_path)
    results.publish(make_run(tmp_path), tmp_path)
    assert list(published(tmp_path)[0]) == ["a"]


def test_a_run_with_a_crashed_claim_is_not_published(tmp_path):
    out = make_run(tmp_path)
    content = json.loads((out / "claims.json").read_text())
    content["claims"][0]["details"] = "crashed: ValueError"
    (out / "claims.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r": a\.$"):
        results.publish(out, tmp_path)


def test_a_run_with_a_package_that_could_not_list_its_claims_is_not_published(tmp_path):
    out = make_run(tmp_path)
    (out / "other/plan").mkdir(parents=True)
    with pytest.raises(ValueError, match="no plan of other"):
        results.publish(out, tmp_path)


@pytest.mark.parametrize("readme", ["pkg/README.md", "README.md"])
def test_a_readme_without_a_place_for_results_is_refused(tmp_path, readme):
    out = make_run(tmp_path)
    (tmp_path / readme).write_text("# Pkg\n")
    with pytest.raises(ValueError, match="has no lines"):
        results.publish(out, tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_verdict_that_is_reopened_keeps_its_figures(tmp_path, monkeypatch):
    rows = [CLAIM | {"details": "Best of three."}, CLAIM | {"id": "b"}]
    results.publish(make_run(tmp_path, claims=rows), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert results.main(["--reopen", "a", "the best is at an end of its grid."]) == 0
    stored = json.loads((tmp_path / "results/pkg.json").read_text())
    details = "Best of three. Holds, but the best is at an end of its grid."
    changed = {"verdict": "not decided", "details": details}
    assert stored["claims"] == [rows[0] | changed | {"run": 0}, rows[1] | {"run": 0}]
    text = (tmp_path / "pkg/README.md").read_text()
    assert "| Half \\| half. | 0.5 | 0.25 to 0.75 | not decided | 3 |" in text
    assert "--full" not in (tmp_path / "README.md").read_text()  # it does not wait


def test_of_two_claims_with_one_name_the_package_says_which(tmp_path):
    results.publish(make_run(tmp_path), tmp_path)
    content = json.loads((tmp_path / "results/pkg.json").read_text())
    other = content | {"package": "other"}
    (tmp_path / "results/other.json").write_text(json.dumps(other))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/README.md").write_text(README)
    with pytest.raises(ValueError, match="are called 'a': other/a, pkg/a"):
        results.reopen(tmp_path, "a", "it is old.")
    for package in ("pkg", "other"):
        results.reopen(tmp_path, f"{package}/a", "it is old.")
        stored = json.loads((tmp_path / f"results/{package}.json").read_text())
        assert [row["verdict"] for row in stored["claims"]] == ["not decided"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reopen", "bb", "it."], "unknown claim 'bb'; the nearest of 2 is 'pkg/b'"),
        (["--reopen", "b", "it."], "reopened; 'pkg/b' is 'not decided'."),
        (["--reopen", "a", "it"], "the reason must end in a full stop, got 'it'."),
        (["--reopen", "a", "."], "the reason must end in a full stop, got '.'."),
        (["out", "--reopen", "a", "it."], "give no folder with it"),
        (["--reopen", "a"], "expected 2 arguments"),
    ],
)
def test_only_a_verdict_that_is_there_is_reopened(
    tmp_path, monkeypatch, capsys, arguments, message
):
    rows = [CLAIM, CLAIM | {"id": "b", "verdict": "not decided"}]
    results.publish(make_run(tmp_path, claims=rows), tmp_path)
    before = published(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        results.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert published(tmp_path) == before
