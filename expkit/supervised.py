"""Supervised tasks: a network, its loss, three splits, and how they are evaluated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from expkit import config as config_lib
from expkit import data, loop, nets
from expkit.messages import one_line

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


def classification_task(
    config: ml_collections.ConfigDict, splits: dict[str, Arrays]
) -> Task:
    """A classifier of images with the mean cross-entropy.

    Args:
        config: has the field `model`, and those of that model in `MODELS`.
        splits: `image` [n, height, width, channels] and `label` [n], from 0, of each
            split; the largest of all gives the number of classes.

    Returns:
        The task; its figures are `loss` and `accuracy`.

    Raises:
        ValueError: for an unknown model or field value, images that differ in shape, or
            negative labels.
    """
    train = splits["train"]
    data.require_one_shape([train["image"]], config.dataset)
    net = make_net(config, train["image"].shape[1:], _count_classes(config, splits))
    prepare = standardizer(train["image"])

    def loss_fn(params, batch, key):
        logits = net.apply(params, prepare(batch["image"]), key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        hits = logits.argmax(axis=-1) == batch["label"]
        where = batch.get("mask")
        return losses.mean(where=where), {"accuracy": hits.mean(where=where)}

    return Task(net, loss_fn, splits)


def _count_classes(config, splits: dict[str, Arrays]) -> int:
    for name, arrays in splits.items():
        if arrays["label"].min() < 0:
            raise ValueError(f"{config.dataset!r} has negative labels in {name!r}.")
    return 1 + max(int(arrays["label"].max()) for arrays in splits.values())


def standardizer(images: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Makes the function that gives images mean 0 and variance 1 over a training set.

    Args:
        images: the training set, any shape.

    Returns:
        `images -> float32 images`; one mean and one scale for all pixels.
    """
    mean, scale = float(images.mean()), float(images.std()) or 1.0
    return lambda x: (x.astype(jnp.float32) - mean) / scale


def regression_task(
    config: ml_collections.ConfigDict, splits: dict[str, Arrays]
) -> Task:
    """Regression of `y` on `x` with half the mean squared error.

    Args:
        config: has the field `model`, and those of that model in `MODELS`.
        splits: `x` [n, ...] and `y` [n] of each split.

    Returns:
        The task; its only figure is `loss`.

    Raises:
        ValueError: for an unknown model or field value.
    """
    net = make_net(config, splits["train"]["x"].shape[1:], 1)

    def loss_fn(params, batch, key):
        errors = net.apply(params, batch["x"], key)[:, 0] - batch["y"]
        return 0.5 * jnp.square(errors).mean(where=batch.get("mask")), {}

    return Task(net, loss_fn, splits)


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


def make_row_figures(task: Task) -> Callable[[nets.Params, Arrays], dict[str, Any]]:
    """Makes the evaluation of each row by itself.

    Args:
        task: model and data; no row of its model may depend on the others.

    Returns:
        `(params, arrays) -> {"loss", "accuracy", ...}`, each [rows]; not compiled.
    """

    def evaluate(params, arrays):
        def one(row):
            batch = jax.tree.map(lambda x: x[None], row)
            loss, figures = task.loss_fn(params, batch, None)
            return {"loss": loss, **figures}

        return jax.vmap(one)(arrays)

    return evaluate


def make_net(
    config: ml_collections.ConfigDict, shape: tuple[int, ...], num_outputs: int
) -> nets.Net:
    """Builds the network of a config.

    Args:
        config: has the field `model` and those that the model needs; `activation`, if
            there, is that of a perceptron or convolutional network.
        shape: shape of one input.
        num_outputs: width of the output.

    Returns:
        The network.

    Raises:
        ValueError: for an unknown model, a field it lacks, or a value out of range.
    """
    make = config_lib.choose("model", config.model, MODELS)
    try:
        return make(config, shape, num_outputs)
    except AttributeError as error:  # how a config says that it lacks a field
        lacks = one_line(error)
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


def _options(config) -> dict[str, Any]:
    return {
        "dropout": config.dropout,
        "activation": config.get("activation", "gelu"),
    }


MODELS: dict[str, Callable[..., nets.Net]] = {
    "mlp": lambda c, shape, n: nets.mlp(shape, c.hidden, n, **_options(c)),
    "cnn": lambda c, shape, n: nets.cnn(shape, c.hidden, n, **_options(c)),
    "vit": _vit,
    "linear": lambda c, shape, n: nets.mlp(shape, (), n, use_bias=False),
}
