"""The inequality between input and parameter gradients along runs on digits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import igr
from expkit import claims, per_example, plots, supervised
from expkit import config as config_lib
from expkit.claims import Context, Finding
from igr import checks_descent, checks_trends, train

TIME = 51.2  # learning rate * steps
RATES = 0.04 * 2.0 ** np.arange(5)
SHOWN = float(RATES[2])
NUM_RECORDS = 16
EXAMPLES = 16  # on which the inequality is evaluated, with one SVD a layer
CONFIG = (
    "configs/igr/digits.py:train_split=train[:500],hidden=(64,64),activation=tanh,"
    "batch_size=500,regularizer=none"
)
ROUNDING = 1e-4  # of float32 sums and singular values
Figures = dict[str, np.ndarray]


def check_inequality(context: Context) -> Finding:
    """Violations along training, and the slack."""
    figures = [_figures(context, seed, SHOWN) for seed in _seeds(context)]
    slack, violations = _slack(figures, "parameter_side", "input_side")
    start, end = np.median(slack[:, 0]), np.median(slack[:, -1])
    _draw(context)
    return claims.exact(
        violations == 0,
        violations,
        f"Of {slack.size} evaluations on {EXAMPLES} images, {1 + NUM_RECORDS} times in "
        f"{len(slack)} runs. The right side over the left: median {start:.2f} at the "
        f"start, {end:.2f} at the end, least {slack.min():.3f}.",
    )


def check_first_layer_bound(context: Context) -> Finding:
    """Violations of the bound by the gradient of the first layer, and its slack."""
    figures = [_figures(context, seed, SHOWN) for seed in _seeds(context)]
    slack, violations = _slack(figures, "bound", "squared_input_gradient")
    return claims.exact(
        violations == 0,
        violations,
        f"Of {slack.size} evaluations of ||grad_x loss||^2 <= ||W_1||^2 / (1 + "
        "||x||^2) ||grad_1 loss||^2. The right side over the left: median "
        f"{np.median(slack[:, 0]):.1f} at the start, {np.median(slack[:, -1]):.1f} at "
        f"the end, least {slack.min():.3f}.",
    )


def check_bracket_is_steady(context: Context) -> Finding:
    """Largest over smallest factor between the penalties along training."""
    ratios = []
    for seed in _seeds(context):
        figures = _figures(context, seed, SHOWN)
        bracket = figures["input_side"] / figures["squared_input_gradient"]
        middle = np.median(bracket, axis=-1)
        ratios.append(middle.max() / middle.min())
    mean, interval = claims.mean_interval(ratios)
    return Finding(
        mean,
        claims.decide(interval, at_most=2.0),
        interval,
        _seeds(context),
        "The sum over layers of (1 + ||h||^2) / ||W J||^2, median over images, from "
        "start to end. Up to a factor of 2 counts as nearly constant.",
    )


def check_penalties_correlate(context: Context) -> Finding:
    """Spearman correlation of the two penalties at the end, over learning rates."""
    return _correlation(
        context,
        lambda ends: (ends["parameter_energy"], ends["input_energy"]),
        "the mean squared gradients in the parameters and in the input",
        at_least=0.0,
    )


def check_energy_falls(context: Context) -> Finding:
    """Spearman correlation of learning rate and the mean squared input gradient."""
    return _correlation(
        context,
        lambda ends: (RATES, ends["input_energy"]),
        "the learning rate and the mean squared gradient of the loss in the input",
        at_most=0.0,
    )


def _slack(figures: list[Figures], right: str, left: str) -> tuple[np.ndarray, int]:
    """Right over left side, [seeds, records, images], and how many are below 1."""
    larger, smaller = (np.array([f[name] for f in figures]) for name in (right, left))
    # Of the negation: a nan is a violation too.
    violations = int((~(larger >= (1.0 - ROUNDING) * smaller)).sum())
    safe = np.where(smaller == 0.0, 1.0, smaller)
    return np.where(smaller == 0.0, np.inf, larger / safe), violations


def _correlation(context: Context, pair, what: str, **region: float) -> Finding:
    correlations, ranges = [], []
    for seed in _seeds(context):
        rows = [_figures(context, seed, rate) for rate in RATES.tolist()]
        ends = {
            name: np.array([row[name][-1] for row in rows])
            for name in ("input_energy", "parameter_energy")
        }
        correlations.append(checks_trends.rank_correlation(*pair(ends)))
        ranges.append([ends["input_energy"][0], ends["input_energy"][-1]])
    mean, interval = checks_trends.correlation_interval(correlations)
    first, last = np.mean(ranges, axis=0)
    return Finding(
        mean,
        claims.decide(interval, **region),
        interval,
        _seeds(context),
        f"Spearman correlation of {what}, at the end of {len(RATES)} runs of equal "
        f"learning rate x steps. Squared input gradient: {first:.3g} at the smallest "
        f"rate, {last:.3g} at the largest.",
    )


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=10)


def _figures(context: Context, seed: int, rate: float) -> Figures:
    """Figures along one run, each [1 + NUM_RECORDS, ...]."""

    def compute():
        steps = round(TIME / rate / NUM_RECORDS) * NUM_RECORDS
        return _compiled()(seed=seed, num_steps=steps, learning_rate=rate)[1]

    kept: dict[str, Any] = context.memo(
        f"smoothness-{rate:g}-{seed}",
        compute,
        rate=rate,
        time=TIME,
        records=NUM_RECORDS,
        examples=EXAMPLES,
        config=CONFIG,
    )
    return {name: np.array(values, float) for name, values in kept.items()}


@functools.cache
def _compiled():
    config = config_lib.load(CONFIG)
    task = train.make_task(config)
    prepare = supervised.standardizer(task.splits["train"]["image"])

    def record(params, splits):
        arrays = splits["train"]
        x = prepare(arrays["image"]).reshape(len(arrays["label"]), -1)
        return _record(params, x, arrays["label"])

    return checks_descent.compile_descent(config, record, NUM_RECORDS)


def _record(params, x, labels) -> dict[str, jax.Array]:
    """Both sides on some examples, and both mean squared gradients on all."""
    hidden = [(layer["kernel"], layer["bias"]) for _, layer in _ordered(params)]
    out = params["out"]["kernel"], params["out"]["bias"]

    def losses(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def loss_of_hidden(h, label):
        return losses(h @ out[0] + out[1], label)

    def sides(x, label):
        fn = functools.partial(loss_of_hidden, label=label)
        both = igr.penalty_inequality(hidden, x, fn, "tanh")
        bound = igr.input_gradient_bound(hidden, x, fn, "tanh")
        return {
            "input_side": both.input_side,
            "parameter_side": both.parameter_side,
            "layer_terms": both.layer_terms,
            "squared_input_gradient": bound.input_side,
            "bound": bound.parameter_side,
        }

    def loss_of_input(x, label):
        for w, b in hidden:
            x = jnp.tanh(x @ w + b)
        return loss_of_hidden(x, label)

    slopes = jax.vmap(jax.grad(loss_of_input))(x, labels)
    squares = per_example.dense_squared_norms(
        [*hidden, out], x, lambda logits: losses(logits, labels), jnp.tanh
    )
    energies = {
        "input_energy": jnp.mean(jnp.sum(slopes**2, axis=-1)),
        "parameter_energy": jnp.mean(squares),
    }
    return jax.vmap(sides)(x[:EXAMPLES], labels[:EXAMPLES]) | energies


def _ordered(params):
    return sorted(params["hidden"].items(), key=lambda item: int(item[0]))


def _draw(context: Context) -> None:
    """Both sides along training, and the left one layer by layer."""
    figures = _figures(context, 0, SHOWN)
    steps = round(TIME / SHOWN) * np.linspace(0, 1, 1 + NUM_RECORDS)
    median = functools.partial(np.median, axis=1)
    left, right = median(figures["input_side"]), median(figures["parameter_side"])
    terms = median(figures["layer_terms"])
    series = {
        "parameter side": (steps, right, None, None),
        "input side": (steps, left, None, None),
    } | {
        f"layer {n + 1}": (steps, terms[:, n], None, None)
        for n in range(terms.shape[1])
    }

    def draw(figure):
        plots.curves(figure.subplots(), series, ylabel="median over images", log_y=True)

    context.figure(
        "inequality",
        draw,
        "Both sides of the inequality along one run, and what each layer adds to the "
        f"input side: medians over {EXAMPLES} training images.",
        f"At the end: parameter side {right[-1]:.3g}, input side {left[-1]:.3g}, "
        f"layers {', '.join(f'{x:.3g}' for x in terms[-1])}.",
    )
