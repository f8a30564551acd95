"""Arms compared on the same seeds, each tuned over a grid of its own, kept on disk.

A subclass says how an arm is measured and what the baseline is::

    class Study(Arms):
        def measure(self, arm, seed, settings):
            return {"validation_f1": ..., "test_f1": ...}

        def baseline(self, figure):
            return "gazetteer", 0.8


    study = Study(context, config, {"CRF": {"learning_rate": rates}}, seeds, score="f1")
    study.compare("Global Pointer", "CRF", names, figure="f1", at_least=0.0)
"""

import abc
from collections.abc import Mapping

from expkit import claims, dot_plots
from expkit.claims import Finding
from expkit.tuning import TunedRuns

LEFT_TO_FULL_MODE = Finding(
    None, claims.NOT_DECIDED, details="Minutes a run: measured with --full."
)
"""What a check finds in quick mode that would take too long there."""


class Arms(TunedRuns):
    """Arms that are compared with one another, beside a baseline.

    A grid with a setting more than that of a rival, such as a strength, has more to
    choose from, which a finding says.
    """

    @abc.abstractmethod
    def baseline(self, figure: str) -> tuple[str, float]:
        """What an arm has to beat to be evidence for anything.

        Args:
            figure: of the test split, such as accuracy.

        Returns:
            Its name, and its figure.
        """

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
            f"{names[name]} {numbers.mean():.3f} ({self.listed(name)})"
            for name, numbers in values.items()
        )
        is_open = [self.is_at_end(name) for name in values]
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
