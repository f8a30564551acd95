r"""Squared gradients of single examples in dense networks, from one backward pass.

A dense layer :math:`z = h W + b` of a network has, for one example, the gradients

.. math:: \nabla_W \ell = h \delta^\top, \quad \nabla_b \ell = \delta, \qquad
          \delta = \nabla_z \ell,

so that their squared norm is :math:`(1 + \|h\|^2) \|\delta\|^2`, and the mean over the
examples of their squares, the diagonal of the empirical Fisher matrix, is a product of
two matrices: :math:`(h^2)^\top (\delta^2) / n` (Goodfellow 2015). The :math:`\delta` of
all examples come from one backward pass; `jax.vmap` of `jax.grad` would write one
gradient per example to memory, which costs tens of times more.

What differs from Goodfellow: inputs may be sequences, [batch, n, in]. Then all n
positions of an example share the weights, its gradient is
:math:`\sum_t h_t \delta_t^\top`, and the product of norms above is *not* its norm. Here

.. math:: \Big\|\sum_t h_t \delta_t^\top\Big\|^2
          = \sum_{s,t} (h_s^\top h_t)(\delta_s^\top \delta_t),

from whichever side takes fewer multiplications; neither needs more memory than the
activations. The right-hand side is the "ghost clipping" of Li et al. (2022).

Example::

    >>> layers = [(jnp.ones((3, 4)), jnp.zeros(4)), (jnp.ones((4, 2)), None)]
    >>> loss = lambda out: jnp.sum(out**2, axis=-1)
    >>> dense_squared_norms(layers, jnp.eye(3), loss, jnp.tanh).shape
    (3,)

References:
    Goodfellow, *Efficient Per-Example Gradient Computations*, 2015, sections 4-5.
    https://arxiv.org/abs/1510.01799
    Li, Tramèr, Liang, Hashimoto, *Large Language Models Can Be Strong Differentially
    Private Learners*, 2022, section 4. https://arxiv.org/abs/2110.05679
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from expkit import explicit, trees

Layer = tuple[jax.Array, jax.Array | None]


def dense_squared_norms(
    params: Sequence[Layer],
    x: jax.typing.ArrayLike,
    output_loss: Callable[[jax.Array], jax.Array],
    activation: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    r"""Squared norm of the gradient of each example's loss in all parameters.

    .. math:: \|\nabla_\theta \ell_i\|^2
              = \sum_l (1 + \|h_{l-1}\|^2) \|\delta_l\|^2,

    without the 1 where a layer has no bias, and with the sum over pairs of positions of
    the module's docstring where `x` holds sequences. It can be differentiated in
    `params`, `x` and what `output_loss` closes over, as often as `activation` and
    `output_loss` can: its gradient is a Hessian-vector product per example.

    Args:
        params: the layers, `(w [in, out], b [out] or None)` each; an array that occurs
            twice counts as two parameters. A matrix that does is refused outside of
            `jax.jit`, which hides it.
        x: [batch, in], or [batch, n, in] with weights shared by the n positions.
        output_loss: the losses [batch] from the outputs [batch, (n,) out]. Loss i must
            depend on row i of its argument only (no statistics of the batch).
        activation: elementwise, or at least row by row; after all layers but the last.

    Returns:
        [batch], at least 0, float32 or wider.

    Raises:
        ValueError: if the layers do not fit each other or `x`, one matrix is in several
            of them, or `output_loss` does not return [batch].
        TypeError: if the parameters or the losses are not floating-point, or a function
            is not callable.

    References:
        Goodfellow, *Efficient Per-Example Gradient Computations*, 2015, section 4.
        https://arxiv.org/abs/1510.01799
    """
    inputs, deltas = _inputs_and_deltas(params, x, output_loss, activation)
    terms = [
        _squared_norms(h, delta, has_bias=b is not None)
        for (_, b), h, delta in zip(params, inputs, deltas, strict=True)
    ]
    return jnp.sum(jnp.stack(terms), axis=0)


def dense_fisher(
    params: Sequence[Layer],
    x: jax.typing.ArrayLike,
    output_loss: Callable[[jax.Array], jax.Array],
    activation: Callable[[jax.Array], jax.Array],
) -> Any:
    r"""Mean over the examples of the squared gradient, entry by entry.

    .. math:: F = \frac1n \sum_i (\nabla_\theta \ell_i)^2,

    the diagonal of the empirical Fisher matrix where :math:`\ell` is a negative log
    likelihood. For sequences one example's gradient at a time is in memory.

    Args:
        params: as in `dense_squared_norms`.
        x: [batch, in] or [batch, n, in], as there.
        output_loss: the losses [batch], of which loss i depends on row i only.
        activation: row by row, after all layers but the last.

    Returns:
        Pytree like `params`, at least 0, float32 or wider. Its entries add up to the
        mean of `dense_squared_norms`.

    Raises:
        ValueError: as `dense_squared_norms`, and for a batch without examples.
        TypeError: as `dense_squared_norms`.

    References:
        Goodfellow, *Efficient Per-Example Gradient Computations*, 2015, section 5.
        https://arxiv.org/abs/1510.01799
    """
    inputs, deltas = _inputs_and_deltas(params, x, output_loss, activation)
    if not len(inputs[0]):
        raise ValueError(f"x must hold at least one example, got shape {jnp.shape(x)}.")
    leaves = []
    for (_, b), h, delta in zip(params, inputs, deltas, strict=True):
        of_weight, of_bias = _mean_squares(h, delta)
        leaves += [of_weight] if b is None else [of_weight, of_bias]
    return jax.tree.structure(params).unflatten(leaves)


def check_layers(params: Sequence[Layer], n_in: int) -> None:
    """Refuses layers that do not fit each other; all of it is static under `jax.jit`.

    Args:
        params: the layers, `(w [in, out], b [out] or None)` each.
        n_in: size of what the first one takes.

    Raises:
        ValueError: if there is none, one is no pair, the sizes do not chain, or the
            same array is in several layers (which `jax.jit` hides).
        TypeError: if a parameter is not floating-point.
    """
    if not isinstance(params, Sequence) or not params:
        raise ValueError(
            f"params must be a list of at least one (w, b), got {params!r:.80}."
        )
    size, before = n_in, "x"
    for index, layer in enumerate(params):
        size, before = _check_layer(index, layer, size, before), f"params[{index}]"
    matrices = [layer[0] for layer in params]
    if len({id(w) for w in matrices}) < len(matrices):
        raise ValueError(
            "params must be separate layers, got one matrix in several: the gradient "
            "of a shared one is another. Copy it for the formula of separate layers."
        )


def _inputs_and_deltas(params, x, output_loss, activation):
    """Every layer's input, and the gradients of the losses in its output before."""
    x = _check(params, x, output_loss, activation)
    z, inputs, pullbacks = _affine(params[0], x), [x], []
    for layer in params[1:]:

        def next_layer(z, layer=layer):
            h = activation(z)
            return _affine(layer, h), h

        z, pullback, h = jax.vjp(next_layer, z, has_aux=True)
        inputs.append(h)
        pullbacks.append(pullback)
    losses, pullback = jax.vjp(output_loss, z)
    _check_losses(losses, x.shape[:1])
    deltas = pullback(jnp.ones_like(losses))
    for pullback in reversed(pullbacks):
        deltas = (*pullback(deltas[0]), *deltas)
    return inputs, deltas


def _affine(layer, h):
    w, b = layer
    z = jnp.dot(h, w)
    return z if b is None else z + jnp.reshape(b, (1,) * (z.ndim - 1) + (-1,))


@functools.partial(jax.jit, static_argnames="has_bias")
def _squared_norms(h, delta, *, has_bias):
    """Squared norms [batch] of the gradients of one layer."""
    h, delta, bias = _wide(h), _wide(delta), float(has_bias)
    if h.ndim == 2:
        factor = jnp.sum(h * h, axis=-1) + bias
        return factor * jnp.sum(delta * delta, axis=-1)
    (length, n_in), n_out = h.shape[1:], delta.shape[-1]
    if length * (n_in + n_out) < n_in * n_out:
        # A bias is the weight of one more input, which is 1.
        gram = jnp.einsum("bsi,bti->bst", h, h) + bias
        terms = gram * jnp.einsum("bso,bto->bst", delta, delta)
        # Rounding can push a sum of terms that cancel below zero.
        return jnp.maximum(jnp.sum(terms, axis=(1, 2)), 0.0)
    gradient = jnp.einsum("bti,bto->bio", h, delta)
    total = jnp.sum(gradient * gradient, axis=(1, 2))
    return total + bias * jnp.sum(jnp.square(jnp.sum(delta, axis=1)), axis=-1)


@jax.jit  # without it, an eager call compiles its scan anew
def _mean_squares(h, delta):
    """Mean squared gradients of one layer's weight and bias."""
    h, delta = _wide(h), _wide(delta)
    batch = len(h)
    if h.ndim == 2:
        squares = delta * delta
        return jnp.dot((h * h).T, squares) / batch, jnp.mean(squares, axis=0)

    zeros = jnp.zeros((h.shape[-1], delta.shape[-1]), jnp.result_type(h, delta))
    zeros = explicit.varying_like(zeros, h, delta)
    total, _ = jax.lax.scan(_add_square, zeros, (h, delta))
    return total / batch, jnp.mean(jnp.square(jnp.sum(delta, axis=1)), axis=0)


@jax.checkpoint  # or the derivative would keep every example's gradient
def _add_square(total, example):
    """One step of a scan over the examples: adds the square of one's gradient."""
    h, delta = example
    return total + jnp.square(jnp.dot(h.T, delta)), None


def _wide(x):
    """In float32, or float64 where it is that already."""
    return x.astype(trees.wide_dtype(x))


def _check(params, x, output_loss, activation):
    """Raises for layers that do not fit each other or `x`; returns `x` as an array."""
    for name, fn in (("output_loss", output_loss), ("activation", activation)):
        if not callable(fn):
            raise TypeError(f"{name} must be a function, got {fn!r}.")
    x = jnp.asarray(x)
    if x.ndim not in (2, 3):
        raise ValueError(
            f"x must be [batch, in], or [batch, n, in] for sequences, got {x.shape}; "
            "flatten the other axes."
        )
    check_layers(params, x.shape[-1])
    return x


def _check_layer(index, layer, size, before):
    """Raises for a layer that does not take `size` inputs; returns its outputs."""
    name = f"params[{index}]"
    is_pair = isinstance(layer, Sequence) and len(layer) == 2
    for part, leaf in zip("wb", layer if is_pair else (), strict=False):
        if isinstance(leaf, Sequence):
            kind = type(leaf).__name__
            raise TypeError(
                f"{part} of {name} must be an array, got a {kind}; use jnp.asarray."
            )
    if not is_pair or layer[0] is None or jnp.ndim(layer[0]) != 2:
        raise ValueError(
            f"{name} must be (w [in, out], b [out] or None), got "
            f"{jax.tree.map(jnp.shape, layer)}."
        )
    for leaf in jax.tree.leaves(tuple(layer)):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{name} must be floating-point, got {jnp.result_type(leaf)}; use "
                ".astype(jnp.float32)."
            )
    w, b = layer
    if jnp.shape(w)[0] != size:
        raise ValueError(
            f"{name} must have w [{size}, out] to follow {before}, got shape "
            f"{jnp.shape(w)}."
        )
    if b is not None and jnp.shape(b) != jnp.shape(w)[1:]:
        raise ValueError(
            f"{name} must have b [{jnp.shape(w)[1]}] or None beside w {jnp.shape(w)}, "
            f"got shape {jnp.shape(b)}."
        )
    return jnp.shape(w)[1]


def _check_losses(losses, shape):
    """Raises where `output_loss` did not return one number per example."""
    if jnp.shape(losses) != shape:
        raise ValueError(
            f"output_loss must return one loss per example, shape {shape}, got "
            f"{jnp.shape(losses)}; take no mean over the batch."
        )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise TypeError(
            f"output_loss must return floating-point losses, got {losses.dtype}."
        )
