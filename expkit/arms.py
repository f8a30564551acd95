"""Arms compared on the same seeds, each with the same budget for tuning.

arms = Arms(measure, {"CoSENT": {"learning_rate": rates}}, seeds, score="spearman")
arms.test("CoSENT", "spearman")  # one number a seed
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Grid = Mapping[str, Sequence[float]]
Figures = Mapping[str, float | None]
TUNING_SEEDS = 2


class Arms:
    """Arms that are compared on the same seeds, each with the same budget of settings.

    An arm's settings are those of its grid with the highest score on the validation
    split, over the first `TUNING_SEEDS` seeds.

    Attributes:
        measure: `(arm, seed, settings) -> figures` of a run, such as `test_loss`; it
            should keep them on disk.
        grids: values of each setting of each arm.
        seeds: of the comparison.
        score: what tuning maximises: a figure of the validation split. A figure called
            loss is minimised.
    """

    def __init__(
        self,
        measure: Callable[[str, int, Mapping[str, float]], Figures],
        grids: Mapping[str, Grid],
        seeds: Sequence[int],
        *,
        score: str = "accuracy",
    ):
        self.measure, self.grids, self.seeds = measure, grids, seeds
        self.score = score

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
                self.measure(arm, seed, settings) for seed in self.seeds[:TUNING_SEEDS]
            ]
            return np.mean([self._score(row) for row in rows])

        return max(choices, key=score)

    def test(self, arm: str, figure: str = "accuracy") -> np.ndarray:
        """A figure of the test split at the tuned settings.

        Args:
            arm: one of `grids`.
            figure: such as accuracy or loss.

        Returns:
            One number a seed; nan where a run diverged.
        """
        settings = self.tuned(arm)
        rows = [self.measure(arm, seed, settings) for seed in self.seeds]
        return np.array([row[f"test_{figure}"] for row in rows], float)

    def _score(self, figures: Figures) -> float:
        """A run that diverged, whose figure is no number, is last."""
        value = figures.get(f"validation_{self.score}")
        if value is None or not np.isfinite(value):
            return -np.inf
        return -value if self.score == "loss" else value
