"""Inside of `jax.shard_map`, which checks what differs from device to device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import rdrop

CUT, WHOLE = PartitionSpec("data"), PartitionSpec()
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(4, size=8))
SOFT = jax.nn.softmax(jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32))
WHERE = jnp.array([True, False, True, True] * 2)
PARAMS = tuple(jnp.asarray(w, jnp.float32) for w in RNG.normal(size=(2, 5, 4)))


def on_two_devices(function, in_specs=CUT, out_specs=CUT):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped)


def of_outputs(loss):
    """A loss of two outputs as one of parameters, the batch and labels."""

    def of_params(params, x, labels, where):
        return loss(*(x @ w for w in params), labels, where)

    return of_params


LOSSES = {
    "labels": (lambda a, b, y, w: rdrop.rdrop_loss(a, b, y, 4.0, where=w), LABELS),
    "probabilities": (
        lambda a, b, y, w: rdrop.rdrop_loss(a, b, y, 4.0, where=w),
        SOFT,
    ),
    "regression": (
        lambda a, b, y, w: rdrop.rdrop_regression_loss(
            a, b, y, 2.0, where=jnp.broadcast_to(w[:, None], a.shape)
        ),
        SOFT,
    ),
    "consistency": (lambda a, b, y, w: rdrop.consistency_loss(a, b, where=w), LABELS),
    "divergence": (
        lambda a, b, y, w: jnp.mean(rdrop.symmetric_kl(a, b, where=a < 2.0)),
        LABELS,
    ),
}


# The loss of labels has the divergence of consistency, and the mean of probabilities.
PARTS = ("probabilities", "consistency")
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in PARTS)) for name in LOSSES
]


@pytest.mark.parametrize("name", NAMES)
def test_each_device_has_the_loss_and_gradient_of_its_examples(name):
    loss, labels = LOSSES[name]
    outputs = tuple(X @ w for w in PARAMS)
    arguments = *outputs, labels, WHERE

    def value_and_gradients(*args):
        value, gradients = jax.value_and_grad(loss, (0, 1))(*args)
        return value[None], *gradients

    got = on_two_devices(value_and_gradients)(*arguments)
    for half in (0, 1):
        mine = (jnp.split(leaf, 2)[half] for leaf in arguments)
        wanted = jax.jit(value_and_gradients)(*mine)
        for leaf, other in zip(got, wanted, strict=True):
            part = np.split(leaf, 2)[half]
            np.testing.assert_allclose(part, other, rtol=1e-6, atol=1e-7)
    assert got[0][0] != got[0][1]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_over_devices_is_the_loss_of_the_batch(name):
    """Of parts with as many examples each; gradients are of what all devices hold."""
    loss, labels = LOSSES[name]
    loss = of_outputs(loss)

    def mean(*args):
        return jax.lax.pmean(loss(*args), "data")

    both = on_two_devices(
        jax.value_and_grad(mean), (WHOLE, CUT, CUT, CUT), (WHOLE, WHOLE)
    )
    value, gradients = both(PARAMS, X, labels, WHERE)
    wanted, slopes = jax.jit(jax.value_and_grad(loss))(PARAMS, X, labels, WHERE)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["two", "concat"])
def test_two_passes_of_a_part_are_those_of_the_part_alone(mode):
    def network(params, x, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0) @ params

    passes = functools.partial(rdrop.two_passes, network, mode=mode)
    got = on_two_devices(passes, (WHOLE, CUT, WHOLE))(PARAMS[0], X, jax.random.key(0))
    for half in (0, 1):
        alone = jax.jit(passes)(PARAMS[0], jnp.split(X, 2)[half], jax.random.key(0))
        for out, wanted in zip(got, alone, strict=True):
            np.testing.assert_allclose(np.split(out, 2)[half], wanted, rtol=1e-6)
    assert (got[0] != got[1]).any()
