"""Logarithms of ratios of two softmax outputs that nearly agree."""

import jax
import jax.numpy as jnp


def log_ratio(
    difference: jax.Array,
    log_p: jax.Array,
    log_q: jax.Array,
    is_used: jax.Array,
    axis: int,
) -> jax.Array:
    r"""`log p - log q`, with all digits where the distributions are close.

    The two logarithms carry rounding errors of `eps |log p|`, so that their difference
    has no digits left where it is small. That of the logits has, and it is the wanted
    one up to a constant for each example:

    .. math:: t_i = c_i - \log \sum_j q_j e^{c_j}, \qquad c = a - b - m,

    for any m. Here m is the mean of :math:`a - b` under :math:`(p + q) / 2`, which
    leaves a logarithm that is near 0. Where an entry of c is above 1 in magnitude the
    logarithms are subtracted.

    Args:
        difference: of the logits, :math:`a - b`, float32 or wider; finite where
            `is_used`.
        log_p: `log_softmax(a)`, same shape and dtype.
        log_q: `log_softmax(b)`, same shape and dtype.
        is_used: booleans of the same shape; the classes that count.
        axis: the axis of the classes.

    Returns:
        t, shape and dtype of `difference`; what it is elsewhere than at `is_used` is
        finite and does not depend on the arguments there.
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    mean = jnp.sum(0.5 * (p + q) * difference, axis, keepdims=True)
    centered = jnp.where(is_used, difference - mean, 0.0)
    is_near = jnp.all(jnp.abs(centered) <= 1.0, axis, keepdims=True)
    near = jnp.where(is_near, centered, 0.0)
    rest = jnp.log1p(jnp.sum(q * jnp.expm1(near), axis, keepdims=True))
    safe_p, safe_q = (jnp.where(is_used, z, 0.0) for z in (log_p, log_q))
    return jnp.where(is_near, near - rest, safe_p - safe_q)
