"""A small transformer over tokens, with rotary positions inside the attention.

>>> net = text_encoder(100, max_length=16, width=32, depth=2, num_heads=4)
>>> params = net.init(jax.random.key(0))
>>> net.apply(params, jnp.ones((8, 16), jnp.int32)).shape
(8, 16, 100)

References:
    Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021,
    eq. (34). https://arxiv.org/abs/2104.09864
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from expkit import nets, text
from expkit.rotary import rotary

# Small enough that the output starts as its bias: the layer norm before it has rows of
# length sqrt(width), so the logits start with a standard deviation of 0.02 sqrt(width).
_EMBEDDING_SCALE = 0.02


def text_encoder(
    vocab_size: int,
    *,
    max_length: int,
    width: int,
    depth: int,
    num_heads: int,
    output_bias: np.ndarray | None = None,
    dropout: float = 0.0,
) -> nets.Net:
    """A pre-norm transformer that sees the whole row, padding excepted.

    The output is tied: its kernel is the embedding, transposed, and only its bias is a
    parameter of its own. Embeddings pass a layer norm first, as in BERT. There are no
    learned positions.

    Args:
        vocab_size: number of ids; id 0 is padding.
        max_length: tokens of a row at most.
        width: width of the residual stream; `width / num_heads` must be even.
        depth: number of blocks.
        num_heads: attention heads.
        output_bias: initial bias of the output, [vocab_size]; None is zeros. With the
            logarithms of the frequencies the loss starts near the unigram entropy.
        dropout: probability of dropping a unit of each block's output.

    Returns:
        The network, int32 `[batch, n] -> [batch, n, vocab_size]`; given a pair of ids
        and positions [batch, k] it returns the outputs there only. Outputs at padding
        mean nothing, and influence nothing.

    Raises:
        ValueError: if an argument is out of range, or a row is too long.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}.")
    sizes = {"vocab_size": vocab_size, "max_length": max_length, "width": width}
    for name, size in {**sizes, "depth": depth, "num_heads": num_heads}.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}.")
    if width % (2 * num_heads):
        raise ValueError(
            f"width={width} does not divide into num_heads={num_heads} of even width."
        )
    bias = np.zeros(vocab_size) if output_bias is None else np.asarray(output_bias)
    if bias.shape != (vocab_size,):
        raise ValueError(f"output_bias must be [{vocab_size}], got {bias.shape}.")

    class TextEncoder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            noise = jax.random.normal(rngs.params(), (vocab_size, width))
            self.embedding = nnx.Param(_EMBEDDING_SCALE * noise)
            self.norm_in = nnx.LayerNorm(width, rngs=rngs)
            self.blocks = nnx.List(
                RotaryBlock(width, num_heads, dropout, rngs) for _ in range(depth)
            )
            self.norm_out = nnx.LayerNorm(width, rngs=rngs)
            self.bias = nnx.Param(jnp.array(bias, jnp.float32))

        def __call__(self, x, rngs):
            ids, positions = x if isinstance(x, tuple) else (x, None)
            if ids.shape[1] > max_length:
                raise ValueError(f"max_length is {max_length}, got ids {ids.shape}.")
            h = self.norm_in(self.embedding[ids])
            for block in self.blocks:
                h = block(h, ids != text.PAD, rngs)
            h = self.norm_out(rows_at(h, positions))
            return h @ self.embedding[...].T + self.bias[None, None]

    return nets.functional(TextEncoder)


def rows_at(h: jax.Array, positions: jax.Array | None) -> jax.Array:
    """Picks positions of every row of a batch.

    Args:
        h: [batch, n, width].
        positions: int [batch, k], or None for all.

    Returns:
        [batch, k, width].
    """
    if positions is None:
        return h
    return jnp.take_along_axis(h, positions[:, :, None], axis=1)


def encoder_language_model(
    config: text.EncoderConfig, output_bias: np.ndarray | None = None
) -> nets.Net:
    """An encoder whose output is tied to its embeddings, for masked language modelling.

    `params["encoder"]` is what `expkit.text.apply_encoder` takes. There is no dense
    layer before the output, as BERT has one, and kernels start with a variance of one
    over their inputs: at a standard deviation of 0.02 a narrow layer adds next to
    nothing.

    Args:
        config: the sizes.
        output_bias: initial bias of the output, [vocab_size]; None is zeros.

    Returns:
        The network, with the inputs and outputs of `text_encoder`.
    """
    size = config.vocab_size
    bias = np.zeros(size) if output_bias is None else np.asarray(output_bias)

    def init(key):
        encoder = text.init_encoder(config, key)
        encoder["layer"] = jax.tree.map(unit_gain, encoder["layer"])
        return {"encoder": encoder, "bias": jnp.asarray(bias, jnp.float32)}

    def apply(params, x, key=None):
        ids, positions = x if isinstance(x, tuple) else (x, None)
        encoder = params["encoder"]
        h = text.apply_encoder(config, encoder, ids, ids != text.PAD, key=key)
        h = rows_at(h, positions)
        return h @ encoder["embeddings"]["word"].T + params["bias"][None, None]

    return nets.Net(init, apply)


def unit_gain(kernel: jax.Array) -> jax.Array:
    """A kernel as BERT draws it, rescaled to a variance of one over its inputs.

    Args:
        kernel: [in, out], of standard deviation 0.02; other leaves stay as they are.

    Returns:
        The rescaled kernel.
    """
    if kernel.ndim < 2:
        return kernel
    return kernel / (_EMBEDDING_SCALE * np.sqrt(kernel.shape[0]))


class RotaryBlock(nnx.Module):
    """Attention with rotary positions and a perceptron, each after a layer norm."""

    def __init__(self, width: int, num_heads: int, dropout: float, rngs: nnx.Rngs):
        self.norm_1 = nnx.LayerNorm(width, rngs=rngs)
        self.project = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.merge = nnx.Linear(width, width, rngs=rngs)
        self.norm_2 = nnx.LayerNorm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)
        self.num_heads = num_heads
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: jax.Array, mask: jax.Array, rngs: nnx.Rngs | None
    ) -> jax.Array:
        """Maps `[batch, n, width]` to the same shape; `mask [batch, n]` keeps keys."""
        batch, n, width = x.shape
        h = self.project(self.norm_1(x)).reshape(batch, n, 3, self.num_heads, -1)
        queries, keys, values = jnp.moveaxis(h, (2, 3), (0, 2))
        h = attention(queries, keys, values, mask)
        h = self.merge(jnp.moveaxis(h, 1, 2).reshape(batch, n, width))
        x += self.dropout(h, deterministic=rngs is None, rngs=rngs)
        h = self.contract(jax.nn.gelu(self.expand(self.norm_2(x))))
        return x + self.dropout(h, deterministic=rngs is None, rngs=rngs)


def attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array
) -> jax.Array:
    """Scaled dot products of rotated queries and keys, softmax, mean of the values.

    Args:
        queries: [batch, heads, n, d].
        keys: same shape.
        values: same shape.
        mask: bool [batch, n]; keys where it is False get no weight. In a row without
            any True all keys get the same.

    Returns:
        Same shape as `values`.
    """
    positions = jnp.arange(queries.shape[-2])
    queries, keys = rotary(queries, positions), rotary(keys, positions)
    scores = queries @ jnp.swapaxes(keys, -1, -2) / np.sqrt(queries.shape[-1])
    # Not -inf, whose softmax is nan where nothing is left.
    lowest = jnp.finfo(scores.dtype).min
    scores = jnp.where(mask[:, None, None, :], scores, lowest)
    return jax.nn.softmax(scores, axis=-1) @ values
