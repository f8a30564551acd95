"""Trains an encoder to tell how alike texts are, with CoSENT or one of its rivals."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import cosent
from expkit import config as config_lib
from expkit import data, finetuning, loop, nets, text_classifier, text_pairs, training

Batch = Mapping[str, Any]
EVALUATION_ROWS = 64


def run(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains the model of a config, resuming if the folder holds a started run.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.
        workdir: folder for config, metrics and checkpoints.

    Returns:
        Figures of the validation and test splits at the end, as `make_figures`.

    Raises:
        ConfigError: if a field has a value that cannot be used.
    """
    with config_lib.reporting_errors():
        pairs = load_pairs(config)
        loss_fn, optimizer = make_loss(config, pairs), finetuning.make_adamw(config)
        scores, figures = make_scores(config, pairs), make_figures(config, pairs)

        def evaluate(params, splits=("validation",)):
            return figures({split: scores(params, split) for split in splits})

        fit = training.prepare(config, workdir, pairs.splits, evaluate)
    run_key = jax.random.split(jax.random.key(config.seed))[1]
    state = fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(pairs.params, optimizer, run_key),
    )
    return evaluate(state.params, ("validation", "test"))


def load_pairs(config: ml_collections.ConfigDict) -> text_pairs.Pairs:
    """Loads model and data, with as many outputs as the loss needs.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.

    Returns:
        The task.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    config_lib.choose("model", config.model, LOSSES)
    config_lib.choose("loss", config.loss, LOSSES[config.model])
    if not (config.scale > 0 and np.isfinite(config.scale)):
        raise ValueError(f"scale must be above 0, got {config.scale!r}.")
    pairs = text_pairs.load_pairs(config, 1 if config.loss in SINGLE else 0)
    if config.loss in CLASSIFYING and len(pairs.values) > MAX_CLASSES:
        raise ValueError(
            f"loss={config.loss!r} makes a class of each label, and "
            f"{config.dataset!r} has {len(pairs.values)}: use "
            f"{CLASSIFYING[config.loss]}."
        )
    for split, rows in pairs.splits.items():
        is_positive = rows["label"] >= config.positive_at
        if split != "train" and is_positive.all() | ~is_positive.any():
            raise ValueError(
                f"positive_at={config.positive_at!r} puts all pairs of {split!r} on "
                f"one side: the labels are {pairs.values[0]:g} to {pairs.values[-1]:g}."
            )
    return pairs


def make_loss(
    config: ml_collections.ConfigDict, pairs: text_pairs.Pairs
) -> loop.LossFn:
    """Makes the objective of a config.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.
        pairs: model and data.

    Returns:
        `(params, batch, key) -> (objective, figures)`.
    """
    objective = LOSSES[config.model][config.loss]

    def loss_fn(params, batch, key):
        outputs = pairs.net.apply(params, model_inputs(batch), key)
        return objective(config, pairs.values, params, outputs, batch["label"]), {}

    return loss_fn


def make_score(
    config: ml_collections.ConfigDict, pairs: text_pairs.Pairs
) -> Callable[[nets.Params, Batch], jax.Array]:
    """Makes the function that scores pairs.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.
        pairs: model and data.

    Returns:
        `(params, batch) -> scores [b]`: cosines, the mean of the labels under the
        probabilities of a classifier, or the output of a regression.
    """

    def score(params, batch):
        outputs = pairs.net.apply(params, model_inputs(batch))
        if config.model == "feature":
            return cosent.pairwise_cosine(outputs[0], outputs[1])
        if config.loss in SINGLE:
            return outputs[:, 0]
        return jax.nn.softmax(outputs) @ pairs.values

    return score


def make_scores(
    config: ml_collections.ConfigDict, pairs: text_pairs.Pairs
) -> Callable[[nets.Params, str], np.ndarray]:
    """Makes the function that scores all pairs of a split.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.
        pairs: model and data.

    Returns:
        `(params, split) -> scores [n]`, as `make_score`.
    """
    score = jax.jit(make_score(config, pairs))

    def scores(params, split):
        arrays = pairs.splits[split]
        size = min(EVALUATION_ROWS, len(arrays["label"]))
        batches = data.Batches(arrays, size, seed=None, remainder="pad")
        parts = [np.asarray(score(params, batch)) for batch in batches]
        return np.concatenate(parts)[: len(arrays["label"])]

    return scores


def make_figures(
    config: ml_collections.ConfigDict, pairs: text_pairs.Pairs
) -> Callable[[Mapping[str, np.ndarray]], dict[str, float]]:
    """Makes the evaluation of scores.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`.
        pairs: the data.

    Returns:
        `{split: scores} -> {split_spearman, split_accuracy, split_f1, ...}`. Pairs are
        alike where the score is above a threshold, which is the best one of the
        validation split, for either figure.
    """

    def figures(scores):
        labels = {split: pairs.splits[split]["label"] for split in scores}
        truth = {split: rows >= config.positive_at for split, rows in labels.items()}
        out = {}
        for metric, measure in METRICS.items():
            threshold, _ = cosent.best_threshold(
                scores["validation"], truth["validation"], metric
            )
            for split in scores:
                out[f"{split}_{metric}"] = measure(
                    scores[split] > threshold, truth[split]
                )
        for split in scores:
            correlation = cosent.spearman(scores[split], labels[split])
            out[f"{split}_spearman"] = float(correlation)
        return out

    return figures


def model_inputs(batch: Batch) -> dict[str, Any]:
    """The part of a batch that the models take.

    Args:
        batch: has `label` and others.

    Returns:
        The ids and, of pairs in one sequence, the kinds of tokens.
    """
    names = ("ids_1", "ids_2", *text_classifier.INPUTS)
    return {name: batch[name] for name in names if name in batch}


def _cosent(config, values, params, vectors, labels):
    del values, params
    similarities = cosent.pairwise_cosine(vectors[0], vectors[1])
    return cosent.cosent_loss(similarities, labels, scale=config.scale)


def _sentence_bert(config, values, params, vectors, labels):
    del config
    classes = jnp.searchsorted(jnp.asarray(values), labels)
    return cosent.sentence_bert_loss(params["head"], vectors[0], vectors[1], classes)


def _cosine_mse(config, values, params, vectors, labels):
    del config, params
    targets = (labels - values[0]) / (values[-1] - values[0])
    return cosent.cosine_mse_loss(vectors[0], vectors[1], targets)


def _contrastive(config, values, params, vectors, labels):
    """Each first text of a positive pair finds its second one in the batch."""
    del values, params
    return cosent.in_batch_contrastive_loss(
        vectors[0],
        vectors[1],
        scale=config.scale,
        where=labels >= config.positive_at,
    )


def _classification(config, values, params, logits, labels):
    del config, params
    classes = jnp.searchsorted(jnp.asarray(values), labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    return jnp.mean(losses)


def _regression(config, values, params, outputs, labels):
    del config, values, params
    return jnp.mean(jnp.square(outputs[:, 0] - labels))


def _accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float((predicted == truth).mean())


def _f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (predicted & truth).sum() / max(1, predicted.sum() + truth.sum()))


LOSSES = {
    "feature": {
        "cosent": _cosent,
        "sentence_bert": _sentence_bert,
        "cosine_mse": _cosine_mse,
        "contrastive": _contrastive,
    },
    "interaction": {"classification": _classification, "regression": _regression},
}
SINGLE = ("regression",)  # losses with one output
CLASSIFYING = {"sentence_bert": "cosine_mse", "classification": "regression"}
MAX_CLASSES = 20
METRICS = {"accuracy": _accuracy, "f1": _f1}
