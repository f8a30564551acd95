"""Objectives against loops in float64, scores, thresholds, refusals, and runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny_texts

from cosent import train
from expkit import config as config_lib
from expkit import metrics

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"), num_token_types=2)


@pytest.fixture(scope="module")
def load(folder, pytestconfig):
    def call(**options):
        path = f"{pytestconfig.rootpath}/configs/cosent/api_docs_pairs.py:smoke"
        config = tiny_texts.load(path, folder)
        config.update({"text_columns": ("text", "other"), "label_column": "label"})
        config.update({"positive_at": 1.0, "dropout": 0.0} | options)
        return config

    return call


@pytest.fixture(scope="module")
def feature(load):
    """Pairs, their batch, and the two vectors of each pair in float64."""
    pairs = train.load_pairs(load())
    head = {"w": jnp.linspace(-1, 1, 48).reshape(24, 2), "b": jnp.array([0.1, -0.2])}
    pairs = pairs._replace(params={**pairs.params, "head": head})
    batch = {k: jnp.asarray(v[:6]) for k, v in pairs.splits["train"].items()}
    x = {k: v for k, v in batch.items() if k != "label"}
    vectors = np.asarray(jax.jit(pairs.net.apply)(pairs.params, x), float)
    return pairs, batch, vectors


def cosines(first, second):
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(axis=-1) / lengths


def objective(config, pairs, batch):
    return jax.jit(train.make_loss(config, pairs))(
        pairs.params, batch, jax.random.key(0)
    )[0]


def test_cosent_is_the_loss_of_all_pairs_in_the_wrong_order(load, feature):
    pairs, batch, vectors = feature
    similarities, labels = 7.0 * cosines(*vectors), np.asarray(batch["label"])
    terms = [
        similarities[j] - similarities[i]
        for i in range(6)
        for j in range(6)
        if labels[i] > labels[j]
    ]
    assert len(terms) == 9
    expected = scipy.special.logsumexp([0.0, *terms])
    loss = objective(load(scale=7.0), pairs, batch)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


def test_sentence_bert_classifies_both_vectors_and_their_distance(load, feature):
    pairs, batch, (u, v) = feature
    features = np.concatenate([u, v, np.abs(u - v)], axis=1)
    head = {k: np.asarray(x, float) for k, x in pairs.params["head"].items()}
    logits = features @ head["w"] + head["b"]
    classes = np.asarray(batch["label"], int)
    expected = scipy.special.logsumexp(logits, axis=1) - logits[range(6), classes]
    loss = objective(load(loss="sentence_bert"), pairs, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=2e-6)


def test_labels_are_stretched_to_the_range_of_the_squared_error(load, feature):
    pairs, batch, vectors = feature
    stretched = pairs._replace(values=np.array([-1.0, 1.0], np.float32))
    labels = np.asarray(batch["label"])
    for task, targets in ((pairs, labels), (stretched, (labels + 1) / 2)):
        expected = np.square(cosines(*vectors) - targets).mean()
        loss = objective(load(loss="cosine_mse"), task, batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_contrastive_looks_for_the_partners_of_positive_pairs(load, feature):
    pairs, batch, (u, v) = feature
    rows = np.flatnonzero(np.asarray(batch["label"]) == 1)
    assert len(rows) == 3
    every = 5.0 * np.array([[cosines(u[i], v[j]) for j in rows] for i in rows])
    expected = scipy.special.logsumexp(every, axis=1) - np.diag(every)
    loss = objective(load(loss="contrastive", scale=5.0), pairs, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_scores_of_vectors_are_cosines_in_the_order_of_the_split(load, feature):
    pairs, _, vectors = feature
    scores = train.make_scores(load(), pairs)(pairs.params, "train")
    assert scores.shape == (60,)
    np.testing.assert_allclose(scores[:6], cosines(*vectors), rtol=1e-5, atol=1e-6)


def test_both_texts_in_one_sequence_are_classified(load):
    config = load(model="interaction", loss="classification")
    pairs = train.load_pairs(config)
    params = {
        **pairs.params,
        "head": jax.tree.map(lambda x: 50 * x, pairs.params["head"]),
    }
    batch = {k: jnp.asarray(v[:8]) for k, v in pairs.splits["train"].items()}
    x = {k: batch[k] for k in ("ids", "types")}
    logits = np.asarray(jax.jit(pairs.net.apply)(params, x), float)
    classes = np.asarray(batch["label"], int)
    expected = scipy.special.logsumexp(logits, axis=1) - logits[range(8), classes]
    pairs = pairs._replace(params=params)
    loss = objective(config, pairs, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    score = jax.jit(train.make_score(config, pairs))(params, batch)
    np.testing.assert_allclose(score, scipy.special.softmax(logits, axis=1)[:, 1], 1e-5)


def test_a_regression_scores_by_its_output(load):
    config = load(model="interaction", loss="regression", label_column="score")
    pairs = train.load_pairs(config)
    batch = {k: jnp.asarray(v[:8]) for k, v in pairs.splits["train"].items()}
    score = jax.jit(train.make_score(config, pairs))(pairs.params, batch)
    loss = objective(config, pairs, batch)
    errors = np.asarray(score, float) - np.asarray(batch["label"], float)
    np.testing.assert_allclose(loss, np.square(errors).mean(), rtol=1e-5)


def test_thresholds_of_the_validation_split_are_applied_to_the_test_split(load):
    rng = np.random.default_rng(0)
    rows = {s: {"label": rng.integers(0, 3, n)} for s, n in SIZES.items()}
    scores = {s: r["label"] + rng.normal(size=len(r["label"])) for s, r in rows.items()}
    config = load(positive_at=2.0)
    pairs = train.text_pairs.Pairs(None, rows, {}, np.arange(3.0))
    figures = train.make_figures(config, pairs)(scores)
    assert figures.keys() == {
        f"{split}_{name}" for split in SIZES for name in ("accuracy", "f1", "spearman")
    }
    truth = {s: r["label"] == 2 for s, r in rows.items()}
    cuts = np.concatenate([[-np.inf], scores["validation"]])
    accuracies = [
        np.mean((scores["validation"] > t) == truth["validation"]) for t in cuts
    ]
    best = max(accuracies)
    assert figures["validation_accuracy"] == pytest.approx(best)
    possible = {
        np.mean((scores["test"] > t + step) == truth["test"])
        for t, accuracy in zip(cuts, accuracies, strict=True)
        if accuracy == best
        for step in (0.0, 1e-9)
    }
    assert min(possible) - 0.02 <= figures["test_accuracy"] <= max(possible) + 0.02
    own = max(np.mean((scores["test"] > t) == truth["test"]) for t in scores["test"])
    assert figures["test_accuracy"] < own  # the control: not tuned on the test split
    for split in SIZES:
        expected = scipy.stats.spearmanr(scores[split], rows[split]["label"])[0]
        np.testing.assert_allclose(figures[f"{split}_spearman"], expected, rtol=1e-5)
    hits = [scores["validation"] > t for t in cuts]
    both = [2 * np.sum(hit & truth["validation"]) for hit in hits]
    either = [hit.sum() + truth["validation"].sum() for hit in hits]
    f1s = np.divide(both, either)
    assert figures["validation_f1"] == pytest.approx(f1s.max())
    assert f1s.max() != pytest.approx(best)  # the control: another figure
    assert 0 < figures["test_f1"] <= 1


SIZES = {"validation": 60, "test": 300}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "features"}, "model='features' is unknown; did you mean 'feature'"),
        ({"loss": "cosnet"}, "loss='cosnet' is unknown; did you mean 'cosent'"),
        ({"loss": "classification"}, "loss='classification' is unknown"),
        ({"scale": 0.0}, "scale must be above 0, got 0.0"),
        ({"positive_at": 9.0}, "positive_at=9.0 puts all pairs"),
        ({"text_columns": ("text",)}, "text_columns must be two"),
        (
            {"label_column": "scores"},
            "has the columns 'text', 'other', 'label', 'score'",
        ),
        ({"batch_size": 99}, "batch_size must be at most 60"),
        ({"num_labels": 99}, "num_labels must be 0"),
        ({"max_length": 17}, "max_length must be at most 16"),
    ],
)
def test_what_cannot_be_used_is_refused_with_one_line(load, tmp_path, options, message):
    with pytest.raises(config_lib.ConfigError, match=message) as found:
        train.run(load(**options), tmp_path / "run")
    assert "\n" not in str(found.value)


def test_a_label_with_many_values_makes_no_classes(load, monkeypatch):
    monkeypatch.setattr(train, "MAX_CLASSES", 3)
    config = load(loss="sentence_bert", label_column="score")
    with pytest.raises(ValueError, match="use cosine_mse"):
        train.load_pairs(config)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosent", "sentence_bert"])
def test_a_run_reports_figures_of_both_splits(load, tmp_path, loss):
    figures = train.run(load(loss=loss), tmp_path / "run")
    assert figures.keys() == {
        f"{split}_{name}"
        for split in ("validation", "test")
        for name in ("accuracy", "f1", "spearman")
    }
    assert all(map(np.isfinite, figures.values()))
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2]
    assert "validation_spearman" in found[-1]
