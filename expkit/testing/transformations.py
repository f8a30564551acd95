"""The conformance suite of an `optax.GradientTransformation`.

Example, one test per property::

    @pytest.mark.parametrize(
        "check",
        transformation_checks(
            optax.lion,
            hyperparameters={"learning_rate": 1e-3, "weight_decay": 1e-2},
            optimizer=True,
            learning_rate=0.03,
        ),
        ids=lambda check: check.name,
    )
    def test_lion_conforms(check):
        check()

or all of them in one call: `check_transformation(optax.lion, ...)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optax
from jax.typing import DTypeLike

from expkit.testing import composition, execution, injection, robustness, stability
from expkit.testing.checks import Check, bind_checks, run_checks
from expkit.testing.transformation_case import TransformationCase

_CHECKS = (
    *composition.CHECKS,
    *injection.CHECKS,
    *stability.CHECKS,
    *execution.CHECKS,
    *robustness.CHECKS,
)


def transformation_checks(
    make: Callable[..., optax.GradientTransformation],
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    takes_params: bool = False,
    update_dtype: DTypeLike | None = None,
    optimizer: bool = False,
    learning_rate: float | None = None,
    max_loss_ratio: float = 0.1,
    num_steps: int = 300,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Lists the properties of a transformation as callables, for `parametrize`.

    Args:
        make: builds the transformation, `make(**hyperparameters)`; called anew for
            every run, so that runs share no Python state.
        hyperparameters: keyword arguments of `make`. Those that are non-zero numbers
            are also injected, traced and halved, so half the value must be valid and
            must change the first three updates. Under injection the numeric defaults
            of `make` are traced too, as `optax.inject_hyperparams` does; wrap `make` in
            a function of `**kwargs` when only the named ones may be.
        takes_params: call `make(params, **hyperparameters)`, for transformations that
            are built from a tree like the parameters (a mask, say).
        update_dtype: dtype of every update when it is not that of the gradient.
        optimizer: whether updates descend, so that `converges` applies.
        learning_rate: for `converges`: replaces the hyperparameter of this name, or
            follows the transformation when it has none. None changes nothing.
        max_loss_ratio: for `converges`: final over initial loss.
        num_steps: for `converges`.
        rtol: relative tolerance between two float32 programs for the same arithmetic
            (jitted and eager, sharded and not): they round differently.
        atol: absolute tolerance, likewise.
        exempt: why a property does not apply, by its name.

    Returns:
        The checks that apply, in a fixed order.

    Raises:
        ValueError: if `exempt` names no check or gives no reason.
    """
    case = TransformationCase(
        make=make,
        hyperparameters=dict(hyperparameters or {}),
        takes_params=takes_params,
        update_dtype=update_dtype,
        learning_rate=learning_rate,
        max_loss_ratio=max_loss_ratio,
        num_steps=num_steps,
        rtol=rtol,
        atol=atol,
    )
    if not optimizer:
        exempt = {"converges": "not an optimizer", **(exempt or {})}
    return bind_checks(_CHECKS, case, exempt)


def check_transformation(
    make: Callable[..., optax.GradientTransformation], **options: Any
) -> None:
    """Checks every property of a transformation and reports all failures together.

    Args:
        make: builds the transformation.
        **options: those of `transformation_checks`.

    Raises:
        AssertionError: naming each property that fails, with the leaf, what was got
            and what was expected.
        ValueError: if `exempt` names no check or gives no reason.
    """
    run_checks(transformation_checks(make, **options))
