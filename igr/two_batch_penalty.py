r"""The penalty of the full-batch gradient from two mini-batches, without bias.

The squared norm of a mini-batch gradient is on average that of the full gradient plus
the variance of the mini-batch gradient. The product of the gradients of two independent
batches has no such term::

    penalised = igr.two_batch_gradient_penalty(loss_fn, 0.1)
    value, grads = jax.value_and_grad(penalised)(params, batch_a, batch_b)

See `igr.per_example_penalty` for the third such number.
"""

import functools
from collections.abc import Callable

import jax

from expkit import trees
from igr import attached, linearization, penalty
from igr.attached import Arrays, Call


def two_batch_gradient_penalty(
    loss_fn: Callable[..., jax.Array], coefficient: jax.typing.ArrayLike
) -> Callable[..., jax.Array]:
    r"""Estimates the full-batch penalty from two batches, without bias.

    .. math:: F = \tfrac12 (L_A + L_B) + c\,\langle \nabla L_A, \nabla L_B\rangle.

    Of independent batches the product has the expectation :math:`\|\nabla L\|^2`, where
    one batch of B examples adds :math:`\sigma^2/B`. Disjoint batches of a data set of N
    examples are not quite independent: there it is :math:`-\sigma^2/(N-1)`, whatever
    their size. A single value may be negative.

    Args:
        loss_fn: mean loss of a batch, `(params, batch, **kwargs) -> scalar`.
        coefficient: :math:`c`, may be traced.

    Returns:
        `(params, batch_a, batch_b, **kwargs) -> F`, a scalar in at least float32, whose
        gradient costs two Hessian-vector products, one a batch.

    Raises:
        ValueError: if a concrete `coefficient` is not finite, and when called: if the
            loss is not a scalar.
        TypeError: when called: if the parameters are not floating-point.

    References:
        Geiping et al., *Stochastic Training is Not Necessary for Generalization*, 2021,
        section 3.3. https://arxiv.org/abs/2109.14119
    """
    penalty.check_options(coefficient)
    loss = attached.scalar_loss(loss_fn, has_aux=False)

    def penalised(params, batch_a, batch_b, **kwargs):
        def both(params, batch_a, batch_b):
            first, _ = loss(params, batch_a, **kwargs)
            return (first, loss(params, batch_b, **kwargs)[0]), None

        call = attached.make_call(both, 0, (params, batch_a, batch_b), {})
        floats = [penalty.as_coefficient(coefficient, call.floats), *call.floats]
        form = call.without_arrays()
        return attached.attach_gradient(
            functools.partial(_product_value, form),
            functools.partial(_product_gradient, form),
            floats,
            call.others,
        )[0]

    return penalised


def _halves(call: Call, floats: Arrays, others: Arrays) -> list[Call]:
    """The two losses of a pair; the coefficient comes before their arrays."""
    return [
        Call(
            lambda *x, k=k: (call.loss(*x)[0][k], None), floats[1:], others, call.target
        )
        for k in range(2)
    ]


def _product_value(call: Call, floats: Arrays, others: Arrays):
    (a, b) = _halves(call, floats, others)
    (loss_a, _), slopes_a = linearization.value_and_gradient(a, call.target)
    (loss_b, _), slopes_b = linearization.value_and_gradient(b, call.target)
    product = trees.inner_product(slopes_a, slopes_b)
    return penalty.plus(0.5 * (loss_a + loss_b), floats[0], product), None


def _product_gradient(call: Call, floats: Arrays, others: Arrays, wanted: list[int]):
    inner = [i - 1 for i in wanted if i > 0]
    a, b = (linearization.linearize(x, inner) for x in _halves(call, floats, others))
    product = trees.inner_product(a.slopes, b.slopes)
    total = [0.5 * (x + y) for x, y in zip(a.gradients, b.gradients, strict=True)]
    total = trees.add_scaled(total, floats[0], a.push(b.slopes))
    total = trees.add_scaled(total, floats[0], b.push(a.slopes))
    if 0 in wanted:
        total = [product.astype(floats[0].dtype), *total]
    return penalty.plus(0.5 * (a.loss + b.loss), floats[0], product), total
