"""Named properties: how a conformance suite is listed, run, exempted and reported.

A suite is a list of `Check`. Each has the name and the one-line statement of a
property, and raises `AssertionError` naming both when the property does not hold,
so that a failure reads the same under pytest and outside it. pytest itself is not
imported: a `Check` is a callable without arguments.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """One property of one object under test; call it to verify it.

    Attributes:
        name: short identifier, as used in `exempt` and as a pytest id.
        statement: the property in one sentence.
        verify: raises any exception when the property does not hold.
    """

    name: str
    statement: str
    verify: Callable[[], None]

    def __call__(self) -> None:
        """Verifies the property.

        Raises:
            AssertionError: naming the property and what was got and expected.
        """
        __tracebackhide__ = True
        try:
            self.verify()
        except AssertionError as error:
            raise AssertionError(
                f"{self.name}: {error}\n  property: {self.statement}"
            ) from error
        except Exception as error:
            raise AssertionError(
                f"{self.name}: raised {type(error).__name__}: {error}\n"
                f"  property: {self.statement}"
            ) from error


def bind_checks(
    functions: Iterable[Callable[[Any], None]],
    case: Any,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Turns check functions of a case into named checks of that case.

    Args:
        functions: each takes the case; its name, without the leading underscore, and
            the first line of its docstring become those of the check.
        case: what is under test.
        exempt: reason for each property that does not apply, by name.

    Returns:
        One `Check` per function that is not exempt, in the given order.

    Raises:
        ValueError: if `exempt` has an unknown name or an empty reason.
    """
    by_name = {function.__name__.lstrip("_"): function for function in functions}
    exempt = dict(exempt or {})
    for name, reason in exempt.items():
        if name not in by_name:
            known = ", ".join(sorted(by_name))
            raise ValueError(f"exempt names no check: {name!r}. Known: {known}.")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"exempt[{name!r}] must be a reason, got {reason!r}.")
    return [
        Check(name, _statement(function), _bind(function, case))
        for name, function in by_name.items()
        if name not in exempt
    ]


def run_checks(checks: Iterable[Check]) -> None:
    """Runs every check, then reports all failures together.

    Args:
        checks: as returned by `transformation_checks` or `loss_checks`.

    Raises:
        AssertionError: with one paragraph per failed property.
    """
    checks, failures = list(checks), []
    for check in checks:
        try:
            check()
        except AssertionError as error:
            failures.append(error)
    if failures:
        text = "\n".join(str(error) for error in failures)
        raise AssertionError(
            f"{len(failures)} of {len(checks)} properties fail:\n{text}"
        ) from failures[0]


def _bind(function: Callable[[Any], None], case: Any) -> Callable[[], None]:
    return lambda: function(case)


def _statement(function: Callable) -> str:
    return (inspect.getdoc(function) or "").split("\n", 1)[0]
