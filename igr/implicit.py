r"""What gradient descent with a finite step follows: losses and flows of its own.

A step :math:`\theta' = \theta - h g`, with :math:`g = \nabla L`, leaves the gradient
flow :math:`\dot\theta = -g`. Another flow comes closer (backward error analysis). With
the time derivative :math:`D` along it, :math:`e^{hD} \theta = \theta - h g` says
:math:`D\theta = -\frac{hD}{e^{hD} - 1} g = -(g - \frac{h}{2} Dg + \frac{h^2}{12} D^2 g
- \ldots)`; put :math:`Dg = H D\theta`, order by order, and

.. math:: \dot\theta = -\left(g + \frac{h}{2} H g + h^2 \left(\frac{1}{3} H H g +
          \frac{1}{12} \nabla^3 L(g, g)\right)\right) + O(h^3),

where the first two terms are the gradient of :math:`L + \frac{h}{4}\|g\|^2` (Barrett
and Dherin, *Implicit Gradient Regularization*, 2020). Over an epoch, the
mean over the orders of `m` batches follows :math:`L + \frac{h}{4m} \sum_k \|g_k\|^2`
(Smith, Dherin, Barrett and De, *On the Origin of Implicit Regularization in Stochastic
Gradient Descent*, 2021): the squares of the batches' gradients, not that of
their mean.

What differs from the papers: the third term of the flow, and `momentum`. The series is
of use only for :math:`h \lambda_{\max} < 1`: at :math:`h \lambda > 1` a step crosses
the minimum, which no flow does. Adam, and mini-batch noise beyond the mean over orders,
are not covered.

Example::

    smooth = igr.modified_loss(loss_fn, learning_rate=0.1)
    velocity = igr.modified_flow(loss_fn, 0.1, order=3)(params, batch)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from expkit import trees
from expkit.arguments import require_scalar
from igr import arguments, attached
from igr.penalty import with_gradient_penalty


def implicit_regularizer(loss_fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    r"""The quantity that gradient descent regularises, a mean over the parameters.

    .. math:: R_{IG} = \frac{1}{m} \sum_{i=1}^{m} (\nabla_i L)^2 = \|\nabla L\|^2 / m.

    The modified loss is :math:`L + \lambda R_{IG}` with :math:`\lambda = h m / 4`. To
    train with it, `with_gradient_penalty` has the cheaper gradient.

    Args:
        loss_fn: `(params, *args, **kwargs) -> scalar`, once differentiable in the
            parameters, any pytree of floating-point arrays.

    Returns:
        `(params, *args, **kwargs) -> scalar` in at least float32; 0 without parameters.

    References:
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020.
        https://arxiv.org/abs/2009.11162
    """

    def regularizer(params, *args, **kwargs):
        gradient, params = _gradient(loss_fn, params, args, kwargs)
        num_params = sum(x.size for x in jax.tree.leaves(params))
        return trees.squared_norm(gradient(params)) / max(num_params, 1)

    return regularizer


def modified_loss(
    loss_fn: Callable[..., jax.Array],
    learning_rate: jax.typing.ArrayLike,
    *,
    momentum: jax.typing.ArrayLike = 0.0,
) -> Callable[..., jax.Array]:
    r"""The loss whose gradient flow stays closest to gradient descent.

    .. math:: \tilde L = L + \frac{h}{4} \|\nabla L\|^2.

    One step of size `h` and the flow over a time `h` differ by :math:`O(h^3)`, against
    :math:`O(h^2)` for the flow of `L` itself. A step of heavy ball, :math:`v' = \beta v
    - h g,\ \theta' = \theta + v'`, differs by as little from a time :math:`h/(1-\beta)`
    on

    .. math:: \tilde L = L + \frac{h (1+\beta)}{4 (1-\beta)^2} \|\nabla L\|^2,

    once the velocity has forgotten its start (after many times :math:`1/(1-\beta)`
    steps): put :math:`\theta_n = x(nh)` into the two-step form of the rule, and
    :math:`(1-\beta) h \dot x + (1+\beta) \frac{h^2}{2} \ddot x = -h g + O(h^3)`. So the
    penalty is :math:`(1+\beta)/(1-\beta)` times that of gradient descent with the
    learning rate :math:`h/(1-\beta)`. Nesterov's rule has another factor.

    Args:
        loss_fn: `(params, *args, **kwargs) -> scalar`, twice differentiable.
        learning_rate: :math:`h`, at least 0; may be traced.
        momentum: :math:`\beta` in [0, 1) of heavy ball, as `optax.sgd(h, momentum)` has
            it; may be traced.

    Returns:
        A function with the signature of `loss_fn`; a scalar in at least float32. Its
        gradient costs one Hessian-vector product.

    Raises:
        ValueError: if a concrete `learning_rate` or `momentum` is out of range, and
            when called: if the loss is not a scalar.

    References:
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020, eqs. (2), (5).
        https://arxiv.org/abs/2009.11162; momentum: Ghosh et al., *Implicit
        regularization in Heavy-ball momentum accelerated stochastic gradient descent*,
        2023, abstract. https://arxiv.org/abs/2302.00849
    """
    _require_learning_rate(learning_rate)
    require_scalar("momentum", momentum, "a number in [0, 1)", lambda x: 0 <= x < 1)
    coefficient = learning_rate * (1 + momentum) / (4 * (1 - momentum) ** 2)
    return with_gradient_penalty(loss_fn, coefficient)


def stochastic_modified_loss(
    loss_fn: Callable[..., jax.Array], learning_rate: jax.typing.ArrayLike
) -> Callable[..., jax.Array]:
    r"""The loss that an epoch of shuffled mini-batches follows in the mean.

    .. math:: \tilde L = \frac{1}{m} \sum_{k=1}^{m} \left(L_k + \frac{h}{4}
              \|\nabla L_k\|^2\right).

    The end of an epoch (`m` steps of size `h`), in the mean over all orders of the
    batches, differs from the flow of :math:`-\nabla\tilde L` over a time :math:`m h` by
    :math:`O(h^3)`. By :math:`\sum_k \|g_k\|^2 = m \|g\|^2 + \sum_k \|g_k - g\|^2` it
    penalises the variance between batches beside the gradient of their mean.

    The batches are gone through one after the other: the memory is that of one batch,
    also for the gradient, which evaluates each batch a second time instead of keeping
    what the first time left.

    Args:
        loss_fn: `(params, batch, **kwargs) -> scalar`, twice differentiable in the
            parameters.
        learning_rate: :math:`h`, at least 0; may be traced.

    Returns:
        `(params, batches, **kwargs) -> scalar` in at least float32; `batches` is one
        pytree with leaves `[m, ...]`, `m` at least 1, and `batch` one with leaves
        `[...]`.

    Raises:
        ValueError: if a concrete `learning_rate` is out of range, and when called: if
            the leaves of `batches` do not share a leading axis of at least 1, or the
            loss is not a scalar.

    References:
        Smith et al., *On the Origin of Implicit Regularization in Stochastic Gradient
        Descent*, 2021. https://arxiv.org/abs/2101.12176
    """
    penalised = modified_loss(loss_fn, learning_rate)

    def mean_loss(params, batches, **kwargs):
        _require_batches(batches)
        one = jax.checkpoint(
            lambda params, batch: penalised(params, batch, **kwargs), prevent_cse=False
        )
        return jnp.mean(jax.lax.map(lambda batch: one(params, batch), batches))

    return mean_loss


def modified_flow(
    loss_fn: Callable[..., jax.Array],
    learning_rate: jax.typing.ArrayLike,
    order: int = 2,
) -> Callable[..., Any]:
    r"""The vector field that gradient descent follows to a given order.

    .. math:: \dot\theta = -\left(g + \frac{h}{2} H g + h^2 \left(\frac{1}{3} H H g +
              \frac{1}{12} \nabla^3 L(g, g)\right)\right), \qquad g = \nabla L.

    Order 1 stops after :math:`g` (gradient flow), order 2 after :math:`H g` (minus the
    gradient of `modified_loss`), order 3 has all. Over a time `h` it ends within
    :math:`O(h^{\mathrm{order}+1})` of a step of gradient descent. No Hessian is formed:
    order 2 takes one Hessian-vector product, order 3 three directional derivatives.

    Args:
        loss_fn: `(params, *args, **kwargs) -> scalar`, differentiable `order` times.
        learning_rate: :math:`h`, at least 0; may be traced.
        order: 1, 2 or 3.

    Returns:
        `(params, *args, **kwargs) -> d params / dt`, a pytree like the parameters, sign
        included.

    Raises:
        ValueError: if `order` is another number or a concrete `learning_rate` is out of
            range, and when called: if the loss is not a scalar.
        TypeError: when called: if a parameter is not floating-point.

    References:
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020.
        https://arxiv.org/abs/2009.11162; Hairer, Lubich and Wanner,
        *Geometric Numerical Integration*, 2006, section IX.1, example 1.1, for the
        third term. https://doi.org/10.1007/3-540-30666-8
    """
    is_whole = hasattr(order, "__index__") and not isinstance(order, bool)
    if not is_whole or order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order!r}.")
    _require_learning_rate(learning_rate)

    def flow(params, *args, **kwargs):
        gradient, params = _gradient(loss_fn, params, args, kwargs)
        if order == 1:
            return _negative(gradient(params))
        g, product = jax.linearize(gradient, params)
        hg = product(g)
        total = trees.add_scaled(g, learning_rate / 2, hg)
        if order == 3:
            # The third derivative: that of H g along g, with the second g held fixed.
            _, third = jax.jvp(
                lambda p: jax.jvp(gradient, (p,), (g,))[1], (params,), (g,)
            )
            square = learning_rate * learning_rate
            total = trees.add_scaled(total, square / 3, product(hg))
            total = trees.add_scaled(total, square / 12, third)
        return _negative(total)

    return flow


def _gradient(loss_fn: Callable, params: Any, args: tuple, kwargs: dict):
    """`(params -> gradient, params as arrays)`; checks that there can be one."""
    loss = attached.scalar_loss(loss_fn, has_aux=False)
    return (
        jax.grad(lambda p: loss(p, *args, **kwargs)[0]),
        arguments.as_floats(0, params),
    )


def _negative(tree: Any) -> Any:
    return jax.tree.map(jnp.negative, tree)


def _require_learning_rate(value: jax.typing.ArrayLike) -> None:
    require_scalar(
        "learning_rate", value, "a finite number, at least 0", lambda x: x >= 0
    )


def _require_batches(batches: Any) -> None:
    """ValueError unless all leaves have the same leading axis, not of size 0."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    if (
        not shapes
        or () in shapes
        or len({s[0] for s in shapes}) > 1
        or not shapes[0][0]
    ):
        raise ValueError(
            "batches must be a pytree of arrays [m, ...] with one m of at least 1, got "
            f"shapes {shapes}; stack the batches along a new leading axis."
        )
