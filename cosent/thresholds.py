r"""The best threshold of a score, exactly.

Su (2022), CoSENT (2), turns a cosine into a decision by searching the threshold that is
best on validation data: by bisection in the text, by SciPy's Powell method in the code.

What differs: accuracy and F1 are step functions of the threshold, with a step at every
score and many local maxima, which neither method is made for. There are only n + 1
different decisions, and sorting finds the best of them in O(n log n).
`bisect_threshold` is the method of the text, for comparison.

Example::

    threshold, accuracy = best_threshold(cosines, labels)
    is_similar = test_cosines > threshold
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cosent.arguments import require_rows
from expkit import explicit
from expkit.arguments import is_concrete, require_choice, require_count

METRICS = ("accuracy", "f1")


def best_threshold(
    scores: jax.typing.ArrayLike, labels: jax.typing.ArrayLike, metric: str = "accuracy"
) -> tuple[Any, Any]:
    r"""The threshold of the best decision `score > threshold`.

    .. math:: \max_t \frac{1}{n} \sum_i [(s_i > t) = y_i]
              \quad\text{or}\quad \max_t \frac{2 TP(t)}{\max(1, P(t) + G)},

    P the number of positive predictions and G of positive labels: F1 is 0, not nan,
    without any. On the data that the threshold was chosen on, the value is optimistic.

    Args:
        scores: real numbers `[n]`, n >= 1; may be infinite.
        labels: `[n]`, boolean or 0 and 1.
        metric: "accuracy" or "f1".

    Returns:
        `(threshold, value)`. The threshold is half-way between two scores, in their
        dtype and such that it separates them; -inf or inf where one decision for all is
        the best. Of equally good ones the highest. Arrays of JAX give arrays of JAX,
        also under `jit` and `vmap`; anything else stays on the host in its own
        precision. Both are nan for traced scores with nan in them, and for traced
        labels other than 0 and 1.

    Raises:
        TypeError: if the scores are complex.
        ValueError: if shapes do not fit, the metric is unknown, or concrete scores hold
            nan, or concrete labels anything but 0 and 1.

    References:
        Su, *CoSENT (2)*, 2022, the automatic threshold. https://kexue.fm/archives/8860
    """
    xp, scores, labels, is_usable = _prepare(scores, labels, metric)
    size = len(scores)
    order = xp.argsort(scores)
    s, y = scores[order], labels[order]
    # Cut c predicts rows c, c + 1, ... of the sorted ones positive.
    cuts = xp.arange(size + 1)
    below = xp.concatenate([xp.zeros(1, int), xp.cumsum(y.astype(int))])
    positives = below[-1]
    if metric == "accuracy":
        quality = positives + cuts - 2 * below  # counts, so that ties are exact
    else:
        selected = xp.maximum(size - cuts + positives, 1)
        quality = 2 * (positives - below) / selected
    # No threshold is below -inf or between equal scores; one above all there always is.
    is_cut = xp.concatenate([s[:1] > -xp.inf, s[:-1] < s[1:], xp.ones(1, bool)])
    quality = xp.where(is_cut, quality, -1)
    cut = size - xp.argmax(quality[::-1])
    low, high = s[xp.clip(cut - 1, 0, size - 1)], s[xp.clip(cut, 0, size - 1)]
    threshold = xp.where(cut == size, xp.inf, xp.where(cut == 0, -xp.inf, 0.0))
    threshold = xp.where(
        (cut == 0) | (cut == size), threshold.astype(s.dtype), _between(xp, low, high)
    )
    return _result(xp, is_usable, threshold, quality[cut] / _scale(metric, size))


def bisect_threshold(
    scores: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    metric: str = "accuracy",
    *,
    low: float = -1.0,
    high: float = 1.0,
    num_iterations: int = 30,
) -> tuple[Any, Any]:
    r"""The threshold found by halving an interval, uphill.

    .. math:: [a, b] \to [m, b] \;\text{if}\; f(m + \delta) > f(m - \delta)
              \;\text{else}\; [a, m], \qquad m = \tfrac{a + b}{2},
              \; \delta = \tfrac{b - a}{100}.

    Right if the metric has one maximum and a visible slope at every step. It has
    neither: on a plateau the upper half is lost.

    Args:
        scores: real numbers `[n]`, n >= 1.
        labels: `[n]`, boolean or 0 and 1.
        metric: "accuracy" or "f1".
        low: where the search begins, finite.
        high: where it ends, above `low`.
        num_iterations: how often the interval is halved, at least 1.

    Returns:
        `(threshold, value)`, the best of all thresholds tried; kinds of arrays and nan
        as in `best_threshold`.

    Raises:
        TypeError: if `num_iterations` is no integer, or the scores are complex.
        ValueError: if shapes do not fit, the metric is unknown, concrete scores hold
            nan, labels anything but 0 and 1, or the interval or the number of
            iterations is empty.

    References:
        Su, *CoSENT (2)*, 2022, the automatic threshold. https://kexue.fm/archives/8860
    """
    xp, scores, labels, is_usable = _prepare(scores, labels, metric)
    require_count("num_iterations", num_iterations)
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"low must be less than high, got {low!r} and {high!r}.")
    order = xp.argsort(scores)
    s, size = scores[order], len(scores)
    below = xp.concatenate([xp.zeros(1, int), xp.cumsum(labels[order].astype(int))])

    def evaluate(threshold):
        cut = xp.searchsorted(s, threshold, side="right")
        if metric == "accuracy":
            return below[-1] + cut - 2 * below[cut]
        return 2 * (below[-1] - below[cut]) / xp.maximum(size - cut + below[-1], 1)

    a, b = xp.asarray(low, s.dtype), xp.asarray(high, s.dtype)
    best, value = a, evaluate(a)
    for _ in range(num_iterations):
        middle, step = (a + b) / 2, (b - a) / 100
        probes = middle - step, middle + step
        values = [evaluate(probe) for probe in probes]
        is_up = values[1] > values[0]
        probe, found = (xp.where(is_up, x[1], x[0]) for x in (probes, values))
        is_better = found > value
        best, value = xp.where(is_better, probe, best), xp.maximum(value, found)
        a, b = xp.where(is_up, middle, a), xp.where(is_up, b, middle)
    return _result(xp, is_usable, best, value / _scale(metric, size))


def _prepare(scores, labels, metric):
    """The array module, both arguments as its arrays, and whether they can be used."""
    require_choice("metric", metric, METRICS)
    given = labels  # under `jit` an array of JAX is traced, also one that was not
    # Scores on the host stay there: JAX would narrow them.
    is_host = not isinstance(scores, jax.Array) and is_concrete(labels)
    xp = np if is_host else jnp
    scores, labels = (explicit.whole(xp.asarray(x)) for x in (scores, labels))
    require_rows(("scores", "labels"), scores, labels)
    if jnp.issubdtype(scores.dtype, jnp.complexfloating):
        raise TypeError(f"scores must be real numbers, got {scores.dtype}.")
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        scores = scores.astype(float)
    if is_concrete(scores) and np.isnan(np.asarray(scores)).any():
        raise ValueError("scores hold nan; leave these rows out.")
    if is_concrete(given):
        known = np.asarray(given)
        is_wrong = (known != 0) & (known != 1)
        if is_wrong.any():
            raise ValueError(
                f"labels must be boolean or 0 and 1, got {known[is_wrong][0]!r}; "
                "compare grades with a threshold of their own first."
            )
    is_usable = ~xp.any(xp.isnan(scores))
    if labels.dtype != bool:
        is_usable &= xp.all((labels == 0) | (labels == 1))
    return xp, scores, labels.astype(bool), is_usable


def _scale(metric, size):
    """What a quality is divided by."""
    return size if metric == "accuracy" else 1


def _between(xp, low, high):
    """A number t with low <= t < high: their mean may round to the higher one."""
    with np.errstate(invalid="ignore"):  # -inf and inf
        middle = low / 2 + high / 2
    return xp.where((middle >= low) & (middle < high), middle, low)


def _result(xp, is_usable, threshold, value):
    if xp is np:
        return threshold[()], value
    threshold, value = (jnp.where(is_usable, x, jnp.nan) for x in (threshold, value))
    return threshold, value
