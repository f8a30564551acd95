r"""Derivatives by central differences, with their order of accuracy.

With step :math:`h` along a direction :math:`v`,

.. math::
    D_2 &= \frac{f(x+hv) - f(x-hv)}{2h} = f'(x) v + O(h^2), \\
    D_4 &= \frac{8 [f(x+hv) - f(x-hv)] - [f(x+2hv) - f(x-2hv)]}{12 h}
         = f'(x) v + O(h^4),

plus a rounding error of about :math:`\epsilon |f| / h`. In float64 `order=4` with
`step=1e-3` leaves about 1e-12 of each; in float32 no step gives more than 3 to 4
digits, so call these under `jax.enable_x64(True)` with float64 arrays.

References:
    Fornberg, *Generation of finite difference formulas on arbitrarily spaced grids*,
    Math. Comp. 51, 1988, table 1. https://doi.org/10.1090/S0025-5718-1988-0935077-0
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def finite_difference_gradient(
    fn: Callable[[Any], Any],
    x: Any,
    direction: Any,
    step: float = 1e-3,
    *,
    order: int = 4,
) -> Any:
    """Directional derivative of a function, `f'(x) direction`, by central differences.

    Args:
        fn: function of one pytree, returning a scalar, an array or a pytree; smooth
            between the points `x +- order / 2 * step * direction`.
        x: pytree of floating-point arrays, best float64.
        direction: pytree like `x`; the result is proportional to it.
        step: :math:`h`; the error is `O(step ** order)` plus rounding.
        order: 2 (two evaluations) or 4 (four).

    Returns:
        A pytree like `fn(x)`.

    Raises:
        ValueError: if `order` is neither 2 nor 4, or `step` is not positive.
    """
    if order not in (2, 4):
        raise ValueError(f"order must be 2 or 4, got {order!r}.")
    if not step > 0:
        raise ValueError(f"step must be positive, got {step!r}.")

    def difference(scale: float) -> Any:
        forward = fn(_shift(x, direction, scale))
        backward = fn(_shift(x, direction, -scale))
        return jax.tree.map(lambda a, b: (a - b) / (2 * scale), forward, backward)

    if order == 2:
        return difference(step)
    return jax.tree.map(
        lambda near, far: (4 * near - far) / 3, difference(step), difference(2 * step)
    )


def finite_difference_hessian_vector(
    fn: Callable[[Any], jax.Array], x: Any, direction: Any
) -> Any:
    """Hessian-vector product of a scalar function: central differences of `jax.grad`.

    Args:
        fn: scalar function of one pytree, six times differentiable near `x`.
        x: pytree of floating-point arrays, best float64.
        direction: pytree like `x`.

    Returns:
        A pytree like `x`.
    """
    return finite_difference_gradient(jax.grad(fn), x, direction)


def random_direction(x: Any, seed: int = 0) -> Any:
    """A direction of unit norm, jointly over all leaves, uniform on the sphere.

    Args:
        x: pytree of arrays that gives structure, shapes and dtypes.
        seed: another seed gives another direction.

    Returns:
        A pytree like `x`; of zeros if `x` has no elements.
    """
    rng = np.random.default_rng(seed)
    leaves, treedef = jax.tree.flatten(x)
    draws = [rng.standard_normal(np.shape(leaf)) for leaf in leaves]
    norm = np.sqrt(sum(np.sum(draw**2) for draw in draws)) or 1.0
    return treedef.unflatten(
        jnp.asarray(draw / norm, jnp.result_type(leaf))
        for draw, leaf in zip(draws, leaves, strict=True)
    )


def inner_product(a: Any, b: Any) -> jax.Array:
    """Sum over all leaves of the elementwise products.

    Args:
        a: pytree of arrays.
        b: pytree like `a`.

    Returns:
        Scalar; 0 for trees without elements.
    """
    products = jax.tree.map(lambda p, q: jnp.sum(p * q), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def _shift(x: Any, direction: Any, scale: float) -> Any:
    return jax.tree.map(lambda a, d: a + scale * d, x, direction)
