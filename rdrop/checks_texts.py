"""R-Drop against its rivals on texts with few labels, with one budget for each arm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from expkit import arms, claims, finetuning_runs, loop, plots, text_classifier
from expkit.claims import Context, Finding
from rdrop import checks_runs, train

ALPHAS = (0.0, 4.0, 1.0, 16.0)
NUM_MASKS = 16


def check_better(
    context: Context, setting: str, arm: str, rival: str, at_least: float = 0.0
) -> Finding:
    """Difference of the test accuracies of two arms, paired by seed.

    Where n-grams beat both of them, nothing is decided.
    """
    if checks_runs.SETTINGS[setting].quick is None and not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, setting)
    runs.draw(setting, {a: checks_runs.NAMES[a] for a in checks_runs.ARMS[setting]})
    return runs.compare(arm, rival, checks_runs.NAMES, at_least=at_least)


def check_regression(context: Context) -> Finding:
    """Ratio of the test errors of R-Drop and of the plain regression, by seed."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "pairs")
    losses = {arm: runs.test(arm, "loss") for arm in ("rdrop", "none")}
    mean, interval = claims.paired_difference(losses["none"], losses["rdrop"])
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        runs.seeds,
        f"Mean squared error without minus with R-Drop: {losses['none'].mean():.4f} "
        f"and {losses['rdrop'].mean():.4f}, scores 0 to 2.",
    )


def check_gap(context: Context) -> Finding:
    """How far the mean of sub-networks is from the network without dropout."""
    runs = checks_runs.study(context, "reviews")
    rate = runs.tuned("rdrop")["learning_rate"]

    def measure(alpha, seed):
        settings = {"learning_rate": rate, "strength": alpha}
        return context.memo(
            f"gap-{alpha:g}-{seed}",
            lambda: model_gap(runs.lab, runs.run("rdrop", seed, settings)),
            rate=rate,
            config=runs.config.to_dict(),
        )

    alphas = ALPHAS if context.full else ALPHAS[:2]
    gaps = np.array([[measure(alpha, seed) for alpha in alphas] for seed in runs.seeds])
    logs = np.log(np.maximum(gaps, 1e-6))
    mean, interval = claims.paired_difference(logs[:, 1], logs[:, 0])
    figures = ", ".join(
        f"{gap:.4f} at alpha {alpha:g}"
        for alpha, gap in zip(alphas, gaps.mean(axis=0), strict=True)
    )
    bounds = [claims.mean_interval(column)[1] for column in gaps.T]
    order = np.argsort(alphas)
    context.figure(
        "gap",
        lambda fig: plots.curves(
            fig.subplots(),
            {
                "mean over seeds": (
                    np.sort(alphas),
                    gaps.mean(axis=0)[order],
                    [max(bounds[i][0], 0.0) for i in order],
                    [min(bounds[i][1], 3 * gaps.max()) for i in order],
                )
            },
            xlabel="alpha",
            ylabel="gap",
        ),
        "Distance of the mean of the sub-networks from the network without dropout.",
        f"Total variation distance: {figures}.",
    )
    return Finding(
        float(np.exp(mean)),
        claims.decide(interval, at_most=0.0),
        (float(np.exp(interval[0])), float(np.exp(interval[1]))),
        runs.seeds,
        f"Gap at alpha 4 divided by that at 0: {figures}. Total variation distance of "
        f"the mean of {NUM_MASKS} passes from the one without dropout, on test texts.",
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
    runs = checks_runs.study(context, "reviews")
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

    gains = {
        arm: np.array([measure(arm, seed) for seed in runs.seeds]) - runs.test(arm)
        for arm in ("rdrop", "none")
    }
    mean, interval = claims.paired_difference(gains["rdrop"], gains["none"])
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        runs.seeds,
        f"Gain in test accuracy from {longer} instead of {longer // 3} steps: R-Drop "
        f"{gains['rdrop'].mean():+.3f}, without {gains['none'].mean():+.3f}.",
    )


def check_cost(context: Context) -> Finding:
    """Time of a step of R-Drop divided by that of a plain one, taken in turn."""
    runs = checks_runs.study(context, "reviews")
    lab = runs.lab
    arrays, _ = lab.draw(0)
    batch = {k: jnp.asarray(v[: lab.config.batch_size]) for k, v in arrays.items()}
    steps = {}
    for arm in ("none", "rdrop"):
        config = lab.config.copy_and_resolve_references()
        config.regularizer = arm
        optimizer = train.make_optimizer(config)
        step = loop.make_step(train.make_loss(config, lab.texts.task), optimizer)
        state = loop.init_state(lab.initial(0), optimizer, jax.random.key(0))
        steps[arm] = functools.partial(jax.jit(step), state, batch)
    seconds = finetuning_runs.least_seconds(steps, rounds=30 if context.full else 8)
    ratio = seconds["rdrop"] / seconds["none"]
    return claims.exact(
        ratio <= 2.05,
        ratio,
        f"A plain step of {lab.config.batch_size} texts takes "
        f"{1e3 * seconds['none']:.0f} ms here; least of all rounds.",
    )
