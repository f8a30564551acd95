"""Runs of R-Drop from configs: what they report, and what is refused before them."""

import jax
import numpy as np
import pytest
import tiny_texts

from expkit import config as config_lib
from expkit import finetuning, loop, metrics, supervised
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


@pytest.mark.slow
@pytest.mark.parametrize("name", train.OBJECTIVES)
def test_every_regulariser_trains(load, tmp_path, name):
    figures = train.run(load(regularizer=name, strength=0.1), tmp_path / "run")
    assert figures.keys() == {
        f"{split}_{n}" for split in ("validation", "test") for n in ("loss", "accuracy")
    }
    assert all(map(np.isfinite, figures.values()))
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2]
    assert all(np.isfinite(row["cross_entropy"]) for row in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vat", "rdrop"])
def test_texts_without_label_train_beside_the_others(load, tmp_path, name):
    config = load(regularizer="none", unlabelled_regularizer=name)
    figures = train.run(config, tmp_path / "run")
    assert np.isfinite(figures["test_loss"])
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert all(row["unlabelled_divergence"] > 0 for row in found)


@pytest.mark.slow
def test_a_regression_with_r_drop_reports_losses_alone(load, tmp_path):
    config = load(label_column="score", strength=1.0)
    figures = train.run(config, tmp_path / "run")
    assert figures.keys() == {"validation_loss", "test_loss"}
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert all(row["divergence"] > 0 for row in found)


@pytest.mark.slow
def test_pairs_of_texts_train_with_and_without_label(load, tmp_path):
    folder = tiny_texts.write(tmp_path, num_token_types=2)
    config = load(
        encoder=str(folder / "encoder"),
        text_columns=("text", "other"),
        unlabelled_regularizer="vat",
    )
    texts = finetuning.load_texts(config)
    for rows in (texts.task.splits["train"], texts.unlabelled):
        assert rows["types"].shape == rows["ids"].shape
        assert (rows["types"].sum(axis=1) == 1).all()  # the second has one character
    assert set(train.make_batches(config, texts)[0]) == {
        "ids",
        "types",
        "label",
        "unlabelled_ids",
        "unlabelled_types",
    }
    figures = train.run(config, tmp_path / "run")
    assert all(map(np.isfinite, figures.values()))


def test_the_objective_of_a_regression_is_that_of_the_paper(load):
    config = load("smoke,dropout=0.0", label_column="score")
    texts = finetuning.load_texts(config)
    batch = texts.task.splits["train"]
    outputs = jax.jit(texts.task.net.apply)(texts.params, {"ids": batch["ids"]})
    error = np.square(np.asarray(outputs[:, 0], float) - batch["label"]).mean()
    evaluation = supervised.make_evaluation(texts.task)
    assert evaluation(texts.params, "test").keys() == {"test_loss"}
    for name, constant, figures in (
        ("none", 1.0, set()),
        ("rdrop", 2.0, {"divergence"}),
    ):
        config.regularizer = name
        loss_fn = jax.jit(train.make_loss(config, texts.task))
        loss, found = loss_fn(texts.params, batch, jax.random.key(0))
        np.testing.assert_allclose(loss, constant * error, rtol=1e-5)
        assert found.keys() == figures


@pytest.mark.slow
def test_fine_tuning_learns_the_character_that_tells_the_label(load):
    config = load(
        "smoke,num_steps=150,num_labels=0,batch_size=20,learning_rate=0.01",
        num_layers=0,
        strength=1.0,
    )
    texts = finetuning.load_texts(config)
    evaluate = supervised.make_evaluation(texts.task)
    assert evaluate(texts.params, "test")["test_accuracy"] < 0.8
    optimizer = finetuning.make_adamw(config)
    step = jax.jit(loop.make_step(train.make_loss(config, texts.task), optimizer))
    state = loop.init_state(texts.params, optimizer, jax.random.key(0))
    batch = texts.task.splits["train"]
    for _ in range(150):
        state, _ = step(state, batch)
    assert evaluate(state.params, "test")["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regularizer": "dropout"}, "regularizer='dropout' is unknown"),
        ({"convention": "bert"}, "convention='bert' is unknown"),
        ({"unlabelled_regularizer": "fgm"}, "unlabelled_regularizer='fgm' is unknown"),
        ({"strength": -0.5}, "strength must be at least 0, got -0.5"),
        ({"strength": float("inf")}, "strength must be at least 0, got inf"),
        ({"unlabelled_strength": -1.0}, "unlabelled_strength must be .* got -1.0"),
        (
            {"unlabelled_regularizer": "vat", "radius": -1.0},
            "radius must be at least 0, got -1.0",
        ),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction must be in \[0, 1\)"),
        ({"encoder": "nowhere"}, "encoder 'nowhere' is not a folder"),
        ({"batch_size": 21}, "batch_size must be at most 20"),
        (
            {"unlabelled_regularizer": "rdrop", "num_labels": 0},
            "needs texts without labels: set num_labels to less",
        ),
        (
            {"unlabelled_regularizer": "rdrop", "num_labels": 57},
            "batch_size must be at most 3, the texts without labels, got 4",
        ),
        (
            {"unlabelled_regularizer": "vat", "label_column": "score"},
            "unlabelled_regularizer needs classes, and this has numbers",
        ),
        (
            {"regularizer": "vat", "label_column": "score"},
            "regularizer='vat' is unknown",
        ),
        ({"mesh": "data:9"}, "mesh='data:9' asks for 9"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_one_line(
    load, tmp_path, changes, message
):
    config = load()
    config.update(changes)
    with pytest.raises(config_lib.ConfigError, match=message) as error:
        train.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
