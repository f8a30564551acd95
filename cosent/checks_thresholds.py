"""How good the threshold of a search is, against the best one there is."""

import warnings

import numpy as np
from scipy import optimize

import cosent
from cosent.checks_score_laws import draw
from cosent.checks_searches import (
    METRICS,
    SEARCHES,
    SIZE,
    accuracy_curve,
    count_maxima,
    measure,
    regrets,
)
from expkit import claims
from expkit.claims import Context, Finding
from expkit.dot_plots import arms

NARROW = ("D: within .9 to 1", "F: above .999")


def check_many_maxima(context: Context) -> Finding:
    """Local maxima of the accuracy as a function of the threshold, mean over seeds."""
    seeds = context.seeds(quick=20, full=100)
    counts = []
    for seed in seeds:
        scores, labels = draw("A: separated", SIZE, seed)
        counts.append(count_maxima(accuracy_curve(scores, labels)[1]))
    mean, interval = claims.mean_interval(counts)
    smooth = count_maxima(-np.square(np.linspace(-1.0, 1.0, SIZE)))
    _draw_curve(context)
    return claims.Finding(
        mean,
        claims.decide(interval, at_most=1.0),
        interval,
        seeds,
        f"{SIZE:,} scores of two separated normal laws, from which the accuracy has a "
        "single maximum in the limit. A parabola, the control, has "
        f"{smooth}.",
    )


def _draw_curve(context):
    law = NARROW[0]
    scores, labels = draw(law, SIZE, 0)
    thresholds, accuracy = accuracy_curve(scores, labels)
    thresholds[0] = -1.0
    marks = {
        "exact": cosent.best_threshold(scores, labels),
        "bisection": cosent.bisect_threshold(scores, labels),
    }

    def paint(figure):
        axes = figure.subplots()
        axes.plot(
            np.append(thresholds, 1.0),
            np.append(accuracy, accuracy[-1]),
            drawstyle="steps-post",
        )
        for number, (name, (place, value)) in enumerate(marks.items(), start=1):
            axes.plot(
                [float(place)],
                [float(value)],
                "osv"[number],
                color=f"C{number}",
                label=name,
            )
        axes.set(xlabel="threshold", ylabel="accuracy")
        axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)

    context.figure(
        "accuracy-curve",
        paint,
        "Accuracy as a function of the threshold where all scores are between 0.9 and "
        "1: two plateaus, on which a search sees no slope, and the scores.",
        f"The exact sweep reaches {float(marks['exact'][1]):.3f}, bisection "
        f"{float(marks['bisection'][1]):.3f}.",
    )


def check_bisection(context: Context) -> Finding:
    """Points of accuracy that bisection loses where the scores fill a narrow band."""
    found = regrets(context)
    narrow = np.mean([found["accuracy"][law]["bisection"] for law in NARROW], axis=0)
    mean, interval = claims.mean_interval(narrow)
    by_law = {
        law: np.mean(rows["bisection"]) for law, rows in found["accuracy"].items()
    }
    ranged = [
        np.mean(rows["bisection in the range of the scores"])
        for rows in found["accuracy"].values()
    ]
    _draw_regrets(context, found)
    listed = "; ".join(f"{law}: {value:.2f}" for law, value in by_law.items())
    return claims.Finding(
        mean,
        claims.decide(interval, at_most=1.0),
        interval,
        context.seeds(quick=20, full=100),
        f"Mean of {' and '.join(NARROW)}; bar: 1 point. All laws: {listed}. Between "
        f"the smallest and the largest score it loses {min(ranged):.2f} to "
        f"{max(ranged):.2f}.",
    )


def _draw_regrets(context, found):
    rows = {
        f"{law[0]}, {search}, {metric}": found[metric][law][search]
        for law, search, metric in (
            ("A: separated", "bisection", "accuracy"),
            (NARROW[0], "bisection", "accuracy"),
            (NARROW[1], "bisection", "accuracy"),
            ("A: separated", "Powell from tanh(1)", "f1"),
            ("A: separated", "Powell from 0", "f1"),
            (NARROW[1], "Powell from tanh(1)", "accuracy"),
        )
    }
    means = ", ".join(f"{name} {np.mean(values):.1f}" for name, values in rows.items())
    context.figure(
        "regrets",
        lambda figure: arms(figure.subplots(), rows, xlabel="points lost"),
        "Points of accuracy or F1 lost against the exact sweep, a dot for each draw of "
        "the scores. A: separated laws; D: scores within 0.9 to 1; F: above 0.999.",
        f"Means: {means}.",
        size=(5.6, 3.1),
    )


def check_powell(context: Context, metric: str) -> Finding:
    """Points that Powell's method loses from tanh(1) on separated scores."""
    rows = regrets(context)[metric]
    lost = rows["A: separated"]["Powell from tanh(1)"]
    mean, interval = claims.mean_interval(lost)
    other = np.mean(rows["A: separated"]["Powell from 0"])
    worst = {law: np.mean(row["Powell from tanh(1)"]) for law, row in rows.items()}
    listed = "; ".join(f"{law}: {value:.2f}" for law, value in worst.items())
    return claims.Finding(
        mean,
        claims.decide(interval, at_most=1.0),
        interval,
        context.seeds(quick=20, full=100),
        f"Bar: 1 point; largest {max(lost):.1f}. The first threshold, tanh(1) = 0.76, "
        "is above almost all scores, where the line search sees no slope and may walk "
        f"to 'all positive'. From 0 it loses {other:.2f}. From tanh(1), all laws: "
        f"{listed}.",
    )


def check_exact_sweep(context: Context) -> Finding:
    """Least number of points by which the exact sweep is ahead of any other search."""
    found = regrets(context)
    lost = np.concatenate(
        [
            row
            for metric in found.values()
            for searches in metric.values()
            for row in searches.values()
        ]
    )
    ties = sum(_is_brute_force(seed) for seed in range(1000))
    return claims.exact(
        lost.min() > -1e-9 and ties == 1000 and lost.max() > 1.0,
        float(lost.min()),
        f"{len(lost):,} searches of {len(SEARCHES)} kinds, accuracy and F1; the others "
        f"lose up to {lost.max():.1f} points. On 1,000 tied cases it is the best of "
        "all thresholds tried one by one.",
    )


def _is_brute_force(seed):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=rng.integers(1, 30)), 1)
    labels, metric = rng.random(len(scores)) < 0.4, METRICS[seed % 2]
    threshold, value = cosent.best_threshold(scores, labels, metric)
    tried = [-np.inf, *scores, np.inf]
    best = max(measure(scores, labels, t, metric) for t in tried)
    reached = measure(scores, labels, threshold, metric)
    return abs(value - best) < 1e-12 and abs(reached - best) < 1e-12


def check_optimism(context: Context) -> Finding:
    """Points by which the accuracy at the best threshold exceeds that on new data."""
    seeds = context.seeds(quick=100, full=1000)
    size, gaps, fixed = 1000, {}, []
    for law in ("A: separated", NARROW[0]):
        gaps[law] = []
        for seed in seeds:
            scores, labels = draw(law, 11 * size, seed)
            threshold, value = cosent.best_threshold(scores[:size], labels[:size])
            fresh = measure(scores[size:], labels[size:], threshold, "accuracy")
            gaps[law].append(100.0 * (float(value) - fresh))
            first, rest = (
                measure(scores[part], labels[part], 0.25, "accuracy")
                for part in (slice(size), slice(size, None))
            )
            fixed.append(100.0 * (first - rest))
    mean, interval = claims.mean_interval(gaps[NARROW[0]])
    return claims.Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        seeds,
        f"{size:,} scores of law {NARROW[0]}, and 10,000 new ones; "
        f"{np.mean(gaps['A: separated']):.2f} for separated scores. A threshold fixed "
        f"in advance, the control: {np.mean(fixed):.2f}.",
    )


def check_class_weights(context: Context) -> Finding:
    """Least number of points by which sweeps are ahead of Powell's method."""
    cases = [(k, seed) for k in (3, 10) for seed in context.seeds(quick=4, full=10)]
    cases += [(30, seed) for seed in context.seeds(quick=1, full=5)]
    rows = context.memo("class-weights", lambda: [_weights(*c) for c in cases])
    plain, powell, exact = 100.0 * np.array(rows).T
    ahead = exact - powell
    return claims.exact(
        ahead.min() >= 0.0 < ahead.max(),
        float(ahead.min()),
        f"{len(cases)} cases of 3, 10 and 30 classes with unequal frequencies, 1,500 "
        f"rows: means {plain.mean():.1f} % with equal weights, {powell.mean():.1f} % "
        f"with Powell's, {exact.mean():.1f} % with exact sweeps. The essay's code "
        "gives SciPy a start of shape (1, n), which it no longer takes; here [n].",
    )


def _weights(num_classes, seed, size=1500):
    """Accuracy with equal weights, with Powell's and with exact sweeps."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, size, p=rng.dirichlet(np.ones(num_classes)))
    logits = rng.normal(size=(size, num_classes)) + rng.normal(size=num_classes)
    p = np.exp(logits + 2.0 * np.eye(num_classes)[labels])
    p /= p.sum(axis=1, keepdims=True)

    def accuracy(weights):
        return float(np.mean(np.argmax(weights * p, axis=1) == labels))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = optimize.minimize(
            lambda x: -accuracy(0.5 * (np.tanh(x) + 1.0)),
            np.ones(num_classes),
            method="Powell",
        )
    exact = cosent.best_class_weights(p, labels)[1]
    return accuracy(np.ones(num_classes)), -float(result.fun), exact
