"""VAT's radius by the law of small perturbations, and alpha by that of the loss."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import nets
from gp_kl import train

SIZE = {"batch": 2, "length": 3, "width": 4}


class Task(NamedTuple):
    net: nets.Net


@pytest.fixture
def setting():
    """Two types; scores are linear in the embeddings, and masked as those of a head."""
    keys = jax.random.split(jax.random.key(0), 2)
    shape = tuple(SIZE.values())
    params = {
        "encoder": {"embeddings": {"word": jax.random.normal(keys[0], (7, shape[2]))}},
        "head": jax.random.normal(keys[1], (2, shape[2], shape[2])),
    }

    def apply(params, x, key=None):
        del key
        h = params["encoder"]["embeddings"]["word"][x["ids"]] + x.get("offset", 0.0)
        scores = jnp.einsum("bid,tde,bje->btij", h, params["head"], h)
        return jnp.where(jnp.triu(jnp.ones(scores.shape[2:], bool)), scores, -jnp.inf)

    batch = {
        "ids": jnp.array([[1, 2, 3], [4, 5, 6]]),
        "is_token": jnp.ones(shape[:2], bool),
        "spans": jnp.array([[[0, 0, 1]], [[1, 2, 2]]]),
    }
    return Task(nets.Net(None, apply)), params, batch


def loss(name, setting, **settings):
    with jax.enable_x64(True):
        cast = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
            setting[1:],
        )
        settings = {"radius": 1.0, "reduction": "sum"} | settings
        loss_fn = functools.partial(train.OBJECTIVES[name], setting[0], **settings)
        return float(jax.jit(loss_fn)(*cast, jax.random.key(1)))


def test_what_vat_adds_grows_with_the_square_of_a_small_radius(setting):
    plain = loss("none", setting, strength=1.0)
    assert loss("vat", setting, strength=1.0, radius=0.0) == plain
    added = [
        loss("vat", setting, strength=1.0, radius=radius) - plain
        for radius in (1e-3, 2e-3)
    ]
    assert added[0] > 0.0
    np.testing.assert_allclose(added[1], 4 * added[0], rtol=0.01)


@pytest.mark.parametrize("name", ["rdrop", "rdrop_softmax"])
def test_without_dropout_alpha_changes_nothing(setting, name):
    plain = loss("none", setting, strength=1.0)
    for alpha in (0.0, 5.0):
        np.testing.assert_allclose(loss(name, setting, strength=alpha), 2 * plain)


def test_the_weight_of_vat_is_a_factor_of_what_it_adds(setting):
    plain = loss("none", setting, strength=1.0)
    one, three = (
        loss("vat", setting, strength=weight, radius=0.5) for weight in (1.0, 3.0)
    )
    np.testing.assert_allclose(three - plain, 3 * (one - plain))
