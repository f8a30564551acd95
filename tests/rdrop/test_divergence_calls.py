"""The symmetric divergence conforms: its digits are in `test_divergence`."""

import numpy as np
import pytest

from expkit import testing
from rdrop import symmetric_kl

CHECKS = testing.loss_checks(
    symmetric_kl,
    (
        np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32),
        np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32),
    ),
    argnums=(0, 1),
    kwargs={"where": np.random.default_rng(2).random((5, 4)) < 0.7},
    mask_name="where",
    second_order=True,
)


# What takes long to compile; the loss, which consists of it, passes all in CI.
SLOW = (
    "second_derivative_matches_finite_differences",
    "jit_equals_eager",
    "vmap_equals_loop",
    "no_recompilation",
    "closes_over_traced_arrays",
    "keyword_arguments",
)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (c.name in SLOW))
        for c in CHECKS
    ],
)
def test_the_divergence_conforms(check):
    check()
