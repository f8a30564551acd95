r"""The divergence of two softmax outputs, for logits that may nearly agree.

With :math:`t = \log q - \log p`,

.. math:: \mathrm{KL}(p \| q) = \sum_i p_i\, h(t_i), \qquad h(t) = e^t - 1 - t \geq 0,

since the probabilities have the same sum. No term is negative, where the sum of
:math:`-p_i t_i` has terms of both signs that cancel: for a perturbation of size
:math:`\epsilon` they are of its order, and the divergence of its square. In float32
that leaves no digit for logits 1e-4 apart. Here t comes from the differences of the
logits and h, near 0, from its series, so all digits are left.
"""

import math

import jax
import jax.numpy as jnp

from expkit import trees
from expkit.softmax import log_ratio

_FAR = 1e4


def kl_divergence(logits_p: jax.Array, logits_q: jax.Array) -> jax.Array:
    r""":math:`\mathrm{KL}(p \| q)` of two softmax outputs.

    Args:
        logits_p: `[batch, classes]`, real floating-point. A logit of -inf excludes its
            class.
        logits_q: the same shape; inf is the result for a class that only it excludes.

    Returns:
        Divergences in nats `[batch]`, at least 0, float32 or wider.
    """
    a, b = (z.astype(trees.wide_dtype(z)) for z in (logits_p, logits_q))
    log_p, log_q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    is_possible = p != 0.0
    is_finite = jnp.isfinite(a) & jnp.isfinite(b)
    difference = jnp.where(is_finite, b, 0.0) - jnp.where(is_finite, a, 0.0)
    # A class of one of the two only: far from the others.
    difference = jnp.where(is_finite, difference, _FAR)
    is_used = ~(jnp.isneginf(a) & jnp.isneginf(b))
    t = log_ratio(difference, log_q, log_p, is_used, -1)
    t = jnp.where(is_possible, t, 0.0)
    near = jnp.minimum(t, 1.0)
    terms = jnp.where(t < 1.0, p * _exp_remainder(near), q - p - p * t)
    return jnp.sum(jnp.where(is_possible, terms, q), axis=-1)


def _exp_remainder(t: jax.Array) -> jax.Array:
    """exp(t) - 1 - t, for t up to 1; the series around 0."""
    is_near = jnp.abs(t) < 1.0
    near = jnp.where(is_near, t, 0.0)
    num_terms = 10 if t.dtype == jnp.float32 else 18
    total = jnp.full_like(t, 1.0 / math.factorial(num_terms + 1))
    for k in range(num_terms, 1, -1):
        total = total * near + 1.0 / math.factorial(k)
    return jnp.where(is_near, near * near * total, jnp.expm1(t) - t)
