"""Small networks, written in Flax NNX and used through two plain functions.

`init(key) -> params` gives a dict of arrays, `apply(params, x, key=None) -> outputs`
runs the network; without a key dropout is off. Nothing outside this module (and the
models of a paper) needs to know Flax::

    net = mlp((8, 8, 1), (64, 64), num_outputs=10)
    params = net.init(jax.random.key(0))
    logits = net.apply(params, images)
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, Any]
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}


class Apply(Protocol):
    """Runs a network on a batch; dropout is active when a key is given."""

    def __call__(
        self, params: Params, x: Any, key: jax.Array | None = None
    ) -> jax.Array:
        """Maps `[batch, ...]`, or a pytree of such, to the outputs."""
        ...


class Net(NamedTuple):
    """Attributes: init: `key -> params`; apply: `(params, x, key=None) -> outputs`."""

    init: Callable[[jax.Array], Params]
    apply: Apply


def functional(make: Callable[[nnx.Rngs], nnx.Module]) -> Net:
    """Turns an NNX module into a pair of pure functions.

    Args:
        make: builds the module. Its call takes `(x, rngs)`, where `rngs` is None when
            dropout is off; all of its variables are `nnx.Param`.

    Returns:
        The pair.
    """
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, shapes = nnx.split(abstract, nnx.Param)

    def init(key):
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params, x, key=None):
        state = jax.tree.map(lambda leaf: leaf, shapes)  # merged in place below
        nnx.replace_by_pure_dict(state, params)
        rngs = None if key is None else nnx.Rngs(dropout=key)
        return nnx.merge(graph, state)(x, rngs)

    return Net(init, apply)


def mlp(
    input_shape: Sequence[int],
    hidden: Sequence[int],
    num_outputs: int,
    *,
    activation: str = "gelu",
    dropout: float = 0.0,
    use_bias: bool = True,
) -> Net:
    """A multilayer perceptron on flattened inputs.

    Args:
        input_shape: shape of one example.
        hidden: widths of the hidden layers; empty gives a linear map.
        num_outputs: width of the output.
        activation: a name in `ACTIVATIONS`, after every hidden layer.
        dropout: probability of dropping a hidden unit.
        use_bias: whether the layers have one.

    Returns:
        The network, `[batch, *input_shape] -> [batch, num_outputs]`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(dropout, activation, hidden=hidden, num_outputs=num_outputs)
    widths = [math.prod(input_shape), *hidden]
    act = ACTIVATIONS[activation]

    class MLP(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.List(
                nnx.Linear(n_in, n_out, use_bias=use_bias, rngs=rngs)
                for n_in, n_out in itertools.pairwise(widths)
            )
            self.out = nnx.Linear(widths[-1], num_outputs, use_bias=use_bias, rngs=rngs)

        def __call__(self, x, rngs):
            h = x.reshape(len(x), -1)
            for layer in self.hidden:
                h = _dropout(act(layer(h)), dropout, rngs)
            return self.out(h)

    return functional(MLP)


def cnn(
    input_shape: Sequence[int],
    channels: Sequence[int],
    num_outputs: int,
    *,
    activation: str = "gelu",
    dropout: float = 0.0,
) -> Net:
    """3x3 convolutions of stride 2, the mean over positions, a linear layer.

    Args:
        input_shape: (height, width, channels) of one image.
        channels: channels after each convolution.
        num_outputs: width of the output.
        activation: a name in `ACTIVATIONS`.
        dropout: probability of dropping a unit before the linear layer.

    Returns:
        The network, `[batch, height, width, channels] -> [batch, num_outputs]`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(dropout, activation, channels=channels, num_outputs=num_outputs)
    depths = [input_shape[-1], *channels]
    act = ACTIVATIONS[activation]

    class CNN(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.convolutions = nnx.List(
                nnx.Conv(n_in, n_out, (3, 3), strides=2, rngs=rngs)
                for n_in, n_out in itertools.pairwise(depths)
            )
            self.out = nnx.Linear(depths[-1], num_outputs, rngs=rngs)

        def __call__(self, x, rngs):
            for convolution in self.convolutions:
                x = act(convolution(x))
            return self.out(_dropout(x.mean(axis=(1, 2)), dropout, rngs))

    return functional(CNN)


def vit(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    patch_size: int = 2,
    width: int = 64,
    depth: int = 2,
    num_heads: int = 4,
    dropout: float = 0.0,
) -> Net:
    """A small vision transformer: patches, learned positions, mean pooling.

    Args:
        input_shape: (height, width, channels) of one image, divisible by `patch_size`.
        num_outputs: width of the output.
        patch_size: side of the square patches, in pixels.
        width: width of the residual stream, divisible by `num_heads`.
        depth: number of blocks.
        num_heads: attention heads.
        dropout: probability of dropping a unit of each block's output.

    Returns:
        The network, `[batch, height, width, channels] -> [batch, num_outputs]`.

    Raises:
        ValueError: if an argument is out of range, the image does not divide into
            patches, or the width into heads.
    """
    _check(dropout, patch_size=patch_size, width=width, depth=depth)
    _check(dropout, num_heads=num_heads, num_outputs=num_outputs)
    rows, columns, _ = input_shape
    if rows % patch_size or columns % patch_size:
        raise ValueError(
            f"patch_size={patch_size} does not divide the image {rows}x{columns}."
        )
    if width % num_heads:
        raise ValueError(f"width={width} does not divide into num_heads={num_heads}.")
    num_patches = (rows // patch_size) * (columns // patch_size)

    class ViT(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            side = (patch_size, patch_size)
            self.patches = nnx.Conv(
                input_shape[-1], width, side, strides=side, rngs=rngs
            )
            noise = jax.random.normal(rngs.params(), (num_patches, width))
            self.positions = nnx.Param(0.02 * noise)
            self.blocks = nnx.List(
                TransformerBlock(width, num_heads, dropout, rngs) for _ in range(depth)
            )
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.out = nnx.Linear(width, num_outputs, rngs=rngs)

        def __call__(self, x, rngs):
            h = self.patches(x).reshape(len(x), num_patches, width)
            h += self.positions[None]
            for block in self.blocks:
                h = block(h, rngs)
            return self.out(self.norm(h).mean(axis=1))

    return functional(ViT)


class TransformerBlock(nnx.Module):
    """Attention and a two-layer perceptron, each after a layer norm."""

    def __init__(self, width: int, num_heads: int, dropout: float, rngs: nnx.Rngs):
        self.norm_1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads, width, decode=False, rngs=rngs
        )
        self.norm_2 = nnx.LayerNorm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)
        self.dropout = dropout

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Maps `[batch, n, width]` to the same shape."""
        x += _dropout(self.attention(self.norm_1(x)), self.dropout, rngs)
        h = self.contract(jax.nn.gelu(self.expand(self.norm_2(x))))
        return x + _dropout(h, self.dropout, rngs)


def _check(
    dropout: float, activation: str = "gelu", **sizes: int | Sequence[int]
) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}.")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )
    for name, size in sizes.items():
        if min(size if isinstance(size, Sequence) else (size,), default=1) < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}.")


def _dropout(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """Drops with probability `rate` and rescales; without rngs, or at 0, nothing."""
    if rngs is None or rate == 0.0:
        return x
    return nnx.Dropout(rate)(x, deterministic=False, rngs=rngs)
