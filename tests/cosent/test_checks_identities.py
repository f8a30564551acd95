"""The checks of CoSENT's identities hold, and fail on a loss that is wrong."""

import json

import jax.numpy as jnp
import pytest

import cosent
from cosent import checks_identities as checks
from expkit import claims

LOSS, BINARY = cosent.cosent_loss, cosent.binary_cosent_loss


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


@pytest.mark.parametrize(
    ("check", "measured"),
    [
        (checks.check_order_only, 0.0),
        (checks.check_shift, pytest.approx(0.0, abs=1e-12)),
        (checks.check_scale, pytest.approx(0.965, abs=1e-3)),
        (checks.check_binary, pytest.approx(0.0, abs=1e-12)),
        (checks.check_growth, pytest.approx(1.34, abs=0.05)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_claim_holds(context, check, measured):
    finding = check(context)
    assert finding.verdict == claims.HOLDS
    assert finding.measured == measured


def by_difference_of_labels(s, labels, **options):
    """Pairs count by how far apart their labels are."""
    return LOSS(s, labels, **options) * (1.0 + 0.1 * jnp.std(labels))


def of_angles(s, labels, **options):
    return LOSS(jnp.sin(s), labels, **options)


def mean_over_pairs(s, labels, *, scale):
    pairs = jnp.sum(labels) * jnp.sum(~labels)
    return BINARY(s, labels, scale=scale) - jnp.log(1.0 + pairs)


def of_half_scale(s, labels, *, scale):
    return LOSS(s, labels, scale=0.5 * scale)


def of_half_scale_binary(s, labels, *, scale):
    return BINARY(s, labels, scale=0.5 * scale)


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        (checks.check_order_only, "cosent_loss", by_difference_of_labels),
        (checks.check_shift, "cosent_loss", of_angles),
        (checks.check_scale, "cosent_loss", of_half_scale),
        (checks.check_binary, "binary_cosent_loss", of_half_scale_binary),
        (checks.check_growth, "binary_cosent_loss", mean_over_pairs),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_wrong_function_is_found(context, monkeypatch, check, name, wrong):
    monkeypatch.setattr(cosent, name, wrong)
    monkeypatch.setattr(checks, "_draw_scale", lambda *_: None)
    assert check(context).verdict == claims.DOES_NOT_HOLD


def test_the_weight_of_the_worst_pair_is_drawn(context):
    checks._draw_scale(context, [1.0, 20.0, 1000.0], [0.01, 0.5, 1.0])
    (figure,) = json.loads((context.out / "figures.json").read_text())
    assert figure["name"] == "scale"
    assert "from 1.0e-02 to 1.00" in figure["alt"]
    assert (context.out / figure["light"]).is_file()
