"""Whether R-Drop, at the alpha that validates best, beats two passes with alpha 0.

alphas, rates = (0.0, 0.3, 1.0, 3.0), (1e-4, 1e-3)
finding, f1 = against_zero(study, "rdrop", alphas, "f1", rates=rates, listed=words)
"""

from collections.abc import Callable, Sequence

import numpy as np

from expkit import claims, grids
from expkit.arms import Arms
from expkit.claims import Finding
from expkit.grids import Settings

NAMES = {"f1": "F1"}


def against_zero(
    study: Arms,
    arm: str,
    strengths: Sequence[float],
    figure: str,
    *,
    rates: Sequence[float],
    listed: Callable[[np.ndarray], str],
) -> tuple[Finding, np.ndarray]:
    """Gain in a test figure over the same arm with strength 0, paired by seed.

    The strength is chosen by the validation texts, at the learning rate of the tuned
    arm; strength 0 has the one of `rates` that is best for it. Where the baseline beats
    both, nothing is decided; nor where a setting at an end of its grid leaves it open.

    Args:
        study: makes the runs.
        arm: R-Drop, whose `strength` is alpha.
        strengths: those tried, the first of them 0.
        figure: such as accuracy.
        rates: learning rates that strength 0 chooses from.
        listed: words for the mean of the test figure at each strength.

    Returns:
        The finding, and the test figures [seeds, strengths].
    """
    rate = study.tuned(arm)["learning_rate"]
    zero, *others = strengths
    plain = study.best(arm, [_settings(x, zero) for x in rates])
    tried = [plain, *(_settings(rate, strength) for strength in others)]
    choices = [choice for choice in study.choices(arm) if choice not in tried]
    rows = [
        [study.figures(arm, seed, settings) for settings in tried]
        for seed in study.seeds
    ]
    validation, test = (
        np.array([[row[f"{split}_{figure}"] for row in line] for line in rows], float)
        for split in ("validation", "test")
    )
    scores = np.nan_to_num(validation, nan=-np.inf).mean(axis=0)
    best = 1 + int(scores[1:].argmax())
    mean, interval = claims.paired_difference(test[:, best], test[:, 0])
    own_rates = study.grids[arm].get("learning_rate", rates)
    grid = {"learning_rate": own_rates, "strength": strengths}
    is_open = (
        grids.is_at_end(tried[best], grid),
        grids.is_at_end(plain, {"learning_rate": rates}),
    )
    verdict, beside = study.beside_baseline(
        claims.decide(interval, is_open, at_least=0.0),
        test[:, [0, best]].mean(axis=0).max(),
        figure,
    )
    beyond = " One of the two is at an end of its grid." if any(is_open) else ""
    finding = Finding(
        mean,
        verdict,
        interval,
        study.seeds,
        f"Gain in test {NAMES.get(figure, figure)} of alpha {strengths[best]:g}, which "
        f"validates best, over alpha 0, both with two passes, with learning rates "
        f"{rate:.2g} and {plain['learning_rate']:.2g}: {listed(test.mean(axis=0))}. "
        f"{beside}. Alpha 0 is the best of {len(rates)} settings in validation, the "
        f"other of {len(others) + len(choices)}.{beyond}",
    )
    return finding, test


def _settings(rate: float, strength: float) -> Settings:
    return {"learning_rate": rate, "strength": strength}
