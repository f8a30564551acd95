"""The checks of a conformance suite as cases of a test, of which CI leaves some out."""

from collections.abc import Collection, Iterable

import pytest

from expkit.testing import Check

COMPILED = (
    "closes_over_traced_arrays",
    "jit_equals_eager",
    "no_recompilation",
    "vmap_equals_loop",
)
"""The checks of a loss that take long to compile."""
MASKS = ("masked_entries_have_no_influence", "empty_mask")
"""What a mask counts: it differs between sums, means and rows."""


def cases(
    checks: Iterable[Check],
    suite: str = "",
    slow: Collection[str] = (),
    quick: Collection[str] | None = None,
) -> list:
    """A case of each check; its id begins with the name of the suite, if it has one.

    CI leaves out the checks named in `slow`, or all but those in `quick`.
    """
    return [
        pytest.param(
            check,
            id=f"{suite}-{check.name}" if suite else check.name,
            marks=[pytest.mark.slow]
            * (check.name in slow or (quick is not None and check.name not in quick)),
        )
        for check in checks
    ]
