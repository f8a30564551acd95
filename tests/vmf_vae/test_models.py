"""The image models: parts of the bound, likelihoods, shapes and errors."""

import copy
import dataclasses
import pickle
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vmf_vae
from vmf_vae import models

SHAPE, HIDDEN = (4, 4, 1), (12,)
MAKE = {
    "gaussian": lambda **s: vmf_vae.GaussianVAE(SHAPE, 3, HIDDEN, **s),
    "vmf": lambda **s: vmf_vae.VMFVAE(SHAPE, 3, HIDDEN, **s),
    "shared": lambda **s: vmf_vae.VMFVAE(SHAPE, 3, HIDDEN, concentration="shared", **s),
    "fixed": lambda **s: vmf_vae.VMFVAE(SHAPE, 3, HIDDEN, concentration=9.0, **s),
    "batch_norm": lambda **s: vmf_vae.BatchNormVAE(SHAPE, 3, HIDDEN, **s),
}


@pytest.fixture
def x():
    return jax.random.bernoulli(jax.random.key(9), 0.4, (6, *SHAPE)).astype(jnp.float32)


@pytest.mark.parametrize(
    "kind",
    [
        *("gaussian", "vmf", "batch_norm"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("shared", "fixed")),
    ],
)
def test_the_bound_is_the_sum_of_its_parts_and_has_finite_gradients(kind, x):
    model = MAKE[kind]()
    params = model.init(jax.random.key(0))

    def loss(params):
        elbo, parts = model.elbo(params, x, jax.random.key(1))
        return -elbo.mean(), (elbo, parts)

    gradient, (elbo, parts) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert parts.keys() == {"reconstruction", "kl"}
    assert elbo.shape == parts["kl"].shape == (6,)
    np.testing.assert_allclose(elbo, parts["reconstruction"] - parts["kl"], rtol=1e-6)
    assert (parts["kl"] > 0).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", ["gaussian", "vmf"])
def test_the_log_likelihood_is_that_of_scipy(kind, x):
    z = jax.random.normal(jax.random.key(2), (6, 3))
    model = MAKE[kind]()
    params = model.init(jax.random.key(0))
    p = np.asarray(model.mean(params, z), np.float64)
    expected = scipy.stats.bernoulli(p).logpmf(np.asarray(x, int)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.log_likelihood(params, x, z), expected, rtol=7e-7)
    model = MAKE[kind](likelihood="gaussian", noise_scale=0.3)
    law = scipy.stats.norm(np.asarray(model.decode(params, z), np.float64), 0.3)
    expected = law.logpdf(x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.log_likelihood(params, x, z), expected, rtol=7e-7)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_log_likelihood_of_doubles_has_their_digits(likelihood, x):
    with jax.enable_x64(True):
        model = MAKE["gaussian"](likelihood=likelihood, noise_scale=0.3)
        params = model.init(jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        x, z = x.astype(jnp.float64), jax.random.normal(jax.random.key(2), (6, 3))
        assert z.dtype == jnp.float64
        got, out = jax.jit(
            lambda p: (model.log_likelihood(p, x, z), model.decode(p, z))
        )(params)
    out, x = np.asarray(out), np.asarray(x)
    if likelihood == "bernoulli":
        terms = scipy.stats.bernoulli(scipy.special.expit(out)).logpmf(x)
    else:
        terms = scipy.stats.norm(out, 0.3).logpdf(x)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, terms.sum(axis=(1, 2, 3)), rtol=1e-13)


def test_the_log_likelihood_is_finite_for_extreme_logits(x):
    model = MAKE["gaussian"]()
    params = jax.tree.map(lambda leaf: 1e4 * leaf, model.init(jax.random.key(0)))
    z = jnp.ones((6, 3))
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: model.log_likelihood(p, x, z).sum())
    )(params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_fixed_concentration_gives_the_encoder_no_gradient_from_the_kl(x):
    def gradient_of_kl(kind):
        model = MAKE[kind]()
        params = model.init(jax.random.key(0))

        def kl(params):
            return model.elbo(params, x, jax.random.key(1))[1]["kl"].sum()

        return jax.jit(jax.grad(kl))(params)

    fixed = jax.tree.leaves(gradient_of_kl("fixed"))
    assert all((leaf == 0).all() for leaf in fixed)
    learned = jax.tree.leaves(gradient_of_kl("vmf")["encoder"])
    assert any((leaf != 0).any() for leaf in learned)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("encoder", ["mlp", "cnn"])
def test_reconstructions_and_samples_are_images(kind, encoder, x):
    model = MAKE[kind](encoder=encoder)
    params = model.init(jax.random.key(0))
    for key in (None, jax.random.key(1)):
        out = model.apply(params, x, key)
        assert out.shape == x.shape
        assert ((out > 0) & (out < 1)).all()
    first = model.sample(params, jax.random.key(2), 5)
    assert first.shape == (5, *SHAPE)
    assert (first != model.sample(params, jax.random.key(3), 5)).any()


@pytest.mark.parametrize("kind", ["gaussian", "fixed"])
def test_vmap_over_keys_is_a_loop(kind, x):
    model = MAKE[kind]()
    params = model.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)

    def elbo(key):
        return model.elbo(params, x, key)[0]

    together = jax.jit(jax.vmap(elbo))(keys)
    apart = [jax.jit(elbo)(key) for key in keys]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-6)


def test_batch_norm_encodes_one_example_after_freezing(x):
    model = MAKE["batch_norm"]()
    params = model.init(jax.random.key(0))
    together = model.encode(params, x).loc
    frozen = model.freeze_statistics(params, x)
    alone = model.encode(frozen, x[2:3]).loc
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "vmf"])
def test_other_models_have_no_statistics(kind, x):
    model = MAKE[kind]()
    params = model.init(jax.random.key(0))
    assert model.freeze_statistics(params, x) is params


def test_models_are_values():
    assert MAKE["vmf"]() == MAKE["vmf"]()
    model = models.VMFVAE([4, 4, 1], 3, [12])
    assert hash(model) == hash(MAKE["vmf"]())
    for number in (np.float32(9.0), jnp.float32(9.0), np.int64(9)):
        model = models.VMFVAE(SHAPE, np.int64(3), HIDDEN, concentration=number)
        assert model == MAKE["fixed"]()
        assert hash(model) == hash(MAKE["fixed"]())
    assert models.GaussianVAE(SHAPE, np.int64(3), HIDDEN) == MAKE["gaussian"]()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("encoder", ["mlp", "cnn"])
def test_a_model_with_its_networks_is_pickled_and_copied(kind, encoder, x):
    model = MAKE[kind](encoder=encoder)
    params = model.init(jax.random.key(0))
    elbo = model.elbo(params, x, jax.random.key(1))[0]
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again == model
        assert hash(again) == hash(model)
        assert "encoder_net" not in vars(again)
        got = again.elbo(params, x, jax.random.key(1))[0]
        np.testing.assert_array_equal(got, elbo)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MAKE["vmf"](likelihood="poisson"), "got 'poisson'"),
        (lambda: MAKE["vmf"](noise_scale=0.0), "noise_scale must be positive, got 0.0"),
        (lambda: vmf_vae.VMFVAE(SHAPE, 3, hidden=32), "hidden must be a seq.*got 32"),
        (lambda: MAKE["vmf"](concentration=True), "number >= 0, got True"),
        (lambda: MAKE["vmf"](concentration=jnp.ones(2)), "number >= 0, got Array"),
        (lambda: vmf_vae.VMFVAE(SHAPE, 2.0), "integer >= 2, got 2.0"),
        (lambda: vmf_vae.VMFVAE(SHAPE, 1), "integer >= 2, got 1"),
        (lambda: vmf_vae.GaussianVAE(SHAPE, 0), "integer >= 1, got 0"),
        (lambda: MAKE["gaussian"](encoder="vit"), "got 'vit'"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", MAKE)
def test_parameters_are_of_one_dtype_with_float64_too(kind):
    with jax.enable_x64(True):
        params = jax.eval_shape(MAKE[kind]().init, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("kind", MAKE)
def test_a_model_takes_no_other_attribute(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        MAKE[kind]().hiden = (3,)


@pytest.mark.parametrize("encoder", ["mlp", "cnn"])
@pytest.mark.parametrize("shape", [(6, 4, 4), (4, 4, 1), (6, 16), (6, 4, 4, 3), ()])
def test_examples_of_another_shape_are_named(shape, encoder):
    """A batch of 4 images without channels would broadcast over the batch."""
    model = vmf_vae.VMFVAE(SHAPE, 3, HIDDEN, encoder=encoder)
    params = model.init(jax.random.key(0))
    message = re.escape(f"[batch, 4, 4, 1], got {list(shape)}")
    for call in (
        lambda x: model.elbo(params, x, jax.random.key(1)),
        lambda x: model.apply(params, x),
        lambda x: model.log_likelihood(params, x, jnp.zeros((6, 3))),
    ):
        with pytest.raises(ValueError, match=message):
            call(jnp.zeros(shape))


def test_a_model_without_flax_says_how_to_install_it(monkeypatch):
    for module in ("models", "networks"):
        monkeypatch.delitem(sys.modules, f"vmf_vae.{module}")
        monkeypatch.delattr(vmf_vae, module)
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ModuleNotFoundError, match=r"VMFVAE needs 'flax'.*experiments"):
        _ = vmf_vae.VMFVAE
