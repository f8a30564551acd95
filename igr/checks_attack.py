"""Accuracy of a trained classifier under attack and under noise."""

from typing import Any

import jax
import jax.numpy as jnp

import igr
from igr import objectives

RADII = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""L2 lengths of the attack; a standardised image of 64 pixels has about 8."""
STDDEV = 0.75
"""Of the Gaussian noise."""
NUM_DRAWS = 8
"""Of that noise, over which the accuracy is averaged."""


def measure(
    problem: objectives.Problem, params: Any, validation: Any, test: Any
) -> dict[str, jax.Array]:
    """What is measured of a trained network; the attack is on the network itself.

    Of the test images it is told which are right, 0 or 1 each, or how often.
    """

    def hits(x, labels):
        is_right = problem.apply(params, x, None).argmax(axis=-1) == labels
        return is_right.astype(jnp.float32)

    def loss_of_one(x, label):
        return problem.loss_of_one(params, x, label)[0]

    def direction(x, label):
        return igr.fast_gradient_perturbation(lambda x: loss_of_one(x, label), x, 1.0)

    def attacked(x, labels):
        """Hits at each radius, [radii, images]."""
        unit = jax.vmap(direction)(x, labels)
        return jax.lax.map(
            lambda radius: hits(x + radius * unit, labels), jnp.array(RADII)
        )

    x, labels = problem.prepare(validation["image"]), validation["label"]
    loss, figures = problem.loss(params, x, labels)
    of_validation = {
        "validation_accuracy": figures["accuracy"],
        "validation_loss": loss,
        "validation_attacked": attacked(x, labels).mean(axis=-1),
    }
    x, labels = problem.prepare(test["image"]), test["label"]
    gradients = jax.vmap(jax.grad(loss_of_one))(x, labels)
    draws = jax.random.normal(jax.random.key(0), (NUM_DRAWS, *x.shape))
    return of_validation | {
        "clean": hits(x, labels),
        "attacked": attacked(x, labels),
        "noisy": jax.lax.map(
            lambda noise: hits(x + STDDEV * noise, labels), draws
        ).mean(axis=0),
        "squared_gradient": jnp.sum(gradients**2) / len(x),
    }
