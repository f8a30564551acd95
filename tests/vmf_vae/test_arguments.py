import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vmf_vae
from vmf_vae import arguments


def identity(order, x):
    assert order == 1.5
    return x


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (3, jnp.float32),
        (2.5, jnp.float32),
        ([1, 2], jnp.float32),
        (np.float64(2.0), jnp.float32),
        (jnp.bfloat16(2.0), jnp.bfloat16),
        (jnp.float16(2.0), jnp.float16),
        (np.zeros((0, 3)), jnp.float32),
    ],
)
def test_elementwise_keeps_shape_and_dtype(x, dtype):
    got = arguments.elementwise(identity, 1.5, x)
    assert got.dtype == dtype
    assert got.shape == np.shape(x)


def test_elementwise_computes_in_float32_at_least():
    arguments.elementwise(
        lambda order, x: x if x.dtype == jnp.float32 else 1 / 0, 1.5, jnp.bfloat16(1.0)
    )
    with jax.enable_x64(True):
        assert arguments.elementwise(identity, 1.5, 2).dtype == jnp.float64


def test_nonsense_is_nan_with_a_nan_derivative():
    bad = jnp.array([-1.0, jnp.inf, jnp.nan])
    assert np.isnan(arguments.where_valid(bad)).all()
    square = jax.vmap(jax.grad(lambda x: arguments.where_valid(x) ** 2))
    assert np.isnan(square(bad)).all()
    good = jnp.array([0.0, 1e-30, 3.0])
    np.testing.assert_array_equal(arguments.where_valid(good), good)


@pytest.mark.parametrize("dim", [2, 3, np.int64(7), 200_000])
def test_order_of(dim):
    assert arguments.order_of(dim) == int(dim) / 2 - 1


@pytest.mark.parametrize("dim", [1, 0, -3, 200_001, True])
def test_dimension_out_of_range(dim):
    with pytest.raises(ValueError, match=r"dim must be in \[2, 200,000\]"):
        arguments.order_of(dim)


def test_one_dimension_says_what_to_use():
    with pytest.raises(ValueError, match="Bernoulli with logit 2"):
        arguments.order_of(1)


@pytest.mark.parametrize("dim", [2.0, "3", None])
def test_dimension_of_the_wrong_kind(dim):
    with pytest.raises(TypeError, match="dim must be a Python integer"):
        arguments.order_of(dim)


def test_traced_values_pass():
    jax.jit(lambda x: arguments.elementwise(identity, 1.5, x))(-1.0)
    jax.jit(lambda x: arguments.require_directions("mu", x))(jnp.ones(3))


@pytest.mark.parametrize("x", [1j, jnp.array([1j]), jnp.array([True])])
def test_numbers_of_another_kind(x):
    with pytest.raises(TypeError, match="x must be real numbers"):
        arguments.as_float("x", x)


def test_align_puts_axes_in_front():
    assert arguments.align(2.0, 3).shape == (1, 1, 1)
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(arguments.align(x, 4), np.reshape(x, (1, 1, 2, 3)))


def test_first_wrong_entry_is_named():
    with pytest.raises(ValueError, match="k must be at least 0, got -2"):
        arguments.require_concrete("k", [1, -2, -3], "at least 0", lambda x: x < 0)
    low = jnp.array([1.0, -0.5], jnp.bfloat16)
    with pytest.raises(ValueError, match=r"got -0\.5"):
        arguments.require_concrete("k", low, "at least 0", lambda x: x < 0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (1.0, "must be .*, got a scalar"),
        ([1.0], "dim must be in"),
        ([[1.0, 0.0], [0.9, 0.0]], "unit norm, got norm 0.9; divide"),
        ([np.nan, 0.0], "unit norm, got norm nan"),
        ([0.0, 0.0], "unit norm, got norm 0"),
    ],
)
def test_directions_that_are_none(x, message):
    with pytest.raises(ValueError, match=message):
        arguments.require_directions("mu", x)


def test_half_precision_has_a_wider_tolerance():
    x = jnp.array([1.02, 0.0])
    arguments.require_directions("mu", x.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="unit norm"):
        arguments.require_directions("mu", x)


@pytest.mark.parametrize(
    "mu",
    [[1.0, 1.0, 0.0], np.array([1, 1, 0]), nnx.Param(jnp.array([1.0, 1.0, 0.0]))],
    ids=["list", "numpy", "flax"],
)
def test_a_concrete_direction_is_checked_inside_of_jit_too(mu):
    calls = (
        lambda k: arguments.require_directions("mu", mu),
        lambda k: vmf_vae.VonMisesFisher(mu, k).log_prob([1.0, 0.0, 0.0]),
        lambda k: vmf_vae.PowerSpherical(mu, k).entropy(),
        lambda k: vmf_vae.sample_vmf(jax.random.key(0), mu, k),
        lambda k: vmf_vae.kl([1.0, 0.0, 0.0], k, mu, 1.0),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"unit norm, got norm 1\.41421"):
            jax.jit(call)(5.0)


def test_a_direction_that_is_traced_in_part_passes():
    """The density on the sphere at its mean is kappa / (2 pi (1 - exp(-2 kappa)))."""

    @jax.jit
    def log_prob(angle, kappa):
        mu = [jnp.cos(angle), 0.0, jnp.sin(angle)]
        return vmf_vae.VonMisesFisher(mu, [kappa]).log_prob(mu)

    expected = np.log(5.0 / (2 * np.pi * -np.expm1(-10.0)))
    np.testing.assert_allclose(log_prob(0.4, 5.0), [expected], rtol=1e-6)
    jax.jit(lambda law: law.entropy())(  # nothing is checked on unflattening
        jax.tree.map(lambda x: 2 * x, vmf_vae.VonMisesFisher([0.0, 1.0], 1.0))
    )


@pytest.mark.parametrize("order", [0, 0.5, np.float32(2.5), 1e6])
def test_orders(order):
    assert arguments.check_order(order) == float(order)


@pytest.mark.parametrize("shape", [5, (5,), [2, 3], np.int64(3), (), 0, np.array([2])])
def test_shapes_of_draws_are_those_of_numpy(shape):
    assert arguments.shape_of_draws(shape) == np.empty(shape).shape


@pytest.mark.parametrize(
    ("shape", "error"),
    [(-5, ValueError), ((2, -5), ValueError), (2.0, TypeError), (None, TypeError)],
)
def test_a_wrong_shape_is_named(shape, error):
    with pytest.raises(error, match=r"shape must be integers >= 0, got \(?(2, )?[-2N]"):
        arguments.shape_of_draws(shape)


def test_a_parameter_of_flax_may_hold_a_traced_concentration():
    """At d = 3 the divergence rises by kappa A' = 1/kappa - kappa / sinh(kappa)^2."""
    mu = jnp.array([0.0, 0.6, 0.8])

    @jax.jit
    @jax.grad
    def slope(kappa):
        return vmf_vae.VonMisesFisher(nnx.Param(mu), nnx.Param(kappa)).kl_to_uniform()

    expected = 1 / 2.5 - 2.5 / np.sinh(2.5) ** 2
    np.testing.assert_allclose(slope(2.5), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="concentration must be at least 0"):
        vmf_vae.kl_to_uniform(3, nnx.Param(jnp.array(-1.0)))
