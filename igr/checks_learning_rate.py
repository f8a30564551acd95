"""What a larger learning rate does at equal learning rate x steps, on digits.

Full-batch gradient descent on 500 images, so that nothing but the learning rate
differs: every run ends at the same time of the gradient flow, from the same start.
"""

import dataclasses
from typing import Any

import numpy as np

from expkit import claims, plots, sweep
from expkit.claims import Context, Finding
from igr import checks_descent, checks_trends

TIME = 25.6  # learning rate * steps
RATES = 0.02 * 2.0 ** np.arange(6)
SMALL = float(RATES[1])  # where a penalty stands in for a larger learning rate
# The penalty that makes up for another learning rate is a quarter of the difference.
STABLE = float(RATES[3])
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of that penalty
CONFIG = (
    "configs/igr/digits.py:train_split=train[:500],hidden=(64,64),activation=gelu,"
    "batch_size=500,"
)


def check_regularizer_falls(context: Context) -> Finding:
    """Spearman correlation of learning rate and squared gradient norm at the end."""
    return _stable_trend(context, "regularizer", "R_IG at the end")


def check_sharpness_falls(context: Context) -> Finding:
    """Spearman correlation of learning rate and largest Hessian eigenvalue."""
    _draw(context)
    return _stable_trend(context, "sharpness", "sharpness at the end")


def _stable_trend(context: Context, name: str, what: str) -> Finding:
    """Whether a figure falls with the rate, where descent can stay at its end.

    A quadratic diverges at a rate above 2 over its curvature: descent then goes on
    elsewhere, or around, with gradients and curvatures that no flow explains. All rates
    decide where none is above that.
    """
    whole = _trend(context, name, at_most=0.0, what=what)
    sweeps = [_sweep(context, seed) for seed in _seeds(context)]
    curvature = np.mean([float(row["sharpness"][0] or np.nan) for row in sweeps])
    count = int(np.sum(RATES * curvature < 2.0))
    if not 2 <= count < len(RATES):
        return whole
    stable = _trend(context, name, at_most=0.0, what=what, count=count)
    beyond = np.array([row[name][count:] for row in sweeps], float)
    return dataclasses.replace(
        stable,
        details=f"{stable.details} Larger rates exceed 2 over the sharpness "
        f"{curvature:.3g} at the smallest, so that descent cannot stay where the flow "
        "ends, and backward error analysis says nothing of them. With them the "
        f"correlation is {whole.measured:.2f}, and their means "
        f"{', '.join(f'{value:.4g}' for value in beyond.mean(axis=0))}.",
    )


def check_accuracy_rises(context: Context) -> Finding:
    """Spearman correlation of learning rate and test accuracy."""
    return _trend(context, "test_accuracy", at_least=0.0, what="test accuracy")


def check_noise_robustness(context: Context) -> Finding:
    """Spearman correlation of learning rate and accuracy under noisy parameters."""
    return _trend(
        context,
        "noisy_accuracy",
        at_least=0.0,
        what=f"training accuracy with noise of sd {checks_descent.NOISE:g} on every "
        "parameter",
    )


def check_penalty_coefficient(context: Context) -> Finding:
    """The penalty that leads closest to the larger rate, in units of the predicted."""
    predicted = (STABLE - SMALL) / 4
    best, nearest = [], []
    for seed in _seeds(context):
        figures = _penalised(context, seed, predicted)
        distances = np.array(figures["distance"], float)
        best.append(_nearest_factor(distances))
        without = np.array(figures["plain_distance"], float)  # None if it diverged
        nearest.append(np.fmin.reduce(distances) / without)
    logs = np.log(best)
    mean, interval = claims.mean_interval(logs)
    low, high = np.exp(interval).tolist()
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_least=0.8, at_most=1.25),
        (low, high),
        _seeds(context),
        f"Descent at {SMALL:g} with mu ||grad L||^2 against plain descent at "
        f"{STABLE:g}: the distance between the two ends is least at this multiple of "
        f"mu = {predicted:.3g}, where it is {np.mean(nearest):.2f} of that without a "
        "penalty. 1 is predicted, 0.8 to 1.25 counts as that.",
        is_ratio=True,
    )


def check_penalty_recovers(context: Context) -> Finding:
    """Test accuracy of a penalty at a small rate minus that of the largest rate."""
    large = float(RATES[-1])
    ours, theirs = [], []
    for seed in _seeds(context):
        figures = _penalised(context, seed, (large - SMALL) / 4, factors=(1.0,))
        ours.append(figures["test_accuracy"][0])
        theirs.append(_sweep(context, seed)["test_accuracy"][-1])
    mean, interval = claims.paired_difference(ours, theirs)
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        f"Test accuracy of descent at {SMALL:g} with the predicted penalty, a quarter "
        f"of the difference, minus that of plain descent at {large:g}: "
        f"{np.mean(ours):.4f} and {np.mean(theirs):.4f}. Neither is tuned.",
    )


def _nearest_factor(distances: np.ndarray) -> float:
    """Where the distance is least, between the factors too.

    To first order an end moves in proportion to the penalty, so the square of its
    distance from anything is a parabola in the factor.
    """
    (i,) = sweep.lowest(distances[None])
    if not np.isfinite(distances[i]):
        return float("nan")
    if not 0 < i < len(FACTORS) - 1 or not np.isfinite(distances[i - 1 : i + 2]).all():
        return FACTORS[i]
    near = slice(i - 1, i + 2)
    curvature, slope, _ = np.polyfit(FACTORS[near], distances[near] ** 2, 2)
    return float(-slope / (2.0 * curvature))


def _trend(
    context: Context,
    name: str,
    *,
    what: str,
    count: int = len(RATES),
    **region: float,
) -> Finding:
    """Mean over seeds of the Spearman correlation of learning rate and a figure.

    Of the first `count` rates.
    """
    rates = RATES[:count]
    rows = [_sweep(context, seed)[name][:count] for seed in _seeds(context)]
    rows = np.array(rows, float)
    correlations = [checks_trends.rank_correlation(rates, row) for row in rows]
    mean, interval = checks_trends.correlation_interval(correlations)
    middle = rows.mean(axis=0)
    return Finding(
        mean,
        claims.decide(interval, **region),
        interval,
        _seeds(context),
        f"Spearman correlation of the learning rate and {what}, {rates[0]:g} to "
        f"{rates[-1]:g} at equal learning rate x steps, with the means "
        f"{', '.join(f'{value:.4g}' for value in middle)}.",
    )


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=10)


def _sweep(context: Context, seed: int) -> dict[str, list[float]]:
    """Figures of plain descent at the end, one number a learning rate."""

    def compute():
        plain = checks_descent.runs(f"{CONFIG}regularizer=none", TIME)
        rows = [plain.figures(seed, rate) for rate in RATES.tolist()]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return context.memo(f"rates-{seed}", compute, rates=RATES, time=TIME, config=CONFIG)


def _penalised(
    context: Context,
    seed: int,
    predicted: float,
    factors: tuple[float, ...] = FACTORS,
) -> dict[str, Any]:
    """Figures at the small rate over the penalties, and distances to the larger one."""
    large = SMALL + 4 * predicted

    def compute():
        plain = checks_descent.runs(f"{CONFIG}regularizer=none", TIME)
        other = checks_descent.runs(f"{CONFIG}regularizer=parameter_penalty", TIME)
        target, rows = plain.params(seed, large), []
        for factor in factors:
            settings = seed, SMALL, factor * predicted
            distance = float(np.linalg.norm(other.params(*settings) - target))
            row = other.figures(*settings, curvature=False)
            rows.append(row | {"distance": distance})
        figures: dict[str, Any] = {
            name: [row[name] for row in rows] for name in rows[0]
        }
        distance = np.linalg.norm(plain.params(seed, SMALL) - target)
        return figures | {"plain_distance": float(distance)}

    fingerprint = {
        "factors": factors,
        "small": SMALL,
        "large": large,
        "time": TIME,
        "config": CONFIG,
    }
    return context.memo(f"penalty-{large:g}-{seed}", compute, **fingerprint)


def _draw(context: Context) -> None:
    """Sharpness, gradient norm and test loss against the learning rate."""
    rows = [_sweep(context, seed) for seed in _seeds(context)]
    # None, for a run that diverged, becomes nan.
    figures = sweep.stacked(rows)
    labels = {
        "sharpness": "largest eigenvalue",
        "regularizer": "R_IG",
        "test_loss": "test loss",
        "test_accuracy": "test accuracy",
    }

    def draw(figure):
        axes = figure.subplots(len(labels), 1, sharex=True)
        for ax, (name, label) in zip(axes, labels.items(), strict=True):
            values = figures[name]
            middle, low, high = (f(values, axis=0) for f in (np.mean, np.min, np.max))
            series = {label: (RATES, middle, low, high)}
            best = "max" if name == "test_accuracy" else "min"
            plots.sweep(ax, series, ylabel=label, best=best)
            ax.get_legend().remove()
            finite = values[np.isfinite(values)]
            if finite.size and best == "min":
                ax.set_yscale("log")
            if finite.size and name == "sharpness":
                ax.plot(RATES, 2.0 / RATES, linestyle=":", zorder=0)
                ax.set_ylim(0.5 * finite.min(), 2.0 * finite.max())
            if finite.size and best == "min":
                plots.readable_log_ticks(ax.yaxis)
        for ax in axes[:-1]:
            ax.set_xlabel("")

    means = {n: figures[n].mean(axis=0) for n in labels}
    context.figure(
        "learning_rate",
        draw,
        "Largest Hessian eigenvalue, R_IG, test loss and accuracy at the end of "
        "full-batch descent against its learning rate, at equal learning rate x steps: "
        f"mean and range over {len(rows)} seeds. Dotted: 2 / learning rate, beyond "
        "which a quadratic diverges. A ring marks the best.",
        "; ".join(
            f"{labels[n]} {m[0]:.3g} at the smallest, {m[-1]:.3g} at the largest rate"
            for n, m in means.items()
        ),
        size=(4.6, 8.0),
    )
