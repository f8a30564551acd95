"""Bools as packed bits: eight to a byte, along an axis that a sharding may cut.

Example::

    >>> packed = pack(jnp.ones((4, 16), bool))
    >>> packed.shape, packed.dtype
    ((4, 2), dtype('uint8'))
    >>> bool(unpack(packed, (4, 16)).all())
    True
"""

import math

import jax
import jax.numpy as jnp

from expkit import explicit


def pack(mask: jax.typing.ArrayLike) -> jax.Array:
    """Packs bools into bytes.

    Args:
        mask: bool, any shape.

    Returns:
        uint8. Where the last axis is a multiple of 8, that axis is packed and the
        others stay, so that a sharded mask stays where it is; otherwise all entries
        in one row, filled up with zeros.
    """
    mask = jnp.asarray(mask)
    place = explicit.placement(mask)
    if place is not None and (
        not _is_along_last_axis(mask.shape) or place.shard_shape(mask.shape)[-1] % 8
    ):
        place = None  # a part of a byte cannot lie elsewhere
    return explicit.freely(_pack, mask, like=place)


def _pack(mask):
    if not _is_along_last_axis(mask.shape):
        mask = mask.reshape(-1)
    return jnp.packbits(mask, axis=-1)


def unpack(packed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The bools that `pack` packed.

    Args:
        packed: its result.
        shape: of the mask.

    Returns:
        bool of that shape.
    """
    if _is_along_last_axis(shape):
        return jnp.unpackbits(packed, axis=-1).astype(bool).reshape(shape)
    bits = jnp.unpackbits(packed, axis=-1)[: math.prod(shape)]
    return bits.astype(bool).reshape(shape)


def _is_along_last_axis(shape: tuple[int, ...]) -> bool:
    return len(shape) > 0 and math.prod(shape) > 0 and shape[-1] % 8 == 0
