r"""The expansion behind `bessel` and `density`, for a static order.

With :math:`M_\nu(x) = {}_0F_1(; \nu+1; x^2/4) = \Gamma(\nu+1) (2/x)^\nu I_\nu(x)`,
which is 1 at 0. The numbers come from `terms`, the derivatives from each other where
that keeps all digits.

The functions here take an order and a float32 or float64 array of numbers that are at
least 0, or nan; `bessel` and `density` check and convert.
"""

import functools

import jax
import jax.numpy as jnp

from vmf_vae.elementary import along
from vmf_vae.terms import is_beyond, terms_of


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def ratio(order: float, x: jax.Array) -> jax.Array:
    """I_{nu+1}(x) / I_nu(x); the derivative is `ratio_slope`.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    terms = terms_of(order, x)
    is_large = is_beyond(order, x)
    near_one = 1.0 - terms.complement / jnp.where(is_large, x, 1.0)
    return jnp.where(is_large, near_one, x * terms.ratio_over_x)


@ratio.defjvp
def _ratio_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return ratio(order, x), ratio_slope(order, x) * dx


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def ratio_over_x(order: float, x: jax.Array) -> jax.Array:
    """I_{nu+1}(x) / (x I_nu(x)), 1 / (2 nu + 2) at 0; differentiated term by term.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    return terms_of(order, x).ratio_over_x


@ratio_over_x.defjvp
def _ratio_over_x_jvp(order, primals, tangents):
    return along(lambda x: terms_of(order, x).ratio_over_x, primals, tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def ratio_slope(order: float, x: jax.Array) -> jax.Array:
    """Derivative of `ratio`, 1 / (2 nu + 2) at 0; differentiated term by term.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    return terms_of(order, x).slope


@ratio_slope.defjvp
def _ratio_slope_jvp(order, primals, tangents):
    return along(lambda x: terms_of(order, x).slope, primals, tangents)


@functools.partial(jax.jit, static_argnums=0)
def log_bend(order: float, x: jax.Array) -> jax.Array:
    """A' - nu / x^2, the second derivative of log I_nu, without subtracting far out.

    Args:
        order: nu, above 0.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    is_large, kept = is_beyond(order, x), terms_of(order, x).kept
    return jnp.where(is_large, 0.5 + kept, x * (x * kept) - order) / (x * x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def scaled_complement(order: float, x: jax.Array) -> jax.Array:
    """x (1 - I_{nu+1}(x) / I_nu(x)), which tends to nu + 1/2.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    terms = terms_of(order, x)
    far = terms.complement
    return jnp.where(x > order + 1.0, far, x * (1.0 - x * terms.ratio_over_x))


@scaled_complement.defjvp
def _scaled_complement_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    slope = one_minus_ratio(order, x) - x * ratio_slope(order, x)
    return scaled_complement(order, x), slope * dx


def one_minus_ratio(order: float, x: jax.Array) -> jax.Array:
    """1 - I_{nu+1}(x) / I_nu(x), with all digits where it is small.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    is_large = x > order + 1.0
    safe = jnp.where(is_large, x, 1.0)
    return jnp.where(
        is_large, scaled_complement(order, safe) / safe, 1.0 - ratio(order, x)
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def log_0f1(order: float, x: jax.Array) -> jax.Array:
    """log M = log 0F1(; nu + 1; x^2 / 4), 0 at 0; the derivative is `ratio`.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    terms = terms_of(order, x)
    return terms.growth + terms.rest


@log_0f1.defjvp
def _log_0f1_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return log_0f1(order, x), ratio(order, x) * dx


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def log_0f1_minus_x(order: float, x: jax.Array) -> jax.Array:
    """log M - x, which grows like -(nu + 1/2) log x.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    terms = terms_of(order, x)
    return terms.growth_minus_x + terms.rest


@log_0f1_minus_x.defjvp
def _log_0f1_minus_x_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return log_0f1_minus_x(order, x), -one_minus_ratio(order, x) * dx


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def ratio_minus_log_0f1(order: float, x: jax.Array) -> jax.Array:
    """x I_{nu+1} / I_nu - log M, 0 at 0, without terms of the size of x.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    return terms_of(order, x).kl


@ratio_minus_log_0f1.defjvp
def _ratio_minus_log_0f1_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return ratio_minus_log_0f1(order, x), x * ratio_slope(order, x) * dx
