"""The list of claims is complete, and the checks say what they should."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import childtuning
from childtuning import checks_identities
from childtuning.claims import CLAIMS, EXPERIMENTS
from expkit import claim_runner, claims


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


def test_every_claim_has_a_name_of_its_own_and_a_source_with_an_address():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids) >= 12
    for claim in CLAIMS:
        name, _, address = claim.source.rpartition(" https://")
        assert name, claim.id
        assert address.count(" ") == 0, claim.id
        assert "{}" not in claim.source, claim.id
        assert claim.statement.endswith("."), claim.id
        assert callable(claim.check), claim.id


def test_the_runner_lists_every_claim_under_its_experiment(capsys):
    assert claim_runner.main(CLAIMS, ["--list"], package="childtuning") == 0
    listed = json.loads(capsys.readouterr().out)
    got = [(row["experiment"], row["id"]) for row in listed["claims"]]
    assert got == [(name, row[0]) for name, rows in EXPERIMENTS.items() for row in rows]


VERDICTS = {"adam-variance": claims.DOES_NOT_HOLD}
LONG = ("adam-step", "adam-variance")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if row[0] in LONG else ())
        for row in EXPERIMENTS["identities"]
    ],
    ids=lambda row: row[0],
)
def test_identities_hold_but_for_the_one_that_does_not(row, context):
    name, *_, check = row
    assert check(context).verdict == VERDICTS.get(name, claims.HOLDS)


def ratio_of_long_windows():
    """With a constant second moment the update is m / sqrt(E g^2): in closed form."""
    mu, sigma, p = 0.5, 1.0, 0.2
    masked = (sigma**2 + (1 - p) / p * (mu**2 + sigma**2)) / ((mu**2 + sigma**2) / p)
    plain = sigma**2 / (mu**2 + sigma**2)
    return masked / plain


def test_the_variance_under_adam_has_the_ratio_of_long_windows():
    masked, plain = (
        np.var(checks_identities._adam_updates(p, mu=0.5, sigma=1.0))
        for p in (0.2, 1.0)
    )
    assert masked / plain == pytest.approx(ratio_of_long_windows(), rel=0.05)


@pytest.mark.slow
def test_the_variance_over_five_seeds_has_the_ratio_of_long_windows(context):
    finding = checks_identities.check_adam_variance(context)
    assert finding.measured == pytest.approx(ratio_of_long_windows(), rel=0.05)


def test_checks_fail_where_the_method_is_broken(context, monkeypatch):
    unmasked = optax.GradientTransformation(
        lambda params: childtuning.ChildTuningFState(jnp.zeros(()), jnp.zeros((), int)),
        lambda updates, state, params=None: (updates, state),
    )
    with monkeypatch.context() as patch:
        patch.setattr(childtuning, "child_tuning_f", lambda *_, **__: unmasked)
        finding = checks_identities.check_sgd_variance(context)
        assert finding.verdict == claims.DOES_NOT_HOLD
    with monkeypatch.context() as patch:
        patch.setattr(
            childtuning,
            "child_adamw",
            lambda rate, mask, *, decay="all", **options: optax.adamw(rate, **options),
        )
        for decay in ("all", "child"):
            finding = checks_identities.check_decay_moves_frozen(decay, context)
            assert finding.verdict == claims.DOES_NOT_HOLD
        finding = checks_identities.check_authors_adamw(context)
        assert finding.verdict == claims.DOES_NOT_HOLD
    assert np.isfinite(finding.measured)


def test_the_control_of_frozen_weights_is_measured(context, monkeypatch):
    child_adamw = childtuning.child_adamw

    def without_decay(rate, mask, *, decay, weight_decay):
        return child_adamw(rate, mask, decay=decay, weight_decay=0.0)

    check = checks_identities.check_decay_moves_frozen
    assert check("child", context).verdict == claims.HOLDS
    monkeypatch.setattr(childtuning, "child_adamw", without_decay)
    assert check("child", context).verdict == claims.DOES_NOT_HOLD
