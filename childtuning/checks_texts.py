"""ChildTuning against fine-tuning on texts with few labels, with one budget each.

Under Adam a random mask makes steps `sqrt(p)` shorter, so plain fine-tuning has an arm
whose steps are as long as those of ChildTuning-F at the rate that was best for that.
"""

import functools
import math
from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import childtuning
from childtuning import train
from expkit import arms, claims, finetuning_runs
from expkit import config as config_lib
from expkit import study as study_lib
from expkit.claims import Context, Finding

# Name, method, and what else is changed.
ARMS = {
    "vanilla": ("fine-tuning", "method=none"),
    "shorter": ("fine-tuning, lr √p", "method=none"),
    "f": ("ChildTuning-F", "method=f"),
    "d_paper": ("ChildTuning-D, paper", "method=d,fisher=paper"),
    "d_authors": ("ChildTuning-D, authors", "method=d,fisher=authors"),
    "update_dropout": ("update dropout", "method=update_dropout"),
    "rdrop": ("R-Drop", "method=none,regularizer=rdrop"),
    "lion": ("Lion", "method=none,optimizer=lion"),
}
# Arms of quick mode: they share one program, and the others are compiled each.
QUICK = ("vanilla", "shorter", "f", "d_paper", "d_authors", "update_dropout")
# What full mode tries; quick mode takes the middle.
RATES = {"reviews": (5e-4, 1e-3, 2e-3), "api_docs": (3e-5, 1e-4, 3e-4)}
LION = 0.2  # its rates are so much smaller


class Setting(NamedTuple):
    """One data set.

    Attributes:
        full: config of full mode.
        quick: config of quick mode, or None where that skips it.
        arms: those of full mode.
    """

    full: str
    quick: str | None
    arms: Collection[str]


SETTINGS = {
    "reviews": Setting(
        "configs/childtuning/reviews.py:num_steps=200,max_length=64,"
        "validation_split=validation,test_split=test",
        "configs/childtuning/reviews.py:num_steps=20,num_layers=2,"
        "train_split=train[:3000],"
        "validation_split=validation[:64],test_split=test[:512]",
        tuple(ARMS),
    ),
    "api_docs": Setting(
        "configs/childtuning/api_docs.py:",
        None,
        ("vanilla", "shorter", "f", "d_paper"),
    ),
}


class Study(study_lib.Study):
    """A study whose arm `shorter` has steps as long as those of ChildTuning-F."""

    def choices(self, arm: str) -> list[dict[str, float]]:
        """The settings of an arm: one that follows from those of F for `shorter`.

        Args:
            arm: one of `ARMS`.

        Returns:
            A value for each setting, in each.
        """
        if arm != "shorter":
            return super().choices(arm)
        # A Python number like those of the grids: others would compile anew.
        factor = math.sqrt(self.config.reserve_p)
        return [{"learning_rate": factor * self.tuned("f")["learning_rate"]}]


@functools.cache
def study(context: Context, setting: str) -> Study:
    """The comparison on one data set; `context` decides how much is spent."""
    full, quick, _ = SETTINGS[setting]
    config = config_lib.load(full if context.full or quick is None else quick)
    rates = RATES[setting] if context.full else RATES[setting][1:2]
    scales = {"lion": LION}
    tried = {
        arm: {"learning_rate": [scales.get(arm, 1.0) * rate for rate in rates]}
        for arm in ARMS
    }
    tried["shorter"] = {}
    seeds = context.seeds(quick=3, full=10)
    return Study(context, config, compile_arm, tried, seeds)


def compile_arm(lab: finetuning_runs.Lab, arm: str) -> finetuning_runs.Run:
    """Makes the runs of one arm: `({"learning_rate"}, seed=) -> params`."""
    config = arm_config(lab, arm)
    if (config.regularizer, config.optimizer) != ("none", "adamw"):
        return lab.compile(
            train.make_loss(config, lab.texts.task),
            functools.partial(train.make_optimizer, config),
        )
    compiled = _compile_any_method(lab)
    everything = jax.tree.map(lambda x: jnp.ones(x.shape, bool), lab.initial(0))

    def run(settings, *, seed):
        masks = {
            "key": jax.random.fold_in(jax.random.key(seed), 1),
            "gradient_p": config.reserve_p if config.method == "f" else 1.0,
            "update_p": config.reserve_p if config.method == "update_dropout" else 1.0,
            "mask": everything,
        }
        if config.method == "d":
            masks["mask"] = make_mask(lab, config, seed)
        return compiled(settings | masks, seed=seed)

    return run


@functools.cache
def _compile_any_method(lab: finetuning_runs.Lab) -> finetuning_runs.Run:
    """One program for all arms that differ in masks alone."""
    return lab.compile(
        lab.texts.task.loss_fn, functools.partial(any_method, lab.config)
    )


def any_method(config, learning_rate, *, key, mask, gradient_p, update_p):
    """`train.make_optimizer` with the masks of all methods, traced.

    A fraction of 1 and a mask that is True everywhere leave the method out.
    """
    before = [
        _below_one(gradient_p, childtuning.child_tuning_f(gradient_p, key)),
        childtuning.child_tuning_d(mask),
    ]
    after = [_below_one(update_p, childtuning.update_dropout(update_p, key))]
    return train.assemble(config, learning_rate, before, after)


def _below_one(p, masking: optax.GradientTransformation):
    """Skips a transformation, with the cost of its draws, where `p` is 1."""

    def update(updates, state, params=None):
        return jax.lax.cond(
            p < 1, masking.update, lambda u, s, _: (u, s), updates, state, params
        )

    return optax.GradientTransformation(masking.init, update)


def arm_config(lab: finetuning_runs.Lab, arm: str):
    """The config of an arm, which only its method tells from the others."""
    config = lab.config.copy_and_resolve_references()
    for assignment in ARMS[arm][1].split(","):
        name, value = assignment.split("=")
        config[name] = value
    return config


def make_mask(
    lab: finetuning_runs.Lab, config, seed: int, params=None, order: int | None = None
):
    """The mask of ChildTuning-D for the labelled rows of a seed.

    At `params`, with the batches and dropout of `order`; or where a run starts.
    """
    if params is None:
        return _first_mask(lab, config.fisher, seed)
    arrays, _ = lab.draw(seed)
    task = lab.texts.task._replace(splits={"train": arrays})
    texts = lab.texts._replace(task=task, params=params)
    seeded = lab.config.copy_and_resolve_references()
    seeded.method, seeded.fisher = "d", config.fisher
    seeded.seed = seed if order is None else order
    return train.make_mask(seeded, texts)


@functools.cache
def _first_mask(lab: finetuning_runs.Lab, fisher: str, seed: int):
    config = lab.config.copy_and_resolve_references()
    config.fisher = fisher
    return make_mask(lab, config, seed, lab.initial(seed))


def check_better(
    context: Context, setting: str, arm: str, rival: str = "vanilla"
) -> Finding:
    """Difference of the test accuracies of two arms, paired by seed.

    Where n-grams beat both of them, nothing is decided.
    """
    is_there = context.full or {arm, rival} <= set(QUICK)
    if _is_skipped(context, setting) or not is_there:
        return arms.LEFT_TO_FULL_MODE
    runs = study(context, setting)
    drawn = SETTINGS[setting].arms if context.full else QUICK
    names = {name: ARMS[name][0] for name in drawn}
    runs.draw(setting, names)
    return runs.compare(arm, rival, names)


def check_spread(context: Context, setting: str, arm: str) -> Finding:
    """Ratio of the standard deviations of the test accuracy over seeds.

    Where n-grams beat both arms, nothing is decided.
    """
    if _is_skipped(context, setting):
        return arms.LEFT_TO_FULL_MODE
    runs = study(context, setting)
    ours, plain = runs.test(arm), runs.test("vanilla")
    _, interval = _jackknife(ours, plain)
    with np.errstate(divide="ignore", invalid="ignore"):  # all runs may agree
        low, high = np.exp(interval)
        spread = float(np.std(ours, ddof=1) / np.std(plain, ddof=1))
    verdict, beside = runs.beside_baseline(
        claims.decide((float(low), float(high)), at_most=1.0),
        max(ours.mean(), plain.mean()),
    )
    means = ", ".join(
        f"{ARMS[name][0]} {values.mean():.3f} ({runs.listed(name)})"
        for name, values in ((arm, ours), ("vanilla", plain))
    )
    return Finding(
        spread,
        verdict,
        (float(low), float(high)),
        runs.seeds,
        f"Standard deviation of the test accuracy over seeds, {ARMS[arm][0]} divided "
        f"by fine-tuning: {np.std(ours, ddof=1):.4f} and {np.std(plain, ddof=1):.4f}; "
        f"the labelled rows differ too. Accuracy: {means}; {beside}. Jackknife "
        "interval.",
        is_ratio=True,
    )


def _jackknife(a: np.ndarray, b: np.ndarray):
    """Log ratio of standard deviations, with an interval from leaving seeds out."""
    count = len(a)

    def log_ratio(keep):
        return np.log(np.std(a[keep], ddof=1) / np.std(b[keep], ddof=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        whole = log_ratio(np.arange(count))
        parts = [log_ratio(np.delete(np.arange(count), i)) for i in range(count)]
        pseudo = count * whole - (count - 1) * np.array(parts)
    return claims.mean_interval(pseudo)


def _is_skipped(context: Context, setting: str) -> bool:
    return SETTINGS[setting].quick is None and not context.full
