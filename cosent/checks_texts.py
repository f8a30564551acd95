"""CoSENT against its rivals on pairs of texts, with one budget for each arm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import cosent
from cosent import checks_runs, train
from expkit import claims, dot_plots, finetuning_runs, plots
from expkit.claims import Context, Finding

SKIPPED = "Minutes a run: measured with --full."


def check_better(
    context: Context,
    setting: str,
    arm: str,
    rival: str,
    figure: str,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Finding:
    """Difference of a test figure of two arms, paired by seed.

    Where TF-IDF beats both of them, nothing is decided.
    """
    if not context.full and (
        checks_runs.SETTINGS[setting].quick is None or arm == "scale_1"
    ):
        return Finding(None, claims.NOT_DECIDED, details=SKIPPED)
    runs = checks_runs.study(context, setting)
    values = {name: runs.test(name, figure) for name in (arm, rival)}
    mean, interval = claims.paired_difference(values[arm], values[rival])
    ngrams = runs.ngrams()[f"test_{figure}"]
    is_below = bool(max(v.mean() for v in values.values()) < ngrams)
    verdict = claims.decide(interval, at_least=at_least, at_most=at_most)
    config = runs.config
    figures = ", ".join(
        f"{checks_runs.NAMES[name]} {v.mean():.3f}" for name, v in values.items()
    )
    return Finding(
        mean,
        claims.NOT_DECIDED if is_below else verdict,
        interval,
        runs.seeds,
        f"Difference of the test {figure}: {figures}. {config.num_steps} steps of "
        f"{config.batch_size} pairs, {config.num_layers} layers of MiniLM; cosine of "
        f"TF-IDF {ngrams:.3f}{', more than either' * is_below}.",
    )


def check_ranking(context: Context) -> Finding:
    """Spearman correlation of CoSENT minus that of Sentence-BERT, and a figure."""
    finding = check_better(
        context, "pairs", "cosent", "sentence_bert", "spearman", at_least=0.0
    )
    runs = checks_runs.study(context, "pairs")
    arms = [a for a in checks_runs.ARMS if context.full or a in checks_runs.QUICK]
    values = {checks_runs.NAMES[arm]: runs.test(arm, "spearman") for arm in arms}
    ngrams = runs.ngrams()["test_spearman"]
    figures = ", ".join(f"{name} {v.mean():.3f}" for name, v in values.items())
    context.figure(
        "spearman",
        lambda fig: dot_plots.arms(
            fig.subplots(),
            values,
            xlabel="Spearman correlation, test",
            reference=("cosine of TF-IDF", ngrams),
        ),
        "Rank correlation on test pairs: a dot for each seed, the mean, its interval.",
        f"{figures}; cosine of TF-IDF {ngrams:.3f}.",
    )
    return finding


def check_early(context: Context) -> Finding:
    """Lead of CoSENT over Sentence-BERT after the first part of the training."""
    runs = checks_runs.study(context, "pairs")
    courses = {arm: runs.courses(arm) for arm in ("cosent", "sentence_bert")}
    early = {arm: course[:, 1] for arm, course in courses.items()}
    mean, interval = claims.paired_difference(early["cosent"], early["sentence_bert"])
    start = courses["cosent"][0, 0]
    steps = runs.config.num_steps // checks_runs.NUM_BLOCKS
    drops = {
        arm: float(np.mean(start - course.min(axis=1)))
        for arm, course in courses.items()
    }
    x = steps * np.arange(checks_runs.NUM_BLOCKS + 1)
    context.figure(
        "course",
        lambda fig: plots.curves(
            fig.subplots(),
            {
                checks_runs.NAMES[arm]: (
                    x,
                    course.mean(axis=0),
                    course.min(axis=0),
                    course.max(axis=0),
                )
                for arm, course in courses.items()
            },
            ylabel="Spearman correlation, validation",
        ),
        "Rank correlation along the training: mean and range of the seeds.",
        f"After {steps} steps: "
        + ", ".join(f"{checks_runs.NAMES[a]} {v.mean():.3f}" for a, v in early.items()),
    )
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        runs.seeds,
        f"Difference of the validation Spearman after {steps} of "
        f"{runs.config.num_steps} steps; {start:.3f} before the first. Largest drop "
        f"below the start: CoSENT {drops['cosent']:.3f}, Sentence-BERT "
        f"{drops['sentence_bert']:.3f}.",
    )


def check_retrieval_cost(context: Context) -> Finding:
    """Time to rank n texts for each of n: one encoding a text, or one run a pair."""
    runs = checks_runs.study(context, "pairs")
    labs = {arm: runs.lab(arm) for arm in ("cosent", "interaction")}
    size = 32
    seconds = context.memo(
        "retrieval", lambda: _unit_seconds(labs, size), config=runs.config.to_dict()
    )
    n = np.array([10, 100, 1_000, 10_000, 100_000])
    cost = {
        "encoded once": 2 * n * seconds["text"] + n**2 * seconds["product"],
        "each pair together": n**2 * seconds["pair"],
    }
    ratio = float(cost["each pair together"][2] / cost["encoded once"][2])
    context.figure(
        "retrieval",
        lambda fig: _draw_cost(fig.subplots(), n, cost),
        "Time to find the nearest of n texts for each of n, from the time of one text "
        "and of one pair on this machine.",
        f"At n = 1,000 the interaction-based model takes {ratio:.0f} times as long.",
    )
    return claims.exact(
        ratio > 100,
        ratio,
        f"Ratio at n = 1,000, from {1e3 * seconds['text']:.2f} ms a text, "
        f"{1e3 * seconds['pair']:.2f} ms a pair and {1e9 * seconds['product']:.0f} ns "
        "a cosine: n encodings against n^2, so the ratio grows with n.",
    )


def _unit_seconds(labs, size: int) -> dict[str, float]:
    """Seconds of a text, of a pair in one sequence, and of a cosine with its top 10."""
    calls = {}
    for arm, lab in labs.items():
        rows = lab.pairs.splits["test"]
        batch = {k: jnp.asarray(v[:size]) for k, v in rows.items()}
        score = jax.jit(train.make_score(lab.config, lab.pairs))
        calls[arm] = functools.partial(score, lab.pairs.params, batch)
    vectors = np.random.default_rng(0).normal(size=(2000, 384)).astype(np.float32)
    calls["product"] = functools.partial(cosent.top_k, vectors, vectors, 10)
    least = finetuning_runs.least_seconds(calls, rounds=3)
    return {
        "text": least["cosent"] / (2 * size),
        "pair": least["interaction"] / size,
        "product": least["product"] / len(vectors) ** 2,
    }


def _draw_cost(ax, n, cost) -> None:
    plots.curves(
        ax,
        {name: (n, y, None, None) for name, y in cost.items()},
        xlabel="texts",
        ylabel="seconds",
        log_y=True,
    )
    ax.set_xscale("log")
