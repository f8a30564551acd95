"""The `mnist` source, from made-up IDX files."""

import gzip
import struct
import tempfile
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from expkit.data import DataError, load
from expkit.datasets import idx


@pytest.fixture(scope="module", autouse=True)
def prepared_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(root))
        # TFDS leaves an empty folder behind for every set that is not prepared.
        patch.setattr(tempfile, "tempdir", str(root))
        yield root


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_pair(folder, split, n, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    for name, array in zip(idx.pair_names(split), (images, labels), strict=True):
        (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
    return images, labels


def test_both_splits_are_read_in_file_order(tmp_path):
    expected = {"train": write_pair(tmp_path, "train", 30)}
    expected["test"] = write_pair(tmp_path, "test", 12, seed=1)
    for split, (images, labels) in expected.items():
        data = load("mnist", split, data_dir=str(tmp_path))
        assert data["image"].dtype == np.uint8
        np.testing.assert_array_equal(data["image"], images[..., None])
        np.testing.assert_array_equal(data["label"], labels)


def test_slices_cut_the_file(tmp_path):
    images, _ = write_pair(tmp_path, "test", 20)
    for split, rows in {
        "test[:8]": slice(8),
        "test[-5:]": slice(15, 20),
        "test[10%:50%]": slice(2, 10),
    }.items():
        found = load("mnist", split, data_dir=str(tmp_path))["image"][..., 0]
        np.testing.assert_array_equal(found, images[rows])


def test_a_split_without_files_is_left_out(tmp_path):
    write_pair(tmp_path, "test", 4)
    assert len(load("mnist", "test", data_dir=str(tmp_path))["label"]) == 4
    with pytest.raises(ValueError, match=r"unknown split 'train'.*test \(4 rows\)"):
        load("mnist", "train", data_dir=str(tmp_path))


def test_half_a_pair_names_the_missing_file(tmp_path):
    write_pair(tmp_path, "train", 4)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is missing"):
        load("mnist", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_files_says_which_are_wanted(tmp_path, folder):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz and train-lab"):
        load("mnist", "train", data_dir=str(tmp_path / folder))


def test_other_files_are_not_taken_for_those_prepared_before(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    expected = []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        expected.append(write_pair(folder, "train", 5, seed=seed))
    for folder, (images, _) in zip(folders, expected, strict=True):
        found = load("mnist", "train", data_dir=str(folder))["image"][..., 0]
        np.testing.assert_array_equal(found, images)
    images, _ = write_pair(folders[0], "train", 5, seed=9)
    found = load("mnist", "train", data_dir=str(folders[0]))["image"][..., 0]
    np.testing.assert_array_equal(found, images)


IMAGES, LABELS = np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8)


def packed(content):
    # Without a time stamp, which would make the names of the tests differ by process.
    return gzip.compress(content, mtime=0)


PACKED = packed(idx_bytes(IMAGES))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PACKED[:-20], "cannot be unpacked"),
        (PACKED[:-4], "cannot be unpacked"),
        (b"", "starts with bytes ''"),
        (idx_bytes(IMAGES), "cannot be unpacked"),
        (packed(idx_bytes(IMAGES)[:-1]), "declares 2,352 .* holds 2,351"),
        (packed(idx_bytes(IMAGES) + b"\0"), "declares 2,352 .* holds more"),
        (packed(idx_bytes(IMAGES)[:9]), "starts with bytes"),
        (packed(idx_bytes(IMAGES[:, 0])), "starts with bytes '00 00 08 02'"),
        (packed(b"\0\0\x0d" + idx_bytes(IMAGES)[3:]), "'00 00 0d 03'"),
        (packed(idx_bytes(IMAGES[:0])), r"shape \[0, 28, 28\]"),
        (packed(b"\0\0\x08\3" + b"\xff" * 12), "outside 1 to"),
        (
            packed(b"\0\0\x08\3" + bytes([0, 32, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28])),
            "declares 1,644,167,168 values, but its .* may unpack to 16,777,216 only",
        ),
        (packed(idx_bytes(IMAGES[:, 1:])), "images of 27x28 pixels"),
        (packed(idx_bytes(IMAGES[1:])), "2 images but .* 3 labels"),
    ],
)
def test_a_damaged_image_file_is_named(tmp_path, content, message):
    images_name, labels_name = idx.pair_names("train")
    (tmp_path / labels_name).write_bytes(packed(idx_bytes(LABELS)))
    (tmp_path / images_name).write_bytes(PACKED)
    assert idx.read_pair(tmp_path, "train")[0].shape == (3, 28, 28, 1)
    (tmp_path / images_name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{images_name}: .*{message}") as error:
        idx.read_pair(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_damage_found_while_preparing_leaves_nothing_behind(tmp_path, prepared_data):
    write_pair(tmp_path, "train", 3)
    name = tmp_path / "train-images-idx3-ubyte.gz"
    name.write_bytes(PACKED[:-20])
    before = set(prepared_data.rglob("dataset_info.json"))
    with pytest.raises(DataError, match="cannot be unpacked"):
        load("mnist", "train", data_dir=str(tmp_path))
    assert set(prepared_data.rglob("dataset_info.json")) == before


def test_a_label_outside_the_classes_is_named(tmp_path):
    write_pair(tmp_path, "train", 3)
    labels = np.array([1, 10, 2], np.uint8)
    name = "train-labels-idx1-ubyte.gz"
    (tmp_path / name).write_bytes(packed(idx_bytes(labels)))
    with pytest.raises(DataError, match=rf"{name}: label 1 is 10"):
        load("mnist", "train", data_dir=str(tmp_path))


def test_checksums_are_those_of_tfds():
    path = Path(tfds.__file__).parent / "url_checksums" / "mnist.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    expected = {url: sha256 for url, _, sha256, _ in lines}
    assert {idx.URL + name: sha256 for name, sha256 in idx.SHA256.items()} == expected


def slow_answer(url, timeout):
    time.sleep(60)


def no_answer(url, timeout):
    raise urllib.error.URLError("no route")


@pytest.mark.parametrize("answer", [slow_answer, no_answer])
def test_without_network_the_error_comes_soon_and_says_what_to_do(
    monkeypatch, answer, tmp_path
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(idx.urllib.request, "urlopen", answer)
    monkeypatch.setattr(idx, "CONNECT_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"config\.data_dir=.*curl .*ubyte\.gz'"):
        load("mnist", "train")
    assert time.monotonic() - start < 2


def test_the_wait_for_the_network_is_within_five_seconds():
    assert idx.CONNECT_SECONDS <= 3


def serve(contents):
    """Returns a stand-in for urlopen that answers from a dict by file name."""

    def urlopen(url, timeout):
        served.append(url)
        path = contents / url.rsplit("/", 1)[-1]
        return path.open("rb")

    served = []
    return urlopen, served


def test_downloads_are_checked_prepared_and_not_repeated(tmp_path, monkeypatch):
    remote = tmp_path / "remote"
    remote.mkdir()
    images, _ = write_pair(remote, "train", 6)
    write_pair(remote, "test", 3, seed=1)
    digests = {
        name: idx.hashlib.sha256((remote / name).read_bytes()).hexdigest()
        for name in idx.SHA256
    }
    urlopen, served = serve(remote)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(idx.urllib.request, "urlopen", urlopen)
    with pytest.raises(DataError, match="other content than MNIST"):
        load("mnist", "train")
    monkeypatch.setattr(idx, "SHA256", digests)
    found = load("mnist", "train")["image"][..., 0]
    np.testing.assert_array_equal(found, images)
    n_downloads = len(served)
    load("mnist", "test")
    assert len(served) == n_downloads
