"""Batches by global step: coverage of every epoch, remainders, resuming."""

import numpy as np
import pytest

from expkit.data import Batches

REMAINDERS = ["drop", "wrap", "pad"]


def rows(n):
    return {"row": np.arange(n), "square": np.arange(n) ** 2}


def epoch_of(batches, epoch):
    n = batches.steps_per_epoch
    return [batches[step] for step in range(epoch * n, (epoch + 1) * n)]


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_step_gives_the_same_batch_whatever_was_read_before(remainder, seed):
    batches = Batches(rows(10), 3, seed=seed, remainder=remainder)
    in_order = [batches[step]["row"] for step in range(40)]
    fresh = Batches(rows(10), 3, seed=seed, remainder=remainder)
    for step in [39, 0, 17, 38, 4]:
        np.testing.assert_array_equal(fresh[step]["row"], in_order[step])


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_arrays_stay_aligned(remainder):
    batches = Batches(rows(10), 4, seed=1, remainder=remainder)
    for step in range(9):
        batch = batches[step]
        np.testing.assert_array_equal(batch["square"], batch["row"] ** 2)


def test_drop_shows_full_batches_of_distinct_rows_in_every_epoch():
    batches = Batches(rows(10), 4, seed=0)
    assert batches.steps_per_epoch == 2
    for epoch in range(5):
        seen = np.concatenate([b["row"] for b in epoch_of(batches, epoch)])
        assert len(seen) == len(set(seen)) == 8


def test_drop_leaves_out_different_rows_in_different_epochs():
    batches = Batches(rows(10), 4, seed=0)
    left_out = [
        frozenset(range(10)) - {*np.concatenate([b["row"] for b in epoch]).tolist()}
        for epoch in (epoch_of(batches, e) for e in range(20))
    ]
    assert len(set(left_out)) > 10


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 23])
def test_wrap_lays_the_epochs_end_to_end(batch_size):
    batches = Batches(rows(10), batch_size, seed=3, remainder="wrap")
    stream = np.concatenate([batches[step]["row"] for step in range(60)])
    for epoch in range(len(stream) // 10):
        piece = stream[epoch * 10 : epoch * 10 + 10]
        assert sorted(piece.tolist()) == list(range(10))


def test_wrap_and_drop_agree_when_nothing_remains():
    drop = Batches(rows(12), 4, seed=5)
    wrap = Batches(rows(12), 4, seed=5, remainder="wrap")
    for step in range(9):
        np.testing.assert_array_equal(drop[step]["row"], wrap[step]["row"])


def test_pad_masks_copies_of_row_zero():
    batches = Batches(rows(10), 4, seed=None, remainder="pad")
    assert batches.steps_per_epoch == 3
    last = batches[2]
    np.testing.assert_array_equal(last["row"], [8, 9, 0, 0])
    np.testing.assert_array_equal(last["mask"], [True, True, False, False])
    assert last["mask"].dtype == bool
    assert batches[0]["mask"].all()


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 9])
def test_pad_shows_every_row_once_under_the_mask(n):
    batches = Batches(rows(n), 4, seed=2, remainder="pad")
    for epoch in range(3):
        parts = epoch_of(batches, epoch)
        assert {len(b["row"]) for b in parts} == {4}
        seen = np.concatenate([b["row"][b["mask"]] for b in parts])
        assert sorted(seen.tolist()) == list(range(n))


def test_seed_none_keeps_the_order_in_every_epoch():
    batches = Batches(rows(6), 3, seed=None)
    for step, expected in enumerate([[0, 1, 2], [3, 4, 5], [0, 1, 2]]):
        np.testing.assert_array_equal(batches[step]["row"], expected)


def test_orders_follow_the_documented_generator():
    batches = Batches(rows(6), 6, seed=11)
    for epoch in range(3):
        expected = np.random.default_rng([11, epoch]).permutation(6)
        np.testing.assert_array_equal(batches[epoch]["row"], expected)


def test_seeds_and_epochs_change_the_order():
    first = Batches(rows(50), 50, seed=0)
    other = Batches(rows(50), 50, seed=1)
    assert (first[0]["row"] != first[1]["row"]).any()
    assert (first[0]["row"] != other[0]["row"]).any()


def test_every_row_is_equally_often_in_first_place():
    batches = Batches(rows(4), 4, seed=0)
    n = 4000
    counts = np.bincount([batches[step]["row"][0] for step in range(n)])
    sd = np.sqrt(n * 0.25 * 0.75)
    np.testing.assert_allclose(counts, n / 4, atol=4 * sd)


def test_iterating_gives_one_epoch_and_ends():
    batches = Batches(rows(10), 4, seed=None, remainder="pad")
    assert sum(int(batch["mask"].sum()) for batch in batches) == 10


def test_objects_and_images_keep_their_type():
    arrays = {
        "text": np.array(["a", "b", "c"], object),
        "image": np.zeros((3, 2, 2, 1), np.uint8),
    }
    batch = Batches(arrays, 2, seed=0)[0]
    assert batch["text"].dtype == object
    assert batch["image"].shape == (2, 2, 2, 1)
    assert batch["image"].dtype == np.uint8


def test_a_batch_is_a_copy():
    arrays = rows(4)
    Batches(arrays, 4, seed=None)[0]["row"][:] = -1
    np.testing.assert_array_equal(arrays["row"], range(4))


def test_numpy_integers_are_steps():
    batches = Batches(rows(4), 2, seed=0)
    np.testing.assert_array_equal(batches[np.int64(3)]["row"], batches[3]["row"])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"a": np.arange(3), "b": np.arange(4)}, {}, r"'a': 3, 'b': 4"),
        ({}, {}, "leading length"),
        ({"a": np.arange(0)}, {}, "at least 1"),
        (rows(3), {"batch_size": 0}, "at least 1, got 0"),
        (rows(3), {"batch_size": 4}, "at most the number of rows, 3, .* got 4"),
        (rows(3), {"remainder": "keep"}, r"'drop', 'wrap', 'pad'.*'keep'"),
        (rows(3), {"seed": -1}, "seed .* got -1"),
        ({"mask": np.arange(3)}, {"remainder": "pad"}, "'mask'"),
    ],
)
def test_unusable_arguments_name_the_value(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(arrays, **{"batch_size": 2, "seed": 0, **options})


@pytest.mark.parametrize("remainder", ["wrap", "pad"])
def test_a_batch_may_be_larger_than_the_data_unless_dropped(remainder):
    batch = Batches(rows(3), 8, seed=0, remainder=remainder)[0]
    assert len(batch["row"]) == 8


def test_lists_and_fractional_sizes_are_type_errors():
    with pytest.raises(TypeError, match="'a' must be a numpy array"):
        Batches({"a": [1, 2]}, 1, seed=0)
    with pytest.raises(TypeError):
        Batches(rows(3), 1.5, seed=0)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        Batches(rows(3), 1, seed=0)[-1]
