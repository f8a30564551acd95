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
    """What is measured of a trained network; the attack is on the network itself."""

    def accuracy(x, labels):
        return problem.loss(params, x, labels)[1]["accuracy"]

    def loss_of_one(x, label):
        return problem.loss_of_one(params, x, label)[0]

    def direction(x, label):
        return igr.fast_gradient_perturbation(lambda x: loss_of_one(x, label), x, 1.0)

    def attacked(x, labels):
        """Accuracy at each radius."""
        unit = jax.vmap(direction)(x, labels)
        return jax.lax.map(
            lambda radius: accuracy(x + radius * unit, labels), jnp.array(RADII)
        )

    x, labels = problem.prepare(validation["image"]), validation["label"]
    loss, figures = problem.loss(params, x, labels)
    of_validation = {
        "validation_accuracy": figures["accuracy"],
        "validation_loss": loss,
        "validation_attacked": attacked(x, labels),
    }
    x, labels = problem.prepare(test["image"]), test["label"]
    gradients = jax.vmap(jax.grad(loss_of_one))(x, labels)
    draws = jax.random.normal(jax.random.key(0), (NUM_DRAWS, *x.shape))
    return of_validation | {
        "clean": accuracy(x, labels),
        "attacked": attacked(x, labels),
        "noisy": jax.lax.map(
            lambda noise: accuracy(x + STDDEV * noise, labels), draws
        ).mean(),
        "squared_gradient": jnp.sum(gradients**2) / len(x),
    }
