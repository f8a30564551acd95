"""Texts as rows of token ids, for the encoder they were made for.

>>> tokenizer = load_tokenizer()  # expkit.text.tokenizer_files
>>> ids, mask = tokenizer.encode(["A sentence.", ""], max_length=128)
>>> ids.shape, mask.sum(axis=1).tolist()
((2, 32), [5, 2])

The rules are those of the file, applied by the library `tokenizers`; padding and
truncation stored in the file are not. Rows are padded to one of a few lengths, so that
a jitted function of them is compiled a few times and no more.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LENGTHS = (32, 64, 128, 256, 512)


class Tokens(NamedTuple):
    """The tokens of a text without special ones in front and behind.

    Attributes:
        ids: of the tokens.
        offsets: where each stands in the text, as (start, stop) in characters.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Which ids a text has.

    Attributes:
        backend: `tokenizers.Tokenizer` without padding and truncation.
        pad_id: id of padding.
    """

    backend: Any
    pad_id: int

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def num_special(self) -> int:
        """How many special tokens a row has whatever its text."""
        return self.backend.num_special_tokens_to_add(False)

    @functools.cached_property
    def special_ids(self) -> tuple[list[int], list[int]]:
        """The special ids in front of a text and those behind it."""
        (encoding,) = self._without_special(["a"])
        num_tokens = len(encoding.ids)
        ids = self.backend.post_process(encoding)
        first = [*ids.special_tokens_mask, 0].index(0)
        return ids.ids[:first], ids.ids[first + num_tokens :]

    def encode(
        self,
        texts: Sequence[str] | np.ndarray,
        *,
        max_length: int,
        lengths: Sequence[int] | None = LENGTHS,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turns texts into rows of ids.

        Args:
            texts: n strings. An empty one gives the special tokens alone, or a row of
                padding where there are none. Halves of surrogate pairs count as U+FFFD.
            max_length: tokens of a row at most. Longer rows lose tokens at their end,
                but keep the closing special token.
            lengths: lengths that rows may be padded to. The least that holds the
                longest row is taken, `max_length` where none below it does. None pads
                to `max_length`.

        Returns:
            Ids, int32 [n, length], and the mask, bool [n, length], False on padding.

        Raises:
            TypeError: if `texts` is one string, or holds something else than strings.
            ValueError: if `max_length` leaves no place for the special tokens, or a
                length is less than 1.
        """
        rows = self.token_ids(texts, max_length=max_length)
        longest = max(map(len, rows), default=0)
        length = static_length(longest, max_length, lengths)
        ids = np.full((len(rows), length), self.pad_id, np.int32)
        mask = np.zeros(ids.shape, bool)
        for row, row_mask, tokens in zip(ids, mask, rows, strict=True):
            row[: len(tokens)] = tokens
            row_mask[: len(tokens)] = True
        return ids, mask

    def encode_pairs(
        self,
        first: Sequence[str] | np.ndarray,
        second: Sequence[str] | np.ndarray,
        *,
        max_length: int,
        lengths: Sequence[int] | None = LENGTHS,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turns pairs of texts into rows of ids, one after the other.

        Args:
            first: n strings.
            second: n strings.
            max_length: tokens of a row at most. Of rows that are longer, the longer
                text loses tokens at its end until both are equally long, then both do;
                an odd token is left to the longer one, or to the second of two equals.
            lengths: as for `encode`.

        Returns:
            Ids, int32 [n, length], the mask, bool of the same shape, and the kind of
            each token, int32: 0 in the first text and on padding, 1 in the second.

        Raises:
            TypeError: as `encode`.
            ValueError: as `encode`, or if the numbers of texts differ.
        """
        if len(first) != len(second):
            raise ValueError(f"got {len(first)} first texts and {len(second)} second.")
        room = max_length - self.backend.num_special_tokens_to_add(True)
        if room < 2:
            raise ValueError(f"max_length={max_length!r} has no room for two texts.")
        rows = []
        for pair in zip(*map(self._without_special, (first, second)), strict=True):
            kept = _longest_first(len(pair[0].ids), len(pair[1].ids), room)
            for encoding, length in zip(pair, kept, strict=True):
                encoding.truncate(length)
            row = self.backend.post_process(*pair)
            kinds = row.type_ids
            if self.backend.post_processor is None:  # the library then has zeros alone
                kinds = np.repeat([0, 1], kept)
            rows.append((row.ids, kinds))
        longest = max((len(row) for row, _ in rows), default=0)
        shape = (len(rows), static_length(longest, max_length, lengths))
        ids = np.full(shape, self.pad_id, np.int32)
        mask, types = np.zeros(shape, bool), np.zeros(shape, np.int32)
        for i, (row, kinds) in enumerate(rows):
            n = len(row)
            ids[i, :n], types[i, :n], mask[i, :n] = row, kinds, True
        return ids, mask, types

    def _without_special(self, texts):
        return self.backend.encode_batch(_strings(texts), add_special_tokens=False)

    def tokens(self, texts: Sequence[str] | np.ndarray) -> list[Tokens]:
        """Turns texts into tokens that know their places.

        A token that the rules changed stands where the characters do that it was made
        of; of one character made into several tokens all have its place. A combining
        mark that the rules strip or join belongs to the token before it.

        Args:
            texts: as for `encode`.

        Returns:
            The tokens of each text, all of them.

        Raises:
            TypeError: as `encode`.
        """
        strings = _strings(texts)
        encodings = self._without_special(strings)
        return [
            Tokens(encoding.ids, _with_marks(text, encoding.offsets))
            for text, encoding in zip(strings, encodings, strict=True)
        ]

    def token_ids(
        self, texts: Sequence[str] | np.ndarray, *, max_length: int
    ) -> list[list[int]]:
        """Turns texts into lists of ids, each as long as its text.

        Args:
            texts: as for `encode`.
            max_length: as for `encode`.

        Returns:
            One list a text.

        Raises:
            TypeError: as `encode`.
            ValueError: as `encode`.
        """
        least = max(1, self.num_special)
        if max_length < least:
            raise ValueError(
                f"max_length must be at least {least}, which the special tokens take, "
                f"got {max_length!r}."
            )
        rows = []
        for encoding in self._without_special(texts):
            encoding.truncate(max_length - self.num_special)
            rows.append(self.backend.post_process(encoding).ids)
        return rows


def _with_marks(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Lets tokens end after the combining marks that no token covers."""
    if not any(map(unicodedata.combining, text)):
        return offsets
    starts = [start for start, _ in offsets[1:]] + [len(text)]
    grown = []
    for (start, stop), limit in zip(offsets, starts, strict=True):
        while stop < limit and unicodedata.combining(text[stop]):
            stop += 1
        grown.append((start, stop))
    return grown


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths after the longer of two texts has lost tokens until both fit."""
    if first + second <= room:
        return first, second
    if first <= room // 2:
        return first, room - first
    if second <= room // 2:
        return room - second, second
    # The token that cannot be shared goes to the longer one, or to the second.
    longer, shorter = room - room // 2, room // 2
    return (longer, shorter) if first > second else (shorter, longer)


def static_length(longest: int, max_length: int, lengths: Sequence[int] | None) -> int:
    """The length that rows are padded to.

    Args:
        longest: tokens of the longest row.
        max_length: at least `longest`.
        lengths: lengths to choose from, each at least 1; None leaves `max_length`.

    Returns:
        The least of `lengths` that is at least `longest`, at most `max_length`.

    Raises:
        ValueError: if a length is less than 1.
    """
    lengths = () if lengths is None else lengths
    for length in lengths:
        if length < 1:
            raise ValueError(f"lengths must be at least 1, got {length!r}.")
    return min([n for n in lengths if longest <= n < max_length], default=max_length)


def _strings(texts: Any) -> list[str]:
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts must be a list of strings, got one: {texts!r:.60}.")
    strings = []
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {text!r:.60}; decode bytes.")
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        strings.append(str(text))
    return strings
