r"""Divergence and peak of the power spherical law, relative to the uniform one.

With :math:`\beta = (d-1)/2`, the entropy of De Cao & Aziz (2020) and the area of the
sphere leave, by the duplication formula of the Gamma function,

.. math:: \mathrm{KL} = D(\beta + \kappa, \beta) - D(2\beta + \kappa, 2\beta), \qquad
          D(x, y) = \log\frac{\Gamma(y)}{\Gamma(x)} + (x - y)\, \psi(x),

and :math:`D(x, y) = D(x + 1, y + 1) + g(y)` with

.. math:: g(c) = \log\left(1 + \frac{\kappa}{c}\right) - \frac{\kappa}{c + \kappa}.

A few such steps go up to arguments :math:`B` and :math:`C = B + \beta` at which the
series of Euler and Maclaurin has converged,

.. math:: \mathrm{KL} = \sum_{c = \beta, \beta + 1, \ldots}^{B - 1} \Delta(c)
          + \int_B^C g(c)\, dc + \tfrac12 \Delta(B) + S(B) - S(C), \qquad
          \Delta(c) = g(c) - g(c + \beta).

What differs from the paper: only the form. Area minus entropy is a difference of
numbers of the size of d, which at d = 768 and :math:`\kappa` = .1 is negative in
float32; all terms here but S, which is small, are positive and have the size of the
result. That is so, too, for the logarithm of the density at the mean direction over the
uniform one,

.. math:: F = \log\frac{\Gamma(2\beta + \kappa)\, \Gamma(\beta)}
                       {\Gamma(\beta + \kappa)\, \Gamma(2\beta)}, \qquad
          F' = \psi(2\beta + \kappa) - \psi(\beta + \kappa).

>>> kl_of_power(5.0, jnp.float32(1e-3))  # kappa^2 (psi'(5) - psi'(10)) / 2
Array(5.8065737e-08, dtype=float32)

References:
    De Cao & Aziz, *The Power Spherical distribution*, 2020, section 3.
    https://arxiv.org/abs/2006.04437
    *NIST Digital Library of Mathematical Functions*, 2.10(i), 5.5(iii), 5.11(i).
    https://dlmf.nist.gov/5.11#i
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae.elementary import horner

# Denominators of Stirling's series, by odd powers of the argument, and how many of them
# and from where on reach working precision.
_STIRLING = (12, -360, 1260, -1680, 1188, -360360 / 691)
_TERMS, _LOWEST = {32: 4, 64: 6}, {32: 8.0, 64: 16.0}


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def kl_of_power(half: float, concentration: jax.Array) -> jax.Array:
    r"""Divergence of the power spherical law from the uniform one.

    .. math:: \mathrm{KL} = \tfrac12 \kappa^2 (\psi'(\beta) - \psi'(2\beta))
              + O(\kappa^3), \qquad
              \mathrm{KL}' = \kappa (\psi'(\beta + \kappa) - \psi'(2\beta + \kappa)).

    Args:
        half: :math:`\beta`, half of the number of the sphere's own dimensions, at least
            1/2; static.
        concentration: :math:`\kappa`, float32 or wider, at least 0 or nan.

    Returns:
        In nats, at least 0, shape and dtype of `concentration`. The derivative is a
        sum of its own, which can be differentiated term by term.

    References:
        De Cao & Aziz, 2020, section 3. https://arxiv.org/abs/2006.04437
    """
    kappa = concentration
    steps, low, high = _range(half, kappa.dtype)
    # One array of all steps compiles faster than as many expressions.
    weights = np.array([1.0] * steps + [0.5]).astype(kappa.dtype)
    weights = weights.reshape((1,) * kappa.ndim + (-1,))
    c = _arguments(half, steps + 1, kappa)
    total = jnp.sum(weights * _fall(half, c, kappa[..., None]), axis=-1)
    # The integral: g at its upper end, where it is least, and what is above that.
    total += half * _height(kappa / high)
    total += low * _log1p_lack(_ratio_excess(half, low, kappa))
    return total + (_stirling(low, kappa) - _stirling(high, kappa))


@kl_of_power.defjvp
def _kl_of_power_jvp(half, primals, tangents):
    (kappa,), (dkappa,) = primals, tangents
    rise = functools.partial(_digamma_rise, half)
    _, fall = jax.jvp(rise, (kappa,), (-kappa,))  # -kappa F''
    return kl_of_power(half, kappa), fall * dkappa


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def log_peak_of_power(half: float, concentration: jax.Array) -> jax.Array:
    r"""Log density at the mean direction, minus that of the uniform law.

    .. math:: F = \kappa (\psi(2\beta) - \psi(\beta)) + O(\kappa^2).

    Args:
        half: :math:`\beta`, half of the number of the sphere's own dimensions, at least
            1/2; static.
        concentration: :math:`\kappa`, float32 or wider, at least 0 or nan.

    Returns:
        In nats, at least 0, shape and dtype of `concentration`. The derivative is a
        sum of its own, which can be differentiated term by term.

    References:
        De Cao & Aziz, 2020, section 3. https://arxiv.org/abs/2006.04437
    """
    kappa = concentration
    steps, low, high = _range(half, kappa.dtype)
    # No part is larger than about the result: Stirling's x log x is taken apart.
    total = half * jnp.log1p(kappa / high) + kappa * jnp.log1p(half / (low + kappa))
    total -= (low - 0.5) * jnp.log1p(_ratio_excess(half, low, kappa))
    if steps:
        c = _arguments(half, steps, kappa)
        rise = jnp.log1p(_ratio_excess(half, c, kappa[..., None]))
        total += jnp.sum(rise, axis=-1)
    return total + (_stirling_fall(low, kappa) - _stirling_fall(high, kappa))


@log_peak_of_power.defjvp
def _log_peak_of_power_jvp(half, primals, tangents):
    (kappa,), (dkappa,) = primals, tangents
    return log_peak_of_power(half, kappa), _digamma_rise(half, kappa) * dkappa


def _range(half, dtype):
    """Steps of the recursion, and the arguments at which the series start."""
    steps = max(0, math.ceil(_LOWEST[jnp.finfo(dtype).bits] - half))
    return steps, half + steps, 2.0 * half + steps


def _arguments(half, number, kappa):
    """The arguments of the recursion, along an axis behind those of kappa."""
    c = (half + np.arange(number)).astype(kappa.dtype)
    return c.reshape((1,) * kappa.ndim + (-1,))


def _fall(half, c, kappa):
    """g(c) - g(c + half), for a c of at least `half`."""
    excess = _ratio_excess(half, c, kappa)
    return excess * (kappa / (c + kappa)) - _log1p_lack(excess)


def _ratio_excess(half, c, kappa):
    """(1 + kappa / c) / (1 + kappa / (c + half)) - 1, from 0 to 1."""
    return (half / c) * (kappa / (c + half + kappa))


def _height(u):
    """log(1 + u) - u / (1 + u) for u >= 0: the function g of kappa / u."""
    is_small = u < 1.0
    small = jnp.where(is_small, u, 0.0)
    s = small / (2.0 + small)
    near = 2.0 * s * s * (1.0 / (1.0 + s) + s * _arctanh_series(s))
    far = jnp.where(is_small, 1.0, u)
    return jnp.where(is_small, near, jnp.log1p(far) - far / (1.0 + far))


def _log1p_lack(y):
    """y - log(1 + y) for y from 0 to 1."""
    s = y / (2.0 + y)
    return s * (y - 2.0 * s * s * _arctanh_series(s))


def _arctanh_series(s):
    """(arctanh(s) - s) / s^3 for s from 0 to 1/3."""
    num_terms = 8 if s.dtype == jnp.float32 else 17
    return horner(tuple(1.0 / (2 * k + 3) for k in reversed(range(num_terms))), s * s)


def _stirling(c, kappa):
    """S(c): of log Gamma beyond its leading terms, what D(c + kappa, c) has of them."""
    share = kappa / (c + kappa)
    total = jnp.zeros_like(kappa)
    for k, denominator in enumerate(_stirling_terms(kappa.dtype)):
        coefficients = tuple(float(j) for j in range(2 * k + 1, 0, -1))
        total += horner(coefficients, c / (c + kappa)) / (denominator * c ** (2 * k))
    return total * share * share / c


def _stirling_fall(c, kappa):
    """Beyond its leading terms, log Gamma(c) - log Gamma(c + kappa)."""
    coefficients = tuple(1.0 / d for d in reversed(_stirling_terms(kappa.dtype)))
    b = 1.0 / (c + kappa)
    at_c = float(np.polyval(coefficients, 1.0 / c**2)) / c
    return at_c - b * horner(coefficients, b * b)


def _digamma_rise(half, kappa):
    """digamma(2 half + kappa) - digamma(half + kappa), without subtracting them."""
    steps, low, high = _range(half, kappa.dtype)
    denominators = _stirling_terms(kappa.dtype)
    coefficients = tuple((2 * k + 1) / d for k, d in enumerate(denominators))[::-1]
    a, b = 1.0 / (low + kappa), 1.0 / (high + kappa)
    series = a * a * horner(coefficients, a * a) - b * b * horner(coefficients, b * b)
    total = jnp.log1p(half * a) + 0.5 * half * a * b + series
    if steps:
        x = _arguments(half, steps, kappa) + kappa[..., None]
        total += jnp.sum(half / (x * (x + half)), axis=-1)
    return total


def _stirling_terms(dtype):
    return _STIRLING[: _TERMS[jnp.finfo(dtype).bits]]
