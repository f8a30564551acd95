"""The two-parameter model: gradient descent beside the flows that should explain it.

The model predicts `a b x` for one data point; the loss is `(y - a b x)^2 / 2`, so the
minima form the hyperbola `a b = y / x` and the flattest of them has `a = b`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import igr
from expkit import claims, plots
from expkit.claims import Context, Finding
from igr import checks_accuracy as accuracy

DATA = (1.0, 0.6)
STARTS = {"near": (2.8, 3.5), "far": (75.0, 74.925)}
RATES = {"near": 0.025, "far": 5e-5}
BEYOND = 1.8e-4
TIME = 6.0


def loss_fn(params: jax.Array) -> jax.Array:
    """Half the squared error of the product of two parameters [2]."""
    x, y = DATA
    return (y - params[0] * params[1] * x) ** 2 / 2


def descend(start: tuple[float, float], rate: float, time: float = TIME) -> np.ndarray:
    """The points [steps + 1, 2] of gradient descent."""

    def step(params, _):
        params = params - rate * jax.grad(loss_fn)(params)
        return params, params

    with jax.enable_x64(True):
        first = jnp.array(start)
        run = jax.jit(lambda p: jax.lax.scan(step, p, length=round(time / rate))[1])
        return np.concatenate([np.array([start]), np.asarray(run(first))])


def flow_path(
    start: tuple[float, float], rate: float, order: int, times: Any
) -> np.ndarray:
    """The points [n, 2] of the flow of an order at increasing times."""
    with jax.enable_x64(True):
        field = jax.jit(igr.modified_flow(loss_fn, rate, order))
        return accuracy.follow(field, start, float(times[-1]), times=times, rtol=1e-10)


def sharpness(params: np.ndarray) -> float:
    """The largest eigenvalue of the Hessian at a minimum, `x^2 (a^2 + b^2)`."""
    return float(DATA[0] ** 2 * np.sum(np.square(params)))


def check_gradient_descent_follows_the_modified_flow(
    name: str, context: Context
) -> Finding:
    """Final distance to the modified flow, over that to the gradient flow."""
    start, rate = STARTS[name], RATES[name]
    points = descend(start, rate)
    times = np.concatenate([[0.0], np.geomspace(rate, (len(points) - 1) * rate, 300)])
    paths = {order: flow_path(start, rate, order, times) for order in (1, 2)}
    ends = {k: accuracy.distance(p[-1], points[-1]) for k, p in paths.items()}
    _draw(context, name, points, paths, ends)
    ratio = ends[2] / ends[1]
    curvature = _curvature(start)
    return claims.exact(
        ratio < 0.5,
        ratio,
        f"From {start} with the learning rate {rate:g}, {rate * curvature:.2f} over "
        f"the largest curvature there: gradient descent ends {ends[2]:.3f} from the "
        f"modified flow and {ends[1]:.3f} from the gradient flow, the control.",
    )


def check_flatter_minima(context: Context) -> Finding:
    """Sharpness at the end of gradient descent, over that of the gradient flow."""
    x, y = DATA
    series, ratios, is_falling = {}, {}, []
    multiples = [0.2, 0.5, 1.0, 1.5, 2.0]
    for name, start in STARTS.items():
        # The gradient flow conserves a^2 - b^2, which fixes its end in closed form.
        a, b = start
        exact = x**2 * np.hypot(a**2 - b**2, 2 * y / x)
        ends = [sharpness(descend(start, x * RATES[name])[-1]) for x in multiples]
        share = np.array([1.0, *ends]) / np.array([1.0, *[exact] * len(ends)])
        is_falling.append(bool(np.all(np.diff(share) < 0)))
        ratios[name] = share[1 + multiples.index(1.0)]
        series[f"from {start}"] = ([0.0, *multiples], share, None, None)

    def draw(figure):
        axes = figure.subplots()
        plots.curves(
            axes,
            series,
            xlabel="learning rate / that of the trajectories",
            ylabel="sharpness / that of the flow",
        )

    context.figure(
        "flatter_minima",
        draw,
        "Largest curvature at the minimum that gradient descent ends in, relative to "
        "that of the minimum that the gradient flow from the same start ends in.",
        "Both curves fall from 1 as the learning rate grows; at that of the "
        f"trajectories they are at {ratios['near']:.3f} and {ratios['far']:.3f}.",
    )
    return claims.exact(
        all(is_falling),
        float(max(ratios.values())),
        f"The larger of two starts ({ratios['near']:.3f} and {ratios['far']:.3f}); for "
        "both it falls in the learning rate over 5 values. The end of the flow, the "
        "control at 1, is a closed form.",
    )


def check_no_flow_beyond_stability(context: Context) -> Finding:
    """Distance of gradient descent with a large rate to the nearest of three flows."""
    del context
    start, times = STARTS["far"], np.array([0.0, TIME])

    def nearest(rate):
        end = descend(start, rate)[-1]
        flows = [flow_path(start, rate, order, times)[-1] for order in (1, 2, 3)]
        return end, min(accuracy.distance(flow, end) for flow in flows)

    (end, beyond), (_, inside) = nearest(BEYOND), nearest(RATES["far"])
    curvature = _curvature(start)
    least = 2 * abs(DATA[0] * DATA[1])
    return claims.exact(
        beyond > 1.0 > 10 * inside,
        beyond,
        f"From {start} with the learning rate {BEYOND:g}, {BEYOND * curvature:.2f} "
        "over the largest curvature there. Gradient descent jumps to the other branch "
        f"of the minima, to a sharpness of {sharpness(end):.2f} where the least is "
        f"{least:.2f}. With {RATES['far']:g}, the control, the nearest flow ends "
        f"{inside:.3f} away.",
    )


def _curvature(start: tuple[float, float]) -> float:
    """The largest eigenvalue of the Hessian of the loss at a point."""
    (x, y), (a, b) = DATA, start
    mixed = 2 * a * b * x**2 - x * y
    hessian = np.array([[b * b * x * x, mixed], [mixed, a * a * x * x]])
    return float(np.linalg.eigvalsh(hessian)[-1])


def _draw(
    context: Context,
    name: str,
    points: np.ndarray,
    paths: dict[int, np.ndarray],
    ends: dict[int, float],
) -> None:
    """The paper's Figure 1: trajectories in the plane of the parameters."""
    limit = 4.0
    window = {"near": ((0.0, 3.0), (1.5, 3.6)), "far": ((2.4, 4.0), (0.0, 2.0))}[name]
    shown = points if len(points) < 2000 else points[_spread(len(points))]
    minima = np.linspace(DATA[1] / DATA[0] / limit, limit, 400)
    series = {
        "gradient descent": shown,
        "gradient flow": paths[1],
        "modified flow": paths[2],
        "minima": np.stack([minima, DATA[1] / DATA[0] / minima], axis=1),
    }

    def draw(figure):
        axes = figure.subplots()
        plots.curves(
            axes,
            {k: (p[:, 0], p[:, 1], None, None) for k, p in series.items()},
            xlabel="a",
            ylabel="b",
        )
        axes.plot(*points[-1], "o", color=axes.lines[0].get_color())
        axes.set(xlim=window[0], ylim=window[1])

    context.figure(
        f"trajectories_{name}",
        draw,
        f"Trajectories from {STARTS[name]} on the loss surface of two parameters; the "
        "dot is where gradient descent ends.",
        f"All end on the line of minima, gradient descent {ends[2]:.3f} from the "
        f"modified flow and {ends[1]:.3f} from the gradient flow.",
        size=(4.6, 4.2),
    )


def _spread(count: int) -> np.ndarray:
    """Indices that are dense at the start, where most of the way is made."""
    return np.unique(np.geomspace(1, count, 1000).astype(int) - 1)
