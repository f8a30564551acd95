"""Properties of the value and the gradient of a loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit.testing.comparison import assert_tree_finite, assert_trees_close
from expkit.testing.derivatives import (
    finite_difference_gradient,
    finite_difference_hessian_vector,
    inner_product,
    random_direction,
)
from expkit.testing.loss_case import LossCase, cast_floating
from expkit.testing.loss_extremes import extreme_inputs


def _finite_at_extremes(case: LossCase) -> None:
    """Value and gradient are finite at zero and at very large inputs."""
    evaluate = jax.jit(case.value_and_gradient)
    settings = [("the example", case.inputs()), *extreme_inputs(case)]
    for what, inputs in settings:
        value, gradient = evaluate(inputs, case.data())
        assert_tree_finite(value, f"value at {what}")
        assert_tree_finite(gradient, f"gradient at {what}")


def _gradient_matches_finite_differences(case: LossCase) -> None:
    """In float64 the gradient agrees with central differences of fourth order."""
    with jax.enable_x64(True):
        total, inputs = _in_float64(case)
        gradient = jax.jit(jax.grad(total))(inputs)
        evaluate = jax.jit(total)
        for seed in range(3):
            direction = random_direction(inputs, seed)
            assert_trees_close(
                inner_product(gradient, direction),
                finite_difference_gradient(evaluate, inputs, direction),
                f"derivative along direction {seed} (got from jax.grad)",
                rtol=case.gradient_rtol,
                atol=case.gradient_rtol * _norm(gradient) + _rounding(evaluate(inputs)),
            )


def _second_derivative_matches_finite_differences(case: LossCase) -> None:
    """In float64 Hessian-vector products agree with differences of the gradient."""
    with jax.enable_x64(True):
        total, inputs = _in_float64(case)
        evaluate = jax.jit(total)
        for seed in range(2):
            direction = random_direction(inputs, seed)
            _, product = jax.jvp(jax.grad(evaluate), (inputs,), (direction,))
            assert_trees_close(
                product,
                finite_difference_hessian_vector(evaluate, inputs, direction),
                f"Hessian times direction {seed} (got from jax.jvp)",
                rtol=case.gradient_rtol,
                atol=case.gradient_rtol * _norm(product) + _rounding(evaluate(inputs)),
            )


def _low_precision(case: LossCase) -> None:
    """For float16 and bfloat16 inputs: finite, close to float32, dtype as stated."""
    evaluate = jax.jit(case.value_and_gradient)
    for dtype in (jnp.dtype("float16"), jnp.dtype("bfloat16")):
        inputs = cast_floating(case.inputs(), dtype)
        data = cast_floating(case.data(), dtype)
        value, gradient = evaluate(inputs, data)
        assert_tree_finite((value, gradient), f"(value, gradient) in {dtype}")
        _assert_output_dtypes(case, value, dtype)
        expected, slopes = evaluate(
            cast_floating(inputs, jnp.float32), cast_floating(data, jnp.float32)
        )
        tolerance = 8 * float(jnp.finfo(dtype).eps)
        what = f"for {dtype} inputs (expected: the same numbers in float32)"
        assert_trees_close(
            value, expected, f"value {what}", rtol=tolerance, atol=tolerance
        )
        largest = max(float(np.abs(slope).max(initial=0)) for slope in slopes)
        assert_trees_close(
            gradient, slopes, f"gradient {what}", rtol=0.0, atol=tolerance * largest
        )
        limit = 0.9 * float(jnp.finfo(dtype).max)
        for what, extreme in extreme_inputs(case):
            clipped = [np.clip(x, -limit, limit) for x in extreme]
            value, _ = evaluate(cast_floating(clipped, dtype), data)
            assert_tree_finite(value, f"value at {what} in {dtype}")


def _masked_entries_have_no_influence(case: LossCase) -> None:
    """What the mask leaves out changes neither value nor gradient, even NaN."""
    evaluate = jax.jit(case.value_and_gradient)
    value, gradient = evaluate(case.inputs(), case.data())
    hidden = _hidden_elements(case)
    for garbage in (1e4, np.inf, -np.inf, np.nan):
        inputs, data = _replace_hidden(case, hidden, garbage)
        got_value, got_gradient = evaluate(inputs, data)
        what = f"with {garbage} in the masked-out entries"
        case.assert_close(got_value, value, f"value {what}")
        case.assert_close(got_gradient, gradient, f"gradient {what}")
    names = [path for path, _, kind in case.leaves() if kind == "input"]
    for path, leaf in zip(names, gradient, strict=True):
        if path in hidden and (bad := np.asarray(leaf)[hidden[path]]).any():
            raise AssertionError(
                f"gradient of masked-out entries, leaf {path}: got "
                f"{bad[bad != 0][0]}, expected 0."
            )


def _empty_mask(case: LossCase) -> None:
    """When the mask selects nothing the value is as documented and the gradient 0."""
    index, mask = case.mask()
    data = list(case.data())
    data[index] = np.zeros_like(mask)
    value, gradient = jax.jit(case.value_and_gradient)(case.inputs(), data)
    assert_tree_finite(value, "value with an empty mask")
    if case.empty_value is not None:
        expected = jax.tree.map(lambda x: jnp.full_like(x, case.empty_value), value)
        case.assert_close(value, expected, "value with an empty mask")
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    what = "gradient with an empty mask"
    assert_trees_close(gradient, zeros, what, rtol=0.0, atol=0.0)


def _in_float64(case: LossCase) -> tuple[Callable[[Any], jax.Array], list[jax.Array]]:
    """The summed loss as a function of the inputs, and the inputs; call under x64."""
    data = [jnp.asarray(x) for x in cast_floating(case.data(), np.float64)]
    inputs = [jnp.asarray(x) for x in cast_floating(case.inputs(), np.float64)]
    return (lambda inputs: case.total(inputs, data)), inputs


def _rounding(value: jax.Array) -> float:
    """Bound on what rounding adds to a difference quotient with step 1e-3."""
    return 1e-11 * (1.0 + abs(float(value)))


def _norm(tree: Any) -> float:
    return float(jnp.sqrt(inner_product(tree, tree)))


def _assert_output_dtypes(case: LossCase, value: Any, dtype: Any) -> None:
    for leaf in jax.tree.leaves(value):
        wide = jnp.promote_types(dtype, jnp.float32)
        wanted = dtype if case.elementwise else jnp.promote_types(leaf.dtype, wide)
        if leaf.dtype != wanted:
            raise AssertionError(
                f"value for {dtype} inputs: got dtype {leaf.dtype}, expected {wanted}"
                f"{'' if case.elementwise else ' or wider'}."
            )


def _hidden_elements(case: LossCase) -> dict[str, np.ndarray]:
    """For each covered leaf, by path, which of its elements the mask leaves out."""
    _, mask = case.mask()
    hidden = {}
    for path, leaf, kind in case.leaves():
        covered = kind != "static" and path.startswith("args")
        if covered and case.masked_argnums is not None:
            covered = any(path.startswith(f"args[{n}]") for n in case.masked_argnums)
        shape = np.shape(leaf)
        if covered and shape[: mask.ndim] == mask.shape:
            trailing = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
            hidden[path] = ~np.broadcast_to(trailing, shape)
        elif covered and shape and _broadcasts(mask.shape, shape):
            hidden[path] = ~np.broadcast_to(mask, shape)
    if not hidden or not any(h.any() for h in hidden.values()):
        raise ValueError(
            f"the example mask {case.mask_name!r} of shape {mask.shape} leaves out no "
            "element of any argument; give one with both True and False."
        )
    return hidden


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(small, large) == large
    except ValueError:
        return False


def _replace_hidden(
    case: LossCase, hidden: dict[str, np.ndarray], garbage: float
) -> tuple[list[Any], list[Any]]:
    """Inputs and data with `garbage` (-100 in integers) where the mask is False."""
    replaced: dict[str, list[Any]] = {"input": [], "data": []}
    for path, leaf, kind in case.leaves():
        if kind == "static":
            continue
        leaf = np.asarray(leaf)
        if path in hidden and leaf.dtype != bool:
            fill = -100 if np.issubdtype(leaf.dtype, np.signedinteger) else garbage
            if not np.issubdtype(leaf.dtype, np.unsignedinteger):
                leaf = np.where(hidden[path], np.asarray(fill, leaf.dtype), leaf)
        replaced[kind].append(leaf)
    return replaced["input"], replaced["data"]


CHECKS = (
    _finite_at_extremes,
    _gradient_matches_finite_differences,
    _second_derivative_matches_finite_differences,
    _low_precision,
    _masked_entries_have_no_influence,
    _empty_mask,
)
