"""What the Lion paper claims, and how each claim is checked here.

`python -m lion.claims --list` shows them, `--experiment=NAME --out=DIR` measures those
of one experiment.
"""

import functools

from expkit import claims
from expkit.claims import Claim
from lion import (
    checks_batch,
    checks_digits,
    checks_identities,
    checks_language,
    checks_noise,
    checks_time,
)

PAPER = "Chen et al. 2023, {}. https://arxiv.org/abs/2302.06675"
ESSAY = "Su 2023. https://kexue.fm/archives/9473"
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
        "Chen et al. 2023, Lion Secretly Solves Constrained Optimization, section 3. "
        "https://arxiv.org/abs/2310.05898",
        checks_identities.check_weight_bound,
    ),
    Claim(
        "loss-scale",
        "Multiplying the loss by a power of two leaves every bit of the trajectory.",
        PAPER.format("Algorithm 2"),
        checks_identities.check_loss_scale,
    ),
    Claim(
        "learning-rate",
        "The best learning rate is 3 to 10 times smaller than AdamW's (tried with a "
        "perceptron on digits).",
        README,
        checks_digits.check_learning_rate,
        "digits_mlp",
    ),
    *(
        Claim(
            f"accuracy-{other}-{model}",
            f"Lion is at least as accurate as {label}, as in the paper on ImageNet "
            f"(tried with {where} on digits).",
            PAPER.format("section 4"),
            functools.partial(checks_digits.check_accuracy, model, other),
            f"digits_{model}",
        )
        for model, where in (("mlp", "a perceptron"), ("vit", "a small ViT"))
        for other, label in (("adamw", "AdamW"), ("sgd", "SGD with momentum"))
    ),
    Claim(
        "weight-decay",
        "The best weight decay is 3 to 10 times larger than AdamW's (tried with a "
        "perceptron on digits).",
        README,
        checks_digits.check_weight_decay,
        "digits_mlp",
    ),
    Claim(
        "sensitivity",
        "Lion is less sensitive than AdamW to learning rate and weight decay, as in "
        "the paper on ImageNet (tried with a perceptron on digits).",
        README,
        checks_digits.check_sensitivity,
        "digits_mlp",
    ),
    Claim(
        "batch-size",
        "Lion's gain over AdamW grows with the batch size (16 to 1,024, digits).",
        README,
        checks_batch.check_gain_grows,
        "batch_size",
    ),
    Claim(
        "small-batches",
        "Below batch size 64 and without warm-up Lion is worse than AdamW (digits).",
        ESSAY,
        checks_batch.check_small_batches,
        "batch_size",
    ),
    Claim(
        "masked-language",
        "In masked language modelling Lion's perplexity is no higher than AdamW's "
        "(tried with a small encoder on characters of Chinese reviews).",
        PAPER.format("abstract"),
        checks_language.check_perplexity,
        "zh_char",
    ),
    Claim(
        "signum",
        "With b1 = b2 and no weight decay Lion is SIGNUM, bit for bit.",
        ESSAY,
        checks_noise.check_signum,
        "noise",
    ),
    Claim(
        "sign-agreement",
        "The momentum averages the noise before the sign: the share of right signs is "
        "that of the normal law with Lion's weights.",
        PAPER.format("section 3.2"),
        checks_noise.check_sign_agreement,
        "noise",
    ),
    Claim(
        "noise-ratio",
        "A tenth of Adam's learning rate makes up for the length of Lion's steps, "
        "here under pure noise.",
        ESSAY,
        checks_noise.check_noise_ratio,
        "noise",
    ),
    *(
        Claim(
            f"step-time-{name}{label}",
            f"A step of Lion takes no longer than one of AdamW ({label} parameters, "
            f"{words}).",
            PAPER.format("section 3.2"),
            functools.partial(
                checks_time.check_step_time, num_params, in_place=in_place
            ),
            "step_time",
            alone=True,
        )
        for in_place, name, words in (
            (False, "", "the form of optax"),
            (True, "in-place-", "in place"),
        )
        for label, num_params in (("1M", 10**6), ("50M", 5 * 10**7))
    ),
    *(
        Claim(
            name,
            statement,
            README,
            claims.not_testable(needs),
            "published",
        )
        for name, statement, needs in (
            (
                "imagenet-scratch",
                "ImageNet from scratch, Lion against AdamW: ViT-S/16 76.70 and 76.12, "
                "ViT-B/16 77.44 and 75.48, Mixer-B/16 70.11 and 68.12, ResNet-50 76.45 "
                "and 76.34, CoAtNet-3 84.87 and 84.45 %.",
                "ImageNet and days on accelerators",
            ),
            (
                "jft",
                "Pre-trained on JFT, fine-tuned on ImageNet: ViT-L/16 88.50 and 87.72, "
                "ViT-H/14 89.09 and 88.55, ViT-G/14 90.71 and 90.45 %.",
                "JFT-300M and JFT-3B, which are not public",
            ),
            (
                "contrastive",
                "BASIC-L on ImageNet, Lion against Adafactor: 88.3 and 85.7 % "
                "zero-shot, 91.1 and 90.9 % fine-tuned.",
                "the pairs of image and text, which are not public",
            ),
            (
                "language-model",
                "7.5B language model, few-shot mean, Lion against Adafactor: 24.7 and "
                "24.1 (generation), 61.7 and 61.3 (understanding).",
                "a corpus and machine for 7.5B parameters",
            ),
            (
                "t5-glue",
                "T5 fine-tuned on GLUE, average, Lion against AdamW: base 87.91 and "
                "87.42, large 89.86 and 89.46, 11B 91.60 and 91.08.",
                "GLUE, the weights of T5 and accelerators",
            ),
            (
                "best-batch",
                "ViT-B/16 on ImageNet: the best batch size is 4,096 for Lion and 256 "
                "for AdamW; with 32,768, Lion has 77.9 and AdamW 75.4 %.",
                "ImageNet and days on accelerators",
            ),
            (
                "hyperparameters",
                "ViT-B/16 on ImageNet: Lion is less sensitive than AdamW to learning "
                "rate and weight decay.",
                "ImageNet and days on accelerators",
            ),
            (
                "compute",
                "Lion saves up to 5 times the compute on JFT-300M, 2.3 times for "
                "diffusion models on ImageNet and twice for language models.",
                "those data and days on accelerators",
            ),
            (
                "chips",
                "ViT-B/16 with a batch of 4,096 needs 16 TPU v4 chips under AdamW and "
                "8 under Lion.",
                "TPU v4; the state that makes the difference is measured above",
            ),
            (
                "steps-a-second",
                "Lion makes 2 to 15 % more steps a second than AdamW and Adafactor.",
                "the authors' models and accelerators; the time of the update alone, "
                "on a CPU, is measured above",
            ),
        )
    ),
]

if __name__ == "__main__":
    claims.main(CLAIMS)
