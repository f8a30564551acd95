"""`digits`: 1,797 handwritten digits of 8x8 pixels, installed with scikit-learn.

Source: `sklearn.datasets.load_digits`, the test set of the UCI ML hand-written digits
data (Alpaydin and Kaynak, 1998).
"""

import hashlib

import numpy as np
import tensorflow_datasets as tfds

SIZES = {"train": 1257, "validation": 270, "test": 270}
FOLDER = "expkit_digits"


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `image` [8, 8, 1] uint8 in 0..16 and `label`."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.asarray(pixels, np.uint8).reshape(-1, 8, 8, 1)
        order = stratified_order(np.asarray(labels))
        generators, start = {}, 0
        for split, size in SIZES.items():
            rows = order[start : start + size]
            generators[split] = self._generate_examples(images, labels, rows)
            start += size
        return generators

    def _generate_examples(self, images, labels, rows):
        for key, row in enumerate(rows):
            yield key, {"image": images[row], "label": int(labels[row])}


def stratified_order(labels: np.ndarray) -> np.ndarray:
    """Orders the rows so that every stretch holds every class in proportion.

    Rows of a class are put in the order of a hash of their number, and then the classes
    are interleaved evenly. No random generator takes part, so that the order is the
    same with every version of numpy.

    Args:
        labels: class of each row, shape [n].

    Returns:
        A permutation of 0..n-1, shape [n].
    """
    digest = [hashlib.sha256(b"%d" % row).digest() for row in range(len(labels))]
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == label), key=lambda row: digest[row])
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((labels, position))


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared.

    Args:
        root: folder of all prepared sources.
        data_dir: must be None, since the data is installed.

    Returns:
        A TFDS builder.
    """
    del data_dir
    return Digits(data_dir=root, file_format="array_record")
