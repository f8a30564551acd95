"""Runs of several arms, each tuned over a grid of its own and kept on disk.

A subclass says how a run is made::

    class Study(TunedRuns):
        def measure(self, arm, seed, settings):
            return {"validation_f1": ..., "test_f1": ...}


    study = Study(context, config, {"CRF": {"learning_rate": rates}}, seeds, score="f1")
    study.tuned("CRF")  # {"learning_rate": 0.001}
    study.listed("CRF")  # "learning rate 0.001, the lowest tried"
    study.test("CRF", "f1")  # one number a seed
"""

import abc
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from expkit import grids
from expkit.context import Context
from expkit.grids import Grid, Settings

TUNING_SEEDS = 2


class TunedRuns(abc.ABC):
    """Arms on the same seeds, each at the best of its settings.

    These are those of its grid with the highest score on the validation split. All of a
    grid are tried on the first seed, the best third of them on the others of the first
    `TUNING_SEEDS` seeds, and their mean decides. Every figure is kept on disk, so a
    study that is stopped goes on where it was.

    Attributes:
        context: of the check.
        config: of the runs.
        grids: values of each setting of each arm.
        seeds: of the comparison.
        score: the figure that tuning maximises; where the runs have none of that name,
            the loss is minimised.
    """

    def __init__(
        self,
        context: Context,
        config: ml_collections.ConfigDict,
        grids: Mapping[str, Grid],
        seeds: Sequence[int],
        *,
        score: str = "accuracy",
    ):
        self.context, self.config = context, config
        self.grids, self.seeds, self.score = grids, seeds, score

    @abc.abstractmethod
    def measure(self, arm: str, seed: int, settings: Settings) -> Mapping[str, float]:
        """Makes a run.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            `validation_accuracy`, `test_loss` and so on.
        """

    def config_of(self, arm: str) -> ml_collections.ConfigDict:
        """The config of an arm, which a figure on disk depends on.

        Args:
            arm: one of `grids`.

        Returns:
            That of all arms, unless a subclass knows better.
        """
        del arm
        return self.config

    def figures(self, arm: str, seed: int, settings: Settings) -> dict[str, float]:
        """Figures of a run, from disk if they are there.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            As `measure`; None in place of a number that is not finite.
        """
        values = "-".join(f"{value:g}" for value in settings.values())
        return self.context.memo(
            f"{arm}-{values}-{seed}",
            lambda: self.measure(arm, seed, settings),
            config=self.config_of(arm).to_dict(),
            settings=dict(settings),
        )

    def choices(self, arm: str) -> list[dict[str, float]]:
        """The settings that tuning chooses from.

        Args:
            arm: one of `grids`.

        Returns:
            A value for each setting, in each.
        """
        return grids.combinations(self.grids[arm])

    def tuned(self, arm: str) -> dict[str, float]:
        """The settings of an arm.

        Args:
            arm: one of `grids`.

        Returns:
            A value for each setting.
        """
        return self.best(arm, self.choices(arm))

    def best(self, arm: str, choices: Sequence[Settings]) -> dict[str, float]:
        """The settings that validate best over the first `TUNING_SEEDS` seeds.

        After the first seed the best third goes on, and no fewer than two.

        Args:
            arm: one of `grids`.
            choices: the settings tried; the first of equals wins.

        Returns:
            One of them.
        """
        if len(choices) == 1:
            return dict(choices[0])

        def score(settings, seeds):
            rows = [self.figures(arm, seed, settings) for seed in seeds]
            return np.mean([self._score(row) for row in rows])

        first, both = self.seeds[:1], self.seeds[:TUNING_SEEDS]
        # Sorting keeps the order of equals.
        ranked = sorted(choices, key=lambda x: score(x, first), reverse=True)
        finalists = ranked[: max(2, math.ceil(len(choices) / 3))]
        return dict(max(finalists, key=lambda x: score(x, both)))

    def is_at_end(self, arm: str) -> bool:
        """Whether a better setting may lie beyond an end of the grid of an arm.

        Args:
            arm: one of `grids`.

        Returns:
            As `grids.is_at_end` of its tuned settings.
        """
        return grids.is_at_end(self.tuned(arm), self.grids[arm])

    def listed(self, arm: str) -> str:
        """The tuned settings of an arm in words, and ends of its grid.

        Args:
            arm: one of `grids`.

        Returns:
            The words of `grids.listed`.
        """
        return grids.listed(self.tuned(arm), self.grids[arm])

    def test(self, arm: str, figure: str = "accuracy") -> np.ndarray:
        """A figure of the test split at the tuned settings.

        Args:
            arm: one of `grids`.
            figure: such as accuracy or loss.

        Returns:
            One number a seed; nan where a run diverged.
        """
        return self._of_seeds(arm, f"test_{figure}")

    def courses(self, arm: str) -> np.ndarray:
        """What the runs recorded on their way, at the tuned settings.

        Args:
            arm: one of `grids`, whose runs have a `course`.

        Returns:
            [seeds, records].
        """
        return self._of_seeds(arm, "course")

    def _of_seeds(self, arm: str, name: str) -> np.ndarray:
        settings = self.tuned(arm)
        rows = [self.figures(arm, seed, settings) for seed in self.seeds]
        return np.array([row[name] for row in rows], float)

    def _score(self, figures: Mapping[str, float | None]) -> float:
        """What tuning maximises; a run that diverged, with no number, is last."""
        name = self.score if f"validation_{self.score}" in figures else "loss"
        value = figures[f"validation_{name}"]
        if value is None or figures.get("validation_loss", 0.0) is None:
            return -np.inf
        return -value if name == "loss" else value
