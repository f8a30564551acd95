"""Trains an encoder to find spans: Global Pointer, its rivals, its regularisers."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import gp_kl
import igr
import rdrop
from expkit import config as config_lib
from expkit import finetuning, labelled_spans, loop, nets, text_spans, training
from expkit.arguments import require_scalar

Batch = Mapping[str, Any]
Found = list[set[labelled_spans.Span]]
CHAIN = ("transitions", "start", "end")


class Task(NamedTuple):
    """Model and data.

    Attributes:
        net: of `expkit.text_spans.tagger`; outputs are scores [batch, types, n, n] of
            spans, or scores [batch, n, tags] of the CRF.
        head: what `net` has on top of the encoder.
        params: before the first step.
        data: texts, spans and windows.
        arrays: the windows of each split; those of the CRF have `tags`.
    """

    net: nets.Net
    head: Any
    params: nets.Params
    data: text_spans.SpanTexts
    arrays: dict[str, dict[str, np.ndarray]]


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        F1 of exact spans on the validation and test splits at the end, in all and of
        each type.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        task = load_task(config)
        loss_fn, optimizer = make_loss(config, task), make_optimizer(config)
        predict = make_prediction(config, task)
        fit = training.prepare(
            config,
            workdir,
            task.arrays,
            lambda params: figures(task, "validation", predict(params, "validation")),
        )
    run_key = jax.random.split(jax.random.key(config.seed))[1]
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(task.params, optimizer, run_key),
    )
    out = {}
    for split in ("validation", "test"):
        out |= figures(task, split, predict(state.params, split))
    return out


def load_task(config: ml_collections.ConfigDict) -> Task:
    """Loads data and encoder, and puts the head of a config on top.

    Args:
        config: see `configs/gp_kl/news_entities.py`.

    Returns:
        The task.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    make_head = config_lib.choose("head", config.head, HEADS)
    spans = text_spans.load_spans(config)
    arrays = {split: spans.arrays(split) for split in spans.splits}
    if config.head == "crf":
        for rows in arrays.values():
            listed, length = text_spans.listed(rows["spans"]), rows["ids"].shape[1]
            rows["tags"] = np.stack([gp_kl.spans_to_bio(x, length) for x in listed])
    head = make_head(config, spans.sizes.hidden_size, len(spans.types))
    # The CRF reads the hidden states as they are.
    apply = getattr(head, "apply", lambda params, hidden, mask: hidden)
    net = text_spans.tagger(spans, head.init, apply)
    return Task(net, head, net.init(jax.random.key(config.seed)), spans, arrays)


def make_optimizer(
    config: ml_collections.ConfigDict,
    learning_rate: jax.Array | float | None = None,
    chain_multiplier: jax.Array | float | None = None,
) -> optax.GradientTransformation:
    """Builds AdamW with clipping, warm-up and linear decay.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        learning_rate: peak to use instead of the config's; may be traced.
        chain_multiplier: to use instead of the config's; may be traced.

    Returns:
        The transformation. `CHAIN` of a CRF has `chain_multiplier` times the rate.

    Raises:
        ValueError: for a value out of range.
    """
    multiplier = (
        config.chain_multiplier if chain_multiplier is None else chain_multiplier
    )
    require_scalar("chain_multiplier", multiplier, "above 0", lambda x: x > 0.0)
    adamw = finetuning.make_adamw(config, learning_rate)
    if config.head != "crf":
        return adamw
    is_chain = {name: name in CHAIN for name in ("kernel", "bias", *CHAIN)}
    mask = {"encoder": False, "head": is_chain}
    return optax.chain(adamw, optax.masked(optax.scale(multiplier), mask))


def make_loss(config: ml_collections.ConfigDict, task: Task) -> loop.LossFn:
    """Makes the objective of a config.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        task: model and data.

    Returns:
        `(params, batch, key, *, strength=..., radius=...) -> (objective, figures)`.

    Raises:
        ValueError: for a value that is unknown, out of range or not for the CRF.
    """
    objective = config_lib.choose("regularizer", config.regularizer, OBJECTIVES)
    config_lib.choose("reduction", config.reduction, dict.fromkeys(("sum", "mean")))
    for name in ("strength", "radius"):
        require_scalar(name, config[name], "at least 0", lambda x: x >= 0.0)
    if config.head == "crf":
        if config.regularizer != "none":
            raise ValueError(
                f"regularizer={config.regularizer!r} is not for head='crf'."
            )
        objective = _crf

    def loss_fn(params, batch, key, *, strength=config.strength, radius=config.radius):
        settings = {"strength": strength, "radius": radius}
        settings["reduction"] = config.reduction
        return objective(task, params, batch, key, **settings), {}

    return loss_fn


def make_scores(
    config: ml_collections.ConfigDict, task: Task
) -> Callable[[nets.Params, Batch], jax.Array]:
    """Makes the function from which spans are read.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        task: model and data.

    Returns:
        `(params, batch) -> scores` [batch, types, n, n], or tags [batch, n] of a CRF.
    """

    def scores(params, batch):
        out = task.net.apply(params, text_spans.inputs(batch))
        if config.head != "crf":
            return out
        return task.head.decode(params["head"], out, batch["is_token"])

    return scores


def make_prediction(
    config: ml_collections.ConfigDict, task: Task
) -> Callable[[nets.Params, str], Found]:
    """Makes the function that finds the spans of a split.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        task: model and data.

    Returns:
        `(params, split) -> spans` in characters, a set for each text.
    """
    decode = gp_kl.bio_to_spans if config.head == "crf" else gp_kl.decode_spans
    scores = jax.jit(make_scores(config, task))

    def predict(params, split):
        rows = task.data.splits[split].rows
        found_in = functools.partial(scores, params)
        return text_spans.find_spans(found_in, decode, task.arrays[split], rows)

    return predict


def figures(task: Task, split: str, found: Found) -> dict[str, float]:
    """F1 of exact spans.

    Args:
        task: the data.
        split: its name.
        found: spans in characters, a set for each text.

    Returns:
        `split_f1`, and `split_f1_type` of each type.
    """
    gold, empty = task.data.splits[split].spans, gp_kl.SpanCounts(0, 0, 0)
    counts = gp_kl.span_counts(found, gold)
    out = {f"{split}_f1": gp_kl.span_f1(found, gold)}
    for kind in task.data.types:
        out[f"{split}_f1_{kind}"] = float(counts.get(kind, empty).f1)
    return out


def _plain(task: Task, params, batch: Batch, key, **_):
    """The multi-label cross-entropy, mean over texts and types."""
    scores = task.net.apply(params, text_spans.inputs(batch), key)
    return _cross_entropy(scores, text_spans.dense_labels(batch["spans"], scores))


def _rdrop(task: Task, params, batch: Batch, key, *, strength, reduction, **_):
    """Two passes whose scores have to agree; strength is alpha."""
    scores, labels = _two_passes(task, params, batch, key)
    return gp_kl.span_rdrop_loss(*scores, labels, strength, reduction=reduction)


def _rdrop_softmax(task: Task, params, batch: Batch, key, *, strength, **_):
    """As R-Drop, with the divergence of a softmax over all cells of a type."""
    scores, labels = _two_passes(task, params, batch, key)
    first, second = (x.reshape(*x.shape[:2], -1) for x in scores)
    apart = rdrop.symmetric_kl(first, second, where=jnp.isfinite(first))
    losses = _cross_entropy(scores[0], labels) + _cross_entropy(scores[1], labels)
    return losses + 0.5 * strength * jnp.mean(jnp.sum(apart, axis=-1))


def _vat(task: Task, params, batch: Batch, key, *, strength, radius, reduction):
    """The loss, and how far a small change of the embeddings moves the scores."""
    loss_key, drop_key, key = jax.random.split(key, 3)
    loss = _plain(task, params, batch, loss_key)

    def scores_fn(offset):
        x = {**text_spans.inputs(batch), "offset": offset}
        return task.net.apply(params, x, drop_key)

    width = params["encoder"]["embeddings"]["word"].shape[1]
    apart = igr.virtual_adversarial_loss(
        scores_fn,
        jnp.zeros((*batch["ids"].shape, width)),
        key,
        epsilon=radius,
        divergence=functools.partial(gp_kl.span_divergence, reduction=reduction),
    )
    return loss + strength * jnp.mean(apart)


def _crf(task: Task, params, batch: Batch, key, **_):
    """The negative log-likelihood of the tags, mean over texts."""
    hidden = task.net.apply(params, text_spans.inputs(batch), key)
    tags, mask = batch["tags"], batch["is_token"]
    return -jnp.mean(task.head.log_likelihood(params["head"], hidden, tags, mask))


def _cross_entropy(scores, labels):
    return jnp.mean(gp_kl.multilabel_cross_entropy(scores, labels, axis=(-2, -1)))


def _two_passes(task: Task, params, batch: Batch, key):
    scores = rdrop.two_passes(task.net.apply, params, text_spans.inputs(batch), key)
    return scores, text_spans.dense_labels(batch["spans"], scores[0])


def _pointer(make, config, *sizes):
    return make(*sizes, head_size=config.head_size, rotary=config.rotary)


HEADS = {
    "global_pointer": functools.partial(_pointer, gp_kl.GlobalPointer),
    "efficient": functools.partial(_pointer, gp_kl.EfficientGlobalPointer),
    "crf": lambda config, *sizes: gp_kl.LinearChainCRF(*sizes),
}
REGULARIZED = {"rdrop": _rdrop, "rdrop_softmax": _rdrop_softmax, "vat": _vat}
OBJECTIVES = {"none": _plain} | REGULARIZED
