"""Fine-tunes a text encoder with R-Drop, or with one of its rivals, on few labels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import igr
import rdrop
from expkit import config as config_lib
from expkit import data, finetuning, loop, nets, supervised, text_classifier, training

Batch = Mapping[str, Any]
Figures = dict[str, jax.Array]
PREFIX = "unlabelled_"


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/rdrop/reviews.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Loss, and accuracy of classes, on the validation and test splits at the end.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        texts = finetuning.load_texts(config)
        task = texts.task
        loss_fn, optimizer = make_loss(config, task), finetuning.make_adamw(config)
        evaluate = supervised.make_evaluation(task)
        fit = training.prepare(
            config,
            workdir,
            task.splits | {"unlabelled": texts.unlabelled},
            lambda params: evaluate(params, "validation"),
            batches=make_batches(config, texts),
        )
    run_key = jax.random.split(jax.random.key(config.seed))[1]
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(texts.params, optimizer, run_key),
    )
    return evaluate(state.params, "validation") | evaluate(state.params, "test")


def make_loss(
    config: ml_collections.ConfigDict, task: supervised.Task
) -> Callable[..., tuple[jax.Array, Figures]]:
    """Makes the objective of a config.

    Args:
        config: see `configs/rdrop/reviews.py`.
        task: model and data.

    Returns:
        `(params, batch, key, *, strength=..., unlabelled_strength=..., radius=...) ->
        (objective, figures)`. Batches have `ids` and `label`, and `unlabelled_ids`
        where the config regularises unlabelled texts too.

    Raises:
        ValueError: for an unknown regulariser or convention, or a strength out of
            range.
    """
    is_regression = task.splits["train"]["label"].dtype.kind == "f"
    choices = REGRESSION if is_regression else OBJECTIVES
    objective = config_lib.choose("regularizer", config.regularizer, choices)
    unlabelled = config_lib.choose(
        "unlabelled_regularizer", config.unlabelled_regularizer, UNLABELLED
    )
    config_lib.choose("convention", config.convention, rdrop.CONVENTIONS)
    for name in ("strength", "unlabelled_strength", "radius"):
        if not (config[name] >= 0 and np.isfinite(config[name])):
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    if is_regression and config.unlabelled_regularizer != "none":
        raise ValueError("unlabelled_regularizer needs classes, and this has numbers.")

    def loss_fn(
        params,
        batch,
        key,
        *,
        strength=config.strength,
        unlabelled_strength=config.unlabelled_strength,
        radius=config.radius,
    ):
        settings = {"strength": strength, "radius": radius}
        settings["convention"] = config.convention
        key, other_key = jax.random.split(key)
        loss, figures = objective(task.net, params, batch, key, **settings)
        if config.unlabelled_regularizer != "none":
            x = {
                name.removeprefix(PREFIX): value
                for name, value in batch.items()
                if name.startswith(PREFIX)
            }
            divergence = unlabelled(task.net, params, x, other_key, **settings)
            loss += unlabelled_strength * divergence
            figures |= {"unlabelled_divergence": divergence}
        return loss, figures

    return loss_fn


def make_batches(
    config: ml_collections.ConfigDict, texts: finetuning.Texts
) -> loop.Batches | None:
    """Batches of labelled and unlabelled texts side by side.

    Args:
        config: see `configs/rdrop/reviews.py`.
        texts: the data.

    Returns:
        The batches; None where the config uses no unlabelled texts.

    Raises:
        ValueError: if it does and there are none, or fewer than a batch has.
    """
    if config.unlabelled_regularizer == "none":
        return None
    if not len(texts.unlabelled["ids"]):
        raise ValueError(
            f"unlabelled_regularizer={config.unlabelled_regularizer!r} needs texts "
            "without labels: set num_labels to less than the training set."
        )
    if config.batch_size > len(texts.unlabelled["ids"]):
        raise ValueError(
            f"batch_size must be at most {len(texts.unlabelled['ids'])}, the texts "
            f"without labels, got {config.batch_size!r}."
        )
    unlabelled = {PREFIX + name: rows for name, rows in texts.unlabelled.items()}
    sources = [
        data.Batches(rows, config.batch_size, seed=config.seed, remainder="wrap")
        for rows in (texts.task.splits["train"], unlabelled)
    ]

    class Joined:
        def __getitem__(self, step):
            return sources[0][step] | sources[1][step]

    return Joined()


def _plain(net: nets.Net, params, batch: Batch, key, **_):
    """The mean cross-entropy."""
    return _cross_entropy(net, params, batch, key)


def _rdrop(net: nets.Net, params, batch: Batch, key, *, strength, convention, **_):
    """Two passes that have to agree; strength is alpha."""
    x = text_classifier.inputs(batch)
    logits = rdrop.two_passes(net.apply, params, x, key)
    labels = batch["label"]
    loss = rdrop.rdrop_loss(*logits, labels, strength, convention=convention)
    return loss, _figures(logits[0], labels) | {
        "divergence": rdrop.consistency_loss(*logits)
    }


def _gradient_penalty(net: nets.Net, params, batch: Batch, key, *, strength, **_):
    """Mean squared norm of every example's gradient in its embeddings."""

    def total(offset):
        loss, figures = _cross_entropy(net, params, batch, key, offset)
        return len(batch["label"]) * loss, figures

    penalised = igr.with_gradient_penalty(total, strength, has_aux=True)
    loss, figures = penalised(_zero_offset(params, batch))
    return loss / len(batch["label"]), figures


def _adversarial(net: nets.Net, params, batch: Batch, key, *, strength, **_):
    """Mean of the loss and of that at embeddings moved by FGM; strength is a radius."""
    zero = _zero_offset(params, batch)
    gradient, _ = jax.grad(
        lambda offset: _cross_entropy(net, params, batch, key, offset), has_aux=True
    )(zero)

    def moved(gradient):
        along = lambda x: jnp.vdot(gradient, x)  # noqa: E731
        return igr.fast_gradient_perturbation(
            along, jnp.zeros_like(gradient), epsilon=strength
        )

    offset = jax.lax.stop_gradient(jax.vmap(moved)(gradient))  # Miyato et al., eq. (5)
    loss, figures = _cross_entropy(net, params, batch, key)
    return 0.5 * (loss + _cross_entropy(net, params, batch, key, offset)[0]), figures


def _virtual(net: nets.Net, params, batch: Batch, key, *, strength, radius, **_):
    """The loss and VAT on the labelled embeddings; strength is its weight."""
    loss_key, key = jax.random.split(key)
    loss, figures = _cross_entropy(net, params, batch, loss_key)
    x = text_classifier.inputs(batch)
    return loss + strength * _vat(net, params, x, key, radius=radius), figures


def _squared_error(net: nets.Net, params, batch: Batch, key, **_):
    """The mean squared error."""
    out = net.apply(params, text_classifier.inputs(batch), key)[:, 0]
    return jnp.mean(jnp.square(out - batch["label"])), {}


def _rdrop_regression(
    net: nets.Net, params, batch: Batch, key, *, strength, convention, **_
):
    """Two passes whose outputs have to be close; strength is alpha."""
    x = text_classifier.inputs(batch)
    out_1, out_2 = rdrop.two_passes(net.apply, params, x, key)
    loss = rdrop.rdrop_regression_loss(
        out_1[:, 0], out_2[:, 0], batch["label"], strength, convention=convention
    )
    return loss, {"divergence": jnp.mean(jnp.square(out_1 - out_2))}


def _consistency(net: nets.Net, params, x, key, **_):
    """R-Drop without labels."""
    return rdrop.consistency_loss(*rdrop.two_passes(net.apply, params, x, key))


def _vat(net: nets.Net, params, x, key, *, radius, **_):
    """Virtual adversarial training on embeddings, with one dropout mask."""
    drop_key, key = jax.random.split(key)

    def logits_fn(offset):
        return net.apply(params, {**x, "offset": offset}, drop_key)

    losses = igr.virtual_adversarial_loss(
        logits_fn, _zero_offset(params, x), key, epsilon=radius
    )
    return jnp.mean(losses)


def _cross_entropy(net, params, batch, key, offset=None):
    x = text_classifier.inputs(batch)
    x = x if offset is None else {**x, "offset": offset}
    logits = net.apply(params, x, key)
    figures = _figures(logits, batch["label"])
    return figures["cross_entropy"], figures


def _figures(logits, labels) -> Figures:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    accuracy = jnp.mean(logits.argmax(axis=-1) == labels)
    return {"cross_entropy": jnp.mean(losses), "accuracy": accuracy}


def _zero_offset(params, batch):
    width = params["encoder"]["embeddings"]["word"].shape[1]
    return jnp.zeros((*batch["ids"].shape, width))


OBJECTIVES = {
    "none": _plain,
    "rdrop": _rdrop,
    "gradient_penalty": _gradient_penalty,
    "adversarial": _adversarial,
    "vat": _virtual,
}
REGRESSION = {"none": _squared_error, "rdrop": _rdrop_regression}
UNLABELLED = {"none": None, "rdrop": _consistency, "vat": _vat}
