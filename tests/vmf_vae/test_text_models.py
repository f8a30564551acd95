"""The text model: which positions count, and likelihoods that sum to one."""

import copy
import dataclasses
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmf_vae import evaluation
from vmf_vae.gaussian_latents import BatchNormLatent, GaussianLatent
from vmf_vae.spherical_latent import VMFLatent
from vmf_vae.text_models import TextVAE, is_predicted

LATENTS = {
    "gaussian": GaussianLatent(2),
    "batch_norm": BatchNormLatent(2),
    "vmf": VMFLatent(3, 10.0),
}


def make(latent="gaussian", **settings):
    model = TextVAE(
        LATENTS[latent], **{"vocab_size": 7, "max_length": 4, "width": 5} | settings
    )
    return model, jax.jit(model.init)(jax.random.key(0))


def bound(model, params, key, **settings):
    return jax.jit(lambda p: model.elbo(p, IDS, key, **settings)[0])(params)


IDS = jnp.array([[3, 4, 5, 6], [3, 0, 0, 0], [0, 0, 0, 0]])


def test_the_first_padding_is_the_end_and_counts():
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(is_predicted(IDS), np.array(expected, bool))


def test_the_probabilities_of_all_texts_sum_to_one():
    # Ids end at the first 0; every row over 0..3 that is padded after its end.
    model, params = make(vocab_size=4, max_length=3)
    rows = [
        row
        for row in itertools.product(range(4), repeat=3)
        if all(b == 0 or a != 0 for a, b in itertools.pairwise(row))
    ]
    ids = jnp.array(rows)
    z = jnp.broadcast_to(jnp.array([[0.3, -1.0]]), (len(rows), 2))
    log_p = jax.jit(model.log_likelihood)(params, ids, z)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-5)


def test_generated_texts_have_the_probabilities_of_the_model():
    model, params = make(vocab_size=4, max_length=2)
    params = jax.tree.map(lambda p: 2 * p, params)
    n = 20_000
    z = jnp.broadcast_to(jnp.array([[0.3, -1.0]]), (n, 2))
    ids = np.asarray(jax.jit(model.generate)(params, z, jax.random.key(1)))
    rows, counts = np.unique(ids, axis=0, return_counts=True)
    log_p = jax.jit(model.log_likelihood)(params, jnp.array(rows), z[: len(rows)])
    p = np.exp(log_p)
    assert (np.abs(counts / n - p) < 4.5 * np.sqrt(p * (1 - p) / n)).all()
    assert (ids[ids[:, 0] == 0, 1] == 0).all()


@pytest.mark.parametrize(
    "latent",
    [
        "batch_norm",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gaussian", "vmf")),
    ],
)
def test_the_bound_is_the_sum_of_its_parts(latent):
    model, params = make(latent)

    def total(params):
        elbo, parts = model.elbo(params, IDS, jax.random.key(1))
        return elbo.sum(), (elbo, parts)

    gradient, (elbo, parts) = jax.jit(jax.grad(total, has_aux=True))(params)
    np.testing.assert_allclose(elbo, parts["reconstruction"] - parts["kl"], rtol=1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_a_fixed_concentration_has_a_floor_that_no_encoder_moves():
    model, params = make("vmf")
    kl, gradient = jax.jit(
        jax.value_and_grad(
            lambda p: model.elbo(p, IDS, jax.random.key(1))[1]["kl"].sum()
        )
    )(params)
    mean = 1 / np.tanh(10.0) - 0.1  # of w in three coordinates
    np.testing.assert_allclose(
        kl / 3, 10 * mean + np.log(10 / np.sinh(10.0)), rtol=1e-5
    )
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_word_dropout_hides_inputs_in_training_only():
    model, params = make(word_dropout=0.9)
    plain, _ = make()
    key = jax.random.key(3)
    kept = bound(model, params, key)
    np.testing.assert_array_equal(kept, bound(plain, params, key))
    hidden = bound(model, params, key, is_training=True)
    assert hidden[0] != kept[0]
    assert hidden[2] == kept[2]  # an empty text has no character to hide


@pytest.mark.slow
def test_the_likelihood_can_be_estimated():
    model, params = make("vmf")
    got = evaluation.importance_log_likelihood(
        model, params, IDS, jax.random.key(0), num_samples=30
    )
    assert got.shape == (3,)
    assert jnp.isfinite(got).all()


def test_samples_are_texts():
    model, params = make("vmf")
    ids = model.sample(params, jax.random.key(0), 5)
    assert ids.shape == (5, 4)
    assert ((ids >= 0) & (ids < 7)).all()


@pytest.mark.parametrize(
    "latent",
    [
        "vmf",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("gaussian", "batch_norm")),
    ],
)
def test_a_model_with_its_networks_is_pickled_and_copied(latent):
    model, params = make(latent, output_bias=np.arange(7.0), word_dropout=0.1)
    elbo = bound(model, params, jax.random.key(1))
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        for field in dataclasses.fields(model):
            got, want = getattr(again, field.name), getattr(model, field.name)
            np.testing.assert_array_equal(got, want)
        got = bound(again, params, jax.random.key(1))
        np.testing.assert_array_equal(got, elbo)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"word_dropout": 1.0}, r"word_dropout must be in \[0, 1\), got 1.0"),
        ({"vocab_size": 2}, "got 2 and 4"),
        ({"max_length": 0}, "got 7 and 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
