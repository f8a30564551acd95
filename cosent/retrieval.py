r"""Search with vectors that are computed once.

A feature-based model needs n encodings to compare n sentences with each other, an
interaction-based one :math:`n^2` passes over pairs (Su 2022, CoSENT (2)): vectors can
be kept, and the k nearest of them found by

.. math:: \operatorname{top-}k_j \; \cos(q_i, c_j).

What differs from taking the k largest entries of the matrix of cosines: the corpus is
read in blocks, so that memory is O(queries * block), and never copied.

Example::

    encode = jax.jit(encode_fn)
    corpus = encode_once(encode, {"ids": ids, "mask": mask})
    cosines, indices = top_k(encode_once(encode, queries), corpus, k=10)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cosent.arguments import require_vectors
from cosent.similarity import cosine_matrix, unit_vectors
from expkit import explicit
from expkit.arguments import require_count


def encode_once(
    encode_fn: Callable[[Any], jax.Array], inputs: Any, *, batch_size: int = 256
) -> jax.Array:
    """Unit vectors of all inputs, computed in batches of one shape.

    Args:
        encode_fn: maps a batch of inputs to vectors `[batch, dim]`. Each vector must
            depend on its own row only. A function from `jax.jit` is compiled once for
            all calls, any other once in each call.
        inputs: pytree of arrays `[n, ...]`, n >= 1, with rows that belong together.
        batch_size: rows of a batch, at least 1; the last one is filled with copies.

    Returns:
        `[n, dim]`, float32 or wider. Not for use under `jit`: it iterates over batches.

    Raises:
        TypeError: if `batch_size` is no integer, or the vectors are not floating-point.
        ValueError: if it is less than 1, the leaves of `inputs` have no rows or
            different numbers of them, or `encode_fn` does not return one vector a row.

    References:
        Su, *CoSENT (2)*, 2022, features against interaction.
        https://kexue.fm/archives/8860
    """
    batch_size = require_count("batch_size", batch_size)
    shapes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(shapes) != 1 or shapes <= {(), (0,)}:
        raise ValueError(
            f"inputs must hold arrays with one number of rows, got {sorted(shapes)}."
        )
    ((size,),) = shapes
    batch_size = min(batch_size, size)
    is_compiled = isinstance(encode_fn, jax.stages.Wrapped)
    # A new function in each call: what `encode_fn` closes over may have changed.
    encode = encode_fn if is_compiled else jax.jit(lambda batch: encode_fn(batch))
    parts = []
    for start in range(0, size, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), size - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        vectors = encode(batch)
        if jnp.ndim(vectors) != 2 or len(vectors) != batch_size:
            raise ValueError(
                f"encode_fn must return [{batch_size}, dim] for {batch_size} rows, got "
                f"shape {jnp.shape(vectors)}."
            )
        parts.append(_unit_vectors(vectors))
    return jnp.concatenate(parts)[:size]


_unit_vectors = jax.jit(unit_vectors)


def top_k(
    queries: jax.typing.ArrayLike,
    corpus: jax.typing.ArrayLike,
    k: int,
    *,
    block_size: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    r"""The k vectors of a corpus with the largest cosines, for each query.

    .. math:: \operatorname{top-}k_j \; \cos(q_i, c_j).

    Args:
        queries: `[q, dim]`, real floating-point, of any length.
        corpus: `[n, dim]`, of any length.
        k: in [1, n].
        block_size: rows of the corpus compared at a time, at least 1: memory is
            `q * (block_size + k)` numbers, and one block of unit vectors.

    Returns:
        `(cosines [q, k], indices [q, k])`, the largest first; of equal ones the row
        with the lower index. A zero vector has the cosine 0 with everything.

    Raises:
        TypeError: if k or `block_size` is no integer, or an array not floating-point.
        ValueError: if k or `block_size` is out of range, or shapes do not fit.

    References:
        Su, *CoSENT (2)*, 2022, features against interaction.
        https://kexue.fm/archives/8860
    """
    queries, corpus = jnp.asarray(queries), jnp.asarray(corpus)
    require_vectors(queries, corpus, is_paired=False, names=("queries", "corpus"))
    size = len(corpus)
    # As Python integers: an array is not hashable, and a static argument must be.
    k = require_count("k", k, largest=size)
    block_size = require_count("block_size", block_size)
    return _search(queries, corpus, k, min(block_size, size))


# A scan outside of `jit` is compiled anew in every call.
@functools.partial(jax.jit, static_argnames=("k", "block_size"))
def _search(queries, corpus, k: int, block_size: int):
    """The k best so far, and those of the next block, of which the k best are kept."""
    size = len(corpus)

    def merge(best, number):
        begin = number * block_size
        start = jnp.minimum(begin, size - block_size)
        block = jax.lax.dynamic_slice_in_dim(corpus, start, block_size)
        cosines = cosine_matrix(queries, block)
        # The last block starts early, so that it is full; its first rows were seen.
        is_new = start + jnp.arange(block_size, dtype=jnp.int32) >= begin
        is_new = jnp.broadcast_to(is_new[None, :], cosines.shape)
        cosines = jnp.where(is_new, cosines, -jnp.inf)
        cosines = jnp.concatenate([best[0], cosines], axis=1)
        cosines, places = jax.lax.top_k(cosines, k)
        before = jnp.take_along_axis(best[1], jnp.minimum(places, k - 1), axis=1)
        return (cosines, jnp.where(places < k, before, start + places - k)), None

    dtype = jnp.promote_types(jnp.result_type(queries, corpus), jnp.float32)
    shape = (len(queries), k)
    start = jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, jnp.int32)
    start = explicit.varying_like(start, queries, corpus)
    blocks = jnp.arange(-(-size // block_size), dtype=jnp.int32)
    best, _ = jax.lax.scan(merge, start, blocks)
    return best
