"""CoSENT against its rivals on pairs of texts, with one budget for each arm."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cosent
from cosent import checks_runs, train
from expkit import arms, claims, finetuning_runs, plots
from expkit.claims import Context, Finding


def check_better(
    context: Context,
    setting: str,
    arm: str,
    rival: str,
    figure: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Finding:
    """Difference of a test figure of two arms, paired by seed."""
    is_quick = checks_runs.SETTINGS[setting].quick is not None
    if not (context.full or (is_quick and {arm, rival} <= set(checks_runs.QUICK))):
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, setting)
    names = {name: checks_runs.NAMES[name] for name in (arm, rival)}
    runs.draw(setting, names, figure=figure, file=f"{setting}-{arm}-{rival}")
    config = runs.config
    budget = (
        f"{config.num_steps} steps of {config.batch_size} pairs, "
        f"{config.num_layers or 'all'} layers of MiniLM"
    )
    return runs.compare(
        arm,
        rival,
        names,
        figure=figure,
        at_least=at_least,
        at_most=at_most,
        budget=budget,
    )


def check_word_order(context: Context) -> Finding:
    """Lead in accuracy of interaction over CoSENT where the order of words decides.

    Nothing is decided by an arm that has not learnt to tell an order.
    """
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    names = ("interaction", "cosent")
    finding = check_better(context, "word_order", *names, "accuracy", at_least=0.05)
    runs = checks_runs.study(context, "word_order")
    # Half of the pairs are alike, and an accuracy of 1/2 is that of a guess.
    middle = 0.5 * (0.5 + runs.baseline("accuracy")[1])
    guessing = [checks_runs.NAMES[a] for a in names if runs.test(a).mean() < middle]
    if not guessing:
        return finding
    return dataclasses.replace(
        finding,
        verdict=claims.NOT_DECIDED,
        details=f"{finding.details} In so few steps {' and '.join(guessing)} stayed "
        "nearer to a guess than to n-grams, so nothing is decided.",
    )


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
    x = steps * np.arange(courses["cosent"].shape[1])
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
    is_open = [runs.is_at_end(arm) for arm in courses]
    settings = ", ".join(
        f"{checks_runs.NAMES[arm]} at {runs.listed(arm)}" for arm in courses
    )
    return Finding(
        mean,
        claims.decide(interval, is_open, at_least=0.0),
        interval,
        runs.seeds,
        f"Difference of the validation Spearman after {steps} of "
        f"{runs.config.num_steps} steps; {start:.3f} before the first. Largest drop "
        f"below the start: CoSENT {drops['cosent']:.3f}, Sentence-BERT "
        f"{drops['sentence_bert']:.3f}. {settings}.",
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
        "encoded once": n * seconds["text"] + n**2 * seconds["product"],
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


def _unit_seconds(labs: Mapping[str, checks_runs.Lab], size: int) -> dict[str, float]:
    """Seconds of a text, of a pair in one sequence, and of a cosine with its top 10."""
    calls: dict[str, Callable[[], Any]] = {}
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
