"""Compiled runs are plain runs, and what the checks make of how they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from expkit import config as config_lib
from expkit import data, loop, sweep, testing
from igr import checks_descent, checks_runs, train

NUM_ROWS = 40
CONFIG = (
    "configs/igr/digits.py:hidden=(4,),learning_rate=0.3,strength=0.05,"
    "regularizer=parameter_penalty,"
)


@pytest.fixture(autouse=True, scope="module")
def images():
    """Three classes of noise on three pictures; the first pixel is the row."""

    def rows(name, split, *, data_dir=None):
        del name, data_dir
        sizes = {"train": NUM_ROWS, "validation": 12, "test": 12}
        rng = np.random.default_rng(len(split))
        labels = np.arange(sizes[split]) % 3
        pictures = np.random.default_rng(0).integers(0, 150, (3, 2, 2, 1))
        noise = rng.integers(0, 100, (len(labels), 2, 2, 1))
        image = (pictures[labels] + noise).astype(np.uint8)
        image[:, 0, 0, 0] = np.arange(len(labels))
        return {"image": image, "label": labels.astype(np.int32)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", rows)
        yield


@pytest.fixture(scope="module")
def load(repository_root):
    return lambda arg: config_lib.load(f"{repository_root}/{CONFIG}{arg}")


def flat(params, splits):
    """A record: the parameters themselves."""
    del splits
    return {"params": ravel_pytree(params)[0]}


def looped(config, seed, *sequences):
    """Parameters along a plain Python loop over each sequence of batches' rows."""
    task = train.make_task(config)
    arrays, optimizer = task.splits["train"], train.make_optimizer(config)
    step = jax.jit(loop.make_step(train.make_loss(config, task), optimizer))
    init_key, run_key = jax.random.split(jax.random.key(seed))
    start = loop.init_state(jax.jit(task.net.init)(init_key), optimizer, run_key)
    runs = []
    for batches in sequences:
        states = [start]
        for rows in batches:
            batch = {name: array[rows] for name, array in arrays.items()}
            states.append(step(states[-1], batch)[0])
        leaves = [jax.tree.leaves(state.params) for state in states]
        runs.append([np.concatenate([np.ravel(x) for x in row]) for row in leaves])
    return np.array(runs)


@pytest.fixture(scope="module")
def rows_of_steps(load):
    """`seed -> rows [8, 10]`: what each step of `compile_descent` sees.

    With a loss whose gradient in a vector of biases counts the rows of the batch.
    """
    config = load("batch_size=10,learning_rate=1,regularizer=none")
    config.hidden = (NUM_ROWS,)

    def make_loss(config, task):
        del config, task

        def loss_fn(params, batch, key, *, strength):
            del key, strength
            rows = jax.nn.one_hot(batch["image"][:, 0, 0, 0], NUM_ROWS)
            return jnp.vdot(params["hidden"][0]["bias"], rows.sum(axis=0)), {}

        return loss_fn

    def record(params, splits):
        del splits
        return {"counts": -params["hidden"][0]["bias"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_loss", make_loss)
        run = checks_descent.compile_descent(config, record, num_records=8)

    def rows(seed):
        counts = np.diff(run(seed=seed, num_steps=8)[1]["counts"], axis=0)
        counts = np.round(counts).astype(int)
        return np.array([np.repeat(np.arange(NUM_ROWS), row) for row in counts])

    return rows


def test_full_batch_descent_is_the_plain_loop(load):
    config = load(f"batch_size={NUM_ROWS},regularizer=none")
    run = checks_descent.compile_descent(config, flat, num_records=3)
    params, records = run(seed=5, num_steps=12)
    (expected,) = looped(config, 5, [np.arange(NUM_ROWS)] * 12)
    np.testing.assert_allclose(records["params"], expected[::4], atol=2e-6)
    np.testing.assert_array_equal(flat(params, None)["params"], records["params"][-1])
    assert np.abs(expected[-1] - expected[0]).max() > 0.1
    assert np.abs(run(seed=6, num_steps=12)[1]["params"] - expected[::4]).max() > 0.1


def test_every_row_is_seen_once_an_epoch_in_another_order(rows_of_steps):
    rows = rows_of_steps(3)
    np.testing.assert_array_equal(np.sort(rows[:4].ravel()), np.arange(NUM_ROWS))
    np.testing.assert_array_equal(np.sort(rows[4:].ravel()), np.arange(NUM_ROWS))
    assert (rows[:4] != rows[4:]).any()
    assert (rows_of_steps(4) != rows).any()


def test_minibatch_descent_is_the_plain_loop_over_those_rows(load, rows_of_steps):
    config = load("batch_size=10,regularizer=none")
    run = checks_descent.compile_descent(config, flat)
    _, records = run(seed=3, num_steps=6)
    in_order = np.arange(NUM_ROWS).reshape(4, 10)[[0, 1, 2, 3, 0, 1]]  # the control
    expected, other = looped(config, 3, rows_of_steps(3)[:6], in_order)
    np.testing.assert_allclose(records["params"], expected[[0, -1]], atol=2e-6)
    assert np.abs(other[-1] - expected[-1]).max() > 1e-3


def test_lengths_and_settings_share_one_compilation(load):
    run = checks_descent.compile_descent(load(f"batch_size={NUM_ROWS}"), flat)
    with testing.count_compilations() as log:
        first = run(seed=0, num_steps=2)
    assert sum("descend" in name for name in log.names) == 1
    with testing.count_compilations() as log:
        longer = run(seed=0, num_steps=5)
        faster = run(seed=0, num_steps=2, learning_rate=0.6)
        stronger = run(seed=0, num_steps=2, strength=0.5)
    assert not log.names
    ends = [records["params"][-1] for _, records in (first, longer, faster, stronger)]
    assert all(np.abs(ends[0] - end).max() > 1e-3 for end in ends[1:])


@pytest.mark.parametrize(
    "compile_fn", [checks_descent.compile_descent, checks_runs.compile_run]
)
def test_steps_that_are_no_multiple_of_the_records_are_refused(load, compile_fn):
    run = compile_fn(load("batch_size=10"), flat, num_records=3)
    with pytest.raises(ValueError, match=r"num_steps=7 .* multiple of .*=3"):
        run(seed=0, num_steps=7)


@pytest.mark.parametrize("size", [15, 30, 41])  # 30 and 41 would have been all rows
def test_batches_that_do_not_divide_the_training_set_are_refused(load, size):
    with pytest.raises(ValueError, match=f"batch_size={size} .* 40"):
        checks_descent.compile_descent(load(f"batch_size={size}"), flat)


def test_a_compiled_run_is_the_plain_loop(load):
    config = load("batch_size=16,num_steps=6,regularizer=none")
    run = checks_runs.compile_run(config, flat, num_records=2)
    params, records = run(seed=5)
    (expected,) = looped(config, 5, sweep.batch_rows(NUM_ROWS, 16, 6, seed=5))
    np.testing.assert_allclose(records["params"], expected[::3], atol=2e-6)
    np.testing.assert_array_equal(flat(params, None)["params"], records["params"][-1])


def test_wrong_labels_differ_from_seed_to_seed_and_only_in_training(load):
    def labels(params, splits):
        del params
        return {name: arrays["label"] for name, arrays in splits.items()}

    config = load("batch_size=10,label_noise=0.25,num_steps=1,regularizer=none")
    run = checks_runs.compile_run(config, labels)
    right = train.make_task(load("batch_size=10")).splits
    first, second, again = (run(seed=seed)[1] for seed in (1, 2, 1))
    for records in (first, second):
        assert (records["train"][0] != right["train"]["label"]).sum() == NUM_ROWS // 4
        for name in ("validation", "test"):
            np.testing.assert_array_equal(records[name][0], right[name]["label"])
    assert (first["train"] != second["train"]).any()
    np.testing.assert_array_equal(first["train"], again["train"])


@pytest.fixture(scope="module")
def ended(load):
    """Runs of a small network for 6 units of time."""
    return checks_descent.Runs(load("batch_size=40,regularizer=none"), 6.0)


@pytest.mark.slow
def test_figures_are_those_of_the_parameters_at_the_end(load, ended):
    figures = ended.figures(1, 0.5)
    task = train.make_task(load(""))
    end, unravel = ravel_pytree(ended._end(1, 0.5, 0.0)[0])
    np.testing.assert_array_equal(ended.params(1, 0.5), end)

    @jax.jit
    def loss_fn(flat, arrays):
        return task.loss_fn(unravel(flat), arrays, None)

    arrays = task.splits["train"]
    gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
    hessian = jax.jit(jax.hessian(loss_fn, has_aux=True))(end, arrays)[0]
    pairs = [
        gradient(end, {name: rows[i : i + 2] for name, rows in arrays.items()})[0]
        for i in range(0, NUM_ROWS, 2)
    ]
    expected = {
        "regularizer": np.mean(np.square(gradient(end, arrays)[0])),
        "sharpness": np.linalg.eigvalsh(np.array(hessian, float))[-1],
        "batch_squares": np.sum(np.square(pairs)) / 20,
    }
    for split, rows in task.splits.items():
        loss, more = loss_fn(end, rows)
        expected |= {f"{split}_loss": loss, f"{split}_accuracy": more["accuracy"]}
    expected = {name: float(value) for name, value in expected.items()}
    assert 1 / 3 < figures.pop("noisy_accuracy") <= 1.0
    assert figures == pytest.approx(expected, rel=1e-4)
    assert figures["train_loss"] < 1.0
    assert "sharpness" not in ended.figures(1, 0.5, curvature=False)


@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_accuracy_falls_with_noise_on_the_parameters(load, monkeypatch, noise):
    monkeypatch.setattr(checks_descent, "NOISE", noise)
    config = load("regularizer=none,batch_size=40")
    runs, task = checks_descent.Runs(config, 6.0), train.make_task(config)
    params = task.net.init(jax.random.key(1))
    image = task.splits["train"]["image"]
    logits = task.net.apply(params, (image - image.mean()) / image.std())
    arrays = {"image": image, "label": logits.argmax(axis=-1)}  # all of them right
    accuracy = runs._noisy_accuracy(params, arrays)
    assert accuracy == 1.0 if noise == 0.0 else accuracy < 0.8


def test_every_run_ends_at_the_same_time(ended):
    """Ends differ by the order of the rate, as those of a flow's Euler steps do."""
    coarse, fine, finest = (ended.params(0, rate) for rate in (0.1, 0.05, 0.025))
    first, second = np.linalg.norm(coarse - fine), np.linalg.norm(fine - finest)
    assert first / second == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("rate", [1e6, 3e38])  # a finite loss, and nan
def test_a_diverged_run_has_no_sharpness_and_raises_nothing(ended, rate, monkeypatch):
    monkeypatch.setattr(ended, "_time", 8 * rate)
    figures = ended.figures(0, rate)
    assert np.isnan(figures["sharpness"])
    assert np.isfinite(figures["train_loss"]) == (rate == 1e6)
