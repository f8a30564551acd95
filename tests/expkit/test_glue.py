"""GLUE by its name in TFDS: prepared it is read offline, else the command is named."""

import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from expkit.data import DataError, load

TASKS = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "ax")


class FakeStsb(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What TFDS leaves on disk for `glue/stsb`, with three rows a split."""

    name = "glue"
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="stsb", version="2.0.0"),)
    code_path = None

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "sentence1": tfds.features.Text(),
                "sentence2": tfds.features.Text(),
                "label": np.float32,
                "idx": np.int32,
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        names = ("train", "validation", "test")
        return {name: self._generate_examples(name) for name in names}

    def _generate_examples(self, split):
        for i in range(3):
            row = {"sentence1": f"{split} größe {i}", "sentence2": "北京"}
            yield i, {**row, "label": 2.5 * i, "idx": i}


@pytest.fixture(scope="module", autouse=True)
def prepared_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(root))
        # TFDS leaves an empty folder behind for every set that is not prepared.
        patch.setattr(tempfile, "tempdir", str(root))
        FakeStsb(data_dir=root).download_and_prepare(file_format="array_record")
        yield root


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_prepared_task_is_read_without_a_network(no_network, split):
    data = load("glue/stsb", split)
    assert data["sentence1"].tolist() == [f"{split} größe {i}" for i in range(3)]
    assert data["sentence2"].tolist() == ["北京"] * 3
    np.testing.assert_array_equal(data["label"], np.float32([0, 2.5, 5]))


def test_a_fresh_process_is_as_quick_and_as_clear_and_needs_no_tensorflow():
    code = (
        "import sys; from expkit.data import load; n = len(load('glue/stsb', 'test')"
        "['idx']); print(n, 'tensorflow' in sys.modules); load('glue/rte', 'train')"
    )
    start = time.monotonic()
    reply = run(code)
    assert time.monotonic() - start < 30  # of which most is starting Python
    assert reply.stdout.split() == ["3", "False"]
    assert "'glue/rte' is not prepared" in reply.stderr.splitlines()[-1]


def test_without_importing_the_section_tfds_finds_no_glue(tmp_path):
    code = f"""
import tensorflow_datasets as tfds
try:
    tfds.builder("glue/rte", data_dir={str(tmp_path)!r})
except tfds.core.DatasetNotFoundError:
    import tensorflow_datasets.text
    tfds.builder("glue/rte", data_dir={str(tmp_path)!r})
    print("found")
"""
    assert run(code).stdout == "found\n"


@pytest.mark.parametrize("task", [task for task in TASKS if task != "stsb"])
def test_a_task_that_is_not_prepared_names_the_command_at_once(no_network, task):
    start = time.monotonic()
    with pytest.raises(DataError, match="is not prepared") as error:
        load(f"glue/{task}", "train")
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "import tensorflow_datasets as tfds, tensorflow_datasets.text; " in message
    assert f"tfds.builder('glue/{task}'" in message
    assert "download_and_prepare()" in message
    assert "\n" not in message


def test_columns_rename_a_pair_task(no_network):
    columns = {"text_1": "sentence1", "text_2": "sentence2", "score": "label"}
    data = load("glue/stsb", "test", columns=columns)
    assert list(data) == list(columns)
    assert data["score"].dtype == np.float32
