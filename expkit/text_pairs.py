"""Pairs of texts and how alike they are: arrays, and two encoders of pairs.

The bi-encoder runs each text through the same encoder and compares two vectors, so that
a text is encoded once however many others it is compared with; the cross-encoder reads
both texts as one sequence, which is the classifier of `expkit.text_classifier`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from expkit import config as config_lib
from expkit import data, finetuning, labelled_texts, nets, text, text_classifier


class Pairs(NamedTuple):
    """A task on pairs of texts.

    Attributes:
        net: a bi-encoder, whose outputs are two vectors of each pair, or a
            cross-encoder.
        splits: `label` float32, and `ids_1` and `ids_2`, or `ids` and `types`.
        params: of the model before the first step.
        values: the labels that occur, in order.
    """

    net: nets.Net
    splits: dict[str, dict[str, np.ndarray]]
    params: nets.Params
    values: np.ndarray


def load_pairs(config: ml_collections.ConfigDict, num_outputs: int = 0) -> Pairs:
    """Loads encoder and data of a config.

    Args:
        config: see `configs/cosent/api_docs_pairs.py`. `model` is `feature`, a
            bi-encoder, or `interaction`, a cross-encoder.
        num_outputs: width of the dense layer on top; 0 is as many as there are values
            of the label.

    Returns:
        The task.

    Raises:
        ValueError: if a field has a value that cannot be used.
    """
    make_net, encode, num_texts = config_lib.choose("model", config.model, MODELS)
    if len(config.text_columns) != 2:
        raise ValueError(f"text_columns must be two, got {config.text_columns!r}.")
    splits = data.load_splits(config)
    sizes, encoder = finetuning.load_encoder(config)
    tokenizer = text.load_tokenizer(config.encoder)
    finetuning.check_sizes(config, sizes, tokenizer, num_texts)
    arrays = {k: encode(config, tokenizer, rows, k) for k, rows in splits.items()}
    for rows in arrays.values():
        rows["label"] = rows["label"].astype(np.float32)
    kept, _ = labelled_texts.choose_labelled(
        arrays["train"]["label"], config.num_labels, config.seed
    )
    arrays["train"] = {k: v[kept] for k, v in arrays["train"].items()}
    values = np.unique(arrays["train"]["label"])
    if len(values) < 2:
        raise ValueError(
            f"all training rows of {config.dataset!r} have the label {values[0]}: "
            "there is nothing to rank."
        )
    if config.batch_size > len(kept):
        raise ValueError(
            f"batch_size must be at most {len(kept)}, the training rows with a label, "
            f"got {config.batch_size!r}."
        )
    net = make_net(
        sizes,
        tokenizer.pad_id,
        num_outputs or len(values),
        encoder,
        dropout=config.dropout,
    )
    return Pairs(net, arrays, net.init(jax.random.key(config.seed)), values)


def encode_apart(
    config: ml_collections.ConfigDict,
    tokenizer: text.Tokenizer,
    rows: Mapping[str, np.ndarray],
    split: str,
) -> dict[str, np.ndarray]:
    """Turns each of the two texts of a row into ids of its own.

    Args:
        config: has `text_columns`, `label_column` and `max_length`, of one text.
        tokenizer: of the encoder.
        rows: columns of the split.
        split: its name, for messages.

    Returns:
        `ids_1`, `ids_2` and `label`.

    Raises:
        ValueError: as `labelled_texts.encode_rows`.
    """
    one = config.copy_and_resolve_references()

    def encode(column):
        one.text_columns = (column,)
        return labelled_texts.encode_rows(one, tokenizer, rows, split)

    first, second = map(encode, config.text_columns)
    return {"ids_1": first["ids"], "ids_2": second["ids"], "label": first["label"]}


def bi_encoder(
    sizes: text.EncoderConfig,
    pad_id: int,
    num_outputs: int,
    encoder: nets.Params,
    *,
    dropout: float,
) -> nets.Net:
    """One encoder for both texts of a pair, and the mean of its last hidden states.

    Args:
        sizes: of the encoder.
        pad_id: id of the padding, which is masked.
        num_outputs: width of the dense layer in `params["head"]`, which takes three
            times the width of the encoder, for losses that classify a pair.
        encoder: initial parameters of the encoder.
        dropout: not used: the encoder has its own.

    Returns:
        The network. Its inputs are `ids_1` and `ids_2` [batch, n], its outputs
        [2, batch, width].
    """
    del dropout

    def init(key):
        shape = (3 * sizes.hidden_size, num_outputs)
        weights = 0.02 * jax.random.normal(key, shape)
        head = {"w": weights, "b": jnp.zeros(num_outputs)}
        copied = jax.tree.map(lambda x: jnp.array(x, copy=True), encoder)
        return {"encoder": copied, "head": head}

    def apply(params, x: Mapping[str, Any], key=None):
        ids = jnp.concatenate([x["ids_1"], x["ids_2"]])
        mask = ids != pad_id
        hidden = text.apply_encoder(sizes, params["encoder"], ids, mask, key=key)
        mean = text.mean_pool(hidden, mask)
        return mean.reshape(2, len(ids) // 2, mean.shape[-1])

    return nets.Net(init, apply)


# By name: the model, how its inputs are made, and how many texts a sequence holds.
MODELS = {
    "feature": (bi_encoder, encode_apart, 1),
    "interaction": (text_classifier.classifier, labelled_texts.encode_rows, 2),
}
