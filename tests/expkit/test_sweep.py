"""A sweep trains the runs that the training loop trains, and finds known minima."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit import loop, sweep
from expkit.data import Batches

NUM_STEPS = 20


def make_problem():
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(50, 3)).astype(np.float32)}
    arrays["y"] = arrays["x"] @ np.array([1.0, -2.0, 3.0], np.float32)

    def init(key):
        return jax.random.normal(key, (3,))

    def loss_fn(params, batch, key):
        noise = jax.random.normal(key, batch["y"].shape)  # so that keys matter
        return jnp.square(batch["x"] @ params - batch["y"] + 0.1 * noise).mean(), {}

    return arrays, init, loss_fn


def test_a_compiled_run_is_the_run_of_the_loop(tmp_path):
    arrays, init, loss_fn = make_problem()
    train = sweep.compile_training(loss_fn, init, optax.sgd)
    rows = sweep.batch_rows(50, 8, NUM_STEPS, seed=3)
    key = jax.random.key(1)
    params, losses = train({"learning_rate": 0.05}, key, arrays, rows)

    init_key, run_key = jax.random.split(key)
    optimizer = optax.sgd(0.05)
    state = loop.fit(
        loop.make_step(loss_fn, optimizer),
        loop.init_state(init(init_key), optimizer, run_key),
        Batches(arrays, 8, seed=3, remainder="wrap"),
        num_steps=NUM_STEPS,
        workdir=tmp_path,
    )
    np.testing.assert_allclose(params, state.params, rtol=1e-5)
    assert losses.shape == (NUM_STEPS,)
    other, _ = train({"learning_rate": 0.05}, jax.random.key(2), arrays, rows)
    assert np.abs(other - params).max() > 1e-3  # the control


def test_a_grid_compiles_once():
    arrays, init, loss_fn = make_problem()
    traces = []

    def make_optimizer(**settings):
        traces.append(settings)
        return optax.sgd(**settings)

    train = sweep.compile_training(loss_fn, init, make_optimizer)
    for seed, rate in enumerate((0.01, 0.1, 0.2)):
        rows = sweep.batch_rows(50, 8, NUM_STEPS, seed)
        train({"learning_rate": rate}, jax.random.key(seed), arrays, rows)
    assert len(traces) == 1


def test_batch_rows_visit_every_row_once_an_epoch():
    rows = sweep.batch_rows(num_rows=12, batch_size=4, num_steps=6, seed=0)
    np.testing.assert_array_equal(np.sort(rows[:3].ravel()), np.arange(12))
    np.testing.assert_array_equal(np.sort(rows[3:].ravel()), np.arange(12))
    assert (rows[:3] != rows[3:]).any()


def test_a_grid_has_one_axis_a_setting():
    figures = sweep.over_grid(
        lambda a, b, seed: {"sum": a + b, "seed": seed}, [1.0, 2.0], [10.0], seed=7
    )
    np.testing.assert_array_equal(figures["sum"], [[11.0], [12.0]])
    np.testing.assert_array_equal(figures["seed"], [[7], [7]])
    figures = sweep.over_grid(lambda a, seed: {"rows": [a, -a, seed]}, [1, 2], seed=7)
    np.testing.assert_array_equal(figures["rows"], [[1, -1, 7], [2, -2, 7]])


def test_the_lowest_mean_is_chosen_and_a_diverged_seed_counts_as_infinite():
    losses = np.array([[[1.0, 0.1], [0.5, 3.0]], [[1.0, np.nan], [0.6, 3.0]]])
    assert sweep.lowest(losses) == (1, 0)
    assert sweep.lowest(np.full((2, 3), np.nan)) == (0,)


@pytest.mark.parametrize("center", [2e-3, 5e-3, 1.3e-2])
def test_the_minimum_of_a_parabola_in_logarithms_is_found_between_grid_points(center):
    x = 1e-3 * 2.0 ** np.arange(6)
    losses = 0.3 * np.exp(0.5 * np.log(x / center) ** 2)
    np.testing.assert_allclose(sweep.refined_minimum(x, losses), center, rtol=1e-6)


@pytest.mark.parametrize(
    ("losses", "lowest"),
    [([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2), ([np.nan, 2.0, 3.0], 1)],
)
def test_a_minimum_without_two_finite_neighbours_is_the_grid_point(losses, lowest):
    x = np.array([0.1, 0.2, 0.4])
    assert sweep.refined_minimum(x, np.array(losses)) == x[lowest]


def test_records_are_taken_before_the_first_step_and_after_every_block():
    arrays, init, loss_fn = make_problem()

    def record(params, held_out):
        return {"params": params, "error": jnp.sum(params * held_out)}

    train = sweep.compile_recorded_training(loss_fn, init, optax.sgd, record)
    rows = sweep.batch_rows(50, 8, NUM_STEPS, seed=3)
    key, ones, settings = jax.random.key(1), jnp.ones(3), {"learning_rate": 0.05}
    blocks = rows.reshape(2, 10, 8)
    params, losses, records = train(settings, key, arrays, blocks, ones)
    plain = sweep.compile_training(loss_fn, init, optax.sgd)
    for n in (1, 2):
        expected, expected_losses = plain(settings, key, arrays, rows[: 10 * n])
        np.testing.assert_allclose(records["params"][n], expected, rtol=1e-5)
        np.testing.assert_allclose(records["error"][n], expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_array_equal(records["params"][-1], params)
    first = init(jax.random.split(key)[0])
    np.testing.assert_array_equal(records["params"][0], first)


def test_settings_of_the_loss_do_not_reach_the_optimizer():
    arrays, init, loss_fn = make_problem()

    def scaled(params, batch, key, *, strength):
        loss, metrics = loss_fn(params, batch, key)
        return strength * loss, metrics

    train = sweep.compile_training(scaled, init, optax.sgd, loss_settings=("strength",))
    rows = sweep.batch_rows(50, 8, NUM_STEPS, seed=3)
    key = jax.random.key(1)
    settings = {"learning_rate": 0.025, "strength": 2.0}
    params, _ = train(settings, key, arrays, rows)
    plain = sweep.compile_training(loss_fn, init, optax.sgd)
    expected, _ = plain({"learning_rate": 0.05}, key, arrays, rows)
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_fine_tuning_is_training_from_the_parameters_given():
    arrays, init, loss_fn = make_problem()
    rows = sweep.batch_rows(50, 8, NUM_STEPS, seed=3)
    key, settings = jax.random.key(1), {"learning_rate": 0.05}
    trained = sweep.compile_training(loss_fn, init, optax.sgd)
    expected, expected_losses = trained(settings, key, arrays, rows)
    tuned = sweep.compile_finetuning(loss_fn, optax.sgd)
    start = init(jax.random.split(key)[0])
    params, losses = tuned(settings, start, key, arrays, rows)
    np.testing.assert_allclose(params, expected, rtol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_array_equal(start, init(jax.random.split(key)[0]))
    other, _ = tuned(settings, start + 1.0, key, arrays, rows)
    assert np.abs(other - params).max() > 1e-3  # the control


def test_every_array_may_have_rows_of_its_own():
    """Plain gradient descent on sums of rows, written out in numpy."""
    arrays = {"a": np.arange(4.0, dtype=np.float32), "b": np.float32([10.0, 20.0])}
    rows = {"a": np.array([[0, 1, 2], [3, 3, 0]]), "b": np.array([[1], [0]])}

    def loss_fn(params, batch, key, *, weight):
        del key
        return params * (batch["a"].sum() + weight * batch["b"].sum()), {}

    tuned = sweep.compile_finetuning(loss_fn, optax.sgd, loss_settings=("weight",))
    settings = {"learning_rate": 0.1, "weight": 2.0}
    params, losses = tuned(settings, jnp.float32(1.0), jax.random.key(0), arrays, rows)
    expected, seen = 1.0, []
    for total in (0 + 1 + 2 + 2 * 20, 3 + 3 + 0 + 2 * 10):
        seen.append(expected * total)
        expected -= 0.1 * total
    np.testing.assert_allclose(params, expected, rtol=1e-6)
    np.testing.assert_allclose(losses, seen, rtol=1e-6)


def test_rows_of_one_array_alone_are_refused():
    arrays, _, loss_fn = make_problem()
    tuned = sweep.compile_finetuning(loss_fn, optax.sgd)
    rows = {"x": sweep.batch_rows(50, 8, 2, seed=0)}
    with pytest.raises(KeyError, match="y"):
        tuned({"learning_rate": 0.1}, jnp.zeros(3), jax.random.key(0), arrays, rows)


def test_recorded_fine_tuning_is_fine_tuning_with_records_of_it():
    arrays, _, loss_fn = make_problem()
    start, key = jnp.ones(3), jax.random.key(2)
    settings = {"learning_rate": 0.05}
    rows = sweep.batch_rows(50, 8, NUM_STEPS, seed=3)
    plain = sweep.compile_finetuning(loss_fn, optax.sgd)
    expected, losses = plain(settings, start, key, arrays, rows)
    fit = sweep.compile_recorded_finetuning(
        loss_fn, optax.sgd, lambda params, held_out: params * held_out
    )
    blocks = rows.reshape(4, NUM_STEPS // 4, 8)
    params, recorded, records = fit(settings, start, key, arrays, blocks, 2.0)
    np.testing.assert_allclose(params, expected, rtol=1e-6)
    np.testing.assert_allclose(recorded, losses, rtol=1e-5)
    np.testing.assert_allclose(records[0], 2 * start)
    np.testing.assert_allclose(records[-1], 2 * expected, rtol=1e-6)
    assert records.shape == (5, 3)
    part, _ = plain(settings, start, key, arrays, rows[: NUM_STEPS // 4])
    np.testing.assert_allclose(records[1], 2 * part, rtol=1e-6)


def test_figures_of_runs_are_stacked_with_nan_where_there_is_none():
    rows = [{"loss": 1.0, "course": [1, 2]}, {"loss": None, "course": [3, 4]}]
    got = sweep.stacked(rows)
    np.testing.assert_array_equal(got["loss"], [1.0, np.nan])
    np.testing.assert_array_equal(got["course"], [[1.0, 2.0], [3.0, 4.0]])


def test_of_equal_accuracies_the_one_with_the_lower_loss_is_chosen():
    accuracies = np.array([[0.7, 0.9, 0.9, 0.8], [0.7, 0.9, 0.9, 1.0]])
    losses = np.array([[0.1, 0.5, 0.4, 0.1], [0.1, 0.5, 0.4, np.nan]])
    assert sweep.most_accurate(accuracies, losses) == (2,)
    assert sweep.most_accurate(accuracies, losses[:, ::-1]) == (3,)
