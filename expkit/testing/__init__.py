"""Conformance suites: one call checks any transformation, another any loss."""

from expkit.testing.checks import Check, run_checks
from expkit.testing.comparison import (
    assert_tree_finite,
    assert_trees_close,
    assert_trees_equal,
)
from expkit.testing.compilation import TraceCounter, count_compilations
from expkit.testing.derivatives import (
    finite_difference_gradient,
    finite_difference_hessian_vector,
    inner_product,
    random_direction,
)
from expkit.testing.losses import check_loss, loss_checks
from expkit.testing.transformations import (
    check_transformation,
    transformation_checks,
)

__all__ = [
    "Check",
    "TraceCounter",
    "assert_tree_finite",
    "assert_trees_close",
    "assert_trees_equal",
    "check_loss",
    "check_transformation",
    "count_compilations",
    "finite_difference_gradient",
    "finite_difference_hessian_vector",
    "inner_product",
    "loss_checks",
    "random_direction",
    "run_checks",
    "transformation_checks",
]
