"""Encoders and decoders fit together and keep what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmf_vae import networks


@pytest.mark.parametrize("kind", networks.KINDS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 9, 2)])
def test_shapes(kind, shape):
    encoder = networks.make_encoder(kind, shape, (6, 4), 5)
    decoder = networks.make_decoder(kind, 3, (6, 4), shape)

    def shape_of(net, x):
        params = jax.eval_shape(net.init, jax.random.key(0))
        return jax.eval_shape(net.apply, params, x).shape

    assert shape_of(encoder, jnp.ones((2, *shape))) == (2, 5)
    assert shape_of(decoder, jnp.ones((2, 3))) == (2, *shape)


def test_a_decoder_without_hidden_layers_is_linear():
    net = networks.make_decoder("mlp", 3, (), (2, 2))
    params = net.init(jax.random.key(0))
    z = np.random.default_rng(0).normal(size=(4, 3))
    w, b = params["out"]["kernel"], params["out"]["bias"]
    expected = (z @ np.asarray(w) + np.asarray(b)).reshape(4, 2, 2)
    np.testing.assert_allclose(net.apply(params, jnp.array(z)), expected, rtol=1e-5)


def test_the_convolutional_encoder_sees_where_a_pixel_is():
    net = networks.make_encoder("cnn", (8, 8, 1), (4, 4), 2)
    params = net.init(jax.random.key(0))
    x = jnp.zeros((2, 8, 8, 1)).at[0, 1, 1].set(5.0).at[1, 5, 5].set(5.0)
    first, second = net.apply(params, x)
    assert not np.allclose(first, second)


@pytest.mark.parametrize(
    ("kind", "shape", "hidden", "message"),
    [
        ("vit", (8, 8, 1), (4,), "encoder must be one of mlp, cnn, got 'vit'"),
        ("mlp", (8, 8, 1), (0,), r"at least 1, got \(8, 8, 1\) and \(0,\)"),
        ("cnn", (64,), (4,), r"got the shape \(64,\)"),
        ("cnn", (8, 8, 1), (), r"hidden=\(\)"),
    ],
)
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_wrong_settings_are_named(kind, shape, hidden, message, side):
    make = {
        "encoder": lambda: networks.make_encoder(kind, shape, hidden, 2),
        "decoder": lambda: networks.make_decoder(kind, 2, hidden, shape),
    }
    with pytest.raises(ValueError, match=message):
        make[side]()
