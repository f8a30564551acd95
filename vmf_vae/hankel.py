r"""Bessel functions of low orders far from 0, as polynomials in :math:`1/x`.

Where :math:`x` is a few times the order or more, Hankel's expansion

.. math:: \log I_\nu(x) = x - \tfrac12 \log 2\pi x + h(1/x), \qquad
          h(t) = \frac{1 - 4\nu^2}{8} t + O(t^2)

says all there is to know in numbers that are small. Its series diverges, which limits
what it can give at a fixed :math:`x`; the functions themselves are smooth up to
:math:`t = 0`, and polynomials through their values at Chebyshev's nodes converge.

References:
    *NIST Digital Library of Mathematical Functions*, 10.40(i).
    https://dlmf.nist.gov/10.40#i
"""

import decimal
import functools
import math
from decimal import Decimal
from typing import NamedTuple

from vmf_vae import debye


class Tail(NamedTuple):
    """Polynomials in w, highest first, where 1 / x = (1 + w) / (2 start).

    Attributes:
        value: of x h(1 / x).
        lack: of x (x (1 - A) - nu - 1/2), A = I_{nu+1} / I_nu.
    """

    value: tuple[float, ...]
    lack: tuple[float, ...]


@functools.cache
def tail(order: float, start: float, num_terms: int) -> Tail:
    """What is left of the functions beyond an argument.

    Args:
        order: nu.
        start: the argument, above 2.
        num_terms: coefficients of each polynomial.

    Returns:
        The polynomials, good for `start` and beyond.
    """
    with decimal.localcontext(prec=debye.DIGITS):
        angles = (math.pi * (k + 0.5) / num_terms for k in range(num_terms))
        nodes = [Decimal(math.cos(angle)) for angle in angles]
        values = [_at(Decimal(order), 2 * Decimal(start) / (1 + w)) for w in nodes]
        return Tail(*(_through(nodes, list(v)) for v in zip(*values, strict=True)))


def _at(order: Decimal, x: Decimal) -> tuple[Decimal, Decimal]:
    """The two functions, from the expansion at a high order."""
    log_i, ratio = debye.log_iv_and_ratio(order, x)
    half_log = (debye.LN_2PI + x.ln()) / 2
    return x * (log_i - x + half_log), x * (x - ratio - order - Decimal("0.5"))


def _through(nodes: list[Decimal], values: list[Decimal]) -> tuple[float, ...]:
    """The polynomial through points, by Newton's divided differences."""
    for j in range(1, len(nodes)):
        for i in reversed(range(j, len(nodes))):
            values[i] = (values[i] - values[i - 1]) / (nodes[i] - nodes[i - j])
    total: list[Decimal] = []  # lowest first
    for w, value in zip(reversed(nodes), reversed(values), strict=True):
        shifted = [Decimal(0), *total]
        total = [a - w * b for a, b in zip(shifted, [*total, Decimal(0)], strict=True)]
        total[0] += value
    return tuple(map(float, reversed(total)))
