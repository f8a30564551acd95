"""Masks, optimizers and objectives of configs, against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_texts

from childtuning import train
from expkit import finetuning, loop

pytest.importorskip("tokenizers")
OPTIONS = "smoke,dropout=0.0,num_labels=10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def load(folder, pytestconfig):
    def call(arg=OPTIONS, **options):
        reference = f"{pytestconfig.rootpath}/configs/childtuning/reviews.py:{arg}"
        config = tiny_texts.load(reference, folder)
        config.update(options)
        return config

    return call


@pytest.fixture(scope="module")
def texts(load):
    loaded = finetuning.load_texts(load())
    head = {"kernel": jnp.linspace(-1, 1, 16).reshape(8, 2), "bias": jnp.ones(2)}
    return loaded._replace(params={**loaded.params, "head": head})


@pytest.fixture(scope="module")
def gradient(texts):
    """`rows -> gradient of their mean loss`."""
    grad = jax.jit(jax.grad(lambda p, batch: texts.task.loss_fn(p, batch, None)[0]))
    arrays = texts.task.splits["train"]
    return lambda rows: grad(texts.params, {k: v[rows] for k, v in arrays.items()})


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_the_paper_averages_the_squares_of_the_examples(load, texts, gradient):
    got = train.fisher(load(fisher="paper"), texts)
    squares = [np.square(flat(gradient([i]))) for i in range(10)]
    np.testing.assert_allclose(flat(got), np.mean(squares, 0), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_the_authors_average_the_squares_of_clipped_batches(load, texts, gradient):
    got = train.fisher(load(fisher="authors", seed=3), texts)
    order = np.random.default_rng(3).permutation(10)
    squares = []
    for rows in (order[:4], order[4:8], order[8:]):
        parts = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(rows))]
        norms = [np.linalg.norm(part) for part in parts]
        clipped = [
            part * min(1.0, 1.0 / (norm + 1e-6))
            for part, norm in zip(parts, norms, strict=True)
        ]
        squares.append(np.square(flat(clipped)))
    np.testing.assert_allclose(flat(got), np.mean(squares, 0), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_the_authors_have_dropout_and_the_paper_has_none(load, folder):
    texts = finetuning.load_texts(load("smoke,dropout=0.5,num_labels=10"))
    for fisher, differ in (("authors", True), ("paper", False)):
        config = load("smoke,dropout=0.5,num_labels=10", fisher=fisher)
        still = load(OPTIONS, fisher=fisher)
        without = finetuning.load_texts(still)._replace(params=texts.params)
        dropped = flat(train.fisher(config, texts))
        plain = flat(train.fisher(still, without))
        assert (np.abs(dropped - plain).max() > 1e-4 * plain.max()) == differ
        np.testing.assert_array_equal(dropped, flat(train.fisher(config, texts)))


@pytest.mark.parametrize("competing", ["layers", "all"])
def test_the_mask_keeps_the_largest_of_what_competes(load, texts, competing):
    config = load(competing=competing, reserve_p=0.3)
    mask, fisher = train.make_mask(config, texts), train.fisher(config, texts)
    if competing == "layers":
        others = {**mask, "encoder": {**mask["encoder"], "layer": {}}}
        assert all(leaf.all() for leaf in jax.tree.leaves(others))
        mask, fisher = (tree["encoder"]["layer"] for tree in (mask, fisher))
    kept, values = flat(mask), flat(fisher)
    assert kept.sum() == round(0.3 * kept.size)
    assert values[kept].min() >= values[~kept].max()


@pytest.mark.parametrize("method", ["none", "f", "update_dropout"])
def test_other_methods_have_no_mask(load, texts, method):
    assert train.make_mask(load(method=method), texts) is None


def updates(config, texts, *, mask=None, key=None, count=2):
    """Updates for gradients of ones."""
    optimizer = train.make_optimizer(config, mask=mask, key=key)
    grads = jax.tree.map(jnp.ones_like, texts.params)
    state, rows, params = optimizer.init(texts.params), [], texts.params
    step = jax.jit(optimizer.update)
    for _ in range(count):
        update, state = step(grads, state, params)
        params = optax.apply_updates(params, update)
        rows.append(flat(update))
    return np.stack(rows)


PLAIN = {"warmup_fraction": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}


@pytest.mark.slow
def test_a_gradient_that_is_kept_whole_is_that_of_fine_tuning(load, texts):
    plain = updates(load(method="none", **PLAIN), texts)
    for method in ("f", "update_dropout"):
        config = load(method=method, reserve_p=1.0, **PLAIN)
        np.testing.assert_array_equal(updates(config, texts), plain)


@pytest.mark.slow
def test_update_dropout_stands_still_where_f_still_moves(load, texts):
    """A moment moves an entry whose gradient is masked."""
    config = load(method="update_dropout", reserve_p=0.25, **PLAIN)
    dropped = updates(config, texts) == 0
    assert abs(dropped.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / dropped.size)
    config.method = "f"
    moved = updates(config, texts)
    was_kept = moved[0] != 0
    assert abs(was_kept.mean() - 0.25) < 4 * np.sqrt(0.75 * 0.25 / was_kept.size)
    assert (moved[1][was_kept] != 0).all()


@pytest.mark.slow
def test_masks_follow_the_key_and_the_key_the_seed(load, texts):
    config = load(method="f", **PLAIN)
    first, again, other = (
        updates(config, texts, key=jax.random.key(s), count=1) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    seeds = [updates(load(method="f", seed=s, **PLAIN), texts) for s in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert (seeds[0] != seeds[2]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "decay", "stays"),
    [
        ("child_adamw", "child", True),
        ("child_adamw", "all", False),
        ("adamw", "all", False),
    ],
)
def test_what_is_masked_stays_only_without_decay(load, texts, optimizer, decay, stays):
    config = load(
        method="d",
        optimizer=optimizer,
        decay=decay,
        weight_decay=0.1,
        learning_rate=0.01,
        warmup_fraction=0.0,
    )
    mask = train.make_mask(config, texts)
    transformation = train.make_optimizer(config, mask=mask)
    step = jax.jit(loop.make_step(texts.task.loss_fn, transformation))
    state = loop.init_state(texts.params, transformation, jax.random.key(0))
    batch = texts.task.splits["train"]
    for _ in range(2):
        state, _ = step(state, batch)
    is_moved = flat(state.params) != flat(texts.params)
    kept = flat(mask)
    assert 0 < kept.sum() < kept.size
    assert is_moved[kept].mean() > 0.4  # tokens that no text has stay
    assert is_moved[~kept].any() != stays


def test_the_objective_is_the_cross_entropy_or_r_drop(load, texts):
    batch = {k: jnp.asarray(v) for k, v in texts.task.splits["train"].items()}
    key = jax.random.key(0)
    assert train.make_loss(load(), texts.task) is texts.task.loss_fn
    plain, _ = jax.jit(texts.task.loss_fn)(texts.params, batch, key)
    loss_fn = jax.jit(train.make_loss(load(regularizer="rdrop"), texts.task))
    loss, figures = loss_fn(texts.params, batch, key)
    np.testing.assert_allclose(loss, 2 * plain, rtol=1e-6)  # there is no dropout
    assert figures.keys() == {"accuracy"}
