r"""The losses that CoSENT is compared with, on the vectors u and v of two sentences.

- Sentence-BERT (Reimers & Gurevych 2019): softmax over classes on
  :math:`[u, v, |u - v|]`. It trains the features of a classifier and compares cosines
  afterwards, which is the inconsistency that CoSENT removes.
- Squared error of the cosine, their objective for graded labels.
- In-batch contrastive: each u must find its v among those of the batch.

What differs: cosines of zero vectors are 0 (`cosent.similarity`), and the derivative of
:math:`|u - v|` is 0 where it has none, at equal entries. The contrastive loss
is `optax.softmax_cross_entropy_with_integer_labels` over the matrix of cosines, with u
looking for v. `optax.ntxent` is another one: both sides are anchors, its table of
differences takes O(b^2 dim) memory, and it cannot leave a row out.

Example::

    params = init_sentence_bert(jax.random.key(0), dim=384, num_classes=3)
    loss = sentence_bert_loss(params, u, v, labels)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cosent.arguments import require_mask, require_scale, require_vectors
from cosent.similarity import cosine_matrix, pairwise_cosine
from expkit import explicit, trees
from expkit.arguments import (
    as_integers,
    as_real,
    is_concrete,
    require_count,
    require_shape,
    wide_integers,
)


def init_sentence_bert(key: jax.Array, dim: int, num_classes: int) -> Any:
    """Parameters of the softmax layer: small weights, a bias of 0.

    Args:
        key: typed key.
        dim: width of a sentence vector, at least 1.
        num_classes: at least 1.

    Returns:
        `{"w": [3 * dim, num_classes], "b": [num_classes]}`, uniform as in Glorot &
        Bengio (2010), and 0.

    Raises:
        TypeError: if `dim` or `num_classes` is no integer.
        ValueError: if one of them is less than 1.

    References:
        Reimers & Gurevych, *Sentence-BERT*, 2019, the classification objective.
        https://arxiv.org/abs/1908.10084
    """
    require_count("dim", dim)
    require_count("num_classes", num_classes)
    init = jax.nn.initializers.glorot_uniform()
    return {"w": init(key, (3 * dim, num_classes)), "b": jnp.zeros(num_classes)}


def pair_features(u: jax.typing.ArrayLike, v: jax.typing.ArrayLike) -> jax.Array:
    r"""Both vectors and how far they are apart in each coordinate.

    .. math:: [u, v, |u - v|].

    Args:
        u: `[..., dim]`, real floating-point.
        v: `[..., dim]`, the same shape.

    Returns:
        `[..., 3 * dim]`. The gradient of the third part is 0 where u equals v.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes differ.

    References:
        Reimers & Gurevych, *Sentence-BERT*, 2019, the table of concatenations.
        https://arxiv.org/abs/1908.10084
    """
    u, v = jnp.asarray(u), jnp.asarray(v)
    require_vectors(u, v)
    difference = u - v
    # The derivative of jnp.abs at 0 is 1, and equal sentences are common.
    distance = jnp.where(difference == 0.0, 0.0, jnp.abs(difference))
    return jnp.concatenate([u, v, distance], axis=-1)


def sentence_bert_logits(
    params: Any, u: jax.typing.ArrayLike, v: jax.typing.ArrayLike
) -> jax.Array:
    r"""Scores of the classes of a pair.

    .. math:: W^\top [u, v, |u - v|] + b.

    Args:
        params: from `init_sentence_bert`.
        u: `[..., dim]`, real floating-point.
        v: `[..., dim]`, the same shape.

    Returns:
        `[..., num_classes]`.

    Raises:
        TypeError: if one of them is not floating-point.
        ValueError: if the shapes of u and v differ.

    References:
        Reimers & Gurevych, *Sentence-BERT*, 2019, the classification objective.
        https://arxiv.org/abs/1908.10084
    """
    logits = pair_features(u, v) @ params["w"]
    return logits + jnp.broadcast_to(params["b"], logits.shape)


def sentence_bert_loss(
    params: Any,
    u: jax.typing.ArrayLike,
    v: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean cross-entropy of the classes of pairs.

    .. math:: -\frac{1}{b} \sum_i \log \mathrm{softmax}
              (W^\top [u_i, v_i, |u_i - v_i|] + b)_{y_i}.

    Args:
        params: from `init_sentence_bert`.
        u: `[b, dim]`, real floating-point.
        v: `[b, dim]`.
        labels: integers `[b]` in [0, classes). A traced one out of range gives nan.
        where: boolean `[b]`; pairs that count. Others may hold anything.

    Returns:
        Scalar, float32 or wider. 0 with a zero gradient if `where` selects nothing.

    Raises:
        TypeError: if u or v is not floating-point, `labels` not integer or `where` not
            boolean.
        ValueError: if shapes do not fit, or a concrete label is out of range.

    References:
        Reimers & Gurevych, *Sentence-BERT*, 2019, the classification objective.
        https://arxiv.org/abs/1908.10084
    """
    u, v, where = _select(u, v, where)
    labels = as_integers("labels", labels)
    logits = sentence_bert_logits(params, u, v)
    size = logits.shape[-1]
    labels = _check_targets("labels", labels, where, 0, size - 1)
    logits = logits.astype(trees.wide_dtype(logits.dtype))
    # optax counts a negative label from the end.
    labels = wide_integers(labels)
    labels = jnp.where(labels < 0, size, labels)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return _mean(losses, where)


def cosine_mse_loss(
    u: jax.typing.ArrayLike,
    v: jax.typing.ArrayLike,
    targets: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean squared error of the cosine.

    .. math:: \frac{1}{b} \sum_i (\cos(u_i, v_i) - y_i)^2.

    Args:
        u: `[b, dim]`, real floating-point.
        v: `[b, dim]`.
        targets: y, real numbers `[b]` in [-1, 1], as grades divided by the highest, or
            cosines of a teacher, which rounding may put a little beyond.
        where: boolean `[b]`; pairs that count. Others may hold anything.

    Returns:
        Scalar, float32 or wider. 0 with a zero gradient if `where` selects nothing.

    Raises:
        TypeError: if u or v is not floating-point, `targets` complex or `where` not
            boolean.
        ValueError: if shapes do not fit, or a concrete target is out of range.

    References:
        Reimers & Gurevych, *Sentence-BERT*, 2019, the regression objective.
        https://arxiv.org/abs/1908.10084
    """
    u, v, where = _select(u, v, where)
    targets = as_real("targets", targets)
    beyond = 8 * float(jnp.finfo(trees.wide_dtype(targets.dtype)).eps)
    targets = _check_targets("targets", targets, where, -1, 1, beyond)
    cosines = pairwise_cosine(u, v)
    return _mean(jnp.square(cosines - targets.astype(cosines.dtype)), where)


def in_batch_contrastive_loss(
    u: jax.typing.ArrayLike,
    v: jax.typing.ArrayLike,
    *,
    scale: jax.typing.ArrayLike = 20.0,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean cross-entropy of finding the own partner in the batch.

    .. math:: -\frac{1}{b} \sum_i \log \frac{e^{\lambda \cos(u_i, v_i)}}
              {\sum_j e^{\lambda \cos(u_i, v_j)}}.

    Args:
        u: `[b, dim]`, real floating-point.
        v: `[b, dim]`; v_i belongs to u_i, and every other row is a wrong answer.
        scale: :math:`\lambda`, positive, may be traced; the inverse of a temperature.
        where: boolean `[b]`; pairs that count, as question and as answer. Others may
            hold anything.

    Returns:
        Scalar, float32 or wider. 0 with a zero gradient if `where` selects nothing, or
        a single pair.

    Raises:
        TypeError: if u or v is not floating-point, `where` not boolean or `scale` no
            number.
        ValueError: if shapes do not fit, or for a concrete `scale` that is not positive
            and finite.

    References:
        Henderson et al., *Efficient Natural Language Response Suggestion for Smart
        Reply*, 2017, multiple negatives. https://arxiv.org/abs/1705.00652
    """
    require_scale(scale)
    return explicit.freely(_find_own, *_select(u, v, where), scale)


def _find_own(u, v, where, scale):
    """Mean cross-entropy of finding row i of v by row i of u."""
    table = cosine_matrix(u, v)
    table *= jnp.asarray(scale, table.dtype)
    # A row that does not count keeps its own answer, so that it stays finite.
    own = jnp.arange(len(table))
    table = jnp.where(where[None, :] | (own[:, None] == own[None, :]), table, -jnp.inf)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(table, own)
    return _mean(losses, where)


def _select(u, v, where):
    """Vectors in one wide dtype, 0 where a pair does not count, and the mask."""
    u, v = jnp.asarray(u), jnp.asarray(v)
    require_vectors(u, v)
    if u.ndim != 2 or not len(u):
        raise ValueError(f"u and v must have the shape [b, dim], got {u.shape}.")
    where = require_mask(
        jnp.ones(len(u), bool) if where is None else where, u.shape[:1]
    )
    wide = trees.wide_dtype(jnp.result_type(u, v))
    u, v = (jnp.where(where[:, None], x.astype(wide), 0.0) for x in (u, v))
    return u, v, where


def _check_targets(name, values, where, smallest, largest, beyond=0.0):
    """Targets with a value in range where a pair does not count."""
    require_shape(name, values, where.shape)
    values = jnp.where(where, values, 0)
    if is_concrete(values):
        known = np.asarray(values)
        is_wrong = ~((known >= smallest - beyond) & (known <= largest + beyond))
        if is_wrong.any():
            raise ValueError(
                f"{name} must be in [{smallest}, {largest}], got {known[is_wrong][0]}; "
                "leave unlabelled pairs out with `where`."
            )
    return values


def _mean(values, where):
    """Over the pairs selected; 0 of none."""
    total = jnp.sum(jnp.where(where, values, 0.0))
    return total / jnp.maximum(jnp.sum(where), 1).astype(total.dtype)
