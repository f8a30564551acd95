"""The arms of the comparison on pairs of texts, their budgets, and their runs."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

import cosent
from cosent import train
from expkit import arms, bag_of_ngrams, data, finetuning, sweep
from expkit import config as config_lib
from expkit.claims import Context
from expkit.datasets import word_order
from expkit.grids import Settings

SPLITS = ("validation", "test")
NUM_BLOCKS = 4  # of a run, with a record of the validation scores after each
COURSE_ROWS = 32  # validation pairs of a record
# Model, loss and scale of each arm.
ARMS: dict[str, dict[str, Any]] = {
    "cosent": {},
    "sentence_bert": {"loss": "sentence_bert"},
    "cosine_mse": {"loss": "cosine_mse"},
    "contrastive": {"loss": "contrastive"},
    "scale_1": {"scale": 1.0},
    "interaction": {"model": "interaction", "loss": "classification"},
}
NAMES = {
    "cosent": "CoSENT",
    "sentence_bert": "Sentence-BERT",
    "cosine_mse": "squared error of the cosine",
    "contrastive": "contrastive, in the batch",
    "scale_1": "CoSENT, scale 1",
    "interaction": "interaction-based",
}
QUICK = ("cosent", "sentence_bert")  # arms of quick mode
# What full mode tries. Quick mode takes the middle one.
RATES = (1e-5, 3e-5, 1e-4)
PAIRS = "configs/cosent/api_docs_pairs.py:"


class Setting(NamedTuple):
    """One data set.

    Attributes:
        full: config of full mode.
        quick: config of quick mode, or None where that skips it.
    """

    full: str
    quick: str | None


SETTINGS = {
    "pairs": Setting(
        f"{PAIRS}max_length=64,num_steps=200,validation_split=validation,"
        "test_split=test",
        f"{PAIRS}num_steps=8,train_split=train[:500],validation_split=validation[:64],"
        "test_split=test[:128]",
    ),
    "word_order": Setting(
        f"{PAIRS}num_steps=400,label_column=label,positive_at=1.0,"
        "validation_split=validation,test_split=test",
        None,
    ),
}


class Lab:
    """Data and pretrained model of an arm, and what is trained from them.

    Attributes:
        config: of the arm.
        pairs: model and data.
        scores: `(params, split) -> scores`.
        figures: `{split: scores} -> figures`.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.pairs = train.load_pairs(config)
        self.scores = train.make_scores(config, self.pairs)
        self.figures = train.make_figures(config, self.pairs)
        self._fit = sweep.compile_recorded_finetuning(
            train.make_loss(config, self.pairs),
            functools.partial(finetuning.make_adamw, config),
            train.make_score(config, self.pairs),
        )

    def measure(self, seed: int, settings: Mapping[str, float]) -> dict[str, Any]:
        """Trains once.

        Args:
            seed: of the head, the order of the pairs and the dropout.
            settings: has `learning_rate`.

        Returns:
            The figures of both splits; `course`, the Spearman correlation of the first
            validation pairs before and along the run.
        """
        arrays = self.pairs.splits["train"]
        size, num_steps = self.config.batch_size, self.config.num_steps
        rows = sweep.batch_rows(len(arrays["label"]), size, num_steps, seed)
        held_out = {
            k: v[:COURSE_ROWS] for k, v in self.pairs.splits["validation"].items()
        }
        params, _, records = self._fit(
            dict(settings),
            self.pairs.net.init(jax.random.key(seed)),
            jax.random.key(seed),
            arrays,
            rows.reshape(NUM_BLOCKS, num_steps // NUM_BLOCKS, size),
            held_out,
        )
        course = [float(cosent.spearman(r, held_out["label"])) for r in records]
        scores = {split: self.scores(params, split) for split in SPLITS}
        return self.figures(scores) | {"course": course}

    def ngram_figures(self) -> dict[str, float]:
        """Figures of the cosines of TF-IDF vectors, with the same thresholds.

        Returns:
            `test_spearman` and so on.
        """
        tables = data.load_splits(self.config)
        columns = self.config.text_columns
        train_texts = np.concatenate([tables["train"][c] for c in columns])
        return self.figures(
            {
                split: bag_of_ngrams.tfidf_cosines(
                    train_texts, *(tables[split][c] for c in columns)
                )
                for split in SPLITS
            }
        )


class Study(arms.Arms):
    """Runs of all arms on one data set.

    Attributes:
        lab: `arm -> Lab`, built when the first of its runs is not on disk.
    """

    def __init__(self, context: Context, setting: str):
        full, quick = SETTINGS[setting]
        config = config_lib.load(full if context.full or quick is None else quick)
        if setting == "word_order":
            config.dataset = word_order.write(context.out / "word_order")
        rates = RATES if context.full else RATES[1:2]
        super().__init__(
            context,
            config,
            {arm: {"learning_rate": rates} for arm in ARMS},
            context.seeds(quick=2, full=5),
            score="accuracy" if setting == "word_order" else "spearman",
        )
        self.lab = functools.cache(lambda arm: Lab(self.config_of(arm)))

    def config_of(self, arm: str) -> ml_collections.ConfigDict:
        """The config of an arm.

        Args:
            arm: one of `grids`.

        Returns:
            A copy with the model, loss and scale of the arm.
        """
        config = self.config.copy_and_resolve_references()
        config.update(ARMS[arm])
        if config.model == "interaction":
            config.max_length *= 2  # which holds both texts
        return config

    def measure(self, arm: str, seed: int, settings: Settings) -> dict[str, Any]:
        """Trains once.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            As `Lab.measure`.
        """
        return self.lab(arm).measure(seed, settings)

    def baseline(self, figure: str) -> tuple[str, float]:
        """A figure of the cosines of TF-IDF vectors.

        Args:
            figure: of the test split.

        Returns:
            Its name, and the figure, as `Lab.ngram_figures`.
        """
        figures = self.context.memo(
            "ngrams",
            lambda: self.lab("cosent").ngram_figures(),
            config=self.config.to_dict(),
        )
        return "cosine of TF-IDF", figures[f"test_{figure}"]


study = functools.cache(Study)
