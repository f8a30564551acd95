"""Flooding on digits, with right labels and with 20 % of wrong ones, level by level.

Levels and stops are chosen by the validation figure whose test figure is compared: the
loss of a network that is too sure of itself and its accuracy prefer different ones.
"""

import functools

import jax
import numpy as np
import optax

from expkit import claims, grids, plots, supervised, sweep
from expkit import config as config_lib
from expkit.claims import Context, Finding
from igr import checks_runs, train

# Nats; the cross-entropy is never below 0, and labels of which 20 % are wrong have an
# entropy of 0.94.
LEVELS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
NOISES = {"clean": 0.0, "noisy": 0.2}
NUM_RECORDS = 40
# Plain training has no level to choose, so it has as many times to stop at.
NUM_STOPS = len(LEVELS) - 1
STOPS = [NUM_RECORDS * (n + 1) // NUM_STOPS for n in range(NUM_STOPS)]
WINDOW = 5  # records that are averaged where a curve is looked at for a peak
CONFIG = (
    "configs/igr/digits.py:regularizer=flooding,hidden=(128,),activation=relu,"
    "learning_rate=0.2,num_steps=2000,batch_size=64,train_split=train[:500],"
)
Figures = dict[str, np.ndarray]


def check_test_loss(noise: str, rival: str, context: Context) -> Finding:
    """Test loss with the level that validation prefers, minus that without one."""
    return _compare(context, noise, rival, "test_loss", at_most=0.0)


def check_test_accuracy(noise: str, rival: str, context: Context) -> Finding:
    """Test accuracy with that level, minus that without one."""
    return _compare(context, noise, rival, "test_accuracy", at_least=0.0)


def check_gradient_norm(context: Context) -> Finding:
    """Log ratio of gradient norms at the same training loss, flooded to plain."""
    level = 0.1
    figures, plain = _figures(context, "clean", level), _figures(context, "clean", 0.0)
    ratios = []
    for seed in range(len(plain["train_loss"])):
        losses, norms = plain["train_loss"][seed], plain["gradient_norm"][seed]
        flooded = figures["train_loss"][seed, -1]
        # The plain run passes that loss once, on its way down. Norms go by powers of
        # the loss, so both are logarithms.
        order = np.argsort(losses)
        known = np.log(losses[order]), np.log(norms[order])
        reference = np.interp(np.log(flooded), *known)
        ratios.append(np.log(figures["gradient_norm"][seed, -1]) - reference)
    mean, bounds = claims.mean_interval(ratios)
    low, high = np.exp(bounds).tolist()
    return Finding(
        float(np.exp(mean)),
        claims.decide((low, high), at_most=1.0),
        (low, high),
        _seeds(context),
        f"Norm of the training gradient at the end under a level of {level:g}, divided "
        "by that of the plain run where its training loss was the same.",
        is_ratio=True,
    )


def check_double_descent(context: Context) -> Finding:
    """How much of the rise in test loss after its first minimum is undone again."""
    level = _best_level(context, "noisy")
    flooded, plain = (
        _undone(_figures(context, "noisy", at)["test_loss"]) for at in (level, 0.0)
    )
    mean, interval = claims.mean_interval(flooded)
    _draw(context)
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        _seeds(context),
        f"Level {level:g}, 20 % wrong labels: the fall of the test loss after its "
        "peak, divided by the rise before it, 0 without a rise; 1 would be as low as "
        f"before. Without flooding {plain.mean():.2f}. Means of {WINDOW} records; the "
        "peak of a seed is where the mean of the others has it, so that a plateau does "
        "not seem to fall.",
    )


def _undone(curves: np.ndarray) -> np.ndarray:
    """The fall of each curve after a peak, divided by the rise before it, [seeds].

    Its own highest record would be that of its noise, and every plateau would fall.
    """
    window = np.ones(WINDOW) / WINDOW
    smooth = np.stack([np.convolve(c, window, mode="valid") for c in curves])
    fractions = []
    for i, curve in enumerate(smooth):
        first = int(np.argmin(curves[i, : NUM_RECORDS // 2]))
        others = np.delete(smooth, i, axis=0).mean(axis=0)
        peak = first + int(np.argmax(others[first:]))
        rise = curve[peak] - curves[i, first]
        fractions.append(0.0 if rise <= 0.0 else (curve[peak] - curve[-1]) / rise)
    return np.round(fractions, 9)  # what is left of sums that are equal is not a fall


def _compare(
    context: Context, noise: str, rival: str, name: str, **region: float
) -> Finding:
    """Flooding minus plain training to the `end`, or to where it is best `stopped`."""
    chosen_by = name.replace("test", "validation")
    level = _best_level(context, noise, chosen_by)
    is_stopped = rival == "stopped"
    stop = _best_stop(context, noise, chosen_by) if is_stopped else NUM_RECORDS
    rows = f"{name}_rows"
    flooded = _figures(context, noise, level)[rows][:, -1]
    plain = _figures(context, noise, 0.0)[rows][:, stop]
    mean, interval = claims.crossed_difference(flooded, plain)
    where = "to the end, which has no setting, the level"
    if is_stopped:
        where = (
            f"stopped at {stop / NUM_RECORDS:g} of the steps, of as many times, each"
        )
    # Beyond an end of the levels, or of the times to stop, there may be a better one.
    is_open = [
        grids.is_at_end({"level": level}, {"level": LEVELS[1:]}),
        is_stopped and grids.is_at_end({"stop": stop}, {"stop": STOPS}),
    ]
    if name.endswith("loss"):  # where better is lower
        is_open.reverse()
    end = {LEVELS[1]: "lowest", LEVELS[-1]: "highest"}.get(level)
    beyond = f" The {end} level is the best of those tried." if end else ""
    return Finding(
        mean,
        claims.decide(interval, is_open, **region),
        interval,
        _seeds(context),
        f"At the end under the level {level:g}, of {LEVELS[1:]}, minus plain training "
        f"{where} by {chosen_by.replace('_', ' ')}: {flooded.mean():.4g} and "
        f"{plain.mean():.4g}.{beyond} {claims.covered(plain)}",
    )


def _best_stop(context: Context, noise: str, name: str) -> int:
    """The record of plain training with the best mean of a validation figure."""
    return STOPS[_best(_figures(context, noise, 0.0)[name][:, STOPS], name)]


def _best_level(context: Context, noise: str, name: str = "validation_loss") -> float:
    """The level above 0 with the best mean of a validation figure at the end."""
    ends = [_figures(context, noise, level)[name][:, -1] for level in LEVELS[1:]]
    return LEVELS[1 + _best(np.stack(ends, axis=1), name)]


def _best(values: np.ndarray, name: str) -> int:
    """Index of the lowest mean loss, or of the highest mean accuracy."""
    (best,) = sweep.lowest(values if name.endswith("loss") else -values)
    return best


def _seeds(context: Context) -> range:
    return context.seeds(quick=2, full=10)


def _figures(context: Context, noise: str, level: float) -> Figures:
    """Figures along the runs at a level, each [seeds, 1 + NUM_RECORDS].

    Those with `_rows` have one axis more, of the test images; above level 0 they are of
    the last record alone.
    """

    def run(seed):
        records = _compiled(noise)(seed=seed, strength=level)[1]
        if level:
            rows = [name for name in records if name.endswith("_rows")]
            records |= {name: records[name][-1:] for name in rows}
        return records

    rows = [
        context.memo(
            f"flooding-{noise}-{level:g}-{seed}",
            functools.partial(run, seed),
            level=level,
            wrong=NOISES[noise],
            records=NUM_RECORDS,
            config=CONFIG,
        )
        for seed in _seeds(context)
    ]
    return sweep.stacked(rows)


@functools.cache
def _compiled(noise: str):
    config = config_lib.load(f"{CONFIG}label_noise={NOISES[noise]}")
    task = train.make_task(config)

    row_figures = supervised.make_row_figures(task)

    def loss_fn(params, arrays):
        return task.loss_fn(params, arrays, None)[0]

    def record(params, splits):
        slope = jax.grad(loss_fn)(params, splits["train"])
        figures = {"gradient_norm": optax.tree.norm(slope)}
        for name in ("train", "validation", "test"):
            loss, more = task.loss_fn(params, splits[name], None)
            figures |= {f"{name}_loss": loss, f"{name}_accuracy": more["accuracy"]}
        rows = row_figures(params, splits["test"])
        return figures | {f"test_{name}_rows": x for name, x in rows.items()}

    return checks_runs.compile_run(config, record, NUM_RECORDS)


def _draw(context: Context) -> None:
    """Test loss along training, for some levels, with and without wrong labels."""
    config = config_lib.load(CONFIG.rstrip(","))
    steps = np.linspace(0, config.num_steps, 1 + NUM_RECORDS)[1:]
    shown = {0.0: "no level", 0.05: "0.05", 0.2: "0.2"}

    def draw(figure):
        axes = figure.subplots(2, 1, sharex=True)
        for ax, noise in zip(axes, NOISES, strict=True):
            curves = {
                label: _figures(context, noise, level)["test_loss"][:, 1:]
                for level, label in shown.items()
            }
            series = {
                label: (steps, y.mean(axis=0), y.min(axis=0), y.max(axis=0))
                for label, y in curves.items()
            }
            wrong = f"{100 * NOISES[noise]:g} % wrong labels"
            plots.curves(ax, series, ylabel=f"test loss, {wrong}", log_y=True)
        axes[0].set_xlabel("")
        axes[1].get_legend().remove()

    ends = {
        noise: {
            label: _figures(context, noise, level)["test_loss"][:, -1].mean()
            for level, label in shown.items()
        }
        for noise in NOISES
    }
    context.figure(
        "flooding",
        draw,
        "Test loss along training at some flood levels: mean and range over "
        f"{len(_seeds(context))} seeds, above with right labels, below 20 % wrong.",
        "; ".join(
            f"{noise}: "
            + ", ".join(f"{label} ends at {end:.3g}" for label, end in row.items())
            for noise, row in ends.items()
        ),
        size=(4.6, 5.4),
    )
