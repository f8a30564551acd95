"""Characters as integers, and masked tokens: what pre-training on raw text needs.

A vocabulary is built from the training texts; texts become rows of ids, cut or padded
to one length. Ids 0, 1 and 2 stand for padding, the mask and unknown characters.

The masking is that of BERT with one difference: *every* selected position becomes the
mask id, where BERT leaves 10 % as they are and draws 10 % at random. BERT does so
because the mask does not occur when the model is fine-tuned; here the loss on masked
positions is itself the result, and one kind of corruption makes its perplexity mean one
thing: a character the model has not seen, from its context.

>>> vocabulary = build_vocabulary(["好书", "好店"], min_count=1)
>>> ids, mask = encode(vocabulary, ["好书!"], max_length=4)
>>> ids.tolist(), mask.tolist()
([[3, 4, 2, 0]], [[True, True, True, False]])

References:
    Devlin et al., *BERT*, 2019, section 3.1. https://arxiv.org/abs/1810.04805
"""

import collections
import dataclasses
import functools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

PAD, MASK, UNKNOWN = range(3)
NUM_SPECIAL = 3


@dataclasses.dataclass(frozen=True)
class CharVocabulary:
    """Which id each character has.

    Attributes:
        characters: `characters[i]` has the id `i + 3`.
    """

    characters: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of ids, the three special ones included."""
        return NUM_SPECIAL + len(self.characters)

    @functools.cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of each character."""
        return {c: i for i, c in enumerate(self.characters, start=NUM_SPECIAL)}


def build_vocabulary(
    texts: Iterable[str], *, max_size: int = 4096, min_count: int = 2
) -> CharVocabulary:
    """Collects the characters of texts, the most frequent first.

    Args:
        texts: texts, brought into Unicode form NFKC before they are counted.
        max_size: ids at most, the three special ones included; at least 3.
        min_count: a character that occurs less often is left out; at least 1.

    Returns:
        The vocabulary. Characters of the same count are ordered by code point.

    Raises:
        ValueError: if a number is out of range.
    """
    if max_size < NUM_SPECIAL:
        raise ValueError(f"max_size must be at least {NUM_SPECIAL}, got {max_size!r}.")
    if min_count < 1:
        raise ValueError(f"min_count must be at least 1, got {min_count!r}.")
    counts = collections.Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFKC", text))
    kept = [c for c, count in counts.items() if count >= min_count]
    kept.sort(key=lambda c: (-counts[c], c))
    return CharVocabulary(tuple(kept[: max_size - NUM_SPECIAL]))


def encode(
    vocabulary: CharVocabulary, texts: Sequence[str] | np.ndarray, *, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Turns texts into rows of ids.

    Args:
        vocabulary: other characters become the unknown id.
        texts: n texts; they are brought into form NFKC and cut after `max_length`
            characters. An empty one gives a row of padding.
        max_length: columns, at least 1.

    Returns:
        Ids, int32 [n, max_length], and the mask, bool [n, max_length], False on
        padding. The mask is `ids != 0`.

    Raises:
        ValueError: if `max_length` is less than 1.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length!r}.")
    ids = np.full((len(texts), max_length), PAD, np.int32)
    for row, text in zip(ids, texts, strict=True):
        characters = unicodedata.normalize("NFKC", text)[:max_length]
        row[: len(characters)] = [vocabulary.ids.get(c, UNKNOWN) for c in characters]
    return ids, ids != PAD


def unigram_log_probabilities(
    vocabulary: CharVocabulary, ids: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    r"""Logarithms of the frequencies of ids, with add-one smoothing.

    .. math:: \log p_i = \log \frac{1 + n_i}{\text{size} + \sum_j n_j}.

    As the bias of an output layer they spare a model the steps in which it would learn
    nothing but which characters are frequent.

    Args:
        vocabulary: gives the size.
        ids: int [n, length].
        mask: bool [n, length]; the ids counted.

    Returns:
        float32 [size].
    """
    counts = 1.0 + np.bincount(ids[mask], minlength=vocabulary.size)
    return np.log(counts / counts.sum()).astype(np.float32)


def mask_tokens(
    key: jax.Array,
    ids: jax.typing.ArrayLike,
    mask: jax.typing.ArrayLike,
    *,
    rate: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
    """Hides a random part of the tokens, each on its own with probability `rate`.

    Args:
        key: typed PRNG key.
        ids: int, any shape.
        mask: bool, same shape; False on padding, which is never selected.
        rate: probability, in (0, 1].

    Returns:
        The ids with the mask id at the positions selected, and these positions, bool.

    Raises:
        ValueError: if `rate` is outside (0, 1].
    """
    if isinstance(rate, int | float) and not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must be in (0, 1], got {rate!r}.")
    ids = jnp.asarray(ids)
    selected = jax.random.bernoulli(key, rate, ids.shape) & mask
    return jnp.where(selected, MASK, ids), selected
