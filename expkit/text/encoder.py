"""BERT: a post-norm transformer over token ids, as Hugging Face writes it to disk.

>>> config = EncoderConfig(vocab_size=100, hidden_size=32, num_layers=2, num_heads=4,
...                        intermediate_size=64)
>>> params = init_encoder(config, jax.random.key(0))
>>> ids = jnp.ones((8, 16), jnp.int32)
>>> apply_encoder(config, params, ids, ids > 0).shape
(8, 16, 32)

Every dense layer of the transformer, its biases and norms lie under the key `layer`;
embeddings lie outside, as in the names of the published weights.

References:
    Devlin et al., *BERT*, 2019, section 3. https://arxiv.org/abs/1810.04805
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from expkit import nets
from expkit.rotary import rotary
from expkit.text.dropout import dropout, dropout_seeds


def _gelu(x: jax.Array) -> jax.Array:
    """x (1 + erf(x / sqrt(2))) / 2, as PyTorch has it; jax.nn.gelu calls erfc, longer.

    With one constant only: XLA:CPU stores each in the shape of x between the layers.
    """
    half_root = np.sqrt(0.5).astype(x.dtype)
    y = half_root * x
    return half_root * (y + y * jax.lax.erf(y))


ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
_INIT = jax.nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sizes of a BERT.

    Attributes:
        vocab_size: number of ids.
        hidden_size: width of the residual stream, divisible by `num_heads`.
        num_layers: transformer layers.
        num_heads: attention heads of a layer.
        intermediate_size: width of the perceptron of a layer.
        max_positions: tokens of a row at most.
        num_token_types: kinds of segments.
        layer_norm_eps: added to the variance of a layer norm.
        hidden_dropout: probability of dropping a unit of the embeddings and of what a
            layer adds to the stream.
        attention_dropout: probability of dropping an attention weight.
        activation: a name in `ACTIVATIONS`.
        is_rotary: whether positions turn queries and keys (RoFormer) instead of having
            a table of embeddings.
        norm_first: whether a layer norm comes before what a layer adds, and one after
            all layers, instead of one after each sum.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 512
    num_token_types: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    is_rotary: bool = False
    norm_first: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of range."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not 1 <= value < 2**31:
                raise ValueError(
                    f"{field.name} must be at least 1 and below 2**31, got {value!r}."
                )
        if not 0.0 < self.layer_norm_eps < math.inf:
            raise ValueError(
                f"layer_norm_eps must be above 0, got {self.layer_norm_eps!r}."
            )
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name} must be in [0, 1), got {getattr(self, name)!r}."
                )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} does not divide into "
                f"num_heads={self.num_heads}."
            )
        if self.is_rotary and self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                "is_rotary needs heads of even width, got "
                f"{self.hidden_size // self.num_heads}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got "
                f"{self.activation!r}."
            )


def init_encoder(config: EncoderConfig, key: jax.Array) -> nets.Params:
    """Draws parameters as BERT does: normal with standard deviation 0.02.

    Args:
        config: the sizes.
        key: typed PRNG key.

    Returns:
        Nested dict of float32 arrays; dense kernels are [in, out].
    """
    return _net(config).init(key)


def apply_encoder(
    config: EncoderConfig,
    params: nets.Params,
    ids: jax.typing.ArrayLike,
    mask: jax.typing.ArrayLike,
    *,
    token_type_ids: jax.typing.ArrayLike | None = None,
    offset: jax.typing.ArrayLike | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """Runs the encoder.

    Args:
        config: the sizes.
        params: of `init_encoder` or `load_encoder`.
        ids: int [batch, n], n at most `config.max_positions`.
        mask: bool or int [batch, n]; positions where it is 0 influence no other.
        token_type_ids: int [batch, n], the segment of each token; None is 0.
        offset: [batch, n, hidden_size], added to the embeddings of the tokens: a
            gradient with respect to it is one with respect to the input.
        key: typed PRNG key of the dropout; None switches it off.

    Returns:
        The last hidden states, [batch, n, hidden_size].

    Raises:
        ValueError: if a row is too long or the shapes differ.
    """
    ids, mask = jnp.asarray(ids), jnp.asarray(mask) != 0
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(ids)
    types = jnp.asarray(token_type_ids)
    if not ids.shape == mask.shape == types.shape or ids.ndim != 2:
        raise ValueError(
            f"ids, mask and token_type_ids must be [batch, n], got {ids.shape}, "
            f"{mask.shape} and {types.shape}."
        )
    if ids.shape[1] > config.max_positions:
        raise ValueError(
            f"rows have {ids.shape[1]} tokens and the encoder {config.max_positions} "
            "positions; truncate the texts."
        )
    return _net(config).apply(params, (ids, mask, types, offset), key)


@functools.cache
def _net(config: EncoderConfig) -> nets.Net:
    return nets.functional(lambda rngs: _Encoder(config, rngs))


class _Encoder(nnx.Module):
    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.embeddings = _Embeddings(config, rngs)
        self.layer = nnx.List(_Layer(config, rngs) for _ in range(config.num_layers))
        self.norm = _norm(config, rngs) if config.norm_first else None

    def __call__(self, x, rngs):
        ids, mask, types, offset = x
        count = 1 + len(self.layer)
        seeds: Any = [(None,) * 3] * count
        if rngs is not None:
            seeds = dropout_seeds(rngs.dropout(), 3 * count).reshape(count, 3, 2)
        h = self.embeddings(ids, types, offset, seeds[0][0])
        shape = h.shape
        h = h.reshape(-1, shape[-1])
        for layer, of_layer in zip(self.layer, seeds[1:], strict=True):
            h = layer(h, mask, of_layer)
        h = h if self.norm is None else self.norm(h)
        return h.reshape(shape)


class _Embeddings(nnx.Module):
    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        def table(rows):
            return nnx.Param(_INIT(rngs.params(), (rows, config.hidden_size)))

        self.word = table(config.vocab_size)
        self.position = None if config.is_rotary else table(config.max_positions)
        self.token_type = table(config.num_token_types)
        self.norm = _norm(config, rngs)
        self.rate = config.hidden_dropout

    def __call__(self, ids, types, offset, seed):
        h = self.word[ids] + self.token_type[types]
        h = h if offset is None else h + offset
        if self.position is not None:
            h += self.position[None, : ids.shape[1]]
        return dropout(self.norm(h), self.rate, seed)


class _Layer(nnx.Module):
    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        width, wide = config.hidden_size, config.intermediate_size
        self.query, self.key, self.value, self.merge = (
            _dense(width, width, rngs) for _ in range(4)
        )
        self.attention_norm = _norm(config, rngs)
        self.expand, self.contract = (
            _dense(width, wide, rngs),
            _dense(wide, width, rngs),
        )
        self.output_norm = _norm(config, rngs)
        self.rate, self.attention_rate = config.hidden_dropout, config.attention_dropout
        self.activation = ACTIVATIONS[config.activation]
        self.num_heads = config.num_heads
        self.is_rotary, self.norm_first = config.is_rotary, config.norm_first

    def __call__(self, x, mask, seeds):
        if self.norm_first:
            h = self.merge(self.attend(self.attention_norm(x), mask, seeds[0]))
            x += dropout(h, self.rate, seeds[1])
            h = self.contract(self.activation(self.expand(self.output_norm(x))))
            return x + dropout(h, self.rate, seeds[2])
        h = self.merge(self.attend(x, mask, seeds[0]))
        x = self.attention_norm(x + dropout(h, self.rate, seeds[1]))
        h = self.contract(self.activation(self.expand(x)))
        return self.output_norm(x + dropout(h, self.rate, seeds[2]))

    def attend(self, x, mask, seed):
        """Means of the values of all heads, [batch, n, width]."""
        queries, keys, values = (
            project(x).reshape(*mask.shape, self.num_heads, -1).transpose(0, 2, 1, 3)
            for project in (self.query, self.key, self.value)
        )
        if self.is_rotary:
            positions = jnp.arange(mask.shape[1])
            queries, keys = rotary(queries, positions), rotary(keys, positions)
        queries = queries / np.sqrt(queries.shape[-1]).astype(x.dtype)
        scores = jnp.einsum("bhqd,bhkd->bhqk", queries, keys)
        # Not -inf, whose softmax is nan where nothing is left.
        lowest = jnp.finfo(scores.dtype).min
        scores = jnp.where(mask[:, None, None, :], scores, lowest)
        # The softmax, but its sums divide the few means instead of all weights.
        highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
        weights = jnp.exp(scores - highest)
        sums = jnp.sum(weights, axis=-1, keepdims=True)
        weights = dropout(weights, self.attention_rate, seed)
        means = jnp.einsum("bhqk,bhkd->bhqd", weights, values) / sums
        return means.transpose(0, 2, 1, 3).reshape(x.shape)


def _dense(width_in: int, width_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(width_in, width_out, kernel_init=_INIT, rngs=rngs)


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance E x^2 - (E x)^2 loses the digits that references agree in.
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        use_fast_variance=False,
        rngs=rngs,
    )
