"""Divergence between two von Mises-Fisher laws, as two terms that cannot cancel.

>>> mu = jnp.array([1.0, 0.0, 0.0])
>>> kl(mu, 10.0, mu, 10.001)  # A'(10) * 0.001^2 / 2
Array(5.0037063e-09, dtype=float32)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae.arguments import (
    as_float,
    order_of,
    require_concrete,
    require_directions,
    where_valid,
)
from vmf_vae.density import one_minus_dot
from vmf_vae.elementary import wide_dtype
from vmf_vae.expansion import (
    log_0f1,
    log_0f1_minus_x,
    one_minus_ratio,
    ratio,
    ratio_minus_log_0f1,
    ratio_slope,
)

# Gauss-Legendre on [0, 1]: exact to float64 for A' over a factor of four.
_NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(16) + np.array([[1], [0]])) / 2


def kl(
    mean_direction_p: jax.typing.ArrayLike,
    concentration_p: jax.typing.ArrayLike,
    mean_direction_q: jax.typing.ArrayLike,
    concentration_q: jax.typing.ArrayLike,
) -> jax.Array:
    r"""Divergence between two von Mises-Fisher distributions.

    .. math:: \mathrm{KL}(p \| q) = \log\frac{C_d(\kappa_p)}{C_d(\kappa_q)}
              + A_d(\kappa_p) (\kappa_p - \kappa_q \mu_p^\top \mu_q),

    computed as the Bregman divergence of :math:`-\log C_d` between the concentrations,
    plus :math:`\kappa_q A_d(\kappa_p) |\mu_p - \mu_q|^2 / 2`: two terms that are not
    negative and vanish as they should.

    Args:
        mean_direction_p: :math:`\mu_p`, [..., d], unit vectors.
        concentration_p: :math:`\kappa_p`, [...], 0 to 2e6.
        mean_direction_q: :math:`\mu_q`, [..., d], unit vectors.
        concentration_q: :math:`\kappa_q`, [...], 0 to 2e6.

    Returns:
        [...], the four leading shapes broadcast; float32 or wider.

    Raises:
        ValueError: if a direction has no axis of 2 to 200,000 entries, if the two
            differ in it or are concrete and not of unit norm, or if an entry of a
            concrete concentration is negative.
        TypeError: if an argument is complex.

    References:
        Diethe, *A Note on the Kullback-Leibler Divergence for the von Mises-Fisher
        Distribution*, 2015, eq. (2). https://arxiv.org/abs/1502.07104
    """
    p = require_directions("mean_direction_p", mean_direction_p)
    q = require_directions("mean_direction_q", mean_direction_q)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            "mean_direction_p and mean_direction_q must have the same last axis, got "
            f"shapes {p.shape} and {q.shape}."
        )
    order = order_of(p.shape[-1])
    numbers = []
    for name, x in (("p", concentration_p), ("q", concentration_q)):
        require_concrete(f"concentration_{name}", x, "at least 0", lambda x: x < 0)
        numbers.append(as_float(f"concentration_{name}", x))
    wide = wide_dtype(jnp.result_type(p, q, *numbers))
    p, q, kappa_p, kappa_q = (x.astype(wide) for x in (p, q, *numbers))
    shape = jnp.broadcast_shapes(
        p.shape[:-1], q.shape[:-1], kappa_p.shape, kappa_q.shape
    )
    full = (*shape, p.shape[-1])
    apart = one_minus_dot(jnp.broadcast_to(p, full), jnp.broadcast_to(q, full))
    kappa_p, kappa_q = (
        jnp.broadcast_to(where_valid(x), shape) for x in (kappa_p, kappa_q)
    )
    turned = kappa_q * ratio(order, kappa_p) * apart
    return _bregman(order, kappa_q, kappa_p) + turned


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _bregman(order: float, to: jax.Array, at: jax.Array) -> jax.Array:
    """log M(to) - log M(at) - A(at) (to - at), at least 0."""
    is_near, slopes = _slopes_between(order, to, at)
    near = jnp.square(to - at) * _weighted(_WEIGHTS * (1.0 - _NODES), slopes)
    scaled = log_0f1_minus_x(order, to) + one_minus_ratio(order, at) * to
    unscaled = log_0f1(order, to) - ratio(order, at) * to
    far = jnp.where(to > 2.0 * order + 2.0, scaled, unscaled)
    return jnp.where(is_near, near, ratio_minus_log_0f1(order, at) + far)


@_bregman.defjvp
def _bregman_jvp(order, primals, tangents):
    (to, at), (dto, dat) = primals, tangents
    is_near, slopes = _slopes_between(order, to, at)
    near = (to - at) * _weighted(_WEIGHTS, slopes)
    rise = jnp.where(is_near, near, _rise_of_ratio(order, to, at))
    slope = ratio_slope(order, at)
    return _bregman(order, to, at), rise * dto - slope * (to - at) * dat


def _rise_of_ratio(order, to, at):
    """A(to) - A(at) of two that are far apart; as one minus A where both are near 1."""
    high, low = ratio(order, to), ratio(order, at)
    fall = one_minus_ratio(order, at) - one_minus_ratio(order, to)
    return jnp.where(jnp.minimum(high, low) > 0.5, fall, high - low)


def _slopes_between(order, to, at):
    """Whether a quadrature of A' between the two is exact, and A' at its nodes."""
    is_near = jnp.maximum(to, at) < 4.0 * jnp.minimum(to, at)
    step = jnp.where(is_near, to - at, 0.0)
    nodes = _NODES.astype(to.dtype)
    points = at[..., None] + step[..., None] * nodes.reshape(at.ndim * (1,) + (-1,))
    return is_near, ratio_slope(order, points)


def _weighted(weights, values):
    # Not a product of matrices: accelerators round their factors.
    weights = weights.astype(values.dtype).reshape((values.ndim - 1) * (1,) + (-1,))
    return jnp.sum(weights * values, axis=-1)
