"""The experiments on texts run to their end in full mode, with every run cut short.

Full mode takes hours, so nothing else would tell that its settings, grids and further
arms fit together. Run with `./test.sh -m slow tests/test_full_modes.py`.
"""

import importlib
import math
import re

import pytest

from expkit import arms, claims
from expkit import config as config_lib

EXPERIMENTS = [
    ("childtuning", "docs"),
    ("childtuning", "reviews"),
    ("cosent", "pairs"),
    ("cosent", "timing"),
    ("cosent", "word_order"),
    ("gp_kl", "code_spans"),
    ("gp_kl", "few_labels"),
    ("gp_kl", "news_entities"),
    ("gp_kl", "timing"),
    ("rdrop", "all_docs"),
    ("rdrop", "docs"),
    ("rdrop", "pairs"),
    ("rdrop", "reviews"),
    ("rdrop", "timing"),
]
SIZES = {"train": 1000, "validation": 48, "test": 96}
STEPS = {"cosent": 4, "gp_kl": 5}
"""A step for each part of a run that is looked at; elsewhere two are enough."""


def checks_of(package: str, experiment: str) -> list[claims.Claim]:
    """The claims that one process measures."""
    module = importlib.import_module(f"{package}.claims")
    return [claim for claim in module.CLAIMS if claim.experiment == experiment]


@pytest.fixture
def short_runs(monkeypatch, package):
    """Cuts the runs to few steps, the splits to a few texts, and the seeds to two."""
    load = config_lib.load

    def load_short(path):
        config = load(path)
        config.num_steps = STEPS.get(package, 2)
        config.num_layers = 1
        for split, size in SIZES.items():
            name = f"{split}_split"
            whole = re.match(r"\w+", config[name]).group()
            config[name] = f"{whole}[:{size}]"
        return config

    monkeypatch.setattr(config_lib, "load", load_short)
    monkeypatch.setattr(
        claims.Context, "seeds", lambda self, quick=3, full=10: range(2)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("package", "experiment"), EXPERIMENTS)
def test_every_claim_is_measured(package, experiment, short_runs, tmp_path):
    context = claims.Context(tmp_path, full=True, command="none")
    for claim in checks_of(package, experiment):
        finding = claim.check(context)
        assert finding is not arms.LEFT_TO_FULL_MODE, claim.id
        if finding.verdict == claims.NOT_TESTABLE:
            continue
        assert isinstance(finding.measured, str) or math.isfinite(finding.measured)
        assert finding.details, claim.id


def test_every_experiment_on_texts_is_listed():
    packages = {package for package, _ in EXPERIMENTS}
    found = {
        (package, claim.experiment)
        for package in packages
        for claim in importlib.import_module(f"{package}.claims").CLAIMS
    }
    left_out = {"identities", "published", "thresholds"}
    assert {pair for pair in found if pair[1] not in left_out} == set(EXPERIMENTS)
