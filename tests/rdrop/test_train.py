"""Objectives against loops over examples, joined batches, refusals, and runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny_texts

import igr
from expkit import finetuning
from rdrop import train

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def load(folder, pytestconfig):
    def call(arg="smoke", **options):
        reference = f"{pytestconfig.rootpath}/configs/rdrop/reviews.py:{arg}"
        config = tiny_texts.load(reference, folder)
        config.update(options)
        return config

    return call


@pytest.fixture(scope="module")
def texts(load):
    """Model and data without dropout, with a head that is not almost zero."""
    loaded = finetuning.load_texts(load("smoke,dropout=0.0"))
    head = {"kernel": jnp.linspace(-1, 1, 16).reshape(8, 2), "bias": jnp.ones(2)}
    return loaded._replace(params={**loaded.params, "head": head})


def batch_of(texts, count=5):
    return {k: jnp.asarray(v[:count]) for k, v in texts.task.splits["train"].items()}


def cross_entropies(texts, batch, offset=None):
    x = {"ids": batch["ids"]} | ({} if offset is None else {"offset": offset})
    logits = np.asarray(jax.jit(texts.task.net.apply)(texts.params, x), float)
    rows = range(len(logits))
    return scipy.special.logsumexp(logits, axis=1) - logits[rows, batch["label"]]


def example_gradients(texts, batch):
    """Of each example's loss in its embeddings, one at a time."""

    def loss(offset, ids, label):
        x = {"ids": ids[None], "offset": offset[None]}
        return -jax.nn.log_softmax(texts.task.net.apply(texts.params, x))[0, label]

    gradient, zero = jax.jit(jax.grad(loss)), jnp.zeros((16, 8))
    rows = zip(batch["ids"], batch["label"], strict=True)
    return np.stack([gradient(zero, ids, label) for ids, label in rows])


def objective(texts, config, batch, key=None, **options):
    loss_fn = train.make_loss(config, texts.task)
    key = jax.random.key(0) if key is None else key
    return jax.jit(loss_fn)(texts.params, batch, key, **options)


def test_without_regulariser_it_is_the_mean_cross_entropy(load, texts):
    batch = batch_of(texts)
    loss, figures = objective(texts, load(regularizer="none", strength=9.0), batch)
    expected = cross_entropies(texts, batch).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(figures["cross_entropy"], expected, rtol=1e-5)
    assert 0 <= figures["accuracy"] <= 1


@pytest.mark.slow
def test_without_dropout_r_drop_is_twice_the_cross_entropy(load, texts):
    batch = batch_of(texts)
    plain, _ = objective(texts, load(regularizer="none"), batch)
    for strength in (0.0, 4.0, 100.0):
        config = load(regularizer="rdrop", strength=strength)
        loss, figures = objective(texts, config, batch)
        np.testing.assert_allclose(loss, 2 * plain, rtol=1e-6)
        assert figures["divergence"] == 0.0


@pytest.mark.slow
def test_with_dropout_r_drop_grows_by_half_the_divergence(load):
    config = load("smoke,dropout=0.3", regularizer="rdrop")
    texts = finetuning.load_texts(config)
    head = jax.tree.map(lambda x: 50 * x, texts.params["head"])
    texts = texts._replace(params={**texts.params, "head": head})
    batch = batch_of(texts)
    losses = [objective(texts, config, batch, strength=s)[0] for s in (0.0, 1.0, 6.0)]
    _, figures = objective(texts, config, batch)
    assert figures["divergence"] > 1e-4
    expected = losses[0] + 0.5 * figures["divergence"] * np.array([0.0, 1.0, 6.0])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    other, _ = objective(texts, config, batch, jax.random.key(1), strength=0.0)
    assert other != losses[0]


@pytest.mark.slow
def test_the_penalty_is_the_mean_squared_gradient_of_every_example(load, texts):
    batch = batch_of(texts)
    gradients = example_gradients(texts, batch)
    squares = np.square(gradients).sum(axis=(1, 2))
    assert squares.min() > 1e-3
    config = load(regularizer="gradient_penalty", strength=3.0)
    loss, figures = objective(texts, config, batch)
    expected = cross_entropies(texts, batch).mean()
    np.testing.assert_allclose(loss, expected + 3.0 * squares.mean(), rtol=1e-4)
    np.testing.assert_allclose(figures["cross_entropy"], expected, rtol=1e-5)


@pytest.mark.slow
def test_the_adversarial_offset_has_the_radius_for_every_example(load, texts):
    batch = batch_of(texts)
    gradients = example_gradients(texts, batch)
    norms = np.sqrt(np.square(gradients).sum(axis=(1, 2), keepdims=True))
    offset = jnp.asarray(0.7 * gradients / norms, jnp.float32)
    clean, moved = cross_entropies(texts, batch), cross_entropies(texts, batch, offset)
    config = load(regularizer="adversarial", strength=0.7)
    loss, _ = objective(texts, config, batch)
    np.testing.assert_allclose(loss, 0.5 * (clean + moved).mean(), rtol=1e-4)
    assert moved.mean() > clean.mean() + 0.01


@pytest.mark.slow
def test_the_offset_is_a_constant_of_the_gradient(load, texts):
    """Finite differences with the offset held, where it was."""
    batch = batch_of(texts)
    gradients = example_gradients(texts, batch)
    norms = np.sqrt(np.square(gradients).sum(axis=(1, 2), keepdims=True))
    offset = jnp.asarray(0.7 * gradients / norms, jnp.float32)
    config = load(regularizer="adversarial", strength=0.7)
    loss_fn = train.make_loss(config, texts.task)
    plain = texts.task.loss_fn

    def held(params):
        x = {"ids": batch["ids"], "offset": offset}
        log_p = jax.nn.log_softmax(texts.task.net.apply(params, x))
        moved = -jnp.take_along_axis(log_p, batch["label"][:, None], axis=1).mean()
        return 0.5 * (plain(params, batch, None)[0] + moved)

    key = jax.random.key(0)
    got = jax.jit(jax.grad(lambda p: loss_fn(p, batch, key)[0]))(texts.params)
    expected = jax.jit(jax.grad(held))(texts.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected
    )


@pytest.mark.slow
def test_virtual_adversarial_training_adds_its_weight_times_the_divergence(load, texts):
    batch = batch_of(texts)
    config = load(regularizer="vat", radius=0.5)
    losses = [objective(texts, config, batch, strength=s)[0] for s in (0.0, 1.0, 3.0)]
    np.testing.assert_allclose(
        losses[0], cross_entropies(texts, batch).mean(), rtol=1e-5
    )
    assert losses[1] > losses[0] + 1e-4
    np.testing.assert_allclose(
        losses[2] - losses[0], 3 * (losses[1] - losses[0]), rtol=1e-3
    )
    relabelled = {**batch, "label": 1 - batch["label"]}
    gains = [
        objective(texts, config, rows, strength=1.0)[0]
        - objective(texts, config, rows, strength=0.0)[0]
        for rows in (batch, relabelled)
    ]
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-3)  # labels have no part


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vat", "rdrop"])
def test_texts_without_label_are_regularised_by_what_they_are(load, texts, name):
    batch = batch_of(texts)
    rows = batch | {"unlabelled_ids": jnp.asarray(texts.unlabelled["ids"][:5])}
    config = load(
        regularizer="none", unlabelled_regularizer=name, unlabelled_strength=2.0
    )
    plain = cross_entropies(texts, batch).mean()
    loss, figures = objective(texts, config, rows)
    divergence = figures["unlabelled_divergence"]
    np.testing.assert_allclose(loss, plain + 2 * divergence, rtol=1e-5)
    if name == "rdrop":  # there is no dropout here
        assert divergence == 0.0
        return
    assert divergence > 1e-4
    key = jax.random.split(jax.random.split(jax.random.key(0))[1])[1]

    def logits_fn(offset):
        x = {"ids": rows["unlabelled_ids"], "offset": offset}
        return texts.task.net.apply(texts.params, x)

    expected = jax.jit(
        lambda zero: igr.virtual_adversarial_loss(logits_fn, zero, key, epsilon=1.0)
    )(jnp.zeros((5, 16, 8)))
    np.testing.assert_allclose(divergence, expected.mean(), rtol=1e-3)
    other, _ = objective(texts, config, rows, unlabelled_strength=0.0)
    np.testing.assert_allclose(other, plain, rtol=1e-5)


def test_batches_join_labelled_and_unlabelled_texts(load):
    config = load("smoke,unlabelled_regularizer=rdrop")
    texts = finetuning.load_texts(config)
    batches = train.make_batches(config, texts)
    labelled = {tuple(row) for row in texts.task.splits["train"]["ids"]}
    unlabelled = {tuple(row) for row in texts.unlabelled["ids"]}
    seen = [batches[step] for step in range(10)]
    for batch in seen:
        assert {name: len(rows) for name, rows in batch.items()} == {
            "ids": 4,
            "label": 4,
            "unlabelled_ids": 4,
        }
    for name, rows in (("ids", labelled), ("unlabelled_ids", unlabelled)):
        found = [tuple(row) for batch in seen for row in batch[name]]
        assert set(found) == rows  # 20 rows twice, 40 rows once
    np.testing.assert_array_equal(batches[3]["ids"], seen[3]["ids"])
    assert train.make_batches(load(), texts) is None
