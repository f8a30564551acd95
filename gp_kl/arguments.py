"""What the losses of spans accept as a mask."""

import jax
import jax.numpy as jnp

from expkit.arguments import require_mask


def broadcast_mask(
    where: jax.typing.ArrayLike | None, shape: tuple[int, ...]
) -> jax.Array:
    """The mask in the shape of what it selects from.

    Args:
        where: boolean, broadcasts to the shape; None selects everything.
        shape: of the array that is masked.

    Returns:
        A boolean array of that shape.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it does not broadcast to the shape.
    """
    if where is None:
        return jnp.ones(shape, bool)
    mask = require_mask("where", where)
    try:
        return jnp.broadcast_to(mask, shape)
    except ValueError as error:
        raise ValueError(
            f"where must broadcast to the shape {shape}, got {mask.shape}."
        ) from error
