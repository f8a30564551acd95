"""Gradient penalty and flooding in a loop of Flax Linen.

Parameters and optimizer live in a `TrainState`; the penalised loss is a function of the
parameters like any other. Run: python examples/penalty_linen.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen
from flax.training.train_state import TrainState

import igr
from expkit import data

LEVEL = 0.05  # of flooding: below it the loss is climbed
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


@jax.jit
def step(state, x, labels):
    """One update; returns the new state and the objective."""

    def loss_fn(params):
        return cross_entropy(state.apply_fn(params, x), labels).mean()

    # The same signature, the value L + 0.01 ||dL/dparams||^2.
    penalised = igr.with_gradient_penalty(loss_fn, 0.01)
    value, grads = jax.value_and_grad(lambda p: igr.flood(penalised(p), LEVEL))(
        state.params
    )
    return state.apply_gradients(grads=grads), value


def main():
    """Returns the objective at every step."""
    model = linen.Sequential([linen.Dense(32), linen.tanh, linen.Dense(10)])
    params = model.init(jax.random.key(0), jnp.zeros((1, 64)))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-2))
    batches = data.Batches(data.load("digits", "train"), 128, seed=0)
    values = []
    for number in range(150):
        x = batches[number]["image"].reshape(-1, 64) / 16.0
        state, value = step(state, x, batches[number]["label"])
        values.append(float(value))
    print(f"Flax Linen: {values[0]:.2f} -> {values[-1]:.3f}, level {LEVEL}")
    return values, LEVEL


if __name__ == "__main__":
    main()
