"""The divergence of scores conforms: its digits are in `test_divergence`."""

import numpy as np
import pytest

from expkit import testing
from gp_kl import span_divergence

RNG = np.random.default_rng(0)
S, T = RNG.normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
WHERE = np.triu(np.ones((4, 4), bool)) & (np.arange(4) < 3)


def both(s, t, **options):
    """Both reductions, as one function with two outputs."""
    return [
        span_divergence(s, t, reduction=name, **options) for name in ("sum", "mean")
    ]


CHECKS = testing.loss_checks(
    both,
    (S, T),
    argnums=(0, 1),
    kwargs={"where": np.broadcast_to(WHERE, S.shape), "temperature": 1.5},
    mask_name="where",
    second_order=True,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_divergence_conforms(check):
    check()
