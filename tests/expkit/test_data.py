"""`load`: dispatch, slices, sets of TFDS, errors without a network."""

import subprocess
import sys
import tempfile
import time
from typing import ClassVar

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from expkit.data import DataError, load, load_splits, require_one_shape
from expkit.datasets.splits import resolve_split, split_names

SENTENCES = [["an", "été", "in"], ["Paris"], ["北", "京"]]


@pytest.fixture(scope="module", autouse=True)
def prepared_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(root))
        # TFDS leaves an empty folder behind for every set that is not prepared.
        patch.setattr(tempfile, "tempdir", str(root))
        for builder in (Rte(data_dir=root), Tagged(data_dir=root)):
            builder.download_and_prepare(file_format="array_record")
        yield root


class MadeUp(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("2.0.0")
    code_path = None
    FEATURES: ClassVar[dict]
    ROWS: ClassVar[list]

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(
            builder=self, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": iter([(0, self.ROWS[0])])}

    def _generate_examples(self):
        yield from enumerate(self.ROWS)


class Rte(MadeUp, skip_registration=True):
    name = "glue"
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="rte", version="2.0.0")]
    FEATURES: ClassVar = {
        "sentence1": tfds.features.Text(),
        "sentence2": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["entailment", "not_entailment"]),
        "idx": np.int32,
    }
    ROWS: ClassVar = [
        {"sentence1": f"größe {i}", "sentence2": "b", "label": i % 2, "idx": i}
        for i in range(40)
    ]


class Tagged(MadeUp, skip_registration=True):
    name = "expkit_test_tagged"
    FEATURES: ClassVar = {
        "tokens": tfds.features.Sequence(tfds.features.Text()),
        "tags": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3)),
        "vector": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "nested": {"name": tfds.features.Text()},
    }
    ROWS: ClassVar = [
        {
            "tokens": tokens,
            "tags": [1] * len(tokens),
            "vector": np.full(2, i, np.float32),
            "nested": {"name": tokens[0]},
        }
        for i, tokens in enumerate(SENTENCES)
    ]


def test_importing_loads_no_heavy_package():
    code = (
        "import sys, expkit.data; heavy = {'jax', 'tensorflow_datasets', 'grain', "
        "'sklearn'}; print(sorted(heavy & set(sys.modules)))"
    )
    reply = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert reply.stdout.strip() == "[]"


def test_a_prepared_set_of_tfds_is_read_with_its_own_code():
    data = load("glue/rte", "train")
    assert data["sentence1"].tolist() == [f"größe {i}" for i in range(40)]
    np.testing.assert_array_equal(data["idx"], range(40))
    assert data["idx"].dtype == np.int32
    assert data["label"].dtype == np.int64


def test_columns_rename_what_tfds_calls_otherwise():
    columns = {"text_1": "sentence1", "label": "label"}
    data = load("glue/rte", "train[:2]", columns=columns)
    assert list(data) == ["text_1", "label"]
    assert data["text_1"].tolist() == ["größe 0", "größe 1"]
    with pytest.raises(DataError, match=r"no column 'sentence3'.*did you mean"):
        load("glue/rte", "train", columns={"a": "sentence3"})
    with pytest.raises(ValueError, match="only the columns of files"):
        load("glue/rte", "train", columns={"a": "label:float"})


def test_sequences_become_one_object_a_row():
    data = load("expkit_test_tagged", "train")
    assert data["tokens"].tolist() == SENTENCES
    assert [tags.tolist() for tags in data["tags"]] == [[1, 1, 1], [1], [1, 1]]
    np.testing.assert_array_equal(data["vector"], [[0, 0], [1, 1], [2, 2]])
    assert data["nested"][1] == {"name": "Paris"}


SLICES = {
    "train": range(40),
    "train[:8]": range(8),
    "train[10%:]": range(4, 40),
    "train[-3:]": range(37, 40),
    "train[:-90%]": range(4),
    "train[1:3]+test": [1, 2, 0],
    "test + train[39:]": [0, 39],
}


@pytest.mark.parametrize(("split", "rows"), SLICES.items())
def test_slices_mean_what_they_mean_in_tfds(prepared_data, split, rows):
    assert load("glue/rte", split)["idx"].tolist() == list(rows)
    source = tfds.data_source("glue/rte", split=split, data_dir=prepared_data)
    assert [int(row["idx"]) for row in source] == list(rows)


@pytest.mark.parametrize("size", [60, 97, 1797])
@pytest.mark.parametrize("percent", [1, 33, 50, 99])
@pytest.mark.parametrize("sign", ["", "-"])
def test_percentages_round_like_tfds(size, percent, sign):
    spec = f"s[{sign}{percent}%:]"
    info = tfds.core.SplitInfo(
        name="s", shard_lengths=[size], num_bytes=0, filename_template=None
    )
    instruction = tfds.core.ReadInstruction.from_spec(spec)
    (expected,) = instruction.to_absolute({"s": info})
    assert resolve_split(spec, {"s": size}, "x")[0].start == expected.from_


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tain", r"unknown split 'tain' of 'glue/rte', which has train \(40 rows\)"),
        ("train[5:5]", "selects rows 5 to 5"),
        ("train[:41]", "selects rows 0 to 41, but train has rows 0 to 40"),
        ("train[-41:]", "selects rows -1 to 40"),
        ("train[:101%]", r"split 'train\[:101%\]' .* choose a slice inside"),
        ("train[", "not understood"),
        ("train[3]", "not understood"),
        ("train[:5shard]", "not understood"),
        ("", "not understood"),
        ("train+", "not understood"),
    ],
)
def test_splits_that_select_nothing_are_refused(split, message):
    with pytest.raises(ValueError, match=message):
        load("glue/rte", split)


def test_split_names_are_listed_once():
    assert split_names("train[:5]+test+train[9:]") == ["train", "test"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digit",
            "own sources are .*digits, mnist, .*reviews, file:.*did you mean 'digits'",
        ),
        ("imdb_review", "did you mean 'imdb_reviews'"),
        ("glue/rt", "unknown configuration 'rt' of 'glue'.*did you mean 'rte'"),
        ("huggingface:glue", "unknown data source"),
        ("no such set", "unknown data source"),
        ("", "unknown data source"),
        ("mnist:9.9.9", "TFDS cannot open .*3.0.1"),
    ],
)
def test_an_unknown_name_lists_what_there_is(name, message):
    with pytest.raises(ValueError, match=message) as error:
        load(name, "train")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("conll2003", ", tensorflow_datasets.text"),
        ("glue/sst2", ", tensorflow_datasets.text"),
        ("squad", ""),
        ("cifar10", ", tensorflow_datasets.image_classification"),
    ],
)
def test_an_unprepared_set_fails_at_once_with_the_command(name, module, capfd):
    start = time.monotonic()
    with pytest.raises(DataError, match="is not prepared") as error:
        load(name, "train")
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert f"import tensorflow_datasets as tfds{module}; tfds.builder({name!r}" in (
        message
    )
    assert message.count("\n") == 0
    assert ("TensorFlow installed" in message) == (name == "cifar10")
    assert capfd.readouterr() == ("", "")


def test_the_command_opens_the_set_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "with space"))
    with pytest.raises(DataError) as error:
        load("glue/rte", "train")
    code = str(error.value).split('"')[1]
    prepared = []

    def record(builder):
        prepared.append(builder)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", record)
    exec(code, {})
    assert prepared[0].name == "glue"
    assert str(prepared[0].data_dir) == str(tmp_path / "with space/glue/rte/2.0.0")
    assert prepared[0].info.file_format.value == "array_record"


def test_a_set_in_another_format_is_named(monkeypatch):
    def refuse(builder, split):
        raise NotImplementedError("tfrecord")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", refuse)
    with pytest.raises(DataError, match=r"delete that folder and run: .*glue/rte"):
        load("glue/rte", "train")


@pytest.mark.parametrize("name", ["digits", "glue/rte", "synthetic:2x2:2", "file:x"])
def test_data_dir_is_for_mnist(name):
    with pytest.raises(ValueError, match=r"data_dir='/x' is the folder .* mnist"):
        load(name, "train", data_dir="/x")


def test_the_three_splits_of_a_config_are_loaded():
    config = ml_collections.ConfigDict(
        {
            "dataset": "synthetic:linear:4",
            "data_dir": "",
            "train_split": "train[:7]",
            "validation_split": "test[:3]",
            "test_split": "test[3:]",
        }
    )
    splits = load_splits(config)
    assert list(splits) == ["train", "validation", "test"]
    whole = load("synthetic:linear:4", "test")
    assert len(splits["train"]["x"]) == 7
    np.testing.assert_array_equal(splits["validation"]["x"], whole["x"][:3])
    np.testing.assert_array_equal(splits["test"]["x"], whole["x"][3:])


def several(dataset):
    splits = {f"{name}_split": "train[:3]" for name in ("train", "validation", "test")}
    return ml_collections.ConfigDict({"dataset": dataset, "data_dir": "", **splits})


def test_sources_joined_by_a_plus_share_their_common_keys():
    splits = load_splits(several("synthetic:2x2:3+synthetic:2x2:2+synthetic:2x2:3"))
    parts = [load(f"synthetic:2x2:{n}", "train[:3]") for n in (3, 2, 3)]
    for data in splits.values():
        for key in ("image", "label"):
            expected = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(data[key], expected)


def test_a_key_that_one_source_lacks_is_left_out():
    splits = load_splits(several("glue/rte+synthetic:2x2:3"))
    assert list(splits["test"]) == ["label"]
    assert splits["test"]["label"].shape == (6,)


def test_sources_without_a_common_key_are_refused():
    with pytest.raises(ValueError, match=r"no key in common \(x, y; image, label\)"):
        load_splits(several("synthetic:linear:4+synthetic:2x2:3"))


def test_a_plus_in_the_name_of_a_file_is_kept(tmp_path):
    (tmp_path / "a+b-train.txt").write_text("one\ntwo\nthree\n")
    data = load_splits(several(f"file:{tmp_path}/a+b-{{split}}.txt"))["train"]
    assert data["text"].tolist() == ["one", "two", "three"]


def test_images_that_are_no_arrays_of_one_shape_are_refused():
    images = np.zeros((3, 8, 8, 1))
    require_one_shape([images, images[:0]], "here")
    with pytest.raises(ValueError, match="'here' differ in shape, or are texts"):
        require_one_shape([images, np.empty(3, object)], "here")
