"""What training minimises: the loss of spans, with and without a regulariser.

loss = OBJECTIVES["rdrop"](Settings(strength=1.0), task, params, batch, key)
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gp_kl
import igr
import rdrop
from expkit import text_spans

Batch = Mapping[str, Any]


class Settings(NamedTuple):
    """What a regulariser reads.

    Attributes:
        strength: alpha of R-Drop, or the weight of VAT; may be traced.
        radius: of VAT's perturbation; may be traced.
        reduction: of the divergence over the cells, sum or mean.
    """

    strength: jax.Array | float
    radius: jax.Array | float = 1.0
    reduction: str = "sum"


def _plain(settings, task, params, batch: Batch, key):
    """The multi-label cross-entropy, mean over texts and types."""
    del settings
    scores = task.net.apply(params, text_spans.inputs(batch), key)
    return _cross_entropy(scores, text_spans.dense_labels(batch["spans"], scores))


def _rdrop(settings, task, params, batch: Batch, key):
    """Two passes whose scores have to agree; strength is alpha."""
    scores, labels = _two_passes(task, params, batch, key)
    alpha, _, reduction = settings
    return gp_kl.span_rdrop_loss(*scores, labels, alpha, reduction=reduction)


def _rdrop_softmax(settings, task, params, batch: Batch, key):
    """As R-Drop, with the divergence of a softmax over all cells of a type."""
    scores, labels = _two_passes(task, params, batch, key)
    first, second = (x.reshape(*x.shape[:2], -1) for x in scores)
    apart = rdrop.symmetric_kl(first, second, where=jnp.isfinite(first))
    losses = _cross_entropy(scores[0], labels) + _cross_entropy(scores[1], labels)
    return losses + 0.5 * settings.strength * jnp.mean(jnp.sum(apart, axis=-1))


def _vat(settings, task, params, batch: Batch, key):
    """The loss, and how far a small change of the embeddings moves the scores."""
    loss_key, drop_key, key = jax.random.split(key, 3)
    loss = _plain(settings, task, params, batch, loss_key)

    def scores_fn(offset):
        x = {**text_spans.inputs(batch), "offset": offset}
        return task.net.apply(params, x, drop_key)

    width = params["encoder"]["embeddings"]["word"].shape[1]
    apart = igr.virtual_adversarial_loss(
        scores_fn,
        jnp.zeros((*batch["ids"].shape, width)),
        key,
        epsilon=settings.radius,
        divergence=functools.partial(
            gp_kl.span_divergence, reduction=settings.reduction
        ),
    )
    return loss + settings.strength * jnp.mean(apart)


def crf(settings: Settings, task: Any, params: Any, batch: Batch, key) -> jax.Array:
    """The negative log-likelihood of the tags, mean over texts.

    Args:
        settings: not used.
        task: of `gp_kl.train`.
        params: of its network.
        batch: rows of its arrays.
        key: of the dropout.

    Returns:
        A scalar.
    """
    del settings
    hidden = task.net.apply(params, text_spans.inputs(batch), key)
    tags, mask = batch["tags"], batch["is_token"]
    return -jnp.mean(task.head.log_likelihood(params["head"], hidden, tags, mask))


def _cross_entropy(scores, labels):
    return jnp.mean(gp_kl.multilabel_cross_entropy(scores, labels, axis=(-2, -1)))


def _two_passes(task, params, batch: Batch, key):
    scores = rdrop.two_passes(task.net.apply, params, text_spans.inputs(batch), key)
    return scores, text_spans.dense_labels(batch["spans"], scores[0])


OBJECTIVES = {
    "none": _plain,
    "rdrop": _rdrop,
    "rdrop_softmax": _rdrop_softmax,
    "vat": _vat,
}
"""`(settings, task, params, batch, key) -> loss`, by the name of the regulariser."""
