"""The best threshold: that of brute force, whatever the ties, ends and dtypes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from cosent import best_threshold, bisect_threshold

METRICS = ("accuracy", "f1")
SEARCHES = best_threshold, functools.partial(bisect_threshold, num_iterations=2)


def measure(scores, labels, threshold, metric):
    predicted = np.asarray(scores) > threshold
    if metric == "accuracy":
        return np.mean(predicted == labels)
    total = predicted.sum() + np.sum(labels)
    return 2.0 * np.sum(predicted & labels) / max(1, total)


def brute_force(scores, labels, metric):
    """The best of every threshold that decides in a different way."""
    tried = [-np.inf, *np.unique(scores), np.inf]
    return max(measure(scores, labels, t, metric) for t in tried)


def tied_case(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 25)
    scores = np.round(rng.normal(size=size), rng.integers(0, 3))
    return scores, rng.random(size) < rng.random()


@pytest.mark.parametrize("metric", METRICS)
def test_hundreds_of_tied_cases_agree_with_brute_force(metric):
    for seed in range(500):
        scores, labels = tied_case(seed)
        threshold, value = best_threshold(scores, labels, metric)
        best = brute_force(scores, labels, metric)
        np.testing.assert_allclose(value, best, rtol=0, atol=1e-12)
        reached = measure(scores, labels, threshold, metric)
        np.testing.assert_allclose(reached, best, rtol=0, atol=1e-12)
        assert bisect_threshold(scores, labels, metric)[1] <= value


@pytest.mark.parametrize("metric", METRICS)
def test_jit_and_vmap_agree_with_the_host(metric):
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(50, 20)), 1).astype(np.float32)
    labels = rng.random((50, 20)) < 0.4
    for search, options in (
        (best_threshold, {}),
        (bisect_threshold, {"num_iterations": 4}),
    ):
        search = functools.partial(search, metric=metric, **options)
        mapped = jax.jit(jax.vmap(search))
        thresholds, values = mapped(scores, labels)
        for row in range(50):
            _, value = search(scores[row], labels[row])
            np.testing.assert_allclose(values[row], value, atol=1e-6)
            reached = measure(scores[row], labels[row], thresholds[row], metric)
            np.testing.assert_allclose(reached, value, atol=1e-6)


@pytest.mark.parametrize("traced", ["scores", "labels"])
def test_one_of_the_arrays_may_be_traced(traced):
    given = {
        "scores": np.array([0.1, 0.4, 0.6, 0.9], np.float32),
        "labels": np.array([False, True, False, True]),
    }
    rest = {name: value for name, value in given.items() if name != traced}
    call = jax.jit(lambda array: best_threshold(**rest, **{traced: array}))
    threshold, value = call(given[traced])
    assert value == 0.75
    reached = measure(given["scores"], given["labels"], threshold, "accuracy")
    np.testing.assert_allclose(reached, 0.75)


def test_f1_is_that_of_sklearn():
    scores, labels = np.random.default_rng(1).normal(size=(2, 200))
    labels = labels + scores > 1.0
    threshold, value = best_threshold(scores, labels, "f1")
    np.testing.assert_allclose(value, f1_score(labels, scores > threshold), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_neighbouring_floats_are_separated(dtype):
    """Their mean rounds to one of them, half of the time to the higher one."""
    with jax.enable_x64(dtype == "float64"):
        low = jnp.linspace(0.1, 1.0, 60, dtype=dtype)
        high = jnp.nextafter(low, jnp.asarray(2.0, dtype))
        assert bool(jnp.any((low + high) / 2 >= high))  # a mean alone is wrong
        pairs = jnp.stack([low, high], axis=1)
        labels = jnp.tile(jnp.array([False, True]), (60, 1))
        thresholds, values = jax.jit(jax.vmap(best_threshold))(pairs, labels)
        assert thresholds.dtype == dtype
        np.testing.assert_array_equal(values, 1.0)
        np.testing.assert_array_equal(pairs > thresholds[:, None], labels)


def test_float64_scores_of_the_host_are_not_rounded():
    scores = np.array([0.5, np.nextafter(0.5, 1.0)])
    threshold, value = best_threshold(scores, [0, 1])
    assert value == 1.0
    assert (scores > threshold).tolist() == [False, True]
    assert best_threshold(scores, jnp.array([0, 1])) == (threshold, value)
    assert best_threshold(scores.astype(np.float32), [0, 1])[1] == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "metric", "expected"),
    [
        ([0.1, 0.9], [1, 1], "accuracy", (-np.inf, 1.0)),
        ([0.1, 0.9], [0, 0], "accuracy", (np.inf, 1.0)),
        ([0.1, 0.9], [1, 1], "f1", (-np.inf, 1.0)),
        ([0.1, 0.9], [0, 0], "f1", (np.inf, 0.0)),
        ([0.3], [1], "f1", (-np.inf, 1.0)),
        ([0.3, 0.3], [0, 1], "accuracy", (np.inf, 0.5)),
        ([0.3, 0.3], [0, 1], "f1", (-np.inf, 2 / 3)),
        ([0.2, 0.6], [0, 1], "accuracy", (0.4, 1.0)),
        # Nothing is less than -inf, and inf is above everything else.
        ([-np.inf, -np.inf], [1, 1], "accuracy", (np.inf, 0.0)),
        ([-np.inf, 2.0], [0, 1], "accuracy", (-np.inf, 1.0)),
        ([2.0, np.inf], [0, 1], "accuracy", (2.0, 1.0)),
        ([-np.inf, np.inf], [0, 1], "accuracy", (-np.inf, 1.0)),
    ],
)
def test_ends_and_single_labels_are_defined(scores, labels, metric, expected):
    scores = np.array(scores)
    for convert in (np.asarray, jnp.asarray):
        got = best_threshold(convert(scores), convert(labels), metric)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        reached = measure(scores, np.array(labels, bool), got[0], metric)
        np.testing.assert_allclose(reached, expected[1], rtol=1e-6)


def test_of_equally_good_thresholds_the_highest_is_taken():
    scores, labels = np.array([0.1, 0.3, 0.5, 0.7]), np.array([0, 1, 0, 1])
    np.testing.assert_allclose(best_threshold(scores, labels), (0.6, 0.75))


def test_bisection_finds_a_single_maximum_with_a_slope():
    """As long as its probes, a 50th of the interval apart, see different scores."""
    scores = np.linspace(-0.99, 0.99, 20_000)
    threshold, value = bisect_threshold(scores, scores > 0.3)
    spacing = scores[1] - scores[0]
    np.testing.assert_allclose(threshold, 0.3, rtol=0, atol=100 * spacing)
    assert value >= 1.0 - 100 / 20_000


def bisect_by_hand(scores, labels, metric, low, high, count):
    """Of two points around the middle the better one keeps its half."""
    tried = [(measure(scores, labels, low, metric), low)]
    for _ in range(count):
        middle, step = (low + high) / 2, (high - low) / 100
        left, right = (
            measure(scores, labels, t, metric) for t in (middle - step, middle + step)
        )
        if right > left:
            tried.append((right, middle + step))
            low = middle
        else:
            tried.append((left, middle - step))
            high = middle
    value = max(value for value, _ in tried)
    return next(t for v, t in tried if v == value), value


@pytest.mark.parametrize("metric", METRICS)
def test_bisection_is_that_by_hand(metric):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = rng.random(60) < 0.5
        scores = np.clip(labels * rng.random() + 0.5 * rng.normal(size=60), -1, 1)
        found = bisect_threshold(
            scores, labels, metric, low=-0.9, high=0.8, num_iterations=5
        )
        expected = bisect_by_hand(scores, labels, metric, -0.9, 0.8, 5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_bisection_is_lost_in_a_narrow_band():
    rng = np.random.default_rng(0)
    labels = rng.random(1000) < 0.5
    scores = np.clip(0.96 + 0.02 * labels + 0.01 * rng.normal(size=1000), 0.9, 1.0)
    best = best_threshold(scores, labels)[1]
    assert bisect_threshold(scores, labels)[1] < best - 0.2
    assert bisect_threshold(scores, labels, low=0.9, high=1.0)[1] > best - 0.02


def test_traced_nan_is_not_silent():
    scores = jnp.array([0.1, jnp.nan, 0.3])
    for search in SEARCHES:
        assert np.isnan(jax.jit(search)(scores, jnp.array([0, 1, 1]))).all()


@pytest.mark.parametrize("search", SEARCHES, ids=["sweep", "bisection"])
def test_labels_that_are_traced_in_part_are_traced(search):
    scores = jnp.array([0.1, 0.2, 0.3])
    found = jax.jit(lambda label: search(scores, [0, label, 1]))
    np.testing.assert_array_equal(found(1), search(scores, [0, 1, 1]))
    assert np.isnan(found(2)).all()


@pytest.mark.parametrize("search", SEARCHES, ids=["sweep", "bisection"])
def test_labels_of_no_class_are_not_silent_under_jit(search):
    scores, labels = jnp.array([0.1, 0.2, 0.3]), np.array([0, 2, 2])
    assert np.isnan(jax.jit(search)(scores, labels)).all()
    assert np.isfinite(jax.jit(search)(scores, np.minimum(labels, 1))).all()
    with pytest.raises(ValueError, match="labels must be boolean or 0 and 1, got"):
        jax.jit(lambda scores: search(scores, labels))(scores)


def test_integer_scores_are_numbers():
    assert best_threshold([1, 2, 3, 4], [0, 0, 1, 1]) == (2.5, 1.0)
    assert best_threshold(jnp.arange(4), jnp.array([0, 0, 1, 1]))[0] == 1.5


@pytest.mark.parametrize("search", [best_threshold, bisect_threshold])
def test_complex_scores_are_refused(search):
    for scores in (np.array([1 + 2j, 2.0]), jnp.array([1 + 2j, 2.0])):
        with pytest.raises(TypeError, match="scores must be real numbers, got complex"):
            search(scores, [0, 1])


@pytest.mark.parametrize("search", [best_threshold, bisect_threshold])
@pytest.mark.parametrize(
    ("scores", "labels", "metric", "message"),
    [
        ([0.1, np.nan], [0, 1], "f1", "scores hold nan"),
        ([0.1, 0.2], [0, 2], "f1", "labels must be boolean or 0 and 1, got .*2"),
        ([0.1, 0.2], [0, 1], "F1", "one of accuracy, f1, got 'F1'. Did you mean 'f1'"),
        ([0.1], [0, 1], "f1", r"one shape \[n\]"),
        ([], [], "f1", r"n >= 1, got \(0,\)"),
    ],
)
def test_wrong_arguments_are_named(search, scores, labels, metric, message):
    with pytest.raises(ValueError, match=message):
        search(scores, labels, metric)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 1.0}, ValueError, "low must be less than high, got 1.0 and 1.0"),
        ({"high": np.inf}, ValueError, "got -1.0 and inf"),
        ({"num_iterations": 0}, ValueError, "num_iterations must be at least 1, got 0"),
        ({"num_iterations": 2.5}, TypeError, "num_iterations must be an integer"),
    ],
)
def test_wrong_options_of_the_bisection_are_named(options, error, message):
    with pytest.raises(error, match=message):
        bisect_threshold([0.1, 0.2], [0, 1], **options)
