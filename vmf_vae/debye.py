r"""Coefficients of Debye's expansion of the modified Bessel function, exact.

For order :math:`\nu`, argument :math:`\nu z`, with :math:`s = \sqrt{1 + z^2}` and
:math:`p = 1/s`,

.. math:: I_\nu(\nu z) \sim \frac{e^{\nu (s + \log\frac{z}{1+s})}}{\sqrt{2\pi\nu s}}
          \exp D(p), \qquad D(p) = \log \sum_k \frac{u_k(p)}{\nu^k}
          = \sum_k \frac{d_k(p)}{\nu^k}

uniformly in :math:`z > 0` (DLMF 10.41.3 and 10.41.9). The order is known when a
function is traced, so everything here is computed once, in rational numbers or with 40
digits, and what reaches the compiled code is one polynomial in :math:`p`.

Two things are done to it first. A factor :math:`1 - p`, which is what
:math:`D(p) - D(1)` vanishes with as :math:`z \to 0`, is divided out, so that nothing
cancels there. And functions that cross zero are anchored at the crossing, see `Anchor`.

References:
    *NIST Digital Library of Mathematical Functions*, section 10.41(ii).
    https://dlmf.nist.gov/10.41#ii
"""

import decimal
import functools
import math
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import DTypeLike

DIGITS = 40
LN_2PI = Decimal("1.837877066409345483560659472811235279722794947275566826")


class Series(NamedTuple):
    """What is left of the expansion of one order, as polynomials in p, highest first.

    With :math:`D' = dD/dp` and :math:`z \\, d/dz` taken at fixed order:

    Attributes:
        value: :math:`(D(p) - D(1)) / (1 - p)`.
        ratio: :math:`z D'(z) / (1 - p) = -p (1 + p) D'(p)`.
        slope: :math:`(z \\frac{d}{dz} - 1)` of `(1 - p) * ratio`, divided by
            :math:`1 - p`.
    """

    value: tuple[float, ...]
    ratio: tuple[float, ...]
    slope: tuple[float, ...]


class Anchor(NamedTuple):
    """Where a function of the argument crosses zero, as unevaluated sums of floats.

    Near the crossing the terms of the function are large and cancel. Differences from
    their values at the crossing do not, so a function written as a sum of differences
    keeps all its digits there.

    Attributes:
        x: the argument where the function is 0, and what a float leaves of it.
        s: :math:`\\sqrt{1 + (x/\\nu)^2}` there.
    """

    x: tuple[float, float]
    s: float


@functools.cache
def series(order: float, precision: float) -> Series:
    """The expansion of one order, as far as a precision asks for it.

    Args:
        order: of the Bessel function, 7 or more for float32, 16 for float64.
        precision: unit roundoff; terms are taken until the next one is below 1/64 of
            it, relative to `order`: the derivatives weigh more than the value.

    Returns:
        The polynomials.
    """
    scale = 1 / Fraction(order)
    grid = np.linspace(0.0, 1.0, 101)
    total = np.array([Fraction(0)])
    for k in range(1, 25):
        term = scale**k * np.array(_log_debye(k))
        size = np.abs(polynomial.polyval(grid, term.astype(float))).max()
        if size < precision * order / 64:
            break
        total = polynomial.polyadd(total, term)
    one_minus_p = [Fraction(1), Fraction(-1)]
    value = polynomial.polydiv(polynomial.polysub(total, [total.sum()]), one_minus_p)[0]
    ratio = polynomial.polymul([0, -1, -1], polynomial.polyder(total))
    # z dp/dz = -p (1 - p^2), applied to (1 - p) ratio.
    whole = polynomial.polymul(one_minus_p, ratio)
    slope = polynomial.polysub(
        polynomial.polymul([0, -1, 0, 1], polynomial.polyder(whole)), whole
    )
    slope = polynomial.polydiv(slope, one_minus_p)[0]
    # Numbers of Python, which leave float32 as it is where float64 is enabled.
    return Series(*(tuple(map(float, c[::-1])) for c in (value, ratio, slope)))


def high_order(order: float, dtype: DTypeLike) -> tuple[float, Series]:
    """The order to expand at, and its coefficients.

    Args:
        order: nu.
        dtype: float32 or float64.

    Returns:
        `order` plus an integer, and the series.
    """
    lowest, precision = (
        (8.0, 2.0**-24) if np.dtype(dtype) == np.float32 else (16.0, 2.0**-53)
    )
    top = order + max(0, math.ceil(lowest - order))
    return top, series(top, precision)


@functools.cache
def anchor_of_log_iv(order: float) -> Anchor:
    r"""Where :math:`I_\nu(x) = 1`.

    Args:
        order: :math:`\nu`, above 0.

    Returns:
        The anchor.
    """
    return _solve(order, lambda x, log_i, ratio: (log_i, Decimal(order) + ratio))


@functools.cache
def anchor_of_log_normalizer(order: float) -> Anchor | None:
    r"""Where the density's constant :math:`C_d(\kappa)` is 1, :math:`d = 2\nu + 2`.

    Args:
        order: :math:`\nu`.

    Returns:
        The anchor; None for the small dimensions in which the constant is below 1 for
        all concentrations.
    """
    v = Decimal(order)

    def log_c(x, log_i, ratio):
        return v * x.ln() - (v + 1) * LN_2PI - log_i, -ratio

    with decimal.localcontext(prec=DIGITS):
        x = Decimal("1e-9")
        if log_c(x, *log_iv_and_ratio(v, x))[0] <= 0:
            return None
    return _solve(order, log_c)


def log_constant_at_zero(order: float) -> float:
    """log C_d(0), minus the logarithm of the area of the sphere; d = 2 order + 2.

    Args:
        order: d / 2 - 1.

    Returns:
        A Python float.
    """
    half = order + 1.0
    return math.lgamma(half) - math.log(2.0) - half * math.log(math.pi)


@functools.cache
def taylor_at_anchor(order: float, num_terms: int) -> tuple[float, ...]:
    r"""Taylor coefficients of :math:`\log M_\nu` where :math:`I_\nu(x_0) = 1`.

    .. math:: \log\frac{M_\nu(x_0 (1+u))}{M_\nu(x_0)} = \sum_{k \ge 1} c_k u^k

    from the power series of :math:`A = I_{\nu+1}/I_\nu`, which solves
    :math:`A' = 1 - A^2 - (2\nu+1) A / x`.

    Args:
        order: :math:`\nu`, above 0.
        num_terms: how many.

    Returns:
        The coefficients, highest first, the last one of :math:`u^1`.
    """
    with decimal.localcontext(prec=DIGITS):
        v = Decimal(order)
        x = sum(map(Decimal, anchor_of_log_iv(order).x), Decimal(0))
        a, b = [log_iv_and_ratio(v, x)[1] / x], []  # of A and 1 - A^2, in u
        for k in range(num_terms - 1):
            b.append((k == 0) - sum(a[i] * a[k - i] for i in range(k + 1)))
            drive = x * (b[k] + (b[k - 1] if k else 0))
            a.append((drive - (2 * v + 1 + k) * a[k]) / (k + 1))
        return tuple(float(x * c / (k + 1)) for k, c in enumerate(a))[::-1]


def log_iv_and_ratio(order: Decimal, x: Decimal) -> tuple[Decimal, Decimal]:
    """log I_nu(x) and x I_{nu+1}(x) / I_nu(x) with 20 digits, in the caller's context.

    The expansion at order 40 or more, then the recursion.

    Args:
        order: nu.
        x: above 0.

    Returns:
        The two.
    """
    steps = max(0, math.ceil(40 - order))
    v = order + steps
    z = x / v
    s = (1 + z * z).sqrt()
    p = 1 / s
    log_i = v * (s + (z / (1 + s)).ln()) - (LN_2PI + (v * s).ln()) / 2
    ratio = v * (s - 1) - (1 - p * p) / 2
    for k in range(1, 13):
        for j, c in enumerate(_log_debye(k)):
            if c:
                term = Decimal(c.numerator) / Decimal(c.denominator) / v**k * p**j
                log_i += term
                ratio -= j * term * (1 - p * p)
    for _ in range(steps):  # I_{v-1} / I_v = (2v + ratio) / x
        log_i += ((2 * v + ratio) / x).ln()
        ratio = x * x / (2 * v + ratio)
        v -= 1
    return log_i, ratio


def _solve(order: float, fn) -> Anchor:
    """The zero of a function, by Newton's method in log x from the right.

    There the functions here are on one side of zero and convex (or concave) in log x,
    so that every step stays on that side and none overshoots.
    """
    with decimal.localcontext(prec=DIGITS):
        v = Decimal(order)
        x = 4 * v + 10

        def at(x):
            return fn(x, *log_iv_and_ratio(v, x))

        while (at(x)[0] > 0) != (at(x)[1] > 0):
            x *= 4
        for _ in range(100):
            value, slope = at(x)
            step = value / slope
            x *= (-step).exp()
            if abs(step) < Decimal("1e-28"):
                break
        s = (1 + (x / v) ** 2).sqrt()
        return Anchor((float(x), float(x - Decimal(float(x)))), float(s))


@functools.cache
def _debye(k: int) -> tuple[Fraction, ...]:
    """u_k: u_{k+1} = p^2 (1 - p^2) u_k' / 2 + 1/8 int_0^p (1 - 5 t^2) u_k dt."""
    if k == 0:
        return (Fraction(1),)
    u = np.array(_debye(k - 1))
    half = Fraction(1, 2)
    first = polynomial.polymul([0, 0, half, 0, -half], polynomial.polyder(u))
    inner = polynomial.polymul([Fraction(1, 8), 0, Fraction(-5, 8)], u)
    return tuple(polynomial.polyadd(first, polynomial.polyint(inner)))


@functools.cache
def _log_debye(k: int) -> tuple[Fraction, ...]:
    """d_k, from the derivative of the logarithm: k u_k = sum_j j d_j u_{k-j}."""
    total = k * np.array(_debye(k))
    for j in range(1, k):
        total = polynomial.polysub(
            total, j * polynomial.polymul(_log_debye(j), _debye(k - j))
        )
    return tuple(total / k)
