"""Runs of ChildTuning from configs: figures, resuming, and what is refused."""

import jax
import numpy as np
import pytest
import tiny_texts

from childtuning import train
from expkit import config as config_lib
from expkit import loop, metrics, training

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_texts.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def load(folder, pytestconfig):
    def call(arg="smoke", **options):
        reference = f"{pytestconfig.rootpath}/configs/childtuning/reviews.py:{arg}"
        config = tiny_texts.load(reference, folder)
        config.update(options)
        return config

    return call


def test_a_run_reports_the_share_that_is_trained(load, tmp_path, monkeypatch):
    """The smoke form of the config, which CI runs too, has the steps."""
    monkeypatch.setattr(training, "prepare", lambda *_: lambda _, state: state)
    figures = train.run(load(reserve_p=0.25), tmp_path / "run")
    names = {
        f"{split}_{n}" for split in ("validation", "test") for n in ("loss", "accuracy")
    }
    assert figures.keys() == names | {"trainable_fraction"}
    assert all(map(np.isfinite, figures.values()))
    # Width 8: four projections, a perceptron of 16, two norms; the rest is trained.
    layer = 4 * (64 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 16
    words, kinds = tiny_texts.CHARACTERS.size * 8, 8
    others = words + kinds + 16 + 16 + (8 * 2 + 2)
    expected = (round(0.25 * layer) + others) / (layer + others)
    assert figures["trainable_fraction"] == pytest.approx(expected, abs=1e-9)
    assert figures["trainable_fraction"] > 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "none"},
        {"method": "f"},
        {"method": "update_dropout"},
        {"method": "d", "fisher": "authors", "competing": "all"},
        {"method": "d", "optimizer": "child_adamw", "decay": "child"},
        {"method": "f", "optimizer": "lion"},
        {"method": "none", "regularizer": "rdrop"},
    ],
)
def test_every_method_trains(load, tmp_path, options):
    figures = train.run(load(**options), tmp_path / "run")
    assert all(map(np.isfinite, figures.values()))
    rows = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    if options.get("competing") == "all":
        assert figures["trainable_fraction"] == pytest.approx(0.3, abs=1e-3)
    elif options["method"] != "d":
        assert figures["trainable_fraction"] == 1.0


class CrashError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("method", ["d", "f"])
def test_a_run_that_crashed_goes_on_to_the_figures_of_one_that_did_not(
    load, tmp_path, monkeypatch, method
):
    """The second process also gets another mask, which the stored one replaces."""
    config = load(
        "smoke,num_steps=6,checkpoint_every=2,dropout=0.1",
        method=method,
        optimizer="child_adamw" if method == "d" else "adamw",
        decay="child",
    )
    states = []
    fit = loop.fit

    def recorded(*args, **options):
        states.append(fit(*args, **options))
        return states[-1]

    monkeypatch.setattr(loop, "fit", recorded)
    whole = train.run(config, tmp_path / "whole")

    def crash(step, state, *, batches, **options):
        class Stopping:
            def __getitem__(self, index):
                if index == 4:
                    raise CrashError
                return batches[index]

        return fit(step, state, batches=Stopping(), **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", crash)
        with pytest.raises(CrashError):
            train.run(config, tmp_path / "run")
    make_mask = train.make_mask

    def other_mask(config, texts):
        mask = make_mask(config, texts)
        return mask and jax.tree.map(lambda leaf: ~leaf, mask)

    monkeypatch.setattr(train, "make_mask", other_mask)
    again = train.run(config, tmp_path / "run")
    figures = ("validation_loss", "test_loss", "test_accuracy")
    assert [again[name] for name in figures] == [whole[name] for name in figures]
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "e"}, "method='e' is unknown"),
        ({"optimizer": "sgd"}, "optimizer='sgd' is unknown"),
        ({"fisher": "mean"}, "fisher='mean' is unknown"),
        ({"competing": "head"}, "competing='head' is unknown"),
        ({"decay": "none"}, "decay must be all or child, got 'none'"),
        ({"reserve_p": 0.0}, r"reserve_p must be in \(0, 1\], got 0.0"),
        ({"reserve_p": 1.5}, r"reserve_p must be in \(0, 1\], got 1.5"),
        ({"reserve_p": float("nan")}, r"reserve_p must be in \(0, 1\], got nan"),
        ({"optimizer": "child_adamw", "method": "f"}, "method must be d, got 'f'"),
        ({"regularizer": "vat"}, "regularizer='vat' is unknown"),
        ({"regularizer": "rdrop", "alpha": -1.0}, "alpha must be .* got -1.0"),
        (
            {"regularizer": "rdrop", "alpha": float("inf")},
            "alpha must be .* got inf",
        ),
        (
            {"label_column": "score"},
            "column 'score' of .* needed are classes: write them",
        ),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, got 0.0"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction must be in \[0, 1\), got 1.0"),
        ({"encoder": "nowhere"}, "encoder 'nowhere' is not a folder"),
        ({"batch_size": 21}, "batch_size must be at most 20"),
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
