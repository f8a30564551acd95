"""Properties that let a transformation be put inside those of optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from expkit.testing.comparison import (
    assert_tree_finite,
    assert_trees_equal,
)
from expkit.testing.transformation_case import (
    Trajectory,
    TransformationCase,
    example_gradients,
    example_params,
    make_step,
    run_steps,
)


def _chain(case: TransformationCase) -> None:
    """In `optax.chain` it gets the updates before it and hands its own on."""
    params = example_params()
    gradients = example_gradients(params)
    alone = case.build(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = alone.update(optax.tree.scale(2.0, updates), state, params)
        return optax.tree.scale(0.5, updates), state

    by_hand = optax.GradientTransformation(alone.init, update)
    expected = run_steps(by_hand, params, gradients)
    chained = optax.chain(optax.scale(2.0), case.build(params), optax.scale(0.5))
    got = run_steps(chained, params, gradients)
    case.assert_close(got.updates, expected.updates, "updates")
    case.assert_close(got.state[1], expected.state, "state")


def _masked(case: TransformationCase) -> None:
    """In `optax.masked` other leaves pass untouched and have no state."""
    params = example_params()
    chosen = {"kernel": True, "bias": False, "scale": True}
    gradients = example_gradients(params)
    inner = case.build(_with_masked_nodes(params, chosen))
    wrapped = run_steps(optax.masked(inner, chosen), params, gradients)
    for step, (updates, gradient) in enumerate(
        zip(wrapped.updates, gradients, strict=True)
    ):
        assert_trees_equal(
            updates["bias"], gradient["bias"], f"masked-out ['bias'], step {step}"
        )
    expected = _run_on_subset(case, params, gradients, chosen)
    _assert_subset(case, wrapped, expected, chosen)
    _assert_same_size(wrapped.state, expected.state)


def _multi_transform(case: TransformationCase) -> None:
    """In `optax.multi_transform` one object serves several groups of leaves."""
    params = example_params()
    labels = {"kernel": "first", "bias": "second", "scale": "frozen"}
    gradients = example_gradients(params)
    tx = case.build(params)
    if case.takes_params:
        groups: dict[Any, Any] = {
            name: case.build(
                _with_masked_nodes(params, {k: v == name for k, v in labels.items()})
            )
            for name in ("first", "second")
        }
    else:
        groups = {"first": tx, "second": tx}
    groups["frozen"] = optax.set_to_zero()
    wrapped = run_steps(optax.multi_transform(groups, labels), params, gradients)
    for name in ("first", "second"):
        chosen = {key: label == name for key, label in labels.items()}
        expected = _run_on_subset(case, params, gradients, chosen)
        _assert_subset(case, wrapped, expected, chosen)
    assert_trees_equal(wrapped.params["scale"], params["scale"], "frozen ['scale']")


def _multi_steps(case: TransformationCase) -> None:
    """`optax.MultiSteps` over k gradients is one step with their mean."""
    params = example_params()
    gradients = example_gradients(params, 6)
    wrapped = optax.MultiSteps(case.build(params), every_k_schedule=3)
    got = run_steps(wrapped.gradient_transformation(), params, gradients)
    means = [
        optax.tree.scale(1 / 3, optax.tree.add(*gradients[k : k + 3])) for k in (0, 3)
    ]
    expected = run_steps(case.build(params), params, means)
    for step, updates in enumerate(got.updates):
        zero = optax.tree.zeros_like(updates)
        ends, wanted = step % 3 == 2, expected.updates[step // 3]
        case.assert_close(updates, wanted if ends else zero, f"updates, step {step}")
    case.assert_close(got.state.inner_opt_state, expected.state, "inner state")


def _apply_if_finite(case: TransformationCase) -> None:
    """`optax.apply_if_finite` skips a NaN gradient, then goes on as without it."""
    params = example_params()
    first, second = example_gradients(params, 2)
    bad = {**first, "bias": first["bias"].at[0].set(jnp.nan)}
    wrapped = optax.apply_if_finite(case.build(params), max_consecutive_errors=3)
    step = jax.jit(make_step(wrapped))
    before = run_steps(wrapped, params, [first], wrap=lambda _: step)
    after = run_steps(
        wrapped, before.params, [bad], state=before.state, wrap=lambda _: step
    )
    assert_trees_equal(after.params, before.params, "params after a NaN gradient")
    assert_trees_equal(
        after.state.inner_state, before.state.inner_state, "state after a NaN gradient"
    )
    rest = run_steps(
        wrapped, after.params, [second], state=after.state, wrap=lambda _: step
    )
    expected = run_steps(case.build(params), params, [first, second])
    assert_tree_finite(rest.params, "params after a later finite gradient")
    case.assert_close(rest.params, expected.params, "params after a later gradient")


def _extra_arguments(case: TransformationCase) -> None:
    """Unknown keyword arguments of `update` are ignored."""
    params = example_params()
    (gradient,) = example_gradients(params, 1)
    tx = optax.with_extra_args_support(case.build(params))
    state = tx.init(params)
    plain = jax.jit(tx.update)(gradient, state, params)
    extra = {"value": jnp.float32(1.0), "an_unknown_argument": 2}
    with_extra = jax.jit(tx.update)(gradient, state, params, **extra)
    case.assert_close(with_extra, plain, "(updates, state)")


def _with_masked_nodes(params: dict, chosen: dict[str, bool]) -> dict:
    """The tree that a transformation inside `optax.masked` sees."""
    return {k: v if chosen[k] else optax.MaskedNode() for k, v in params.items()}


def _run_on_subset(
    case: TransformationCase,
    params: dict,
    gradients: list[dict],
    chosen: dict[str, bool],
) -> Trajectory:
    """Runs the transformation on a tree that has only the chosen leaves."""
    params, *gradients = (
        {k: v for k, v in tree.items() if chosen[k]} for tree in (params, *gradients)
    )
    return run_steps(case.build(params), params, gradients)


def _assert_subset(
    case: TransformationCase,
    got: Trajectory,
    expected: Trajectory,
    chosen: dict[str, bool],
) -> None:
    for step, updates in enumerate(got.updates):
        selected = {k: v for k, v in updates.items() if chosen[k]}
        what = f"updates of the chosen leaves, step {step}"
        case.assert_close(selected, expected.updates[step], what)


def _assert_same_size(got: optax.OptState, expected: optax.OptState) -> None:
    sizes = [sum(jnp.size(x) for x in jax.tree.leaves(s)) for s in (got, expected)]
    if sizes[0] != sizes[1]:
        raise AssertionError(
            f"state: got {sizes[0]} elements, expected {sizes[1]} as for a tree "
            "with the chosen leaves alone."
        )


CHECKS = (
    _chain,
    _masked,
    _multi_transform,
    _multi_steps,
    _apply_if_finite,
    _extra_arguments,
)
