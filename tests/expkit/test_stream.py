"""`stream`: batches read from disk have the rows that `load` has."""

import tempfile

import numpy as np
import pytest

from expkit.data import Batches, load, stream


@pytest.fixture(scope="module", autouse=True)
def prepared_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(root))
        # TFDS leaves an empty folder behind for every set that is not prepared.
        patch.setattr(tempfile, "tempdir", str(root))
        yield root


def rows_of(data):
    return [
        image.tobytes() + bytes([y]) for image, y in zip(*data.values(), strict=True)
    ]


@pytest.mark.parametrize("seed", [None, 0, 5])
def test_an_epoch_of_the_stream_is_what_load_reads(seed):
    data = load("digits", "test[:10]")
    batches = stream("digits", "test[:10]", 4, seed=seed)
    found = [batches[step] for step in range(5)]
    for batch in found:
        assert {k: v.dtype for k, v in batch.items()} == {
            k: v.dtype for k, v in data.items()
        }
        assert batch["image"].shape == (4, 8, 8, 1)
    order = [row for batch in found for row in rows_of(batch)]
    assert sorted(order[:10]) == sorted(order[10:]) == sorted(rows_of(data))
    if seed is not None:
        assert order[:10] != order[10:]


def test_a_stream_without_a_seed_equals_batches_that_wrap():
    expected = Batches(load("digits", "test"), 32, seed=None, remainder="wrap")
    batches = stream("digits", "test", 32, seed=None)
    for step in (0, 8, 9, 100):
        for key, array in batches[step].items():
            np.testing.assert_array_equal(array, expected[step][key])


def test_a_stream_depends_on_the_step_and_the_seed_alone():
    first, again, other = (stream("digits", "test", 8, seed=s) for s in (3, 3, 4))
    for step in (7, 0, 1000):
        np.testing.assert_array_equal(first[step]["image"], again[step]["image"])
    assert (first[0]["image"] != other[0]["image"]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "file:{split}.csv"}, "use load and Batches"),
        ({"name": "synthetic:2x2:2"}, "use load and Batches"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed .* got -1"),
        ({"seed": 2**32}, "seed .* got 4294967296"),
        ({"data_dir": "/x"}, "data_dir"),
    ],
)
def test_unusable_stream_arguments_name_the_value(options, message):
    arguments = {"name": "digits", "split": "test", "batch_size": 2, "seed": 0}
    with pytest.raises(ValueError, match=message):
        stream(**arguments | options)


def test_a_negative_stream_step_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        stream("digits", "test", 2, seed=0)[-1]
