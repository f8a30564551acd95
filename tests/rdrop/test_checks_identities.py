"""The checks of R-Drop's identities hold, and fail on a loss that is wrong."""

import json

import jax
import jax.numpy as jnp
import pytest

import rdrop
from expkit import claims
from rdrop import checks_identities as checks


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


@pytest.mark.parametrize(
    ("check", "measured"),
    [
        (checks.check_zero_iff_equal, pytest.approx(1.0, abs=1e-2)),
        (checks.check_blindness, pytest.approx(0.0810930216)),
        (checks.check_conventions, pytest.approx(0.0, abs=1e-10)),
        (checks.check_blog_code_is_half, pytest.approx(2.0)),
        (checks.check_no_dropout, 0.0),
        (checks.check_mean_over_classes, "15, 119"),
        (checks.check_both_branches, pytest.approx(0.5)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_claim_holds(context, check, measured):
    finding = check(context)
    assert finding.verdict == claims.HOLDS
    assert finding.measured == measured
    assert "control" in finding.details


def mean_over_classes(logits_p, logits_q):
    p, q = jax.nn.softmax(logits_p), jax.nn.softmax(logits_q)
    return jnp.mean((p - q) * jnp.log(p / q), axis=-1)


def blind(logits_p, logits_q):
    """A distance of the first class alone."""
    return jnp.square(logits_p - logits_q)[..., 0]


def one_branch(logits_1, logits_2):
    logits_1 = jax.lax.stop_gradient(logits_1)
    return jnp.mean(rdrop.symmetric_kl(logits_1, logits_2))


def with_noise(logits_1, logits_2):
    return 1e-12 + jnp.mean(rdrop.symmetric_kl(logits_1, logits_2))


RIGHT_LOSS = rdrop.rdrop_loss


def loss_of_half_alpha(logits_1, logits_2, labels, alpha, **options):
    return RIGHT_LOSS(logits_1, logits_2, labels, 0.5 * alpha, **options)


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        (checks.check_zero_iff_equal, "symmetric_kl", mean_over_classes),
        (checks.check_zero_iff_equal, "symmetric_kl", blind),
        (checks.check_blindness, "symmetric_kl", blind),
        (checks.check_conventions, "convert_alpha", lambda alpha, *_: alpha),
        pytest.param(
            checks.check_conventions,
            "convention_scale",
            lambda *_: 1.0,
            marks=pytest.mark.slow,
        ),
        (checks.check_blog_code_is_half, "rdrop_loss", loss_of_half_alpha),
        (checks.check_no_dropout, "consistency_loss", with_noise),
        (checks.check_mean_over_classes, "rdrop_loss", loss_of_half_alpha),
        (checks.check_both_branches, "consistency_loss", one_branch),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_wrong_function_is_found(context, monkeypatch, check, name, wrong):
    monkeypatch.setattr(rdrop, name, wrong)
    monkeypatch.setattr(checks, "_draw_strengths", lambda *_: None)
    assert check(context).verdict == claims.DOES_NOT_HOLD


def test_the_strengths_are_drawn(context):
    checks._draw_strengths(context, list(rdrop.CONVENTIONS))
    (figure,) = json.loads((context.out / "figures.json").read_text())
    assert figure["name"] == "strengths"
    assert "1 of readme and vit is 2048 of the paper" in figure["alt"]
    assert (context.out / figure["light"]).is_file()
