r"""Penalties on the gradient of a loss, at the price of one Hessian-vector product.

`with_gradient_penalty` turns a loss into

.. math:: F = L + c\,\|g\|^2, \qquad g = \partial L / \partial a,

for any argument `a`: the parameters (explicit gradient regularisation, Barrett and
Dherin 2020), the inputs (double backpropagation, Drucker and LeCun 1992), or a part of
either. The second term of its gradient :math:`\nabla L + 2c\,(\partial g)^T g` is the
derivative of :math:`\nabla L` along `g`, so forward over reverse mode gives it exactly
from one linearisation that shares its primal pass with the value. `jax.grad` of a
function that calls `jax.grad` gives the same number, more slowly for convolutions and
transformers, and as fast for perceptrons, where XLA finds the shared pass by itself::

    penalised = igr.with_gradient_penalty(loss_fn, 0.1)
    value, grads = jax.value_and_grad(penalised)(params, batch)

The papers estimate the gradient on the same mini-batch as the loss; so do these
functions. Their expectation differs from the full-batch penalty by the variance of the
gradient; `two_batch_gradient_penalty` has no such bias.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from expkit import trees
from expkit.arguments import require_choice, require_scalar
from igr import attached
from igr.attached import Arrays, Call
from igr.linearization import difference, linearize, value_and_gradient

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
    the same key and batch statistics are the same in all of them. What a loss changes
    in a stateful module, such as Flax's counters of dropout, is lost: split the module,
    pass keys, and return new statistics as `aux`.

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
            it passes, which the derivative does not. An entry of `a` moves by its share
            of `step`, which must be far above the spacing of its numbers: in float32
            the error is some per cent at a million parameters, and half precision is
            refused.
        has_aux: whether the loss returns `(loss, aux)`, a pytree of arrays.
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
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020.
        https://arxiv.org/abs/2009.11162
        Zhao, Zhang and Hu, *Penalizing Gradient Norm for Efficiently Improving
        Generalization in Deep Learning*, 2022, for finite differences.
        https://arxiv.org/abs/2202.03599
    """
    check_options(coefficient, argnum, mode)
    require_scalar("step", step, "positive and finite", lambda x: x > 0)
    loss = attached.scalar_loss(loss_fn, has_aux=has_aux)

    def penalised(*args, **kwargs):
        call = attached.make_call(loss, argnum, args, kwargs, has_aux=has_aux)
        value, aux = penalise(call, coefficient, mode=mode, step=step)
        return (value, aux) if has_aux else value

    return penalised


def penalise(
    call: Call, coefficient: jax.typing.ArrayLike, *, mode: str, step: float = 1e-2
) -> tuple[jax.Array, Any]:
    """Evaluates the penalised loss of one call, to be differentiated as `mode` says.

    Args:
        call: of the loss.
        coefficient: c, may be traced.
        mode: one of `MODES`.
        step: length of a finite difference.

    Returns:
        `(L + c ||g||^2, aux)`.
    """
    form = call.without_arrays()

    def value_fn(floats, others):
        return value(form._replace(floats=floats[1:], others=others), floats[0])

    def gradient_fn(floats, others, wanted):
        moved = form._replace(floats=floats[1:], others=others)
        return gradient(moved, floats[0], wanted, mode=mode, step=step)

    def aux_fn(floats, others):
        return form.loss(floats[1:], others)[1]

    if mode == "finite_difference":
        _require_digits([call.floats[i] for i in call.target])
    # The coefficient can be differentiated too, so it is one of the arrays.
    floats = [as_coefficient(coefficient, call.floats), *call.floats]
    if mode == "nested":
        return value_fn(floats, call.others)
    return attached.attach_gradient(
        value_fn, gradient_fn, floats, call.others, aux_fn if call.has_aux else None
    )


def value(call: Call, coefficient: jax.Array) -> tuple[jax.Array, Any]:
    """The penalised loss alone, by plain reverse mode.

    Args:
        call: of the loss.
        coefficient: c.

    Returns:
        `(L + c ||g||^2, aux)`.
    """
    (loss, aux), slopes = value_and_gradient(call, call.target)
    return plus(loss, coefficient, trees.squared_norm(slopes)), aux


def gradient(
    call: Call,
    coefficient: jax.Array,
    wanted: Sequence[int],
    *,
    mode: str,
    step: float = 1e-2,
) -> tuple[jax.Array, Arrays]:
    """The penalised loss and its gradient, by one Hessian-vector product.

    Args:
        call: of the loss.
        coefficient: c.
        wanted: what to differentiate with respect to, in order: 0 is the coefficient, i
            the array i - 1 of the call.
        mode: `"exact"` or `"finite_difference"`.
        step: length of a finite difference.

    Returns:
        `(L + c ||g||^2, its gradient)`.
    """
    inner = [i - 1 for i in wanted if i > 0]
    is_exact = mode == "exact"
    near = linearize(call, inner) if is_exact else difference(call, inner, step)
    square = trees.squared_norm(near.slopes)
    products = near.push(near.slopes)
    total = trees.add_scaled(near.gradients, 2.0 * coefficient, products)
    if 0 in wanted:  # what is wanted comes in order
        total = [square.astype(coefficient.dtype), *total]
    return plus(near.loss, coefficient, square), total


def plus(loss: jax.Array, coefficient: jax.Array, square: jax.Array) -> jax.Array:
    """The penalised loss, in the widest dtype of the three.

    Args:
        loss: L.
        coefficient: c.
        square: what is penalised.

    Returns:
        `L + c * square`, also where JAX promotes no dtypes by itself.
    """
    with jax.numpy_dtype_promotion("standard"):
        return loss + coefficient * square


def _require_digits(arrays: Arrays) -> None:
    for array in arrays:
        if jnp.finfo(array.dtype).bits < 32:
            raise ValueError(
                "mode='finite_difference' moves the argument by less than "
                f"{array.dtype} resolves; use mode='exact', or float32 parameters."
            )


def check_options(
    coefficient: jax.typing.ArrayLike, argnum: int = 0, mode: str = "exact"
) -> None:
    """Refuses what no penalty can be built with; traced coefficients pass.

    Args:
        coefficient: of the penalty, a scalar.
        argnum: the argument that is penalised.
        mode: one of `MODES`.

    Raises:
        ValueError: for a concrete coefficient that is no finite scalar, or an unknown
            mode.
        TypeError: unless `argnum` is one integer and the coefficient a real number.
    """
    require_scalar("coefficient", coefficient)
    if isinstance(argnum, bool) or not hasattr(argnum, "__index__"):
        raise TypeError(f"argnum must be one integer, got {argnum!r}.")
    require_choice("mode", mode, MODES)


def as_coefficient(value: jax.typing.ArrayLike, floats: Arrays) -> jax.Array:
    """The coefficient as an array, since it can be differentiated too.

    Args:
        value: a scalar, may be traced.
        floats: the arrays of the loss, real or complex.

    Returns:
        It in float32, or wider if it is; a Python number in the widest dtype of the
        arrays, so that it makes no loss wider than it was.
    """
    dtypes = [jnp.result_type(value)]
    if jax.typeof(value).weak_type:
        dtypes = [jnp.finfo(x.dtype).dtype for x in floats]
    return jnp.asarray(value, trees.wide_dtype(*dtypes))
