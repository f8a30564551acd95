"""Perplexities are compared at an equal budget, in the right direction."""

import collections
import json
import math
import types

import numpy as np
import pytest

from expkit import claims, data, text
from lion import checks_language, train

BEST = {"lion": 9e-4, "adamw": 3e-3}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the check on given losses; returns the finding and the runs it asked for."""

    def run_check(gains, *, draws=False, **best):
        asked = []

        def run(optimizer, rate, seed):
            asked.append((optimizer, float(f"{rate:.0e}"), seed))
            away = math.log(rate / (BEST | best)[optimizer]) ** 2
            loss = 4.0 + 0.1 * seed + away
            # On the test split the worst rate is the best one.
            test_loss = loss - 2 * away - gains[seed] * (optimizer == "lion")
            curve = [loss] * checks_language.NUM_POINTS
            return {"validation_loss": loss, "test_loss": test_loss, "curve": curve}

        task = types.SimpleNamespace(splits={})
        monkeypatch.setattr(train, "make_task", lambda config: task)
        monkeypatch.setattr(checks_language, "unigram_perplexity", lambda _: 100.0)
        monkeypatch.setattr(checks_language, "_remembered", lambda *_: run)
        context = claims.Context(tmp_path)
        if not draws:
            monkeypatch.setattr(claims.Context, "figure", lambda *_: None)
        return checks_language.check_perplexity(context), asked

    return run_check


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.10, 0.11, 0.12], claims.HOLDS),
        ([-0.10, -0.11, -0.12], claims.DOES_NOT_HOLD),
        ([-0.10, 0.11, 0.12], claims.NOT_DECIDED),
    ],
)
def test_the_ratio_is_that_of_geometric_means_over_paired_seeds(check, gains, verdict):
    finding, _ = check(gains)
    assert finding.measured == pytest.approx(math.exp(-np.mean(gains)), rel=1e-6)
    assert finding.interval[0] < finding.measured < finding.interval[1]
    assert finding.verdict == verdict


def test_both_optimizers_get_the_same_budget_and_their_best_validated_rate(check):
    _, asked = check([0.1, 0.11, 0.12])
    runs = {name: {run[1:] for run in asked if run[0] == name} for name in BEST}
    assert len(runs["lion"]) == len(runs["adamw"]) == 4 + 2
    for name, rate in BEST.items():
        assert {run for run in runs[name] if run[1]} == {(rate, 1), (rate, 2)}


def test_a_best_rate_at_an_end_of_the_grid_leaves_the_verdict_open(check):
    finding, _ = check([0.1, 0.11, 0.12], adamw=1e-4)
    assert finding.verdict == claims.NOT_DECIDED
    assert "one of them at an end of the grid" in finding.details


def test_unigram_perplexity_is_that_of_counting():
    rng = np.random.default_rng(0)
    train_ids, ids = (rng.zipf(1.6, (50, 9)).clip(max=30) for _ in range(2))
    train_ids[:, 7:] = text.PAD
    selected = rng.random(ids.shape) < 0.3
    counts = collections.Counter(train_ids[train_ids != text.PAD].tolist())
    total = sum(counts.values()) + 31
    logs = [math.log((counts[int(i)] + 1) / total) for i in ids[selected]]
    splits = {"train": {"ids": train_ids}, "test": {"ids": ids, "selected": selected}}
    got = checks_language.unigram_perplexity(splits)
    assert got == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-9)


def figures(folder):
    return [row["name"] for row in json.loads((folder / "figures.json").read_text())]


def test_curves_and_rates_are_drawn(check, tmp_path):
    check([0.1, 0.11, 0.12], draws=True)
    assert figures(tmp_path) == ["perplexity_by_step", "perplexity_by_learning_rate"]


@pytest.mark.slow
def test_a_finished_run_is_not_made_again(tmp_path, monkeypatch):
    rows = {"text": np.array(["这家酒店很好", "这本书不好看"] * 32, object)}
    monkeypatch.setattr(data, "load", lambda *args, **options: rows)
    size = "max_length=8,width=8,depth=1,num_heads=2,num_steps=60"
    monkeypatch.setattr(checks_language, "QUICK", size)
    finding = checks_language.check_perplexity(claims.Context(tmp_path))
    assert 0.0 < finding.measured < np.inf
    monkeypatch.setattr(train, "make_task", None)
    assert checks_language.check_perplexity(claims.Context(tmp_path)) == finding
