"""Whole fine-tuning runs of a check: seed and settings vary, an arm compiles once.

Every seed draws the labelled rows, the head, the order of the batches and the dropout,
the same for all arms: differences between arms are paired::

    lab = Lab(config)
    run = lab.compile(loss_fn, make_optimizer)
    params = run({"learning_rate": 5e-4}, seed=0)
    lab.evaluate(params, "test")["test_accuracy"]
"""

import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from expkit import (
    bag_of_ngrams,
    data,
    finetuning,
    labelled_texts,
    loop,
    nets,
    supervised,
    sweep,
)

Run = Callable[..., nets.Params]
UNLABELLED = "unlabelled_"


class Lab:
    """The data and the pretrained model of a config, and what is trained from them.

    Attributes:
        config: the config, with the number of labels of a run.
        texts: model and data; all labels of the training set are there.
        evaluate: `(params, split) -> figures`, on whole splits.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        everything = config.copy_and_resolve_references()
        everything.num_labels = 0
        self.texts = finetuning.load_texts(everything)
        self.evaluate = supervised.make_evaluation(self.texts.task)

    def compile(
        self,
        loss_fn: loop.LossFn,
        make_optimizer: Callable[..., optax.GradientTransformation],
        *,
        loss_settings: Collection[str] = (),
        with_unlabelled: bool = False,
        num_steps: int | None = None,
    ) -> Run:
        """Makes a function that fine-tunes the pretrained model.

        Args:
            loss_fn: as for `expkit.sweep.compile_finetuning`.
            make_optimizer: as there.
            loss_settings: as there.
            with_unlabelled: whether batches hold as many rows without label, under
                names that start with `UNLABELLED`.
            num_steps: steps, instead of the config's.

        Returns:
            `(settings, *, seed) -> params`.
        """
        fit = sweep.compile_finetuning(
            loss_fn, make_optimizer, loss_settings=loss_settings
        )
        steps = num_steps or self.config.num_steps

        def run(settings, *, seed):
            arrays, rest = self.draw(seed)
            size = self.config.batch_size
            rows = {
                name: sweep.batch_rows(len(arrays["label"]), size, steps, seed)
                for name in arrays
            }
            if with_unlabelled:
                other = sweep.batch_rows(len(rest["ids"]), size, steps, seed)
                rows |= {UNLABELLED + name: other for name in rest}
                arrays |= {UNLABELLED + name: array for name, array in rest.items()}
            params, _ = fit(
                settings, self.initial(seed), jax.random.key(seed), arrays, rows
            )
            return params

        return run

    def initial(self, seed: int) -> nets.Params:
        """The parameters before the first step of a run.

        Args:
            seed: of the run.

        Returns:
            The parameters.
        """
        return self.texts.task.net.init(jax.random.key(seed))

    def draw(self, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The labelled rows of a run, and the others without label.

        Args:
            seed: of the run.

        Returns:
            Arrays of both.
        """
        arrays = self.texts.task.splits["train"]
        labelled, rest = labelled_texts.choose_labelled(
            arrays["label"], self.config.num_labels, seed
        )
        others = {k: v[rest] for k, v in arrays.items() if k != "label"}
        return {k: v[labelled] for k, v in arrays.items()}, others

    def ngram_accuracy(self, seed: int) -> float:
        """Test accuracy of TF-IDF and logistic regression on the labels of a run.

        Args:
            seed: of the run.

        Returns:
            In 0..1.
        """
        texts, labels = self._whole_texts
        labelled, _ = labelled_texts.choose_labelled(
            labels["train"], self.config.num_labels, seed
        )
        analyzer = bag_of_ngrams.choose_analyzer(texts["train"])
        result = bag_of_ngrams.fit_tfidf_classifier(
            texts | {"train": texts["train"][labelled]},
            labels | {"train": labels["train"][labelled]},
            analyzer=analyzer,
        )
        return float(result.accuracy["test"])

    @functools.cached_property
    def _whole_texts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        splits = data.load_splits(self.config)
        (column,) = self.config.text_columns
        texts = {name: rows[column] for name, rows in splits.items()}
        return texts, {
            name: rows[self.config.label_column] for name, rows in splits.items()
        }


def least_seconds(
    functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
    """Least time of each function over rounds that go through all of them in turn.

    Args:
        functions: as for `round_seconds`.
        rounds: likewise.

    Returns:
        Seconds by name.
    """
    return {name: min(row) for name, row in round_seconds(functions, rounds).items()}


def round_seconds(
    functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Times of each function in rounds that go through all of them in turn.

    Args:
        functions: return arrays, which are waited for.
        rounds: at least 1; a call before them compiles.

    Returns:
        Seconds by name, one number a round.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return seconds
