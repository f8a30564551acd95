r"""What the functions of `expansion` are put together from, for a static order.

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

The lowest orders are the most steps away. Far from 0, where the results are much
smaller than what the recursion adds up, they have polynomials of their own (`hankel`).

References:
    *NIST Digital Library of Mathematical Functions*, 10.29.1, 10.41(ii).
    https://dlmf.nist.gov/10.41#ii
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmf_vae import debye, hankel
from vmf_vae.elementary import horner, secant

# Above it the recursion is short enough for its errors to stay small.
_LAST_LOW_ORDER = 1.0


def is_beyond(order: float, x: jax.Array) -> jax.Array:
    """Where `Terms.kept` keeps what x^2 A' lacks of its limit.

    Args:
        order: nu.
        x: float32 or wider.

    Returns:
        Booleans of the shape of `x`.
    """
    return x > 2.0 * order + 2.0


class Terms(NamedTuple):
    """What every function of one order is put together from; A = I_{nu+1} / I_nu.

    Attributes:
        growth: the part of log M that grows like x: V (s - 1), or x itself.
        growth_minus_x: `growth` - x.
        rest: log M without `growth`.
        ratio_over_x: A / x, even in x and 1/d at 0.
        complement: x (1 - A), good where x > nu + 1.
        slope: A'.
        kept: x^2 A' - (nu + 1/2) where `is_beyond`, elsewhere A'.
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


def terms_of(order: float, x: jax.Array) -> Terms:
    """All of them; what a caller does not use, the compiler removes.

    Args:
        order: nu.
        x: float32 or wider, at least 0 or nan.

    Returns:
        Arrays of the shape and dtype of `x`.
    """
    terms = _by_recursion(order, x)
    if order > _LAST_LOW_ORDER:
        return terms
    start, num_terms = (3.0, 19) if x.dtype == jnp.float32 else (12.0, 20)
    is_far = x > start
    far = _by_polynomials(order, jnp.where(is_far, x, start), start, num_terms)
    return Terms(*(jnp.where(is_far, a, b) for a, b in zip(far, terms, strict=True)))


def _by_polynomials(order: float, x: jax.Array, start: float, num_terms: int) -> Terms:
    """The polynomials in 1 / x."""
    t = 1.0 / x
    tail = hankel.tail(order, start, num_terms)
    h, g = (horner(c, (2.0 * start) * t - 1.0) for c in tail)
    constant = math.lgamma(order + 1.0) + order * math.log(2.0)
    constant -= 0.5 * math.log(2.0 * math.pi)
    rest = constant - (order + 0.5) * jnp.log(x) + h * t
    lack = g * t
    complement = order + 0.5 + lack
    # x^2 A' = 2x lack + (nu + 1/2)^2 - lack^2, by the equation of Riccati.
    kept = 2.0 * g + (order * order - 0.25) - lack * lack
    return Terms(
        growth=x,
        growth_minus_x=jnp.zeros_like(x),
        rest=rest,
        ratio_over_x=(1.0 - complement * t) * t,
        complement=complement,
        slope=(order + 0.5 + kept) * t * t,
        kept=kept,
        kl=-complement - rest,
    )


def _by_recursion(order: float, x: jax.Array) -> Terms:
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
    is_large = is_beyond(order, x)
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
    complement = order + 0.5 + lack
    return Terms(
        growth=top * sm1,
        growth_minus_x=-top * ((sm1 + z) / (s + z)),
        rest=rest,
        ratio_over_x=jnp.where(is_large, (1.0 - complement * over_x) * over_x, q),
        complement=complement,
        slope=a1,
        kept=kept,
        kl=gain + loss - rest,
    )
