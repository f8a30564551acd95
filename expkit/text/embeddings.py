"""Sentences as vectors: the mean of an encoder's last hidden states, of unit length.

>>> vectors = sentence_embeddings(["A cat sat.", "A cat was sitting.", "Tax law."])
>>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
((3, 384), True)

References:
    Reimers and Gurevych, *Sentence-BERT*, 2019, section 3.
    https://arxiv.org/abs/1908.10084
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from expkit import nets
from expkit.text import folders
from expkit.text.encoder import EncoderConfig, apply_encoder
from expkit.text.tokenizer import LENGTHS, Tokenizer, static_length
from expkit.text.tokenizer_files import load_tokenizer
from expkit.text.weights import WEIGHTS, load_encoder


def mean_pool(hidden: jax.typing.ArrayLike, mask: jax.typing.ArrayLike) -> jax.Array:
    r"""Mean of the hidden states of the tokens that are not padding.

    .. math:: \frac{\sum_i m_i h_i}{\max(1, \sum_i m_i)}.

    Args:
        hidden: [..., n, d]. What stands at padding has no influence.
        mask: bool or int [..., n]; 0 on padding. A row of padding alone gives zeros.

    Returns:
        [..., d], float32 or wider.

    Raises:
        ValueError: if the shapes differ.

    References:
        Reimers and Gurevych, *Sentence-BERT*, 2019, section 3.
        https://arxiv.org/abs/1908.10084
    """
    hidden, mask = jnp.asarray(hidden), jnp.asarray(mask) != 0
    if hidden.shape[:-1] != mask.shape:
        raise ValueError(
            f"hidden must be [..., n, d] and mask [..., n], got {hidden.shape} and "
            f"{mask.shape}."
        )
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    kept = jnp.where(mask[..., None], hidden.astype(dtype), 0)
    count = jnp.sum(mask, axis=-1, dtype=dtype, keepdims=True)
    return jnp.sum(kept, axis=-2) / jnp.maximum(count, 1)


def sentence_embeddings(
    sentences: Sequence[str] | np.ndarray,
    *,
    max_length: int = 128,
    encoder: str | os.PathLike | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Embeds sentences with a pretrained encoder.

    Sentences of like length run together, padded to one of a few lengths; the batch
    that is left over is padded to a power of two. So there are at most as many
    compilations a call as there are lengths up to `max_length`, and one more.

    Args:
        sentences: n strings; an empty one is allowed.
        max_length: tokens of a sentence at most, the rest is cut off.
        encoder: a folder or a name, as for `load_encoder`; None is the packaged MiniLM.
            It is read once and kept until its files change.
        batch_size: sentences that run together, at least 1.

    Returns:
        float32 [n, d], each row of norm 1; of a sentence without any token, zeros.

    Raises:
        TypeError: if `sentences` is one string, or holds something else than strings.
        ValueError: if a number is out of range, or the encoder cannot be read.

    References:
        Reimers and Gurevych, *Sentence-BERT*, 2019, section 3.
        https://arxiv.org/abs/1908.10084
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    folder = folders.find_folder(encoder).resolve()
    config, params, tokenizer = _load(folder, _changed(folder))
    if max_length > config.max_positions:
        raise ValueError(
            f"max_length must be at most {config.max_positions}, the positions of the "
            f"encoder, got {max_length!r}."
        )
    rows = tokenizer.token_ids(sentences, max_length=max_length)
    # The longest first, so that the batch left over is the cheapest.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    out = np.empty((len(rows), config.hidden_size), np.float32)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        size = min(batch_size, 1 << (len(chosen) - 1).bit_length())
        length = static_length(len(rows[chosen[0]]), max_length, LENGTHS)
        ids = np.full((size, length), tokenizer.pad_id, np.int32)
        mask = np.zeros((size, length), bool)
        for j, i in enumerate(chosen):
            ids[j, : len(rows[i])] = rows[i]
            mask[j, : len(rows[i])] = True
        # Accelerators multiply float32 in fewer bits unless told otherwise.
        with jax.default_matmul_precision("highest"):
            out[chosen] = _embed(config, params, ids, mask)[: len(chosen)]
    return out


def _changed(folder: Path) -> tuple[float, ...]:
    """When the files of an encoder were written."""
    names = ("config.json", WEIGHTS, "tokenizer.json", "vocab.txt")
    return tuple(
        (folder / name).stat().st_mtime_ns for name in names if (folder / name).exists()
    )


@functools.lru_cache(maxsize=4)
def _load(
    folder: Path, changed: tuple[float, ...]
) -> tuple[EncoderConfig, nets.Params, Tokenizer]:
    del changed  # only tells files of one path apart
    config, params = load_encoder(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} ids and the encoder "
            f"{config.vocab_size} embeddings: take both from one model."
        )
    return config, params, tokenizer


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    config: EncoderConfig, params: nets.Params, ids: jax.Array, mask: jax.Array
) -> jax.Array:
    pooled = mean_pool(apply_encoder(config, params, ids, mask), mask)
    squares = jnp.sum(pooled**2, axis=-1, keepdims=True)
    return pooled / jnp.sqrt(jnp.where(squares > 0, squares, 1))
