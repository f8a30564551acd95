r"""CoSENT: every pair with a higher label should have a higher similarity.

Su (2022), CoSENT (1), with :math:`s_i` the cosine of the i-th pair of sentences,
:math:`y_i` its label and :math:`\lambda` the scale:

.. math:: L = \log\Big(1 + \sum_{y_i > y_j} e^{\lambda (s_j - s_i)}\Big).

What differs: implementations compare all :math:`b^2` pairs of rows, with the unwanted
differences lowered by 1e12, which is nan in float16. Here the rows are sorted by label
and the inner sums are the suffixes of one cumulative log-sum-exp: O(b log b) time, O(b)
memory, the same number (a sort was proposed for sentence-transformers in its pull
request 4030). Every partial sum is kept relative to the smallest similarity in it
(`cosent.suffix_sums`), so that a large scale costs no digits. Below `CROSSING` rows,
where it is faster, all pairs are compared. Boolean labels need no sort at all.

Example, with `u` and `v` of shape `[batch, dim]` from one encoder::

    loss = cosent_loss(pairwise_cosine(u, v), labels)
"""

import jax
import jax.numpy as jnp

from cosent.arguments import comparable, require_mask, require_rows, require_scale
from cosent.suffix_sums import suffix_log_sums
from expkit import explicit, trees

CROSSING = 182
"""Batches of fewer rows are compared pair by pair: measured on a CPU, where a table of
more than 2^15 pairs takes twice as long."""


def cosent_loss(
    similarities: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    scale: jax.typing.ArrayLike = 20.0,
    where: jax.typing.ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    r"""Penalty on similarities that are not in the order of the labels.

    .. math:: \log\Big(1 + \sum_{y_i > y_j} e^{\lambda (s_j - s_i)}\Big).

    A sum over pairs, not a mean: it grows with the logarithm of their number, so that a
    learning rate belongs to a batch size. Only the order of the labels counts; rows
    with equal labels form no pair. A batch with a single label has the loss 0 and a
    zero gradient.

    Args:
        similarities: :math:`s`, cosines of pairs `[b]`, real and finite.
        labels: :math:`y`, real numbers `[b]`, larger for more similar. They are
            compared in their own dtype, also those that JAX would narrow to 32 bits as
            long as they are on the host. Boolean ones take `binary_cosent_loss`.
        scale: :math:`\lambda`, positive, may be traced.
        where: boolean `[b]`; rows that count. Others may hold anything.
        axis_name: of the mapped axis, or a tuple of them, over which `shard_map` or
            `pmap` splits the batch: the loss is that of the whole batch, the same on
            every device. Only similarities, labels and `where` travel. Average
            gradients taken inside of the map over the devices (`pmean`), if the map
            does not do it by itself.

    Returns:
        Scalar, float32 or wider, at least 0. nan if a row that counts holds nan.

    Raises:
        TypeError: if `similarities` is not floating-point, `labels` is not real,
            `where` is not boolean or `scale` is no number.
        ValueError: if shapes do not fit, or for a concrete `scale` that is not positive
            and finite.

    References:
        Su, *CoSENT (1): A More Effective Sentence Embedding Scheme than Sentence-BERT*,
        2022. https://kexue.fm/archives/8847
    """
    rows = _prepare(similarities, labels, scale, where, axis_name)
    similarities, labels, _, _ = rows
    if labels.dtype == bool:
        loss = _spread_nan(_binary(*rows), rows)
    elif len(similarities) < CROSSING:
        loss = _all_pairs(*rows)
    else:
        loss = _spread_nan(_by_sorting(*rows), rows)
    return _same_everywhere(loss, axis_name)


def binary_cosent_loss(
    similarities: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    scale: jax.typing.ArrayLike = 20.0,
    where: jax.typing.ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    r"""CoSENT for two labels, in O(b) time.

    .. math:: \log\Big(1 + \sum_{y_j = 0} e^{\lambda s_j}
              \sum_{y_i = 1} e^{-\lambda s_i}\Big).

    Args:
        similarities: :math:`s`, cosines of pairs `[b]`, real and finite.
        labels: :math:`y`, boolean `[b]`: whether a pair is similar.
        scale: :math:`\lambda`, positive, may be traced.
        where: boolean `[b]`; rows that count. Others may hold anything.
        axis_name: as in `cosent_loss`.

    Returns:
        Scalar, float32 or wider, at least 0; equal to `cosent_loss`.

    Raises:
        TypeError: if `labels` or `where` is not boolean, `similarities` not
            floating-point or `scale` no number.
        ValueError: if shapes do not fit, or for a concrete `scale` that is not positive
            and finite.

    References:
        Su, *Extending Softmax plus Cross-Entropy to Multi-Label Classification*, 2020,
        the factored sum. https://kexue.fm/archives/7359
    """
    labels = comparable("labels", labels)
    if labels.dtype != bool:
        raise TypeError(f"labels must be boolean, got {labels.dtype}; pass labels > 0.")
    rows = _prepare(similarities, labels, scale, where, axis_name)
    return _same_everywhere(_spread_nan(_binary(*rows), rows), axis_name)


def _prepare(similarities, labels, scale, where, axis_name):
    """The rows of all devices; similarities in a wide dtype, 0 where masked."""
    require_scale(scale)
    similarities = jnp.asarray(similarities)
    if not jnp.issubdtype(similarities.dtype, jnp.floating):
        raise TypeError(
            f"similarities must be floating-point, got {similarities.dtype}."
        )
    labels = comparable("labels", labels)
    require_rows(("similarities", "labels"), similarities, labels)
    similarities = similarities.astype(trees.wide_dtype(similarities.dtype))
    if where is not None:
        where = require_mask(where, similarities.shape)
        similarities = jnp.where(where, similarities, 0.0)

    def whole(x):
        if axis_name is not None:
            x = jax.lax.all_gather(x, axis_name, tiled=True)
        return explicit.whole(x)

    similarities, labels = whole(similarities), whole(labels)
    where = None if where is None else whole(where)
    return similarities, labels, jnp.asarray(scale, similarities.dtype), where


def _same_everywhere(loss, axis_name):
    """The loss, known to be the same on every device."""
    return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def _is_nan(similarities, labels, where):
    """Rows that count and hold nan."""
    is_nan = jnp.isnan(similarities)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        is_nan |= jnp.isnan(labels)
    return is_nan if where is None else is_nan & where


def _spread_nan(loss, rows):
    """A factor, so that the gradient of every row that is in a pair is nan as well."""
    similarities, labels, _, where = rows
    is_nan = jnp.any(_is_nan(similarities, labels, where))
    return loss * jnp.where(is_nan, jnp.nan, 1.0)


def _all_pairs(similarities, labels, scale, where):
    """The definition: `[b, b]` differences, row i above row j."""
    is_pair = labels[:, None] > labels[None, :]
    if where is not None:
        is_pair &= where[:, None] & where[None, :]
    # What is no pair adds nothing, but in a row with nan, which makes the sum nan.
    nothing = jnp.where(_is_nan(similarities, labels, where), jnp.nan, -jnp.inf)
    differences = scale * (similarities[None, :] - similarities[:, None])
    return _softplus_of_sum(jnp.where(is_pair, differences, nothing[:, None]))


def _by_sorting(similarities, labels, scale, where):
    if where is None:
        order = jnp.argsort(labels)
        where = jnp.ones(labels.shape, bool)
    else:
        # Rows that do not count come first: no suffix of a row that counts has them.
        order = jnp.lexsort((labels, where))
    s, labels, where = (x[order] for x in (similarities, labels, where))
    size = len(s)
    is_first = (labels[1:] != labels[:-1]) | (where[1:] != where[:-1])
    starts = jnp.where(is_first, jnp.arange(1, size), size)
    # The first row of the next higher label; `size` where there is none.
    above = jnp.append(jax.lax.cummin(starts, reverse=True), size)
    smallest, logs = suffix_log_sums(s, scale)
    is_pair = where & (above < size)
    above = jnp.minimum(above, size - 1)
    exponents = scale * (s - smallest[above]) + logs[above]
    return _softplus_of_sum(jnp.where(is_pair, exponents, -jnp.inf))


def _binary(similarities, labels, scale, where):
    where = True if where is None else where
    positives, negatives = where & labels, where & ~labels
    highest, log_negative = _log_sum(similarities, scale, negatives)
    lowest, log_positive = _log_sum(-similarities, scale, positives)
    exponent = scale * (highest + lowest) + log_negative + log_positive
    is_pair = jnp.any(positives) & jnp.any(negatives)
    return jnp.where(is_pair, jnp.logaddexp(exponent, 0.0), 0.0)


def _softplus_of_sum(exponents):
    """log(1 + sum of exp); 0 where all exponents are -inf."""
    largest = jax.lax.stop_gradient(jnp.max(exponents, initial=0.0))
    total = jnp.sum(jnp.exp(exponents - largest))
    return largest + jnp.log1p(total + jnp.expm1(-largest))


def _log_sum(x, scale, where):
    """The largest selected x, a constant, and log sum exp(scale (x - largest))."""
    largest = jnp.max(x, initial=-jnp.inf, where=where)
    largest = jax.lax.stop_gradient(jnp.where(jnp.any(where), largest, 0.0))
    powers = jnp.exp(scale * jnp.where(where, x - largest, 0.0))
    total = jnp.sum(powers, where=where)
    return largest, jnp.log(jnp.where(jnp.any(where), total, 1.0))
