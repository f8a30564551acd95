"""What the papers behind `rdrop` claim, and how each claim is checked here.

`python -m rdrop.claims --list` shows them, `--experiment=NAME --out=DIR` measures those
of one experiment.
"""

import functools

from expkit import claims
from rdrop import checks_cost, checks_identities, checks_texts

PAPER = "Liang et al. 2021, {}. https://arxiv.org/abs/2106.14448"
ESSAY = "Su 2021, {}. https://kexue.fm/archives/8496"


def better(setting, arm, rival, at_least=0.0):
    """The check that an arm is at least so much more accurate than another."""
    return functools.partial(
        checks_texts.check_better,
        setting=setting,
        arm=arm,
        rival=rival,
        at_least=at_least,
    )


EXPERIMENTS = {
    "identities": [
        (
            "zero-iff-equal",
            "The divergence between two passes is 0 if and only if their distributions "
            "agree.",
            ESSAY.format("why it works"),
            checks_identities.check_zero_iff_equal,
        ),
        (
            "blindness",
            "Cross-entropy alone is blind to how the other classes share the "
            "probability; the divergence is not.",
            ESSAY.format("why it works"),
            checks_identities.check_blindness,
        ),
        (
            "conventions",
            "The six weightings in use are proportional once alpha is converted.",
            "Liang et al. 2021, code. https://github.com/dropreg/R-Drop",
            checks_identities.check_conventions,
        ),
        (
            "blog-code-is-half",
            "The loss in the essay's code is exactly half of the paper's.",
            "Su 2021, code. https://github.com/bojone/r-drop",
            checks_identities.check_blog_code_is_half,
        ),
        (
            "no-dropout",
            "Without dropout the divergence and its gradient are exactly 0.",
            ESSAY.format("definition of the loss"),
            checks_identities.check_no_dropout,
        ),
        (
            "mean-over-classes",
            "A mean over the classes in place of the sum makes alpha weaker by their "
            "number.",
            "Tongjilibo, RDropLoss of bert4torch. "
            "https://github.com/Tongjilibo/bert4torch",
            checks_identities.check_mean_over_classes,
        ),
        (
            "both-branches",
            "The divergence moves both passes: with one of them constant, half of the "
            "gradient is left.",
            PAPER.format("equation 2"),
            checks_identities.check_both_branches,
        ),
    ],
    "docs": [
        (
            "beats-none",
            "R-Drop is more accurate than no regulariser with few labels.",
            PAPER.format("section 3"),
            better("docs", "rdrop", "none"),
        ),
        (
            "beats-penalty",
            "R-Drop is at least as accurate as a gradient penalty.",
            ESSAY.format("table of the classification tasks"),
            better("docs", "rdrop", "gradient_penalty"),
        ),
        (
            "beats-adversarial",
            "R-Drop is at least as accurate as adversarial training.",
            ESSAY.format("table of the classification tasks"),
            better("docs", "rdrop", "adversarial"),
        ),
        (
            "unlabelled",
            "R-Drop on unlabelled texts is more accurate than the labels alone.",
            ESSAY.format("semi-supervised learning"),
            better("docs", "semi_rdrop", "none"),
        ),
        (
            "unlabelled-vat",
            "R-Drop on unlabelled texts is as accurate as VAT on them, to a point.",
            ESSAY.format("semi-supervised learning"),
            better("docs", "semi_rdrop", "semi_vat", at_least=-0.01),
        ),
        (
            "gap",
            "The larger alpha, the closer the mean over sub-networks and the network "
            "without dropout.",
            PAPER.format("section 2.3"),
            checks_texts.check_gap,
        ),
        (
            "alpha",
            "At the alpha that validates best, R-Drop is more accurate than two passes "
            "without the divergence.",
            PAPER.format("study of the weight alpha"),
            checks_texts.check_alpha,
        ),
        (
            "epochs",
            "R-Drop needs more steps: training three times as long gains it more than "
            "the plain loss.",
            "Users of the authors' code. https://github.com/dropreg/R-Drop/issues",
            checks_texts.check_epochs,
        ),
    ],
    "all_docs": [
        (
            "all-labels",
            "R-Drop is more accurate than no regulariser with all labels.",
            ESSAY.format("table of the classification tasks"),
            better("all_docs", "rdrop", "none"),
        ),
    ],
    "reviews": [
        (
            "reviews",
            "R-Drop is more accurate than no regulariser on Chinese reviews.",
            ESSAY.format("table of the classification tasks"),
            better("reviews", "rdrop", "none"),
        ),
    ],
    "pairs": [
        (
            "regression",
            "R-Drop lowers the error of a regression.",
            "Liang et al. 2021, code for STS-B. https://github.com/dropreg/R-Drop",
            checks_texts.check_regression,
        ),
    ],
    "timing": [
        (
            "cost",
            "A step of R-Drop costs about two plain ones.",
            PAPER.format("algorithm 1"),
            checks_cost.check_cost,
        ),
    ],
    "published": [
        (name, statement, source, claims.not_testable(needs))
        for name, statement, source, needs in (
            (
                "essay-classification",
                "On IFLYTEK and TNEWS, R-Drop has the accuracies 62.69 and 57.51 %, "
                "against 60.29 and 56.58 without, 62.46 and 57.66 with adversarial "
                "training, 62.31 and 57.81 with a gradient penalty.",
                ESSAY.format("table of the classification tasks"),
                "the CLUE data, the weights of a Chinese BERT and an accelerator",
            ),
            (
                "essay-summaries",
                "On the titles of CSL, R-Drop raises ROUGE-L from 63.81 to 65.51.",
                ESSAY.format("table of the generation task"),
                "the CSL data, the weights of a Chinese BERT and an accelerator",
            ),
            (
                "essay-semi-supervised",
                "With labels for 1 % of the sentiment data, R-Drop has 90.37 and "
                "90.14 % on validation and test, VAT 89.83 and 90.37, neither 88.93 "
                "and 89.34.",
                ESSAY.format("table of the semi-supervised task"),
                "that sentiment data and the weights of a Chinese BERT",
            ),
            (
                "glue",
                "R-Drop raises the GLUE average of BERT-base by 1.21 and that of "
                "RoBERTa-large by 0.80 points.",
                PAPER.format("table of GLUE"),
                "GLUE, the weights of both models and an accelerator",
            ),
            (
                "translation",
                "A transformer with R-Drop has a BLEU of 30.91 on WMT14 "
                "English-German and 43.95 on English-French.",
                PAPER.format("abstract"),
                "the WMT14 data and days on several accelerators",
            ),
            (
                "vision",
                "R-Drop raises ViT-B/16 from 92.64 to 93.29 % on CIFAR-100 and from "
                "83.97 to 84.38 % on ImageNet.",
                PAPER.format("table of image classification"),
                "CIFAR-100, ImageNet, the weights of ViT-B/16 and accelerators",
            ),
        )
    ],
}
CLAIMS = claims.from_experiments(EXPERIMENTS, alone=("timing",))

if __name__ == "__main__":
    claims.main(CLAIMS)
