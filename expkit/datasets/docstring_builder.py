"""What builders of sources made of docstrings share: features, rows, splits by module.

A source names its features and lists the rows of the objects of a split; see
`expkit.datasets.api_docs`.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from expkit.datasets import docstrings


class DocstringBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A source of which the splits consist of whole modules of the libraries.

    Attributes:
        FEATURES: of a row, as `tfds.features.FeaturesDict` takes them.
    """

    FEATURES: ClassVar[Mapping[str, Any]]
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    @abc.abstractmethod
    def rows(
        self, objects: Sequence[docstrings.DocumentedObject]
    ) -> Iterable[Mapping[str, Any]]:
        """Lists the rows of a split.

        Args:
            objects: of the split.

        Returns:
            The rows, in the order of the data set.
        """

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.builder_config.description,
            features=tfds.features.FeaturesDict(dict(self.FEATURES)),
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
        yield from enumerate(self.rows(objects))


def make(builder: type[DocstringBuilder], root: str) -> tfds.core.DatasetBuilder:
    """Makes a builder for the libraries that are installed.

    Args:
        builder: the class of the source.
        root: folder of all prepared sources.

    Returns:
        The builder, not prepared; its configuration is named after the content of the
        libraries.

    Raises:
        DataError: if a library is not installed.
    """
    name, description = docstrings.describe(docstrings.read_files())
    config = tfds.core.BuilderConfig(name=name, description=description)
    return builder(data_dir=root, config=config, file_format="array_record")
