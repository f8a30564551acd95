"""Properties of dtypes and states: what a long run and a checkpoint rely on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit.testing.comparison import (
    assert_same_structure,
    assert_trees_equal,
    named_leaves,
    to_host,
)
from expkit.testing.compilation import TraceCounter, count_compilations
from expkit.testing.transformation_case import (
    TransformationCase,
    example_gradients,
    example_params,
    make_step,
    run_steps,
)


def _dtypes(case: TransformationCase) -> None:
    """Updates have the dtype of their gradients: float32, bfloat16 and mixed trees."""
    for params in (*map(example_params, ("float32", "bfloat16")), _mixed_params()):
        tx = case.build(params)
        state = jax.eval_shape(tx.init, params)
        updates, _ = jax.eval_shape(tx.update, params, state, params)
        for (path, update), gradient in zip(
            named_leaves(updates), jax.tree.leaves(params), strict=True
        ):
            wanted = jnp.dtype(case.update_dtype or gradient.dtype)
            if update.dtype != wanted:
                raise AssertionError(
                    f"update of a {gradient.dtype} parameter, leaf {path}: "
                    f"got {update.dtype}, expected {wanted}."
                )


def _state_is_stable(case: TransformationCase) -> None:
    """Structure, shapes and dtypes of the state never change, and no type is weak."""
    for dtype in ("float32", "bfloat16"):
        params = example_params(dtype)
        tx = case.build(params)
        initial = jax.tree.map(_as_array, tx.init(params))
        _assert_strong(initial, f"{dtype} state after init")
        state = jax.eval_shape(lambda s: s, initial)
        for step in range(3):
            updates, new_state = jax.eval_shape(tx.update, params, state, params)
            what = f"{dtype} state after {step + 1} steps"
            _assert_same_avals(new_state, initial, what)
            _assert_strong((updates, new_state), f"{dtype} (updates, state)")
            state = new_state


def _no_recompilation(case: TransformationCase) -> None:
    """From the second step on nothing is traced or compiled, jitted or eager."""
    params = example_params()
    gradients = example_gradients(params)
    for name, wrap in (("jitted", jax.jit), ("eager", lambda step: step)):
        tx, traces = case.build(params), TraceCounter()
        step = wrap(traces.wrap(make_step(tx)))
        first = run_steps(tx, params, gradients[:1], wrap=lambda _, s=step: s)
        expected = traces.count if name == "jitted" else traces.count + 2
        with count_compilations() as log:
            run_steps(
                tx,
                first.params,
                gradients[1:],
                state=first.state,
                wrap=lambda _, s=step: s,
            )
        if traces.count != expected:
            raise AssertionError(
                f"{name} step: got {traces.count} traces in 3 steps, expected 1."
            )
        if log.names:
            raise AssertionError(
                f"{name} step: got {len(log.names)} compilations after the first "
                f"step ({', '.join(log.names[:3])}), expected 0."
            )


def _state_is_arrays(case: TransformationCase) -> None:
    """The state holds arrays alone, and survives a round trip through host memory."""
    params = example_params()
    gradients = example_gradients(params)
    tx = case.build(params)
    first = run_steps(tx, params, gradients[:1], wrap=lambda step: step)
    for when, state in (("init", tx.init(params)), ("one step", first.state)):
        for path, leaf in named_leaves(state):
            if not isinstance(leaf, (jax.Array, np.ndarray)):
                raise AssertionError(
                    f"state after {when}, leaf {path}: got {leaf!r} of type "
                    f"{type(leaf).__name__}, expected an array."
                )
    leaves, treedef = jax.tree.flatten(first.state)
    restored = treedef.unflatten([_through_host(leaf) for leaf in leaves])
    assert_trees_equal(restored, first.state, "state after a round trip")
    step = jax.jit(make_step(tx))
    runs = [
        run_steps(tx, first.params, gradients[1:], state=state, wrap=lambda _: step)
        for state in (restored, first.state)
    ]
    assert_trees_equal(runs[0], runs[1], "continuation from the restored state")


def _mixed_params() -> dict[str, jax.Array]:
    params = example_params()
    return {**params, "bias": params["bias"].astype(jnp.bfloat16)}


def _as_array(leaf: Any) -> jax.Array:
    """Gives Python scalars a strong type: they are the matter of `state_is_arrays`."""
    if isinstance(leaf, (bool, int, float)):
        return jnp.asarray(leaf, jnp.result_type(type(leaf)))
    return leaf


def _assert_strong(tree: Any, what: str) -> None:
    for path, leaf in named_leaves(tree):
        if getattr(leaf, "weak_type", False):
            raise AssertionError(
                f"{what}, leaf {path}: got a weakly typed {leaf.dtype}, expected a "
                "strong type (pass a dtype to jnp.asarray)."
            )


def _assert_same_avals(got: Any, expected: Any, what: str) -> None:
    assert_same_structure(got, expected, what)
    wanted = jax.tree.leaves(expected)
    for (path, leaf), target in zip(named_leaves(got), wanted, strict=True):
        mine, other = (f"{x.dtype}{list(x.shape)}" for x in (leaf, target))
        if mine != other:
            raise AssertionError(f"{what}, leaf {path}: got {mine}, expected {other}.")


def _through_host(leaf: jax.Array | np.ndarray) -> jax.Array:
    """Copies a leaf to numpy and back, as a checkpoint does."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        bits = jnp.asarray(to_host(leaf).copy())
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    return jnp.asarray(to_host(leaf).copy())


CHECKS = (
    _dtypes,
    _state_is_stable,
    _no_recompilation,
    _state_is_arrays,
)
