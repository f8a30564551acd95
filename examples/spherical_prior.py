"""A decoder of `vmf_vae` as the prior of another model: restore half an image.

The decoder maps a sphere to images of digits, and the prior on the sphere is uniform.
So the most probable image given half of its pixels is that of the direction under which
they are likeliest. Run: python examples/spherical_prior.py
"""

import jax
import jax.numpy as jnp
import optax

import vmf_vae
from expkit import data

model = vmf_vae.VMFVAE((8, 8, 1), latent_dim=6, hidden=(128,), concentration=30.0)


def descend(loss_fn, params, learning_rate, steps):
    """Minimises `loss_fn(params, key)` in one compiled loop."""
    tx = optax.adam(learning_rate)

    def step(carry, key):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, key)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), loss

    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
    return params, losses


def train(images):
    """A VAE of the training images; pixels are drawn anew from the grey values."""

    def loss_fn(params, key):
        rows, draw, latent = jax.random.split(key, 3)
        batch = images[jax.random.choice(rows, len(images), (64,))]
        pixels = jax.random.bernoulli(draw, batch).astype(jnp.float32)
        return -model.elbo(params, pixels, latent)[0].mean()

    return descend(loss_fn, model.init(jax.random.key(0)), 2e-3, 500)


def restore(params, image, seen):
    """The image at the best of several searches, each from a direction of its own."""
    starts = vmf_vae.SphericalUniform(6).sample(jax.random.key(2), (8,))

    def mismatch(z):
        z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
        logits = model.decode(params, z)
        terms = image[None] * logits - jax.nn.softplus(logits)  # log-likelihoods
        return -jnp.sum(jnp.where(seen[None], terms, 0.0), axis=(1, 2, 3))

    ends, _ = descend(lambda z, _: mismatch(z).sum(), starts, 0.05, 100)
    best = ends[jnp.argmin(mismatch(ends))]
    return model.mean(params, best[None] / jnp.linalg.norm(best))[0]


def main():
    """Returns the losses and the errors of the missing half, without and with it."""
    images = jnp.array(data.load("digits", "train")["image"] / 16.0)
    held_out = jnp.array(data.load("digits", "test")["image"][:40] / 16.0)
    params, losses = jax.jit(train)(images)
    seen = jnp.arange(8)[:, None, None] < 4  # the upper half
    search = jax.jit(jax.vmap(lambda image: restore(params, image, seen)))

    def error(guess):
        return float(jnp.mean((guess - held_out)[:, 4:] ** 2))

    errors = error(images.mean(0, keepdims=True)), error(search(held_out))
    print(f"negative ELBO: {losses[0]:.1f} -> {losses[-50:].mean():.1f} nats")
    print(f"error of the missing half, filled from the mean image: {errors[0]:.3f}")
    print(f"error of the missing half, filled from the sphere: {errors[1]:.3f}")
    return losses, errors


if __name__ == "__main__":
    main()
