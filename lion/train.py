"""Trains one classifier, masked language model or line with one optimizer."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import lion
from expkit import config as config_lib
from expkit import data, loop, nets, sharding, text, text_nets
from expkit import masked_language as mlm

Arrays = dict[str, np.ndarray]


def _rows_kept(batch: Arrays) -> float:
    return float(batch["mask"].sum())


class Task(NamedTuple):
    """What is learned from which data.

    Attributes:
        net: the model.
        loss_fn: `(params, batch, key) -> (mean loss, figures)`; images are standardised
            and tokens masked inside. A batch with a `mask` averages over the rows kept.
        splits: numeric arrays of `train`, `validation` and `test`.
        count: how many terms the means of a padded batch are taken over; its weight in
            an evaluation.
        summarize: `means -> figures` of a whole split.
        evaluation_rows: rows of an evaluation batch at most.
    """

    net: nets.Net
    loss_fn: loop.LossFn
    splits: dict[str, Arrays]
    count: Callable[[Arrays], float] = _rows_kept
    summarize: Callable[[dict[str, float]], dict[str, float]] = dict
    evaluation_rows: int = 500


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/lion/digits.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Loss, accuracy and the like on the validation and test splits at the end.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        task = make_task(config)
        train = task.splits["train"]
        batches = data.Batches(
            train, config.batch_size, seed=config.seed, remainder="wrap"
        )
        optimizer = make_optimizer(config)
        mesh = sharding.make_mesh(config.mesh, config.batch_size)
        workdir = config_lib.prepare_workdir(config, workdir)
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    evaluate = make_evaluation(task)
    state = loop.fit(
        loop.make_step(task.loss_fn, optimizer),
        loop.init_state(task.net.init(init_key), optimizer, run_key),
        batches,
        num_steps=config.num_steps,
        workdir=workdir,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        evaluate=lambda params: evaluate(params, "validation"),
        evaluate_every=config.evaluate_every,
        mesh=mesh,
    )
    return evaluate(state.params, "validation") | evaluate(state.params, "test")


def make_task(config: ml_collections.ConfigDict) -> Task:
    """Loads the data and builds the model.

    Args:
        config: see `configs/lion/digits.py`.

    Returns:
        The task: masked language modelling where the data has texts, classification
        of images where it has labels, otherwise regression.

    Raises:
        ValueError: for an unknown source, model or field value, or data of another
            kind than the config is for.
    """
    splits = data.load_splits(config)
    train = splits["train"]
    if ("text" in train) != ("max_vocabulary" in config):
        kind = "texts: use" if "text" in train else "no texts: do not use"
        raise ValueError(f"{config.dataset!r} has {kind} configs/lion/zh_char.py.")
    if "text" in train:
        return _masked_language_task(config, splits)
    if {"image", "label"} <= train.keys():
        if train["image"].dtype == object:
            raise ValueError(f"the images of {config.dataset!r} differ in shape.")
        num_classes = int(train["label"].max()) + 1
        net = _make_net(config, train["image"].shape[1:], num_classes)
        return Task(net, _classification_loss(net, train["image"]), splits)
    if {"x", "y"} <= train.keys():
        net = _make_net(config, train["x"].shape[1:], 1)
        return Task(net, _squared_loss(net), splits)
    raise ValueError(
        f"{config.dataset!r} has {sorted(train)}; needed: image and label, x and y, or "
        "text."
    )


def make_optimizer(
    config: ml_collections.ConfigDict,
    learning_rate: jax.Array | float | None = None,
    weight_decay: jax.Array | float | None = None,
) -> optax.GradientTransformation:
    """Builds the optimizer of a config, with linear warm-up and cosine decay.

    Args:
        config: see `configs/lion/digits.py`.
        learning_rate: peak to use instead of the config's; may be traced.
        weight_decay: decay to use instead of the config's; may be traced.

    Returns:
        The transformation. Only matrices (and larger arrays) decay.

    Raises:
        ValueError: for an unknown optimizer or a value out of range.
    """
    make = config_lib.choose("optimizer", config.optimizer, OPTIMIZERS)
    for name in ("learning_rate", "weight_decay"):
        if not config[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    for name in ("b1", "b2", "adamw_b2", "momentum", "warmup_fraction"):
        if not 0 <= config[name] < 1:
            raise ValueError(f"{name} must be in [0, 1), got {config[name]!r}.")
    peak = config.learning_rate if learning_rate is None else learning_rate
    decay = config.weight_decay if weight_decay is None else weight_decay
    shape = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=1.0,
        warmup_steps=int(config.warmup_fraction * config.num_steps),
        decay_steps=config.num_steps,
    )
    return make(config, lambda step: peak * shape(step), decay)


def make_evaluation(task: Task) -> Callable[[nets.Params, str], dict[str, float]]:
    """Makes the evaluation on whole splits.

    Args:
        task: model and data.

    Returns:
        `(params, split) -> {split_loss, split_accuracy, ...}`, means over the rows, or
        over the masked positions of all rows.
    """
    step = jax.jit(lambda params, batch: task.loss_fn(params, batch, None))

    def evaluate(params, split):
        arrays = task.splits[split]
        num_rows = min(task.evaluation_rows, len(next(iter(arrays.values()))))
        total, count = {}, 0.0
        for batch in data.Batches(arrays, num_rows, seed=None, remainder="pad"):
            loss, metrics = step(params, batch)
            weight = task.count(batch)
            count += weight
            for name, value in {"loss": loss, **metrics}.items():
                total[name] = total.get(name, 0.0) + weight * float(value)
        means = {name: value / count for name, value in total.items()}
        return {f"{split}_{k}": v for k, v in task.summarize(means).items()}

    return evaluate


def _classification_loss(net: nets.Net, images: np.ndarray) -> loop.LossFn:
    mean, scale = float(images.mean()), float(images.std()) or 1.0

    def loss_fn(params, batch, key):
        x = (batch["image"].astype(jnp.float32) - mean) / scale
        logits = net.apply(params, x, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        hits = logits.argmax(axis=-1) == batch["label"]
        where = batch.get("mask")
        return losses.mean(where=where), {"accuracy": hits.mean(where=where)}

    return loss_fn


def _squared_loss(net: nets.Net) -> loop.LossFn:
    def loss_fn(params, batch, key):
        errors = net.apply(params, batch["x"], key)[:, 0] - batch["y"]
        return 0.5 * jnp.square(errors).mean(where=batch.get("mask")), {}

    return loss_fn


def _masked_language_task(config, splits: dict[str, Arrays]) -> Task:
    texts = {name: split["text"] for name, split in splits.items()}
    vocabulary = text.build_vocabulary(
        texts["train"], max_size=config.max_vocabulary, min_count=config.min_count
    )
    arrays = mlm.encode_splits(
        vocabulary, texts, max_length=config.max_length, mask_rate=config.mask_rate
    )
    ids = arrays["train"]["ids"]
    net = text_nets.text_encoder(
        vocabulary.size,
        max_length=config.max_length,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        output_bias=text.unigram_log_probabilities(vocabulary, ids, ids != text.PAD),
        dropout=config.dropout,
    )
    return Task(
        net,
        mlm.make_loss(net, config.mask_rate),
        arrays,
        count=mlm.num_masked,
        summarize=mlm.with_perplexity,
        evaluation_rows=64,  # a position has thousands of logits
    )


def _make_net(config, shape, num_outputs):
    make = config_lib.choose("model", config.model, MODELS)
    try:
        return make(config, shape, num_outputs)
    except AttributeError as error:  # how a config says that it lacks a field
        lacks = " ".join(str(error).split())
        raise ValueError(f"model={config.model!r} needs a field: {lacks}.") from error


def _vit(config, shape, num_outputs):
    return nets.vit(
        shape,
        num_outputs,
        patch_size=config.patch_size,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        dropout=config.dropout,
    )


def _matrices(params):
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def _lion(config, schedule, weight_decay):
    return lion.lion(
        schedule, config.b1, config.b2, weight_decay=weight_decay, mask=_matrices
    )


def _adamw(config, schedule, weight_decay):
    return optax.adamw(
        schedule, config.b1, config.adamw_b2, weight_decay=weight_decay, mask=_matrices
    )


def _sgd(config, schedule, weight_decay):
    return optax.chain(
        optax.trace(config.momentum),
        optax.add_decayed_weights(weight_decay, _matrices),
        optax.scale_by_learning_rate(schedule),
    )


MODELS: dict[str, Callable[..., nets.Net]] = {
    "mlp": lambda c, shape, n: nets.mlp(shape, c.hidden, n, dropout=c.dropout),
    "cnn": lambda c, shape, n: nets.cnn(shape, c.hidden, n, dropout=c.dropout),
    "vit": _vit,
    "linear": lambda c, shape, n: nets.mlp(shape, (), n, use_bias=False),
}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lion": _lion,
    "adamw": _adamw,
    "sgd": _sgd,
}
