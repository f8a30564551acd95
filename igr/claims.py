"""What the papers behind `igr` claim, and how each claim is checked here.

`python -m igr.claims --list` shows them, `--experiment=NAME --out=DIR` measures those
of one experiment.
"""

import functools

from expkit import claims
from igr import (
    checks_flood_levels,
    checks_flooding,
    checks_flow,
    checks_input_claims,
    checks_learning_rate,
    checks_minibatches,
    checks_orders,
    checks_quadratic,
)

BARRETT = "Barrett & Dherin 2020, {}. https://arxiv.org/abs/2009.11162"
SMITH = "Smith et al. 2021, {}. https://arxiv.org/abs/2101.12176"
FLOODING = "Ishida et al. 2020, {}. https://arxiv.org/abs/2002.08709"
ESSAY = "Su. https://kexue.fm/archives/{}"

DATA = {
    "clean": "with the labels of digits",
    "noisy": "with 20 % of wrong labels",
}
RIVALS = {
    "end": ("plain training to the end", "abstract"),
    "stopped": (
        "plain training stopped early",
        "abstract; the comparison is of this package",
    ),
}


def _flooding_rows(noise, rival):
    """Flooding against one rival on digits with or without wrong labels."""
    against, place = RIVALS[rival]
    end = "-end" if rival == "end" else ""
    return [
        (
            f"flooding-{name}{end}-{noise}",
            f"Flooding {relation} {against}, {DATA[noise]}.",
            FLOODING.format(place),
            functools.partial(check, noise, rival),
        )
        for name, relation, check in (
            (
                "loss",
                "has a lower test loss than",
                checks_flood_levels.check_test_loss,
            ),
            (
                "accuracy",
                "is at least as accurate as",
                checks_flood_levels.check_test_accuracy,
            ),
        )
    ]


EXPERIMENTS = {
    "identities": [
        (
            "local-orders",
            "One step of gradient descent differs from the flows of order 1, 2 and 3 "
            "by order 2, 3 and 4 in the learning rate.",
            BARRETT.format("backward error analysis"),
            checks_orders.check_local_orders,
        ),
        (
            "global-orders",
            "After a fixed time gradient descent is off the gradient flow by order 1 "
            "and off the modified flow by order 2.",
            BARRETT.format("backward error analysis"),
            checks_orders.check_global_orders,
        ),
        (
            "stochastic-order",
            "The mean epoch over all orders of the batches follows L + (h/4m) sum "
            "||grad L_k||^2 to order 3, and with the full-batch norm only to order 2.",
            SMITH.format("abstract"),
            checks_orders.check_stochastic_order,
        ),
        (
            "momentum-order",
            "Heavy ball follows L + h(1+b)/(4(1-b)^2) ||grad L||^2 to order 3 after "
            "the transient: (1+b)/(1-b) times the penalty of descent.",
            "Ghosh et al. 2023, abstract. https://arxiv.org/abs/2302.00849",
            checks_orders.check_momentum_order,
        ),
        (
            "flooding-order",
            "Two steps of flooding are one step on the gradient penalty to order 3 "
            "with plain gradient descent, and not with momentum or Adam.",
            ESSAY.format(7643),
            checks_flooding.check_flooding_order,
        ),
        (
            "flooding-unequal",
            "With steps e1 > e2 down and up, flooding descends L + e1 e2/(2(e1-e2)) "
            "||grad L||^2 at the rate e1-e2, to order 3.",
            ESSAY.format(7643),
            checks_flooding.check_unequal_steps_order,
        ),
        (
            "quadratic-eigenvalue",
            "On a quadratic the exact modified eigenvalue is -log(1-h l)/h, whose "
            "Taylor terms are the flows of order 1, 2 and 3.",
            ESSAY.format(7787),
            checks_quadratic.check_quadratic_eigenvalue,
        ),
        (
            "quadratic-oscillation",
            "For 1 < h l < 2 gradient descent converges by crossing the minimum at "
            "every step, which no flow does.",
            ESSAY.format(7787),
            checks_quadratic.check_oscillation,
        ),
        *checks_input_claims.EXPERIMENTS["identities"],
    ],
    "two_parameters": [
        *(
            (
                f"two-parameters-{name}",
                f"From {start}, gradient descent ends less than half as far from the "
                "modified flow as from the gradient flow.",
                BARRETT.format("figure 1"),
                functools.partial(
                    checks_flow.check_gradient_descent_follows_the_modified_flow, name
                ),
            )
            for name, start in (("near", "(2.8, 3.5)"), ("far", "(75, 74.925)"))
        ),
        (
            "two-parameters-flatter",
            "A larger learning rate ends in a flatter minimum than the gradient flow "
            "does.",
            BARRETT.format("figure 1"),
            checks_flow.check_flatter_minima,
        ),
        (
            "two-parameters-beyond",
            "With a learning rate beyond 1/lambda_max, none of the flows of order 1 "
            "to 3 ends where gradient descent does.",
            ESSAY.format(7787),
            checks_flow.check_no_flow_beyond_stability,
        ),
    ],
    "learning_rate": [
        (
            "regularizer-falls",
            "R_IG at the end falls with the learning rate, at equal learning rate x "
            "steps and below the edge of stability.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_regularizer_falls,
        ),
        (
            "sharpness-falls",
            "The largest Hessian eigenvalue at the end falls with the learning rate, "
            "below the edge of stability.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_sharpness_falls,
        ),
        (
            "accuracy-rises",
            "Test accuracy rises with the learning rate.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_accuracy_rises,
        ),
        (
            "parameter-noise",
            "Solutions of larger learning rates are more robust to noisy parameters.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_noise_robustness,
        ),
        (
            "penalty-coefficient",
            "A small learning rate with a penalty of a quarter of the difference ends "
            "where the larger learning rate does.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_penalty_coefficient,
        ),
        (
            "penalty-accuracy",
            "Explicit regularisation at a small learning rate is as accurate as the "
            "largest learning rate without it.",
            BARRETT.format("abstract"),
            checks_learning_rate.check_penalty_recovers,
        ),
        (
            "smith-sharpness",
            "With mini-batches, the mini-batch penalty at a small learning rate "
            "brings the sharpness of a large one.",
            SMITH.format("abstract"),
            checks_minibatches.check_sharpness_recovered,
        ),
        (
            "smith-batch-gradients",
            "It also brings the size of the mini-batch gradients of a large one.",
            SMITH.format("abstract"),
            checks_minibatches.check_batch_squares_recovered,
        ),
        (
            "smith-accuracy",
            "It is at least as accurate as the large learning rate.",
            SMITH.format("abstract"),
            checks_minibatches.check_accuracy_recovered,
        ),
    ],
    "flooding": [
        *_flooding_rows("clean", "end"),
        *_flooding_rows("clean", "stopped"),
        *_flooding_rows("noisy", "end"),
        *_flooding_rows("noisy", "stopped"),
        (
            "flooding-gradient",
            "At the same training loss, a flooded network has the smaller gradient.",
            ESSAY.format(7643),
            checks_flood_levels.check_gradient_norm,
        ),
        (
            "flooding-double-descent",
            "Under flooding the test loss descends twice.",
            FLOODING.format("abstract"),
            checks_flood_levels.check_double_descent,
        ),
    ],
    "robustness": checks_input_claims.EXPERIMENTS["robustness"],
    "inequality": checks_input_claims.EXPERIMENTS["inequality"],
    "published": [
        (name, statement, source, claims.not_testable(needs))
        for name, statement, source, needs in (
            (
                "cifar10-explicit",
                "An explicit gradient penalty raises the test accuracy of ResNet-18 on "
                "CIFAR-10.",
                BARRETT.format("abstract"),
                "CIFAR-10 and days on an accelerator",
            ),
            (
                "cifar10-stochastic",
                "A 10-1 wide residual network on CIFAR-10 trained at a small learning "
                "rate with the mini-batch penalty recovers the accuracy of a large "
                "one.",
                SMITH.format("abstract"),
                "CIFAR-10 and days on an accelerator",
            ),
            (
                "cifar10-energy",
                "The Dirichlet energy of a residual network on CIFAR-10 falls with the "
                "learning rate.",
                checks_input_claims.OCCAM,
                "CIFAR-10 and days on an accelerator",
            ),
        )
    ],
}
CLAIMS = claims.from_experiments(EXPERIMENTS)

if __name__ == "__main__":
    claims.main(CLAIMS)
