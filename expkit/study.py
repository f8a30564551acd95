"""Arms of a fine-tuning on labelled texts, against n-grams.

study = Study(context, config, compile_arm, {"R-Drop": {"learning_rate": rates}}, seeds)
study.test("R-Drop")  # accuracies, one a seed
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from expkit import arms, nets
from expkit.claims import Finding
from expkit.context import Context
from expkit.finetuning_runs import Lab, Run
from expkit.grids import Grid, Settings


class Study(arms.Arms):
    """Arms that fine-tune one model on few labels; figures are accuracy and loss.

    Attributes:
        lab: makes the runs; built when the first of them is not on disk.
    """

    def __init__(
        self,
        context: Context,
        config: ml_collections.ConfigDict,
        compile_arm: Callable[[Lab, str], Run],
        grids: Mapping[str, Grid],
        seeds: Sequence[int],
    ):
        super().__init__(context, config, grids, seeds)
        self._compile = functools.cache(lambda arm: compile_arm(self.lab, arm))
        self._kept: dict[str, nets.Params] = {}

    @functools.cached_property
    def lab(self) -> Lab:
        """Data and pretrained model."""
        return Lab(self.config)

    def run(self, arm: str, seed: int, settings: Settings) -> nets.Params:
        """Parameters after a run; those of the last stay in memory, in quick mode all.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            The parameters.
        """
        name = f"{arm}-{sorted(settings.items())}-{seed}"
        if name not in self._kept:
            if self.context.full:  # too many to keep
                self._kept.clear()
            self._kept[name] = self._compile(arm)(dict(settings), seed=seed)
        return self._kept[name]

    def measure(self, arm: str, seed: int, settings: Settings) -> dict[str, float]:
        """Figures of a run on the validation and test splits.

        Args:
            arm: one of `grids`.
            seed: of the run.
            settings: of the run.

        Returns:
            Loss and, of classes, accuracy of both.
        """
        params = self.run(arm, seed, settings)
        splits = [self.lab.evaluate(params, s) for s in ("validation", "test")]
        return splits[0] | splits[1]

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

    def baseline(self, figure: str) -> tuple[str, float]:
        """The mean accuracy of TF-IDF and logistic regression.

        Args:
            figure: accuracy.

        Returns:
            Its name, and its accuracy.

        Raises:
            ValueError: for another figure.
        """
        if figure != "accuracy":
            raise ValueError(f"n-grams have an accuracy only, not {figure!r}.")
        return "TF-IDF and logistic regression", float(self.ngrams().mean())

    def compare(
        self,
        arm: str,
        rival: str,
        names: Mapping[str, str],
        *,
        at_least: float | None = 0.0,
        **options,
    ) -> Finding:
        """As `Arms.compare`; the details name labels, steps and layers.

        Args:
            arm: one of `grids`.
            rival: one of `grids`.
            names: label of each of the two.
            at_least: what the difference is claimed to be.
            **options: others of `Arms.compare`.

        Returns:
            The finding.
        """
        config = self.config
        budget = (
            f"{config.num_labels or 'All'} labels, {config.num_steps} steps, "
            f"{config.num_layers or 'all'} layers"
        )
        return super().compare(
            arm, rival, names, at_least=at_least, budget=budget, **options
        )
