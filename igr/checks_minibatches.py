"""Mini-batch descent: what its learning rate does, and a penalty in its place.

Smith et al. 2021: an epoch of m batches follows `L + (h/4m) sum ||grad L_k||^2`, so a
small rate with the difference of the penalties should end where a larger rate does.
"""

import numpy as np

from expkit import claims, sweep
from expkit.claims import Context, Finding
from igr import checks_descent

TIME = 25.6  # learning rate * steps
SMALL, LARGE = 0.02, 0.16
STRENGTH = (LARGE - SMALL) / 4
CONFIG = (
    "configs/igr/digits.py:train_split=train[:500],hidden=(64,64),activation=gelu,"
    "batch_size=25,"
)
ARMS = {
    "small": ("none", SMALL, 0.0),
    "large": ("none", LARGE, 0.0),
    "penalised": ("parameter_penalty", SMALL, STRENGTH),
}


def check_sharpness_recovered(context: Context) -> Finding:
    """How much of the change in sharpness the penalty brings at the small rate."""
    return _recovered(context, "sharpness", "the largest Hessian eigenvalue")


def check_batch_squares_recovered(context: Context) -> Finding:
    """The same of the mean squared norm of the mini-batch gradients."""
    return _recovered(context, "batch_squares", "the mean of ||grad L_k||^2")


def check_accuracy_recovered(context: Context) -> Finding:
    """Test accuracy with the penalty at the small rate minus that at the large one."""
    figures = {arm: _figures(context, arm)["test_accuracy"] for arm in ARMS}
    mean, interval = claims.paired_difference(figures["penalised"], figures["large"])
    means = ", ".join(f"{arm} {values.mean():.4f}" for arm, values in figures.items())
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        f"Mean test accuracies: {means}. Batches of 25 of 500 images, rates {SMALL:g} "
        f"and {LARGE:g}, equal learning rate x steps.",
    )


def _recovered(context: Context, name: str, what: str) -> Finding:
    values = {arm: _figures(context, arm)[name] for arm in ARMS}
    # In logarithms: the figures are positive and differ by factors.
    logs = {arm: np.log(figures) for arm, figures in values.items()}
    brought = logs["small"] - logs["penalised"]
    sought = logs["small"] - logs["large"]
    scale = float(sought.mean()) or np.nan
    ratio = brought.mean() / scale
    # To first order, what one seed adds to the error of a ratio of means.
    errors = (brought - ratio * sought) / scale
    mean, interval = claims.mean_interval(ratio + errors)
    _, (least, most) = claims.mean_interval(sought)
    is_sought = least > 0.0 or most < 0.0
    verdict = claims.decide(interval, at_least=0.5, at_most=1.5)
    means = ", ".join(f"{arm} {figures.mean():.3g}" for arm, figures in values.items())
    return Finding(
        mean,
        verdict if is_sought else claims.NOT_DECIDED,
        interval,
        _seeds(context),
        f"Change of the logarithm of {what} at the rate {SMALL:g} when a penalty of "
        f"{STRENGTH:g} is added, as a fraction of the change from there to {LARGE:g}; "
        "0.5 to 1.5 counts as recovered, and not decided where the rate itself changes "
        "nothing beyond the spread of the seeds. "
        f"Means: {means}.",
    )


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=10)


def _figures(context: Context, arm: str) -> dict[str, np.ndarray]:
    """Figures at the end of the runs of one arm, each [seeds]."""
    regularizer, rate, strength = ARMS[arm]

    def compute(seed):
        runs = checks_descent.runs(f"{CONFIG}regularizer={regularizer}", TIME)
        return runs.figures(seed, rate, strength)

    rows = [
        context.memo(
            f"minibatch-{arm}-{seed}",
            lambda seed=seed: compute(seed),
            arm=ARMS[arm],
            time=TIME,
            config=CONFIG,
        )
        for seed in _seeds(context)
    ]
    return sweep.stacked(rows)
