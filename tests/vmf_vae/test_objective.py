"""The training loss: drawn pixels, and the weight of the KL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmf_vae
from vmf_vae import objective
from vmf_vae.gaussian_latents import GaussianLatent
from vmf_vae.text_models import TextVAE


def test_pixels_are_drawn_with_their_grey_value_as_the_probability():
    model = vmf_vae.GaussianVAE((4,), 2, (3,))
    grey = jnp.broadcast_to(jnp.array([0.0, 0.3, 0.8, 1.0])[None], (5000, 4))
    drawn = objective.binarize(model, grey, jax.random.key(0))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    spread = np.sqrt(grey[0] * (1 - grey[0]) / 5000)
    assert (np.abs(drawn.mean(axis=0) - grey[0]) <= 4.5 * spread).all()
    again = objective.binarize(model, drawn, jax.random.key(1))
    np.testing.assert_array_equal(again, drawn)


def test_a_gaussian_likelihood_keeps_the_grey_values():
    model = vmf_vae.GaussianVAE((4,), 2, (3,), likelihood="gaussian")
    grey = jnp.full((3, 4), 0.3)
    assert objective.binarize(model, grey, jax.random.key(0)) is grey


def test_a_model_of_words_keeps_its_words():
    words = jnp.array([[3, 1, 0]])
    model = TextVAE(GaussianLatent(2), 5, 3)
    assert objective.binarize(model, words, jax.random.key(0)) is words


def test_the_weight_of_the_kl_rises_in_a_line():
    got = [float(objective.kl_weight(step, 8)) for step in (0, 2, 8, 100)]
    assert got == [0.0, 0.25, 1.0, 1.0]
    assert objective.kl_weight(0, 0) == 1.0
    with pytest.raises(ValueError, match="kl_warmup_steps must be at least 0, got -1"):
        objective.kl_weight(0, -1)


def test_the_loss_is_minus_the_mean_bound_at_weight_one():
    model = vmf_vae.GaussianVAE((4,), 2, (3,), likelihood="gaussian")
    params, x = model.init(jax.random.key(0)), jnp.ones((5, 4))
    key = jax.random.key(1)
    loss, parts = objective.training_loss(model, params, x, key)
    elbo, _ = model.elbo(params, x, jax.random.split(key)[1])
    np.testing.assert_allclose(loss, -elbo.mean(), rtol=1e-6)
    half, _ = objective.training_loss(model, params, x, key, kl_weight=0.5)
    np.testing.assert_allclose(loss - half, 0.5 * parts["kl"], rtol=1e-4)
