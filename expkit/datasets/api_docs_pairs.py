"""`api_docs_pairs`: how near two paragraphs of documentation are, graded 0, 1 or 2.

Every object of `expkit.datasets.docstrings` gives its first paragraph to three pairs,
with the second paragraph of itself (2), of another object in the same submodule, such
as scipy.stats (1), and of an object elsewhere (0). The splits are those of `api_docs`,
and no pair crosses them. An object that is alone in its submodule has no pair of grade
1. Text, names and licences: see `expkit.datasets.api_docs`.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from expkit.datasets import docstring_builder, docstrings
from expkit.datasets.texts import mixing_key

FOLDER = "expkit_api_docs_pairs"


class ApiDocsPairs(docstring_builder.DocstringBuilder, skip_registration=True):
    """Keys `text_1`, `text_2` and `score`: 2 same object, 1 same submodule, 0 none."""

    name = FOLDER
    FEATURES: ClassVar = {
        "text_1": tfds.features.Text(),
        "text_2": tfds.features.Text(),
        "score": np.float32,
    }

    def rows(self, objects):
        """As `graded_pairs` lists them.

        Args:
            objects: of one split.

        Returns:
            The rows.
        """
        return (
            dict(zip(self.FEATURES, pair, strict=True))
            for pair in graded_pairs(objects)
        )


def graded_pairs(
    objects: Sequence[docstrings.DocumentedObject],
) -> list[tuple[str, str, float]]:
    """Pairs every object with itself and with two others, drawn by a hash.

    Args:
        objects: of one split.

    Returns:
        (first paragraph, second paragraph, score), mixed, so that a slice is a sample.
    """
    part = [docstrings.submodule(item) for item in objects]
    pairs = []
    for index, item in enumerate(objects):
        near = [i for i, name in enumerate(part) if name == part[index] and i != index]
        far = [i for i, name in enumerate(part) if name != part[index]]
        for score, candidates in ((2.0, [index]), (1.0, near), (0.0, far)):
            if candidates:
                draw = int.from_bytes(mixing_key(score, *item.paragraphs)[:8], "big")
                other = objects[candidates[draw % len(candidates)]]
                pairs.append((item.paragraphs[0], other.paragraphs[1], score))
    return sorted(pairs, key=lambda pair: mixing_key(*pair))


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared; other libraries make another one.

    Args:
        root: folder of all prepared sources.
        data_dir: must be None, since the data is installed.

    Returns:
        A TFDS builder whose configuration is named after the content of the libraries.

    Raises:
        DataError: if a library is not installed.
    """
    del data_dir
    return docstring_builder.make(ApiDocsPairs, root)
