"""Objectives against loops in float64, predictions, refusals, and tiny runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny_texts

from expkit import config as config_lib
from expkit import metrics, text_spans
from gp_kl import train

pytest.importorskip("tokenizers")

SIZES = {"train": 24, "validation": 10, "test": 12}


def write_sentences(folder):
    """Sentences of 4 to 12 characters; good and bad ones are spans of length 1 or 2."""
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        lines = []
        for _ in range(count):
            for _ in range(rng.integers(2, 5)):
                lines.append(f"{rng.choice([*tiny_texts.OTHER])} O")
                name = rng.choice(["good", "bad"])
                letters = tiny_texts.GOOD if name == "good" else tiny_texts.BAD
                lines.append(f"{rng.choice([*letters])} B-{name}")
                if rng.random() < 0.3:
                    lines.append(f"{rng.choice([*letters])} I-{name}")
            lines.append("")
        (folder / f"{split}.conll").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"))
    write_sentences(folder)
    return folder


@pytest.fixture(scope="module")
def load(folder, pytestconfig):
    def call(**options):
        path = f"{pytestconfig.rootpath}/configs/gp_kl/news_entities.py:smoke"
        config = tiny_texts.load(path, folder)
        config.dataset = f"file:{folder}/{{split}}.conll"
        config.update({"max_length": 16, "head_size": 4, "batch_size": 4})
        config.update({"train_split": "train", "validation_split": "validation"})
        config.update({"test_split": "test", "dropout": 0.0} | options)
        return config

    return call


@pytest.fixture(scope="module")
def task(load):
    return train.load_task(load())


def batch_of(task, count=5):
    return {k: jnp.asarray(v[:count]) for k, v in task.arrays["train"].items()}


def objective(config, task, batch, **options):
    loss_fn = jax.jit(train.make_loss(config, task))
    return loss_fn(task.params, batch, jax.random.key(3), **options)[0]


def test_the_loss_is_the_multi_label_cross_entropy_of_every_type(load, task):
    batch = batch_of(task)
    x = text_spans.inputs(batch)
    scores = np.asarray(jax.jit(task.net.apply)(task.params, x), float)
    losses = []
    for row, spans in zip(scores, batch["spans"].tolist(), strict=True):
        for kind, table in enumerate(row):
            true = {(i, j) for k, i, j in spans if k == kind}
            cells = [tuple(c) for c in np.argwhere(np.isfinite(table))]
            negative = [table[c] for c in cells if c not in true]
            positive = [-table[c] for c in true]
            losses.append(
                scipy.special.logsumexp([0, *negative])
                + scipy.special.logsumexp([0, *positive])
            )
    assert len(losses) == 10
    np.testing.assert_allclose(objective(load(), task, batch), np.mean(losses), 1e-5)


def test_scores_are_of_tokens_in_their_order_alone(task):
    batch = batch_of(task)
    scores = jax.jit(task.net.apply)(task.params, text_spans.inputs(batch))
    finite = np.isfinite(np.asarray(scores))
    is_token = np.asarray(batch["is_token"])
    pairs = is_token[:, :, None] & is_token[:, None, :]
    expected = pairs & np.triu(np.ones(pairs.shape[1:], bool))
    np.testing.assert_array_equal(finite, np.repeat(expected[:, None], 2, axis=1))


@pytest.mark.parametrize("name", ["rdrop", "rdrop_softmax"])
def test_without_dropout_two_passes_double_the_loss(load, task, name):
    batch = batch_of(task)
    plain = objective(load(), task, batch)
    loss = objective(load(regularizer=name, strength=7.0), task, batch)
    np.testing.assert_allclose(loss, 2 * plain, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rdrop", "rdrop_softmax", "vat"])
def test_regularisers_grow_with_their_strength(load, name):
    config = load(regularizer=name, dropout=0.3)
    task = train.load_task(config)
    batch = batch_of(task)
    losses = [objective(config, task, batch, strength=s) for s in (0.0, 1.0, 3.0)]
    assert losses[1] > losses[0]
    np.testing.assert_allclose(losses[2] - losses[0], 3 * (losses[1] - losses[0]), 1e-3)


def test_the_mean_over_cells_makes_the_divergence_weaker_by_their_number(load):
    config = load(regularizer="rdrop", dropout=0.3)
    task = train.load_task(config)
    batch = {k: v[:1] for k, v in batch_of(task).items()}
    gains = {}
    for reduction in ("sum", "mean"):
        config.reduction = reduction
        loss_fn = jax.jit(train.make_loss(config, task))
        none, some = (
            loss_fn(task.params, batch, jax.random.key(3), strength=strength)[0]
            for strength in (0.0, 1e3)
        )
        gains[reduction] = some - none
    length = int(batch["is_token"].sum())
    num_cells = 2 * length * (length + 1) // 2
    np.testing.assert_allclose(gains["sum"], num_cells * gains["mean"], rtol=1e-3)


def test_the_chain_reads_the_tags_of_the_spans(load):
    config = load(head="crf")
    task = train.load_task(config)
    rows = task.arrays["train"]
    for tags, spans in zip(rows["tags"], rows["spans"].tolist(), strict=True):
        expected = np.zeros(len(tags))
        for kind, first, last in spans:
            if kind >= 0:
                expected[first : last + 1] = 2 + 2 * kind
                expected[first] = 1 + 2 * kind
        np.testing.assert_array_equal(tags, expected)
    batch = batch_of(task)
    loss = objective(config, task, batch)
    # All tags are nearly as likely before the first step.
    tokens = np.asarray(batch["is_token"]).sum(axis=1).mean()
    assert 0.5 < loss / (tokens * np.log(5)) < 2.0


@pytest.mark.parametrize("head", ["global_pointer", "crf"])
def test_perfect_outputs_give_back_all_spans(load, task, head):
    config = load(head=head)
    task = train.load_task(config)

    def find(params, batch):
        shape = (len(batch["ids"]), 2, *2 * (batch["ids"].shape[1],))
        is_span = text_spans.dense_labels(batch["spans"], jnp.zeros(shape))
        return batch["tags"] if head == "crf" else jnp.where(is_span, 1.0, -1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_scores", lambda config, task: find)
        predict = train.make_prediction(config, task)
    found = predict(task.params, "test")
    assert sum(map(len, found)) > SIZES["test"]
    assert train.figures(task, "test", found) == {
        "test_f1": 1.0,
        "test_f1_bad": 1.0,
        "test_f1_good": 1.0,
    }
    only_good = [{s for s in spans if s[0] == "good"} for spans in found]
    figures = train.figures(task, "test", only_good)
    assert figures["test_f1_good"] == 1.0
    assert figures["test_f1_bad"] == 0.0
    assert 0 < figures["test_f1"] < 1


@pytest.mark.parametrize("given", [None, 20.0])
def test_the_transitions_of_a_chain_move_faster(load, given):
    config = load(head="crf", chain_multiplier=5.0, weight_decay=0.0)
    ones = jnp.ones(3)
    names = ("kernel", "bias", "transitions", "start", "end")
    head = dict.fromkeys(names, ones)
    params = {"encoder": {"w": ones}, "head": head}
    optimizer = train.make_optimizer(config, 1e-3, given)
    grads = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(optimizer.update)
    _, state = update(grads, optimizer.init(params), params)
    updates, _ = update(grads, state, params)  # the first has the rate 0
    ratios = {k: v / updates["encoder"]["w"] for k, v in updates["head"].items()}
    for name in names[:2]:
        np.testing.assert_array_equal(ratios[name], 1.0)
    for name in names[2:]:
        np.testing.assert_allclose(ratios[name], given or 5.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "pointer"}, "head='pointer' is unknown"),
        ({"regularizer": "r_drop"}, "regularizer='r_drop' is unknown"),
        ({"reduction": "max"}, "reduction='max' is unknown"),
        ({"strength": -1.0}, "strength must be at least 0, got -1.0"),
        ({"chain_multiplier": 0.0}, "chain_multiplier must be above 0, got 0.0"),
        ({"head": "crf", "regularizer": "vat"}, "is not for head='crf'"),
        ({"span_column": "labels"}, "has the columns .*, not 'labels'"),
        ({"batch_size": 99}, "batch_size must be at most 35"),
        ({"num_labels": 99}, "num_labels must be in 0..24, got 99"),
        ({"head_size": 3}, "head_size"),
        ({"max_length": 17}, "max_length must be at most 16"),
    ],
)
def test_what_cannot_be_used_is_refused_with_one_line(load, tmp_path, options, message):
    with pytest.raises(config_lib.ConfigError, match=message) as found:
        train.run(load(**options), tmp_path / "run")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"head": "efficient"}, marks=pytest.mark.slow),
        pytest.param({"head": "crf"}, marks=pytest.mark.slow),
        pytest.param({"regularizer": "vat"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_reports_figures_of_both_splits(load, tmp_path, options):
    figures = train.run(load(**options), tmp_path / "run")
    names = [
        f"{s}_f1{k}" for s in ("validation", "test") for k in ("", "_bad", "_good")
    ]
    assert sorted(figures) == sorted(names)
    assert all(0 <= value <= 1 for value in figures.values())
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2]
    assert "validation_f1" in found[-1]
