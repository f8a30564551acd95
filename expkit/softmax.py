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

    .. math:: t_i = c_i - \log S, \qquad c = a - b - m, \qquad
        S = \sum_j q_j e^{c_j} = \frac{1 - Q + \sum_{j \notin F} q_j (e^{c_j} - 1)}
                                      {1 - P},

    for any m and any set F of classes, which have the mass P of p and Q of q. Here m is
    the mean of :math:`a - b` under :math:`\min(p, q)`, which leaves a logarithm that is
    near 0, and F the classes that moved far: whose c is above 1 in magnitude. They take
    the difference of the logarithms. If there are any, all classes of the example do so
    where P + Q is 1/2 or more, or where m is above 8 in magnitude: a constant that all
    logits of one side have more rounds their differences, and should be taken off.

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
    # t is the same for any m, so that m has no part in its derivatives.
    weights = jax.lax.stop_gradient(jnp.minimum(p, q))
    weights /= jnp.maximum(jnp.sum(weights, axis, keepdims=True), 0.01)
    frozen = jax.lax.stop_gradient(difference)
    mean = jnp.sum(weights * frozen, axis, keepdims=True)
    centered = jnp.where(is_used, difference - mean, 0.0)
    is_close = jnp.abs(centered) <= 1.0
    far_p, far_q = (
        jnp.sum(jnp.where(is_close, 0.0, z), axis, keepdims=True) for z in (p, q)
    )
    far = far_p + far_q
    is_near = (far == 0.0) | ((far < 0.5) & (jnp.abs(mean) <= 8.0))
    close = jnp.where(is_close & is_near, centered, 0.0)
    moved = jnp.sum(q * jnp.expm1(close), axis, keepdims=True)
    rest = jnp.log1p(jnp.where(is_near, moved - far_q, 0.0))
    rest -= jnp.log1p(jnp.where(is_near, -far_p, 0.0))
    safe_p, safe_q = (jnp.where(is_used, z, 0.0) for z in (log_p, log_q))
    return jnp.where(is_close & is_near, close - rest, safe_p - safe_q)
