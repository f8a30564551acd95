r"""How the momentum is stored: as an array of some dtype, or in 8 bits a parameter.

The 8-bit form cuts a leaf into blocks of 256 consecutive entries. A block keeps its
largest magnitude :math:`s` in float32 and, for each entry, the integer

.. math:: q = \mathrm{round}(127\,\mathrm{sign}(m) \sqrt{|m| / s}), \qquad
          m \approx s\,\mathrm{sign}(q)\,(q/127)^2.

The square root spends more of the 255 levels on small entries: with gradient scales
over three decades inside a block, 95 % of Lion's signs agree with a float32 momentum,
against 87 % for equally spaced levels. Square-root companding is also what the 8-bit
Lion of LLM Foundry does (https://github.com/mosaicml/llm-foundry).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

BLOCK_SIZE = 256
MAX_CODE = 127


class Int8Momentum(NamedTuple):
    """Momentum in 8 bits an entry.

    Attributes:
        codes: pytree like the parameters, of int8 in their shapes, so that it shards
            like them.
        scales: pytree like the parameters, of float32 [ceil(size / 256)], the largest
            magnitude of each block.
    """

    codes: Any
    scales: Any


def is_int8(mu_dtype: Any) -> bool:
    """Whether a `mu_dtype` asks for the 8-bit form.

    Args:
        mu_dtype: a dtype, its name, or None.

    Returns:
        True for `"int8"` and `jnp.int8`.
    """
    return mu_dtype is not None and jnp.dtype(mu_dtype) == jnp.int8


def require_dtype(mu_dtype: Any) -> None:
    """Refuses a dtype that cannot hold a momentum.

    Integers would truncate it to 0; JAX has no arithmetic between floats of 8 bits and
    other numbers.

    Args:
        mu_dtype: what the caller gave.

    Raises:
        ValueError: if it is neither None nor int8 nor a floating-point (or complex)
            dtype of at least 16 bits.
    """
    try:
        if mu_dtype is None or is_int8(mu_dtype):
            return
        dtype = jnp.dtype(mu_dtype)
        if jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 16:
            return
    except (TypeError, ValueError):  # no dtype at all
        pass
    raise ValueError(
        "mu_dtype must be None, 'int8', or a floating-point dtype of at least 16 bits "
        f"such as 'bfloat16', got {mu_dtype!r}."
    )


def require_holds(mu_dtype: Any, params: Any) -> None:
    """Refuses a real momentum for complex parameters: half of it would be lost.

    Args:
        mu_dtype: as for `require_dtype`.
        params: pytree of arrays.

    Raises:
        ValueError: if a parameter is complex and `mu_dtype` a real dtype.
    """
    if mu_dtype is None or jnp.issubdtype(jnp.dtype(mu_dtype), jnp.complexfloating):
        return
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            "mu_dtype must be complex or None for complex parameters, got "
            f"{mu_dtype!r}."
        )


def compress(momentum: Any) -> Int8Momentum:
    """Stores arrays in 8 bits an entry.

    Args:
        momentum: pytree of floating-point arrays of any shape.

    Returns:
        Codes and scales; a block of zeros has scale 0. In a block with an entry that is
        not finite every entry comes back as nan.
    """
    leaves, treedef = jax.tree.flatten(momentum)
    pairs = [_freely(_compress, leaf, _placements(leaf)) for leaf in leaves]
    # One tree of each, not a pair at each leaf: libraries that give every leaf of a
    # state a box of their own would not find the pair in it again.
    codes, scales = (treedef.unflatten([pair[i] for pair in pairs]) for i in range(2))
    return Int8Momentum(codes, scales)


def _compress(momentum):
    momentum = momentum.astype(jnp.float32)
    scales = _largest_magnitudes(momentum)
    is_usable = (scales > 0.0) & jnp.isfinite(scales)
    # The inverse of a root is always a normal number; that of a scale is not.
    factors = jnp.where(is_usable, MAX_CODE / jnp.sqrt(scales), 0.0)
    magnitudes = jnp.sqrt(jnp.abs(momentum)) * _spread(factors, momentum.shape)
    codes = jnp.round(magnitudes) * jnp.sign(momentum)
    # Ends in an operation of two arrays, which XLA does not repeat for a second reader:
    # it would have to keep the old codes for that.
    codes = jnp.where(jnp.isnan(codes), 0, codes.astype(jnp.int8))
    return codes, jnp.where(jnp.isfinite(scales), scales, jnp.nan)


def expand(stored: Int8Momentum) -> Any:
    """Reads what `compress` stored.

    Args:
        stored: codes and scales.

    Returns:
        Pytree of float32 arrays in the shapes of the codes.
    """

    def leaf(codes, scales):
        places = _placements(codes)
        return _freely(_expand, (codes, scales), places and places[0])

    return jax.tree.map(leaf, *stored)


def _expand(stored):
    codes, scales = stored
    roots = codes.astype(jnp.float32) / MAX_CODE
    return _spread(scales, roots.shape) * roots * jnp.abs(roots)


def _placements(x):
    """Of codes and scales, if x is cut along explicit axes of a mesh; else None."""
    place = jax.typeof(x).sharding
    if not any(place.spec):
        return None
    return place, NamedSharding(place.mesh, PartitionSpec())


def _freely(function, x, out_sharding) -> Any:
    # JAX refuses blocks of a leaf that is cut, unless the compiler may place them. What
    # of `expkit.explicit` that takes is here, so that Lion needs no other package.
    if out_sharding is None:
        return function(x)
    return auto_axes(function, out_sharding=out_sharding)(x)


def _largest_magnitudes(x: jax.Array) -> jax.Array:
    """Largest magnitude of each block of a float32 array, nan if it holds a nan."""
    # Bits of magnitudes are ordered as the magnitudes, with nan last. XLA:CPU takes the
    # maximum of short rows of integers as it computes them, without an array of them.
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32).reshape(-1)
    rows = jnp.pad(bits, (0, -x.size % BLOCK_SIZE)).reshape(-1, BLOCK_SIZE // 32, 32)
    largest = jnp.max(jnp.max(rows, axis=-1, initial=0), axis=-1, initial=0)
    return jax.lax.bitcast_convert_type(largest, jnp.float32)


def _spread(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """One value a block, repeated for each entry of a leaf of the shape."""
    # The leaf keeps its shape, so that XLA sees that codes can be written over codes.
    blocks = jnp.broadcast_to(values[:, None], (len(values), BLOCK_SIZE))
    return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)
