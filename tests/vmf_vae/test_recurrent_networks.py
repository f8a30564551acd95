"""The recurrent unit against that of Flax; what the decoder may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vmf_vae import recurrent_networks as networks


def test_the_unit_is_that_of_flax():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    start = jax.random.normal(jax.random.key(1), (2, 4))
    ours = networks.GRU(3, 4, nnx.Rngs(2))
    theirs = nnx.GRUCell(3, 4, rngs=nnx.Rngs(3))
    # Flax has the gates in the order reset, update, new too.
    theirs.dense_i.kernel[...] = ours.inputs.kernel[...]
    theirs.dense_i.bias[...] = ours.inputs.bias[...]
    theirs.dense_h.kernel[...] = ours.recurrent[...]
    h, expected = start, []
    for i in range(5):
        h, _ = theirs(h, x[:, i])
        expected.append(h)
    np.testing.assert_allclose(
        ours(x, start), jnp.stack(expected, axis=1), rtol=1e-6, atol=1e-6
    )


def test_the_encoder_does_not_see_padding():
    net = networks.text_encoder(9, width=4, num_features=3)
    params = net.init(jax.random.key(0))
    apply = jax.jit(net.apply)
    short = apply(params, jnp.array([[3, 4]]))
    padded = apply(params, jnp.array([[3, 4, 0, 0, 0]]))
    np.testing.assert_allclose(short, padded, rtol=1e-6)
    other = apply(params, jnp.array([[3, 5]]))
    assert not np.allclose(short, other)


@pytest.fixture
def decoder():
    net = networks.text_decoder(9, width=4, latent_dim=2)
    return jax.jit(net.apply), net.init(jax.random.key(0))


def test_the_decoder_sees_only_what_came_before_and_the_latent_vector(decoder):
    apply, params = decoder
    ids, z = jnp.array([[1, 3, 4, 5]]), jnp.ones((1, 2))
    logits = apply(params, (ids, z))
    changed = apply(params, (ids.at[0, 2].set(7), z))
    np.testing.assert_array_equal(logits[:, :2], changed[:, :2])
    assert (logits[:, 2:] != changed[:, 2:]).any(axis=(0, 2)).all()
    changed = apply(params, (ids, 2 * z))
    assert (logits != changed).any(axis=(0, 2)).all()


def test_the_bias_is_where_the_logits_start():
    bias = np.arange(9.0)
    net = networks.text_decoder(9, width=4, latent_dim=2, output_bias=bias)
    params = net.init(jax.random.key(0))
    np.testing.assert_array_equal(params["bias"], bias)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: networks.text_encoder(9, width=0, num_features=1),
            "width must be at least 1, got 0",
        ),
        (
            lambda: networks.text_decoder(9, width=1, latent_dim=0),
            "latent_dim must be at least 1, got 0",
        ),
        (
            lambda: networks.text_decoder(
                9, width=1, latent_dim=1, output_bias=np.ones(3)
            ),
            r"output_bias must be \[9\], got \(3,\)",
        ),
    ],
)
def test_wrong_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
