r"""Penalties on the gradient of a loss, at the price of one Hessian-vector product.

`with_gradient_penalty` turns a loss into

.. math:: F = L + c\,\|g\|^2, \qquad g = \partial L / \partial a,

for any argument `a`: the parameters (explicit gradient regularisation, Barrett and
Dherin 2020), the inputs (double backpropagation, Drucker and LeCun 1992), or a part of
either. The second term of its gradient :math:`\nabla L + 2c\,(\partial g)^T g` is the
derivative of :math:`\nabla L` along `g`, so forward over reverse mode gives it exactly
from one linearisation that shares its primal pass with the value; `jax.grad` of a
function that calls `jax.grad` gives the same number more slowly::

    penalised = igr.with_gradient_penalty(loss_fn, 0.1)
    value, grads = jax.value_and_grad(penalised)(params, batch)

The papers estimate the gradient on the same mini-batch as the loss; so do these
functions. Their expectation differs from the full-batch penalty by the variance of the
gradient; `two_batch_gradient_penalty` has no such bias.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from expkit import trees
from igr import attached
from igr.attached import Call, Leaves

MODES = ("exact", "nested", "finite_difference")


def with_gradient_penalty(
    loss_fn: Callable[..., Any],
    coefficient: jax.typing.ArrayLike,
    *,
    argnum: int = 0,
    mode: str = "exact",
    has_aux: bool = False,
    step: float = 1e-2,
) -> Callable[..., Any]:
    r"""Adds the squared norm of a gradient of a loss to the loss.

    .. math:: F(\ldots) = L(\ldots) + c\,\|\partial L / \partial a\|^2.

    The loss must be differentiable twice; where it is only piecewise so (ReLU), the
    derivative is that of the piece. Every pass sees the same arguments, so dropout with
    the same key and batch statistics are the same in all of them.

    Args:
        loss_fn: `(*args, **kwargs) -> scalar`, or `(scalar, aux)` with `has_aux`. It
            may close over traced arrays and take integers, PRNG keys, static values.
        coefficient: :math:`c`, may be traced. Negative values are allowed: they take
            away a penalty, such as the implicit one of gradient descent
            (`-learning_rate / 4`), and leave the loss unbounded below.
        argnum: the positional argument :math:`a` whose gradient is penalised, a pytree
            of floating-point arrays.
        mode: `"exact"` is forward over reverse mode; `"nested"` is `jax.grad` of
            `jax.grad`, equal up to rounding; `"finite_difference"` replaces the
            Hessian-vector product by the difference of two gradients a distance `step`
            apart along `g`, as SAM and GNP do. That is one plain gradient more, but for
            ReLU networks another regulariser, because the difference counts the kinks
            it passes, which the derivative does not.
        has_aux: whether the loss returns `(loss, aux)`.
        step: length of the finite difference: `a` moves by `step * g / ||g||`. Only for
            `"finite_difference"`.

    Returns:
        A function with the signature of `loss_fn`, which returns a scalar in at least
        float32, or `(scalar, aux)`. It can be differentiated with respect to any of its
        arguments and to what the loss closes over, and more than once.

    Raises:
        ValueError: if `mode` is unknown, a concrete `coefficient` is not finite, `step`
            is not positive, and when called: if `argnum` names no positional argument
            or the loss is not a scalar.
        TypeError: if `argnum` is no integer, and when called: if the penalised argument
            has a leaf that is not floating-point.

    References:
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020, eq. (6).
        https://arxiv.org/abs/2009.11162
        Zhao, Zhang and Hu, *Penalizing Gradient Norm for Efficiently Improving
        Generalization in Deep Learning*, 2022, for finite differences.
        https://arxiv.org/abs/2202.03599
    """
    check_coefficient("coefficient", coefficient)
    check_argnum(argnum)
    check_mode(mode)
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step must be positive and finite, got {step!r}.")
    loss = attached.scalar_loss(loss_fn, has_aux=has_aux)

    def penalised(*args, **kwargs):
        call = attached.make_call(loss, argnum, args, kwargs, has_aux=has_aux)
        value, aux = penalise(call, coefficient, mode=mode, step=step)
        return (value, aux) if has_aux else value

    return penalised


def penalise(
    call: Call, coefficient: jax.typing.ArrayLike, *, mode: str, step: float = 1e-2
) -> tuple[jax.Array, Any]:
    """Evaluates `(L + c ||g||^2, aux)` of one call; differentiable as `mode` says."""
    leaves = [as_coefficient(coefficient), *call.leaves]
    if mode == "nested":
        return value(call, leaves)
    return attached.attach_gradient(
        lambda leaves: value(call, leaves),
        lambda leaves, wanted: gradient(call, leaves, wanted, mode=mode, step=step),
        leaves,
        (lambda leaves: call.loss(leaves[1:])[1]) if call.has_aux else None,
    )


def value(call: Call, leaves: Leaves) -> tuple[jax.Array, Any]:
    """`(L + c ||g||^2, aux)` at the leaves, of which c is the first."""
    (loss, aux), slopes = _value_and_gradient(call, leaves[1:], call.target)
    return loss + leaves[0] * trees.squared_norm(slopes), aux


def gradient(
    call: Call, leaves: Leaves, wanted: Sequence[int], *, mode: str, step: float
) -> tuple[jax.Array, Leaves]:
    """`(L + c ||g||^2, its gradient)`, with c the first of the leaves."""
    c, rest = leaves[0], leaves[1:]
    differentiate = _exact if mode == "exact" else _make_finite_difference(step)
    inner = [i - 1 for i in wanted if i > 0]
    loss, slopes, gradients, products = differentiate(call, rest, inner)
    square = trees.squared_norm(slopes)
    total = trees.add_scaled(gradients, 2.0 * c, products)
    if 0 in wanted:  # differentiated places come in order
        total = [square.astype(c.dtype), *total]
    return loss + c * square, total


def _value_and_gradient(call: Call, leaves: Leaves, places: list[int]):
    """`((loss, aux), gradient of the leaves at these places)`."""

    def of(values):
        return call.loss(attached.replace(leaves, places, values))

    return jax.value_and_grad(of, has_aux=True)([leaves[i] for i in places])


def _exact(call: Call, leaves: Leaves, wanted: list[int]):
    """`(loss, g, gradient, its derivative along g)`, the last two of what is wanted."""
    both = sorted({*call.target, *wanted})
    in_target = [both.index(i) for i in call.target]
    in_wanted = [both.index(i) for i in wanted]

    def gradient(target):
        moved = attached.replace(leaves, call.target, target)
        (loss, _), gradients = _value_and_gradient(call, moved, both)
        return gradients, loss

    here = [leaves[i] for i in call.target]
    gradients, push, loss = jax.linearize(gradient, here, has_aux=True)
    slopes = [gradients[i] for i in in_target]
    products = push(slopes)
    return (
        loss,
        slopes,
        [gradients[i] for i in in_wanted],
        [products[i] for i in in_wanted],
    )


def _make_finite_difference(step: float):
    """As `_exact`, with the product from a second gradient at a distance `step`."""

    def differentiate(call: Call, leaves: Leaves, wanted: list[int]):
        both = sorted({*call.target, *wanted})
        (loss, _), gradients = _value_and_gradient(call, leaves, both)
        slopes = [gradients[both.index(i)] for i in call.target]
        here = [leaves[i] for i in call.target]
        square = trees.squared_norm(slopes)
        # At a gradient of zero there is no direction, and the product is zero.
        norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        moved = trees.add_scaled(here, step / norm, slopes)
        moved = attached.replace(leaves, call.target, moved)
        _, ahead = _value_and_gradient(call, moved, wanted)
        gradients = [gradients[both.index(i)] for i in wanted]
        scale = jnp.where(square > 0, norm / step, 0.0)
        products = [
            scale * (jnp.asarray(b, scale.dtype) - jnp.asarray(a, scale.dtype))
            for a, b in zip(gradients, ahead, strict=True)
        ]
        return loss, slopes, gradients, products

    return differentiate


def check_argnum(argnum: int) -> None:
    """TypeError unless `argnum` is one integer."""
    if isinstance(argnum, bool) or not isinstance(argnum, int):
        raise TypeError(f"argnum must be one integer, got {argnum!r}.")


def check_mode(mode: str) -> None:
    """ValueError unless there is such a mode."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")


def check_coefficient(name: str, value: jax.typing.ArrayLike) -> None:
    """ValueError for a concrete coefficient that is no finite scalar."""
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}.")
    if not isinstance(value, jax.core.Tracer) and not math.isfinite(float(value)):
        raise ValueError(f"{name} must be finite, got {value!r}.")


def as_coefficient(value: jax.typing.ArrayLike) -> jax.Array:
    """As an array in at least float32: a coefficient can be differentiated too."""
    return jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32))
