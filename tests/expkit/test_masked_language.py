"""The masked language model loss, and the one mask of held-out texts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from expkit import masked_language as mlm
from expkit import nets, text, text_nets

TEXTS = ["好书好看", "书", "", "看书看书看书"]
VOCABULARY = text.build_vocabulary(TEXTS, min_count=1)


def unigram_net(bias):
    """Predicts the same everywhere, whatever it sees."""

    def apply(params, x, key=None):
        del key
        shape = (x[1] if isinstance(x, tuple) else x).shape
        return jnp.broadcast_to(params["bias"], (*shape, len(bias)))

    return nets.Net(lambda key: {"bias": jnp.asarray(bias)}, apply)


def splits(**options):
    texts = {"train": TEXTS, "validation": TEXTS * 10}
    options = {"max_length": 6, "mask_rate": 0.5} | options
    return mlm.encode_splits(VOCABULARY, texts, **options)


def test_only_held_out_texts_keep_a_mask_and_it_is_always_the_same():
    first, again = splits(), splits()
    assert list(first["train"]) == ["ids"]
    jax.tree.map(np.testing.assert_array_equal, first, again)
    held_out = first["validation"]
    assert held_out["selected"].dtype == bool
    assert not held_out["selected"][held_out["ids"] == text.PAD].any()
    assert all(a.dtype != object for s in first.values() for a in s.values())


def test_the_loss_is_the_mean_over_the_masked_positions_of_the_rows_kept():
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(size=(3, 5, 7)), rng.integers(0, 7, (3, 5))
    selected = rng.random((3, 5)) < 0.5
    losses = [
        scipy.special.logsumexp(logits[i, j]) - logits[i, j, ids[i, j]]
        for i, j in zip(*np.nonzero(selected), strict=True)
    ]
    hits = (logits.argmax(-1) == ids)[selected]
    got = jax.jit(mlm.masked_cross_entropy)(np.float32(logits), ids, selected)
    np.testing.assert_allclose(got, (np.mean(losses), np.mean(hits)), rtol=1e-5)


def test_nothing_selected_is_zero_with_a_finite_gradient():
    ids, nothing = np.zeros((2, 3), int), np.zeros((2, 3), bool)

    def loss(logits):
        return mlm.masked_cross_entropy(logits, ids, nothing)[0]

    value, grad = jax.jit(jax.value_and_grad(loss))(np.full((2, 3, 4), 1e4, "f"))
    assert value == 0
    assert not np.any(grad)


def test_with_the_unigram_bias_the_loss_is_the_cross_entropy_of_unigrams():
    ids, mask = text.encode(VOCABULARY, TEXTS * 500, max_length=6)
    bias = text.unigram_log_probabilities(VOCABULARY, ids, mask)
    net = unigram_net(bias)
    loss_fn = jax.jit(mlm.make_loss(net, 0.5))
    loss, _ = loss_fn(net.init(jax.random.key(0)), {"ids": ids}, jax.random.key(1))
    terms = -bias[ids[mask]]
    bound = 4 * terms.std() / math.sqrt(0.5 * mask.sum())
    assert abs(loss - terms.mean()) < bound


def test_the_net_never_sees_what_it_predicts():
    batch = splits()["validation"] | {"mask": np.ones(40, bool)}
    seen = []

    def apply(params, x, key=None):
        del params, key
        seen.append(x)
        return jnp.zeros((*x.shape, VOCABULARY.size))

    loss_fn = mlm.make_loss(nets.Net(lambda key: {}, apply), 0.5)
    before = batch["selected"].copy()
    loss, _ = loss_fn({}, batch | {"mask": np.arange(40) < 39}, None)
    np.testing.assert_array_equal(batch["selected"], before)
    assert not np.any(seen.pop()[39] == text.MASK)
    loss, _ = loss_fn({}, batch, None)
    np.testing.assert_array_equal(seen[0] == text.MASK, batch["selected"])
    np.testing.assert_allclose(loss, math.log(VOCABULARY.size), rtol=1e-6)
    assert mlm.num_masked(batch) == batch["selected"].sum()


def test_training_asks_for_logits_at_the_masked_positions_only():
    net = text_nets.text_encoder(9, max_length=24, width=8, depth=1, num_heads=2)
    params = jax.jit(net.init)(jax.random.key(0))
    ids = np.random.default_rng(0).integers(3, 9, (5, 24))
    asked = []

    def apply(params, x, key=None):
        asked.append(x)
        return net.apply(params, x)

    loss_fn = mlm.make_loss(nets.Net(net.init, apply), 0.3)

    @jax.jit
    def run(params, batch, key):
        return *loss_fn(params, batch, key), asked.pop()

    loss, figures, (masked, positions) = run(params, {"ids": ids}, jax.random.key(1))
    assert positions.shape == (5, mlm.max_selected(24, 0.3))
    batch = {"ids": ids, "selected": np.asarray(masked == text.MASK)}
    whole, of_all, _ = run(params, batch, None)
    assert batch["selected"].any()
    np.testing.assert_allclose(loss, whole, rtol=1e-6)
    np.testing.assert_allclose(figures["accuracy"], of_all["accuracy"], rtol=1e-6)


def test_the_first_positions_are_kept_and_rows_with_more_are_capped():
    selected = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 1], [0] * 5], bool)
    kept, positions = mlm.first_selected(jnp.asarray(selected), 2)
    np.testing.assert_array_equal(kept, [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [False] * 5])
    np.testing.assert_array_equal(positions[0], [1, 2])
    assert positions[1, 0] == 4
    assert mlm.max_selected(10, 1.0) == 10


def test_packed_rows_hold_every_text_once_and_only_the_last_is_short():
    texts = [str(i) * (1 + i) for i in range(9)]
    rows = mlm.pack(texts, 7)
    assert {len(row) for row in rows[:-1]} == {7}
    assert sorted("".join(rows).split("\n")) == sorted(texts)
    assert rows == mlm.pack(texts, 7)


def test_a_mask_that_hides_nothing_is_refused():
    with pytest.raises(
        ValueError, match=r"mask_rate=1e-09 masks none of the 11 .*train"
    ):
        splits(mask_rate=1e-9)


def test_perplexity_is_the_exponential_of_the_loss_also_when_it_overflows():
    got = mlm.with_perplexity({"loss": math.log(7.0), "accuracy": 0.5})
    assert got.keys() == {"loss", "accuracy", "perplexity"}
    np.testing.assert_allclose(got["perplexity"], 7.0)
    assert mlm.with_perplexity({"loss": 1e4})["perplexity"] == math.inf
