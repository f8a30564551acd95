"""A classifier, or a regression, of texts on top of an encoder.

The model is the encoder, the mean of its last hidden states over the tokens, dropout
and a dense layer. Its parameters are `{"encoder": ..., "head": ...}`; its input is a
dict with `ids` [batch, n], `types` [batch, n] if texts come in pairs, and optionally
`offset` [batch, n, width], which is added to the embeddings of the tokens: what
penalties and perturbations of inputs differentiate.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from expkit import loop, nets, text

Inputs = Mapping[str, jax.Array]
INPUTS = ("ids", "types")


def classifier(
    sizes: text.EncoderConfig,
    pad_id: int,
    num_outputs: int,
    encoder: nets.Params,
    *,
    dropout: float,
) -> nets.Net:
    """An encoder, the mean of its last states over the tokens, and a dense layer.

    Args:
        sizes: of the encoder.
        pad_id: id of the padding, which is masked.
        num_outputs: width of the dense layer.
        encoder: initial parameters of the encoder.
        dropout: probability of dropping a unit of the mean.

    Returns:
        The network; `init` copies the encoder and draws the dense layer.
    """
    drop = nnx.Dropout(dropout)

    def init(key):
        shape = (sizes.hidden_size, num_outputs)
        head = {
            "kernel": 0.02 * jax.random.normal(key, shape),
            "bias": jnp.zeros(num_outputs),
        }
        copied = jax.tree.map(lambda x: jnp.array(x, copy=True), encoder)
        return {"encoder": copied, "head": head}

    def apply(params, x: Inputs, key=None):
        mask = x["ids"] != pad_id
        encoder_key, head_key = (None, None) if key is None else jax.random.split(key)
        hidden = text.apply_encoder(
            sizes,
            params["encoder"],
            x["ids"],
            mask,
            token_type_ids=x.get("types"),
            offset=x.get("offset"),
            key=encoder_key,
        )
        mean = text.mean_pool(hidden, mask)
        mean = drop(mean, deterministic=key is None, rngs=head_key)
        return mean @ params["head"]["kernel"] + params["head"]["bias"][None]

    return nets.Net(init, apply)


def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a batch that the model takes.

    Args:
        batch: has the names in `INPUTS` and others.

    Returns:
        The arrays in `INPUTS` that are there.
    """
    return {name: batch[name] for name in INPUTS if name in batch}


def classification_loss(net: nets.Net) -> loop.LossFn:
    """Mean cross-entropy and accuracy; a batch with a row `mask` leaves rows out.

    Args:
        net: of `classifier`.

    Returns:
        `(params, batch, key) -> (loss, figures)`.
    """

    def loss_fn(params, batch, key):
        logits = net.apply(params, inputs(batch), key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        hits = logits.argmax(axis=-1) == batch["label"]
        where = batch.get("mask")
        return losses.mean(where=where), {"accuracy": hits.mean(where=where)}

    return loss_fn


def regression_loss(net: nets.Net) -> loop.LossFn:
    """Mean squared error; a batch with a row `mask` leaves rows out.

    Args:
        net: of `classifier`.

    Returns:
        `(params, batch, key) -> (loss, figures)`.
    """

    def loss_fn(params, batch, key):
        errors = net.apply(params, inputs(batch), key)[:, 0] - batch["label"]
        return jnp.square(errors).mean(where=batch.get("mask")), {}

    return loss_fn
