r"""Functions written relative to the point where they vanish.

:math:`\log C_d` and :math:`\log I_\nu` cross zero where their terms, each of the size
of the order, cancel: at dimension 3,072 float32 would keep three digits there. As
sums of *differences* of the terms between the argument and the crossing, which is known
to 20 digits when the function is traced (see `debye`), they keep all of them.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae import debye
from vmf_vae.elementary import horner, secant


def change_of_log_0f1(order: float, x: jax.Array, anchor: debye.Anchor) -> jax.Array:
    """log M(x) - log M(anchor), with all digits where the two are close.

    Args:
        order: nu, high enough for the expansion at this order.
        x: float32 or wider, at least 0 or nan.
        anchor: the point to compare with.

    Returns:
        Shape and dtype of `x`; a sum of terms that have the sign of `x - anchor`, but
        for one of the relative size of 1 / nu.
    """
    s = secant(x / order)
    p = 1.0 / s
    high, low = _split(anchor.x, x.dtype)
    # Not (x - high) - low: XLA adds the two constants, and low is lost.
    dz = (x - high) / order - low / order
    ds = dz * (((x + high) / order) / (s + anchor.s))
    return (
        order * (ds - jnp.log1p(ds / (1.0 + anchor.s)))
        - 0.5 * jnp.log1p(ds / anchor.s)
        - ds * ((p / anchor.s) * horner(_divided(order, x.dtype, anchor), p))
    )


def _divided(
    order: float, dtype: jax.typing.DTypeLike, anchor: debye.Anchor
) -> tuple[float, ...]:
    """(D(p) - D(p_0)) / (p - p_0), a polynomial in p; highest first."""
    _, (value, _, _) = debye.high_order(order, dtype)
    whole = np.polymul([-1.0, 1.0], value)  # D(p) - D(1)
    return tuple(map(float, np.polydiv(whole, [1.0, -1.0 / anchor.s])[0]))


def log_over(x: jax.Array, reference: tuple[float, float]) -> jax.Array:
    """log(x / reference), with all digits where x is near the reference.

    Args:
        x: float32 or wider, at least 0 or nan.
        reference: a positive number, as the unevaluated sum of two floats.

    Returns:
        Shape and dtype of `x`.
    """
    u = relative_difference(x, reference)
    is_near = u > -0.5
    near = jnp.log1p(jnp.where(is_near, u, 0.0))
    far = jnp.log(jnp.where(is_near, 1.0, x)) - math.log(reference[0])
    return jnp.where(is_near, near, far)


def relative_difference(x: jax.Array, reference: tuple[float, float]) -> jax.Array:
    """x / reference - 1, with all digits where x is near the reference.

    Args:
        x: float32 or wider.
        reference: a positive number, as the unevaluated sum of two floats.

    Returns:
        Shape and dtype of `x`.
    """
    high, low = _split(reference, x.dtype)
    # Divided before the second part is subtracted: XLA would add the two constants.
    return (x - high) / high - low / high


def _split(
    number: tuple[float, float], dtype: jax.typing.DTypeLike
) -> tuple[float, float]:
    """The same sum with a first part that is a number of this dtype."""
    high = float(np.asarray(number[0], dtype))
    return high, (number[0] - high) + number[1]
