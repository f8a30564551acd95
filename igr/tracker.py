r"""Watching implicit regularisation during training, for the price of a norm.

`track_gradient_norm` is an optax transformation that changes no update and keeps
:math:`\|g\|^2` and the penalty :math:`\frac{h}{4}\|g\|^2` that gradient descent with
the learning rate `h` adds to the loss by itself (Barrett and Dherin, *Implicit Gradient
Regularization*, 2020). The gradient is the one that the step has computed
anyway. What needs a Hessian-vector product, the curvature along the gradient, is
measured every `k` steps.

What differs from the paper: nothing is averaged over the parameters (the paper's
:math:`R_{IG}` is :math:`\|g\|^2 / m`), and a mini-batch gradient gives the penalty of
that batch, whose mean Smith et al. (2021, https://arxiv.org/abs/2101.12176) show to be
the one that counts.

Put it first in the chain, before clipping, weight decay or momentum, where the updates
still are the gradient::

    tx = optax.chain(igr.track_gradient_norm(0.1), optax.clip(1.0), optax.sgd(0.1))
    updates, state = tx.update(grads, state, params)
    penalty = optax.tree.get(state, "implied_penalty")
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from expkit import trees
from expkit.arguments import require_scalar


class GradientNormState(NamedTuple):
    r"""State of `track_gradient_norm`: scalars of the last step.

    Attributes:
        count: number of updates seen, int32.
        squared_norm: :math:`\|g\|^2`.
        mean_squared_norm: its running mean, without the bias of starting at zero.
        implied_penalty: :math:`\frac{h}{4}\|g\|^2`; None without a learning rate.
        curvature: :math:`g^T H g / \|g\|^2` when it was last measured, 0 where the
            gradient was 0; None unless measured.
        product_norm: :math:`\|H g\|` at the same step; None unless measured.
    """

    count: jax.Array
    squared_norm: jax.Array
    mean_squared_norm: jax.Array
    implied_penalty: jax.Array | None
    curvature: jax.Array | None
    product_norm: jax.Array | None


def track_gradient_norm(
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    decay: jax.typing.ArrayLike = 0.99,
    curvature_every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Records the squared norm of the gradient and what follows from it.

    .. math:: \|g_t\|^2, \qquad m_t = m_{t-1} + \frac{1-\beta}{1-\beta^t}
              (\|g_t\|^2 - m_{t-1}), \qquad \frac{h_t}{4}\|g_t\|^2.

    Updates pass unchanged, bit for bit. A gradient that is not finite stays in the
    running mean: put `optax.apply_if_finite` around the whole optimizer. With heavy
    ball of momentum :math:`\mu`, the penalty is :math:`(1+\mu)/(1-\mu)^2` times the
    recorded one; see `modified_loss`.

    Args:
        learning_rate: :math:`h`, a number or a schedule of the step, for the implied
            penalty; None leaves that out.
        decay: :math:`\beta` in [0, 1) of the running mean.
        curvature_every: measures :math:`g^T H g / \|g\|^2` and :math:`\|H g\|` at steps
            0, k, 2k, ..., by one Hessian-vector product, and keeps them in between.
            `update` then needs the parameters and `grad_fn=`, a function of the
            parameters alone that gives the gradient, with the batch and the dropout
            key of this step inside. Python integer (`static_args` under
            `optax.inject_hyperparams`); None or 0 never measures. Under `vmap` both
            branches run, so that every step costs the product.

    Returns:
        A `GradientTransformationExtraArgs` with a `GradientNormState`, whose scalars
        are in float32, or float64 where a parameter is.

    Raises:
        ValueError: if `learning_rate`, `decay` or `curvature_every` is out of range,
            one of the first two is no scalar or not finite (where it is not traced),
            and from `update`: if `curvature_every` is set and `params` or `grad_fn` is
            missing.
        TypeError: if `curvature_every` is no Python integer, or one of the others no
            real number.

    References:
        Barrett and Dherin, *Implicit Gradient Regularization*, 2020.
        https://arxiv.org/abs/2009.11162
    """
    if learning_rate is not None and not callable(learning_rate):
        require_scalar("learning_rate", learning_rate, "at least 0", lambda x: x >= 0)
    require_scalar("decay", decay, "in [0, 1)", lambda x: 0 <= x < 1)
    period = _checked_period(curvature_every)

    def log_decay(dtype):
        if isinstance(decay, (int, float)):
            return math.log(decay) if decay else -math.inf
        return jnp.log(jnp.asarray(decay, dtype))

    def init(params: optax.Params) -> Any:
        zero = jnp.zeros((), _accumulator(params))
        return GradientNormState(
            count=jnp.zeros((), jnp.int32),
            squared_norm=zero,
            mean_squared_norm=jnp.copy(zero),
            implied_penalty=None if learning_rate is None else jnp.copy(zero),
            curvature=jnp.copy(zero) if period else None,
            product_norm=jnp.copy(zero) if period else None,
        )

    def update(updates, state, params=None, *, grad_fn: Any = None, **extra_args):
        del extra_args
        dtype = state.squared_norm.dtype
        count = jnp.asarray(optax.safe_increment(state.count))
        square = trees.squared_norm(updates).astype(dtype)
        # 1 - decay^count, which near a decay of 1 is a difference of equal numbers.
        weight = (1 - decay) / -jnp.expm1(count.astype(dtype) * log_decay(dtype))
        mean = state.mean_squared_norm
        state = state._replace(
            count=count,
            squared_norm=square,
            mean_squared_norm=(mean + weight * (square - mean)).astype(dtype),
        )
        if learning_rate is not None:
            rate = learning_rate
            rate = rate(count - 1) if callable(rate) else rate
            state = state._replace(implied_penalty=(rate / 4 * square).astype(dtype))
        if period:
            _require_curvature_arguments(params, grad_fn)
            curvature, norm = jax.lax.cond(
                (count - 1) % period == 0,
                lambda: _curvature(grad_fn, params, updates, dtype),
                lambda: (state.curvature, state.product_norm),
            )
            state = state._replace(curvature=curvature, product_norm=norm)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def _curvature(
    grad_fn: Callable[[Any], Any], params: Any, gradient: Any, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """`(g^T H g / ||g||^2, ||H g||)`, both 0 at a gradient of 0."""
    along = jax.tree.map(lambda p, g: jnp.asarray(g, p.dtype), params, gradient)
    _, product = jax.jvp(grad_fn, (params,), (along,))
    square = trees.squared_norm(along)
    curvature = trees.inner_product(along, product) / jnp.where(square > 0, square, 1.0)
    return curvature.astype(dtype), jnp.sqrt(trees.squared_norm(product)).astype(dtype)


def _accumulator(params: Any) -> Any:
    """The widest dtype of the parameters, at least float32."""
    return trees.wide_dtype(*jax.tree.leaves(params))


def _checked_period(value: int | None) -> int:
    """How often to measure; 0 is never."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"curvature_every must be a Python integer or None, got {value!r}; under "
            'optax.inject_hyperparams name it in static_args="curvature_every".'
        )
    if value < 0:
        raise ValueError(f"curvature_every must be at least 0, got {value!r}.")
    return value


def _require_curvature_arguments(params: Any, grad_fn: Any) -> None:
    missing = [n for n, x in (("params", params), ("grad_fn", grad_fn)) if x is None]
    if missing:
        raise ValueError(
            f"track_gradient_norm with curvature_every needs {' and '.join(missing)}; "
            "call update(grads, state, params, grad_fn=lambda p: jax.grad(loss)(p, "
            "batch))."
        )
