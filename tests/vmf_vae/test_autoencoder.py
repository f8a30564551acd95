"""What all models share: a new one needs a latent, two networks and a likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import nets
from vmf_vae.autoencoder import VAE
from vmf_vae.evaluation import importance_log_likelihood
from vmf_vae.gaussian_latents import BatchNormLatent, GaussianLatent


class Identity(VAE):
    """q(z|x) = N(x, softplus(0)^2) and p(x|z) = N(z, 1), in one coordinate."""

    latent = GaussianLatent(1)
    encoder_net = nets.Net(
        lambda key: {}, lambda p, x, key=None: jnp.concatenate([x, 0 * x], axis=1)
    )
    decoder_net = nets.Net(lambda key: {}, lambda p, z, key=None: z)

    def log_likelihood(self, params, x, z):
        return -0.5 * jnp.sum(jnp.square(x - z) + np.log(2 * np.pi), axis=1)


def test_the_bound_of_a_model_in_closed_form():
    model, x = Identity(), jnp.array([[0.0], [1.5]])
    params = model.init(jax.random.key(0))
    n = 20_000
    keys = jax.random.split(jax.random.key(1), n)
    elbo, parts = jax.jit(jax.vmap(lambda key: model.elbo(params, x, key)))(keys)
    variance = np.log(2.0) ** 2
    kl = 0.5 * (np.array([0.0, 2.25]) + variance - 1 - np.log(variance))
    np.testing.assert_allclose(parts["kl"][0], kl, rtol=1e-4)
    expected = -0.5 * (variance + np.log(2 * np.pi)) - kl
    spread = elbo.std(axis=0) / np.sqrt(n)
    assert (np.abs(elbo.mean(axis=0) - expected) < 4.5 * spread).all()


def test_the_marginal_of_a_model_in_closed_form():
    model, x = Identity(), jnp.array([[0.0], [1.5]])
    params = model.init(jax.random.key(0))
    n = 20_000
    got = importance_log_likelihood(model, params, x, jax.random.key(0), num_samples=n)
    # x = z + noise is N(0, 2).
    expected = -0.25 * np.array([0.0, 2.25]) - 0.5 * np.log(4 * np.pi)
    np.testing.assert_allclose(got, expected, atol=0.03)


def test_the_centre_of_a_normal_is_its_mean():
    model, x = Identity(), jnp.array([[0.3], [-2.0]])
    params = model.init(jax.random.key(0))
    np.testing.assert_array_equal(model.center(params, x), x)


def test_only_normalised_means_have_statistics_to_freeze():
    class Normalised(Identity):
        latent = BatchNormLatent(1)

    x = jnp.array([[1.0], [3.0], [8.0]])
    plain, model = Identity(), Normalised()
    params = plain.init(jax.random.key(0))
    assert plain.freeze_statistics(params, x) is params
    frozen = model.freeze_statistics(model.init(jax.random.key(0)), x)
    np.testing.assert_allclose(frozen["latent"]["statistics"]["mean"], [4.0])
    alone = model.encode(frozen, x[:1]).loc
    np.testing.assert_allclose(alone, [[0.5 * -3.0 / np.sqrt(26 / 3)]], rtol=1e-5)


def test_an_incomplete_model_cannot_be_made():
    class Incomplete(VAE):
        latent = GaussianLatent(1)

    with pytest.raises(TypeError, match="decoder_net"):
        Incomplete()


@pytest.mark.parametrize(
    "name", ["latent", "encoder_net", "decoder_net", "log_likelihood"]
)
def test_a_model_without_one_of_its_parts_cannot_be_made(name):
    parts = {key: value for key, value in vars(Identity).items() if key[0] != "_"}
    assert parts.pop(name)
    with pytest.raises(TypeError, match=rf"abstract.*{name}"):
        type("Lacking", (VAE,), parts)()
