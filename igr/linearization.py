"""The first order of a gradient around a point: Hessian-vector products.

A penalty on a gradient needs that gradient, and the derivative along it of the gradient
with respect to whatever is trained. Both come from one linearisation::

    near = linearize(call, call.target)
    products = near.push(near.slopes)  # the Hessian times the gradient
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from expkit import trees
from igr import attached
from igr.attached import Arrays, Call


class Linearization(NamedTuple):
    """A loss and its gradient around a point.

    Attributes:
        loss: the loss there.
        slopes: its gradient with respect to the penalised argument.
        gradients: its gradient with respect to the wanted arrays.
        push: `direction of the penalised argument -> derivative of gradients along it`.
    """

    loss: jax.Array
    slopes: Arrays
    gradients: Arrays
    push: Callable[[Arrays], Arrays]


def linearize(call: Call, wanted: Sequence[int]) -> Linearization:
    """Forward over reverse mode: value, gradient and products share one primal pass.

    Args:
        call: of the loss.
        wanted: positions in its floating-point arrays, in order.

    Returns:
        The linearisation, exact.
    """
    both = sorted({*call.target, *wanted})

    def gradient(target):
        (loss, _), gradients = value_and_gradient(_moved(call, target), both)
        return gradients, loss

    here = [call.floats[i] for i in call.target]
    gradients, push, loss = jax.linearize(gradient, here, has_aux=True)

    def of(places, gradients):
        return [gradients[both.index(i)] for i in places]

    return Linearization(
        loss,
        of(call.target, gradients),
        of(wanted, gradients),
        lambda direction: of(wanted, push(direction)),
    )


def difference(call: Call, wanted: Sequence[int], step: float) -> Linearization:
    """As `linearize`, with products from a second gradient not far away.

    Args:
        call: of the loss.
        wanted: positions in its floating-point arrays, in order.
        step: the distance, whatever the length of the direction.

    Returns:
        The linearisation; its `push` is exact to first order in the step.
    """
    both = sorted({*call.target, *wanted})
    (loss, _), gradients = value_and_gradient(call, both)
    slopes = [gradients[both.index(i)] for i in call.target]
    gradients = [gradients[both.index(i)] for i in wanted]

    def push(direction):
        square = trees.squared_norm(direction)
        # At a gradient of zero there is no direction, and the product is zero.
        norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        here = [call.floats[i] for i in call.target]
        there = _moved(call, trees.add_scaled(here, step / norm, direction))
        _, ahead = value_and_gradient(there, wanted)
        scale = jnp.where(square > 0, norm / step, 0.0)
        rise = trees.add_scaled(ahead, -1.0, gradients)
        return jax.tree.map(lambda x: scale * x, rise)

    return Linearization(loss, slopes, gradients, push)


def _moved(call: Call, target: Arrays) -> Call:
    return call._replace(floats=attached.replace(call.floats, call.target, target))


def value_and_gradient(
    call: Call, places: Sequence[int]
) -> tuple[tuple[jax.Array, Any], Arrays]:
    """A loss and its gradient, by reverse mode.

    Args:
        call: of the loss.
        places: positions in its floating-point arrays.

    Returns:
        `((loss, aux), gradient)`, one array for each place.
    """

    def of(values):
        floats = attached.replace(call.floats, places, values)
        return call.loss(floats, call.others)

    return jax.value_and_grad(of, has_aux=True)([call.floats[i] for i in places])
