"""Properties of how a loss is called: jitted, batched, by keyword, inside a closure."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit.testing.comparison import assert_trees_close
from expkit.testing.compilation import count_compilations
from expkit.testing.derivatives import finite_difference_gradient
from expkit.testing.loss_case import LossCase, cast_floating, sum_outputs


def _jit_equals_eager(case: LossCase) -> None:
    """Value and gradient are the same jitted and eager, up to fused rounding."""
    jitted = jax.jit(case.value_and_gradient)(case.inputs(), case.data())
    eager = case.value_and_gradient(case.inputs(), case.data())
    case.assert_close(jitted, eager, "(value, gradient)")


def _vmap_equals_loop(case: LossCase) -> None:
    """`jax.vmap` over all arrays at once equals a loop over their leading axis."""
    lanes = [
        (case.inputs(), case.data()),
        ([_flip(x) for x in case.inputs()], case.data()),
        (case.inputs(), [_flip(x) for x in case.data()]),
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *lanes)
    got = jax.jit(jax.vmap(case.value_and_gradient))(*stacked)
    one = jax.jit(case.value_and_gradient)
    expected = jax.tree.map(lambda *x: jnp.stack(x), *(one(*lane) for lane in lanes))
    case.assert_close(got, expected, "(value, gradient)")


def _no_recompilation(case: LossCase) -> None:
    """A second call with arrays of the same shapes compiles nothing."""
    jitted = jax.jit(case.value_and_gradient)
    data = case.data()
    lanes = [[jnp.asarray(f(x)) for x in case.inputs()] for f in (np.asarray, _flip)]
    for name, evaluate in (("jitted", jitted), ("eager", case.value_and_gradient)):
        evaluate(lanes[0], data)
        with count_compilations() as log:
            evaluate(lanes[1], data)
        if log.names:
            raise AssertionError(
                f"{name} call: got {len(log.names)} compilations at the second call "
                f"({', '.join(log.names[:3])}), expected 0."
            )


def _closes_over_traced_arrays(case: LossCase) -> None:
    """A loss that closes over traced arrays is right, also differentiated in them."""
    scale = 0.7

    def scaled_total(scale: Any, inputs: Any, data: Any) -> jax.Array:
        def scaled_loss(*args: Any, **kwargs: Any) -> Any:
            outputs = case.loss_fn(*args, **kwargs)
            return jax.tree.map(lambda x: scale * x, outputs)

        return sum_outputs(case.call(inputs, data, case.wrap(scaled_loss)))

    @jax.jit
    def traced(scale: Any, inputs: Any, data: Any) -> Any:
        inner = jax.value_and_grad(lambda inputs: scaled_total(scale, inputs, data))
        return inner(inputs), jax.grad(scaled_total)(scale, inputs, data)

    with jax.enable_x64(True):
        data = cast_floating(case.data(), np.float64)
        inputs = cast_floating(case.inputs(), np.float64)
        inner, slope = traced(jnp.asarray(scale), inputs, data)
        plain = jax.value_and_grad(lambda inputs: scaled_total(scale, inputs, data))
        expected = jax.jit(plain)(inputs)
        case.assert_close(inner, expected, "(value, gradient) in a closure")
        evaluate = jax.jit(lambda scale: scaled_total(scale, inputs, data))
        expected = finite_difference_gradient(
            evaluate, jnp.asarray(scale), jnp.ones(())
        )
        assert_trees_close(
            slope,
            expected,
            "derivative in the array that is closed over (expected: differences)",
            rtol=case.gradient_rtol,
            atol=case.gradient_rtol,
        )


def _keyword_arguments(case: LossCase) -> None:
    """Arguments after the differentiated ones can be given by name."""
    loss = case.wrap(case.loss_fn)
    names = []
    for parameter in inspect.signature(loss).parameters.values():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            break
        names.append(parameter.name)
    # `jax.grad` wants the differentiated arguments by position, and so may the loss.
    first = max(case.argnums) + 1
    named = dict(zip(names[first:], case.args[first:], strict=False))
    if len(named) == len(case.args) - first:
        got = case.call(
            case.inputs(),
            case.data(),
            lambda *args, **kwargs: loss(
                *args[:first], **dict(zip(named, args[first:], strict=True)), **kwargs
            ),
        )
        expected = case.call(case.inputs(), case.data())
        case.assert_close(got, expected, f"value with {', '.join(named)} by name")


def _flip(leaf: Any) -> np.ndarray:
    """Reverses the leading axis: other values from the same domain."""
    return np.asarray(leaf)[::-1] if np.ndim(leaf) else np.asarray(leaf)


CHECKS = (
    _jit_equals_eager,
    _vmap_equals_loop,
    _no_recompilation,
    _closes_over_traced_arrays,
    _keyword_arguments,
)
