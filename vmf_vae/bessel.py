r"""Modified Bessel functions of a static order, and their ratio, without cancellation.

One expansion serves all orders (see `expansion`), so float32 keeps its digits from
`x = 0`, where the functions are smooth, to `x = 2e6` and beyond, for orders from 0 to
100,000. Other libraries overflow, underflow or cancel somewhere in that range.

Example::

    >>> bessel_ratio(3, 2.0)  # coth(2) - 1/2
    Array(0.5373147, dtype=float32, weak_type=True)

References:
    *NIST Digital Library of Mathematical Functions*, 10.29.1, 10.41(ii).
    https://dlmf.nist.gov/10.41#ii
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae import debye
from vmf_vae.anchored import change_of_log_0f1, log_over, relative_difference
from vmf_vae.arguments import check_order, elementwise, order_of, require_concrete
from vmf_vae.elementary import along, horner
from vmf_vae.expansion import log_0f1, log_bend, ratio
from vmf_vae.inverse import inverse_ratio

# Below it, 40 digits do not find the zero, and nothing that is near it counts.
_TINY_ORDER = 1e-16


def log_iv(order: float, x: jax.typing.ArrayLike) -> jax.Array:
    r"""Logarithm of the modified Bessel function of the first kind, :math:`\log I_\nu`.

    Args:
        order: :math:`\nu`, a Python number, at least 0; static.
        x: any shape, 0 to 2e6.

    Returns:
        Shape and dtype of `x` (float16 and bfloat16 are computed in float32; integers
        become the default float); -inf at 0 unless `order` is 0, nan where `x` is
        traced and negative, or not finite. The derivative is
        :math:`I_{\nu+1}/I_\nu + \nu/x`.

    Raises:
        ValueError: if `order` is negative or not finite, or an entry of a concrete `x`
            is negative.
        TypeError: if `order` is no Python number or `x` is complex.

    References:
        DLMF, 10.41.3. https://dlmf.nist.gov/10.41#E3
    """
    return elementwise(_log_iv, check_order(order), x, name="x")


def bessel_ratio(dim: int, concentration: jax.typing.ArrayLike) -> jax.Array:
    r"""Mean resultant length of the von Mises-Fisher distribution.

    .. math:: A_d(\kappa) = \frac{I_{d/2}(\kappa)}{I_{d/2-1}(\kappa)}, \qquad
              A_d' = 1 - A_d^2 - \frac{d-1}{\kappa} A_d.

    The derivative is computed from an expansion of its own, not from this identity,
    which cancels.

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        concentration: :math:`\kappa`, any shape, 0 to 2e6.

    Returns:
        In [0, 1), shape and dtype of `concentration` (float16 and bfloat16 are computed
        in float32); nan where it is traced and negative, or not finite.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `concentration`
            is negative.
        TypeError: if `dim` is no Python integer or `concentration` is complex.

    References:
        Mardia & Jupp, *Directional Statistics*, 2000, (A.8) and (A.14).
        https://doi.org/10.1002/9780470316979
    """
    return elementwise(ratio, order_of(dim), concentration)


def inverse_bessel_ratio(dim: int, mean_length: jax.typing.ArrayLike) -> jax.Array:
    r"""The concentration whose mean resultant length is given, :math:`A_d^{-1}`.

    Newton's method from :math:`\kappa_0 = r (d - r^2) / (1 - r^2)`, on the smaller of
    :math:`A_d` and :math:`1 - A_d`, to working precision.

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        mean_length: :math:`r`, any shape, in [0, 1].

    Returns:
        Shape and dtype of `mean_length`; inf at 1, nan where it is traced and outside
        [0, 1]. The derivative is :math:`1 / A_d'`.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `mean_length` is
            outside [0, 1].
        TypeError: if `dim` is no Python integer or `mean_length` is complex.

    References:
        Banerjee et al., *Clustering on the Unit Hypersphere using von Mises-Fisher
        Distributions*, 2005, eq. (4.4), for the start.
        https://jmlr.org/papers/v6/banerjee05a.html
    """
    order = order_of(dim)
    require_concrete(
        "mean_length", mean_length, "in [0, 1]", lambda r: (r < 0) | (r > 1)
    )

    def invert(order, r):
        return inverse_ratio(order, r, 1.0 - r)

    return elementwise(invert, order, mean_length, name="mean_length")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _log_iv(order: float, x: jax.Array) -> jax.Array:
    if order == 0.0:
        return log_0f1(order, x)
    if order < _TINY_ORDER:
        log_power = order * (
            jnp.log(0.5 * jnp.where(x == 0.0, 1.0, x)) + np.euler_gamma
        )
        return jnp.where(x == 0.0, -jnp.inf, log_0f1(order, x) + log_power)
    anchor = debye.anchor_of_log_iv(order)
    if debye.high_order(order, x.dtype)[0] == order:
        return order * log_over(x, anchor.x) + change_of_log_0f1(order, x, anchor)
    # Where the three terms of the last line cancel, a series about the zero.
    u = relative_difference(x, anchor.x)
    is_near = jnp.abs(u) < 0.25
    u = jnp.where(is_near, u, 0.0)
    num_terms = 12 if x.dtype == jnp.float32 else 26
    series = horner(debye.taylor_at_anchor(order, num_terms), u)
    near = u * series + order * jnp.log1p(u)
    far = log_0f1(order, x) + order * jnp.log(0.5 * x) - math.lgamma(order + 1.0)
    return jnp.where(is_near, near, far)


@_log_iv.defjvp
def _log_iv_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    slope = _log_slope(order, x) if order else ratio(order, x)
    return _log_iv(order, x), slope * dx


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_slope(order: float, x: jax.Array) -> jax.Array:
    return ratio(order, x) + order / x


@_log_slope.defjvp
def _log_slope_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return _log_slope(order, x), _log_bend(order, x) * dx


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_bend(order: float, x: jax.Array) -> jax.Array:
    return log_bend(order, x)


@_log_bend.defjvp
def _log_bend_jvp(order, primals, tangents):
    return along(functools.partial(log_bend, order), primals, tangents)
