r"""Two passes of a network over one batch, with independent dropout.

Liang et al. (2021), section 2.1: every input goes through the network twice. Their code
puts the batch next to itself and makes one pass over twice the rows, since a second
call was slower on their accelerators. In JAX the two calls are one program either way;
on a CPU they are at least as fast, and need less memory (`benchmarks/rdrop.py`), so
they are the default. What must not happen is that both see the same key: then the two
outputs are equal, and the divergence is 0 without any error.

Evaluation takes one pass without dropout. Batch statistics, of networks that have any,
see each example twice with `mode="concat"`. Example::

    out_1, out_2 = two_passes(apply_fn, params, x, key)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from expkit.arguments import require_choice

MODES = ("two", "concat")


def two_passes(
    apply_fn: Callable[[Any, Any, jax.Array], Any],
    params: Any,
    x: Any,
    key: jax.Array,
    *,
    mode: str = "two",
) -> tuple[Any, Any]:
    r"""Outputs of a network with dropout for two independent keys.

    .. math:: \big(f(x;\, \theta, \epsilon_1),\ f(x;\, \theta, \epsilon_2)\big).

    Args:
        apply_fn: `(params, x, key) -> out`, a network with dropout. With `"concat"` it
            must treat the rows of a batch alike and draw each row's dropout on its own,
            and its output must be a pytree of arrays with the batch in front.
        params: parameters, any pytree.
        x: batch, any pytree; with `"concat"` of arrays `[batch, ...]`.
        key: typed key; each pass gets a part of it.
        mode: `"two"` calls `apply_fn` twice, with two keys. `"concat"` calls it once on
            the batch put next to itself, with the key as it is.

    Returns:
        `(out_1, out_2)`, both as `apply_fn` returns them for `x`.

    Raises:
        ValueError: if `mode` is unknown or `key` is None, and with `"concat"` if an
            array of `x` has no batch axis or they differ in length, or the output does
            not have twice as many rows.

    References:
        Liang et al., *R-Drop: Regularized Dropout for Neural Networks*, 2021,
        section 2.1. https://arxiv.org/abs/2106.14448
    """
    require_choice("mode", mode, MODES)
    if key is None:
        raise ValueError(
            "key must be a typed key, got None: without dropout the passes are equal."
        )
    if mode == "two":
        key_1, key_2 = jax.random.split(key)
        return apply_fn(params, x, key_1), apply_fn(params, x, key_2)
    size = _batch_size(x)
    doubled = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), x)
    out = apply_fn(params, doubled, key)
    for leaf in jax.tree.leaves(out):
        if jnp.shape(leaf)[:1] != (2 * size,):
            raise ValueError(
                f"mode='concat' gave apply_fn {2 * size} rows and got an output of "
                f"shape {jnp.shape(leaf)}; use mode='two'."
            )
    first, second = (
        jax.tree.map(lambda leaf, half=half: leaf[half], out)
        for half in (slice(None, size), slice(size, None))
    )
    return first, second


def _batch_size(x: Any) -> int:
    """Rows of the arrays in a batch."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "mode='concat' needs arrays [batch, ...] in x with one batch size, got the "
            f"shapes {', '.join(map(str, shapes)) or 'of no array'}."
        )
    return sizes.pop()[0]
