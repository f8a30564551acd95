"""Fine-tunes a text encoder with ChildTuning, or with what it is compared to."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import childtuning
import lion
import rdrop
from expkit import config as config_lib
from expkit import finetuning, loop, supervised, text_classifier, training

REGULARIZERS = dict.fromkeys(("none", "rdrop"))
METHODS = dict.fromkeys(("none", "f", "d", "update_dropout"))


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/childtuning/reviews.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Loss and accuracy on the validation and test splits at the end, and
        `trainable_fraction`, the share of the parameters that the mask of
        ChildTuning-D leaves trainable (1 for other methods).

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        texts = finetuning.load_texts(config)
        task = texts.task
        loss_fn = make_loss(config, task)
        check(config)
        evaluate = supervised.make_evaluation(task)
        fit = training.prepare(
            config,
            workdir,
            task.splits,
            lambda params: evaluate(params, "validation"),
        )
        mask = make_mask(config, texts)
    fraction = childtuning.trainable_fraction(mask) if mask is not None else 1.0
    optimizer = make_optimizer(config, mask=mask)
    run_key = jax.random.split(jax.random.key(config.seed))[1]
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(texts.params, optimizer, run_key),
    )
    figures = evaluate(state.params, "validation") | evaluate(state.params, "test")
    return figures | {"trainable_fraction": fraction}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the fields of method and optimizer, before any work.

    Args:
        config: see `configs/childtuning/reviews.py`.

    Raises:
        ValueError: for an unknown name or a value out of range.
    """
    config_lib.choose("method", config.method, METHODS)
    config_lib.choose("optimizer", config.optimizer, OPTIMIZERS)
    config_lib.choose("fisher", config.fisher, FISHERS)
    config_lib.choose("competing", config.competing, COMPETING)
    if config.decay not in ("all", "child"):
        raise ValueError(f"decay must be all or child, got {config.decay!r}.")
    if not 0 < config.reserve_p <= 1:
        raise ValueError(f"reserve_p must be in (0, 1], got {config.reserve_p!r}.")
    finetuning.check_optimizer(config)
    finetuning.linear_schedule(config)
    if config.optimizer == "child_adamw" and config.method != "d":
        raise ValueError(
            "optimizer='child_adamw' has a fixed mask: method must be d, got "
            f"{config.method!r}."
        )


def make_loss(
    config: ml_collections.ConfigDict, task: supervised.Task
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """Makes the objective of a config: the cross-entropy, or R-Drop.

    Args:
        config: see `configs/childtuning/reviews.py`.
        task: model and data.

    Returns:
        `(params, batch, key) -> (objective, figures)`.

    Raises:
        ValueError: for an unknown regulariser, or a regression.
    """
    config_lib.choose("regularizer", config.regularizer, REGULARIZERS)
    if task.splits["train"]["label"].dtype.kind == "f":
        raise ValueError(
            f"column {config.label_column!r} of {config.dataset!r} has numbers with a "
            "point, needed are classes: write them as 0, 1, ..., or set label_column."
        )
    if config.regularizer == "none":
        return task.loss_fn
    if not (config.alpha >= 0 and np.isfinite(config.alpha)):
        raise ValueError(f"alpha must be at least 0, got {config.alpha!r}.")

    def loss_fn(params, batch, key):
        x = text_classifier.inputs(batch)
        logits = rdrop.two_passes(task.net.apply, params, x, key)
        hits = logits[0].argmax(axis=-1) == batch["label"]
        loss = rdrop.rdrop_loss(*logits, batch["label"], config.alpha)
        return loss, {"accuracy": jnp.mean(hits)}

    return loss_fn


def make_mask(config: ml_collections.ConfigDict, texts: finetuning.Texts) -> Any:
    """The mask of ChildTuning-D at the parameters before the first step.

    Args:
        config: see `configs/childtuning/reviews.py`.
        texts: model and data.

    Returns:
        Bool pytree like the parameters; None for methods without a mask.

    Raises:
        ValueError: as `childtuning.fisher_mask` raises.
    """
    if config.method != "d":
        return None
    return childtuning.fisher_mask(
        fisher(config, texts),
        config.reserve_p,
        where=COMPETING[config.competing],
    )


def fisher(config: ml_collections.ConfigDict, texts: finetuning.Texts) -> Any:
    """The Fisher information of the labelled texts at the first parameters.

    Args:
        config: has `fisher`, `batch_size` and `seed`.
        texts: model and data.

    Returns:
        Float32 pytree like the parameters.
    """
    return childtuning.fisher_information(
        FISHERS[config.fisher](texts.task.loss_fn),
        texts.params,
        _batches(config, texts.task.splits["train"]),
        convention=config.fisher,
    )


def make_optimizer(
    config: ml_collections.ConfigDict,
    learning_rate: jax.Array | float | None = None,
    *,
    mask: Any = None,
    key: jax.Array | None = None,
) -> optax.GradientTransformation:
    """Builds clipping, mask, optimizer, warm-up and linear decay, in this order.

    Args:
        config: see `configs/childtuning/reviews.py`.
        learning_rate: peak to use instead of the config's; may be traced.
        mask: of ChildTuning-D, for `method="d"`.
        key: of the masks drawn at random; None takes that of the config's seed.

    Returns:
        The transformation. Only matrices have weight decay, except with `child_adamw`,
        which decays everything.

    Raises:
        ValueError: for an unknown name or a value out of range.
    """
    check(config)
    if key is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
    before, after = [], []
    if config.method == "f":
        before.append(childtuning.child_tuning_f(config.reserve_p, key))
    if config.method == "d" and config.optimizer != "child_adamw":
        before.append(childtuning.child_tuning_d(mask))
    if config.method == "update_dropout":
        after.append(childtuning.update_dropout(config.reserve_p, key))
    return assemble(config, learning_rate, before, after, mask)


def assemble(
    config: ml_collections.ConfigDict,
    learning_rate: jax.Array | float | None,
    before: Iterable[optax.GradientTransformation],
    after: Iterable[optax.GradientTransformation],
    mask: Any = None,
) -> optax.GradientTransformation:
    """Puts masks around the optimizer of a config.

    Args:
        config: see `configs/childtuning/reviews.py`.
        learning_rate: peak to use instead of the config's; may be traced.
        before: of the gradient, after clipping.
        after: of the update.
        mask: for `child_adamw`.

    Returns:
        Clipping, `before`, the optimizer with warm-up and linear decay, `after`.
    """
    peak = config.learning_rate if learning_rate is None else learning_rate
    shape = finetuning.linear_schedule(config)
    optimizer = OPTIMIZERS[config.optimizer](
        config, lambda step: peak * shape(step), mask
    )
    clip = optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, *before, optimizer, *after)


def _batches(config, arrays: dict[str, np.ndarray]) -> Iterable[dict[str, Any]]:
    """The training set once, in a random order, with a seed of the dropout each."""
    order = np.random.default_rng(config.seed).permutation(len(arrays["label"]))
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        batch = {name: jnp.asarray(array[rows]) for name, array in arrays.items()}
        yield batch | {"seed": jnp.full(len(rows), start, jnp.uint32)}


# Cached, since the steps of a Fisher information are compiled for each loss function.
@functools.cache
def _without_dropout(loss_fn: loop.LossFn) -> Callable[[Any, Any], jax.Array]:
    return lambda params, batch: loss_fn(params, batch, None)[0]


@functools.cache
def _with_dropout(loss_fn: loop.LossFn) -> Callable[[Any, Any], jax.Array]:
    def loss(params, batch):
        return loss_fn(params, batch, jax.random.key(batch["seed"][0]))[0]

    return loss


def _adamw(config, schedule, mask):
    del mask
    decay = config.weight_decay
    return optax.adamw(schedule, weight_decay=decay, mask=training.is_decayed)


def _lion(config, schedule, mask):
    del mask
    decay = config.weight_decay
    return lion.lion(schedule, weight_decay=decay, mask=training.is_decayed)


def _child_adamw(config, schedule, mask):
    return childtuning.child_adamw(
        schedule, mask, weight_decay=config.weight_decay, decay=config.decay
    )


OPTIMIZERS = {"adamw": _adamw, "lion": _lion, "child_adamw": _child_adamw}
FISHERS = {"paper": _without_dropout, "authors": _with_dropout}
COMPETING = {"layers": childtuning.in_layers, "all": None}
