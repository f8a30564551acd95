r"""The weights of class probabilities with which the argmax is best, by exact sweeps.

Su (2022), CoSENT (2), decides between n classes by
:math:`\operatorname{argmax}_k w_k p_k` and searches the weights with SciPy's Powell
method for the best accuracy on validation data.

What differs: with the other weights fixed, row i is given class c if and only if
:math:`w_c > r_i = \max_{k \ne c} w_k p_{ik} / p_{ic}`. Sorting the :math:`r_i` gives
the best :math:`w_c` exactly, also where the accuracy is flat between two of them and a
line search sees nothing. One class after another is improved in this way until none
can be: an optimum in every coordinate, which need not be one in all together.

Example::

    weights, accuracy = best_class_weights(probabilities, labels)
    predicted = np.argmax(weights * test_probabilities, axis=1)
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from expkit.arguments import require_choice, require_count, require_real

METRICS = ("accuracy", "macro_f1")


def best_class_weights(
    probabilities: Any,
    labels: Any,
    metric: str = "accuracy",
    *,
    num_starts: int = 8,
) -> tuple[np.ndarray, float]:
    r"""Weights of the classes, the best in each coordinate.

    .. math:: \max_w \frac{1}{n} \sum_i
              [\operatorname{argmax}_k w_k p_{ik} = y_i].

    On the data that the weights were chosen on, the value is optimistic. It is never
    less than that of equal weights.

    Args:
        probabilities: `[n, classes]`, finite and at least 0, concrete; n >= 1.
        labels: integers `[n]` in [0, classes).
        metric: "accuracy", or "macro_f1": the mean over classes of
            `2 TP / max(1, predicted + gold)`.
        num_starts: from how many weights the sweeps start: equal ones, those that make
            all classes equally likely in the mean, and fixed random ones.

    Returns:
        `(weights [classes], value)` in float64 on the host. Weights are positive, the
        largest is 1. Of two equally good values of a weight the one that gives a class
        fewer rows. Not for use under `jit`: the number of sweeps depends on the data.

    Raises:
        TypeError: if `num_starts` is no integer, or probabilities are complex.
        ValueError: if shapes do not fit, the metric is unknown, a probability is
            negative or not finite, a label out of range, or `num_starts` less than 1.

    References:
        Su, *CoSENT (2)*, 2022, the automatic threshold of n classes.
        https://kexue.fm/archives/8860
    """
    require_choice("metric", metric, METRICS)
    p, y = _prepare(probabilities, labels)
    require_count("num_starts", num_starts)
    mean = p.mean(axis=0)
    usable = np.where(mean >= np.finfo(mean.dtype).tiny, mean, 1.0)
    starts = [np.ones(len(mean)), 1.0 / usable]
    rng = np.random.default_rng(0)
    while len(starts) < num_starts:
        starts.append(np.exp(rng.normal(size=len(mean))))
    found = [_climb(p, y, start, metric) for start in starts[:num_starts]]
    return max(found, key=lambda pair: pair[1])


def _climb(p, y, weights, metric):
    """Sweeps over the classes until none of their weights can be improved."""
    weights = weights / weights.max()
    value = _evaluate(p, y, weights, metric)
    is_improved = True
    while is_improved:
        is_improved = False
        for c in range(p.shape[1]):
            trial = weights.copy()
            trial[c] = _best_weight(p, y, weights, c, metric)
            trial /= trial.max()
            # Counted with the argmax that will be used: products are rounded.
            found = _evaluate(p, y, trial, metric)
            if found > value:
                weights, value, is_improved = trial, found, True
    return weights, value


def _best_weight(p, y, weights, c, metric):
    """The best weight of class c with the others fixed."""
    rest = weights * p
    rest[:, c] = -1.0
    second = rest.argmax(axis=1)
    rivals = np.maximum(rest.max(axis=1), 0.0)  # -1 where there is no other class
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.where(p[:, c] > 0.0, rivals / p[:, c], np.inf)
    order = np.argsort(ratios, kind="stable")
    ratios, second, y = ratios[order], second[order], y[order]
    quality = _qualities(second, y, c, p.shape[1], metric)
    # Cut j gives class c to the first j rows; none lies between equal ratios.
    bounds = np.concatenate([[0.0], ratios, [np.inf]])
    with np.errstate(invalid="ignore"):
        is_cut = (bounds[:-1] < bounds[1:]) & np.isfinite(bounds[:-1])
    low, high = bounds[:-1][is_cut], bounds[1:][is_cut]
    best = np.argmax(quality[is_cut])
    return _between(low[best], high[best])


def _between(low, high):
    """A positive weight above `low` and not above `high`."""
    if np.isinf(high):
        largest = np.finfo(np.float64).max
        return min(low, largest / 2.0) * 2.0 if low > 0.0 else 1.0
    middle = np.sqrt(low) * np.sqrt(high) if low > 0.0 else high / 2.0
    return middle if low < middle < high else high


def _qualities(second, y, c, num_classes, metric):
    """The metric, up to a constant, when the first 0, 1, ..., n rows get class c."""
    is_right = second == y
    if metric == "accuracy":
        return np.concatenate([[0], np.cumsum((y == c) * 1 - is_right)])
    classes = np.arange(num_classes)
    loses = second[:, None] == classes
    gold = np.bincount(y, minlength=num_classes)
    moves = np.where(classes == c, 1, -1 * loses)
    hits = np.where(classes == c, (y == c)[:, None], -1 * (loses & is_right[:, None]))
    zero = np.zeros((1, num_classes), int)
    predicted = loses.sum(axis=0) + np.concatenate([zero, np.cumsum(moves, axis=0)])
    right = (loses & is_right[:, None]).sum(axis=0)
    right = right + np.concatenate([zero, np.cumsum(hits, axis=0)])
    return np.mean(2 * right / np.maximum(predicted + gold, 1), axis=1)


def _evaluate(p, y, weights, metric):
    predicted = np.argmax(weights * p, axis=1)
    if metric == "accuracy":
        return float(np.mean(predicted == y))
    size = p.shape[1]
    right = np.bincount(y[predicted == y], minlength=size)
    total = np.bincount(predicted, minlength=size) + np.bincount(y, minlength=size)
    return float(np.mean(2 * right / np.maximum(total, 1)))


def _prepare(probabilities, labels):
    p, y = np.asarray(probabilities), np.asarray(labels)
    require_real("probabilities", p)
    p = p.astype(np.float64)
    if p.ndim != 2 or y.shape != p.shape[:1] or not p.size:
        raise ValueError(
            "probabilities and labels must have the shapes [n, classes] and [n], got "
            f"{p.shape} and {y.shape}."
        )
    is_wrong = ~(np.isfinite(p) & (p >= 0.0))
    if is_wrong.any():
        raise ValueError(
            f"probabilities must be finite and at least 0, got {p[is_wrong][0]}; "
            "take the softmax of logits first."
        )
    is_wrong = (y < 0) | (y >= p.shape[1])
    if not jnp.issubdtype(y.dtype, jnp.integer) or is_wrong.any():
        shown = y[is_wrong][0] if is_wrong.any() else y.dtype
        raise ValueError(
            f"labels must be integers in [0, {p.shape[1] - 1}], got {shown}."
        )
    return p, y
