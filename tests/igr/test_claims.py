"""The list of claims is complete and can be listed."""

import json

from expkit import claim_runner
from igr.claims import CLAIMS, EXPERIMENTS


def test_every_claim_has_a_name_of_its_own_and_a_source_with_an_address():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids) > 50
    for claim in CLAIMS:
        name, _, address = claim.source.rpartition(" https://")
        assert name, claim.id
        assert address.count(" ") == 0, claim.id
        assert "{}" not in claim.source, claim.id
        assert claim.statement.endswith("."), claim.id
        assert callable(claim.check), claim.id
    statements = [claim.statement for claim in CLAIMS]
    assert len(set(statements)) == len(statements)


def test_the_runner_lists_every_claim_under_its_experiment(capsys):
    assert claim_runner.main(CLAIMS, ["--list"], package="igr") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["experiments"] == list(EXPERIMENTS)
    got = [(row["experiment"], row["id"]) for row in listed["claims"]]
    assert got == [(name, row[0]) for name, rows in EXPERIMENTS.items() for row in rows]


def test_a_comparison_that_its_source_does_not_make_says_so():
    sources = {claim.id: claim.source for claim in CLAIMS}
    ours = "the comparison is of this package. https://"
    made = ("attacked-noise", "attacked-input_penalty", "clean-cost-fgm")
    for name in (*made, "flooding-loss-clean", "flooding-accuracy-noisy"):
        assert ours in sources[name]
    quoted = ("attacked-fgm", "gradient-input_penalty", "clean-noise")
    for name in (*quoted, "flooding-loss-end-clean"):
        assert ours not in sources[name]
