"""Results in the repository are those of a run, and README tables are those results."""

import json

import pytest

from expkit import results

CLAIM = {
    "id": "a",
    "package": "pkg",
    "statement": "Half | half.",
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
}
README = f"""# Pkg

Before.

{results.BEGIN}
previous table
{results.END}

After.
"""


def make_run(folder, *unmeasured, **environment):
    (folder / "out").mkdir()
    (folder / "pkg").mkdir()
    (folder / "pkg/README.md").write_text(README)
    content = {"environment": ENVIRONMENT | environment, "claims": [CLAIM]}
    (folder / "out/claims.json").write_text(json.dumps(content))
    plan = {"package": "pkg", "claims": [CLAIM, *unmeasured]}
    (folder / "out/pkg/plan").mkdir(parents=True)
    (folder / "out/pkg/plan/plan.json").write_text(json.dumps(plan))
    return folder / "out"


def test_publishing_writes_the_figures_of_the_run_and_keeps_the_rest(tmp_path):
    results.publish(make_run(tmp_path), tmp_path)
    text = (tmp_path / "pkg/README.md").read_text()
    assert "| Half \\| half. | 0.5 | 0.25 to 0.75 | holds | 3 |" in text
    assert "`./reproduce.sh pkg --full` on Some CPU (2 cores), 2026-01-02" in text
    assert text.startswith("# Pkg\n\nBefore.")
    assert text.endswith("After.\n")
    assert "previous table" not in text
    stored = json.loads((tmp_path / "results/pkg.json").read_text())
    assert stored["claims"] == [CLAIM]


def test_publishing_twice_changes_nothing(tmp_path):
    out = make_run(tmp_path)
    results.publish(out, tmp_path)
    once = (tmp_path / "pkg/README.md").read_text()
    results.publish(out, tmp_path)
    assert (tmp_path / "pkg/README.md").read_text() == once


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
    with pytest.raises(ValueError, match=r"not measured in .*: b, c\.$"):
        results.publish(out, tmp_path)
    assert not (tmp_path / "results").exists()


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
    with pytest.raises(ValueError, match="the plan of other"):
        results.publish(out, tmp_path)


def test_a_readme_without_a_place_for_results_is_refused(tmp_path):
    out = make_run(tmp_path)
    (tmp_path / "pkg/README.md").write_text("# Pkg\n")
    with pytest.raises(ValueError, match="has no lines"):
        results.publish(out, tmp_path)
    assert not (tmp_path / "results").exists()


def test_every_readme_table_is_what_its_results_file_says(repository_root):
    files = sorted((repository_root / "results").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text())
        text = (repository_root / content["package"] / "README.md").read_text()
        assert results.replace_table(text, content) == text
        changed = content | {"claims": [*content["claims"], CLAIM]}
        assert results.replace_table(text, changed) != text  # the control
