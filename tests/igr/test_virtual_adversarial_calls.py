"""How the virtual adversarial loss may be called: conformance and refusals."""

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import testing
from igr import virtual_adversarial_loss, virtual_adversarial_perturbation

KEY = jax.random.key(0)


def network(params, x):
    w, v = params
    return jnp.tanh(x @ w) @ v


def example():
    rng = np.random.default_rng(0)
    params = rng.normal(size=(6, 8)), rng.normal(size=(8, 4))
    x = rng.normal(size=(5, 6)).astype(np.float32)
    return tuple(a.astype(np.float32) for a in params), x


def vat(logits_fn):
    def loss(params, x):
        return virtual_adversarial_loss(
            lambda x: logits_fn(params, x), x, KEY, epsilon=0.5
        )

    return loss


CONSTANTS = "direction and clean prediction are constants"


CHECKS = testing.loss_checks(
    network,
    example(),
    argnums=0,
    wrap=vat,
    exempt={
        "gradient_matches_finite_differences": CONSTANTS,
        "closes_over_traced_arrays": CONSTANTS,
        "low_precision": "the network computes in low precision",
    },
)
# To compile, most of them op by op.
SLOW = (
    "jit_equals_eager",
    "keyword_arguments",
    "no_recompilation",
    "vmap_equals_loop",
)


@pytest.mark.parametrize("check", conformance.cases(CHECKS, slow=SLOW))
def test_the_loss_conforms(check):
    check()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": -1.0}, ValueError, "epsilon must be at least 0, got -1.0"),
        ({"xi": 0.0}, ValueError, "xi must be above 0, got 0.0"),
        ({"num_iterations": -1}, ValueError, "num_iterations must be at least 0"),
        ({"num_iterations": 1.5}, TypeError, "num_iterations must be an integer"),
        ({"x": np.ones((2, 3), int)}, TypeError, "x must be real floating-point"),
        ({"x": np.float32(1.0)}, ValueError, r"x must be a batch \[batch, ...\]"),
        (
            {"logits_fn": lambda x: x.sum(axis=1)},
            ValueError,
            r"to logits \[batch, classes\] = \[2, ...\], got \[2\]",
        ),
        (
            {"logits_fn": lambda x: x.sum(axis=1), "xi": 1.0},
            ValueError,
            r"to logits \[batch, classes\] = \[2, ...\], got \[2\]",
        ),
    ],
)
def test_bad_input_is_named(options, error, message):
    given = {"logits_fn": lambda x: x, "x": np.ones((2, 3), np.float32)} | options
    logits_fn, x = given.pop("logits_fn"), given.pop("x")
    with pytest.raises(error, match=message):
        virtual_adversarial_loss(logits_fn, x, KEY, **{"epsilon": 1.0, **given})


def test_the_radius_of_a_perturbation_has_its_name():
    with pytest.raises(TypeError, match="positional"):
        virtual_adversarial_perturbation(lambda x: x, jnp.ones((2, 3)), KEY, 0.5)
