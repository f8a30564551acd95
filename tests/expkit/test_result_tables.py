"""The tables of all READMEs are those of the committed results."""

import json

from expkit import result_tables

ROW = {
    "statement": "Half.",
    "measured": 0.5,
    "interval": None,
    "verdict": "holds",
    "seeds": None,
    "run": 0,
    "experiment": "identities",
}


def test_every_readme_table_is_what_its_results_file_says(repository_root):
    files = sorted((repository_root / "results").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text())
        text = (repository_root / content["package"] / "README.md").read_text()
        assert result_tables.replace_table(text, content) == text
        changed = content | {"claims": [*content["claims"], ROW]}
        assert result_tables.replace_table(text, changed) != text  # the control


def test_the_verdicts_in_the_readme_are_those_of_the_results(repository_root):
    files = sorted((repository_root / "results").glob("*.json"))
    contents = [json.loads(file.read_text()) for file in files]
    text = (repository_root / "README.md").read_text()
    assert result_tables.replace_summary(text, contents) == text
    assert result_tables.replace_summary(text, contents[1:]) != text  # the control


def test_the_summary_counts_claims_that_wait_for_a_full_run():
    found = [
        {"verdict": "not decided", "measured": None, "run": 0},
        {"verdict": "not decided", "measured": 0.1, "run": 0},
        {"verdict": "holds", "measured": 0.1, "run": 0},
        {"verdict": "not decided", "measured": 0.5, "run": 1},
        {"verdict": "not testable", "measured": None, "run": 1},
    ]
    content = {"package": "pkg", "runs": [{"mode": "quick"}, {"mode": "full"}]}
    text = result_tables.summary([content | {"claims": found}])
    assert text.endswith("\n\n2 of those not decided wait for a run with `--full`.")
    assert "--full" not in result_tables.summary([content | {"claims": found[2:]}])
