"""Under strict promotion of dtypes nothing is cast that the code does not cast."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmf_vae
from vmf_vae import spherical_latent

KEY = jax.random.key(0)
DIMS = (2, 3, 4, 40)
KAPPA = np.array([0.5, 30.0], np.float32)
UNIT = jnp.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])


def axes(dim, k):
    """Two directions in the dtype of a concentration: mixing dtypes is not allowed."""
    return jnp.eye(2, dim, dtype=k.dtype)


def of_law(law, name, args):
    return lambda k: getattr(law(axes(3, k), k), name)(*args(k))


FUNCTIONS = {
    "bessel_ratio": lambda k: vmf_vae.bessel_ratio(5, k),
    "inverse_bessel_ratio": lambda k: vmf_vae.inverse_bessel_ratio(5, k / 100.0),
    "concentration_for_kl": lambda k: vmf_vae.concentration_for_kl(5, k),
    "kl_to_uniform": lambda k: vmf_vae.kl_to_uniform(5, k),
    "kl": lambda k: vmf_vae.kl(axes(3, k), 2.0 * k, axes(3, k), k),
    "fit": lambda k: vmf_vae.fit(UNIT.astype(k.dtype), weights=k).concentration,
    "SphericalUniform": lambda k: vmf_vae.SphericalUniform(2).log_prob(k),
    "table": lambda k: vmf_vae.FixedConcentrationSampler(2, 5.0).sample(KEY, k, 3),
    "unit_vector": spherical_latent.unit_vector,
    **{
        f"log_iv_{order}": lambda k, order=order: vmf_vae.log_iv(order, k)
        for order in (0.0, 1e-30, 0.5, 20.0)
    },
    **{
        f"log_normalizer_{d}": lambda k, d=d: vmf_vae.log_normalizer(d, k)
        for d in (3, 40)
    },
    **{
        f"sample_vmf_{d}": lambda k, d=d: vmf_vae.sample_vmf(KEY, axes(d, k), k, 3)
        for d in DIMS
    },
    **{
        f"sample_radial_{d}": lambda k, d=d: vmf_vae.sample_radial(KEY, d, k, 3)
        for d in DIMS
    },
    **{
        f"{law.__name__}_{name}": of_law(law, name, args)
        for law in (vmf_vae.VonMisesFisher, vmf_vae.PowerSpherical)
        for name, args in (
            ("sample", lambda k: (KEY, 3)),
            ("log_prob", lambda k: (UNIT.astype(k.dtype),)),
            ("entropy", lambda k: ()),
            ("kl_to_uniform", lambda k: ()),
            ("mean", lambda k: ()),
            ("mode", lambda k: ()),
            ("covariance", lambda k: ()),
        )
    },
}

OF_VECTORS = ("SphericalUniform", "table", "unit_vector")


def program(fn, x):
    """What JAX is to compute for value and gradient, without addresses of functions."""

    def loss(x):
        value = fn(x)
        return jnp.sum(value), value

    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss, has_aux=True))(x)
    return re.sub(" at 0x[0-9a-f]+", "", str(jaxpr))


# What meets in float32 meets in bfloat16, and there are casts besides.
@pytest.mark.parametrize(
    "dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_program_is_that_of_the_default(name, dtype):
    x = jnp.asarray(UNIT[0, :2] if name in OF_VECTORS else KAPPA, dtype)
    wanted = program(FUNCTIONS[name], x)
    with jax.numpy_dtype_promotion("strict"):
        assert program(FUNCTIONS[name], x) == wanted


def test_another_program_differs():  # the control
    x = jnp.asarray(KAPPA)
    assert program(jnp.sin, x) != program(jnp.cos, x)


def test_it_is_strict():
    """The control."""
    with (
        jax.numpy_dtype_promotion("strict"),
        pytest.raises(ValueError, match="promotion"),
    ):
        jnp.float32(1.0) / jnp.int32(2)
