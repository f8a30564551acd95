"""Two methods in a program of your own, without `expkit`: Lion and a vMF likelihood.

Predict a direction and how sure it is: the network gives a vector, whose direction is
the mean and whose length is the concentration of a von Mises-Fisher distribution. Needs
JAX, optax and the two packages. Run: python examples/without_expkit.py
"""

import jax
import jax.numpy as jnp
import optax

import lion
import vmf_vae


def winds(key, count):
    """Points on a line, and directions that turn along it, noisier to the right."""
    places, noise = jax.random.split(key)
    x = jax.random.uniform(places, (count,), minval=-1.0, maxval=1.0)
    mean = jnp.stack([jnp.cos(2 * x), jnp.sin(2 * x), 0.5 * x], axis=-1)
    mean /= jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return x, vmf_vae.sample_vmf(noise, mean, concentration(x))


def concentration(x):
    """The true one, from 55 on the left to 7 on the right."""
    return jnp.exp(3.0 - x)


def predict(params, x):
    """A distribution over directions for each point."""
    h = jnp.tanh(x[:, None] * params["w"] + params["b"])
    out = h @ params["v"]
    length = jnp.linalg.norm(out, axis=-1, keepdims=True)
    return vmf_vae.VonMisesFisher(out / length, length[:, 0])


def loss_fn(params, x, directions):
    """Mean negative log-likelihood."""
    return -predict(params, x).log_prob(directions).mean()


def main():
    """Returns losses, and predicted and true concentrations at both ends."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, directions = winds(keys[0], 2000)
    params = {
        "w": jax.random.normal(keys[1], (32,)),
        "b": jax.random.normal(keys[2], (32,)),
        "v": jax.random.normal(keys[3], (32, 3)),
    }
    tx = lion.lion(optax.cosine_decay_schedule(3e-2, 500), weight_decay=0.0)
    state, losses = tx.init(params), []

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, directions)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for _ in range(500):
        params, state, loss = step(params, state)
        losses.append(float(loss))

    ends = jnp.array([-0.9, 0.9])
    found, true = predict(params, ends).concentration, concentration(ends)
    print(f"negative log-likelihood: {losses[0]:.2f} -> {losses[-1]:.2f}")
    print(f"concentration at both ends: {found.round(1)}, true {true.round(1)}")
    return losses, found.tolist(), true.tolist()


if __name__ == "__main__":
    main()
