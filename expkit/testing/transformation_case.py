"""The transformation under test, and the small deterministic problem it is run on."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike

from expkit.testing.comparison import assert_trees_close


@dataclasses.dataclass(frozen=True)
class TransformationCase:
    """A transformation and what its suite may assume; see `check_transformation`.

    Attributes:
        make: builds the transformation from the hyperparameters.
        hyperparameters: keyword arguments of `make`.
        takes_params: whether `make` wants the parameters as first argument.
        update_dtype: dtype of every update, or None for that of its gradient.
        learning_rate: for the quadratic.
        max_loss_ratio: final over initial loss of the quadratic.
        num_steps: steps on the quadratic.
        rtol: relative tolerance between two float32 programs for the same arithmetic.
        atol: absolute tolerance, likewise.
    """

    make: Callable[..., optax.GradientTransformation]
    hyperparameters: Mapping[str, Any]
    takes_params: bool
    update_dtype: DTypeLike | None
    learning_rate: float | None
    max_loss_ratio: float
    num_steps: int
    rtol: float
    atol: float

    def build(self, params: Any, **changes: ArrayLike) -> optax.GradientTransformation:
        """Builds a new transformation, sharing no Python state with earlier ones.

        Args:
            params: the tree it will be used on.
            **changes: hyperparameters that differ from those of the case.

        Returns:
            What `make` returns.
        """
        arguments = {**self.hyperparameters, **changes}
        return self.make_for(params)(**arguments)

    def make_for(self, params: Any) -> Callable[..., optax.GradientTransformation]:
        """Gives `make` as a function of the hyperparameters alone.

        Args:
            params: the tree the transformation will be used on.

        Returns:
            A function of keyword arguments.
        """
        if not self.takes_params:
            return self.make
        return functools.partial(self.make, params)

    @functools.cached_property
    def baseline(self) -> "Trajectory":
        """What the jitted transformation does on the example, run once per case."""
        params = example_params()
        return run_steps(self.build(params), params, example_gradients(params))

    def numbers(self) -> dict[str, float]:
        """Gives the hyperparameters that can be varied continuously.

        Returns:
            Those that are numbers, without booleans.
        """
        return {
            name: value
            for name, value in self.hyperparameters.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }

    def assert_close(self, got: Any, expected: Any, what: str) -> None:
        """Compares the results of two float32 programs for the same arithmetic.

        Args:
            got: pytree of arrays.
            expected: pytree of arrays.
            what: what is compared.

        Raises:
            AssertionError: naming the first leaf that differs.
        """
        assert_trees_close(got, expected, what, rtol=self.rtol, atol=self.atol)


class Trajectory(NamedTuple):
    """What a transformation did on a sequence of gradients.

    Attributes:
        params: final parameters.
        state: final state.
        updates: the updates of each step.
    """

    params: Any
    state: Any
    updates: list[Any]


def example_params(dtype: DTypeLike = jnp.float32) -> dict[str, jax.Array]:
    """Parameters whose leading axes divide by the number of devices, but for one.

    Args:
        dtype: of every leaf.

    Returns:
        `kernel` [rows, 3], `bias` [rows] and `scale` [3], rows at least 8.
    """
    devices = jax.device_count()
    rows = devices * max(1, 8 // devices)
    shapes = {"kernel": (rows, 3), "bias": (rows,), "scale": (3,)}
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.uniform(-1.0, 1.0, shape), dtype)
        for name, shape in shapes.items()
    }


def example_gradients(params: Any, count: int = 3) -> list[Any]:
    """Normal gradients, different at every step and the same in every process.

    Args:
        params: tree that gives structure, shapes and dtypes.
        count: number of steps.

    Returns:
        One tree like `params` per step.
    """
    rng = np.random.default_rng(1)

    def draw(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(rng.standard_normal(jnp.shape(leaf)), leaf.dtype)

    return [jax.tree.map(draw, params) for _ in range(count)]


def make_step(tx: optax.GradientTransformation) -> Callable[..., Any]:
    """Builds one training step, to be jitted or not.

    Args:
        tx: the transformation.

    Returns:
        `step(params, state, gradient) -> (params, state, updates)`.
    """

    def step(params: Any, state: Any, gradient: Any) -> tuple[Any, Any, Any]:
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, updates

    return step


def run_steps(
    tx: optax.GradientTransformation,
    params: Any,
    gradients: Iterable[Any],
    *,
    state: Any | None = None,
    wrap: Callable[..., Any] = jax.jit,
) -> Trajectory:
    """Runs a transformation over gradients that do not depend on the parameters.

    Args:
        tx: the transformation.
        params: initial parameters.
        gradients: one tree per step.
        state: initial state; by default `tx.init(params)`.
        wrap: applied to the step once, before the first call.

    Returns:
        The trajectory.
    """
    step = wrap(make_step(tx))
    state = tx.init(params) if state is None else state
    history = []
    for gradient in gradients:
        params, state, updates = step(params, state, gradient)
        history.append(updates)
    return Trajectory(params, state, history)
