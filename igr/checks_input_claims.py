"""The claims about inputs: perturbations, robustness, and the inequality."""

import functools

from igr import (
    checks_inequality,
    checks_perturbation,
    checks_robustness,
    checks_smoothness,
)

OCCAM = "Dherin et al. 2021, abstract. https://arxiv.org/abs/2111.15090"
ESSAY = "Su. https://kexue.fm/archives/{}"
BISHOP = (
    "Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization. "
    "https://doi.org/10.1162/neco.1995.7.1.108"
)
MIYATO = (
    "Miyato et al. 2017, Virtual Adversarial Training. https://arxiv.org/abs/1704.03976"
)
GOODFELLOW = (
    "Goodfellow et al. 2014, adversarial training. https://arxiv.org/abs/1412.6572"
)
DRUCKER = (
    "Drucker & LeCun 1992, double backpropagation. https://doi.org/10.1109/72.165600"
)
REGULARIZERS = (
    ("input_penalty", "An input penalty", DRUCKER),
    ("fgm", "FGM", GOODFELLOW),
    ("noise", "Gaussian noise", BISHOP),
    ("vat", "VAT", MIYATO),
)
COMPARISONS = (
    ("gradient", "lowers E ||grad_x loss||^2", checks_robustness.check_input_gradient),
    (
        "attacked",
        "raises the accuracy under an attack along the gradient",
        checks_robustness.check_attacked_accuracy,
    ),
    (
        "noisy",
        "raises the accuracy under Gaussian noise",
        checks_robustness.check_noisy_accuracy,
    ),
    (
        "clean",
        "is at least as accurate as plain training with as many steps",
        checks_robustness.check_clean_accuracy,
    ),
    (
        "clean-cost",
        "is at least as accurate as plain training of equal cost",
        checks_robustness.check_clean_accuracy_at_equal_cost,
    ),
)
# Which of the comparisons each source makes or implies itself.
STATED = {
    "gradient": ("input_penalty", "noise"),
    "attacked": ("fgm",),
    "clean": ("input_penalty", "fgm", "noise", "vat"),
}


def origin(short: str, regularizer: str, source: str) -> str:
    """The source of a comparison, which says so where only the method is from there.

    Args:
        short: name of the comparison.
        regularizer: of the comparison.
        source: of the regulariser.

    Returns:
        Who, where, and the address.
    """
    if regularizer in STATED.get(short, ()):
        return source
    place, address = source.rsplit(". ", 1)
    return f"{place}; the comparison is of this package. {address}"


EXPERIMENTS = {
    "identities": [
        (
            "fgm-order",
            "L(x + eps g/||g||) = L(x) + eps ||g|| up to O(eps^2).",
            ESSAY.format(7234),
            checks_perturbation.check_fast_gradient_order,
        ),
        (
            "fgm-constant",
            "With a constant, un-normalised direction, FGM has the parameter gradient "
            "of L + eps/2 ||g||^2, half of what the value has gained.",
            ESSAY.format(7234),
            checks_perturbation.check_constant_direction,
        ),
        (
            "noise-order",
            "Gaussian input noise adds sigma^2/2 tr H to the loss, up to O(sigma^4).",
            BISHOP,
            checks_perturbation.check_noise_order,
        ),
        (
            "vat-eigenvector",
            "VAT's power iteration reaches the top eigenvector of the Hessian of the "
            "divergence, given hundreds of iterations.",
            MIYATO,
            checks_perturbation.check_power_iteration,
        ),
        (
            "vat-difference",
            "The gradient of the divergence at a distance of 1e-6 gives H d (cosine >= "
            "0.99), in float32.",
            MIYATO,
            checks_perturbation.check_finite_difference,
        ),
    ],
    "robustness": [
        *(
            (
                f"{short}-{regularizer}",
                f"{name} {what}.",
                origin(short, regularizer, source),
                functools.partial(check, regularizer),
            )
            for regularizer, name, source in REGULARIZERS
            for short, what, check in COMPARISONS
            # A step with noise costs no more than a plain one.
            if (short, regularizer) != ("clean-cost", "noise")
        ),
        (
            "vat-random",
            "The virtual adversarial direction protects more than random noise, each "
            "tuned for the attack.",
            MIYATO,
            checks_robustness.check_virtual_against_random,
        ),
        (
            "gradient-robustness",
            "The smaller E ||grad_x loss||^2, the higher the accuracy under attack.",
            ESSAY.format(7234),
            checks_robustness.check_gradient_tells_robustness,
        ),
    ],
    "inequality": [
        (
            "inequality",
            "The inequality between input and parameter gradients holds for every "
            "network.",
            ESSAY.format(8796),
            checks_inequality.check_no_violation,
        ),
        (
            "inequality-first-layer",
            "The gradient of the first layer bounds the input gradient.",
            OCCAM,
            checks_inequality.check_first_layer_bound,
        ),
        (
            "inequality-slack",
            "With the norm of the product the sides are within a factor of 4, with "
            "Frobenius norms a factor of 10 and more apart (medians over networks).",
            ESSAY.format(8796),
            checks_inequality.check_slack,
        ),
        (
            "inequality-batch",
            "It holds for the mean of squared gradients, and not for the squared "
            "gradient of a mean loss.",
            ESSAY.format(8796),
            checks_inequality.check_batch_mean,
        ),
        (
            "inequality-along-training",
            "The inequality between input and parameter gradients holds at every image "
            "along training.",
            ESSAY.format(8796),
            checks_smoothness.check_inequality,
        ),
        (
            "inequality-first-layer-training",
            "The gradient of the first layer bounds the input gradient along training.",
            OCCAM,
            checks_smoothness.check_first_layer_bound,
        ),
        (
            "inequality-steady",
            "The factor between the two penalties changes little during training.",
            ESSAY.format(8796),
            checks_smoothness.check_bracket_is_steady,
        ),
        (
            "penalties-correlate",
            "Over learning rates, the penalties on inputs and on parameters rise "
            "together.",
            ESSAY.format(8796),
            checks_smoothness.check_penalties_correlate,
        ),
        (
            "energy-falls",
            "The mean squared input gradient falls with the learning rate.",
            OCCAM,
            checks_smoothness.check_energy_falls,
        ),
    ],
}
