"""Runs of a check are those of the loop, and studies tune on validation alone."""

import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import tiny_texts

from expkit import claims, data, finetuning_runs, loop
from expkit import study as study_lib

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, pytestconfig):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"))
    reference = f"{pytestconfig.rootpath}/configs/rdrop/reviews.py:smoke,num_steps=5"
    return finetuning_runs.Lab(tiny_texts.load(reference, folder))


def test_a_lab_has_all_labels_and_a_run_some(lab):
    assert len(lab.texts.task.splits["train"]["label"]) == 60
    assert lab.config.num_labels == 20
    arrays, rest = lab.draw(0)
    assert len(arrays["label"]) == 20
    assert arrays["label"].sum() == 10
    assert set(rest) == {"ids"}
    both = np.concatenate([arrays["ids"], rest["ids"]])
    whole = lab.texts.task.splits["train"]["ids"]
    assert sorted(map(tuple, both)) == sorted(map(tuple, whole))


def test_what_a_seed_draws_is_the_same_for_every_arm(lab):
    first, again, other = (lab.draw(seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first[0]["ids"] != other[0]["ids"]).any()
    heads = [lab.initial(seed)["head"]["kernel"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).all()


@pytest.mark.slow
def test_a_run_is_that_of_the_loop(lab):
    """Step by step, with the batches that `data.Batches` gives."""
    loss_fn = lab.texts.task.loss_fn
    run = lab.compile(loss_fn, optax.sgd)
    got = run({"learning_rate": 0.3}, seed=2)
    optimizer = optax.sgd(0.3)
    arrays, _ = lab.draw(2)
    run_key = jax.random.split(jax.random.key(2))[1]
    state = loop.init_state(lab.initial(2), optimizer, run_key)
    step = jax.jit(loop.make_step(loss_fn, optimizer))
    batches = data.Batches(arrays, lab.config.batch_size, seed=2, remainder="wrap")
    for i in range(5):
        state, _ = step(state, batches[i])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, state.params
    )
    moved = np.abs(got["head"]["kernel"] - lab.initial(2)["head"]["kernel"]).max()
    assert moved > 1e-2  # the control


def quadratic(seen):
    """A loss without a network, which records what its batches are."""

    def loss_fn(params, batch, key, *, strength=1.0):
        del key
        seen.append({name: array.shape for name, array in batch.items()})
        return strength * jnp.square(params["head"]["bias"]).sum(), {}

    return loss_fn


def test_batches_hold_texts_without_label_where_asked(lab):
    for with_unlabelled in (False, True):
        seen = []
        run = lab.compile(
            quadratic(seen), optax.sgd, with_unlabelled=with_unlabelled, num_steps=1
        )
        run({"learning_rate": 0.1}, seed=0)
        expected = {"ids": (4, 16), "label": (4,)}
        if with_unlabelled:
            expected["unlabelled_ids"] = (4, 16)
        assert all(shapes == expected for shapes in seen)


def test_settings_reach_loss_and_optimizer_and_compile_once(lab):
    seen, bias = [], jnp.ones(2)

    def initial(seed):
        del seed
        return {"head": {"bias": bias}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "initial", initial)
        run = lab.compile(
            quadratic(seen), optax.sgd, loss_settings=("strength",), num_steps=3
        )
        traced = None
        for rate, strength in ((0.1, 1.0), (0.05, 4.0)):
            settings = {"learning_rate": rate, "strength": strength}
            got = run(settings, seed=0)["head"]["bias"]
            expected = (1 - 2 * rate * strength) ** 3
            np.testing.assert_allclose(got, expected, rtol=1e-5)
            assert traced in (None, len(seen))
            traced = len(seen)


def test_n_grams_are_fitted_to_the_labels_of_the_seed(lab):
    # One character tells the label, but not every one is among 20 texts for sure.
    assert lab.ngram_accuracy(0) > 0.8


@pytest.mark.parametrize("is_least", [False, True])
def test_functions_are_timed_in_turn_after_one_call(monkeypatch, is_least):
    # Seconds of each call: one that compiles and three rounds.
    seconds = {"a": [9.0, 3.0, 1.0, 2.0], "b": [9.0, 5.0, 6.0, 4.0]}
    now, order = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def function(name):
        def call():
            order.append(name)
            now[0] += seconds[name][order.count(name) - 1]

        return call

    functions = {name: function(name) for name in "ab"}
    if is_least:
        least = finetuning_runs.least_seconds(functions, rounds=3)
        assert least == {"a": 1.0, "b": 4.0}
    else:
        rounds = finetuning_runs.round_seconds(functions, rounds=3)
        assert rounds == {name: row[1:] for name, row in seconds.items()}
    assert "".join(order) == "abababab"


class Planted:
    """Figures by arm, rate and seed instead of runs."""

    def __init__(self, study, figures):
        self.calls = []

        def evaluate(params, split):
            values = figures(*params)
            return {k: v for k, v in values.items() if k.startswith(split)}

        def compile_arm(lab, arm):
            del lab

            def run(settings, *, seed):
                self.calls.append((arm, settings["learning_rate"], seed))
                return self.calls[-1]

            return run

        study.lab = type("Lab", (), {"evaluate": staticmethod(evaluate)})
        study._compile = lambda arm: compile_arm(None, arm)


def make_study(folder, figures, seeds=range(3), rates=(0.1, 0.2, 0.3)):
    config = ml_collections.ConfigDict({"num_labels": 20})
    grids = {"a": {"learning_rate": rates}, "b": {"learning_rate": (0.5,)}}
    study = study_lib.Study(
        claims.Context(folder), config, lambda lab, arm: None, grids, seeds
    )
    return study, Planted(study, figures)


def figures(arm, rate, seed):
    """The middle rate wins in validation, the last in the test."""
    del arm
    return {
        "validation_accuracy": 0.9 - abs(rate - 0.2) - 0.01 * seed,
        "validation_loss": 1.0,
        "test_accuracy": rate + 0.001 * seed,
        "test_loss": 2.0,
    }


def test_settings_are_chosen_by_validation_on_the_first_seeds(tmp_path):
    study, planted = make_study(tmp_path, figures)
    assert study.tuned("a") == {"learning_rate": 0.2}
    assert {seed for _, _, seed in planted.calls} == {0, 1}
    assert len(planted.calls) == 5  # of three settings two go on
    np.testing.assert_allclose(study.test("a"), [0.2, 0.201, 0.202])
    np.testing.assert_array_equal(study.test("a", "loss"), [2.0, 2.0, 2.0])
    assert len(planted.calls) == 6  # the third seed of the chosen one


def test_a_later_seed_has_no_say_in_the_settings(tmp_path):
    def last_seed_differs(arm, rate, seed):
        row = figures(arm, rate, seed)
        if seed == 2:
            row["validation_accuracy"] = 10.0 * (rate == 0.3)
        return row

    study, _ = make_study(tmp_path, last_seed_differs)
    assert study.tuned("a") == {"learning_rate": 0.2}


def test_an_arm_without_choice_is_not_tuned(tmp_path):
    study, planted = make_study(tmp_path, figures)
    assert study.tuned("b") == {"learning_rate": 0.5}
    assert planted.calls == []


def test_a_study_that_was_stopped_repeats_no_run(tmp_path):
    study, planted = make_study(tmp_path, figures)
    accuracy = study.test("a")
    again, replanted = make_study(tmp_path, figures)
    np.testing.assert_array_equal(again.test("a"), accuracy)
    assert replanted.calls == []
    assert len(planted.calls) == 6
    # The control: another config is another study.
    other, others = make_study(tmp_path, figures)
    other.config.num_labels = 21
    other.test("b")
    assert len(others.calls) == 3


@pytest.mark.parametrize(("full", "made"), [(True, 3), (False, 2)])
def test_full_mode_keeps_the_parameters_of_the_last_run_alone(tmp_path, full, made):
    study, planted = make_study(tmp_path, figures)
    study.context = claims.Context(tmp_path, full=full)
    for rate in (0.1, 0.1, 0.2, 0.1):
        assert study.run("a", 0, {"learning_rate": rate}) == ("a", rate, 0)
    assert len(planted.calls) == made


def test_a_regression_takes_the_lowest_loss(tmp_path):
    def losses(arm, rate, seed):
        del arm, seed
        return {"validation_loss": abs(rate - 0.3), "test_loss": 1.0}

    study, _ = make_study(tmp_path, losses)
    assert study.tuned("a") == {"learning_rate": 0.3}


def test_a_run_that_diverged_is_not_chosen_and_leaves_a_gap(tmp_path):
    def diverging(arm, rate, seed):
        row = figures(arm, rate, seed)
        if rate == 0.2 or (arm == "b" and seed == 1):
            row |= {"validation_loss": np.nan, "test_loss": np.nan}
        return row

    study, _ = make_study(tmp_path, diverging)
    assert study.tuned("a")["learning_rate"] in (0.1, 0.3)
    np.testing.assert_array_equal(study.test("b", "loss"), [2.0, np.nan, 2.0])


def test_grids_of_two_settings_are_tried_in_full(tmp_path):
    study, _ = make_study(tmp_path, figures)
    study.grids = {"c": {"learning_rate": (0.1, 0.2), "strength": (1.0, 4.0)}}
    tried = []
    study.figures = lambda arm, seed, settings: (
        tried.append(tuple(settings.values()))
        or {"validation_accuracy": settings["strength"], "validation_loss": 0.0}
    )
    assert study.tuned("c") == {"learning_rate": 0.1, "strength": 4.0}
    assert set(tried) == {(0.1, 1.0), (0.1, 4.0), (0.2, 1.0), (0.2, 4.0)}
