"""R-Drop against its rivals on texts with few labels, each at its tuned settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from expkit import (
    arms,
    bag_of_ngrams,
    claims,
    data,
    finetuning_runs,
    labelled_texts,
    plots,
    strengths,
    text_classifier,
)
from expkit.claims import Context, Finding
from rdrop import checks_runs

ALPHAS = (0.0, 1.0, 4.0, 16.0)
NUM_MASKS = 16


def check_better(
    context: Context, setting: str, arm: str, rival: str, at_least: float = 0.0
) -> Finding:
    """Difference of the test accuracies of two arms, paired by seed.

    Where n-grams beat both of them, nothing is decided.
    """
    is_quick = checks_runs.SETTINGS[setting].quick is not None
    if not (context.full or (is_quick and {arm, rival} <= set(checks_runs.QUICK))):
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, setting)
    drawn = checks_runs.ARMS[setting] if context.full else checks_runs.QUICK
    runs.draw(setting, {name: checks_runs.NAMES[name] for name in drawn})
    return runs.compare(arm, rival, checks_runs.NAMES, at_least=at_least)


def check_regression(context: Context) -> Finding:
    """Ratio of the test errors of R-Drop and of the plain regression, by seed."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "pairs")
    losses = {arm: runs.test(arm, "loss") for arm in ("rdrop", "none")}
    mean, interval = claims.paired_difference(losses["none"], losses["rdrop"])
    baseline = np.mean(
        [
            context.memo(
                f"cosines-{seed}",
                functools.partial(cosine_error, runs.config, seed),
                config=runs.config.to_dict(),
            )
            for seed in runs.seeds
        ]
    )
    is_above = bool(min(loss.mean() for loss in losses.values()) > baseline)
    # The lower a loss, the better: R-Drop beyond its grid may raise the difference.
    is_open = [runs.is_at_end(arm) for arm in ("rdrop", "none")]
    verdict = claims.decide(interval, is_open, at_least=0.0)
    beside = ", less than either, so nothing is decided" if is_above else ""
    return Finding(
        mean,
        claims.NOT_DECIDED if is_above else verdict,
        interval,
        runs.seeds,
        f"Mean squared error without minus with R-Drop: {losses['none'].mean():.4f} "
        f"and {losses['rdrop'].mean():.4f}, scores 0 to 2; of a line through the "
        f"cosines of TF-IDF {baseline:.4f}{beside}. {_settings(runs)}.",
    )


def _settings(runs: arms.Arms) -> str:
    """The tuned settings of R-Drop and of the plain loss in words."""
    return ", ".join(
        f"{checks_runs.NAMES[arm]} at {runs.listed(arm)}" for arm in ("rdrop", "none")
    )


def cosine_error(config, seed: int) -> float:
    """Test error of least squares on the TF-IDF cosine of a pair: the baseline.

    It sees the labelled pairs of the seed, as the runs do.
    """
    splits = data.load_splits(config)
    scores = splits["train"][config.label_column]
    chosen, _ = labelled_texts.choose_labelled(scores, config.num_labels, seed)
    train = {name: rows[chosen] for name, rows in splits["train"].items()}
    words = np.concatenate([train[column] for column in config.text_columns])
    x, held_out = (
        bag_of_ngrams.tfidf_cosines(words, *(rows[c] for c in config.text_columns))
        for rows in (train, splits["test"])
    )
    line = np.polyfit(x, train[config.label_column], deg=1)
    errors = np.polyval(line, held_out) - splits["test"][config.label_column]
    return float(np.mean(np.square(errors)))


def check_alpha(context: Context) -> Finding:
    """Gain in accuracy at the alpha that validates best over alpha 0."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "docs")
    rates = checks_runs.PLAIN_RATES[checks_runs.RATES]
    listed = functools.partial(_listed, digits=3)
    finding, test = strengths.against_zero(
        runs, "rdrop", ALPHAS, "accuracy", rates=rates, listed=listed
    )
    label, baseline = runs.baseline("accuracy")
    _draw_alphas(
        context,
        "alpha",
        test,
        "test accuracy",
        "Test accuracy against alpha, mean over seeds and its interval.",
        f"Test accuracy: {listed(test.mean(axis=0))}; {label} {baseline:.3f}.",
        {label: baseline},
    )
    return finding


def check_gap(context: Context) -> Finding:
    """How far the mean of sub-networks is from the network without dropout."""
    runs = checks_runs.study(context, "docs")
    rate = runs.tuned("rdrop")["learning_rate"]

    def measure(alpha, seed):
        settings = {"learning_rate": rate, "strength": alpha}
        if context.full:  # where `check_alpha` has the figures of the same runs
            runs.figures("rdrop", seed, settings)
        return context.memo(
            f"gap-{alpha:g}-{seed}",
            lambda: model_gap(runs.lab, runs.run("rdrop", seed, settings)),
            rate=rate,
            config=runs.config.to_dict(),
        )

    rows = [[measure(alpha, seed) for alpha in ALPHAS] for seed in runs.seeds]
    gaps = np.array(rows, float)
    x = np.log1p(ALPHAS) - np.log1p(ALPHAS).mean()
    slopes = np.log(np.maximum(gaps, 1e-6)) @ x / (x @ x)
    mean, interval = claims.mean_interval(slopes)
    listed = _listed(gaps.mean(axis=0), digits=4)
    _draw_alphas(
        context,
        "gap",
        gaps,
        "gap",
        "Distance of the mean of the sub-networks from the network without dropout.",
        f"Total variation distance: {listed}.",
    )
    return Finding(
        mean,
        claims.decide(interval, at_most=0.0),
        interval,
        runs.seeds,
        f"Exponent k of the gap as (1 + alpha)^k, fitted to each seed: {listed}. Total "
        f"variation distance of the mean of {NUM_MASKS} passes from the one without "
        "dropout, on test texts.",
    )


def _listed(values, digits: int) -> str:
    """A value for each alpha in words."""
    pairs = zip(ALPHAS, values, strict=True)
    return ", ".join(f"{value:.{digits}f} at alpha {alpha:g}" for alpha, value in pairs)


def _draw_alphas(context: Context, name, values, ylabel, caption, alt, levels=None):
    """Draws values [seeds, alphas] with their intervals, and levels beside them."""
    means = values.mean(axis=0)
    bounds = np.array([claims.mean_interval(column)[1] for column in values.T])
    # Of two seeds an interval may be many times as wide as the values.
    low = np.maximum(bounds[:, 0], 0.0)
    high = np.minimum(bounds[:, 1], 3 * values.max())
    series = {"mean over seeds": (ALPHAS, means, low, high)} | {
        label: (ALPHAS, np.full(len(ALPHAS), level), None, None)
        for label, level in (levels or {}).items()
    }
    context.figure(
        name,
        lambda fig: plots.curves(fig.subplots(), series, xlabel="alpha", ylabel=ylabel),
        caption,
        alt,
    )


def model_gap(lab: finetuning_runs.Lab, params) -> float:
    """Total variation distance of `E f(x, mask)` and `f(x)`, mean over test texts.

    A mean of `NUM_MASKS` passes is off its limit by chance, which adds its variance to
    the squared distance; a quarter of the squared distance of the means of its halves
    estimates that variance, and is taken off.
    """
    rows = lab.texts.task.splits["test"]
    x = {k: v[:128] for k, v in text_classifier.inputs(rows).items()}
    every, whole = _passes(lab.texts.task.net.apply)(params, x)
    half = NUM_MASKS // 2
    chance = 0.25 * jnp.square(every[:half].mean(axis=0) - every[half:].mean(axis=0))
    squares = jnp.square(every.mean(axis=0) - whole) - chance
    distance = jnp.sqrt(jnp.maximum(squares.sum(axis=-1).mean(), 0.0) / 2)
    return float(distance)


@functools.cache
def _passes(apply):
    """Probabilities of `NUM_MASKS` passes with dropout, and of the one without."""
    keys = jax.random.split(jax.random.key(0), NUM_MASKS)

    @jax.jit
    def passes(params, x):
        every = jax.lax.map(lambda key: jax.nn.softmax(apply(params, x, key)), keys)
        return every, jax.nn.softmax(apply(params, x))

    return passes


def check_epochs(context: Context) -> Finding:
    """What training three times as long gives R-Drop, and what the plain loss."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "docs")
    longer = 3 * runs.config.num_steps
    compiled = functools.cache(
        lambda arm: checks_runs.compile_arm(runs.lab, arm, num_steps=longer)
    )

    def measure(arm, seed):
        settings = runs.tuned(arm)
        return context.memo(
            f"longer-{arm}-{seed}",
            lambda: runs.lab.evaluate(compiled(arm)(settings, seed=seed), "test"),
            settings=settings,
            config=runs.config.to_dict(),
        )["test_accuracy"]

    before = {arm: runs.test(arm) for arm in ("rdrop", "none")}
    after = {
        arm: np.array([measure(arm, seed) for seed in runs.seeds], float)
        for arm in before
    }
    gains = {arm: after[arm] - before[arm] for arm in before}
    mean, interval = claims.paired_difference(gains["rdrop"], gains["none"])
    reached = max(v.mean() for v in (*before.values(), *after.values()))
    verdict, beside = runs.beside_baseline(
        claims.decide(interval, at_least=0.0), reached
    )
    return Finding(
        mean,
        verdict,
        interval,
        runs.seeds,
        f"Gain in test accuracy from {longer} instead of {longer // 3} steps: R-Drop "
        f"{gains['rdrop'].mean():+.3f}, without {gains['none'].mean():+.3f}. "
        f"{reached:.3f} at most; {beside}. Tuned for the {longer // 3} steps: "
        f"{_settings(runs)}.",
    )
