"""Data as dicts of numpy arrays, and batches of it by step number.

`load` reads a whole split into memory and `Batches` cuts it into batches; `stream`
gives batches of a set that does not fit. Both give the batch of any step at once, so
that resuming a run needs no state of the data, only its seed.

>>> data = load("digits", "train")
>>> batches = Batches(data, 128, seed=0)
>>> batches[0]["image"].shape
(128, 8, 8, 1)

| source | keys | splits |
|---|---|---|
| `digits` | `image` [8, 8, 1] uint8 in 0..16, `label` | train, validation, test |
| `mnist` | `image` [28, 28, 1] uint8, `label` | train, test |
| `reviews` | `text`, `label` (0 negative, 1 positive) | train, validation, test |
| `news_entities` | `text`, `spans` (type, start, end) | train, validation, test |
| `code_spans` | `text`, `spans`, nested | train, validation, test |
| `api_docs` | `text`, `label` (numpy, scipy, sklearn, jax) | train, validation, test |
| `api_docs_pairs` | `text_1`, `text_2`, `score` 0..2 | train, validation, test |
| `file:PATH` with `{split}` in it | columns of the file | one file each |
| `synthetic:28x28x1:10` | `image` uint8, `label` | train, validation, test |
| any other name, such as `glue/rte` | those of TFDS | those of TFDS |
| `conll2003` among them | also `text`, `spans` | those of TFDS |
"""

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from expkit.datasets.batches import Batches, check_batch_size, check_step
from expkit.datasets.columns import choose, parse_columns
from expkit.datasets.errors import DataError
from expkit.datasets.files import read_file
from expkit.datasets.prepared import (
    WITH_DATA_DIR,
    open_source,
    read_source,
    to_arrays,
)
from expkit.datasets.splits import resolve_split, split_names
from expkit.datasets.synthetic import SIZES, synthetic

__all__ = ["Batches", "DataError", "Stream", "load", "stream"]


def load(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Reads one split of a data source into memory.

    The sources of the table come with installed packages, and `mnist` from public
    addresses or `data_dir`; they are prepared once under `$TFDS_DATA_DIR`.

    Args:
        name: a source; see the table above.
        split: such as `"train"`, `"test[:8000]"`, `"train[10%:]"` or `"train+test"`.
        data_dir: folder with the raw files of `mnist`.
        columns: our key to the column of the source. For files with an optional type,
            as in `{"text_1": "sentence1", "score": "score:float"}`, where str is the
            default; None keeps all columns.

    Returns:
        Arrays with the same leading length: numbers as they are, texts as objects.
        Spans are one list a row of (type, start, end), in characters of its text, end
        inclusive. They come with the sources of spans, with CoNLL files, with JSON
        lines of mentions, and with sets of TFDS that have tokens and BIO tags `ner`.

    Raises:
        ValueError: if the source, the split or an argument cannot be used.
        DataError: a ValueError with the place, if data is missing or malformed.
    """
    kind, _, rest = name.partition(":")
    _check_data_dir(name, data_dir)
    if kind == "file":
        names = split_names(split)
        tables = {part: read_file(rest, part, columns) for part in names}
        return _slice(tables, split, name)
    if kind == "synthetic":
        resolve_split(split, SIZES, name)
        tables = {part: synthetic(rest, part) for part in split_names(split)}
        return _rename(_slice(tables, split, name), columns, name)
    return _rename(read_source(name, split, data_dir or None), columns, name)


def load_splits(config: Any) -> dict[str, dict[str, np.ndarray]]:
    """Reads the three splits that a config names.

    Args:
        config: has the fields `dataset`, `data_dir` (may be empty) and `train_split`,
            `validation_split`, `test_split`. The set may be several sources joined by
            `+`, such as `"reviews+news_entities"`; the name of a file is never cut.

    Returns:
        What `load` returns, by `"train"`, `"validation"` and `"test"`. Of several
        sources, the rows of all, one source after the other, with the keys that all
        of them have.

    Raises:
        ValueError: as `load` raises, or if several sources have no key in common.
    """
    is_file = config.dataset.startswith("file:")
    names = [config.dataset] if is_file else config.dataset.split("+")
    splits = {}
    for split in ("train", "validation", "test"):
        spec = config[f"{split}_split"]
        tables = [load(n, spec, data_dir=config.data_dir or None) for n in names]
        splits[split] = _join(tables, config.dataset)
    return splits


def require_one_shape(images: Iterable[np.ndarray], source: str) -> None:
    """Checks that images are arrays of one shape.

    Args:
        images: of some splits.
        source: name of the data, for the message.

    Raises:
        ValueError: if those of a split are objects.
    """
    if any(part.dtype == object for part in images):
        raise ValueError(
            f"the images of {source!r} differ in shape, or are texts as in a file; use "
            "a source with arrays of one shape, such as 'digits'."
        )


def _join(tables: list[dict[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
    first, *others = tables
    if not others:
        return first
    keys = [key for key in first if all(key in table for table in others)]
    if not keys:
        found = "; ".join(", ".join(table) for table in tables)
        raise DataError(
            f"the sources of {name!r} have no key in common ({found}); join sources "
            "that share one, such as 'text'."
        )
    return {key: np.concatenate([table[key] for table in tables]) for key in keys}


def _check_data_dir(name: str, data_dir: str | None) -> None:
    if data_dir and name not in WITH_DATA_DIR:
        raise ValueError(
            f"data_dir={data_dir!r} is the folder of the raw files of "
            f"{' or '.join(WITH_DATA_DIR)}; the source {name!r} does not use it."
        )


def _slice(
    tables: Mapping[str, dict[str, np.ndarray]], split: str, source: str
) -> dict[str, np.ndarray]:
    sizes = {name: _length(table) for name, table in tables.items()}
    parts = resolve_split(split, sizes, source)
    keys = [list(table) for table in tables.values()]
    if any(set(other) != set(keys[0]) for other in keys):
        raise DataError(
            f"{source}: the splits of {split!r} have different columns, {keys}; name "
            "the wanted ones in columns."
        )
    return {
        key: np.concatenate([tables[p.name][key][p.start : p.stop] for p in parts])
        for key in keys[0]
    }


def _rename(
    arrays: dict[str, np.ndarray], columns: Mapping[str, str] | None, source: str
) -> dict[str, np.ndarray]:
    wanted = parse_columns(columns)
    for column in wanted:
        if column.kind:
            raise ValueError(
                f"columns[{column.key!r}] gives the type {column.kind!r}, which only "
                f"the columns of files need; write {column.name!r}."
            )
    return {c.key: arrays[c.name] for c in choose(wanted, arrays, source)}


def _length(arrays: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(arrays.values())))


class Stream:
    """Batches by global step, read from disk: `stream[step]`. Made by `stream`."""

    def __init__(self, dataset: Any):
        self._dataset = dataset

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a global step >= 0."""
        return self._dataset[check_step(step)]


def stream(
    name: str,
    split: str,
    batch_size: int,
    *,
    seed: int | None,
    data_dir: str | None = None,
) -> Stream:
    """Reads batches of a prepared source with Grain, without loading it into memory.

    Rows are shuffled anew in every epoch; a batch at the end of an epoch goes on with
    the start of the next, as in `Batches` with `remainder="wrap"`.

    Args:
        name: a source that TFDS holds, not `file:` or `synthetic:`.
        split: as in `load`.
        batch_size: rows in every batch, at least 1.
        seed: int in 0..2**32-1, or None for the order on disk.
        data_dir: folder with the raw files of `mnist`.

    Returns:
        An object whose `[step]` is a dict of arrays like those of `load`.

    Raises:
        ValueError: if an argument does not apply, or as `load`.
        DataError: as `load`.
    """
    if name.startswith(("file:", "synthetic:")):
        raise ValueError(f"{name!r} is read in memory: use load and Batches.")
    check_batch_size(batch_size)
    if seed is not None and not 0 <= operator.index(seed) < 2**32:
        raise ValueError(f"seed must be None or in 0..2**32-1, got {seed}.")
    _check_data_dir(name, data_dir)
    import grain

    source, features = open_source(name, split, data_dir or None)
    dataset = grain.MapDataset.source(source)
    if seed is not None:
        dataset = dataset.seed(seed).shuffle()
    collate = functools.partial(to_arrays, features=features)
    return Stream(dataset.repeat().batch(batch_size, batch_fn=collate))
