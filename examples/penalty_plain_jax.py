"""Gradient penalty and flooding in plain JAX: parameters are a list of arrays.

`igr` wraps a loss function of arrays and pytrees; `penalty_nnx.py` and
`penalty_linen.py` do the same with Flax. Run: python examples/penalty_plain_jax.py
"""

import jax
import jax.numpy as jnp
import optax

import igr
from expkit import data

LEVEL = 0.05  # of flooding: below it the loss is climbed
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


def loss_fn(params, x, labels):
    """Mean cross-entropy of a perceptron."""
    return cross_entropy(jnp.tanh(x @ params[0]) @ params[1], labels).mean()


# The same signature, the value L + 0.01 ||dL/dparams||^2.
penalised = igr.with_gradient_penalty(loss_fn, 0.01)


def objective(params, x, labels):
    """What is minimised: |penalised - level| + level."""
    return igr.flood(penalised(params, x, labels), LEVEL)


def main():
    """Returns the objective at every step."""
    keys = jax.random.split(jax.random.key(0))
    params = [
        jax.random.normal(keys[0], (64, 32)) / 8,
        jax.random.normal(keys[1], (32, 10)) / 6,
    ]
    tx = optax.adam(1e-2)
    state = tx.init(params)

    @jax.jit
    def step(params, state, x, labels):
        value, grads = jax.value_and_grad(objective)(params, x, labels)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    batches = data.Batches(data.load("digits", "train"), 128, seed=0)
    values = []
    for number in range(150):
        x = batches[number]["image"].reshape(-1, 64) / 16.0
        params, state, value = step(params, state, x, batches[number]["label"])
        values.append(float(value))
    print(f"plain JAX: {values[0]:.2f} -> {values[-1]:.3f}, level {LEVEL}")
    return values, LEVEL


if __name__ == "__main__":
    main()
