r"""Divergence of the power spherical law from the uniform one, without cancellation.

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
result.

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

# Denominators of Stirling's series, by odd powers of the argument.
_STIRLING = (12, -360, 1260, -1680)


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
        In nats, at least 0, shape and dtype of `concentration`. It can be
        differentiated term by term.

    References:
        De Cao & Aziz, 2020, section 3. https://arxiv.org/abs/2006.04437
    """
    kappa = concentration
    lowest = 8.0 if kappa.dtype == jnp.float32 else 16.0
    steps = max(0, math.ceil(lowest - half))
    low, high = half + steps, 2.0 * half + steps
    # One array of all steps compiles faster than as many expressions.
    weights = np.array([1.0] * steps + [0.5]).astype(kappa.dtype)
    axes = (1,) * kappa.ndim + (-1,)
    c = (half + np.arange(steps + 1)).astype(kappa.dtype).reshape(axes)
    total = jnp.sum(weights.reshape(axes) * _fall(half, c, kappa[..., None]), axis=-1)
    # The integral: g at its upper end, where it is least, and what is above that.
    total += half * _height(kappa / high)
    total += low * _log1p_lack(_ratio_excess(half, low, kappa))
    return total + (_stirling(low, kappa) - _stirling(high, kappa))


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
    for k, denominator in enumerate(_STIRLING):
        coefficients = tuple(float(j) for j in range(2 * k + 1, 0, -1))
        total += horner(coefficients, c / (c + kappa)) / (denominator * c ** (2 * k))
    return total * share * share / c
