r"""The networks of the text models: gated recurrent units over characters.

.. math:: r = \sigma(W_r x + U_r h + b_r), \quad u = \sigma(W_u x + U_u h + b_u),
    \quad n = \tanh(W_n x + b_n + r \odot (U_n h)), \quad h' = (1 - u) n + u h.

The products with the inputs are one matrix product for all steps; only those with the
state are inside the scan.

>>> net = text_encoder(100, width=32, num_features=4)
>>> net.apply(net.init(jax.random.key(0)), jnp.ones((8, 16), jnp.int32)).shape
(8, 4)

References:
    Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder*, 2014, eq.
    (5)-(8). https://arxiv.org/abs/1406.1078
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from expkit import nets
from vmf_vae.elementary import vary_like

PAD = 0
_EMBEDDING_SCALE = 0.1


class GRU(nnx.Module):
    """Gated recurrent units; `x [batch, n, in] -> states [batch, n, width]`."""

    def __init__(self, num_inputs: int, width: int, rngs: nnx.Rngs):
        self.inputs = nnx.Linear(num_inputs, 3 * width, rngs=rngs)
        make = nnx.initializers.orthogonal()
        parts = [make(rngs.params(), (width, width)) for _ in range(3)]
        self.recurrent = nnx.Param(jnp.concatenate(parts, axis=1))

    def __call__(
        self, x: jax.Array, start: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """States after each step; where `mask [batch, n]` is False the state stays."""
        recurrent = self.recurrent[...]
        is_kept = jnp.ones(x.shape[:2], bool) if mask is None else mask

        def step(h, inputs):
            gates, kept = inputs
            h = jnp.where(kept[:, None], gru_step(recurrent, h, gates), h)
            return h, h

        columns = jnp.swapaxes(self.inputs(x), 0, 1), is_kept.T
        start = vary_like(start, recurrent, *columns)
        _, states = jax.lax.scan(step, start, columns)
        return jnp.swapaxes(states, 0, 1)


def gru_step(recurrent: jax.Array, h: jax.Array, inputs: jax.Array) -> jax.Array:
    """One step of the unit.

    Args:
        recurrent: the three matrices U side by side, [width, 3 width].
        h: state [batch, width].
        inputs: the three terms W x + b side by side, [batch, 3 width].

    Returns:
        The next state [batch, width].
    """
    r_in, u_in, n_in = jnp.split(inputs, 3, axis=-1)
    r_h, u_h, n_h = jnp.split(h @ recurrent, 3, axis=-1)
    update = jax.nn.sigmoid(u_in + u_h)
    candidate = jnp.tanh(n_in + jax.nn.sigmoid(r_in + r_h) * n_h)
    return (1 - update) * candidate + update * h


def text_encoder(vocab_size: int, *, width: int, num_features: int) -> nets.Net:
    """Reads a text and gives the features of its posterior.

    Args:
        vocab_size: number of ids; id 0 is padding.
        width: of the embedding and the state.
        num_features: width of the output.

    Returns:
        The network, int `[batch, n] -> [batch, num_features]`: a linear map of the
        state after the last character.

    Raises:
        ValueError: if a size is less than 1.
    """
    _check(vocab_size=vocab_size, width=width, num_features=num_features)

    class Encoder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embedding = _embedding(vocab_size, width, rngs)
            self.gru = GRU(width, width, rngs)
            self.out = nnx.Linear(width, num_features, rngs=rngs)

        def __call__(self, x, rngs):
            del rngs
            start = jnp.zeros((len(x), width))
            states = self.gru(self.embedding[x], start, x != PAD)
            return self.out(states[:, -1])

    return nets.functional(Encoder)


def text_decoder(
    vocab_size: int,
    *,
    width: int,
    latent_dim: int,
    output_bias: np.ndarray | None = None,
) -> nets.Net:
    """Predicts each character from those before it and a latent vector.

    The latent vector sets the first state and is part of every input.

    Args:
        vocab_size: number of ids.
        width: of the embedding and the state.
        latent_dim: coordinates of z.
        output_bias: initial bias of the logits, [vocab_size]; None is zeros.

    Returns:
        The network, `(ids [batch, n], z [batch, latent_dim]) -> logits
        [batch, n, vocab_size]`, where the ids are the inputs, shifted by one.

    Raises:
        ValueError: if a size is less than 1 or the bias has another one.
    """
    _check(vocab_size=vocab_size, width=width, latent_dim=latent_dim)
    bias = np.zeros(vocab_size) if output_bias is None else np.asarray(output_bias)
    if bias.shape != (vocab_size,):
        raise ValueError(f"output_bias must be [{vocab_size}], got {bias.shape}.")

    class Decoder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embedding = _embedding(vocab_size, width, rngs)
            self.start = nnx.Linear(latent_dim, width, rngs=rngs)
            self.gru = GRU(width + latent_dim, width, rngs)
            self.out = nnx.Linear(width, vocab_size, use_bias=False, rngs=rngs)
            self.bias = nnx.Param(jnp.array(bias, jnp.float32))

        def __call__(self, x, rngs):
            del rngs
            ids, z = x
            repeated = jnp.broadcast_to(z[:, None], (*ids.shape, latent_dim))
            inputs = jnp.concatenate([self.embedding[ids], repeated], axis=-1)
            states = self.gru(inputs, jnp.tanh(self.start(z)))
            return self.out(states) + self.bias[None, None]

    return nets.functional(Decoder)


def _embedding(vocab_size: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    noise = jax.random.normal(rngs.params(), (vocab_size, width))
    return nnx.Param(_EMBEDDING_SCALE * noise)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}.")
