r"""The expansion behind `bessel` and `density`, for a static order.

Everything comes from Debye's expansion (see `debye`) at an order :math:`V` high enough
for a few terms to reach working precision, and the recursion from there down to the
order :math:`\nu` asked for. With :math:`z = x/V`, :math:`s = \sqrt{1+z^2}`,
:math:`p = 1/s` and :math:`M_\nu(x) = {}_0F_1(; \nu+1; x^2/4)
= \Gamma(\nu+1) (2/x)^\nu I_\nu(x)`, which is 1 at 0,

.. math::
    \log M_V &= V(s-1) - V \log\tfrac{1+s}{2} - \tfrac12 \log s + (1-p) L(p) \\
    x \frac{I_{V+1}}{I_V} &= V(s-1) - \tfrac12 (1-p^2) + (1-p) G(p)

and nothing in it subtracts numbers that are close: :math:`s - 1` is
:math:`z^2 / (1+s)`, and every term carries a factor that vanishes as the result does.

The functions here take an order and a float32 or float64 array of numbers that are at
least 0, or nan; `bessel` and `density` check and convert.

References:
    *NIST Digital Library of Mathematical Functions*, 10.29.1, 10.41(ii).
    https://dlmf.nist.gov/10.41#ii
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmf_vae import debye
from vmf_vae.elementary import along, horner, secant


class _Terms(NamedTuple):
    """What every function of one order is put together from; A = I_{nu+1} / I_nu.

    Attributes:
        growth: V (s - 1).
        growth_minus_x: V (s - 1) - x.
        rest: log M without `growth`.
        ratio_over_x: A / x, even in x and 1/d at 0.
        complement: x (1 - A), good where x > nu + 1.
        slope: A'.
        kept: x^2 A' - (nu + 1/2) where x > nu + 1, elsewhere A'.
        kl: x A - log M.
    """

    growth: jax.Array
    growth_minus_x: jax.Array
    rest: jax.Array
    ratio_over_x: jax.Array
    complement: jax.Array
    slope: jax.Array
    kept: jax.Array
    kl: jax.Array


def _terms(order: float, x: jax.Array) -> _Terms:
    """The expansion at a high order, and the recursion down to `order`."""
    top, series = debye.high_order(order, x.dtype)
    z = x / top
    s = secant(z)
    p = 1.0 / s
    over = 1.0 / (1.0 + s)
    sm1 = z * (z * over)  # s - 1
    one_minus_p = sm1 * p
    value, ratio, slope = (horner(c, p) for c in series)
    loss = -0.5 * one_minus_p * (1.0 + p) + one_minus_p * ratio  # xA - V (s - 1)
    q = (top * over - 0.5 * p * p + p * over * ratio) / top**2
    a1 = (top * p * over + p * p * (0.5 - p * p) + p * over * slope) / top**2
    # x (1 - A) and x^2 A' tend to nu + 1/2. What they lack of it keeps its digits
    # through the recursion, where the numbers themselves would lose one a step.
    lack = -top / (s + z) - 0.5 * p * p - one_minus_p * ratio
    is_large = x > order + 1.0
    kept = p * p * (p * p - 1.5) - top * p + one_minus_p * slope
    kept = jnp.where(is_large, kept, a1)
    over_x = 1.0 / jnp.where(is_large, x, 1.0)
    gain, product = jnp.zeros_like(x), jnp.zeros_like(x)
    for j in range(round(top - order)):
        nu = top - j
        a = x * q
        xa = x * a
        # The factors 1 + xA / 2nu of M over (1 + s) / 2: their logs would be large.
        factor = (xa / (2.0 * nu) - 0.5 * sm1) * (2.0 * over)
        product = product + factor + product * factor
        q = 1.0 / (2.0 * nu + xa)
        gain += (x * q) * (x * a1 + a)  # the new xA minus the old, without subtracting
        a1 = q * q * (2.0 * nu - x * (x * a1))
        h = nu - 0.5 - lack
        lack = -lack - h * (h / (x + h))
        c = (nu - 0.5 + lack) * over_x  # 1 - A
        drive = jnp.where(is_large, (0.5 - nu) * c * (2.0 - c), 2.0 * nu * q * q)
        kept = drive - (x * q) * (x * q) * kept
    if top > order:
        a1 = jnp.where(is_large, (order + 0.5 + kept) * over_x * over_x, kept)
    log_half = order * jnp.log1p(0.5 * sm1) if order else jnp.zeros_like(x)
    small = one_minus_p * value - 0.5 * jnp.log1p(sm1)
    rest = small - log_half + jnp.log1p(product)
    return _Terms(
        growth=top * sm1,
        growth_minus_x=-top * ((sm1 + z) / (s + z)),
        rest=rest,
        ratio_over_x=q,
        complement=order + 0.5 + lack,
        slope=a1,
        kept=kept,
        kl=gain + loss - rest,
    )


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
    terms = _terms(order, x)
    is_large = x > 2.0 * order + 2.0
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
    return _terms(order, x).ratio_over_x


@ratio_over_x.defjvp
def _ratio_over_x_jvp(order, primals, tangents):
    return along(lambda x: _terms(order, x).ratio_over_x, primals, tangents)


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
    return _terms(order, x).slope


@ratio_slope.defjvp
def _ratio_slope_jvp(order, primals, tangents):
    return along(lambda x: _terms(order, x).slope, primals, tangents)


@functools.partial(jax.jit, static_argnums=0)
def log_bend(order: float, x: jax.Array) -> jax.Array:
    """A' - nu / x^2, the second derivative of log I_nu, without subtracting far out.

    Args:
        order: nu, above 0.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Shape and dtype of `x`.
    """
    is_large, kept = x > order + 1.0, _terms(order, x).kept
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
    terms = _terms(order, x)
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
    terms = _terms(order, x)
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
    terms = _terms(order, x)
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
    return _terms(order, x).kl


@ratio_minus_log_0f1.defjvp
def _ratio_minus_log_0f1_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return ratio_minus_log_0f1(order, x), x * ratio_slope(order, x) * dx
