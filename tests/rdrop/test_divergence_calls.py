"""The symmetric divergence conforms: its digits are in `test_divergence`."""

import conformance
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
    *conformance.COMPILED,
    "second_derivative_matches_finite_differences",
    "keyword_arguments",
)


@pytest.mark.parametrize("check", conformance.cases(CHECKS, slow=SLOW))
def test_the_divergence_conforms(check):
    check()
