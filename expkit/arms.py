"""Arms compared on the same seeds, each tuned over a grid of its own, kept on disk.

A subclass says how an arm is measured and what the baseline is::

    class Study(Arms):
        def measure(self, arm, seed, settings):
            return {"validation_f1": ..., "test_f1": ...}

        def baseline(self, figure):
            return "gazetteer", 0.8


    study = Study(context, config, {"CRF": {"learning_rate": rates}}, seeds, score="f1")
    study.test("CRF", "f1")  # one number a seed
"""

import abc
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from expkit import claims, dot_plots, grids
from expkit.claims import Finding
from expkit.context import Context
from expkit.grids import Grid, Settings

TUNING_SEEDS = 2
LEFT_TO_FULL_MODE = Finding(
    None, claims.NOT_DECIDED, details="Minutes a run: measured with --full."
)
"""What a check finds in quick mode that would take too long there."""


class Arms(abc.ABC):
    """Arms that are compared on the same seeds, each at the best of its settings.

    These are those of its grid with the highest score on the validation split over the
    first `TUNING_SEEDS` seeds; a grid with a setting more, such as a strength, has more
    to choose from, which a finding says. Every figure is kept on disk, so a study that
    is stopped goes on where it was.

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

    @abc.abstractmethod
    def baseline(self, figure: str) -> tuple[str, float]:
        """What an arm has to beat to be evidence for anything.

        Args:
            figure: of the test split, such as accuracy.

        Returns:
            Its name, and its figure.
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

        Args:
            arm: one of `grids`.
            choices: the settings tried; the first of equals wins.

        Returns:
            One of them.
        """
        if len(choices) == 1:
            return dict(choices[0])

        def score(settings):
            rows = [
                self.figures(arm, seed, settings) for seed in self.seeds[:TUNING_SEEDS]
            ]
            return np.mean([self._score(row) for row in rows])

        return dict(max(choices, key=score))

    def test(self, arm: str, figure: str = "accuracy") -> np.ndarray:
        """A figure of the test split at the tuned settings.

        Args:
            arm: one of `grids`.
            figure: such as accuracy or loss.

        Returns:
            One number a seed; nan where a run diverged.
        """
        settings = self.tuned(arm)
        rows = [self.figures(arm, seed, settings) for seed in self.seeds]
        return np.array([row[f"test_{figure}"] for row in rows], float)

    def compare(
        self,
        arm: str,
        rival: str,
        names: Mapping[str, str],
        *,
        figure: str = "accuracy",
        at_least: float | None = None,
        at_most: float | None = None,
        budget: str = "",
    ) -> Finding:
        """Difference of a test figure of two arms, paired by seed.

        Where the baseline beats both of them, nothing is decided; nor where the verdict
        would change if an arm whose best setting is at an end of its grid did better
        beyond it.

        Args:
            arm: one of `grids`.
            rival: one of `grids`.
            names: label of each of the two.
            figure: such as accuracy; the higher, the better.
            at_least: what the difference is claimed to be.
            at_most: likewise; one of the two is needed.
            budget: what the details say of data and steps.

        Returns:
            The finding; its details name both figures and settings, and ends of grids.
        """
        values = {name: self.test(name, figure) for name in (arm, rival)}
        mean, interval = claims.paired_difference(values[arm], values[rival])
        details = ", ".join(
            f"{names[name]} {numbers.mean():.3f} "
            f"({grids.listed(self.tuned(name), self.grids[name])})"
            for name, numbers in values.items()
        )
        is_open = [grids.is_at_end(self.tuned(n), self.grids[n]) for n in values]
        region = {"at_least": at_least, "at_most": at_most}
        reached = max(numbers.mean() for numbers in values.values())
        inside, beside = self.beside_baseline(
            claims.decide(interval, **region), reached, figure
        )
        verdict, beyond = inside, ""
        if inside != claims.NOT_DECIDED:
            verdict = claims.decide(interval, is_open, **region)
        if verdict != inside:
            beyond = " Beyond its grid an arm may do better, so nothing is decided."
        return Finding(
            mean,
            verdict,
            interval,
            self.seeds,
            f"Difference of the test {figure}: {details}. "
            f"{budget or f'{self.config.num_steps} steps'}; {beside}.{beyond}"
            f"{self._unequal_budgets(arm, rival, names)}",
        )

    def _unequal_budgets(self, arm: str, rival: str, names: Mapping[str, str]) -> str:
        """How many settings two arms choose from, if that differs."""
        one, other = (len(self.choices(name)) for name in (arm, rival))
        if one == other:
            return ""
        return (
            f" {names[arm]} is the best of {one} settings in validation, "
            f"{names[rival]} of {other}."
        )

    def beside_baseline(
        self, verdict: str, reached: float, figure: str = "accuracy"
    ) -> tuple[str, str]:
        """The verdict of a comparison: none where the baseline beats all of its arms.

        Args:
            verdict: what the figures of the arms alone say.
            reached: the highest of these figures.
            figure: such as accuracy.

        Returns:
            The verdict, and what the details of the finding say of the baseline.
        """
        label, baseline = self.baseline(figure)
        if reached < baseline:
            beside = f"{label} {baseline:.3f}, which is more, so nothing is decided"
            return claims.NOT_DECIDED, beside
        return verdict, f"{label} {baseline:.3f}"

    def draw(
        self,
        data: str,
        names: Mapping[str, str],
        *,
        figure: str = "accuracy",
        file: str | None = None,
    ) -> None:
        """Draws a test figure of arms, with the baseline as a line.

        Args:
            data: name of the data set.
            names: label of each arm.
            figure: such as accuracy.
            file: name of the drawing; that of the data set by default.
        """
        values = {name: self.test(arm, figure) for arm, name in names.items()}
        label, baseline = self.baseline(figure)
        figures = ", ".join(f"{name} {v.mean():.3f}" for name, v in values.items())
        self.context.figure(
            file or data,
            lambda fig: dot_plots.arms(
                fig.subplots(),
                values,
                xlabel=f"test {figure}",
                reference=(label, baseline),
            ),
            f"Test {figure} on {data}: a dot for each seed, the mean and its interval, "
            "with an arrow where that goes on.",
            f"{figures}; {label} {baseline:.3f}.",
        )

    def _score(self, figures: Mapping[str, float | None]) -> float:
        """What tuning maximises; a run that diverged, with no number, is last."""
        name = self.score if f"validation_{self.score}" in figures else "loss"
        value = figures[f"validation_{name}"]
        if value is None or figures.get("validation_loss", 0.0) is None:
            return -np.inf
        return -value if name == "loss" else value
