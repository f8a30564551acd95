"""Inverses of the ratio and of the divergence, by Newton's method.

Both run a fixed number of steps from a start for which it reaches working precision
everywhere, and differentiate by the inverse of the derivative, not through the steps.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vmf_vae import debye
from vmf_vae.expansion import (
    one_minus_ratio,
    ratio,
    ratio_minus_log_0f1,
    ratio_slope,
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def inverse_ratio(order: float, r: jax.Array, one_minus_r: jax.Array) -> jax.Array:
    """The x with I_{nu+1}(x) / I_nu(x) = r, from r and 1 - r.

    Args:
        order: nu.
        r: float32 or wider.
        one_minus_r: same shape and dtype. Where r is at least 1/2, value and derivative
            have their digits from it, elsewhere from r.

    Returns:
        Shape and dtype of `r`: inf at 1, nan outside [0, 1].
    """
    is_inside = (r >= 0.0) & (one_minus_r > 0.0)
    r_safe = jnp.where(is_inside, r, 0.5)
    c_safe = jnp.where(is_inside, one_minus_r, 0.5)
    dim = 2.0 * order + 2.0
    start = r_safe * (dim - r_safe * r_safe) / (c_safe * (1.0 + r_safe))

    def newton(_, x):
        error = jnp.where(  # on the smaller of A and 1 - A
            r_safe < 0.5,
            ratio(order, x) - r_safe,
            c_safe - one_minus_ratio(order, x),
        )
        return jnp.maximum(x - error / ratio_slope(order, x), 0.5 * x)

    x = jax.lax.fori_loop(0, 4 if r.dtype == jnp.float32 else 6, newton, start)
    at_one = jnp.where(one_minus_r == 0.0, jnp.inf, jnp.nan)
    return jnp.where(is_inside, x, at_one.astype(r.dtype))


@inverse_ratio.defjvp
def _inverse_ratio_jvp(order, primals, tangents):
    x = inverse_ratio(order, *primals)
    rise = jnp.where(primals[0] < 0.5, tangents[0], -tangents[1])
    return x, rise / ratio_slope(order, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def inverse_kl(order: float, target: jax.Array) -> jax.Array:
    """The x at which `ratio_minus_log_0f1` has a value, by Newton in log x.

    Args:
        order: nu.
        target: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `target`.
    """
    # As x grows, the divergence approaches a line in log x from above.
    slope = order + 0.5
    intercept = -debye.log_constant_at_zero(order) - slope * (
        1.0 + math.log(2.0 * math.pi)
    )
    line = jnp.exp((target - intercept) / slope)
    safe = jnp.where(target > 0.0, target, 1.0)
    is_small = safe < 0.5 * (order + 1.0)
    # From the left it is below x^2 / 2d.
    start = jnp.where(is_small, 2.0 * jnp.sqrt((order + 1.0) * safe), line)
    is_on_line = start > 1.0 / jnp.finfo(target.dtype).eps ** 2

    def newton(_, x):
        value = ratio_minus_log_0f1(order, x)
        rise = x * (x * ratio_slope(order, x))
        # log KL is concave in log x, and from the left no step overshoots; KL is
        # convex, and from the right none does.
        in_log = jnp.log(safe / value) * value
        return x * jnp.exp(jnp.where(is_small, in_log, safe - value) / rise)

    start = jnp.where(is_on_line, 1.0, start)
    num_steps = 8 if target.dtype == jnp.float32 else 12
    x = jax.lax.fori_loop(0, num_steps, newton, start)
    return jnp.where(target > 0.0, jnp.where(is_on_line, line, x), target)


@inverse_kl.defjvp
def _inverse_kl_jvp(order, primals, tangents):
    (target,), (dtarget,) = primals, tangents
    x = inverse_kl(order, target)
    is_on_line = x > 1.0 / jnp.finfo(x.dtype).eps ** 2  # A' would be below 1e-38
    rise = jnp.where(is_on_line, order + 0.5, x * (x * ratio_slope(order, x)))
    return x, dtarget * jnp.where(x > 0.0, x / rise, jnp.inf)
