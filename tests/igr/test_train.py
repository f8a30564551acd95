"""Runs from configs: label noise, optimizers, losses, refusals, and resuming."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import config as config_lib
from expkit import data, jsonfile, loop, metrics
from igr import objectives, train

SMALL = "smoke,model=linear,batch_size=16"
LABELS = np.arange(50) % 10


@pytest.fixture
def load(repository_root):
    return lambda arg: config_lib.load(f"{repository_root}/configs/igr/digits.py:{arg}")


@pytest.fixture
def rows(monkeypatch):
    """Fifty images of ten classes instead of the digits."""
    images = np.random.default_rng(0).integers(0, 17, size=(50, 8, 8, 1))
    arrays = {"image": images.astype(np.uint8), "label": LABELS}
    monkeypatch.setattr(data, "load", lambda *args, **options: dict(arrays))
    return arrays


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.33, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_exactly_the_fraction_of_labels_becomes_another_class(fraction, seed):
    noisy = train.with_label_noise(LABELS, fraction, seed)
    assert (noisy != LABELS).sum() == round(fraction * 50)
    assert noisy.dtype == LABELS.dtype
    assert set(noisy) <= set(range(10))
    np.testing.assert_array_equal(LABELS, np.arange(50) % 10)  # it is a copy
    again = train.with_label_noise(LABELS, fraction, seed)
    np.testing.assert_array_equal(noisy, again)


def test_wrong_classes_and_rows_are_uniform_and_depend_on_the_seed():
    labels = np.repeat(np.arange(4), 3000)
    noisy, other = (train.with_label_noise(labels, 0.5, seed) for seed in (0, 1))
    assert (noisy != other).mean() > 0.4
    counts = np.zeros((4, 4))
    np.add.at(counts, (labels, noisy), 1)
    expected = np.where(np.eye(4), 1500, 500)
    # Binomial and hypergeometric deviations are at most sqrt(3000 p (1 - p)).
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(3000 * 0.25)


def test_labels_of_eight_bits_do_not_overflow():
    labels = np.full(5000, 199, np.uint8)  # 5000 draws miss none of 199 classes
    noisy = train.with_label_noise(labels, 1.0, seed=0)
    assert noisy.dtype == np.uint8
    assert set(noisy) == set(range(199))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("regularizer=dropout", "regularizer='dropout' is unknown"),
        ("strength=-0.5", "strength must be at least 0 and finite, got -0.5"),
        ("strength=nan", "strength must be at least 0 and finite, got nan"),
        ("momentum=1.0", r"momentum must be in \[0, 1\), got 1.0"),
        ("momentum=-0.1", r"momentum must be in \[0, 1\), got -0.1"),
        ("optimizer=lion", "optimizer='lion' is unknown"),
        ("learning_rate=-1.0", "learning_rate must be at least 0, got -1.0"),
        ("weight_decay=-1.0", "weight_decay must be at least 0, got -1.0"),
        ("label_noise=1.5", r"label_noise must be in \[0, 1\], got 1.5"),
        ("model=rnn", "model='rnn' is unknown"),
        (
            "regularizer=two_batch_penalty,batch_size=1",
            "batch_size must be at least 2 for two_batch_penalty, got 1",
        ),
    ],
)
@pytest.mark.usefixtures("rows")
def test_a_config_that_cannot_be_used_is_refused_in_one_line(
    load, tmp_path, options, message
):
    config = load("smoke")
    for option in options.split(","):
        name, value = option.split("=")
        config[name] = type(config[name])(value)
    with pytest.raises(config_lib.ConfigError, match=message) as error:
        train.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_data_without_images_are_refused(load, tmp_path, monkeypatch):
    texts = {"text": np.array(["good", "bad"], object), "label": np.arange(2)}
    monkeypatch.setattr(data, "load", lambda *args, **options: texts)
    message = r"'digits' has \['label', 'text'\]; needed: image, label"
    with pytest.raises(config_lib.ConfigError, match=message):
        train.run(load("smoke"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_training_labels_are_noisy(load, rows):
    task = train.make_task(load(f"{SMALL},label_noise=0.5,seed=3"))
    for split, changed in (("train", 25), ("validation", 0), ("test", 0)):
        labels = task.splits[split]["label"]
        assert (labels != rows["label"]).sum() == changed, split
        assert (task.splits[split]["image"] == rows["image"]).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("momentum=0.0", [-0.1, -0.1]),
        ("momentum=0.5", [-0.1, -0.15]),  # m = g, then 0.5 g + g
        ("optimizer=adam", [-0.1, -0.1]),  # the sign of an unchanging gradient
        ("weight_decay=0.3", [-0.1, -0.1]),
    ],
)
def test_two_steps_of_an_optimizer(load, options, expected):
    optimizer = train.make_optimizer(load(f"smoke,learning_rate=0.1,{options}"))
    decay = 0.1 * 0.3 * 2.0 if "decay" in options else 0.0
    with jax.enable_x64(True):  # in float32, Adam's 1 - 0.999 has four digits
        params = {"matrix": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}
        state, grads = optimizer.init(params), jax.tree.map(jnp.ones_like, params)
        for step in expected:
            updates, state = optimizer.update(grads, state, params)
            np.testing.assert_allclose(updates["bias"], step, rtol=1e-6)
            np.testing.assert_allclose(updates["matrix"], step - decay, rtol=1e-6)


def test_a_learning_rate_may_be_given_instead_and_traced(load):
    config = load("smoke")
    params = jnp.ones(3)

    @jax.jit
    def update(rate):
        optimizer = train.make_optimizer(config, rate)
        return optimizer.update(params, optimizer.init(params), params)[0]

    np.testing.assert_allclose(update(0.7), -0.7, rtol=1e-6)


@pytest.mark.usefixtures("rows")
def test_the_strength_is_that_of_the_config_or_one_given(load):
    config = load(f"{SMALL},regularizer=flooding,strength=50.0")
    task = train.make_task(config)
    params = task.net.init(jax.random.key(0))
    loss_fn = train.make_loss(config, task)

    @jax.jit
    def evaluate(params, batch):
        return jnp.stack(
            [
                task.loss_fn(params, batch, None)[0],
                loss_fn(params, batch, None)[0],
                loss_fn(params, batch, None, strength=30.0)[0],
            ]
        )

    loss, *values = evaluate(params, task.splits["train"])
    np.testing.assert_allclose(values, 2 * np.array([50, 30]) - loss, rtol=1e-5)


@pytest.mark.usefixtures("rows")
def test_the_gradient_norm_is_that_of_multinomial_regression(load):
    task = train.make_task(load(SMALL))
    params = task.net.init(jax.random.key(0))
    arrays = task.splits["train"]
    x = arrays["image"].reshape(50, -1).astype(float)
    x = (x - x.mean()) / x.std()
    (weight,) = jax.tree.leaves(params)
    logits = x @ np.asarray(weight, float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.linalg.norm(x.T @ (p - np.eye(10)[arrays["label"]]) / 50)
    got = train.gradient_norm(task)(params, arrays)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


class CrashError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("rows")
def test_a_run_that_crashed_goes_on_to_the_figures_of_one_that_did_not(
    load, tmp_path, monkeypatch
):
    config = load(f"{SMALL},num_steps=6,checkpoint_every=2,evaluate_every=3")
    whole = train.run(config, tmp_path / "whole")
    names = {
        f"{split}_{n}" for split in ("validation", "test") for n in ("loss", "accuracy")
    }
    assert whole.keys() == names | {"train_gradient_norm"}
    assert all(map(np.isfinite, whole.values()))
    fit = loop.fit

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
    asked = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert asked[-1]["step"] < 6
    assert train.run(config, tmp_path / "run") == whole
    steps = [row["step"] for row in metrics.read(tmp_path / "run" / "metrics.jsonl")]
    assert steps == list(range(1, 7))
    stored = jsonfile.read(tmp_path / "run" / "config.json")
    assert stored["num_steps"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_every_regulariser_trains(load, rows, tmp_path, name):
    del rows
    config = load(f"smoke,regularizer={name},dropout=0.1,strength=0.1")
    figures = train.run(config, tmp_path / "run")
    assert all(map(np.isfinite, figures.values()))
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2]
    for row in found:
        assert np.isfinite([row["loss"], row["cross_entropy"], row["accuracy"]]).all()


@pytest.mark.usefixtures("rows")
def test_the_objective_falls_where_it_is_minimised(load):
    config = load(f"{SMALL},regularizer=parameter_penalty,strength=0.1")
    task, optimizer = train.make_task(config), train.make_optimizer(config)
    loss_fn = train.make_loss(config, task)
    step = jax.jit(loop.make_step(loss_fn, optimizer))
    params = task.net.init(jax.random.key(0))
    state = loop.init_state(params, optimizer, jax.random.key(1))
    evaluate = jax.jit(functools.partial(loss_fn, key=None))
    before, _ = evaluate(params, task.splits["train"])
    for _ in range(20):
        state, _ = step(state, task.splits["train"])
    after, _ = evaluate(state.params, task.splits["train"])
    assert after < 0.8 * before
