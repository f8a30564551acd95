"""The classifier on an encoder against numpy: pooling, head, offsets, losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from random_encoder import random_params

from expkit import text, text_classifier

SIZES = text.EncoderConfig(
    12, 8, 1, 2, 16, 10, hidden_dropout=0.0, attention_dropout=0.0
)
RUN = jax.jit(text.apply_encoder, static_argnums=0)
IDS = jnp.array([[3, 4, 5, 0], [6, 0, 0, 0], [7, 8, 0, 0]], jnp.int32)


@pytest.fixture(scope="module")
def encoder():
    return random_params(SIZES)


# By their arguments: a network that is made twice is compiled once.
NETS = {}


def make_net(encoder, num_outputs=3, dropout=0.0):
    sizes = num_outputs, dropout
    if sizes not in NETS:
        net = text_classifier.classifier(
            SIZES, 0, num_outputs, encoder, dropout=dropout
        )
        NETS[sizes] = net._replace(apply=jax.jit(net.apply))
    return NETS[sizes]


def random_head(net):
    params = net.init(jax.random.key(1))
    rng = np.random.default_rng(0)
    head = {k: jnp.asarray(rng.normal(size=x.shape)) for k, x in params["head"].items()}
    return {**params, "head": jax.tree.map(lambda x: x.astype(jnp.float32), head)}


def test_logits_are_the_head_on_the_mean_over_the_tokens(encoder):
    net = make_net(encoder)
    params = random_head(net)
    hidden = np.asarray(RUN(SIZES, encoder, IDS, IDS > 0), float)
    means = [h[:n].mean(axis=0) for h, n in zip(hidden, (3, 1, 2), strict=True)]
    head = jax.tree.map(lambda x: np.asarray(x, float), params["head"])
    expected = np.stack(means) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(net.apply(params, {"ids": IDS}), expected, atol=1e-5)


def test_a_row_does_not_depend_on_its_padding_or_its_neighbours(encoder):
    net = make_net(encoder)
    params = random_head(net)
    whole = net.apply(params, {"ids": IDS})
    for row, logits in zip(IDS, whole, strict=True):
        alone = net.apply(params, {"ids": row[row > 0][None]})
        np.testing.assert_allclose(alone[0], logits, atol=1e-5)


def test_a_row_of_padding_gives_the_bias(encoder):
    net = make_net(encoder)
    params = random_head(net)
    logits = net.apply(params, {"ids": jnp.zeros((1, 4), jnp.int32)})
    np.testing.assert_array_equal(logits[0], params["head"]["bias"])


def test_kinds_of_tokens_reach_the_encoder(encoder):
    net = make_net(encoder)
    params = random_head(net)
    plain = net.apply(params, {"ids": IDS})
    zeros = net.apply(params, {"ids": IDS, "types": jnp.zeros_like(IDS)})
    np.testing.assert_array_equal(plain, zeros)
    ones = net.apply(params, {"ids": IDS, "types": jnp.ones_like(IDS)})
    table = encoder["embeddings"]["token_type"]
    swapped = {**encoder["embeddings"], "token_type": table[::-1]}
    other = {**params, "encoder": {**encoder, "embeddings": swapped}}
    np.testing.assert_allclose(ones, net.apply(other, {"ids": IDS}), atol=1e-6)
    assert np.abs(ones - plain).max() > 1e-2


def test_an_offset_is_added_to_the_embeddings(encoder):
    net = make_net(encoder)
    params = random_head(net)
    table = encoder["embeddings"]["word"]
    others = jnp.where(IDS > 0, 11 - IDS, 0)
    offset = table[others] - table[IDS]
    moved = net.apply(params, {"ids": IDS, "offset": offset})
    np.testing.assert_allclose(moved, net.apply(params, {"ids": others}), atol=1e-5)
    gradient = jax.jit(
        jax.grad(lambda o: net.apply(params, {"ids": IDS, "offset": o})[:, 0].sum())
    )(jnp.zeros_like(offset))
    is_moved = np.abs(gradient).max(axis=-1) > 0
    np.testing.assert_array_equal(is_moved, IDS > 0)


def test_the_first_parameters_are_the_encoder_and_a_small_random_head(encoder):
    net = make_net(encoder, num_outputs=2000)
    first, again, other = (net.init(jax.random.key(seed)) for seed in (0, 0, 1))
    for params in (first, other):
        jax.tree.map(np.testing.assert_array_equal, params["encoder"], encoder)
        assert not params["head"]["bias"].any()
    leaves = zip(
        jax.tree.leaves(first["encoder"]), jax.tree.leaves(encoder), strict=True
    )
    assert all(a is not b for a, b in leaves)  # a step may write over its input
    np.testing.assert_array_equal(first["head"]["kernel"], again["head"]["kernel"])
    kernel = np.asarray(first["head"]["kernel"], float)
    assert (kernel != other["head"]["kernel"]).mean() > 0.99
    error = 4 * 0.02 / np.sqrt(2 * kernel.size)
    assert kernel.std() == pytest.approx(0.02, abs=error)


def test_dropout_falls_on_the_mean_and_only_with_a_key(encoder):
    net = make_net(encoder, dropout=0.5)
    params = random_head(net)
    x = {"ids": IDS}
    mean = text.mean_pool(RUN(SIZES, encoder, IDS, IDS > 0), IDS > 0)
    identity = {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}
    dropped = net.apply({**params, "head": identity}, x, jax.random.key(3))
    is_kept = np.asarray(dropped) != 0
    assert 0 < is_kept.sum() < is_kept.size
    np.testing.assert_allclose(dropped, np.where(is_kept, 2 * mean, 0), rtol=1e-4)
    first, again, other = (net.apply(params, x, jax.random.key(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    plain = net.apply(params, x)
    np.testing.assert_array_equal(plain, make_net(encoder).apply(params, x))


def test_only_what_the_model_takes_is_its_input():
    batch = {"ids": 1, "types": 2, "label": 3, "mask": 4, "unlabelled_ids": 5}
    assert text_classifier.inputs(batch) == {"ids": 1, "types": 2}
    assert text_classifier.inputs({"ids": 1, "label": 3}) == {"ids": 1}


@pytest.mark.parametrize("mask", [None, [True, False, True]])
def test_losses_are_means_over_the_rows_kept(encoder, mask):
    labels, scores = np.array([2, 0, 1]), np.array([0.5, -3.0, 2.0], np.float32)
    kept = np.ones(3, bool) if mask is None else np.array(mask)
    extra = {} if mask is None else {"mask": jnp.array(mask)}
    net = make_net(encoder)
    params = random_head(net)
    batch = {"ids": IDS, "label": jnp.array(labels), **extra}
    loss, figures = text_classifier.classification_loss(net)(params, batch, None)
    logits = np.asarray(net.apply(params, {"ids": IDS}), float)
    losses = scipy.special.logsumexp(logits, axis=1) - logits[range(3), labels]
    np.testing.assert_allclose(loss, losses[kept].mean(), rtol=1e-5)
    hits = logits.argmax(axis=1) == labels
    np.testing.assert_allclose(figures["accuracy"], hits[kept].mean(), rtol=1e-6)

    net = make_net(encoder, num_outputs=1)
    params = random_head(net)
    batch["label"] = jnp.array(scores)
    loss, figures = text_classifier.regression_loss(net)(params, batch, None)
    outputs = np.asarray(net.apply(params, {"ids": IDS}), float)[:, 0]
    expected = np.square(outputs - scores)[kept].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert figures == {}
