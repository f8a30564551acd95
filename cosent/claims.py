"""What the essays behind `cosent` claim, and how each claim is checked here.

`python -m cosent.claims --list` shows them, `--experiment=NAME --out=DIR` measures
those of one experiment.
"""

import functools

from cosent import checks_identities, checks_limits, checks_texts, checks_thresholds
from expkit import claims

FIRST = "Su 2022, CoSENT (1), {}. https://kexue.fm/archives/8847"
SECOND = "Su 2022, CoSENT (2), {}. https://kexue.fm/archives/8860"
CODE = "Su 2022, {}. https://github.com/bojone/CoSENT"
SOFTMAX = "Su 2020, {}. https://kexue.fm/archives/7359"
REPLICATION = "bert4torch, {}. https://github.com/Tongjilibo/bert4torch"
CORPORA = (
    "ATEC, BQ, LCQMC, PAWSX and STS-B in Chinese, the weights of Chinese BERT and "
    "RoBERTa, and an accelerator"
)


def better(setting, arm, rival, figure, **bounds):
    """The check of the difference of a test figure of two arms."""
    return functools.partial(
        checks_texts.check_better,
        setting=setting,
        arm=arm,
        rival=rival,
        figure=figure,
        **bounds,
    )


EXPERIMENTS = {
    "identities": [
        (
            "order-only",
            "The loss depends on the order of the labels alone.",
            FIRST.format("definition of the loss"),
            checks_identities.check_order_only,
        ),
        (
            "shift",
            "A constant added to all cosines changes neither the loss nor its "
            "gradient.",
            FIRST.format("definition of the loss"),
            checks_identities.check_shift,
        ),
        (
            "scale",
            "The larger the scale, the closer the loss is to the margin of the most "
            "violated pair; 20 is the scale in use.",
            FIRST.format("the hyperparameter lambda"),
            checks_identities.check_scale,
        ),
        (
            "binary",
            "For two labels the sum over pairs is a product of two sums.",
            SOFTMAX.format("the factored sum"),
            checks_identities.check_binary,
        ),
        (
            "growth",
            "The loss grows about as the logarithm of the number of pairs: with a "
            "slope of 0.5 to 1.5.",
            FIRST.format("definition of the loss, a sum over pairs"),
            checks_identities.check_growth,
        ),
        (
            "any-matrix",
            "Every table of similarities between 0 and 1 consists of the cosines of "
            "some vectors.",
            SECOND.format("theoretical limit of features"),
            checks_limits.check_counterexample,
        ),
        (
            "any-order",
            "Every order of the similarities is that of the cosines of some vectors.",
            SECOND.format("theoretical limit of features, repaired by S + c I"),
            checks_limits.check_repair,
        ),
        (
            "projection",
            "Some projection to about 8 log(n) / e^2 dimensions keeps all distances of "
            "n vectors to a factor of 1 +- e.",
            SECOND.format("the Johnson-Lindenstrauss lemma"),
            checks_limits.check_projection_lemma,
        ),
        (
            "dimensions",
            "8 log n dimensions are enough for the order of the cosines of n "
            "sentences.",
            SECOND.format("the Johnson-Lindenstrauss lemma"),
            checks_limits.check_dimensions,
        ),
    ],
    "thresholds": [
        (
            "one-maximum",
            "The accuracy as a function of the threshold has a single maximum.",
            SECOND.format("the automatic threshold, which bisection needs"),
            checks_thresholds.check_many_maxima,
        ),
        (
            "bisection",
            "Bisection finds the best threshold, to a point, also where the scores "
            "fill a narrow band.",
            SECOND.format("the automatic threshold of two classes"),
            checks_thresholds.check_bisection,
        ),
        (
            "powell",
            "Powell's method from tanh(1), as in the essay's code, finds the threshold "
            "of the best accuracy, to a point, wherever the scores lie.",
            CODE.format("code of CoSENT (2)"),
            functools.partial(checks_thresholds.check_powell, metric="accuracy"),
        ),
        (
            "powell-f1",
            "The same search finds the threshold of the best F1, to a point, wherever "
            "the scores lie.",
            CODE.format("code of CoSENT (2), with F1 in place of its accuracy"),
            functools.partial(checks_thresholds.check_powell, metric="f1"),
        ),
        (
            "exact-sweep",
            "No search is better than the exact sweep over the distinct scores.",
            SECOND.format("the automatic threshold; the sweep is of this package"),
            checks_thresholds.check_exact_sweep,
        ),
        (
            "optimism",
            "The accuracy at the best threshold is better on the validation data it "
            "was chosen on than on new data.",
            SECOND.format("the automatic threshold, chosen on validation data"),
            checks_thresholds.check_optimism,
        ),
        (
            "class-weights",
            "For n classes, exact sweeps over one weight after another are at least as "
            "good as Powell's method.",
            SECOND.format("the automatic threshold of n classes"),
            checks_thresholds.check_class_weights,
        ),
    ],
    "pairs": [
        (
            "beats-sentence-bert",
            "CoSENT has a higher Spearman correlation than Sentence-BERT.",
            FIRST.format("table of supervised results"),
            better("pairs", "cosent", "sentence_bert", "spearman", at_least=0.0),
        ),
        (
            "early",
            "It is ahead from the first steps, where Sentence-BERT drifts.",
            FIRST.format("table of the first epoch"),
            checks_texts.check_early,
        ),
        (
            "beats-squared-error",
            "CoSENT has a higher Spearman correlation than the squared error of the "
            "cosine.",
            FIRST.format("the choice of the loss"),
            better("pairs", "cosent", "cosine_mse", "spearman", at_least=0.0),
        ),
        (
            "scale-20",
            "With the scale 1 in place of 20 the correlation is lower.",
            FIRST.format("the hyperparameter lambda"),
            better("pairs", "cosent", "scale_1", "spearman", at_least=0.0),
        ),
        (
            "gap",
            "The accuracy of interaction is within a point of that of CoSENT where "
            "word order does not decide.",
            SECOND.format("table of accuracies"),
            better(
                "pairs",
                "interaction",
                "cosent",
                "accuracy",
                at_least=-0.01,
                at_most=0.01,
            ),
        ),
    ],
    "word_order": [
        (
            "word-order",
            "Where word order decides, interaction is ahead by at least 5 points.",
            SECOND.format("results on PAWSX"),
            checks_texts.check_word_order,
        ),
    ],
    "timing": [
        (
            "retrieval-cost",
            "Ranking n texts for each of n takes n encodings with vectors and n^2 runs "
            "with interaction: more than 100 times as long for 1,000 texts.",
            SECOND.format("why features"),
            checks_texts.check_retrieval_cost,
        ),
    ],
    "published": [
        (name, statement, source, claims.not_testable(needs))
        for name, statement, source, needs in (
            (
                "spearman",
                "CoSENT has an average Spearman correlation of 68.19 % (BERT) and "
                "68.85 % (RoBERTa) over five Chinese sets, Sentence-BERT 61.74 and "
                "62.80; on PAWSX 60.00 and 61.56 against 46.86 and 44.10, on LCQMC "
                "78.69 and 79.31 against 78.72 and 79.22.",
                FIRST.format("table of supervised results"),
                CORPORA,
            ),
            (
                "spearman-replicated",
                "Others measure 49.81, 71.61, 78.74, 56.00 and 80.06 % for CoSENT on "
                "ATEC, BQ, LCQMC, PAWSX and STS-B (the essay: 49.74, 72.38, 78.69, "
                "60.00, 80.14), and 47.62, 70.07, 78.77, 52.28 and 56.62 for "
                "Sentence-BERT (46.36, 70.36, 78.72, 46.86, 66.41): the signs agree, "
                "PAWSX moves by 4 to 5 points, the baseline on STS-B by 10.",
                REPLICATION.format("table of experiments"),
                CORPORA,
            ),
            (
                "natural-language-inference",
                "Trained on NLI data, CoSENT and Sentence-BERT are about equal in the "
                "mean of these sets: 46.25 and 45.23 % with BERT, 48.43 and 46.99 with "
                "RoBERTa.",
                FIRST.format("table of NLI-trained results"),
                f"{CORPORA}, and Chinese NLI data",
            ),
            (
                "first-epoch",
                "After one epoch CoSENT is ahead: 48.78 against 41.54 % on ATEC with "
                "BERT, 57.66 against 10.84 on PAWSX with RoBERTa.",
                FIRST.format("table of the first epoch"),
                CORPORA,
            ),
            (
                "accuracy",
                "With thresholds from validation data CoSENT has an average accuracy "
                "of 83.00 % (BERT) and 83.38 % (RoBERTa) on ATEC, BQ, LCQMC and PAWSX, "
                "Sentence-BERT 80.04 and 81.09, interaction 84.62 and 85.30.",
                SECOND.format("table of accuracies"),
                CORPORA,
            ),
            (
                "interaction-gap",
                "Interaction is ahead of CoSENT by -0.32 to 1.13 points on ATEC, BQ "
                "and LCQMC, and by 5.00 and 6.78 on PAWSX, where word order decides.",
                SECOND.format("table of accuracies"),
                CORPORA,
            ),
        )
    ],
}
CLAIMS = claims.from_experiments(EXPERIMENTS, alone=("timing",))

if __name__ == "__main__":
    claims.main(CLAIMS)
