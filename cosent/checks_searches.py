"""Searches of a threshold, and how much they lose against the exact sweep."""

import functools

import numpy as np
from scipy import optimize

import cosent
from cosent.checks_score_laws import LAWS, draw
from expkit.claims import Context

SIZE = 2000
METRICS = ("accuracy", "f1")


def powell_threshold(scores, labels, metric, start=1.0):
    """SciPy's Powell method on tanh(x) from x = 1, as in the essay's code."""

    def loss(x):
        return -measure(scores, labels, np.tanh(np.ravel(x)[0]), metric)

    result = optimize.minimize(loss, [start], method="Powell")
    return float(np.tanh(np.ravel(result.x)[0]))


def measure(scores, labels, threshold, metric):
    """The metric of `scores > threshold`."""
    predicted = scores > threshold
    if metric == "accuracy":
        return float(np.mean(predicted == labels))
    total = predicted.sum() + labels.sum()
    return float(2 * np.sum(predicted & labels) / max(1, total))


def _bisection(scores, labels, metric):
    return cosent.bisect_threshold(scores, labels, metric)[0]


def _bisection_in_range(scores, labels, metric):
    low, high = scores.min() - 1e-9, scores.max() + 1e-9
    return cosent.bisect_threshold(scores, labels, metric, low=low, high=high)[0]


SEARCHES = {
    "bisection": _bisection,
    "bisection in the range of the scores": _bisection_in_range,
    "Powell from tanh(1)": powell_threshold,
    "Powell from 0": functools.partial(powell_threshold, start=0.0),
}


def regrets(context: Context) -> dict:
    """Points lost against the exact sweep: `{metric: {law: {search: [seeds]}}}`."""
    seeds = context.seeds(quick=20, full=100)

    def compute():
        found: dict = {
            metric: {law: {name: [] for name in SEARCHES} for law in LAWS}
            for metric in METRICS
        }
        for metric in METRICS:
            for law in LAWS:
                for seed in seeds:
                    scores, labels = draw(law, SIZE, seed)
                    _, best = cosent.best_threshold(scores, labels, metric)
                    for name, search in SEARCHES.items():
                        value = measure(
                            scores, labels, search(scores, labels, metric), metric
                        )
                        found[metric][law][name].append(100.0 * (float(best) - value))
        return found

    return context.memo("regrets", compute, seeds=list(seeds), size=SIZE)


def accuracy_curve(scores, labels):
    """Thresholds -inf, then every score, and the accuracy at each."""
    order = np.argsort(scores)
    below = np.concatenate([[0], np.cumsum(labels[order])])
    right = below[-1] + np.arange(len(scores) + 1) - 2 * below
    is_cut = np.append(True, np.append(np.diff(scores[order]) > 0, True))
    thresholds = np.append(-np.inf, scores[order])
    return thresholds[is_cut], right[is_cut] / len(scores)


def count_maxima(values):
    """Strict local maxima of a sequence; a plateau counts once."""
    values = np.append(values[0], values[1:][np.diff(values) != 0])
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    return int(np.sum((values > padded[:-2]) & (values > padded[2:])))
