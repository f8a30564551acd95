"""The arms of the comparison on texts: R-Drop, its rivals, and their budgets."""

import functools
from typing import NamedTuple

from expkit import config as config_lib
from expkit import finetuning, finetuning_runs
from expkit import study as study_lib
from expkit.claims import Context
from expkit.grids import Grid
from rdrop import train

NAMES = {
    "none": "no regulariser",
    "rdrop": "R-Drop",
    "gradient_penalty": "gradient penalty",
    "adversarial": "adversarial (FGM)",
    "semi_vat": "VAT, unlabelled",
    "semi_rdrop": "R-Drop, unlabelled",
}
REGULARIZERS = {
    "semi_vat": ("none", "vat"),
    "semi_rdrop": ("none", "rdrop"),
}
# What full mode tries: three learning rates times three values of what an arm has
# besides, and as many rates where it has nothing. Quick mode takes the middle ones.
RATES = (1e-4, 3e-4, 1e-3)
REVIEW_RATES = (2e-4, 5e-4, 1e-3)
PAIR_RATES = (3e-5, 1e-4, 3e-4)
PLAIN_RATES = {
    RATES: (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 4e-4, 6e-4, 1e-3, 1.5e-3),
    REVIEW_RATES: (1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3),
    PAIR_RATES: (1.5e-5, 2e-5, 3e-5, 6e-5, 1e-4, 2e-4, 3e-4, 4e-4, 6e-4),
}
# The weight of VAT stays 1, as that of its authors.
FURTHER = {
    "rdrop": ("strength", (1.0, 4.0, 8.0)),
    "gradient_penalty": ("strength", (0.01, 0.1, 1.0)),
    "adversarial": ("strength", (0.1, 0.3, 1.0)),
    "semi_vat": ("radius", (0.3, 1.0, 3.0)),
    "semi_rdrop": ("unlabelled_strength", (0.3, 1.0, 3.0)),
}


class Setting(NamedTuple):
    """One data set.

    Attributes:
        full: config of full mode.
        quick: config of quick mode, or None where that skips it.
    """

    full: str
    quick: str | None


# With few labels, two layers of the encoder of English texts beat n-grams. The encoder
# of Chinese reviews, with all of its layers, does not.
DOCS = "configs/rdrop/api_docs.py:"
SETTINGS = {
    "docs": Setting(
        f"{DOCS}num_labels=100,num_steps=60,num_layers=2,max_length=48",
        f"{DOCS}num_labels=100,num_steps=30,num_layers=2,max_length=32,"
        "validation_split=validation[:64],test_split=test[:512]",
    ),
    "all_docs": Setting(
        f"{DOCS}num_labels=0,num_steps=252,num_layers=2,max_length=48", None
    ),
    "reviews": Setting("configs/rdrop/reviews.py:num_steps=100,max_length=64", None),
    "pairs": Setting("configs/rdrop/api_docs_pairs.py:test_split=test[:1000]", None),
}
RATES_OF = {"reviews": REVIEW_RATES, "pairs": PAIR_RATES}


@functools.cache
def study(context: Context, setting: str) -> study_lib.Study:
    """The comparison on one data set; `context` decides how much is spent."""
    full, quick = SETTINGS[setting]
    config = config_lib.load(full if context.full or quick is None else quick)
    rates = RATES_OF.get(setting, RATES)
    grids: dict[str, Grid] = {"none": {"learning_rate": PLAIN_RATES[rates]}}
    for arm, (name, values) in FURTHER.items():
        grids[arm] = {"learning_rate": rates, name: values}
    if not context.full:
        grids = {arm: _middle(grid) for arm, grid in grids.items()}
    seeds = context.seeds(quick=2, full=5)
    return study_lib.Study(context, config, compile_arm, grids, seeds)


def _middle(grid: Grid) -> Grid:
    """The middle value of each setting alone."""
    return {name: (values[len(values) // 2],) for name, values in grid.items()}


def compile_arm(
    lab: finetuning_runs.Lab, arm: str, num_steps: int | None = None
) -> finetuning_runs.Run:
    """Makes the runs of one arm: `(settings, seed=) -> params`."""
    config = lab.config.copy_and_resolve_references()
    config.regularizer, config.unlabelled_regularizer = REGULARIZERS.get(
        arm, (arm, "none")
    )
    if num_steps is not None:
        config.num_steps = num_steps
    return lab.compile(
        train.make_loss(config, lab.texts.task),
        functools.partial(finetuning.make_adamw, config),
        loss_settings=("strength", "unlabelled_strength", "radius"),
        with_unlabelled=arm in REGULARIZERS,
        num_steps=num_steps,
    )


QUICK = ("none", "rdrop", "semi_rdrop")  # arms of quick mode; each is compiled anew
ARMS = {
    "docs": tuple(NAMES),
    "all_docs": ("none", "rdrop"),
    "reviews": ("none", "rdrop"),
}
