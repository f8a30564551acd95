"""Masked language modelling: arrays from texts, and the loss of a text encoder.

Training draws new masks at every step. Held-out texts get one mask, drawn here from a
fixed key, so that runs, steps and batch sizes can be compared. A mean over a split is
one over its masked positions: weigh the mean of each batch with `num_masked`.
"""

import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expkit import loop, nets, text

Arrays = dict[str, np.ndarray]


def encode_splits(
    vocabulary: text.CharVocabulary,
    texts: Mapping[str, Sequence[str] | np.ndarray],
    *,
    max_length: int,
    mask_rate: float,
) -> dict[str, Arrays]:
    """Encodes the texts of all splits, and masks those that are held out.

    Args:
        vocabulary: of the characters.
        texts: n texts for each split; `"train"` is the one that is not held out.
        max_length: columns; longer texts are cut.
        mask_rate: probability that a character is masked.

    Returns:
        For each split `ids`, int32 [n, max_length], and if it is held out `selected`,
        bool of the same shape: the mask, which depends on nothing but the texts.

    Raises:
        ValueError: if a number is out of range or a held-out mask is empty.
    """
    splits = {}
    for name, rows in texts.items():
        ids, mask = text.encode(vocabulary, rows, max_length=max_length)
        splits[name] = {"ids": ids}
        key = jax.random.key(zlib.crc32(name.encode()))
        _, selected = text.mask_tokens(key, ids, mask, rate=mask_rate)
        if not selected.any():
            raise ValueError(
                f"mask_rate={mask_rate!r} masks none of the {mask.sum()} characters of "
                f"{name}."
            )
        if name != "train":
            splits[name]["selected"] = np.asarray(selected)
    return splits


def num_masked(batch: Arrays) -> float:
    """Counts what the mean loss of a padded batch of held-out texts is taken over.

    Args:
        batch: `selected`, bool [batch, n], and the rows kept, `mask`, bool [batch].

    Returns:
        Number of masked positions in the rows kept.
    """
    return float(batch["selected"][batch["mask"]].sum())


def make_loss(net: nets.Net, mask_rate: float) -> loop.LossFn:
    """Makes the loss of an encoder.

    Args:
        net: maps ids to logits, as `expkit.text_nets.text_encoder`.
        mask_rate: probability that a character is masked in training.

    Returns:
        `(params, batch, key) -> (loss, {"accuracy"})`, both of `masked_cross_entropy`.
        A batch with `selected` keeps that mask; one with a row `mask` leaves rows out.
    """

    def loss_fn(params, batch, key):
        ids = batch["ids"]
        if "selected" in batch:
            selected = batch["selected"]
        else:
            mask_key, key = jax.random.split(key)
            is_token = ids != text.PAD
            _, selected = text.mask_tokens(mask_key, ids, is_token, rate=mask_rate)
        if "mask" in batch:
            selected = selected & batch["mask"][:, None]
        logits = net.apply(params, jnp.where(selected, text.MASK, ids), key)
        loss, accuracy = masked_cross_entropy(logits, ids, selected)
        return loss, {"accuracy": accuracy}

    return loss_fn


def masked_cross_entropy(
    logits: jax.Array, ids: jax.typing.ArrayLike, selected: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and accuracy over the selected positions of a batch.

    Args:
        logits: [batch, n, size].
        ids: the true ids, int [batch, n].
        selected: bool [batch, n]; every position counts the same, whatever its row.

    Returns:
        Two float32 scalars; both are 0 when no position is selected.
    """
    logits, ids = logits.astype(jnp.float32), jnp.asarray(ids)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    hits = logits.argmax(axis=-1) == ids
    where = jnp.asarray(selected)
    count = jnp.maximum(where.sum(), 1)
    return jnp.sum(losses, where=where) / count, jnp.sum(hits, where=where) / count


def with_perplexity(means: dict[str, float]) -> dict[str, float]:
    """Adds the perplexity to the means over a split.

    Args:
        means: at least `loss`.

    Returns:
        The same and `perplexity`, the exponential of `loss`; inf when it overflows.
    """
    with np.errstate(over="ignore"):
        return means | {"perplexity": float(np.exp(np.float64(means["loss"])))}
