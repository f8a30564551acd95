"""The divergence of scores conforms: its digits are in `test_divergence`."""

import functools

import numpy as np
import pytest

from expkit import testing
from gp_kl import span_divergence

RNG = np.random.default_rng(0)
S, T = RNG.normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
WHERE = np.triu(np.ones((4, 4), bool)) & (np.arange(4) < 3)


CHECKS = {
    (reduction, check.name): check
    for reduction in ("sum", "mean")
    for check in testing.loss_checks(
        functools.partial(span_divergence, reduction=reduction),
        (S, T),
        argnums=(0, 1),
        kwargs={"where": np.broadcast_to(WHERE, S.shape), "temperature": 1.5},
        mask_name="where",
        second_order=True,
    )
}
MASKS = ("masked_entries_have_no_influence", "empty_mask")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check,
            # What is counted under a mask decides the mean.
            marks=[pytest.mark.slow] * (reduction == "mean" and name not in MASKS),
            id=f"{reduction}-{name}",
        )
        for (reduction, name), check in CHECKS.items()
    ],
)
def test_the_divergence_conforms(check):
    check()
