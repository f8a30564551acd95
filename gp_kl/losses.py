r"""Multi-label cross-entropy: any number of true classes, and no threshold to tune.

Su et al. (2022), *Global Pointer*, after the essay
https://kexue.fm/archives/7359. With P the classes that apply and Q those that do not,

.. math:: L = \log\Big(1 + \sum_{i \in Q} e^{s_i}\Big)
            + \log\Big(1 + \sum_{i \in P} e^{-s_i}\Big).

It wants every score of P above 0 and every score of Q below 0, and it compares them as
a softmax does: a few positives among very many negatives, as with the spans of a
sentence, need no weights, since the gradients of each of the two terms add up to at
most 1 however many classes there are.

What differs from implementations: they add -1e12 to what does not count and put a 0
next to the scores. In JAX float16 that number is inf, and inf times 0 is nan. Here
masks select, low precision is added up in float32, and a term far below 1 keeps its
digits (`log1p`). The usual loss from indices, :math:`\log(e^{a} - e^{b})` with a over
all classes and b over the positives, has no digits left once the positives dominate;
here the positives are taken out before adding. Example::

    >>> scores = jnp.array([3.0, -2.0, -4.0])
    >>> multilabel_cross_entropy(scores, jnp.array([True, False, False]))
    Array(0.19151..., dtype=float32)
    >>> sparse_multilabel_cross_entropy(scores, jnp.array([0, -1]))  # -1: padding
    Array(0.19151..., dtype=float32)
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from expkit import trees
from expkit.arguments import (
    as_integers,
    as_real,
    broadcast_mask,
    is_concrete,
    require_shape,
    wide_integers,
)

Axis = int | Sequence[int]


def multilabel_cross_entropy(
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    axis: Axis = -1,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy of any number of labels among many classes.

    .. math:: \log\Big(1 + \sum_i t_i e^{-s_i}\Big)
              + \log\Big(1 + \sum_i (1 - t_i) e^{s_i}\Big).

    Labels of 0 and 1 give the loss of Global Pointer. Others are soft labels; one class
    alone is then at its optimum where :math:`t = \sigma(2 s)`. For the spans of a
    sentence, scores `[batch, types, n, n]`, take `axis=(-2, -1)` and the mean of the
    result over batch and types.

    Args:
        logits: s, real floating-point, any shape. -inf excludes a class that does not
            apply.
        labels: t, the same shape; booleans, integers 0 and 1, or probabilities in
            [0, 1]. They have a derivative where they are between 0 and 1.
        axis: the axis of the classes, or several.
        where: boolean, broadcasts to the shape of the logits; the classes that count.
            Logits and labels of others may be anything and get no gradient.

    Returns:
        Losses, at least 0, in the shape of the logits without `axis`, float32 or wider;
        gradients have the dtypes of the logits. 0 with a zero gradient where nothing
        counts. A class that applies at -inf, or does not at +inf, makes the loss inf,
        with a zero gradient. A label that counts and is a traced integer other than 0
        and 1 makes it nan.

    Raises:
        TypeError: if `where` is not boolean, logits or labels are complex, or `axis` is
            no integer.
        ValueError: if the shapes do not fit, an axis does not exist, or a label that
            counts is not in [0, 1], where labels and `where` are concrete; NumPy arrays
            are also under `jit`.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, the loss. https://arxiv.org/abs/2208.03054
        Su, *Softmax and cross-entropy for multi-label classification*, 2020.
        https://kexue.fm/archives/7359
        Su, *Soft labels for the multi-label softmax*, 2022.
        https://kexue.fm/archives/9064
    """
    s, t = as_real("logits", logits), as_real("labels", labels)
    require_shape("labels", t, s.shape)
    axes = _axes(axis, s.ndim)
    keep = broadcast_mask(where, s.shape)
    _check_labels(labels, t.dtype, where, s.shape)
    s = jnp.where(keep, s.astype(trees.wide_dtype(s)), 0.0)
    is_valid = None
    if jnp.issubdtype(t.dtype, jnp.floating):
        t = jnp.where(keep, t.astype(s.dtype), 0.0)
        # Negated, so that a label that is nan makes the loss nan.
        positive = _soft(-s, t, keep & ~(t <= 0.0))
        negative = _soft(s, 1.0 - t, keep & ~(t >= 1.0))
    else:
        is_true = t.astype(bool)
        positive = jnp.where(keep & is_true, -s, -jnp.inf)
        negative = jnp.where(keep & ~is_true, s, -jnp.inf)
        if t.dtype != bool:
            is_valid = jnp.all(~keep | (t == 0) | (t == 1), axes)
    loss = _log_one_plus_sum(positive, axes) + _log_one_plus_sum(negative, axes)
    return loss if is_valid is None else jnp.where(is_valid, loss, jnp.nan)


def sparse_multilabel_cross_entropy(
    logits: jax.typing.ArrayLike,
    positive_indices: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Multi-label cross-entropy from the indices of the classes that apply.

    .. math:: \log\Big(1 + \sum_{i \in P} e^{-s_i}\Big)
              + \log\Big(1 + \sum_{i \notin P} e^{s_i}\Big).

    The same number as from dense labels, without an array of labels: the positive
    scores are gathered, then overwritten with -inf. XLA does that in place: a training
    step and the gradient need O(k) memory besides the scores and their gradient. For
    spans, put the cells in a row, `scores.reshape(batch, types, n * n)`, where (i, j)
    has the index `i * n + j`.

    Args:
        logits: s, `[..., classes]`, real floating-point. -inf excludes a class that
            does not apply.
        positive_indices: integers `[..., k]` below the number of classes, in any order.
            A negative one is padding; one that repeats counts once.
        where: boolean, broadcasts to the shape of the logits; the classes that count.

    Returns:
        Losses `[...]`, at least 0, float32 or wider. nan where a traced index is too
        large.

    Raises:
        TypeError: if `where` is not boolean, logits are complex or the indices no
            integers.
        ValueError: if the shapes do not fit, or a concrete index is too large.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, the loss. https://arxiv.org/abs/2208.03054
        Su, *Softmax and cross-entropy for multi-label classification*, 2020.
        https://kexue.fm/archives/7359
    """
    s = as_real("logits", logits)
    indices = _as_indices(positive_indices, s.shape)
    num_classes = s.shape[-1]
    wide = s.astype(trees.wide_dtype(s))
    indices = wide_integers(indices)
    is_valid = jnp.all(indices < num_classes, axis=-1)
    indices = jnp.minimum(indices, num_classes)
    if jnp.issubdtype(indices.dtype, jnp.signedinteger):
        indices = jnp.maximum(indices, -1)  # differences of others may overflow
    ordered = jnp.sort(indices.astype(jnp.int32), axis=-1)
    counts = (ordered >= 0) & (jnp.diff(ordered, axis=-1, prepend=-1) > 0)
    # Different places beyond the end for what is no class: then all are unique.
    beyond = num_classes + np.arange(indices.shape[-1], dtype=np.int32)
    place = jnp.where(counts, ordered, jnp.broadcast_to(beyond, ordered.shape))
    if where is not None:
        keep = broadcast_mask(where, s.shape)
        # nan must not reach the sums, nor the gradient of the gathered scores.
        wide = jnp.where(keep, wide, -jnp.inf)
        counts &= jnp.take_along_axis(keep, place, -1, mode="fill", fill_value=False)
    taken, negative = _take_out(wide, place)
    positive = jnp.where(counts, -jnp.where(counts, taken, 0.0), -jnp.inf)
    loss = _log_one_plus_sum(positive, (-1,)) + _log_one_plus_sum(negative, (-1,))
    return jnp.where(is_valid, loss, jnp.nan)


def _take_out(s, place):
    """Scores at the places, and the array with -inf there; places may be beyond."""
    if s.ndim > 1:
        return jax.vmap(_take_out)(s, place)
    at = s.at[place]
    taken = at.get(mode="fill", fill_value=0.0, unique_indices=True)
    # That what is written depends on what was read tells XLA to read first, and so to
    # write in place.
    written = jax.lax.stop_gradient(jnp.minimum(taken, -jnp.inf))
    return taken, at.set(written, mode="drop", unique_indices=True)


def _soft(z, weight, is_used):
    """Logarithms of `weight * exp(z)`."""
    log_weight = jnp.log(jnp.where(is_used, weight, 1.0))
    return jnp.where(is_used, z + log_weight, -jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_one_plus_sum(z, axes):
    """`log(1 + sum exp(z))` over the axes, in which -inf has no part.

    The derivative in closed form needs two numbers a row besides the scores, where the
    one that JAX finds keeps what is between them.
    """
    shift = _shift(z, axes)
    total = jnp.sum(jnp.exp(z - shift), axes, keepdims=True)
    return jnp.squeeze(shift + jnp.log1p(total + jnp.expm1(-shift)), axes)


@_log_one_plus_sum.defjvp
def _log_one_plus_sum_jvp(axes, primals, tangents):
    (z,), (change,) = primals, tangents
    # Not exp(z - value), since the value is rounded to the digits of the scores. The
    # shares are the same for any shift, which so has no part in their derivatives.
    shift = jax.lax.stop_gradient(_shift(z, axes))
    # Computed as in the value, so that XLA does it once and keeps no more.
    powers = jnp.exp(z - shift)
    whole = jnp.sum(powers, axes, keepdims=True) + jnp.exp(-shift)
    shares = jnp.where(jnp.isposinf(whole), 0.0, powers / whole)
    return _log_one_plus_sum(z, axes), jnp.sum(shares * change, axes)


def _shift(z, axes):
    """The largest of 0 and the scores; 0 where one of them is inf."""
    shift = jnp.max(z, axes, keepdims=True, initial=0.0)
    return jnp.where(jnp.isposinf(shift), 0.0, shift)


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes counted from 0."""
    given = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    if not all(hasattr(a, "__index__") for a in given):
        raise TypeError(f"axis must be an integer or several, got {axis!r}.")
    axes = tuple(a + ndim if a < 0 else a for a in given)
    if any(not 0 <= a < ndim for a in axes) or len(set(axes)) < len(axes) or not axes:
        raise ValueError(
            f"axis must name different axes of logits with {ndim} axes, got {axis!r}."
        )
    return axes


def _check_labels(labels, dtype, where, shape):
    """Raises for labels that are known and count; those of the host are under `jit`."""
    if not (is_concrete(labels) and is_concrete(where)):
        return
    values = np.asarray(labels)  # JAX would cut integers to 32 bits
    if jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(dtype)
    if where is not None:
        values = values[np.broadcast_to(np.asarray(where), shape)]
    is_wrong = ~((values >= 0) & (values <= 1))
    if is_wrong.any():
        raise ValueError(
            f"labels must be in [0, 1], got {values[is_wrong][0]}; leave cells without "
            "a label out with `where`."
        )


def _as_indices(indices, shape):
    """Checked indices; known ones before JAX cuts them to 32 bits."""
    cut = as_integers("positive_indices", indices)
    if not isinstance(indices, jax.Array):
        indices = np.asarray(indices)
    if len(shape) < 1 or indices.ndim != len(shape) or indices.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"positive_indices must be [..., k] next to logits of shape {shape}, got "
            f"shape {indices.shape}."
        )
    if is_concrete(indices) and (np.asarray(indices) >= shape[-1]).any():
        raise ValueError(
            f"positive_indices must be below the number of classes {shape[-1]}, got "
            f"{np.asarray(indices).max()}; padding is negative."
        )
    return cut
