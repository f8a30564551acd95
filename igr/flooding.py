r"""Flooding: a training loss that is not let below a level.

Ishida et al., *Do We Need Zero Training Loss After Achieving Zero Training Error?*,
2020: :math:`\tilde L = |L - b| + b`. Below the level the gradient changes its
sign, so training goes up and down about it. A step down and a step up of plain gradient
descent, both of size :math:`\varepsilon`, amount to

.. math:: \theta - \frac{\varepsilon^2}{2} \nabla \|\nabla L\|^2 + O(\varepsilon^3)

(Su, https://kexue.fm/archives/7643), a step on the gradient penalty alone. With
momentum or Adam the two steps do not cancel and this does not hold.

What differs from the paper: above the level the loss is returned itself, not
:math:`(L - b) + b`, which rounds; and at the level the gradient is 0.

Example::

    def loss_fn(params, batch):
        return igr.flood(jnp.mean(losses(params, batch)), 0.02)
"""

import jax
import jax.numpy as jnp
import numpy as np

from expkit.arguments import is_concrete


def flood(loss: jax.typing.ArrayLike, level: jax.typing.ArrayLike) -> jax.Array:
    r"""Reflects a loss at a level, so that its gradient points up below it.

    .. math:: \tilde L = |L - b| + b, \qquad \nabla\tilde L = \mathrm{sign}(L - b)\,
              \nabla L.

    Elementwise: applied to the mean over the batch it is the paper's method; to the
    means of groups, or to the losses of examples, each is kept at its own level, which
    is another objective. `nan` stays `nan`.

    Args:
        loss: :math:`L`, floating-point, any shape.
        level: :math:`b`, a scalar or an array that broadcasts to the shape of `loss`;
            may be traced. Minus infinity never floods.

    Returns:
        Shape and dtype of `loss`, at least `level`.

    Raises:
        ValueError: if a concrete `level` is nan or +infinity, or its shape does not
            broadcast to that of `loss`.
        TypeError: if `loss` is not floating-point, or a concrete `level` not real.

    References:
        Ishida et al., *Do We Need Zero Training Loss After Achieving Zero Training
        Error?*, 2020. https://arxiv.org/abs/2002.08709
    """
    loss = jnp.asarray(loss)
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(f"loss must be floating-point, got {loss.dtype}.")
    _require_level(level)
    level = jnp.asarray(level, loss.dtype)
    if jnp.broadcast_shapes(level.shape, loss.shape) != loss.shape:
        raise ValueError(
            f"level must broadcast to the shape of loss, {loss.shape}, got shape "
            f"{level.shape}."
        )
    level = jnp.broadcast_to(level, loss.shape)
    below = level + (level - loss)
    # The middle case is a constant: the gradient at the level is 0, not one of a side.
    return jnp.where(loss > level, loss, jnp.where(loss == level, level, below))


def _require_level(level: jax.typing.ArrayLike) -> None:
    """Raises for a concrete level that is no number, or that no loss is above."""
    if not is_concrete(level):
        return
    kind = np.asarray(level).dtype
    if not any(jnp.issubdtype(kind, wanted) for wanted in (jnp.floating, jnp.integer)):
        raise TypeError(f"level must be real numbers, got {level!r}.")
    if not np.all(np.asarray(level, np.float64) < np.inf):  # nan is not below either
        raise ValueError(f"level must be a number below infinity, got {level!r}.")
