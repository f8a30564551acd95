"""Trains one variational autoencoder on images or on texts."""

import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from expkit import config as config_lib
from expkit import data, loop, nets, text, training
from vmf_vae import evaluation, models, objective
from vmf_vae.autoencoder import VAE
from vmf_vae.gaussian_latents import BatchNormLatent, GaussianLatent
from vmf_vae.spherical_latent import VMFLatent
from vmf_vae.text_models import TextVAE

Arrays = dict[str, np.ndarray]
Figures = dict[str, float]
HELD_OUT = ("validation", "test")
_CALIBRATION_ROWS = 1000


class Task(NamedTuple):
    """A model and its data.

    Attributes:
        model: the autoencoder.
        splits: `x` of `train`, `validation` and `test`: images in [0, 1], those held
            out already binarised, or ids.
        labels: those of each split, where the source has some.
        calibration: rows of `train`, as the encoder sees them, whose statistics
            `BatchNormVAE` is evaluated with.
    """

    model: VAE
    splits: dict[str, Arrays]
    labels: dict[str, np.ndarray]
    calibration: np.ndarray


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> Figures:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/vmf_vae/digits.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Negative ELBO (`loss`), reconstruction and KL of the validation and test splits,
        and of the test split the log-likelihood by importance sampling and the number
        of active units.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        task = make_task(config)
        optimizer = make_optimizer(config)
        step = make_step(task.model, optimizer, config.kl_warmup_steps)
        evaluate = make_evaluation(task)
        fit = training.prepare(
            config,
            workdir,
            task.splits,
            lambda params: evaluate(params, "validation"),
        )
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    likelihood = make_evaluation(task, num_samples=config.importance_samples)
    params = task.model.init(init_key)
    state = fit(step, loop.init_state(params, optimizer, run_key))
    return evaluate(state.params, "validation") | likelihood(state.params, "test")


def make_task(config: ml_collections.ConfigDict) -> Task:
    """Loads the data and builds the model.

    Args:
        config: see `configs/vmf_vae/digits.py` and `configs/vmf_vae/reviews.py`.

    Returns:
        The task.

    Raises:
        ValueError: for an unknown source, model or field value, or data of another
            kind than the config is for.
    """
    loaded = data.load_splits(config)
    if config.importance_samples < 1:
        given = config.importance_samples
        raise ValueError(f"importance_samples must be at least 1, got {given!r}.")
    kind = "text" if "max_vocabulary" in config else "image"
    if kind not in loaded["train"]:
        raise ValueError(
            f"{config.dataset!r} has {sorted(loaded['train'])}, and this config needs "
            f"{kind}; configs/vmf_vae/reviews.py is for texts, digits.py for images."
        )
    make = _text_task if kind == "text" else _image_task
    model, splits, calibration = make(config, {k: v[kind] for k, v in loaded.items()})
    labels = {k: v["label"] for k, v in loaded.items() if "label" in v}
    return Task(model, splits, labels, calibration)


def make_optimizer(
    config: ml_collections.ConfigDict, learning_rate: jax.Array | float | None = None
) -> optax.GradientTransformation:
    """Builds Adam, with decoupled decay of the matrices.

    Args:
        config: see `configs/vmf_vae/digits.py`.
        learning_rate: to use instead of the config's; may be traced.

    Returns:
        The transformation.

    Raises:
        ValueError: for a value out of range.
    """
    for name in ("learning_rate", "weight_decay"):
        if not config[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {config[name]!r}.")
    rate = config.learning_rate if learning_rate is None else learning_rate
    return optax.adamw(
        rate,
        weight_decay=config.weight_decay,
        mask=training.is_decayed,
    )


def make_step(
    model: VAE,
    optimizer: optax.GradientTransformation,
    kl_warmup_steps: jax.Array | int = 0,
) -> loop.StepFn:
    """Makes the training step, with the weight of the KL rising from 0 to 1.

    Args:
        model: the autoencoder.
        optimizer: turns gradients into updates.
        kl_warmup_steps: steps after which the weight is 1; 0 has it at 1 at once.
            May be traced.

    Returns:
        `(state, batch) -> (state, {"loss", "reconstruction", "kl"})`: minus the ELBO
        with the weighted KL, and its two parts.

    Raises:
        ValueError: if `kl_warmup_steps` is negative.
    """
    objective.require_warmup(kl_warmup_steps)

    def step(state, batch):
        weight = objective.kl_weight(state.step, kl_warmup_steps)

        def loss_fn(params, batch, key):
            return objective.training_loss(
                model, params, batch["x"], key, kl_weight=weight
            )

        return loop.make_step(loss_fn, optimizer)(state, batch)

    return step


def make_evaluation(
    task: Task, *, num_samples: int = 0
) -> Callable[[nets.Params, str], Figures]:
    """Makes the evaluation on whole splits, with fixed random keys.

    Args:
        task: model and data.
        num_samples: of the importance sampling; 0 leaves the log-likelihood and the
            number of active units out.

    Returns:
        `(params, split) -> {split_loss, split_reconstruction, split_kl, ...}`, means
        over the rows.
    """
    model = task.model

    rows_of = jax.jit(
        functools.partial(evaluation.row_figures, model, num_samples=num_samples)
    )
    freeze = jax.jit(model.freeze_statistics)

    def evaluate(params, split):
        params = freeze(params, task.calibration)
        key = jax.random.key(zlib.crc32(split.encode()))
        arrays = task.splits[split]
        num_rows = min(500, len(arrays["x"]))
        rows, centers = [], []
        batches = data.Batches(arrays, num_rows, seed=None, remainder="pad")
        for i, batch in enumerate(batches):
            figures, points = rows_of(params, batch["x"], jax.random.fold_in(key, i))
            rows.append({k: v[batch["mask"]] for k, v in figures.items()})
            centers.append(points[batch["mask"]])
        means = {
            f"{split}_{name}": float(np.concatenate([r[name] for r in rows]).mean())
            for name in rows[0]
        }
        if num_samples:
            is_sphere = isinstance(model.latent, VMFLatent)
            means[f"{split}_active_units"] = evaluation.active_units(
                np.concatenate(centers), rotated=is_sphere
            )
        return means

    return evaluate


def _image_task(config, images):
    data.require_one_shape(images.values(), config.dataset)
    largest = float(images["train"].max())
    x = {k: (v / largest).clip(0, 1).astype(np.float32) for k, v in images.items()}
    make = config_lib.choose("model", config.model, IMAGE_MODELS)
    model = make(
        config,
        input_shape=images["train"].shape[1:],
        latent_dim=config.latent_dim,
        hidden=config.hidden,
        encoder=config.encoder,
        likelihood=config.likelihood,
        noise_scale=config.noise_scale,
    )

    def drawn(name, rows):
        key = jax.random.key(zlib.crc32(name.encode()))
        return np.asarray(objective.binarize(model, rows, key))

    splits = {"train": {"x": x["train"]}}
    splits |= {name: {"x": drawn(name, x[name])} for name in HELD_OUT}
    return model, splits, drawn("train", x["train"][:_CALIBRATION_ROWS])


def _text_task(config, texts):
    vocabulary = text.build_vocabulary(
        texts["train"], max_size=config.max_vocabulary, min_count=config.min_count
    )
    splits = {
        name: {"x": text.encode(vocabulary, rows, max_length=config.max_length)[0]}
        for name, rows in texts.items()
    }
    ids = splits["train"]["x"]
    model = TextVAE(
        config_lib.choose("model", config.model, LATENTS)(config),
        vocab_size=vocabulary.size,
        max_length=config.max_length,
        width=config.width,
        word_dropout=config.word_dropout,
        output_bias=text.unigram_log_probabilities(vocabulary, ids, ids != text.PAD),
    )
    return model, splits, ids[:_CALIBRATION_ROWS]


def concentration(config: ml_collections.ConfigDict) -> float | str:
    """Reads the concentration: a word, or a number written as text.

    Args:
        config: with the field `concentration`.

    Returns:
        The word, or the number.
    """
    try:
        return float(config.concentration)
    except ValueError:
        return config.concentration


IMAGE_MODELS: dict[str, Callable[..., models.ImageVAE]] = {
    "gaussian": lambda c, **shared: models.GaussianVAE(**shared),
    "vmf": lambda c, **shared: models.VMFVAE(concentration=concentration(c), **shared),
    "batch_norm": lambda c, **shared: models.BatchNormVAE(scale=c.scale, **shared),
}
LATENTS: dict[str, Callable[..., Any]] = {
    "gaussian": lambda c: GaussianLatent(c.latent_dim),
    "vmf": lambda c: VMFLatent(c.latent_dim, concentration(c)),
    "batch_norm": lambda c: BatchNormLatent(c.latent_dim, c.scale),
}
