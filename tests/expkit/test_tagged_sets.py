"""Sets of TFDS with tokens and tags, such as `conll2003`, have texts and spans."""

import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from expkit.data import load
from expkit.datasets.conll import is_bio, spans_of
from expkit.labelled_spans import span_types

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
SENTENCES = (
    ("EU rejects German call", (3, 0, 7, 0)),
    ("Peter Blackburn", (1, 2)),
    ("BRUSSELS 1996-08-22", (5, 0)),
    ("São Paulo , São Paulo", (5, 6, 0, 6, 6)),
)
SPANS = [
    [("ORG", 0, 1), ("MISC", 11, 16)],
    [("PER", 0, 14)],
    [("LOC", 0, 7)],
    [("LOC", 0, 8), ("LOC", 12, 20)],
]


class FakeConll(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What TFDS leaves on disk for `conll2003`, with four sentences a split."""

    name = "conll2003"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="conll2003", version="1.0.0"),)
    code_path = None
    tags = TAGS

    def _info(self):
        tokens = tfds.features.Sequence(tfds.features.Text())
        tags = tfds.features.Sequence(tfds.features.ClassLabel(names=self.tags))
        pos = tfds.features.Sequence(tfds.features.ClassLabel(names=["NN", "VB"]))
        features = {"tokens": tokens, "pos": pos, "chunks": pos, "ner": tags}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples() for name in ("train", "dev", "test")}

    def _generate_examples(self):
        for i, (text, tags) in enumerate(SENTENCES):
            row = {"tokens": text.split(), "ner": list(tags)}
            yield i, row | {"pos": [0] * len(tags), "chunks": [1] * len(tags)}


class FakeOthers(FakeConll, skip_registration=True):
    """The same with tags that are not BIO."""

    name = "other_tags"
    BUILDER_CONFIGS = ()
    tags = tuple(name.replace("-", "_") for name in TAGS)


@pytest.fixture(scope="module", autouse=True)
def prepared_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(root))
        patch.setattr(tempfile, "tempdir", str(root))
        for fake in (FakeConll, FakeOthers):
            fake(data_dir=root).download_and_prepare(file_format="array_record")
        yield root


def test_tags_become_spans_of_the_joined_tokens():
    data = load("conll2003", "test")
    assert data["text"].tolist() == [text for text, _ in SENTENCES]
    assert data["spans"].tolist() == SPANS
    assert data["tokens"][1] == ["Peter", "Blackburn"]
    np.testing.assert_array_equal(data["ner"][1], [1, 2])
    assert span_types(data["spans"]) == ("LOC", "MISC", "ORG", "PER")


def test_columns_and_slices_apply_to_them():
    data = load("conll2003", "train[1:2]+dev[:1]", columns={"where": "spans"})
    assert list(data) == ["where"]
    assert data["where"].tolist() == [SPANS[1], SPANS[0]]


def test_tags_of_another_kind_stay_tags():
    assert set(load("other_tags", "test")) == {"tokens", "pos", "chunks", "ner"}
    assert is_bio(TAGS)
    assert not any(map(is_bio, (["O"], ["B-x"], ["O", "B-"], ["O", "x"], TAGS[1:])))


def test_a_tag_that_continues_nothing_starts_a_span():
    tokens = ["a", "b", "c", "d"]
    tags = ["I-x", "I-x", "I-y", "B-y"]
    assert spans_of(tokens, tags) == [("x", 0, 2), ("y", 4, 4), ("y", 6, 6)]
