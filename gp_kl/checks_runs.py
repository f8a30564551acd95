"""The arms of the comparison on texts with spans, their budgets, and their runs."""

import functools
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

import gp_kl
from expkit import arms, gazetteer, labelled_spans, sweep
from expkit import config as config_lib
from expkit.claims import Context
from expkit.grids import Settings
from gp_kl import train

SPLITS = ("validation", "test")
# What each arm changes in the config.
ARMS: dict[str, dict[str, Any]] = {
    "pointer": {},
    "crf": {"head": "crf"},
    "no_rotary": {"rotary": False},
    "efficient": {"head": "efficient"},
    "rdrop": {"regularizer": "rdrop"},
    "rdrop_softmax": {"regularizer": "rdrop_softmax"},
    "vat": {"regularizer": "vat"},
}
NAMES = {
    "pointer": "Global Pointer",
    "crf": "CRF",
    "no_rotary": "without rotary positions",
    "efficient": "Efficient Global Pointer",
    "rdrop": "R-Drop, sigmoids",
    "rdrop_softmax": "R-Drop, softmax",
    "vat": "VAT",
}
# What full mode tries, around the best of shorter runs. Quick mode takes the middle.
RATES = {
    "news_entities": (1e-3, 2e-3, 4e-3),
    "code_spans": (2.5e-4, 5e-4, 1e-3),
    "few_labels": (2.5e-4, 5e-4, 1e-3),
}
CHAIN_MULTIPLIERS = (1.0, 10.0, 100.0)  # of the CRF, besides rates
# The regularised arms have as many values of this as the plain one has rates, and its
# rate. The weight of VAT stays 1, as that of its authors.
FURTHER = {
    "rdrop": ("strength", (0.3, 1.0, 3.0)),
    "rdrop_softmax": ("strength", (0.1, 0.3, 1.0)),
    "vat": ("radius", (0.3, 1.0, 3.0)),
}
NUM_PARTS = 5  # of a run, with a mean of the training loss in each


class Setting(NamedTuple):
    """One data set.

    Attributes:
        full: config of full mode.
        quick: config of quick mode, or None where that skips it.
        arms: those of full mode.
        quick_arms: those of quick mode.
    """

    full: str
    quick: str | None
    arms: tuple[str, ...]
    quick_arms: tuple[str, ...]


SETTINGS = {
    "news_entities": Setting(
        "configs/gp_kl/news_entities.py:num_steps=1500,"
        "validation_split=validation[:500],test_split=test",
        "configs/gp_kl/news_entities.py:num_steps=30,max_length=48,"
        "train_split=train[:2000],"
        "validation_split=validation[:100],test_split=test[:200]",
        ("pointer", "crf", "no_rotary", "efficient"),
        ("pointer", "crf"),
    ),
    "code_spans": Setting(
        "configs/gp_kl/code_spans.py:num_steps=600",
        None,
        ("pointer", "efficient", "no_rotary"),
        (),
    ),
    # Where a regulariser has most to do, and looking mentions up finds few.
    "few_labels": Setting(
        "configs/gp_kl/code_spans.py:num_labels=100,num_steps=100,max_length=48,"
        "test_split=test[:800]",
        None,
        ("pointer", "rdrop", "rdrop_softmax", "vat"),
        (),
    ),
}


class Lab:
    """Data and pretrained model of an arm, and what is trained from them.

    Attributes:
        config: of the arm.
        task: model and data.
        predict: `(params, split) -> spans`.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.task = train.load_task(config)
        self.predict = train.make_prediction(config, self.task)
        self._fit = sweep.compile_finetuning(
            train.make_loss(config, self.task),
            functools.partial(train.make_optimizer, config),
            loss_settings=("strength", "radius"),
        )

    def measure(self, seed: int, settings: Settings) -> dict[str, Any]:
        """Trains once.

        Args:
            seed: of the head, the order of the texts and the dropout.
            settings: has `learning_rate`; `strength` or `radius` of regularised arms,
                and `chain_multiplier` of the CRF.

        Returns:
            The figures of both splits; `test_f1_unseen`, of the mentions that the
            training texts do not have; `course`, means of the loss along the run.
        """
        arrays = self.task.arrays["train"]
        size, num_steps = self.config.batch_size, self.config.num_steps
        rows = sweep.batch_rows(len(arrays["ids"]), size, num_steps, seed)
        start, key = self.task.net.init(jax.random.key(seed)), jax.random.key(seed)
        params, losses = self._fit(dict(settings), start, key, arrays, rows)
        found = {split: self.predict(params, split) for split in SPLITS}
        parts = np.array_split(np.asarray(losses), NUM_PARTS)
        figures = {
            "test_f1_unseen": self._unseen(found["test"]),
            "course": [float(part.mean()) for part in parts],
        }
        for split, spans in found.items():
            figures |= train.figures(self.task, split, spans)
        return figures

    def _unseen(self, found: train.Found) -> float:
        known, test = (self.task.data.splits[s] for s in ("train", "test"))
        new = [
            labelled_spans.unseen_mentions(known.texts, known.spans, test.texts, spans)
            for spans in (found, test.spans)
        ]
        return gp_kl.span_f1(*new)

    def gazetteer_f1(self) -> float:
        """Looks up the mentions of the training texts.

        Returns:
            F1 on the test split.
        """
        known, test = (self.task.data.splits[s] for s in ("train", "test"))
        found = gazetteer.find_mentions(known.texts, known.spans, test.texts)
        return gp_kl.span_f1(found, test.spans)


class Study(arms.Arms):
    """Runs of all arms on one data set.

    Attributes:
        lab: `arm -> Lab`, built when the first of its runs is not on disk.
        names: labels of the arms of the mode.
    """

    def __init__(self, context: Context, setting: str):
        full, quick, every, few = SETTINGS[setting]
        is_full = context.full or quick is None
        self.names = {arm: NAMES[arm] for arm in (every if is_full else few)}
        middle = slice(None) if is_full else slice(1, 2)
        grids = {}
        for arm in self.names:
            name, values = FURTHER.get(arm, ("learning_rate", RATES[setting]))
            grids[arm] = {name: values[middle]}
        if "crf" in grids:
            grids["crf"]["chain_multiplier"] = CHAIN_MULTIPLIERS[middle]
        super().__init__(
            context,
            config_lib.load(full if is_full else quick),
            grids,
            context.seeds(quick=2, full=5),
            score="f1",
        )
        self.lab = functools.cache(lambda arm: Lab(self.config_of(arm)))

    def config_of(self, arm: str) -> ml_collections.ConfigDict:
        """The config of an arm.

        Args:
            arm: one of `grids`.

        Returns:
            A copy with the head and the regulariser of the arm.
        """
        config = self.config.copy_and_resolve_references()
        config.update(ARMS[arm])
        return config

    def choices(self, arm: str) -> list[dict[str, float]]:
        """The settings of an arm; a regularised one has the rate of the plain one.

        Args:
            arm: one of `grids`.

        Returns:
            A value for each setting, in each.
        """
        choices = super().choices(arm)
        if arm not in FURTHER:
            return choices
        rate = self.tuned("pointer")
        return [rate | settings for settings in choices]

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
        """F1 of looking mentions up.

        Args:
            figure: F1, the only one there is.

        Returns:
            Its name, and the F1 of `Lab.gazetteer_f1`.
        """
        del figure
        value = self.context.memo(
            "gazetteer",
            lambda: self.lab("pointer").gazetteer_f1(),
            config=self.config.to_dict(),
        )
        return "looking up the mentions of training", value


study = functools.cache(Study)
