"""The divergence of scores conforms: its digits are in `test_divergence`."""

import functools

import conformance
import numpy as np
import pytest

from expkit import testing
from gp_kl import span_divergence

RNG = np.random.default_rng(0)
S, T = RNG.normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
WHERE = np.triu(np.ones((4, 4), bool)) & (np.arange(4) < 3)


@pytest.mark.parametrize(
    "check",
    [
        case
        for reduction in ("sum", "mean")
        for case in conformance.cases(
            testing.loss_checks(
                functools.partial(span_divergence, reduction=reduction),
                (S, T),
                argnums=(0, 1),
                kwargs={"where": np.broadcast_to(WHERE, S.shape), "temperature": 1.5},
                mask_name="where",
                second_order=True,
            ),
            reduction,
            # What is counted under a mask decides the mean.
            quick=conformance.MASKS if reduction == "mean" else None,
        )
    ],
)
def test_the_divergence_conforms(check):
    check()
