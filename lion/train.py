"""Trains one classifier (or the linear model of `quadratic.py`) with one optimizer."""

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
from expkit import data, loop, nets, sharding

Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """What is learned from which data.

    Attributes:
        net: the model.
        loss_fn: `(params, batch, key) -> (mean loss, figures)`; images are standardised
            inside. A batch with a `mask` averages over the rows kept.
        splits: arrays of `train`, `validation` and `test`.
    """

    net: nets.Net
    loss_fn: loop.LossFn
    splits: dict[str, Arrays]


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/lion/digits.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Loss and accuracy on the validation and test splits after the last step.

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
        The task: classification of images where the data has labels, otherwise
        regression.

    Raises:
        ValueError: for an unknown source, model or field value.
    """
    splits = {
        name: data.load(config.dataset, split, data_dir=config.data_dir or None)
        for name, split in (
            ("train", config.train_split),
            ("validation", config.validation_split),
            ("test", config.test_split),
        )
    }
    make_net = config_lib.choose("model", config.model, MODELS)
    train = splits["train"]
    if "label" in train:
        num_classes = int(train["label"].max()) + 1
        net = make_net(config, train["image"].shape[1:], num_classes)
        loss_fn = _classification_loss(net, train["image"])
    else:
        net = make_net(config, train["x"].shape[1:], 1)
        loss_fn = _squared_loss(net)
    return Task(net, loss_fn, splits)


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
        `(params, split) -> {split_loss, split_accuracy}`, means over the rows.
    """
    step = jax.jit(lambda params, batch: task.loss_fn(params, batch, None))

    def evaluate(params, split):
        arrays = task.splits[split]
        total, num_rows = {}, len(next(iter(arrays.values())))
        batches = data.Batches(arrays, min(500, num_rows), seed=None, remainder="pad")
        for i in range(batches.steps_per_epoch):
            batch = batches[i]
            loss, metrics = step(params, batch)
            weight = batch["mask"].sum() / num_rows
            for name, value in {"loss": loss, **metrics}.items():
                key = f"{split}_{name}"
                total[key] = total.get(key, 0.0) + weight * float(value)
        return total

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


def _mlp(config, shape, num_outputs):
    return nets.mlp(shape, config.hidden, num_outputs, dropout=config.dropout)


def _cnn(config, shape, num_outputs):
    return nets.cnn(shape, config.hidden, num_outputs, dropout=config.dropout)


def _vit(config, shape, num_outputs):
    return nets.vit(
        shape,
        num_outputs,
        patch_size=config.patch_size,
        width=config.width,
        depth=config.depth,
        dropout=config.dropout,
    )


def _linear(config, shape, num_outputs):
    del config
    return nets.mlp(shape, (), num_outputs, use_bias=False)


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
    "mlp": _mlp,
    "cnn": _cnn,
    "vit": _vit,
    "linear": _linear,
}
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lion": _lion,
    "adamw": _adamw,
    "sgd": _sgd,
}
