"""`mnist`: 70,000 handwritten digits of 28x28 pixels, from files or from the network.

The stock `mnist` of TFDS needs TensorFlow to be prepared; this builder does not. Rows
keep the order of the files. The first 5,000 test images are easier than the last 5,000,
which were written by other people: a slice of the test set is not a random sample.

Source: LeCun, Cortes and Burges, *The MNIST database*, http://yann.lecun.com/exdb/mnist
"""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from expkit.datasets import idx
from expkit.datasets.home import expand_home

FOLDER = "expkit_mnist"


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `image` [28, 28, 1] uint8 and `label`."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None
    # Where the raw files are; None for the public ones.
    raw_folder: Path | None = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        folder = self.raw_folder
        if folder is None:
            folder = Path(self.data_dir_root) / "downloads" / FOLDER
            idx.fetch(folder)
        return {
            split: self._generate_examples(*idx.read_pair(folder, split))
            for split in idx.present_splits(folder)
        }

    def _generate_examples(self, images, labels):
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {"image": image, "label": int(label)}


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared; other raw files make another one.

    Args:
        root: folder of all prepared sources.
        data_dir: folder with the raw files, or None for the public ones.

    Returns:
        A TFDS builder whose configuration is named after the content of the files.

    Raises:
        DataError: if `data_dir` lacks the files, or its home folder is not known.
    """
    folder = expand_home(data_dir, f"data_dir={data_dir!r}") if data_dir else None
    digests = idx.SHA256 if folder is None else _digests(folder)
    content = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
    config = tfds.core.BuilderConfig(name=f"files_{content[:16]}")
    builder = Mnist(data_dir=root, config=config, file_format="array_record")
    builder.raw_folder = folder
    return builder


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: idx.digest(folder / name)
        for split in idx.present_splits(folder)
        for name in idx.pair_names(split)
    }
