"""Whole fine-tuning runs of a check: seed and settings vary, an arm compiles once.

Every seed draws the labelled rows, the head, the order of the batches and the dropout,
the same for all arms: differences between arms are paired::

    lab = Lab(config)
    run = lab.compile(loss_fn, make_optimizer)
    params = run({"learning_rate": 5e-4}, seed=0)
    lab.evaluate(params, "test")["test_accuracy"]
"""

import functools
import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from expkit.context import Context

Run = Callable[..., nets.Params]
Grid = Mapping[str, Sequence[float]]
UNLABELLED = "unlabelled_"
TUNING_SEEDS = 2


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
        """The parameters before the first step of a run."""
        return self.texts.task.net.init(jax.random.key(seed))

    def draw(self, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The labelled rows of a run, and the others without label."""
        arrays = self.texts.task.splits["train"]
        labelled, rest = labelled_texts.choose_labelled(
            arrays["label"], self.config.num_labels, seed
        )
        others = {k: v[rest] for k, v in arrays.items() if k != "label"}
        return {k: v[labelled] for k, v in arrays.items()}, others

    def ngram_accuracy(self, seed: int) -> float:
        """Test accuracy of TF-IDF and logistic regression on the labels of a run."""
        texts, labels = self._whole_texts
        labelled, _ = labelled_texts.choose_labelled(
            labels["train"], self.config.num_labels, seed
        )
        analyzer = "char" if _is_chinese(texts["train"]) else "word"
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
        functions: return arrays, which are waited for.
        rounds: at least 1; a call before them compiles.

    Returns:
        Seconds by name.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            least[name] = min(least[name], time.perf_counter() - start)
    return least


class Study:
    """Arms that are compared on the same seeds, each with the same budget of settings.

    An arm's settings are those of its grid with the highest validation accuracy, or
    lowest loss of a regression, over the first `TUNING_SEEDS` seeds. Every figure is
    kept on disk, so a study that is stopped goes on where it was.

    Attributes:
        context: of the check.
        config: of the runs.
        lab: makes the runs; built when the first of them is not on disk.
        seeds: of the comparison.
        grids: values of each setting of each arm.
    """

    def __init__(
        self,
        context: Context,
        config: ml_collections.ConfigDict,
        compile_arm: Callable[[Lab, str], Run],
        grids: Mapping[str, Grid],
        seeds: Sequence[int],
    ):
        self.context, self.config = context, config
        self.seeds, self.grids = seeds, grids
        self._compile = functools.cache(lambda arm: compile_arm(self.lab, arm))

    @functools.cached_property
    def lab(self) -> Lab:
        """Data and pretrained model."""
        return Lab(self.config)

    def run(self, arm: str, seed: int, settings: Mapping[str, float]) -> nets.Params:
        """Parameters after a run.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            The parameters.
        """
        return self._compile(arm)(dict(settings), seed=seed)

    def figures(
        self, arm: str, seed: int, settings: Mapping[str, float]
    ) -> dict[str, float]:
        """Figures of a run on the validation and test splits.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            `validation_accuracy`, `test_loss` and so on.
        """

        def measure():
            params = self.run(arm, seed, settings)
            splits = [self.lab.evaluate(params, s) for s in ("validation", "test")]
            return splits[0] | splits[1]

        values = "-".join(f"{value:g}" for value in settings.values())
        return self.context.memo(
            f"{arm}-{values}-{seed}",
            measure,
            config=self.config.to_dict(),
            settings=dict(settings),
        )

    def tuned(self, arm: str) -> dict[str, float]:
        """The settings of an arm.

        Args:
            arm: one of `grids`.

        Returns:
            A value for each setting.
        """
        grid = self.grids[arm]
        choices = [
            dict(zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
        ]
        if len(choices) == 1:
            return choices[0]

        def score(settings):
            rows = [
                self.figures(arm, seed, settings) for seed in self.seeds[:TUNING_SEEDS]
            ]
            return np.mean([_score(row) for row in rows])

        return max(choices, key=score)

    def test(self, arm: str, figure: str = "accuracy") -> np.ndarray:
        """A figure of the test split at the tuned settings.

        Args:
            arm: one of `grids`.
            figure: accuracy or loss.

        Returns:
            One number a seed; nan where a run diverged.
        """
        settings = self.tuned(arm)
        rows = [self.figures(arm, seed, settings) for seed in self.seeds]
        return np.array([row[f"test_{figure}"] for row in rows], float)

    def ngrams(self) -> np.ndarray:
        """Test accuracy of TF-IDF and logistic regression, one number a seed."""
        return np.array(
            [
                self.context.memo(
                    f"ngrams-{seed}",
                    lambda seed=seed: self.lab.ngram_accuracy(seed),
                    config=self.config.to_dict(),
                )
                for seed in self.seeds
            ]
        )


def _score(figures: Mapping[str, float | None]) -> float:
    """What tuning maximises; a run that diverged, whose loss is no number, is last."""
    loss = figures["validation_loss"]
    if loss is None:
        return -np.inf
    accuracy = figures.get("validation_accuracy")
    return -loss if accuracy is None else accuracy


def _is_chinese(texts: Sequence[str]) -> bool:
    """Whether a third of the characters are Han: there are no spaces between words."""
    characters = "".join(texts[:1000])
    return 3 * sum("\u4e00" <= c <= "\u9fff" for c in characters) > len(characters)
