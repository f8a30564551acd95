"""What the Lion paper claims, and how each claim is checked here.

`python -m lion.claims --list` shows them, `--experiment=NAME --out=DIR` measures those
of one experiment.
"""

import functools

from expkit import claims
from expkit.claims import Claim
from lion import checks_digits, checks_identities

PAPER = "Chen et al. 2023, {}. https://arxiv.org/abs/2302.06675"
README = "Authors' README. https://github.com/google/automl/tree/master/lion"

CLAIMS = [
    Claim(
        "state-memory",
        "Lion keeps one number of optimizer state per parameter, AdamW two.",
        PAPER.format("section 3.2"),
        checks_identities.check_state_memory,
    ),
    Claim(
        "step-size",
        "Before weight decay every coordinate moves by exactly the learning rate.",
        PAPER.format("section 3.2"),
        checks_identities.check_step_size,
    ),
    Claim(
        "zero-gradient",
        "sign(0) = 0: a coordinate without a gradient does not move.",
        PAPER.format("Algorithm 2"),
        checks_identities.check_zero_gradient,
    ),
    Claim(
        "weight-bound",
        "With decoupled decay the weights end within 1/weight_decay of zero.",
        "Chen et al. 2024, Lion Secretly Solves Constrained Optimization, section 3. "
        "https://arxiv.org/abs/2310.05898",
        checks_identities.check_weight_bound,
    ),
    Claim(
        "loss-scale",
        "Multiplying the loss by a power of two leaves every bit of the trajectory.",
        PAPER.format("Algorithm 2"),
        checks_identities.check_loss_scale,
    ),
    *(
        claim
        for model, where in (("mlp", "a perceptron"), ("vit", "a small ViT"))
        for claim in (
            Claim(
                f"learning-rate-{model}",
                "The best learning rate is 3 to 10 times smaller than AdamW's "
                f"({where} on digits).",
                README,
                functools.partial(checks_digits.check_learning_rate, model),
                f"digits_{model}",
            ),
            Claim(
                f"accuracy-adamw-{model}",
                f"Lion is at least as accurate as AdamW ({where} on digits).",
                PAPER.format("Table 2"),
                functools.partial(checks_digits.check_accuracy, model, "adamw"),
                f"digits_{model}",
            ),
            Claim(
                f"accuracy-sgd-{model}",
                "Lion is at least as accurate as SGD with momentum "
                f"({where} on digits).",
                PAPER.format("Table 2"),
                functools.partial(checks_digits.check_accuracy, model, "sgd"),
                f"digits_{model}",
            ),
        )
    ),
    Claim(
        "imagenet",
        "ViT-B/16 from scratch on ImageNet: 77.44 % with Lion, 75.48 % with AdamW.",
        PAPER.format("Table 2"),
        claims.not_testable("ImageNet and days on accelerators"),
    ),
]

if __name__ == "__main__":
    claims.main(CLAIMS)
