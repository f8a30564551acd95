"""The check of what the losses share: their coefficient."""

from typing import Any

from expkit import arguments


def require_alpha(value: Any) -> None:
    """Refuses a coefficient that is negative or no number.

    Args:
        value: what the caller gave as `alpha`; a traced one must be a scalar.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is no scalar, negative or not finite.
    """
    allowed = "finite and at least 0 (which switches the divergence off)"
    arguments.require_scalar("alpha", value, allowed, lambda x: x >= 0.0)
