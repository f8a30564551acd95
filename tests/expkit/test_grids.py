"""Settings of a grid against a list of them, and their words."""

import pytest

from expkit import grids

GRID = {"learning_rate": (1e-4, 1e-3, 1e-2), "strength": (1.0, 4.0)}


def test_combinations_are_all_of_them_in_order():
    assert grids.combinations(GRID) == [
        {"learning_rate": 1e-4, "strength": 1.0},
        {"learning_rate": 1e-4, "strength": 4.0},
        {"learning_rate": 1e-3, "strength": 1.0},
        {"learning_rate": 1e-3, "strength": 4.0},
        {"learning_rate": 1e-2, "strength": 1.0},
        {"learning_rate": 1e-2, "strength": 4.0},
    ]
    assert grids.combinations({}) == [{}]


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1e-4, "learning rate 0.0001, the lowest tried"),
        (1e-3, "learning rate 0.001"),
        (1e-2, "learning rate 0.01, the highest tried"),
    ],
)
def test_words_tell_which_setting_is_at_an_end(rate, words):
    assert grids.listed({"learning_rate": rate}, GRID) == words


def test_a_setting_that_was_not_tuned_has_no_end():
    settings = {"learning_rate": 1e-4, "strength": 4.0}
    one = {"strength": (4.0,)}
    assert grids.listed(settings, one) == "learning rate 0.0001, strength 4"
