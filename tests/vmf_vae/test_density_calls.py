"""Losses made of the functions conform: their digits are in `test_density`."""

import conformance
import jax
import jax.numpy as jnp
import pytest

from expkit import testing
from vmf_vae import density

FUNCTIONS = (density.log_normalizer, density.kl_to_uniform, density.entropy)


def of_features(fn):
    """The function as a model has it: of a feature that a softplus makes positive.

    The dimension is one of a short program.
    """
    return lambda raw: fn(40, jax.nn.softplus(raw))


@pytest.mark.parametrize(
    "check",
    [
        # The entropy is a constant minus the divergence.
        case
        for fn in FUNCTIONS
        for case in conformance.cases(
            testing.loss_checks(
                of_features(fn),
                (jnp.linspace(-2.0, 6.0, 5),),
                extremes=(0.0, 1e4, -10.0),
                elementwise=True,
                second_order=True,
            ),
            quick=() if fn is density.entropy else None,
        )
    ],
)
def test_losses_of_features_conform(check):
    check()
