"""Rows of the sources that TFDS keeps on disk, our own and others.

Our own are prepared on first use under `$TFDS_DATA_DIR` (or `~/tensorflow_datasets`),
as array records, without TensorFlow. The others: `expkit.datasets.foreign`.
"""

import contextlib
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from expkit.datasets.conll import Span, is_bio, spans_of
from expkit.datasets.errors import DataError
from expkit.datasets.foreign import (
    data_root,
    is_prepared,
    open_foreign,
    preparing_command,
)
from expkit.datasets.splits import resolve_split
from expkit.messages import one_line

OWN = (
    "api_docs",
    "api_docs_pairs",
    "code_spans",
    "digits",
    "mnist",
    "news_entities",
    "reviews",
)
WITH_DATA_DIR = ("mnist",)


def open_source(name: str, split: str, data_dir: str | None = None) -> tuple[Any, Any]:
    """Opens rows of a source for random access, preparing it when it is our own.

    Args:
        name: one of `OWN`, or a name in TFDS such as `"glue/rte"`.
        split: a split with optional slices.
        data_dir: folder with the raw files, for the sources in `WITH_DATA_DIR`.

    Returns:
        A sequence of rows as TFDS gives them, and the TFDS features that describe them.

    Raises:
        ValueError: if the name or the split is unknown.
        DataError: if the data is not there or cannot be prepared.
    """
    with _quiet():
        builder = _own(name, data_dir) if name in OWN else open_foreign(name, OWN)
        sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
        rows = resolve_split(split, sizes, name)
        spec = "+".join(f"{part.name}[{part.start}:{part.stop}]" for part in rows)
        try:
            return builder.as_data_source(spec), builder.info.features
        except NotImplementedError as error:
            raise DataError(
                f"{name!r} is prepared in {builder.data_dir} in a format that cannot "
                "be read without TensorFlow; delete that folder and run: "
                f"{preparing_command(name, builder)}"
            ) from error
        except Exception as error:
            raise _damaged(name, builder.data_dir, error) from error


def read_source(
    name: str, split: str, data_dir: str | None = None
) -> dict[str, np.ndarray]:
    """Reads rows of a source into memory; see `open_source`.

    Args:
        name: one of `OWN`, or a name in TFDS.
        split: a split with optional slices.
        data_dir: folder with the raw files, for the sources in `WITH_DATA_DIR`.

    Returns:
        An array for each feature; see `to_arrays`.

    Raises:
        ValueError: if the name or the split is unknown.
        DataError: if the data is not there, damaged, or cannot be prepared.
    """
    source, features = open_source(name, split, data_dir)
    try:
        rows = source.__getitems__(range(len(source)))
    except Exception as error:
        raise _damaged(name, source.dataset_info.data_dir, error) from error
    return to_arrays(rows, features)


def to_arrays(
    rows: Sequence[Mapping[str, Any]], features: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Stacks rows of TFDS, with texts decoded from UTF-8.

    Rows of `tokens` with BIO tags `ner`, as `conll2003` has them, also get `text`, the
    tokens joined by spaces, and `spans` of it.

    Args:
        rows: dicts of numpy values and bytes.
        features: the TFDS features of the keys.

    Returns:
        For each key an array with one entry a row: numbers of a fixed shape in their
        own dtype; objects for texts (str), sequences of texts (list of str), sequences
        of varying length (array), spans (list of (type, start, end), as in CoNLL files)
        and other nested features (dict).
    """
    columns = {k: _column(features[k], [row[k] for row in rows]) for k in rows[0]}
    if {"tokens", "ner"} <= columns.keys() and "spans" not in columns:
        names = getattr(features["ner"], "names", None)
        if names and is_bio(names):
            columns |= _spans_of_tags(columns["tokens"], columns["ner"], names)
    return columns


def _spans_of_tags(
    tokens: np.ndarray, tags: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    rows = zip(tokens, tags, strict=True)
    spans = [spans_of(words, [names[i] for i in row]) for words, row in rows]
    texts = map(" ".join, tokens)
    return {
        "text": np.fromiter(texts, object, len(tokens)),
        "spans": np.fromiter(spans, object, len(tokens)),
    }


def _column(feature: Any, values: Sequence[Any]) -> np.ndarray:
    if _is_spans(feature):
        items = (_spans(value, feature["type"].names) for value in values)
        return np.fromiter(items, object, len(values))
    shape, dtype = feature.shape, feature.np_dtype
    is_number = isinstance(shape, tuple) and np.dtype(dtype) != object
    if is_number and None not in shape:
        return np.asarray(values, dtype)
    if is_number and shape.count(None) == 1:
        items = (np.asarray(value, dtype) for value in values)
    else:
        items = (_decoded(value) for value in values)
    return np.fromiter(items, object, len(values))


def _is_spans(feature: Any) -> bool:
    """Tells a sequence of spans from other nested features by its keys."""
    keys = set(feature.keys()) if hasattr(feature, "keys") else set()
    return keys == {"type", "start", "end"} and hasattr(feature["type"], "names")


def _spans(value: Mapping[str, Any], names: Sequence[str]) -> list[Span]:
    columns = (np.asarray(value[key]).tolist() for key in ("type", "start", "end"))
    return [
        (names[kind], start, end) for kind, start, end in zip(*columns, strict=True)
    ]


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_decoded(item) for item in value.tolist()]
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value


def _own(name: str, data_dir: str | None) -> Any:
    """Returns the builder of one of our sources, prepared."""
    root = data_root()
    builder = _make_builder(name, data_dir)
    if not is_prepared(builder):
        try:
            builder.download_and_prepare()
        except OSError as error:
            # Another process may have finished the same preparation first.
            builder = _make_builder(name, data_dir)
            if not is_prepared(builder):
                raise DataError(
                    f"{name!r} cannot be prepared in {root} ({error}); set "
                    "TFDS_DATA_DIR to a folder with space that can be written."
                ) from error
    return builder


def _make_builder(name: str, data_dir: str | None) -> Any:
    module = importlib.import_module(f"expkit.datasets.{name}")
    try:
        return module.make_builder(str(data_root()), data_dir)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(name, data_root() / module.FOLDER, error) from error


def _damaged(name: str, folder: Any, error: Exception) -> DataError:
    reason = one_line(error, 200)
    return DataError(
        f"{name!r} cannot be read from {folder} ({reason}); delete that folder and run "
        "again."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars and notices of TFDS off the terminal."""
    # Imported before the redirection: handlers of logs keep the stream they find.
    import tensorflow_datasets  # noqa: F401
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.set_verbosity(verbosity)
