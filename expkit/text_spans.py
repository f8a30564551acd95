"""Texts with spans, as a config names them: windows, true spans, and the encoder."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from expkit import data, finetuning, labelled_spans, labelled_texts, nets, text
from expkit.datasets import errors
from expkit.labelled_spans import Span, SpanRows

EVALUATION_ROWS = 32


class Split(NamedTuple):
    """The texts of a split.

    Attributes:
        texts: the strings.
        spans: the true spans of each text, with those that no window holds.
        rows: the windows.
    """

    texts: list[str]
    spans: list[set[Span]]
    rows: SpanRows


@dataclasses.dataclass(frozen=True)
class SpanTexts:
    """A task on texts with spans.

    Attributes:
        splits: texts and windows of each split.
        types: names of the types that occur in the training texts.
        sizes: of the encoder.
        encoder: its parameters.
        pad_id: id of the padding.
    """

    splits: dict[str, Split]
    types: tuple[str, ...]
    sizes: text.EncoderConfig
    encoder: nets.Params
    pad_id: int

    def arrays(self, split: str) -> dict[str, np.ndarray]:
        """The windows of a split, as batches take them.

        Args:
            split: its name.

        Returns:
            `ids` [w, n], `spans` int32 [w, k, 3], padded by -1, and `is_token` bool
            [w, n], False on special tokens and padding.
        """
        rows = self.splits[split].rows
        is_token = rows.offsets[..., 0] >= 0
        return {"ids": rows.ids, "spans": rows.labels, "is_token": is_token}


def load_spans(config: ml_collections.ConfigDict) -> SpanTexts:
    """Loads encoder and data of a config.

    Args:
        config: see `configs/gp_kl/news_entities.py`. Types are those of the training
            texts; spans of others are left out of the windows, not of the true spans.

    Returns:
        The task.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    tables = data.load_splits(config)
    for column in (config.text_column, config.span_column):
        if column not in tables["train"]:
            found = errors.listed(tables["train"])
            raise ValueError(
                f"{config.dataset!r} has the columns {found}, not {column!r}: "
                "set text_column and span_column."
            )
    for table in tables.values():
        texts, source = table[config.text_column], config.dataset
        labelled_texts.require_texts(texts, config.text_column, source)
        _require_spans(table[config.span_column], config.span_column, source)
    sizes, encoder = finetuning.load_encoder(config)
    tokenizer = text.load_tokenizer(config.encoder)
    finetuning.check_sizes(config, sizes, tokenizer, num_texts=1)
    tables["train"] = _choose(tables["train"], config.num_labels, config.seed)
    types = labelled_spans.span_types(tables["train"][config.span_column])
    splits = {}
    for name, table in tables.items():
        texts = list(table[config.text_column])
        spans = [set(map(tuple, found)) for found in table[config.span_column]]
        known = [[span for span in sorted(s) if span[0] in types] for s in spans]
        rows = labelled_spans.encode_spans(
            tokenizer, texts, known, types, max_length=config.max_length
        )
        splits[name] = Split(texts, spans, rows)
    num_windows = len(splits["train"].rows.ids)
    if config.batch_size > num_windows:
        raise ValueError(
            f"batch_size must be at most {num_windows}, the windows of the training "
            f"texts, got {config.batch_size!r}."
        )
    return SpanTexts(splits, types, sizes, encoder, tokenizer.pad_id)


def tagger(
    spans: SpanTexts,
    head_init: Callable[[jax.Array], nets.Params],
    head_apply: Callable[[nets.Params, jax.Array, jax.Array], jax.Array],
) -> nets.Net:
    """The encoder with a head on its last hidden states.

    Args:
        spans: has the encoder.
        head_init: `key -> params`.
        head_apply: `(params, hidden [batch, n, width], is_token) -> outputs`.

    Returns:
        The network. Inputs are those of `inputs`, and optionally `offset` [batch, n,
        width], which is added to the embeddings; parameters `encoder` and `head`.
    """

    def init(key):
        copied = jax.tree.map(lambda x: jnp.array(x, copy=True), spans.encoder)
        return {"encoder": copied, "head": head_init(key)}

    def apply(params, x, key=None):
        hidden = text.apply_encoder(
            spans.sizes,
            params["encoder"],
            x["ids"],
            x["ids"] != spans.pad_id,
            offset=x.get("offset"),
            key=key,
        )
        return head_apply(params["head"], hidden, x["is_token"])

    return nets.Net(init, apply)


def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a batch that a tagger takes.

    Args:
        batch: as `SpanTexts.arrays`.

    Returns:
        `ids` and `is_token`.
    """
    return {name: batch[name] for name in ("ids", "is_token")}


def dense_labels(
    spans: jax.typing.ArrayLike, scores: jax.typing.ArrayLike
) -> jax.Array:
    """Spans as a table of cells.

    Args:
        spans: int [batch, k, 3], as `SpanTexts.arrays`.
        scores: of the cells [batch, types, n, n]; only its shape counts.

    Returns:
        Bool of the shape of `scores`, True at (type, first, last).
    """
    shape = jnp.shape(scores)
    kind, first, last = jnp.moveaxis(jnp.asarray(spans), -1, 0)
    kind = jnp.where(kind < 0, shape[1], kind)  # padding, out of bounds: dropped
    rows = jnp.arange(shape[0])[:, None]
    empty = jnp.zeros(shape, bool)
    return empty.at[rows, kind, first, last].set(True, mode="drop")


def listed(spans: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """The spans of each window, without their padding.

    Args:
        spans: int [w, k, 3], as `SpanTexts.arrays`.

    Returns:
        (index of the type, first token, last token) of each.
    """
    return [
        [(kind, first, last) for kind, first, last in rows if kind >= 0]
        for rows in spans.tolist()
    ]


def find_spans(
    score: Callable[[Mapping[str, np.ndarray]], jax.Array],
    decode: Callable[[np.ndarray], Iterable[tuple[int, int, int]]],
    arrays: Mapping[str, np.ndarray],
    rows: SpanRows,
) -> list[set[Span]]:
    """Finds spans in windows, in batches of one shape.

    Args:
        score: outputs of a batch.
        decode: (index of the type, first token, last token) from the outputs of a row.
        arrays: the windows.
        rows: the same windows.

    Returns:
        Spans in characters, a set for each text.
    """
    size = min(EVALUATION_ROWS, len(rows.ids))
    batches = data.Batches(arrays, size, seed=None, remainder="pad")
    found = [
        spans for batch in batches for spans in map(decode, np.asarray(score(batch)))
    ]
    return labelled_spans.to_characters(rows, found[: len(rows.ids)])


def _require_spans(values: Iterable[Any], column: str, source: str) -> None:
    """Checks that each is a list of (type, start, end)."""
    for value in values:
        spans = value if isinstance(value, (list, tuple)) else [value]
        for span in spans:
            if not isinstance(span, (list, tuple)) or len(span) != 3:
                raise ValueError(
                    f"column {column!r} of {source!r} holds {value!r:.60}, which is "
                    "no list of spans (type, start, end): name another."
                )


def _choose(table, num_rows: int, seed: int):
    """Draws rows of a table; 0 is all."""
    count = len(next(iter(table.values())))
    if not 0 <= num_rows <= count:
        raise ValueError(f"num_labels must be in 0..{count}, got {num_rows!r}.")
    if num_rows == 0:
        return table
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:num_rows])
    return {name: np.asarray(column)[drawn] for name, column in table.items()}
