"""The list of claims is complete and can be listed."""

import json

from expkit import claim_runner, claims
from gp_kl.claims import CLAIMS, EXPERIMENTS


def test_every_claim_has_a_name_of_its_own_and_a_source_with_an_address():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids) > 10
    for claim in CLAIMS:
        name, _, address = claim.source.rpartition(" https://")
        assert name, claim.id
        assert address.count(" ") == 0, claim.id
        assert "{}" not in claim.source, claim.id
        assert claim.statement.endswith("."), claim.id
        assert callable(claim.check), claim.id
    statements = [claim.statement for claim in CLAIMS]
    assert len(set(statements)) == len(statements)


def test_published_tables_say_what_they_would_need(tmp_path):
    for name, *_, check in EXPERIMENTS["published"]:
        finding = check(claims.Context(tmp_path))
        assert finding.verdict == claims.NOT_TESTABLE, name
        assert finding.details.startswith("Needs "), name


def test_the_runner_lists_every_claim_under_its_experiment(capsys):
    assert claim_runner.main(CLAIMS, ["--list"], package="gp_kl") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["experiments"] == list(EXPERIMENTS)
    got = [(row["experiment"], row["id"]) for row in listed["claims"]]
    assert got == [(name, row[0]) for name, rows in EXPERIMENTS.items() for row in rows]


def test_a_comparison_that_its_source_does_not_make_says_so():
    sources = {claim.id: claim.source for claim in CLAIMS}
    ours = "the comparison is of this package. https://"
    assert ours in sources["nested-rotary"]
    assert ours not in sources["needs-rotary"]  # the control
