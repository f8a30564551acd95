"""`api_docs`: which of four installed libraries a paragraph documents.

The paragraphs are those of `expkit.datasets.docstrings`, from numpy, scipy, sklearn
(scikit-learn) and jax, in this order of labels, with the libraries' names masked. The
splits consist of whole modules. The text changes with the versions of the libraries, so
the configuration is named after a hash of it: results with different names differ.
All four are under BSD 3-clause or Apache 2.0 licences.
"""

from collections.abc import Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from expkit.datasets import docstring_builder, docstrings
from expkit.datasets.texts import mixing_key

FOLDER = "expkit_api_docs"


class ApiDocs(docstring_builder.DocstringBuilder, skip_registration=True):
    """Keys `text` and `label`: 0 numpy, 1 scipy, 2 sklearn, 3 jax."""

    name = FOLDER
    FEATURES: ClassVar = {
        "text": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=docstrings.LIBRARIES),
    }

    def rows(self, objects):
        """As `labelled_paragraphs` lists them.

        Args:
            objects: of one split.

        Returns:
            The rows.
        """
        return labelled_paragraphs(objects)


def labelled_paragraphs(
    objects: Sequence[docstrings.DocumentedObject],
) -> list[dict[str, str]]:
    """Lists the paragraphs of objects, mixed, so that a slice is a sample.

    Args:
        objects: of one split.

    Returns:
        Two rows an object, with `text` and, as `label`, the name of the library.
    """
    rows = [{"text": t, "label": o.library} for o in objects for t in o.paragraphs]
    return sorted(rows, key=lambda row: mixing_key(row["text"]))


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
    return docstring_builder.make(ApiDocs, root)
