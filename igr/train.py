"""Trains one classifier under one regulariser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from expkit import config as config_lib
from expkit import data, loop, supervised, training
from igr import objectives


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/igr/digits.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        At the end, `validation_loss`, `test_loss` (plain cross-entropies), and likewise
        `accuracy`; `train_gradient_norm` is that of the cross-entropy on the training
        set.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        task, optimizer = make_task(config), make_optimizer(config)
        loss_fn = make_loss(config, task)
        evaluate = supervised.make_evaluation(task)
        fit = training.prepare(
            config,
            workdir,
            task.splits,
            lambda params: evaluate(params, "validation"),
        )
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(task.net.init(init_key), optimizer, run_key),
    )
    norm = gradient_norm(task)(state.params, task.splits["train"])
    figures = evaluate(state.params, "validation") | evaluate(state.params, "test")
    return figures | {"train_gradient_norm": float(norm)}


def make_task(config: ml_collections.ConfigDict) -> supervised.Task:
    """Loads the images and builds the model.

    Args:
        config: see `configs/igr/digits.py`.

    Returns:
        The task, with `label_noise` of the training labels replaced by other classes.

    Raises:
        ValueError: for an unknown source, model or field value, or data without images
            and labels.
    """
    splits = data.load_splits(config)
    if not {"image", "label"} <= splits["train"].keys():
        raise ValueError(
            f"{config.dataset!r} has {sorted(splits['train'])}; needed: image, label."
        )
    if not 0.0 <= config.label_noise <= 1.0:
        raise ValueError(f"label_noise must be in [0, 1], got {config.label_noise!r}.")
    train = splits["train"]
    labels = with_label_noise(train["label"], config.label_noise, config.seed)
    splits["train"] = {"image": train["image"], "label": labels}
    return supervised.classification_task(config, splits)


def with_label_noise(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Replaces a fraction of labels by another class, drawn uniformly.

    Args:
        labels: classes [n], 0 ... k - 1, k >= 2.
        fraction: of the labels, in [0, 1], rounded to whole labels.
        seed: of which labels and which classes.

    Returns:
        A copy with exactly `round(fraction * n)` wrong labels.
    """
    rng = np.random.default_rng([seed, 1])
    rows = rng.permutation(len(labels))[: round(fraction * len(labels))]
    num_classes = int(labels.max()) + 1
    wrong = labels.copy()
    shift = rng.integers(1, max(num_classes, 2), len(rows))
    wrong[rows] = (labels[rows].astype(np.int64) + shift) % num_classes
    return wrong


def make_loss(
    config: ml_collections.ConfigDict,
    task: supervised.Task,
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """Makes the objective of a config.

    Args:
        config: see `configs/igr/digits.py`.
        task: model and data.

    Returns:
        `(params, batch, key, *, strength=...) -> (objective, figures)`.

    Raises:
        ValueError: for an unknown regulariser, a strength out of range, or batches too
            small to be halved.
    """
    objective = config_lib.choose(
        "regularizer", config.regularizer, objectives.OBJECTIVES
    )
    if not (config.strength >= 0 and np.isfinite(config.strength)):
        raise ValueError(
            f"strength must be at least 0 and finite, got {config.strength!r}."
        )
    if config.regularizer == "two_batch_penalty" and config.batch_size < 2:
        raise ValueError(
            "batch_size must be at least 2 for two_batch_penalty, got "
            f"{config.batch_size!r}."
        )
    prepare = supervised.standardizer(task.splits["train"]["image"])
    problem = objectives.Problem(task.net.apply, prepare)

    def loss_fn(params, batch, key, *, strength=config.strength):
        return objective(problem, params, batch, key, strength)

    return loss_fn


def make_optimizer(
    config: ml_collections.ConfigDict, learning_rate: jax.Array | float | None = None
) -> optax.GradientTransformation:
    """Builds gradient descent with a constant learning rate, or Adam.

    Args:
        config: see `configs/igr/digits.py`.
        learning_rate: to use instead of the config's; may be traced.

    Returns:
        The transformation; weight decay is decoupled and on matrices only.

    Raises:
        ValueError: for an unknown optimizer or a value out of range.
    """
    make = config_lib.choose("optimizer", config.optimizer, OPTIMIZERS)
    for name in ("learning_rate", "weight_decay"):
        if not config[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    if not 0 <= config.momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {config.momentum!r}.")
    return optax.chain(
        make(config),
        optax.add_decayed_weights(config.weight_decay, training.is_decayed),
        optax.scale_by_learning_rate(
            config.learning_rate if learning_rate is None else learning_rate
        ),
    )


def gradient_norm(task: supervised.Task) -> Callable[[Any, Any], jax.Array]:
    """Makes the jitted norm of the gradient of the plain loss.

    Args:
        task: model and data.

    Returns:
        `(params, arrays) -> norm` over all parameters, without dropout.
    """

    def loss_fn(params, arrays):
        return task.loss_fn(params, arrays, None)[0]

    def norm(params, arrays):
        return optax.tree.norm(jax.grad(loss_fn)(params, arrays))

    return jax.jit(norm)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": lambda c: optax.trace(c.momentum) if c.momentum else optax.identity(),
    "adam": lambda c: optax.scale_by_adam(),
}
