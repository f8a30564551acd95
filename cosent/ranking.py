r"""Spearman's rank correlation, the measure of CoSENT's experiments, under `jit`.

.. math:: \rho = \frac{\sum_i (r_i - \bar r)(q_i - \bar r)}
                      {\sqrt{\sum_i (r_i - \bar r)^2 \sum_i (q_i - \bar r)^2}},

with r and q the ranks of scores and labels, ties sharing the mean of their ranks. It is
defined for ties, which labels are full of; the shortcut with squared differences of the
ranks is not. Equal to `scipy.stats.spearmanr`, in O(n log n).

Example::

    spearman(pairwise_cosine(u, v), labels)
"""

import jax
import jax.numpy as jnp

from cosent.arguments import comparable, require_rows
from expkit import explicit, trees


def average_ranks(x: jax.typing.ArrayLike) -> jax.Array:
    """Ranks from 1 to n; equal numbers share the mean of their ranks.

    Args:
        x: real numbers `[n]`, compared in their own dtype.

    Returns:
        `[n]`, float32 or wider: multiples of 1/2, exact up to n of 8 million. All nan
        if one number is nan.

    Raises:
        TypeError: if `x` is not real.
        ValueError: if `x` is not of shape `[n]` with n >= 1.

    References:
        `scipy.stats.rankdata` defines the same ranks.
        https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.rankdata.html
    """
    x = comparable("x", x)
    if x.ndim != 1 or not x.size:
        raise ValueError(
            f"x must have the shape [n] with n >= 1, got {x.shape}; vmap over further "
            "axes."
        )
    x, size = explicit.whole(x), len(x)
    order = jnp.argsort(x)
    x = x[order]
    is_new = x[1:] != x[:-1]
    index = jnp.arange(1, size)
    first = jax.lax.cummax(jnp.append(0, jnp.where(is_new, index, 0)))
    last = jnp.append(jnp.where(is_new, index, size), size)
    last = jax.lax.cummin(last, reverse=True)
    dtype = trees.wide_dtype(jnp.float32)
    if jnp.issubdtype(x.dtype, jnp.floating):
        dtype = trees.wide_dtype(x.dtype)
    ranks = 0.5 * (first + last + 1).astype(dtype)
    ranks = jnp.zeros(size, dtype).at[order].set(ranks, unique_indices=True)
    if jnp.issubdtype(x.dtype, jnp.floating):
        ranks = jnp.where(jnp.isnan(x[-1]), jnp.nan, ranks)  # nan sorts last
    return ranks


def spearman(scores: jax.typing.ArrayLike, labels: jax.typing.ArrayLike) -> jax.Array:
    r"""Correlation of the ranks of scores and labels.

    .. math:: \rho = \frac{\sum_i (r_i - \bar r)(q_i - \bar r)}
                          {\sqrt{\sum_i (r_i - \bar r)^2 \sum_i (q_i - \bar r)^2}}.

    Args:
        scores: real numbers `[n]`.
        labels: real numbers `[n]`.

    Returns:
        Scalar in [-1, 1], float32 or wider. nan where it is undefined, as in scipy: if
        all scores or all labels are equal, or one of them is nan.

    Raises:
        TypeError: if scores or labels are not real.
        ValueError: if the shapes do not fit.

    References:
        Su, *CoSENT (1)*, 2022, the tables. https://kexue.fm/archives/8847
    """
    scores, labels = comparable("scores", scores), comparable("labels", labels)
    require_rows(("scores", "labels"), scores, labels)
    mean = 0.5 * (len(scores) + 1)
    # Relative to n: the squares of a million ranks would exhaust the digits.
    r, q = (2.0 / mean * (average_ranks(x) - mean) for x in (scores, labels))
    dtype = jnp.promote_types(r.dtype, q.dtype)
    r, q = r.astype(dtype), q.astype(dtype)
    r_norm, q_norm = (jnp.sqrt(jnp.sum(jnp.square(x))) for x in (r, q))
    product = jnp.sum(r / r_norm * (q / q_norm))
    return jnp.clip(product, -1.0, 1.0)
