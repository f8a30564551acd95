"""Global Pointer against a CRF, and its regularisers, on texts with spans."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from expkit import arms, claims, finetuning_runs, labelled_spans, loop, strengths
from expkit.claims import Context, Finding
from gp_kl import checks_runs, train


def check_better(
    context: Context,
    setting: str,
    arm: str,
    rival: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Finding:
    """Difference of the test F1 of two arms, paired by seed."""
    chosen = checks_runs.SETTINGS[setting]
    is_there = context.full or {arm, rival} <= set(chosen.quick_arms)
    if not is_there:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, setting)
    names = {name: runs.names[name] for name in (arm, rival)}
    runs.draw(setting, names, figure="f1", file=f"{setting}-{arm}-{rival}")
    return runs.compare(
        arm,
        rival,
        names,
        figure="f1",
        at_least=at_least,
        at_most=at_most,
        budget=_budget(runs, (arm, rival)),
    )


def _budget(runs: checks_runs.Study, arms_compared: tuple[str, ...]) -> str:
    """Steps, whether the loss still fell, and the positions that the encoder has."""
    courses = [np.mean(runs.courses(arm), axis=0) for arm in arms_compared]
    parts = " and ".join(", ".join(f"{x:.2f}" for x in course) for course in courses)
    num_labels = runs.config.num_labels  # 0 for all
    words = (
        f"{runs.config.num_steps} steps of {runs.config.batch_size}"
        f"{f' of {num_labels} texts' if num_labels else ''}, mean loss in each fifth "
        f"of them {parts}"
    )
    if "no_rotary" in arms_compared:
        kind = "rotary" if runs.config.encoder == "zh_char" else "absolute"
        words += f"; the encoder has {kind} positions of its own"
    return words


def check_unseen(context: Context) -> Finding:
    """F1 by type, and on mentions that the training texts do not have."""
    runs = checks_runs.study(context, "news_entities")
    types = runs.lab("pointer").task.data.types if context.full else ("person", "place")
    f1 = {kind: runs.test("pointer", f"f1_{kind}") for kind in types}
    unseen, whole = runs.test("pointer", "f1_unseen"), runs.test("pointer", "f1")
    mean, interval = claims.paired_difference(whole, unseen)
    parts = ", ".join(f"{kind} {values.mean():.3f}" for kind, values in f1.items())
    verdict, beside = runs.beside_baseline(
        claims.decide(interval, at_least=0.0), whole.mean(), "f1"
    )
    return Finding(
        mean,
        verdict,
        interval,
        runs.seeds,
        f"F1 of all minus F1 of unseen mentions, {unseen.mean():.3f}; by type: "
        f"{parts}. F1 of {beside}; the gazetteer finds no unseen mention.",
    )


def check_nested(context: Context) -> Finding:
    """F1 on nested spans minus the most that spans without overlap can reach."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "code_spans")
    gold = runs.lab("pointer").task.data.splits["test"].spans
    kept = sum(map(most_apart, gold))
    bound = 2 * kept / (kept + sum(map(len, gold)))
    mean, interval = claims.mean_interval(runs.test("pointer", "f1") - bound)
    return Finding(
        mean,
        claims.decide(interval, at_least=0.0),
        interval,
        runs.seeds,
        f"F1 minus {bound:.3f}, which finding all spans of a largest set without "
        "overlap, and nothing else, would have.",
    )


def most_apart(spans: set[labelled_spans.Span]) -> int:
    """How many spans a set without overlap has at most: the earliest ends first."""
    count, last = 0, -1
    for _, start, end in sorted(spans, key=lambda span: span[2]):
        if start > last:
            count, last = count + 1, end
    return count


def check_speed(context: Context, part: str) -> Finding:
    """Time of the CRF divided by that of Global Pointer, in the same round."""
    runs = checks_runs.study(context, "news_entities")
    calls = {}
    for arm in ("pointer", "crf"):
        lab = runs.lab(arm)
        arrays = lab.task.arrays["train"]
        batch = {k: jnp.asarray(v[: lab.config.batch_size]) for k, v in arrays.items()}
        make = _training_step if part == "train" else _prediction
        calls[arm] = functools.partial(make(lab), batch)
    seconds = context.memo(
        f"speed-{part}",
        lambda: finetuning_runs.round_seconds(calls, rounds=25 if context.full else 9),
        config=runs.config.to_dict(),
    )
    rounds = {arm: np.array(values) for arm, values in seconds.items()}
    mean, interval = claims.mean_interval(rounds["crf"] / rounds["pointer"])
    return Finding(
        mean,
        claims.decide(interval, at_least=1.0),
        interval,
        details=f"{part}, {len(rounds['crf'])} rounds in turn: at least "
        f"{1e3 * rounds['crf'].min():.0f} ms for the CRF and "
        f"{1e3 * rounds['pointer'].min():.0f} ms for Global Pointer, of "
        f"{runs.config.batch_size} texts with {runs.config.max_length} tokens, with "
        "the encoder"
        + (
            ", to scores and to tags on the host; reading spans from them is left out."
            if part == "predict"
            else "."
        ),
    )


def _training_step(lab: checks_runs.Lab):
    optimizer = train.make_optimizer(lab.config)
    step = jax.jit(loop.make_step(train.make_loss(lab.config, lab.task), optimizer))
    state = loop.init_state(lab.task.params, optimizer, jax.random.key(0))
    return functools.partial(step, state)


def _prediction(lab: checks_runs.Lab):
    score = jax.jit(train.make_scores(lab.config, lab.task))
    # Not to lists of spans: an untrained head has one in every other cell.
    return lambda batch: np.asarray(score(lab.task.params, batch))


def check_alpha(context: Context) -> Finding:
    """Gain in F1 at the alpha that validates best over alpha 0."""
    if not context.full:
        return arms.LEFT_TO_FULL_MODE
    runs = checks_runs.study(context, "few_labels")
    alphas = (0.0, *checks_runs.FURTHER["rdrop"][1])
    rates = checks_runs.RATES["few_labels"]

    def listed(f1):
        pairs = zip(alphas, f1, strict=True)
        return ", ".join(f"{value:.4f} at {alpha:g}" for alpha, value in pairs)

    finding, _ = strengths.against_zero(
        runs, "rdrop", alphas, "f1", rates=rates, listed=listed
    )
    return finding
