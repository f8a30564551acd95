"""Checks of what the losses share: the coefficient and the mask."""

from typing import Any

import jax
import numpy as np

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


def require_mask(where: jax.typing.ArrayLike) -> jax.Array:
    """The mask as an array.

    Args:
        where: what the caller gave.

    Returns:
        A boolean array.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it is known to select nothing.
    """
    mask = arguments.require_mask("where", where)
    if arguments.is_concrete(where) and not np.asarray(where).any():
        raise ValueError(
            f"where of shape {mask.shape} selects nothing; leave such a batch out."
        )
    return mask
