"""`api_docs`: which of four installed libraries a paragraph documents.

The paragraphs are those of `expkit.datasets.docstrings`, from numpy, scipy, sklearn
(scikit-learn) and jax, in this order of labels, with the libraries' names masked. The
splits consist of whole modules. The text changes with the versions of the libraries, so
the configuration is named after a hash of it: results with different names differ.
All four are under BSD 3-clause or Apache 2.0 licences.
"""

import tensorflow_datasets as tfds

from expkit.datasets import docstrings
from expkit.datasets.texts import mixing_key

FOLDER = "expkit_api_docs"


class ApiDocs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `text` and `label`: 0 numpy, 1 scipy, 2 sklearn, 3 jax."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.builder_config.description,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=docstrings.LIBRARIES),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        objects = docstrings.installed_objects(self.builder_config.name)
        homes = docstrings.split_modules(objects)
        return {
            split: self._generate_examples(
                [o for o in objects if homes[o.library, o.path] == split]
            )
            for split in docstrings.SHARES
        }

    def _generate_examples(self, objects):
        yield from enumerate(labelled_paragraphs(objects))


def labelled_paragraphs(
    objects: list[docstrings.DocumentedObject],
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
    name, description = docstrings.describe(docstrings.read_files())
    config = tfds.core.BuilderConfig(name=name, description=description)
    return ApiDocs(data_dir=root, config=config, file_format="array_record")
