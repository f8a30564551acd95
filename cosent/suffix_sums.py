r"""Sums of exponentials over all suffixes of a list, at any scale, in O(n) memory.

The inner sums of CoSENT (Su 2022) over rows sorted by label. With
:math:`m_k = \min_{i \ge k} s_i`,

.. math:: \log \sum_{i \ge k} e^{-\lambda s_i}
          = -\lambda m_k + \log \sum_{i \ge k} e^{\lambda (m_k - s_i)}.

What differs from a cumulative log-sum-exp of :math:`-\lambda s`: the two terms are kept
apart, so that the first one can be subtracted from a similarity before the scale
multiplies, without rounding. `jax.lax.associative_scan` over the pairs would do, but
takes long to compile; here rows are summed in groups of 8, groups in groups of 8, and
so on: a few operations for each power of 8.

Example::

    smallest, logs = suffix_log_sums(similarities, scale=20.0)
"""

import jax
import jax.numpy as jnp

GROUP = 8


def suffix_log_sums(
    x: jax.Array, scale: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    r"""Minimum of every suffix, and log-sum-exp relative to it.

    .. math:: m_k = \min_{i \ge k} x_i, \qquad
              \log \sum_{i \ge k} e^{\lambda (m_k - x_i)}.

    Args:
        x: `[n]`, n >= 1, float32 or wider, finite.
        scale: :math:`\lambda`, positive.

    Returns:
        `(m [n], logs [n])`. m is a constant: the derivative of what both describe,
        :math:`-\lambda m + \mathrm{logs}`, is all in the second one.
    """
    smallest = jax.lax.stop_gradient(x)
    smallest, sums = _suffix_sums(smallest, jnp.exp(scale * (smallest - x)), scale)
    return smallest, jnp.log(sums)


def _suffix_sums(m, sums, scale):
    """Of entries that stand for `sums` times exp(-scale m)."""
    size = len(m)
    groups = -(-size // GROUP)
    width = min(size, GROUP)
    padding = groups * width - size
    # The last entry is in every suffix: a copy of weight 0 changes no minimum.
    m = jnp.append(m, jnp.broadcast_to(m[-1], padding)).reshape(groups, width)
    sums = jnp.pad(sums, (0, padding)).reshape(groups, width)
    m, sums = _within_groups(m, sums, scale)
    if groups > 1:
        later = _suffix_sums(m[:, 0], sums[:, 0], scale)
        later_m = jnp.append(later[0][1:], m[-1, -1])[:, None]
        later_sums = jnp.append(later[1][1:], 0.0)[:, None]
        least = jnp.minimum(m, later_m)
        sums *= jnp.exp(scale * (least - m))
        sums += later_sums * jnp.exp(scale * (least - later_m))
        m = least
    return m.ravel()[:size], sums.ravel()[:size]


def _within_groups(m, sums, scale):
    """Suffixes of each row, by a small table: entry k of the row against entry i."""
    width = m.shape[1]
    is_in = jnp.arange(width)[:, None] <= jnp.arange(width)[None, :]
    is_in = is_in[None]
    each = m[:, None, :]
    least = jnp.min(jnp.where(is_in, each, jnp.inf), axis=2)
    powers = jnp.exp(jnp.where(is_in, scale * (least[:, :, None] - each), -jnp.inf))
    return least, jnp.sum(powers * sums[:, None, :], axis=2)
