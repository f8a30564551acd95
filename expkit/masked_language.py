"""Masked language modelling: arrays from texts, and the loss of a text encoder.

Training draws new masks at every step, and computes logits only where they are.
Held-out texts get one mask, drawn here from a fixed key, so that runs, steps and batch
sizes can be compared. A mean over a split is one over its masked positions: weigh the
mean of each batch with `num_masked`.
"""

import math
import unicodedata
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expkit import loop, nets, text

Arrays = dict[str, np.ndarray]
Texts = Sequence[str] | np.ndarray


def pack(texts: Texts, max_length: int) -> list[str]:
    """Joins texts by line feeds and cuts what results into rows of one length.

    No text is cut short and no row but the last is padded. Neighbours in a row have
    nothing to do with each other, so the texts are put into a random order first.

    Args:
        texts: n texts; the order drawn depends on nothing but their number.
        max_length: characters of a row.

    Returns:
        The rows.
    """
    order = np.random.default_rng(0).permutation(len(texts))
    joined = "\n".join(unicodedata.normalize("NFKC", texts[i]) for i in order)
    return [joined[i : i + max_length] for i in range(0, len(joined), max_length)]


def encode_splits(
    vocabulary: text.CharVocabulary,
    texts: Mapping[str, Texts],
    *,
    max_length: int,
    mask_rate: float,
    is_packed: bool = False,
) -> dict[str, Arrays]:
    """Encodes the texts of all splits, and masks those that are held out.

    Args:
        vocabulary: of the characters.
        texts: n texts for each split; `"train"` is the one that is not held out.
        max_length: columns; longer texts are cut.
        mask_rate: probability that a character is masked.
        is_packed: whether `pack` makes the rows, where else every text is one.

    Returns:
        For each split `ids`, int32 [n, max_length], and if it is held out `selected`,
        bool of the same shape: the mask, which depends on nothing but the texts.

    Raises:
        ValueError: if a number is out of range or a held-out mask is empty.
    """
    splits = {}
    for name, rows in texts.items():
        rows = pack(rows, max_length) if is_packed else rows
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
        net: maps ids, or ids and the positions of interest, to logits, as
            `expkit.text_nets.text_encoder`.
        mask_rate: probability that a character is masked in training.

    Returns:
        `(params, batch, key) -> (loss, {"accuracy"})`, both of `masked_cross_entropy`.
        A batch with `selected` keeps that mask; one with a row `mask` leaves rows out.
    """

    def loss_fn(params, batch, key):
        ids, positions = batch["ids"], None
        if "selected" in batch:
            selected = batch["selected"]
        else:
            mask_key, key = jax.random.split(key)
            is_token = ids != text.PAD
            _, selected = text.mask_tokens(mask_key, ids, is_token, rate=mask_rate)
            selected, positions = first_selected(
                selected, max_selected(ids.shape[1], mask_rate)
            )
        if "mask" in batch:
            selected = selected & batch["mask"][:, None]
        masked = jnp.where(selected, text.MASK, ids)
        if positions is None:
            logits = net.apply(params, masked, key)
        else:
            logits = net.apply(params, (masked, positions), key)
            ids, selected = (
                jnp.take_along_axis(x, positions, axis=1) for x in (ids, selected)
            )
        loss, accuracy = masked_cross_entropy(logits, ids, selected)
        return loss, {"accuracy": accuracy}

    return loss_fn


def max_selected(length: int, rate: float) -> int:
    """A bound on the masked positions of a row: one in 30,000 rows has more.

    Args:
        length: tokens of a row.
        rate: probability that one is masked.

    Returns:
        The mean and four standard deviations, at most `length`.
    """
    deviation = (length * rate * (1 - rate)) ** 0.5
    return min(length, math.ceil(length * rate + 4 * deviation))


def first_selected(selected: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Keeps the first positions selected, so that logits are needed nowhere else.

    Args:
        selected: bool [batch, n].
        count: how many of a row to keep at most.

    Returns:
        The selection, and int32 positions [batch, count] that contain it; a row with
        fewer is filled with others.
    """
    selected = selected & (jnp.cumsum(selected, axis=1) <= count)
    return selected, jnp.argsort(~selected, axis=1)[:, :count]


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
