"""Gradient penalty and flooding in a loop of Flax NNX.

A method takes functions of pytrees, so the parameters are split off the module for the
step and put back after it. Run: python examples/penalty_nnx.py
"""

import jax
import optax
from flax import nnx

import igr
from expkit import data

LEVEL = 0.05  # of flooding: below it the loss is climbed
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


class Perceptron(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        """Logits [batch, 10] of images [batch, 64]."""
        return self.out(nnx.tanh(self.hidden(x)))


@nnx.jit
def step(model, optimizer, x, labels):
    """One update in place; returns the objective."""
    graph, params = nnx.split(model, nnx.Param)

    def loss_fn(params):
        return cross_entropy(nnx.merge(graph, params)(x), labels).mean()

    # The same signature, the value L + 0.01 ||dL/dparams||^2.
    penalised = igr.with_gradient_penalty(loss_fn, 0.01)
    value, grads = jax.value_and_grad(lambda p: igr.flood(penalised(p), LEVEL))(params)
    optimizer.update(model, grads)
    return value


def main():
    """Returns the objective at every step."""
    model = Perceptron(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    batches = data.Batches(data.load("digits", "train"), 128, seed=0)
    values = []
    for number in range(150):
        x = batches[number]["image"].reshape(-1, 64) / 16.0
        values.append(float(step(model, optimizer, x, batches[number]["label"])))
    print(f"Flax NNX: {values[0]:.2f} -> {values[-1]:.3f}, level {LEVEL}")
    return values, LEVEL


if __name__ == "__main__":
    main()
