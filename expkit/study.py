"""Arms compared on the same seeds, with the same budget for tuning, kept on disk.

study = Study(context, config, compile_arm, {"R-Drop": {"learning_rate": rates}}, seeds)
study.test("R-Drop")  # accuracies, one a seed
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from expkit import claims, dot_plots, nets
from expkit.claims import Finding
from expkit.context import Context
from expkit.finetuning_runs import Lab, Run

Grid = Mapping[str, Sequence[float]]
TUNING_SEEDS = 2
LEFT_TO_FULL_MODE = Finding(
    None, claims.NOT_DECIDED, details="Minutes a run: measured with --full."
)
"""What a check finds in quick mode that would take too long there."""


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
        self._kept: dict[str, nets.Params] = {}

    @functools.cached_property
    def lab(self) -> Lab:
        """Data and pretrained model."""
        return Lab(self.config)

    def run(self, arm: str, seed: int, settings: Mapping[str, float]) -> nets.Params:
        """Parameters after a run; quick mode keeps them in memory.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            The parameters.
        """
        name = f"{arm}-{sorted(settings.items())}-{seed}"
        if name not in self._kept:
            params = self._compile(arm)(dict(settings), seed=seed)
            if self.context.full:  # too many to keep
                return params
            self._kept[name] = params
        return self._kept[name]

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
        """Test accuracy of TF-IDF and logistic regression.

        Returns:
            One number a seed.
        """
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

    def compare(
        self, arm: str, rival: str, names: Mapping[str, str], *, at_least: float = 0.0
    ) -> Finding:
        """Difference of the test accuracies of two arms, paired by seed.

        Where n-grams beat both of them, nothing is decided.

        Args:
            arm: one of `grids`.
            rival: one of `grids`.
            names: label of each of the two.
            at_least: what the difference is claimed to be.

        Returns:
            The finding; its details name both accuracies and settings.
        """
        accuracies = {name: self.test(name) for name in (arm, rival)}
        mean, interval = claims.paired_difference(accuracies[arm], accuracies[rival])
        ngrams = float(self.ngrams().mean())
        is_below = bool(max(v.mean() for v in accuracies.values()) < ngrams)
        details = ", ".join(
            f"{names[name]} {values.mean():.3f} ({_listed(self.tuned(name))})"
            for name, values in accuracies.items()
        )
        return Finding(
            mean,
            claims.NOT_DECIDED
            if is_below
            else claims.decide(interval, at_least=at_least),
            interval,
            self.seeds,
            f"Difference of test accuracies: {details}. "
            f"{self.config.num_labels or 'All'} labels, {self.config.num_steps} steps, "
            f"{self.config.num_layers or 'all'} layers; TF-IDF and logistic regression "
            f"{ngrams:.3f}"
            f"{', more than either' * is_below}.",
        )

    def draw(self, data: str, names: Mapping[str, str]) -> None:
        """Draws the test accuracies of arms, with those of TF-IDF as a line.

        Args:
            data: name of the data set, and of the figure.
            names: label of each arm.
        """
        values = {name: self.test(arm) for arm, name in names.items()}
        ngrams = float(self.ngrams().mean())
        figures = ", ".join(f"{name} {v.mean():.3f}" for name, v in values.items())
        self.context.figure(
            data,
            lambda fig: dot_plots.arms(
                fig.subplots(),
                values,
                xlabel="test accuracy",
                reference=("TF-IDF + logistic regression", ngrams),
            ),
            f"Test accuracy on {data}: a dot for each seed, the mean and its interval, "
            "with an arrow where that goes on.",
            f"{figures}; TF-IDF with logistic regression {ngrams:.3f}.",
        )


def _score(figures: Mapping[str, float | None]) -> float:
    """What tuning maximises; a run that diverged, whose loss is no number, is last."""
    loss = figures["validation_loss"]
    if loss is None:
        return -np.inf
    accuracy = figures.get("validation_accuracy")
    return -loss if accuracy is None else accuracy


def _listed(settings: Mapping[str, float]) -> str:
    """Settings in words, such as `learning rate 0.0005, strength 4`."""
    return ", ".join(f"{k.replace('_', ' ')} {v:.2g}" for k, v in settings.items())
