"""Encoders and decoders of the image models, behind `init` and `apply`.

The perceptrons are those of `expkit.nets`. The convolutional pair halves and doubles
the sides of the image: 3x3 convolutions of stride 2 with a linear layer that keeps the
places (unlike `expkit.nets.cnn`, which averages over them), and the mirror image.

>>> net = make_decoder("cnn", 2, (16, 32), (8, 8, 1))
>>> net.apply(net.init(jax.random.key(0)), jnp.zeros((5, 2))).shape
(5, 8, 8, 1)
"""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx

from expkit import nets
from expkit.arguments import require_choice

KINDS = ("mlp", "cnn")


def make_encoder(
    kind: str, input_shape: Sequence[int], hidden: Sequence[int], num_features: int
) -> nets.Net:
    """Builds the network from an input to the features of its posterior.

    It raises ValueError for a batch of another shape.

    Args:
        kind: `"mlp"` or `"cnn"`.
        input_shape: shape of one example; (height, width, channels) for `"cnn"`.
        hidden: widths, or channels, from the input on.
        num_features: width of the output.

    Returns:
        The network, `[batch, *input_shape] -> [batch, num_features]`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(kind, input_shape, hidden)
    if kind == "mlp":
        flat = nets.mlp(input_shape, hidden, num_features, activation="relu")
        return _checked(flat, input_shape)
    depths = [input_shape[-1], *hidden]
    rows, columns = _coarse_sides(input_shape, hidden)

    class Encoder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.convolutions = nnx.List(
                nnx.Conv(n_in, n_out, (3, 3), strides=2, rngs=rngs)
                for n_in, n_out in itertools.pairwise(depths)
            )
            self.out = nnx.Linear(rows * columns * depths[-1], num_features, rngs=rngs)

        def __call__(self, x, rngs):
            del rngs
            for convolution in self.convolutions:
                x = jax.nn.relu(convolution(x))
            return self.out(x.reshape(len(x), -1))

    return _checked(nets.functional(Encoder), input_shape)


def make_decoder(
    kind: str, latent_dim: int, hidden: Sequence[int], output_shape: Sequence[int]
) -> nets.Net:
    """Builds the network from a latent vector to the parameters of the likelihood.

    Args:
        kind: `"mlp"` or `"cnn"`.
        latent_dim: coordinates of z.
        hidden: widths, or channels, of the *encoder*; used in the reverse order.
        output_shape: shape of one example.

    Returns:
        The network, `[batch, latent_dim] -> [batch, *output_shape]`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(kind, output_shape, hidden)
    widths = tuple(reversed(hidden))
    if kind == "mlp":
        size = math.prod(output_shape)
        flat = nets.mlp((latent_dim,), widths, size, activation="relu")

        def apply(params, x, key=None):
            return flat.apply(params, x, key).reshape(len(x), *output_shape)

        return nets.Net(flat.init, apply)
    rows, columns = _coarse_sides(output_shape, hidden)
    depths = [*widths, output_shape[-1]]

    class Decoder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.start = nnx.Linear(latent_dim, rows * columns * widths[0], rngs=rngs)
            self.convolutions = nnx.List(
                nnx.ConvTranspose(n_in, n_out, (3, 3), strides=2, rngs=rngs)
                for n_in, n_out in itertools.pairwise(depths)
            )

        def __call__(self, x, rngs):
            del rngs
            h = self.start(x).reshape(len(x), rows, columns, widths[0])
            for convolution in self.convolutions:
                h = convolution(jax.nn.relu(h))
            return h[:, : output_shape[0], : output_shape[1]]

    return nets.functional(Decoder)


def require_examples(x: jax.Array, shape: Sequence[int]) -> None:
    """Checks that a batch holds examples of one shape.

    Args:
        x: the batch.
        shape: of one example.

    Raises:
        ValueError: if it does not; a missing axis of channels would broadcast.
    """
    if x.ndim == 0 or x.shape[1:] != tuple(shape):
        wanted = ", ".join(map(str, ("batch", *shape)))
        raise ValueError(
            f"x must have the shape [{wanted}], got {list(x.shape)}; reshape it, or "
            "make the model with another input_shape."
        )


def _checked(net: nets.Net, shape: Sequence[int]) -> nets.Net:
    def apply(params, x, key=None):
        require_examples(x, shape)
        return net.apply(params, x, key)

    return nets.Net(net.init, apply)


def _coarse_sides(shape: Sequence[int], hidden: Sequence[int]) -> tuple[int, int]:
    """Height and width after the convolutions, which round up."""
    factor = 2 ** len(hidden)
    return -(-shape[0] // factor), -(-shape[1] // factor)


def _check(kind: str, shape: Sequence[int], hidden: Sequence[int]) -> None:
    require_choice("encoder", kind, KINDS)
    if min((*shape, *hidden), default=0) < 1:
        raise ValueError(
            "input_shape and hidden must be sizes of at least 1, got "
            f"{tuple(shape)!r} and {tuple(hidden)!r}."
        )
    if kind == "cnn" and (len(shape) != 3 or not hidden):
        raise ValueError(
            "encoder='cnn' needs images (height, width, channels) and a hidden layer, "
            f"got the shape {tuple(shape)!r} and hidden={tuple(hidden)!r}."
        )
