"""The inequality between input and parameter gradients, on random networks."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import igr
from expkit import claims, plots, trees
from expkit.claims import Context, Finding
from igr.inequality import ACTIVATIONS

NORMS = {
    "joint": "norm of the product",
    "spectral": "product of spectral norms",
    "frobenius": "product of Frobenius norms",
}
# Layer sizes, activation, scalar function of the output; every other one has biases.
ARCHITECTURES = (
    ((5, 1), "sigmoid", "sum"),
    ((7, 4), "tanh", "squared error"),
    ((10, 32, 1), "tanh", "sum"),
    ((3, 16, 8), "softplus", "log-sum-exp"),
    ((12, 6, 6, 3), "relu", "log-sum-exp"),
    ((2, 20, 20, 1), "gelu", "squared error"),
    ((8, 3, 9, 2, 5), "silu", "cosine"),
    ((6, 10, 10, 10, 2), "elu", "sum"),
    ((4, 12, 12, 12, 12, 3), "leaky_relu", "squared error"),
    ((9, 8, 7, 6, 5, 4, 3), "tanh", "cosine"),
)
FUNCTIONS = {
    "sum": jnp.sum,
    "squared error": lambda h: jnp.sum((h - 0.3) ** 2),
    "log-sum-exp": jax.nn.logsumexp,
    "cosine": lambda h: jnp.cos(3.0 * jnp.sum(h)),
}
PER_ARCHITECTURE = 100
PER_DEPTH = 40
ROUNDING = 1.0 + 1e-12
DEPTHS = (1, 2, 4, 6)
WIDE = (784, 100, 100, 1)


def check_no_violation(context: Context) -> Finding:
    """Networks of 1,000, in any of three norms, whose left side exceeds the right."""
    figures = context.memo("networks", _random_networks)
    violations = sum(figures["violations"].values())
    control = figures["control"]
    return claims.exact(
        violations == 0 < control,
        violations,
        f"{figures['networks']} networks in float64, 1 to 6 layers, 8 activations, 4 "
        "functions of the output, with and without biases, each in 3 norms. With the 1 "
        f"of the bias kept in networks without biases, the control: {control} of "
        f"{figures['without_bias']} violate it.",
    )


def check_first_layer_bound(context: Context) -> Finding:
    """Networks whose input gradient exceeds what the first layer's gradient allows."""
    figures = context.memo("networks", _random_networks)
    violations, control = figures["bound_violations"], figures["bound_control"]
    return claims.exact(
        violations == 0 < control,
        violations,
        f"Of {figures['networks']}; median of bound over squared gradient "
        f"{figures['bound_slack']:.2f}. Without the factor |W|^2, the control: "
        f"{control} exceed it.",
    )


def check_slack(context: Context) -> Finding:
    """Largest median of right side over left, over networks of 1 to 6 layers."""
    figures = context.memo("slack", _slacks)
    medians = {norm: _column(figures["tanh"], norm, 1) for norm in NORMS}
    wide = {norm: figures["wide"][norm][1] for norm in NORMS}
    joint = [*medians["joint"], wide["joint"]]
    # A single layer has no product to split, but for the identity's Frobenius norm.
    frobenius = [*medians["frobenius"][1:], wide["frobenius"]]
    curves = {
        label: (
            np.array(DEPTHS),
            medians[norm],
            _column(figures["tanh"], norm, 0),
            _column(figures["tanh"], norm, 2),
        )
        for norm, label in NORMS.items()
    }

    def draw(figure):
        plots.curves(
            figure.subplots(),
            curves,
            xlabel="layers",
            ylabel="right / left",
            log_y=True,
        )

    context.figure(
        "slack",
        draw,
        "How far the inequality is from an equality: median and quartiles over random "
        "tanh networks with layers of 32 units. Only the norm of the product stays "
        "near 1.",
        f"At 6 layers: {', '.join(f'{NORMS[n]} {medians[n][-1]:.1f}' for n in NORMS)}.",
    )
    return claims.exact(
        min(joint) >= 1.0 and max(joint) <= 4.0 and min(frobenius) >= 10.0,
        max(joint),
        f"Medians over {PER_DEPTH} tanh networks of 1 to 6 layers, and "
        f"{'-'.join(map(str, WIDE))} ReLU: {min(joint):.2f} to {max(joint):.2f}. "
        f"Product of spectral norms: {min(medians['spectral'][1:]):.1f} to "
        f"{max(medians['spectral']):.0f} (ReLU: {wide['spectral']:.1f}); of Frobenius "
        f"norms: {min(frobenius):.0f} to {max(frobenius):.0f}.",
    )


def check_batch_mean(context: Context) -> Finding:
    """Batches of 100 where the inequality fails for the gradient of the mean loss."""
    figures = context.memo("batches", _batches)
    right, left = figures["opposite"]
    return claims.exact(
        figures["mean_of_squares"] == 0 < figures["square_of_mean"]
        and right == 0.0 < left,
        figures["square_of_mean"],
        "Mean left side of 8 examples against the squared gradient of their mean loss; "
        f"against the mean of their squared gradients {figures['mean_of_squares']} "
        f"fail. Two examples with opposite targets: {left:.1f} against {right:.1f}.",
    )


def _networks(
    seed: int, sizes: tuple[int, ...], count: int, *, bias: bool = True
) -> tuple[Any, jax.Array]:
    """Random parameters and examples, both with a leading axis."""
    rng = np.random.default_rng(seed)
    params = []
    for n_in, n_out in itertools.pairwise(sizes):
        w = jnp.asarray(rng.normal(size=(count, n_in, n_out)) * np.sqrt(2.0 / n_in))
        b = jnp.asarray(rng.normal(size=(count, n_out)))
        params.append((w, b if bias else None))
    return params, jnp.asarray(rng.normal(size=(count, sizes[0])))


def _random_networks() -> dict[str, Any]:
    """Counts of violations over all architectures."""
    with jax.enable_x64(True):
        rows = list(_each_architecture())
    slack = np.concatenate([row.pop("bound_slack") for row in rows])
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    return {
        "networks": total.pop("networks"),
        "without_bias": total.pop("without_bias"),
        "control": total.pop("control"),
        "bound_violations": total.pop("bound"),
        "bound_control": total.pop("bound_control"),
        "bound_slack": float(np.median(np.nan_to_num(slack))),
        "violations": total,
    }


def _each_architecture() -> Iterator[dict[str, Any]]:
    """Counts for each architecture, every other with biases; a nan is a violation."""
    for seed, (sizes, activation, name) in enumerate(ARCHITECTURES):
        bias = seed % 2 == 1
        networks = _networks(seed, sizes, PER_ARCHITECTURE, bias=bias)
        sides = jax.vmap(functools.partial(_sides, FUNCTIONS[name], activation))
        found: Any = jax.jit(sides)(*networks)
        forms, kept, bound, scale = found
        right = {norm: ROUNDING * form.parameter_side for norm, form in forms.items()}
        limit = ROUNDING * bound.parameter_side
        yield {
            "networks": PER_ARCHITECTURE,
            **{
                norm: _count(~(forms[norm].input_side <= right[norm])) for norm in NORMS
            },
            "without_bias": 0 if bias else PER_ARCHITECTURE,
            "control": 0 if bias else _count(kept > right["joint"]),
            "bound": _count(~(bound.input_side <= limit)),
            "bound_control": _count(bound.input_side > limit / scale),
            "bound_slack": np.asarray(bound.parameter_side / bound.input_side),
        }


def _sides(fn, activation, params, x):
    """The three forms, the control of the first, the bound and the factor in it."""
    forms = {
        norm: igr.penalty_inequality(params, x, fn, activation, norm=norm)
        for norm in NORMS
    }
    with_bias = [(w, jnp.zeros(w.shape[1])) for w, _ in params]
    kept = igr.penalty_inequality(with_bias, x, fn, activation).input_side
    bound = igr.input_gradient_bound(params, x, fn, activation)
    return forms, kept, bound, jnp.linalg.norm(params[0][0], 2) ** 2


def _count(where: jax.Array) -> int:
    return int(jnp.sum(where))


def _slacks() -> dict[str, Any]:
    """Quartiles of the slack, by norm, for every depth and for a wide ReLU network."""
    with jax.enable_x64(True):
        by_depth = [
            _quartiles((10, *[32] * (depth - 1), 1), "tanh", PER_DEPTH)
            for depth in DEPTHS
        ]
        return {"tanh": by_depth, "wide": _quartiles(WIDE, "relu", 10)}


def _quartiles(sizes, activation, count) -> dict[str, list[float]]:
    def slacks(params, x):
        return {
            norm: igr.penalty_inequality(
                params, x, jnp.sum, activation, norm=norm
            ).slack
            for norm in NORMS
        }

    found = jax.jit(jax.vmap(slacks))(*_networks(0, sizes, count))
    return {
        # Infinite where the output is a dead unit.
        norm: np.quantile(slack[np.isfinite(slack)], [0.25, 0.5, 0.75]).tolist()
        for norm, slack in found.items()
    }


def _column(rows: list[dict[str, list[float]]], norm: str, index: int) -> np.ndarray:
    return np.array([row[norm][index] for row in rows])


def _batches() -> dict[str, Any]:
    """How often each right side of a batch is too small, and the known example."""
    with jax.enable_x64(True):
        params, _ = _networks(0, (4, 16, 1), 100)
        rng = np.random.default_rng(1)
        x = jnp.asarray(rng.normal(size=(100, 8, 4)))
        targets = jnp.asarray(rng.normal(size=(100, 8)))
        sides = jax.jit(jax.vmap(lambda p, x, t: _batch_sides(p, x, t, "tanh")))
        left, mean_of_squares, square_of_mean = sides(params, x, targets)
        opposite = _batch_sides(
            [(jnp.array([[0.0], [2.0]]), jnp.zeros(1))],
            jnp.array([[1.0, 0.0]] * 2),
            jnp.array([1.0, -1.0]),
            "identity",
        )
        return {
            "mean_of_squares": int(jnp.sum(left > ROUNDING * mean_of_squares)),
            "square_of_mean": int(jnp.sum(left > ROUNDING * square_of_mean)),
            "opposite": [float(opposite[2]), float(opposite[0])],
        }


def _batch_sides(params, x, targets, activation):
    """Mean left side, mean right side, and squared gradient of the mean loss."""

    def one(x, target):
        return igr.penalty_inequality(
            params, x, lambda h: 0.5 * jnp.sum((h - target) ** 2), activation
        )

    def mean_loss(params):
        h = x
        for w, b in params:
            h = ACTIVATIONS[activation](h @ w + b[None])
        return 0.5 * jnp.mean((h[:, 0] - targets) ** 2)

    each = jax.vmap(one)(x, targets)
    of_mean = trees.squared_norm(jax.grad(mean_loss)(params))
    return jnp.mean(each.input_side), jnp.mean(each.parameter_side), of_mean
