"""Weights of class probabilities: exact in each coordinate, and better than Powell."""

import itertools

import numpy as np
import pytest
from scipy import optimize
from sklearn.metrics import f1_score

from cosent import best_class_weights, best_threshold


def case(seed, size=40, num_classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, size, p=rng.dirichlet(np.ones(num_classes)))
    logits = rng.normal(size=(size, num_classes)) + rng.normal(size=num_classes)
    p = np.exp(logits + np.eye(num_classes)[labels])
    return p / p.sum(axis=1, keepdims=True), labels


def value_of(weights, p, labels, metric="accuracy"):
    predicted = np.argmax(weights * p, axis=1)
    if metric == "accuracy":
        return np.mean(predicted == labels)
    classes = np.arange(p.shape[1])
    hits, gold, found = (
        np.sum(x[:, None] == classes, axis=0)
        for x in (np.where(predicted == labels, labels, -1), labels, predicted)
    )
    return np.mean(2 * hits / np.maximum(1, gold + found))


def test_the_macro_f1_is_that_of_sklearn():
    p, labels = case(1)
    weights, value = best_class_weights(p, labels, "macro_f1")
    predicted = np.argmax(weights * p, axis=1)
    expected = f1_score(
        labels, predicted, labels=[0, 1, 2], average="macro", zero_division=0
    )
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_value_is_what_the_weights_reach_and_beats_equal_ones(metric):
    for seed in range(20):
        p, labels = case(seed, num_classes=2 + seed % 4)
        weights, value = best_class_weights(p, labels, metric)
        np.testing.assert_allclose(value, value_of(weights, p, labels, metric))
        assert value >= value_of(np.ones(p.shape[1]), p, labels, metric)
        assert weights.max() == 1.0
        assert np.all(weights > 0.0)


def test_two_classes_are_a_threshold():
    """argmax(w p) is a threshold of p_1 / (p_0 + p_1), or the other way round."""
    for seed in range(50):
        p, labels = case(seed, size=15, num_classes=2)
        _, value = best_class_weights(p, labels)
        expected = best_threshold(p[:, 1] / p.sum(axis=1), labels == 1)[1]
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_no_weight_of_a_grid_is_better_in_one_coordinate(metric):
    for seed in range(5):
        p, labels = case(seed)
        weights, value = best_class_weights(p, labels, metric)
        for c, factor in itertools.product(range(3), np.geomspace(1e-3, 1e3, 61)):
            moved = np.where(np.arange(3) == c, factor * weights, weights)
            assert value_of(moved, p, labels, metric) <= value + 1e-12


def test_no_weights_of_a_grid_are_better():
    grid = np.geomspace(0.02, 50.0, 25)
    for seed in range(5):
        p, labels = case(seed, size=20)
        _, value = best_class_weights(p, labels)
        tried = (
            value_of(np.array([1.0, a, b]), p, labels)
            for a, b in itertools.product(grid, grid)
        )
        assert max(tried) <= value + 1e-12


@pytest.mark.parametrize("num_classes", [3, 10])
def test_the_search_of_the_essay_is_not_better(num_classes):
    for seed in range(3):
        p, labels = case(seed, 300, num_classes)
        result = optimize.minimize(
            lambda x: -value_of(0.5 + 0.5 * np.tanh(x), p, labels),  # noqa: B023
            np.ones(num_classes),
            method="Powell",
            options={"maxiter": 10},
        )
        assert best_class_weights(p, labels)[1] >= -result.fun


def test_the_start_of_the_essays_code_is_refused_by_scipy():
    with pytest.raises(ValueError, match="one dimension"):
        optimize.minimize(np.sum, np.ones((1, 3)), method="Powell")


def test_more_starts_are_not_worse():
    for seed in range(10):
        p, labels = case(seed, num_classes=4)
        values = [best_class_weights(p, labels, num_starts=n)[1] for n in (1, 2, 8)]
        assert values == sorted(values)


def test_a_class_that_is_impossible_is_never_chosen():
    p, labels = case(0)
    p[:, 1] = 0.0
    weights, value = best_class_weights(p, np.where(labels == 1, 0, labels))
    assert np.isfinite(weights).all()
    assert 1 not in np.argmax(weights * p, axis=1)
    assert 0.0 <= value <= 1.0
    assert best_class_weights(np.ones((4, 1)), np.zeros(4, int))[1] == 1.0
    assert best_class_weights(np.zeros((2, 2)), np.array([0, 0]))[1] == 1.0


@pytest.mark.parametrize(
    ("p", "labels", "options", "error", "message"),
    [
        ([0.1], [0], {}, ValueError, r"\[n, classes\] and \[n\], got \(1,\)"),
        ([[0.1]], [0, 0], {}, ValueError, r"got \(1, 1\) and \(2,\)"),
        ([[-0.1]], [0], {}, ValueError, "at least 0, got -0.1; take the softmax"),
        ([[np.nan]], [0], {}, ValueError, "finite and at least 0, got nan"),
        ([[0.1, 0.2]], [2], {}, ValueError, r"integers in \[0, 1\], got 2"),
        ([[0.1, 0.2]] * 3, [0, 5, -1], {}, ValueError, r"in \[0, 1\], got 5"),
        ([[0.1, 0.2]], [0.5], {}, ValueError, r"integers in \[0, 1\], got float64"),
        ([[0.1]], [0], {"metric": "f1"}, ValueError, "accuracy, macro_f1, got 'f1'"),
        ([[0.1]], [0], {"num_starts": 0}, ValueError, "num_starts must be at least 1"),
        ([[0.1]], [0], {"num_starts": 1.5}, TypeError, "num_starts must be an integer"),
    ],
)
def test_wrong_arguments_are_named(p, labels, options, error, message):
    with pytest.raises(error, match=message):
        best_class_weights(np.array(p), np.array(labels), **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tiny", [5e-324, 1e-308])
def test_subnormal_probabilities_are_weighed_like_any_others(tiny):
    """Their reciprocals are infinite."""
    weights, value = best_class_weights(np.array([[tiny]]), np.array([0]))
    np.testing.assert_array_equal(weights, 1.0)
    assert value == 1.0
    # The tiny one wins where there is nothing against it.
    p = np.array([[0.0, 0.5], [tiny, 0.0]])
    weights, value = best_class_weights(p, np.array([1, 0]))
    assert value == value_of(weights, p, np.array([1, 0])) == 1.0
    # What no weight can do: the smallest one against a large one.
    p = np.array([[tiny, 0.5], [0.5, 0.5]])
    weights, value = best_class_weights(p, np.array([0, 1]))
    assert value == value_of(weights, p, np.array([0, 1])) == 0.5
    assert np.all(weights > 0.0)


def test_a_class_behind_two_others_is_raised_above_all_rows():
    p = np.array([[0.4, 0.2, 0.4], [0.45, 0.1, 0.45]])
    weights, value = best_class_weights(p, np.array([1, 1]), num_starts=1)
    assert value == value_of(weights, p, np.array([1, 1])) == 1.0
    assert weights[1] > 4.5 * max(weights[0], weights[2])


def test_complex_probabilities_are_named():
    with pytest.raises(TypeError, match="probabilities must be real, got complex"):
        best_class_weights(np.ones((2, 3)) + 1j, [0, 1])
