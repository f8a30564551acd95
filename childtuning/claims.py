"""What the sources behind `childtuning` claim, and how each claim is checked here.

`python -m childtuning.claims --list` shows them, `--experiment=NAME --out=DIR` measures
those of one experiment.
"""

import functools

from childtuning import checks_identities, checks_masks, checks_texts
from expkit import claims

XU = "Xu et al. 2021, {}. https://arxiv.org/abs/2109.05687"
CODE = "Xu et al. 2021, the code. https://github.com/RunxinXu/ChildTuning"
ESSAY = "Su 2021. https://kexue.fm/archives/8764"

EXPERIMENTS = {
    "identities": [
        (
            "sgd-variance",
            "Masking a gradient of mean mu and deviation s keeps its mean and makes "
            "its variance s^2 + (1-p)/p (mu^2 + s^2).",
            ESSAY,
            checks_identities.check_sgd_variance,
        ),
        (
            "adam-step",
            "Under Adam the mean step of ChildTuning-F shrinks by sqrt(p), and 1/p "
            "changes nothing.",
            ESSAY,
            checks_identities.check_adam_step,
        ),
        (
            "adam-variance",
            "Under Adam ChildTuning-F makes the variance of the update smaller.",
            ESSAY,
            checks_identities.check_adam_variance,
        ),
        (
            "masked-still-move",
            "Under Adam what ChildTuning-F masks in a step still moves in it, and what "
            "a mask after Adam hides does not.",
            ESSAY,
            checks_identities.check_masked_still_move,
        ),
        (
            "decay-moves-frozen",
            "In the authors' ChildTuning-D, weights outside the child network shrink "
            "by the factor 1 - rate decay at each step.",
            CODE,
            functools.partial(checks_identities.check_decay_moves_frozen, "all"),
        ),
        (
            "decay-of-the-child",
            'With decay="child", weights outside the child network stay bit for bit, '
            "as the paper says.",
            XU.format("section 2.3"),
            functools.partial(checks_identities.check_decay_moves_frozen, "child"),
        ),
        (
            "zero-fisher",
            "The authors' rule keeps every parameter where all Fisher information is "
            "equal.",
            CODE,
            checks_identities.check_zero_fisher_ties,
        ),
        (
            "authors-adamw",
            "child_adamw is the authors' optimizer to 3e-7 over 10 steps, and "
            "optax.adamw after a mask is not.",
            CODE,
            checks_identities.check_authors_adamw,
        ),
    ],
    "reviews": [
        (
            "f-accuracy",
            "ChildTuning-F is more accurate than fine-tuning.",
            XU.format("table 1"),
            functools.partial(checks_texts.check_better, setting="reviews", arm="f"),
        ),
        (
            "f-beyond-rate",
            "ChildTuning-F is more accurate than fine-tuning at sqrt(p) times the "
            "learning rate, the length of its own steps.",
            XU.format("table 1"),
            functools.partial(
                checks_texts.check_better, setting="reviews", arm="f", rival="shorter"
            ),
        ),
        (
            "d-accuracy",
            "ChildTuning-D, with Fisher information per example, is more accurate than "
            "fine-tuning.",
            XU.format("table 1"),
            functools.partial(
                checks_texts.check_better, setting="reviews", arm="d_paper"
            ),
        ),
        (
            "d-authors-accuracy",
            "ChildTuning-D, with the authors' Fisher information per batch, is more "
            "accurate than fine-tuning.",
            XU.format("table 1"),
            functools.partial(
                checks_texts.check_better, setting="reviews", arm="d_authors"
            ),
        ),
        (
            "d-over-f",
            "ChildTuning-D is more accurate than ChildTuning-F.",
            "Yuan et al. 2023, table 5. https://arxiv.org/abs/2212.08853",
            functools.partial(
                checks_texts.check_better, setting="reviews", arm="d_paper", rival="f"
            ),
        ),
        (
            "update-accuracy",
            "Masking the update is no better than masking the gradient.",
            ESSAY,
            functools.partial(
                checks_texts.check_better,
                setting="reviews",
                arm="f",
                rival="update_dropout",
            ),
        ),
        (
            "rdrop-accuracy",
            "R-Drop is more accurate than ChildTuning-D.",
            "Yuan et al. 2023, table 5. https://arxiv.org/abs/2212.08853",
            functools.partial(
                checks_texts.check_better,
                setting="reviews",
                arm="rdrop",
                rival="d_paper",
            ),
        ),
        (
            "f-spread",
            "ChildTuning-F varies less between seeds than fine-tuning.",
            XU.format("section 4"),
            functools.partial(checks_texts.check_spread, setting="reviews", arm="f"),
        ),
        (
            "d-spread",
            "ChildTuning-D varies less between seeds than fine-tuning.",
            XU.format("section 4"),
            functools.partial(
                checks_texts.check_spread, setting="reviews", arm="d_paper"
            ),
        ),
        (
            "fisher-overlap",
            "Fisher information per example and per batch choose masks that overlap "
            "only partly.",
            CODE,
            checks_masks.check_overlap,
        ),
        (
            "true-share",
            "A reserve_p of 30 % is not 30 % of the model: what lies outside the "
            "layers is trained whole.",
            CODE,
            checks_masks.check_true_share,
        ),
    ],
    "docs": [
        (
            "docs-f",
            "ChildTuning-F is more accurate than fine-tuning on English texts.",
            XU.format("table 1"),
            functools.partial(checks_texts.check_better, setting="api_docs", arm="f"),
        ),
        (
            "docs-d",
            "ChildTuning-D is more accurate than fine-tuning on English texts.",
            XU.format("table 1"),
            functools.partial(
                checks_texts.check_better, setting="api_docs", arm="d_paper"
            ),
        ),
    ],
    "published": [
        (name, statement, source, claims.not_testable(needs))
        for name, statement, source, needs in (
            (
                "glue-gain",
                "ChildTuning beats fine-tuning by 1.5 to 8.6 points on average over "
                "CoLA, RTE, MRPC and STS-B, for four large pretrained models.",
                XU.format("abstract"),
                "four pretrained models of 24 layers, GLUE, and days on an accelerator",
            ),
            (
                "glue-others",
                "ChildTuning beats earlier ways to regularise fine-tuning by 0.6 to "
                "1.3 points.",
                XU.format("abstract"),
                "four pretrained models of 24 layers, GLUE, and days on an accelerator",
            ),
            (
                "clue-gradient",
                "On CLUE, masking the gradient changes the accuracy of BERT and "
                "RoBERTa little and in both directions.",
                ESSAY,
                "Chinese BERT and RoBERTa, CLUE, and several seeds on an accelerator",
            ),
            (
                "clue-update",
                "On CLUE, masking the update of Adam does no better than masking the "
                "gradient.",
                ESSAY,
                "Chinese BERT and RoBERTa, CLUE, and several seeds on an accelerator",
            ),
        )
    ],
}
CLAIMS = claims.from_experiments(EXPERIMENTS)

if __name__ == "__main__":
    claims.main(CLAIMS)
