r"""Perturbations of the input that regularise: along the gradient, and Gaussian.

Training on :math:`L(x + r)` instead of :math:`L(x)` penalises derivatives in the input,
to first or second order in the size of the perturbation:

.. math::
    L(x + \epsilon\, g / \|g\|) &= L(x) + \epsilon \|g\| + O(\epsilon^2),
        \qquad g = \nabla_x L \\
    L(x + \epsilon\, g) &= L(x) + \epsilon \|g\|^2 + O(\epsilon^2) \\
    \mathrm{E}\, L(x + \sigma n) &= L(x) + \tfrac{\sigma^2}{2}\, \mathrm{tr}\,
        \nabla_x^2 L + O(\sigma^4), \qquad n \sim \mathcal{N}(0, 1).

The first is adversarial training with the fast gradient of Goodfellow et al. (2014) in
the L2 norm of Miyato et al. (2017, eq. 4), FGM for short; the last is Bishop (1995).

What differs from the papers: the norm cannot overflow or vanish in low precision, a
gradient of 0 gives a perturbation of 0 instead of nan, and the perturbation is returned
alone, so that the caller decides what it is added to (pixels, embeddings, parameters).
As in the papers no derivative flows through the direction, unless asked for.

Example::

    def adversarial_loss(params, x, y):  # x [batch, features]
        def one(x, y):
            return loss(params, x, y)

        r = jax.vmap(
            lambda x, y: fast_gradient_perturbation(lambda x: one(x, y), x, 0.1)
        )(x, y)
        return jax.vmap(one)(x + r, y).mean()

References:
    Bishop, *Training with Noise is Equivalent to Tikhonov Regularization*, 1995.
    https://doi.org/10.1162/neco.1995.7.1.108
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from expkit import explicit, trees
from expkit.arguments import require_scalar
from igr.arguments import require_floating_tree


def fast_gradient_perturbation(
    loss_fn: Callable[[Any], jax.Array],
    x: Any,
    epsilon: jax.typing.ArrayLike,
    *,
    normalize: bool = True,
    through_direction: bool = False,
) -> Any:
    r"""The step from `x` along the gradient of a loss: what FGM adds to its input.

    .. math:: r = \epsilon\, \frac{g}{\|g\|} \quad\text{or}\quad r = \epsilon\, g,
              \qquad g = \nabla_x L(x).

    There is one norm over all of `x`: `jax.vmap` makes it one for each example. As a
    constant, the normalised `r` still gives :math:`L(x + r)` the parameter gradient of
    :math:`L + \epsilon\|g\|`, to first order, since :math:`\|g\|` has the derivative
    :math:`\langle g / \|g\|, \mathrm{d} g\rangle`. Without normalisation it gives that
    of :math:`L + \tfrac{\epsilon}{2} \|g\|^2`: half of what the value has gained.

    Args:
        loss_fn: scalar function of `x` alone; it may close over traced arrays.
        x: real floating-point array, or pytree of them.
        epsilon: :math:`\epsilon`, at least 0; with `normalize` the L2 norm of the
            result.
        normalize: whether to divide by the norm. The direction then does not depend on
            the scale of the loss.
        through_direction: whether derivatives of the result see that :math:`g` depends
            on `x` and on what `loss_fn` closes over; it costs a second-order pass.

    Returns:
        The perturbation, not `x` plus it, with the structure, shapes and dtypes of `x`;
        0 where the gradient is 0, with finite derivatives there.

    Raises:
        ValueError: if `epsilon` or the loss is no scalar, or a concrete `epsilon` is
            negative or not finite.
        TypeError: if `epsilon` is no real number or `x` not real floating-point.

    References:
        Goodfellow, Shlens, Szegedy, *Explaining and Harnessing Adversarial Examples*,
        2014, section 4. https://arxiv.org/abs/1412.6572; Miyato et al., *Virtual
        Adversarial Training*, 2017, eq. (4). https://arxiv.org/abs/1704.03976
    """
    require_scalar("epsilon", epsilon, "at least 0", lambda x: x >= 0)
    require_floating_tree(x)

    def scalar_loss(x):
        loss = loss_fn(x)
        if jnp.shape(loss) != ():
            raise ValueError(
                f"loss_fn must return a scalar, got shape {jnp.shape(loss)}: take the "
                "mean, or vmap fast_gradient_perturbation over the examples."
            )
        return loss

    gradient = jax.grad(scalar_loss)(x)
    direction = unit_vector(gradient) if normalize else gradient
    if not through_direction:  # "constants" in Miyato et al., below eq. (4)
        direction = jax.lax.stop_gradient(direction)
    return _scaled_like(direction, epsilon, x)


def gaussian_perturbation(key: jax.Array, x: Any, stddev: jax.typing.ArrayLike) -> Any:
    r"""Independent Gaussian noise for every entry of the input.

    .. math:: r = \sigma n, \qquad n \sim \mathcal{N}(0, I).

    Args:
        key: typed key; the same key gives the same noise.
        x: real floating-point array, or pytree of them; only shapes and dtypes matter.
        stddev: :math:`\sigma`, at least 0.

    Returns:
        The perturbation, not `x` plus it, with the structure, shapes and dtypes of `x`.
        It is drawn in float32 or wider, and differentiable in `stddev`.

    Raises:
        ValueError: if `stddev` is no scalar, or a concrete one negative or not finite.
        TypeError: if `stddev` is no real number or `x` not real floating-point.

    References:
        Bishop, *Training with Noise is Equivalent to Tikhonov Regularization*, 1995,
        section 2. https://doi.org/10.1162/neco.1995.7.1.108
    """
    require_scalar("stddev", stddev, "at least 0", lambda x: x >= 0)
    require_floating_tree(x)
    leaves, structure = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    noise = structure.unflatten(map(_draw_like, keys, leaves))
    return _scaled_like(noise, stddev, x)


def _draw_like(key, leaf):
    """Normal numbers, on the devices where the leaf is."""

    def draw(key, leaf):
        return jax.random.normal(key, jnp.shape(leaf), trees.wide_dtype(leaf))

    return explicit.freely(draw, key, leaf, like=explicit.placement(leaf))


def unit_vector(tree: Any) -> Any:
    r"""A pytree divided by its norm, whatever the size of its entries.

    .. math:: a / \|a\|, \qquad 0 \text{ at } a = 0.

    Args:
        tree: real floating-point array, or pytree of them.

    Returns:
        Pytree of norm 1 with the same structure and shapes, in float32 or wider. At 0
        the value and all its derivatives are 0.
    """
    leaves = jax.tree.leaves(tree)
    largest = [
        jnp.max(jnp.abs(a), initial=0.0).astype(trees.wide_dtype(a)) for a in leaves
    ]
    # The result does not depend on this scale, so neither does its derivative.
    scale = functools.reduce(jnp.maximum, largest, jnp.zeros((), jnp.float32))
    scale = jax.lax.stop_gradient(scale)
    is_zero = scale == 0.0
    # The inverse of a larger one, which XLA multiplies by, would be subnormal and so 0.
    scale = jnp.minimum(scale, 1.0 / float(jnp.finfo(scale.dtype).tiny))
    scale = jnp.where(is_zero, 1.0, scale)
    scaled = jax.tree.map(lambda a: a.astype(trees.wide_dtype(a)) / scale, tree)
    square = jnp.where(is_zero, 1.0, trees.squared_norm(scaled))
    inverse = jax.lax.rsqrt(square)
    return jax.tree.map(
        lambda a: jnp.where(is_zero, 0.0, a * inverse).astype(a.dtype), scaled
    )


def _scaled_like(tree: Any, scale: jax.typing.ArrayLike, x: Any) -> Any:
    """A multiple of a pytree, rounded once to the dtypes of another."""

    def scaled(a, leaf):
        return (scale * a.astype(trees.wide_dtype(a))).astype(jnp.result_type(leaf))

    return jax.tree.map(scaled, tree, x)
