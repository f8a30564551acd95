"""The checks of identities hold, and fail on a function that is wrong."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

import gp_kl
import rdrop
from expkit import claims
from gp_kl import checks_heads as heads
from gp_kl import checks_identities as checks

near = pytest.approx


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


@pytest.mark.parametrize(
    ("check", "measured"),
    [
        (checks.check_coins, near(0.0, abs=1e-10)),
        (checks.check_bregman, near(0.0, abs=1e-10)),
        (checks.check_softmax_form, near(0.0, abs=1e-10)),
        (checks.check_gradient, near(0.0, abs=1e-10)),
        (checks.check_saturation, near(4.5396e-4, rel=1e-3)),
        (checks.check_second_order, near(1.0, abs=1e-4)),
        (checks.check_reduction, "2640, 10400"),
        (checks.check_imbalance, near(0.0, abs=1e-10)),
        (heads.check_balance, near(0.48, abs=0.01)),
        (heads.check_soft_optimum, near(0.0, abs=1e-13)),
        (heads.check_half_precision, near(0.0, abs=1e-5)),
        (heads.check_sparse, near(0.0, abs=1e-6)),
        (heads.check_distance, near(0.0, abs=1e-10)),
        (heads.check_parameters, "984,320 and 101,012"),
        (heads.check_efficient_form, near(0.0, abs=1e-10)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_claim_holds(context, check, measured):
    finding = check(context)
    assert finding.verdict == claims.HOLDS
    assert finding.measured == measured
    assert "control" in finding.details


def test_the_memory_of_the_efficient_head_is_small(context):
    finding = heads.check_memory(context)
    assert finding.verdict == claims.HOLDS
    full, efficient = (float(x) for x in finding.measured.split()[:3:2])
    assert efficient < full < 25.0
    assert "control" in finding.details


RIGHT = gp_kl.span_divergence


def doubled(s, t, **options):
    """Both orders added, though it is symmetric."""
    return RIGHT(s, t, **options) + RIGHT(t, s, **options)


def squares(s, t, **options):
    del options
    return 0.25 * jnp.sum((s - t) ** 2, axis=tuple(range(1, s.ndim)))


def over_all_cells(s, t, reduction="sum", **options):
    total = RIGHT(s, t, **options)
    return total / s[0].size if reduction == "mean" else total


def mean_of_cells(s, t, **options):
    return RIGHT(s, t, **{"reduction": "mean", **options})


def summed_binary(logits, labels):
    signed = jnp.where(labels, -logits, logits)
    return jnp.sum(jax.nn.softplus(signed), axis=-1)


def with_constant(logits, indices):
    return gp_kl.multilabel_cross_entropy(logits, jnp.zeros_like(logits, bool))


def half_of_kl(s, t):
    p, q = jax.nn.softmax(s), jax.nn.softmax(t)
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1)


@dataclasses.dataclass(frozen=True)
class AbsolutePointer(gp_kl.EfficientGlobalPointer):
    """A head that knows where a token is, and has one parameter too many."""

    def init(self, key):
        return super().init(key) | {"extra": jnp.zeros(())}

    def apply(self, params, hidden, mask):
        rows = {k: v for k, v in params.items() if k != "extra"}
        places = jnp.arange(mask.shape[1]) / mask.shape[1]
        return super().apply(rows, hidden, mask) + places[None, None, None]


@pytest.mark.parametrize(
    ("module", "check", "name", "wrong"),
    [
        (gp_kl, checks.check_coins, "span_divergence", doubled),
        (gp_kl, checks.check_bregman, "span_divergence", squares),
        (rdrop, checks.check_softmax_form, "symmetric_kl", half_of_kl),
        (gp_kl, checks.check_gradient, "span_divergence", doubled),
        (gp_kl, checks.check_saturation, "span_divergence", squares),
        (gp_kl, checks.check_second_order, "span_divergence", squares),
        (gp_kl, checks.check_reduction, "span_divergence", over_all_cells),
        (gp_kl, checks.check_imbalance, "span_divergence", mean_of_cells),
        (gp_kl, heads.check_balance, "multilabel_cross_entropy", summed_binary),
        (gp_kl, heads.check_half_precision, "multilabel_cross_entropy", summed_binary),
        (gp_kl, heads.check_sparse, "sparse_multilabel_cross_entropy", with_constant),
        (gp_kl, heads.check_efficient_form, "EfficientGlobalPointer", AbsolutePointer),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_wrong_function_is_found(context, monkeypatch, module, check, name, wrong):
    monkeypatch.setattr(module, name, wrong)
    assert check(context).verdict == claims.DOES_NOT_HOLD


@pytest.mark.parametrize("check", [heads.check_distance, heads.check_parameters])
def test_a_wrong_head_is_found(context, monkeypatch, check):
    monkeypatch.setitem(heads.HEADS, "efficient", AbsolutePointer)
    assert check(context).verdict == claims.DOES_NOT_HOLD


def test_the_saturation_is_drawn(context):
    checks._draw_saturation(context)
    (figure,) = json.loads((context.out / "figures.json").read_text())
    assert figure["name"] == "saturation"
    assert "Scores 2 apart have 0.92 around 0" in figure["alt"]
    assert (context.out / figure["light"]).is_file()
