"""The checks of the inequality hold, and fail for planted violations."""

import pytest

import igr
from expkit import claims
from igr import checks_inequality, inequality

# Those that share their networks go together.
CHECKS = {
    "networks": (
        checks_inequality.check_no_violation,
        checks_inequality.check_first_layer_bound,
    ),
    "slack": (checks_inequality.check_slack,),
    "batches": (checks_inequality.check_batch_mean,),
}


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


@pytest.fixture
def few(monkeypatch):
    """Fewer and smaller networks than the claims have."""
    some = checks_inequality.ARCHITECTURES[:4:3]
    monkeypatch.setattr(checks_inequality, "ARCHITECTURES", some)
    monkeypatch.setattr(checks_inequality, "DEPTHS", (1, 2))
    monkeypatch.setattr(checks_inequality, "WIDE", (40, 20, 1))


@pytest.mark.parametrize("checks", CHECKS.values(), ids=CHECKS)
def test_a_few_networks_satisfy_them(checks, context, few):
    for check in checks:
        assert check(context).verdict == claims.HOLDS


@pytest.mark.slow
@pytest.mark.parametrize("checks", CHECKS.values(), ids=CHECKS)
def test_all_networks_satisfy_them(checks, context):
    for check in checks:
        assert check(context).verdict == claims.HOLDS


def test_there_are_1000_networks():
    count = len(checks_inequality.ARCHITECTURES)
    assert count * checks_inequality.PER_ARCHITECTURE == 1000


@pytest.mark.parametrize("name", ["networks", "slack"])
def test_a_norm_that_is_too_small_is_found(name, context, few, monkeypatch):
    true_norm = inequality.spectral_norm
    monkeypatch.setattr(inequality, "spectral_norm", lambda a: 0.5 * true_norm(a))
    for check in CHECKS[name]:
        assert check(context).verdict == claims.DOES_NOT_HOLD


def test_a_norm_that_is_too_large_makes_the_slack_large(context, few, monkeypatch):
    true_norm = inequality.spectral_norm
    monkeypatch.setattr(inequality, "spectral_norm", lambda a: 3.0 * true_norm(a))
    finding = checks_inequality.check_slack(context)
    assert finding.verdict == claims.DOES_NOT_HOLD
    assert finding.measured > 4.0


def test_a_batch_that_exceeds_the_mean_of_the_squares_is_found(context, monkeypatch):
    def broken(*args, **options):
        got = inequality.penalty_inequality(*args, **options)
        return got._replace(input_side=10.0 * got.input_side)

    monkeypatch.setattr(igr, "penalty_inequality", broken)
    finding = checks_inequality.check_batch_mean(context)
    assert finding.verdict == claims.DOES_NOT_HOLD


def test_a_network_that_gives_nan_counts_as_a_violation(context, few, monkeypatch):
    one = checks_inequality.ARCHITECTURES[:1]
    monkeypatch.setattr(checks_inequality, "ARCHITECTURES", one)
    monkeypatch.setattr(inequality, "spectral_norm", lambda a: a[0, 0] * float("nan"))
    finding = checks_inequality.check_no_violation(context)
    assert finding.verdict == claims.DOES_NOT_HOLD
