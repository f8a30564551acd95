"""Fine-tuning of a pretrained encoder on labelled texts: data, model, optimizer, runs.

The model is that of `expkit.text_classifier`. `load_texts` checks a config and loads
all that it names; what a method adds is a loss and an optimizer.
"""

import dataclasses
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from expkit import (
    data,
    labelled_texts,
    nets,
    supervised,
    text,
    text_classifier,
    text_nets,
    training,
)

MAX_CLASSES = 2**16
"""More would be identifiers, for which the head has no memory."""


class Texts(NamedTuple):
    """A task on texts.

    Attributes:
        task: model, mean loss, and the arrays `ids`, `types` if texts come in pairs,
            and `label` of each split; figures are `loss` and, of classes, `accuracy`.
        unlabelled: `ids` (and `types`) of the training rows whose label is not used.
        params: of the model before the first step; only the head depends on the seed.
        encoder: sizes of the encoder.
    """

    task: supervised.Task
    unlabelled: dict[str, np.ndarray]
    params: nets.Params
    encoder: text.EncoderConfig


def load_texts(config: ml_collections.ConfigDict) -> Texts:
    """Loads encoder and data of a config.

    Args:
        config: see `configs/rdrop/reviews.py`. `encoder` is a name or folder as for
            `expkit.text.load_encoder`, and `num_labels` the number of training rows
            that keep their label, drawn by `seed` with the shares of the classes; 0
            keeps all.

    Returns:
        The task. Labels that are floating-point make it a regression, with the mean
        squared error.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    splits = data.load_splits(config)
    sizes, encoder = load_encoder(config)
    tokenizer = text.load_tokenizer(config.encoder)
    check_sizes(config, sizes, tokenizer, len(config.text_columns))
    arrays = {
        name: labelled_texts.encode_rows(config, tokenizer, rows, name)
        for name, rows in splits.items()
    }
    if any(rows["label"].dtype.kind == "f" for rows in arrays.values()):
        for rows in arrays.values():  # those of a part may all be whole
            rows["label"] = rows["label"].astype(np.float32)
    labelled, rest = labelled_texts.choose_labelled(
        arrays["train"]["label"], config.num_labels, config.seed
    )
    if config.batch_size > len(labelled):
        raise ValueError(
            f"batch_size must be at most {len(labelled)}, the training rows with a "
            f"label, got {config.batch_size!r}."
        )
    unlabelled = {
        k: v[rest] for k, v in arrays["train"].items() if k in text_classifier.INPUTS
    }
    arrays["train"] = {k: v[labelled] for k, v in arrays["train"].items()}
    is_regression = arrays["train"]["label"].dtype.kind == "f"
    num_outputs = 1 if is_regression else _count_classes(config, arrays)
    net = text_classifier.classifier(
        sizes, tokenizer.pad_id, num_outputs, encoder, dropout=config.dropout
    )
    make_loss = (
        text_classifier.regression_loss
        if is_regression
        else text_classifier.classification_loss
    )
    return Texts(
        supervised.Task(net, make_loss(net), arrays, evaluation_rows=64),
        unlabelled,
        net.init(jax.random.key(config.seed)),
        sizes,
    )


def load_encoder(
    config: ml_collections.ConfigDict,
) -> tuple[text.EncoderConfig, nets.Params]:
    """Loads the encoder of a config, or draws one of the same sizes.

    Args:
        config: has `encoder`, `num_layers` (the first so many; 0 is all), `pretrained`,
            `dropout` and `seed`.

    Returns:
        Sizes and parameters; both dropout rates of the sizes are those of the config.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    sizes, params = text.load_encoder(config.encoder or None)
    if not 0 <= config.num_layers <= sizes.num_layers:
        raise ValueError(
            f"num_layers must be in 0..{sizes.num_layers}, got {config.num_layers!r}."
        )
    num_layers = config.num_layers or sizes.num_layers
    layers = {i: params["layer"][i] for i in range(num_layers)}
    sizes = dataclasses.replace(
        sizes,
        num_layers=num_layers,
        hidden_dropout=config.dropout,
        attention_dropout=config.dropout,
    )
    if config.pretrained:
        return sizes, {**params, "layer": layers}
    drawn = text_nets.encoder_language_model(sizes).init(jax.random.key(config.seed))
    return sizes, drawn["encoder"]


def linear_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Linear from 0 to 1 and back to 0, as BERT is fine-tuned.

    Args:
        config: has `num_steps` and `warmup_fraction`, in [0, 1).

    Returns:
        The factor of the peak learning rate.

    Raises:
        ValueError: if `warmup_fraction` is out of range.
    """
    if not 0 <= config.warmup_fraction < 1:
        raise ValueError(
            f"warmup_fraction must be in [0, 1), got {config.warmup_fraction!r}."
        )
    warmup = int(config.warmup_fraction * config.num_steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, 1.0, warmup),
            optax.linear_schedule(1.0, 0.0, config.num_steps - warmup),
        ],
        [warmup],
    )


def make_adamw(
    config: ml_collections.ConfigDict, learning_rate: jax.Array | float | None = None
) -> optax.GradientTransformation:
    """AdamW as BERT is fine-tuned: clipped gradients, warm-up, linear decay.

    Args:
        config: has `learning_rate`, `weight_decay` and `clip_norm` (above 0), and the
            fields of `linear_schedule`.
        learning_rate: peak to use instead of the config's; may be traced.

    Returns:
        The transformation. Only matrices have weight decay.

    Raises:
        ValueError: for a value out of range.
    """
    check_optimizer(config)
    peak = config.learning_rate if learning_rate is None else learning_rate
    shape = linear_schedule(config)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            lambda step: peak * shape(step),
            weight_decay=config.weight_decay,
            mask=training.is_decayed,
        ),
    )


def check_optimizer(config: ml_collections.ConfigDict) -> None:
    """Checks the fields that optimizers of fine-tuning share.

    Args:
        config: has `learning_rate`, `weight_decay` and `clip_norm`.

    Raises:
        ValueError: for a value out of range.
    """
    for name in ("learning_rate", "weight_decay"):
        if not config[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    if not config.clip_norm > 0:
        raise ValueError(f"clip_norm must be above 0, got {config.clip_norm!r}.")


def check_sizes(
    config: ml_collections.ConfigDict,
    sizes: text.EncoderConfig,
    tokenizer: text.Tokenizer,
    num_texts: int,
) -> None:
    """Checks that an encoder can take the rows of a config.

    Args:
        config: has `encoder` and `max_length`.
        sizes: of the encoder.
        tokenizer: of the same encoder.
        num_texts: texts in a row, 1 or 2.

    Raises:
        ValueError: if it cannot.
    """
    if tokenizer.vocab_size > sizes.vocab_size:
        raise ValueError(
            f"the tokenizer of {config.encoder!r} has {tokenizer.vocab_size} ids and "
            f"the encoder {sizes.vocab_size} embeddings: take both from one model."
        )
    if config.max_length > sizes.max_positions:
        raise ValueError(
            f"max_length must be at most {sizes.max_positions}, the positions of the "
            f"encoder, got {config.max_length!r}."
        )
    if num_texts > 1 and sizes.num_token_types < 2:
        raise ValueError(
            f"the encoder {config.encoder!r} cannot tell two texts apart: put one in a "
            "sequence, or use an encoder with two kinds of tokens."
        )


def _count_classes(config, arrays) -> int:
    used = {name: int(rows["label"].max()) for name, rows in arrays.items()}
    if used["train"] == arrays["train"]["label"].min():
        raise ValueError(
            f"all training rows of {config.dataset!r} have the label {used['train']}: "
            "there is nothing to tell apart."
        )
    if used["train"] < max(used.values()):
        raise ValueError(
            f"the training labels of {config.dataset!r} end at {used['train']}, others "
            f"at {max(used.values())}: a class has no example."
        )
    if used["train"] >= MAX_CLASSES:
        raise ValueError(
            f"the labels of {config.dataset!r} go up to {used['train']}, and classes "
            f"are numbered from 0 to {MAX_CLASSES - 1:,} at most: number them anew, or "
            "set label_column."
        )
    return 1 + used["train"]
