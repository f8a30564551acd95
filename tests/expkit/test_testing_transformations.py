import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit.testing import check_transformation, run_checks, transformation_checks

CONFORMING = {
    "lion": (
        optax.lion,
        {
            "hyperparameters": {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.99},
            "optimizer": True,
            "learning_rate": 0.03,
        },
    ),
    "adamw": (
        optax.adamw,
        {
            "hyperparameters": {"learning_rate": 1e-3, "weight_decay": 1e-2},
            "optimizer": True,
            "learning_rate": 0.03,
        },
    ),
    "sgd": (
        optax.sgd,
        {
            "hyperparameters": {"learning_rate": 1e-2, "momentum": 0.9},
            "optimizer": True,
            "exempt": {"extra_arguments": "an example of leaving a property out"},
        },
    ),
    "scale_by_adam": (
        optax.scale_by_adam,
        {"optimizer": True, "learning_rate": 0.03},
    ),
    "clip_by_global_norm": (
        optax.clip_by_global_norm,
        {"hyperparameters": {"max_norm": 1.0}},
    ),
}


# All properties of one transformation, and those that a norm of all leaves may break.
QUICK = {
    "lion": None,
    "clip_by_global_norm": (
        "empty_tree",
        "sharded_equals_unsharded",
        "zero_gradient",
        "zero_size_leaves",
    ),
}


@pytest.mark.parametrize(
    "check",
    [
        case
        for name, (make, options) in CONFORMING.items()
        for case in conformance.cases(
            transformation_checks(make, **options), name, quick=QUICK.get(name, ())
        )
    ],
)
def test_optax_conforms(check):
    check()


@pytest.mark.slow
def test_a_transformation_built_from_a_tree_conforms():
    def keep_positive(params, factor):
        masks = jax.tree.map(lambda p: p > 0, params)
        return optax.stateless(
            lambda updates, _: jax.tree.map(
                lambda u, m: jnp.where(m, factor * u, 0), updates, masks
            )
        )

    check_transformation(
        keep_positive,
        hyperparameters={"factor": 2.0},
        takes_params=True,
        exempt={
            "vmap_equals_loop": "the mask belongs to one set of parameters",
            "sharded_equals_unsharded": "the mask is closed over, already placed",
        },
    )


def test_a_wider_update_dtype_can_be_stated():
    def widen():
        return optax.stateless(
            lambda updates, _: jax.tree.map(lambda u: u.astype(jnp.float32), updates)
        )

    (check,) = select(transformation_checks(widen, update_dtype="float32"), "dtypes")
    check()
    (check,) = select(transformation_checks(widen), "dtypes")
    with pytest.raises(AssertionError, match=r"\['bias'\]: got float32, expected bflo"):
        check()


def test_hyperparameters_of_other_kinds_stay_static():
    checks = transformation_checks(
        optax.lion,
        hyperparameters={"learning_rate": 1e-3, "mu_dtype": jnp.bfloat16},
    )
    (check,) = select(checks, "inject_hyperparams")
    check()


def test_keyword_only_factories_are_injected_by_name():
    def make(**hyperparameters):
        return optax.scale(hyperparameters["factor"])

    checks = transformation_checks(make, hyperparameters={"factor": 2.0})
    (check,) = select(checks, "inject_hyperparams")
    check()


def test_an_ignored_hyperparameter_is_reported():
    def make(factor, unused):
        del unused
        return optax.scale(factor)

    checks = transformation_checks(make, hyperparameters={"factor": 2.0, "unused": 1.0})
    (check,) = select(checks, "inject_hyperparams")
    with pytest.raises(
        AssertionError, match=r"'unused': 0.5.*got those of the default"
    ):
        check()


def test_exempt_checks_are_left_out_and_unknown_names_are_listed():
    names = [check.name for check in transformation_checks(optax.identity)]
    assert "converges" not in names
    without = transformation_checks(optax.identity, exempt={"chain": "a reason"})
    assert [check.name for check in without] == [n for n in names if n != "chain"]
    with pytest.raises(
        ValueError, match=r"no check: 'chian'.*Known: .*chain, .*dtypes"
    ):
        transformation_checks(optax.identity, exempt={"chian": "a reason"})
    with pytest.raises(
        ValueError, match=r"exempt\['chain'\] must be a reason, got ' '"
    ):
        transformation_checks(optax.identity, exempt={"chain": " "})


def test_one_run_reports_every_failure():
    def make():
        return optax.stateless(
            lambda updates, _: jax.tree.map(
                lambda u: (u / jnp.max(u)).astype(jnp.float32), updates
            )
        )

    checks = transformation_checks(make)
    names = ("dtypes", "zero_size_leaves", "zero_gradient")
    some = [check for check in checks if check.name in ("chain", *names)]
    with pytest.raises(AssertionError) as error:
        run_checks(some)
    message = str(error.value)
    assert message.startswith("3 of 4 properties fail:")
    for name in names:
        assert f"\n{name}: " in message
    assert "leaf ['bias']: got nan at index (0,), expected finite" in message
    assert "property: Updates are finite when the gradient is zero" in message


def test_every_check_states_its_property():
    checks = transformation_checks(optax.identity, optimizer=True)
    assert len({check.name for check in checks}) == len(checks) > 20
    for check in checks:
        assert check.statement.endswith("."), check.name


def test_the_data_of_the_suite_are_the_same_in_every_run():
    from expkit.testing import transformation_case as case

    params = case.example_params()
    for first, second in zip(
        case.example_gradients(params), case.example_gradients(params), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, first, second)


def select(checks, name):
    return [check for check in checks if check.name == name]
