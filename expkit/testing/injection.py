"""The property that lets hyperparameters be traced, and so scheduled or searched."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from expkit.testing.compilation import TraceCounter
from expkit.testing.transformation_case import (
    Trajectory,
    TransformationCase,
    example_gradients,
    example_params,
    make_step,
    run_steps,
)


def _inject_hyperparams(case: TransformationCase) -> None:
    """Under `optax.inject_hyperparams` a new value acts at once, without retracing."""
    params = example_params()
    gradients = example_gradients(params)
    tx = _inject(case, params)
    traces = TraceCounter()
    step = jax.jit(traces.wrap(make_step(tx)))

    def run(changes: dict[str, float]) -> Trajectory:
        state: Any = tx.init(params)
        values = dict(state.hyperparams)
        for name, value in changes.items():
            values[name] = jnp.full_like(values[name], value)
        state = state._replace(hyperparams=values)
        return run_steps(tx, params, gradients, state=state, wrap=lambda _: step)

    reference = run({})
    first_traces = traces.count
    for changes in [{}, *({n: v / 2} for n, v in case.numbers().items() if v)]:
        got, what = run(changes), f"updates with {changes or 'the default values'}"
        constant = case.baseline
        if changes:
            constant = run_steps(case.build(params, **changes), params, gradients)
        case.assert_close(got.updates, constant.updates, what)
        if changes and _all_close(case, got.updates, reference.updates):
            raise AssertionError(f"{what}: got those of the default values.")
    if traces.count != first_traces:
        extra = traces.count - first_traces
        raise AssertionError(f"got {extra} traces for new values, expected 0.")


def _inject(
    case: TransformationCase, params: optax.Params
) -> optax.GradientTransformationExtraArgs:
    """Injects the hyperparameters, also when `make` only takes `**kwargs`."""
    make = case.make_for(params)
    kinds = {p.kind for p in inspect.signature(make).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        make = _with_named_arguments(make, case.hyperparameters)
    static = [
        name
        for name, value in case.hyperparameters.items()
        if name not in case.numbers()
        and (isinstance(value, type) or not callable(value))
    ]
    return optax.inject_hyperparams(make, static_args=static)(**case.hyperparameters)


def _with_named_arguments(
    make: Callable[..., Any], names: Iterable[str]
) -> Callable[..., Any]:
    """Gives a function of `**kwargs` a signature that lists them."""

    def named(**arguments: Any) -> Any:
        return make(**arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword) for name in names]
    named.__signature__ = inspect.Signature(parameters)  # pyrefly: ignore
    return named


def _all_close(case: TransformationCase, got: Any, expected: Any) -> bool:
    try:
        case.assert_close(got, expected, "")
    except AssertionError:
        return False
    return True


CHECKS = (_inject_hyperparams,)
