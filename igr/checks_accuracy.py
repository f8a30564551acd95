"""Measuring an order of accuracy: a small problem, exact flows, halved steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import integrate

from expkit import claims, plots
from expkit.claims import Context, Finding

NUM_HALVINGS = 5
TOLERANCE = 0.1


def follow(
    field: Callable[[jax.Array], jax.Array],
    start: Any,
    time: float,
    *,
    times: Any = None,
    rtol: float = 1e-12,
) -> np.ndarray:
    """Points [n, size] of a flow at `times`, or [size] at `time`, by scipy's DOP853."""
    start = np.asarray(start, float)
    solution = integrate.solve_ivp(
        lambda _, v: np.asarray(field(jnp.asarray(v))),
        (0.0, time),
        start,
        method="DOP853",
        t_eval=times,
        rtol=rtol,
        atol=rtol * 1e-2 * max(1.0, np.abs(start).max()),
    )
    if not solution.success:
        raise ArithmeticError(f"the flow cannot be followed: {solution.message}")
    return solution.y[:, -1] if times is None else solution.y.T


def problem() -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """A tanh network with 52 parameters on 8 examples, and a random point."""
    loss, params, batches = batched_problem(1)
    batch = jax.tree.map(lambda x: x[0], batches)
    return lambda p: loss(p, batch), params


def batched_problem(num_batches: int) -> tuple[Callable, jax.Array, Any]:
    """`(loss(params [52], batch), params, batches)`, float64."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 6), "b1": (6,), "w2": (6, 4), "b2": (4,)}
    tree = {k: jnp.asarray(0.7 * rng.normal(size=s)) for k, s in shapes.items()}
    size = 8 if num_batches == 1 else 4
    batches = tuple(
        jnp.asarray(rng.normal(size=(num_batches, size, n))) for n in (3, 4)
    )
    params, unravel = ravel_pytree(tree)

    def loss(flat, batch):
        p, (x, y) = unravel(flat), batch
        hidden = jnp.tanh(x @ p["w1"] + p["b1"][None])
        error = hidden @ p["w2"] + p["b2"][None] - y
        return jnp.mean(jnp.sum(error**2, axis=-1)) / 2

    return loss, params, batches


def rates(largest: float) -> np.ndarray:
    """Learning rates [6], each half of the one before."""
    return largest * 0.5 ** np.arange(NUM_HALVINGS + 1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two points."""
    return float(np.linalg.norm(a - b))


def order(errors: Sequence[float]) -> float:
    """The order in the step size, from the two smallest of the halved steps."""
    return float(np.log2(errors[-2] / errors[-1]))


def compiled(make_field: Callable[[Any], Callable]) -> Callable[[Any], Callable]:
    """`rate -> field` for fields compiled once for all rates."""
    field = jax.jit(lambda rate, params: make_field(rate)(params))
    return lambda rate: lambda params: field(rate, params)


def descent(loss: Callable[[jax.Array], jax.Array]) -> Callable:
    """The gradient flow of a loss."""
    return lambda params: -jax.grad(loss)(params)


def finding(
    measured: Sequence[float],
    expected: Sequence[int],
    controls: Mapping[str, tuple[float, int]],
) -> Finding:
    """Holds if all orders are as expected, those of the controls `(got, other)` too."""
    pairs = [*zip(measured, expected, strict=True), *controls.values()]
    is_right = all(abs(got - wanted) <= TOLERANCE for got, wanted in pairs)
    beside = ", ".join(f"{name} {got:.2f}" for name, (got, _) in controls.items())
    text = ", ".join(f"{value:.2f}" for value in measured)
    return claims.exact(
        is_right,
        measured[0] if len(measured) == 1 else text,
        f"Float64, the step halved {NUM_HALVINGS} times."
        + (f" Controls, of lower order: {beside}." if controls else ""),
    )


def draw_errors(
    context: Context,
    name: str,
    steps: np.ndarray,
    errors: Mapping[str, Sequence[float]],
    caption: str,
    xlabel: str = "h",
) -> None:
    """Draws errors against the step size, both logarithmic."""

    def draw(figure):
        axes = figure.subplots()
        series = {k: (steps, values, None, None) for k, values in errors.items()}
        plots.curves(axes, series, xlabel=xlabel, ylabel="error", log_y=True)
        axes.set_xscale("log")
        ends = [steps[-1], steps[0]]
        axes.set_xticks(ends, [f"{h:g}" for h in ends])
        axes.minorticks_off()

    slopes = ", ".join(f"{k}: {order(values):.2f}" for k, values in errors.items())
    context.figure(name, draw, caption, f"Straight lines of slopes {slopes}.")
