"""Trains one classifier, masked language model or line with one optimizer."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import optax

import lion
from expkit import config as config_lib
from expkit import (
    data,
    jsonfile,
    loop,
    metrics,
    nets,
    supervised,
    text,
    text_nets,
    training,
)
from expkit import masked_language as mlm


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
        task, optimizer = make_task(config), make_optimizer(config)
        evaluate = supervised.make_evaluation(task)
        fit = training.prepare(
            config,
            workdir,
            task.splits,
            lambda params: evaluate(params, "validation"),
        )
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    state = fit(
        loop.make_step(task.loss_fn, optimizer),
        loop.init_state(task.net.init(init_key), optimizer, run_key),
    )
    figures = evaluate(state.params, "validation") | evaluate(state.params, "test")
    if config.get("model") == "encoder" and jax.process_index() == 0:
        save_encoder(config, state.params, figures, Path(workdir))
    return figures


def save_encoder(
    config: ml_collections.ConfigDict,
    params: nets.Params,
    figures: dict[str, float],
    workdir: Path,
) -> None:
    """Writes a pre-trained encoder as `expkit.text.load_encoder` reads it, in float16.

    `pretraining.json` beside it says where it is from: the config, a hash of the
    training texts, the training loss over the steps and the figures at the end.

    Args:
        config: with `model="encoder"`; see `configs/lion/zh_char.py`.
        params: of its language model; the bias of the output is written too.
        figures: at the end.
        workdir: of the run; the encoder is put into `encoder/`.
    """
    texts = data.load_splits(config)["train"]["text"]
    vocabulary = _vocabulary(config, texts)
    text.save_encoder(
        workdir / "encoder",
        _sizes(config, vocabulary.size),
        params["encoder"],
        extra_tensors={"output.bias": params["bias"]},
        tokenizer=vocabulary,
    )
    rows = metrics.read(workdir / "metrics.jsonl")
    content = {
        "config": config.to_dict(),
        "training_texts": {
            "number": len(texts),
            "characters": sum(map(len, texts)),
            "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        },
        "losses": [[row["step"], round(row["loss"], 4)] for row in rows],
        "figures": figures,
    }
    jsonfile.write(workdir / "encoder" / "pretraining.json", content)


def make_task(config: ml_collections.ConfigDict) -> supervised.Task:
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
        return supervised.classification_task(config, splits)
    if {"x", "y"} <= train.keys():
        return supervised.regression_task(config, splits)
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


def _masked_language_task(
    config, splits: dict[str, supervised.Arrays]
) -> supervised.Task:
    texts = {name: split["text"] for name, split in splits.items()}
    vocabulary = _vocabulary(config, texts["train"])
    arrays = mlm.encode_splits(
        vocabulary,
        texts,
        max_length=config.max_length,
        mask_rate=config.mask_rate,
        is_packed=config.packed,
    )
    make = config_lib.choose("model", config.model, LANGUAGE_MODELS)
    ids = arrays["train"]["ids"]
    bias = text.unigram_log_probabilities(vocabulary, ids, ids != text.PAD)
    net = make(config, vocabulary.size, bias)
    return supervised.Task(
        net,
        mlm.make_loss(net, config.mask_rate),
        arrays,
        count=mlm.num_masked,
        summarize=mlm.with_perplexity,
        evaluation_rows=64,  # a position has thousands of logits
    )


def _vocabulary(config, texts) -> text.CharVocabulary:
    return text.build_vocabulary(
        texts, max_size=config.max_vocabulary, min_count=config.min_count
    )


def _rotary(config, vocab_size, output_bias):
    return text_nets.text_encoder(
        vocab_size,
        max_length=config.max_length,
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        output_bias=output_bias,
        dropout=config.dropout,
    )


def _encoder(config, vocab_size, output_bias):
    sizes = _sizes(config, vocab_size)
    return text_nets.encoder_language_model(sizes, output_bias)


def _sizes(config, vocab_size: int) -> text.EncoderConfig:
    return text.EncoderConfig(
        vocab_size,
        hidden_size=config.width,
        num_layers=config.depth,
        num_heads=config.num_heads,
        intermediate_size=4 * config.width,
        max_positions=config.max_length,
        num_token_types=1,
        hidden_dropout=config.dropout,
        attention_dropout=config.dropout,
        is_rotary=True,
        norm_first=True,
    )


def _lion(config, schedule, weight_decay):
    return lion.lion(
        schedule,
        config.b1,
        config.b2,
        weight_decay=weight_decay,
        mask=training.is_decayed,
    )


def _adamw(config, schedule, weight_decay):
    return optax.adamw(
        schedule,
        config.b1,
        config.adamw_b2,
        weight_decay=weight_decay,
        mask=training.is_decayed,
    )


def _sgd(config, schedule, weight_decay):
    return optax.chain(
        optax.trace(config.momentum),
        optax.add_decayed_weights(weight_decay, training.is_decayed),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lion": _lion,
    "adamw": _adamw,
    "sgd": _sgd,
}
LANGUAGE_MODELS: dict[str, Callable[..., nets.Net]] = {
    "rotary": _rotary,
    "encoder": _encoder,
}
