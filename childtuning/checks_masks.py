"""What the masks of ChildTuning-D have in common, and how much they leave trainable."""

import functools

import jax
import numpy as np

from childtuning import checks_texts
from childtuning.selection import trainable_fraction
from expkit import claims
from expkit.claims import Context, Finding

PARTLY = 0.9  # share of a mask in another one, at most
ANOTHER = 1000  # added to a seed: other batches and dropout


def check_overlap(context: Context) -> Finding:
    """Share of the paper's mask in the authors', against that of a repeat of theirs."""
    runs = checks_texts.study(context, "reviews")
    p = runs.config.reserve_p

    def mask(arm, seed, params=None, order=None):
        config = checks_texts.arm_config(runs.lab, arm)
        return checks_texts.make_mask(runs.lab, config, seed, params, order)

    def measure(seed):
        tuned = runs.run("vanilla", seed, runs.tuned("vanilla"))
        paper, authors = (mask(arm, seed, tuned) for arm in ("d_paper", "d_authors"))
        return {
            "before": _overlap(mask("d_paper", seed), mask("d_authors", seed)),
            "after": _overlap(paper, authors),
            "again": _overlap(mask("d_authors", seed, tuned, ANOTHER + seed), authors),
        }

    rows = [
        context.memo(
            f"overlaps-{seed}",
            functools.partial(measure, seed),
            config=runs.config.to_dict(),
        )
        for seed in runs.seeds
    ]
    before, after, again = (
        np.array([row[name] for row in rows], float)
        for name in ("before", "after", "again")
    )
    mean, interval = claims.mean_interval(after)
    verdict = claims.decide(interval, at_most=PARTLY)
    # Per batch the mask depends on a draw: only what that does not explain counts.
    _, beyond = claims.paired_difference(after, again)
    is_beyond = claims.decide(beyond, at_most=0.0) == claims.HOLDS
    is_explained = verdict == claims.HOLDS and not is_beyond
    beside = ""
    if is_explained:
        beside = " The draw alone explains it, so nothing is decided."
    return Finding(
        mean,
        claims.NOT_DECIDED if is_explained else verdict,
        interval,
        runs.seeds,
        f"Share of the mask per example that is in the mask per batch too: {mean:.3f} "
        f"after fine-tuning, {before.mean():.3f} before it. The bar for partly is at "
        f"most {PARTLY:g}, and less than the {again.mean():.3f} of a mask per batch "
        "with other batches and dropout, the control; equal conventions give 1, "
        f"independent ones {p:g}. Both masks are the {p:.0%} of the layers' parameters "
        f"with the largest Fisher information; that per batch is clipped.{beside}",
    )


def _overlap(one, other) -> float:
    """Share of a mask that is in another one too, over the layers."""
    layers = [jax.tree.leaves(mask["encoder"]["layer"]) for mask in (one, other)]
    both = sum(int((a & b).sum()) for a, b in zip(*layers, strict=True))
    return both / sum(int(a.sum()) for a in layers[0])


def check_true_share(context: Context) -> Finding:
    """Share of all parameters that the authors' ChildTuning-D trains."""
    runs = checks_texts.study(context, "reviews")
    config = checks_texts.arm_config(runs.lab, "d_authors")

    def measure():
        mask = checks_texts.make_mask(runs.lab, config, 0)
        return {
            "all": trainable_fraction(mask),
            "layers": trainable_fraction(mask["encoder"]["layer"]),
        }

    share = context.memo("share", measure, config=config.to_dict())
    return claims.exact(
        abs(share["layers"] - config.reserve_p) < 1e-4
        and share["all"] > 1.05 * config.reserve_p,
        share["all"],
        f"reserve_p is {config.reserve_p:g}, and that is the share within the layers "
        f"({share['layers']:.4f}); embeddings and head do not compete and are trained.",
    )
