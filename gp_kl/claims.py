"""What the sources of `gp_kl` claim, and how each claim is checked here.

`python -m gp_kl.claims --list` shows them, `--experiment=NAME --out=DIR` measures those
of one experiment.
"""

import functools

from expkit import claims
from gp_kl import checks_heads, checks_identities, checks_texts

PAPER = "Su et al. 2022, {}. https://arxiv.org/abs/2208.03054"
DIVERGENCE = "Su 2022, {}. https://kexue.fm/archives/9039"
POINTER = "Su 2021, {}. https://kexue.fm/archives/8373"
EFFICIENT = "Su 2022, {}. https://kexue.fm/archives/8877"
LOSS = "Su 2020, {}. https://kexue.fm/archives/7359"
SOFT = "Su 2022, {}. https://kexue.fm/archives/9064"


def better(setting, arm, rival, **bounds):
    """The check of the difference of the test F1 of two arms."""
    return functools.partial(
        checks_texts.check_better, setting=setting, arm=arm, rival=rival, **bounds
    )


EXPERIMENTS = {
    "identities": [
        (
            "coins",
            "The divergence of sigmoids is the sum over all cells of the symmetric "
            "divergences of two coins.",
            DIVERGENCE.format("the divergence of sigmoids"),
            checks_identities.check_coins,
        ),
        (
            "bregman",
            "It is the symmetrised Bregman divergence of the sum of log(1 + e^s).",
            "Bregman 1967. https://doi.org/10.1016/0041-5553(67)90040-7",
            checks_identities.check_bregman,
        ),
        (
            "softmax-form",
            "For softmax outputs the symmetric divergence is the inner product of the "
            "differences of probabilities and of scores.",
            DIVERGENCE.format("the symmetric divergence of softmax"),
            checks_identities.check_softmax_form,
        ),
        (
            "gradient",
            "Its gradient is sigmoid'(s)(s - t) + sigmoid(s) - sigmoid(t).",
            DIVERGENCE.format("the divergence of sigmoids"),
            checks_identities.check_gradient,
        ),
        (
            "saturation",
            "It is not invariant to a shift of all scores, and saturates: 20 and 10 "
            "are 4.5e-4 apart.",
            DIVERGENCE.format("the divergence of sigmoids"),
            checks_identities.check_saturation,
        ),
        (
            "second-order",
            "For a small change e of the scores it is the sum of sigmoid'(s) e^2.",
            DIVERGENCE.format("the divergence of sigmoids"),
            checks_identities.check_second_order,
        ),
        (
            "reduction",
            "A mean over the cells makes alpha weaker by m n (n + 1) / 2, which "
            "differs between sentences.",
            DIVERGENCE.format("which leaves the reduction open"),
            checks_identities.check_reduction,
        ),
        (
            "imbalance",
            "Class imbalance is no issue for the divergence: any number of other "
            "cells leaves the gradient of a true span as it is.",
            DIVERGENCE.format("comments"),
            checks_identities.check_imbalance,
        ),
        (
            "balance",
            "The multi-label loss gives few true spans as much of the gradient as all "
            "other cells together.",
            LOSS.format("the loss for multi-label classification"),
            checks_heads.check_balance,
        ),
        (
            "soft-optimum",
            "With soft labels t its optimum is where t is sigmoid(2 s).",
            SOFT.format("the loss with soft labels"),
            checks_heads.check_soft_optimum,
        ),
        (
            "half-precision",
            "With masks that select, the multi-label loss is right in float16, where "
            "subtracting 1e12 gives nan.",
            "bojone, bert4keras, multilabel_categorical_crossentropy. "
            "https://github.com/bojone/bert4keras",
            checks_heads.check_half_precision,
        ),
        (
            "sparse",
            "The loss from indices is the loss from labels also where the positives "
            "dominate, where the usual form becomes infinite.",
            "bojone, bert4keras, sparse_multilabel_categorical_crossentropy, issue "
            "436. https://github.com/bojone/bert4keras/issues/436",
            checks_heads.check_sparse,
        ),
        (
            "distance",
            "With rotary positions a score depends on where a span is only through "
            "its length.",
            PAPER.format("relative positions"),
            checks_heads.check_distance,
        ),
        (
            "parameters",
            "The efficient head has a tenth of the parameters for 10 types.",
            PAPER.format("Efficient Global Pointer"),
            checks_heads.check_parameters,
        ),
        (
            "efficient-form",
            "Its linear term in [q_i; k_i; q_j; k_j] is a vector for each end.",
            EFFICIENT.format("parameter efficiency"),
            checks_heads.check_efficient_form,
        ),
        (
            "memory",
            "So it never needs an array of n x n x 4d.",
            EFFICIENT.format("parameter efficiency"),
            checks_heads.check_memory,
        ),
    ],
    "news_entities": [
        (
            "as-good-as-crf",
            "Global Pointer finds flat entities as well as a CRF, to a point of F1.",
            POINTER.format("table of the results"),
            better("news_entities", "pointer", "crf", at_least=-0.01),
        ),
        (
            "needs-rotary",
            "Without rotary positions the F1 falls by more than 10 points.",
            POINTER.format("ablation of the relative positions"),
            better("news_entities", "pointer", "no_rotary", at_least=0.1),
        ),
        (
            "as-good-with-less",
            "The efficient head has the F1 of the plain one, to a point.",
            EFFICIENT.format("table of the results"),
            better("news_entities", "efficient", "pointer", at_least=-0.01),
        ),
        (
            "unseen",
            "Mentions that no training text has are found less well than all.",
            "Bernier-Colborne and Langlais 2020. https://aclanthology.org/2020.lrec-1.211",
            checks_texts.check_unseen,
        ),
    ],
    "code_spans": [
        (
            "nested",
            "Global Pointer finds nested spans: more than any set without overlap has.",
            POINTER.format("nested and flat entities"),
            checks_texts.check_nested,
        ),
        (
            "nested-efficient",
            "With 15 types the efficient head has the F1 of the plain one, to a point.",
            EFFICIENT.format("table of CMeEE"),
            better("code_spans", "efficient", "pointer", at_least=-0.01),
        ),
        (
            "nested-rotary",
            "On nested spans too the F1 falls by more than 10 points without rotary "
            "positions.",
            POINTER.format(
                "ablation of the relative positions, of flat entities; the comparison "
                "is of this package"
            ),
            better("code_spans", "pointer", "no_rotary", at_least=0.1),
        ),
    ],
    "few_labels": [
        (
            "rdrop",
            "R-Drop with the divergence of sigmoids raises the F1.",
            DIVERGENCE.format("conclusion"),
            better("few_labels", "rdrop", "pointer", at_least=0.0),
        ),
        (
            "rdrop-softmax",
            "With the divergence of a softmax over the same scores R-Drop does worse.",
            DIVERGENCE.format("why not softmax"),
            better("few_labels", "rdrop_softmax", "rdrop", at_most=0.0),
        ),
        (
            "vat",
            "Virtual adversarial training with this divergence raises the F1.",
            DIVERGENCE.format("conclusion"),
            better("few_labels", "vat", "pointer", at_least=0.0),
        ),
        (
            "alpha",
            "Some weight of the divergence is better than none.",
            DIVERGENCE.format("conclusion"),
            checks_texts.check_alpha,
        ),
    ],
    "timing": [
        (
            "trains-as-fast",
            "Global Pointer trains at least as fast as a CRF.",
            POINTER.format("tables of the speeds"),
            functools.partial(checks_texts.check_speed, part="train"),
        ),
        (
            "predicts-as-fast",
            "Global Pointer predicts at least as fast as a CRF.",
            POINTER.format("tables of the speeds"),
            functools.partial(checks_texts.check_speed, part="predict"),
        ),
    ],
    "published": [
        (name, statement, source, claims.not_testable(needs))
        for name, statement, source, needs in (
            (
                "peoples-daily",
                "On the People's Daily entities CRF, Global Pointer and the efficient "
                "head have the F1 95.46, 95.51 and 95.36 on the test set (96.39, 96.25 "
                "and 96.10 on validation).",
                EFFICIENT.format("table of the People's Daily"),
                "the split of the essay and the weights of a Chinese BERT",
            ),
            (
                "no-rotary",
                "Without rotary positions Global Pointer falls from 96.25 and 95.51 to "
                "54.35 and 62.59 there, on validation and test.",
                POINTER.format("ablation of the relative positions"),
                "the split of the essay and the weights of a Chinese BERT",
            ),
            (
                "cluener",
                "On CLUENER, CRF, Global Pointer and the efficient head have the F1 "
                "78.70, 79.44 and 80.04 on the test set.",
                EFFICIENT.format("table of CLUENER"),
                "CLUENER with its hidden test labels and the weights of a Chinese BERT",
            ),
            (
                "cmeee",
                "On CMeEE, with nested entities, they have 64.39, 65.98 and 66.54.",
                EFFICIENT.format("table of CMeEE"),
                "CMeEE with its hidden test labels and the weights of a Chinese BERT",
            ),
            (
                "published-speed",
                "On People's Daily, CLUENER and CMeEE, Global Pointer trains 1.56, "
                "1.22 and 1.52 times as fast as CRF and predicts 1.11, 1.00 and 1.13 "
                "times as fast.",
                POINTER.format("tables of the speeds"),
                "those data sets, BERT-base and the essay's GPU; the ratio of this "
                "code is in benchmarks",
            ),
            (
                "replication",
                "A replication on the People's Daily has the validation F1 96.05 for "
                "CRF, 95.66 for Global Pointer and 96.55 for the efficient head: not "
                "the order of the essay.",
                "Tongjilibo, bert4torch, examples/Experiments.md. "
                "https://github.com/Tongjilibo/bert4torch",
                "the split of the essay and the weights of a Chinese BERT",
            ),
        )
    ],
}
CLAIMS = claims.from_experiments(EXPERIMENTS, alone=("timing",))

if __name__ == "__main__":
    claims.main(CLAIMS)
