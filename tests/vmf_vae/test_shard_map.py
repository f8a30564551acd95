"""Inside `jax.shard_map`, with its checks: the values and gradients of the whole."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import vmf_vae
from vmf_vae.spherical_latent import VMFLatent
from vmf_vae.text_models import TextVAE

KAPPA = jnp.array([0.5, 3.0, 40.0, 2e3])
# Of a dimension with a short program.
MU = jnp.zeros((4, 20)).at[:, 1:3].set(jnp.array([0.6, -0.8]))
NU = jnp.zeros((4, 20)).at[:, 1:3].set(jnp.array([0.8, -0.6]))
MU_3 = jnp.tile(jnp.array([0.0, 0.6, -0.8]), (4, 1))
POINTS = jnp.tile(jnp.array([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]]), (2, 1))
KEY = jax.random.key(3)


def mapped(fn):
    """`fn` of the halves of its arguments, on two devices."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=auto)
    return jax.shard_map(fn, mesh=mesh, in_specs=P("d"), out_specs=P("d"))


def halves(args):
    return list(zip(*(np.split(np.asarray(a), 2) for a in args), strict=True))


def by_halves(fn):
    """The same without a map; both halves take one program."""
    alone = jax.jit(fn)
    return lambda *args: np.concatenate([alone(*half) for half in halves(args)])


def with_gradients(fn):
    """Values, and the gradients of their sum with weights."""

    @jax.jit
    def run(weights, args):
        def loss(args):
            value = fn(*args)
            return jnp.sum(value * weights), value

        (_, value), gradients = jax.value_and_grad(loss, has_aux=True)(args)
        return value, *gradients

    return run


def power(name):
    return lambda mu, k: getattr(vmf_vae.PowerSpherical(mu, k), name)()


FUNCTIONS = {
    "sample_vmf": (lambda mu, k: vmf_vae.sample_vmf(KEY, mu, k), (MU, KAPPA)),
    "sample_vmf_3": (lambda mu, k: vmf_vae.sample_vmf(KEY, mu, k), (MU_3, KAPPA)),
    "sample_vmf_mean": (lambda mu: vmf_vae.sample_vmf(KEY, mu, 5.0), (MU,)),
    "sample_vmf_kappa": (lambda k: vmf_vae.sample_vmf(KEY, MU[0], k), (KAPPA,)),
    "sample_radial": (lambda k: vmf_vae.sample_radial(KEY, 5, k), (KAPPA,)),
    "sample_radial_3": (lambda k: vmf_vae.sample_radial(KEY, 3, k), (KAPPA,)),
    "log_iv": (lambda k: vmf_vae.log_iv(1.5, k), (KAPPA,)),
    "bessel_ratio": (lambda k: vmf_vae.bessel_ratio(5, k), (KAPPA,)),
    "inverse_bessel_ratio": (
        lambda r: vmf_vae.inverse_bessel_ratio(5, r),
        (jnp.array([0.1, 0.4, 0.7, 0.99]),),
    ),
    "concentration_for_kl": (
        lambda x: vmf_vae.concentration_for_kl(5, x),
        (jnp.array([0.1, 1.0, 4.0, 20.0]),),
    ),
    "kl_to_uniform": (lambda k: vmf_vae.kl_to_uniform(5, k), (KAPPA,)),
    "log_normalizer": (lambda k: vmf_vae.log_normalizer(40, k), (KAPPA,)),
    "kl": (vmf_vae.kl, (MU, KAPPA, NU, KAPPA[::-1])),
    "kl_of_one": (lambda nu, k: vmf_vae.kl(MU[0], 3.0, nu, k), (NU, KAPPA)),
    "log_prob": (
        lambda mu, k, x: vmf_vae.VonMisesFisher(mu, k).log_prob(x),
        (MU, KAPPA, NU),
    ),
    "entropy": (lambda k: vmf_vae.VonMisesFisher(MU[0], k).entropy(), (KAPPA,)),
    "covariance": (
        lambda mu, k: vmf_vae.VonMisesFisher(mu, k).covariance(),
        (MU, KAPPA),
    ),
    "fit": (lambda x: vmf_vae.fit(x).concentration[None], (POINTS,)),
    "fit_weights": (
        lambda w: vmf_vae.fit(POINTS[:2], weights=w).concentration[None],
        (jnp.array([1.0, 2.0, 3.0, 1.0]),),
    ),
    "power_log_prob": (
        lambda mu, k, x: vmf_vae.PowerSpherical(mu, k).log_prob(x),
        (MU, KAPPA, NU),
    ),
    "power_entropy": (power("entropy"), (MU, KAPPA)),
    "power_kl": (power("kl_to_uniform"), (MU, KAPPA)),
    "table": (
        lambda mu: vmf_vae.FixedConcentrationSampler(20, 20.0).sample(KEY, mu),
        (MU,),
    ),
}


# Others in CI have the same parts, with arguments that are shared besides.
SLOW = (
    *("sample_vmf", "sample_radial", "bessel_ratio", "kl_to_uniform", "kl"),
    "power_entropy",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in FUNCTIONS
    ],
)
def test_values_and_gradients_are_those_without_a_map(name):
    fn, args = FUNCTIONS[name]
    one, *rest = jax.eval_shape(fn, *halves(args)[0]).shape
    weights = np.cos(np.arange(2 * one * math.prod(rest), dtype=np.float32))
    weights = weights.reshape(2 * one, *rest)
    got = with_gradients(mapped(fn))(weights, args)
    want = map(with_gradients(fn), np.split(weights, 2), halves(args))
    for a, *parts in zip(got, *want, strict=True):
        b = np.concatenate(parts)
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_every_device_draws_with_its_own_key():
    """And with nothing else that differs."""
    keys = jax.random.split(KEY, 2)
    for draw in (
        lambda key: vmf_vae.sample_vmf(key, MU_3[0], 5.0, (3,)),
        lambda key: vmf_vae.sample_radial(key, 5, 5.0, (3,)),
    ):
        got = jax.jit(mapped(lambda k, draw=draw: draw(k[0])))(keys)
        want = np.concatenate([draw(key) for key in keys])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_importance_sampling_of_a_divided_batch():
    model = vmf_vae.VMFVAE((2, 3), 3, hidden=(4,))
    params = model.init(jax.random.key(0))
    x = jnp.linspace(0.0, 1.0, 24).reshape(4, 2, 3)

    def estimate(x):
        return vmf_vae.importance_log_likelihood(model, params, x, KEY, num_samples=12)

    got, want = jax.jit(mapped(estimate))(x), by_halves(estimate)(x)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_losses_and_texts_of_a_divided_batch():
    """Gated units and the loop that writes a text."""
    latent = VMFLatent(3, 20.0)
    model = TextVAE(latent, vocab_size=5, max_length=4, width=6)
    params = model.init(jax.random.key(0))
    x = jnp.array([[3, 4, 0, 0], [4, 4, 3, 2], [2, 0, 0, 0], [3, 3, 3, 0]])
    z = jax.random.normal(KEY, (4, 3))

    def log_likelihood(x, z):
        return model.log_likelihood(params, x, z)

    got, want = jax.jit(mapped(log_likelihood))(x, z), jax.jit(log_likelihood)(x, z)
    np.testing.assert_allclose(got, want, rtol=1e-5)

    def generate(z):
        return model.generate(params, z, KEY)

    got, want = jax.jit(mapped(generate))(z), by_halves(generate)(z)
    np.testing.assert_array_equal(got, want)
