"""Properties at the edges: unusual trees, a zero gradient, and a known minimum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from expkit.testing.comparison import (
    assert_same_structure,
    assert_tree_finite,
    named_leaves,
)
from expkit.testing.transformation_case import (
    TransformationCase,
    example_gradients,
    example_params,
    run_steps,
)


class Layer(NamedTuple):
    """A container that is neither a dict nor a plain tuple.

    Attributes:
        kernel: any subtree.
        bias: any subtree.
    """

    kernel: Any
    bias: Any


def _empty_tree(case: TransformationCase) -> None:
    """A tree without leaves is accepted."""
    _assert_accepts(case, {})


def _scalar_leaves(case: TransformationCase) -> None:
    """Leaves of shape [] are accepted, beside others and alone."""
    _assert_accepts(case, {"a": jnp.float32(0.5), "b": jnp.ones((2,))})
    _assert_accepts(case, jnp.float32(0.5))


def _none_leaves(case: TransformationCase) -> None:
    """`None` in the place of a leaf is accepted and stays `None`."""
    _assert_accepts(case, {"a": jnp.ones((2, 2)), "b": None})


def _nested_containers(case: TransformationCase) -> None:
    """Tuples, lists and NamedTuples inside one another are accepted and kept."""
    layer = Layer(jnp.ones((2, 3)), (jnp.ones((3,)),))
    _assert_accepts(case, [layer, {"rest": (jnp.ones((2,)), [jnp.ones((1,))])}])


def _zero_size_leaves(case: TransformationCase) -> None:
    """Leaves without elements are accepted."""
    _assert_accepts(case, {"a": jnp.ones((0, 3)), "b": jnp.ones((2,))})


def _zero_gradient(case: TransformationCase) -> None:
    """Updates are finite when the gradient is zero, from the start and later."""
    params = example_params()
    zero = optax.tree.zeros_like(params)
    (gradient,) = example_gradients(params, 1)
    run = run_steps(case.build(params), params, [zero, zero, gradient, zero])
    for step, updates in enumerate(run.updates):
        assert_tree_finite(updates, f"updates, step {step}")
    assert_tree_finite(run.state, "state")


def _converges(case: TransformationCase) -> None:
    """The loss of a separable quadratic falls below the stated fraction."""
    params = example_params()
    tx = _with_learning_rate(case, params)
    loss = _quadratic(params)

    @jax.jit
    def train(params: optax.Params) -> jax.Array:
        def step(_: int, carry: tuple) -> tuple:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        carry = (params, tx.init(params))
        final, _ = jax.lax.fori_loop(0, case.num_steps, step, carry)
        return loss(final) / loss(params)

    ratio = float(train(params))
    if not ratio <= case.max_loss_ratio:
        raise AssertionError(
            f"loss after {case.num_steps} steps: got {ratio:.3g} of the initial one, "
            f"expected at most {case.max_loss_ratio:.3g}."
        )


def _with_learning_rate(
    case: TransformationCase, params: optax.Params
) -> optax.GradientTransformation:
    if case.learning_rate is None:
        return case.build(params)
    if "learning_rate" in case.hyperparameters:
        return case.build(params, learning_rate=case.learning_rate)
    rate = optax.scale_by_learning_rate(case.learning_rate)
    return optax.chain(case.build(params), rate)


def _quadratic(params: dict[str, jax.Array]) -> Callable[[Any], jax.Array]:
    """Half the squared distance to a point one or two away, curvatures 0.5, 1 and 2."""
    curvatures = dict(zip(sorted(params), (0.5, 1.0, 2.0), strict=True))

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return sum(
            (0.5 * curvatures[k] * jnp.sum((params[k] - 1.0) ** 2) for k in params),
            start=jnp.float32(0.0),
        )

    return loss


def _assert_accepts(case: TransformationCase, params: Any) -> None:
    """Runs two steps and compares structure, shapes and finiteness of the updates."""
    run = run_steps(case.build(params), params, example_gradients(params, 2))
    for updates in run.updates:
        assert_same_structure(updates, params, "updates")
        wanted = jax.tree.leaves(params)
        for (path, update), leaf in zip(named_leaves(updates), wanted, strict=True):
            if update.shape != leaf.shape:
                raise AssertionError(
                    f"updates, leaf {path}: got shape {update.shape}, "
                    f"expected {leaf.shape}."
                )
        assert_tree_finite(updates, "updates")


CHECKS = (
    _empty_tree,
    _scalar_leaves,
    _none_leaves,
    _nested_containers,
    _zero_size_leaves,
    _zero_gradient,
    _converges,
)
