"""Trains an encoder to find spans: GlobalPointer, its rivals, its regularisers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import gp_kl
import rdrop
from expkit import config as config_lib
from expkit import data, finetuning, labelled_spans, loop, nets, text_spans, training

Batch = Mapping[str, Any]
Found = list[set[labelled_spans.Span]]
EVALUATION_ROWS = 32


class Task(NamedTuple):
    """Model and data.

    Attributes:
        net: of `expkit.text_spans.tagger`; outputs are scores [batch, types, n, n] of
            spans, or scores [batch, n, tags] of the CRF.
        params: before the first step.
        data: texts, spans and windows.
        arrays: the windows of each split; those of the CRF have `tags`.
    """

    net: nets.Net
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
            task.arrays["train"],
            lambda params: figures(task, "validation", predict(params, "validation")),
        )
    run_key = jax.random.split(jax.random.key(config.seed))[1]
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(task.params, optimizer, run_key),
    )
    ends = [figures(task, s, predict(state.params, s)) for s in ("validation", "test")]
    return ends[0] | ends[1]


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
            rows["tags"] = gp_kl.spans_to_tags(rows["spans"], rows["ids"].shape[1])
    net = text_spans.tagger(spans, *make_head(config, spans))
    return Task(net, net.init(jax.random.key(config.seed)), spans, arrays)


def make_optimizer(
    config: ml_collections.ConfigDict, learning_rate: jax.Array | float | None = None
) -> optax.GradientTransformation:
    """Builds AdamW with clipping, warm-up and linear decay.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        learning_rate: peak to use instead of the config's; may be traced.

    Returns:
        The transformation. The head has `head_multiplier` times the learning rate.

    Raises:
        ValueError: for a value out of range.
    """
    multiplier = config.head_multiplier
    if not (multiplier > 0 and np.isfinite(multiplier)):
        raise ValueError(f"head_multiplier must be above 0, got {multiplier!r}.")

    adamw = finetuning.make_adamw(config, learning_rate)
    only_head = {"encoder": False, "head": True}
    return optax.chain(adamw, optax.masked(optax.scale(multiplier), only_head))


def make_loss(config: ml_collections.ConfigDict, task: Task) -> loop.LossFn:
    """Makes the objective of a config.

    Args:
        config: see `configs/gp_kl/news_entities.py`.
        task: model and data.

    Returns:
        `(params, batch, key, *, strength=...) -> (objective, figures)`.

    Raises:
        ValueError: for an unknown regulariser or reduction, a number out of range, or
            a regulariser of spans with the CRF.
    """
    objective = config_lib.choose("regularizer", config.regularizer, OBJECTIVES)
    config_lib.choose("reduction", config.reduction, dict.fromkeys(("sum", "mean")))
    for name in ("strength", "radius"):
        if not (config[name] >= 0 and np.isfinite(config[name])):
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    if config.head == "crf" and config.regularizer != "none":
        raise ValueError(
            f"regularizer={config.regularizer!r} is for scores of spans, and "
            "head='crf' has none."
        )

    def loss_fn(params, batch, key, *, strength=config.strength):
        if config.head == "crf":
            return _crf_loss(task, params, batch, key), {}
        return objective(config, task, params, batch, key, strength)

    return loss_fn


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
    is_crf = config.head == "crf"

    @jax.jit
    def score(params, batch):
        out = task.net.apply(params, text_spans.inputs(batch))
        if is_crf:
            return gp_kl.viterbi(params["head"]["crf"], out, batch["is_token"])
        return out

    def predict(params, split):
        arrays, rows = task.arrays[split], task.data.splits[split].rows
        size = min(EVALUATION_ROWS, len(rows.ids))
        found: list[list[tuple[int, int, int]]] = []
        for batch in data.Batches(arrays, size, seed=None, remainder="pad"):
            out = np.asarray(score(params, batch))
            found += (
                gp_kl.tags_to_spans(out) if is_crf else map(gp_kl.decode_spans, out)
            )
        return labelled_spans.to_characters(rows, found[: len(rows.ids)])

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
    gold = task.data.splits[split].spans
    out = {f"{split}_f1": gp_kl.span_f1(found, gold)}
    for kind in task.data.types:
        part = [
            [{s for s in spans if s[0] == kind} for spans in x] for x in (found, gold)
        ]
        out[f"{split}_f1_{kind}"] = gp_kl.span_f1(*part)
    return out


def _plain(config, task: Task, params, batch: Batch, key, strength):
    """The multi-label cross-entropy."""
    del config, strength
    return _cross_entropy(
        task.net.apply(params, text_spans.inputs(batch), key), batch
    ), {}


def _rdrop(config, task: Task, params, batch: Batch, key, strength, divergence=None):
    """Two passes whose scores have to agree; strength is alpha."""
    scores = rdrop.two_passes(task.net.apply, params, text_spans.inputs(batch), key)
    apart = (divergence or _span_divergence)(config, *scores)
    both = _cross_entropy(scores[0], batch) + _cross_entropy(scores[1], batch)
    return both + 0.5 * strength * apart, {"divergence": apart}


def _rdrop_softmax(config, task: Task, params, batch: Batch, key, strength):
    """As R-Drop, with the divergence of a softmax over all cells of a type."""
    return _rdrop(config, task, params, batch, key, strength, _softmax_divergence)


def _vat(config, task: Task, params, batch: Batch, key, strength):
    """The loss, and how far a small change of the embeddings moves the scores."""
    loss_key, drop_key, key = jax.random.split(key, 3)
    loss = _cross_entropy(
        task.net.apply(params, text_spans.inputs(batch), loss_key), batch
    )

    def scores_fn(offset):
        x = {**text_spans.inputs(batch), "offset": offset}
        return task.net.apply(params, x, drop_key)

    width = params["encoder"]["embeddings"]["word"].shape[1]
    moved = gp_kl.virtual_adversarial_divergence(
        scores_fn,
        jnp.zeros((*batch["ids"].shape, width)),
        key,
        epsilon=config.radius,
        reduction=config.reduction,
    )
    return loss + strength * jnp.mean(moved), {"divergence": jnp.mean(moved)}


def _crf_loss(task: Task, params, batch: Batch, key):
    emissions = task.net.apply(params, text_spans.inputs(batch), key)
    likelihoods = gp_kl.crf_log_likelihood(
        params["head"]["crf"], emissions, batch["tags"], batch["is_token"]
    )
    return -jnp.mean(likelihoods)


def _cross_entropy(scores, batch: Batch):
    """Mean over texts and types; a cell outside i <= j or on padding is masked."""
    num_types, length = scores.shape[1], scores.shape[-1]
    labels = text_spans.dense_labels(batch["spans"], num_types, length)
    losses = gp_kl.multilabel_cross_entropy(
        scores, labels, axis=(-2, -1), where=jnp.isfinite(scores)
    )
    return jnp.mean(losses)


def _span_divergence(config, first, second):
    where = jnp.isfinite(first)
    return jnp.mean(
        gp_kl.span_divergence(first, second, where=where, reduction=config.reduction)
    )


def _softmax_divergence(config, first, second):
    del config
    cells = [scores.reshape(*scores.shape[:2], -1) for scores in (first, second)]
    where = jnp.isfinite(cells[0])
    return jnp.mean(jnp.sum(rdrop.symmetric_kl(*cells, where=where), axis=-1))


def _pointer(make):
    def head(config, spans: text_spans.SpanTexts):
        pointer = make(
            spans.sizes.hidden_size,
            len(spans.types),
            head_size=config.head_size,
            rotary=config.rotary,
        )
        return pointer.init, pointer.apply

    return head


def _crf_head(config, spans: text_spans.SpanTexts):
    """A dense layer to the tags, and their transitions."""
    del config
    num_tags = 1 + 2 * len(spans.types)

    def init(key):
        shape = (spans.sizes.hidden_size, num_tags)
        return {
            "kernel": 0.02 * jax.random.normal(key, shape),
            "bias": jnp.zeros(num_tags),
            "crf": gp_kl.init_crf(num_tags),
        }

    def apply(head, hidden, is_token):
        del is_token
        return hidden @ head["kernel"] + head["bias"][None, None]

    return init, apply


HEADS = {
    "global_pointer": _pointer(gp_kl.GlobalPointer),
    "efficient": _pointer(gp_kl.EfficientGlobalPointer),
    "crf": _crf_head,
}
OBJECTIVES = {
    "none": _plain,
    "rdrop": _rdrop,
    "rdrop_softmax": _rdrop_softmax,
    "vat": _vat,
}
