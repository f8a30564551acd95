r"""Fisher masks: which parameters are the child network.

Xu et al. (2021, section 2.3) train the fraction :math:`p` of the parameters with the
largest Fisher information, :math:`M_i = [F_i \ge \text{the } (1-p)\text{-quantile}]`,
over all parameters together.

What differs from the authors' code: exactly :math:`\mathrm{round}(pn)` parameters are
kept, and ties go to the first ones; there, all that are equal to the quantile are kept,
which is everything where more than :math:`1-p` of the Fisher information is 0
(`ties="keep"`). And their code ranks only parameters whose name contains "layer"; the
others, embeddings and classifier, train fully. `where=in_layers` does that here, and
`trainable_fraction` says what :math:`p` then really is.

The quantile is found on bit patterns, without a sort and without gathering a sharded
tree: see `childtuning.order`.

Example::

    >>> fisher = {"layer": jnp.array([4.0, 1.0, 3.0, 2.0]), "head": jnp.zeros(2)}
    >>> mask = fisher_mask(fisher, 0.5, where=in_layers)
    >>> mask["layer"].tolist(), mask["head"].tolist()
    ([True, False, True, False], [True, True])
    >>> round(trainable_fraction(mask), 3)
    0.667
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from childtuning import blocks, order, sums
from childtuning.arguments import require_reserve_p
from expkit.arguments import is_concrete, require_choice

TIES = ("exact", "keep")


def fisher_mask(
    fisher: Any,
    reserve_p: float,
    *,
    ties: str = "exact",
    where: Any | Callable[[str], bool] | None = None,
) -> Any:
    r"""Marks the largest entries of all leaves together.

    .. math:: M_i = [F_i \ge \tau], \qquad \tau \text{ the } \mathrm{round}(pn)
              \text{-th largest of the } n \text{ entries that compete}.

    Sharded leaves stay where they are, and their masks beside them; the mask does not
    depend on the sharding. Under `jax.jit` the search is slower, entries are not
    checked, no more than 2**32 may compete, and on a CPU a percentile below 2**-126 is
    taken for 0. Inside of `jax.shard_map` a device ranks the entries that it holds.

    Args:
        fisher: pytree of floating-point arrays, at least 0, compared in float32.
        reserve_p: :math:`p` in (0, 1], a Python number: the fraction kept of the
            entries that compete.
        ties: `"exact"` keeps :math:`\mathrm{round}(pn)` entries (Python's rounding, to
            even); of equal ones the first by leaf, in the order of `jax.tree.leaves`,
            and flat index. `"keep"` keeps the entries of at least
            `np.percentile(all, 100 * (1 - p))`, which interpolates.
        where: which leaves compete: a function of the path of a leaf, written as
            `encoder/layer/0/w`, or a pytree of bools, a prefix of `fisher`; None is
            all. Leaves that do not are all True.

    Returns:
        Pytree like `fisher` of bool arrays.

    Raises:
        ValueError: if an argument is out of range, `where` does not match `fisher` or
            selects no entry, or an entry is negative or not finite.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, section 2.3.
        https://arxiv.org/abs/2109.05687; `"keep"`, and which leaves compete:
        https://github.com/RunxinXu/ChildTuning
    """
    leaves, structure = jax.tree.flatten(fisher)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    _check(fisher, leaves, reserve_p, ties)
    competes, paths = _competing(fisher, where), _paths(fisher)
    chosen = [leaf for leaf, c in zip(leaves, competes, strict=True) if c]
    names = [path for path, c in zip(paths, competes, strict=True) if c]
    if not sum(leaf.size for leaf in chosen):
        raise ValueError(
            f"where must select at least one entry, got none of {len(leaves)} leaves: "
            f"{', '.join(paths[:5])}{', ...' if len(paths) > 5 else ''}."
        )
    masks = iter(_masks(names, chosen, reserve_p, ties))
    return structure.unflatten(
        next(masks) if c else jnp.full_like(leaf, True, dtype=bool)
        for leaf, c in zip(leaves, competes, strict=True)
    )


def in_layers(path: str) -> bool:
    """Whether the authors of ChildTuning rank a parameter: `where` for `fisher_mask`.

    Args:
        path: of a leaf, such as `encoder/layer/0/w`.

    Returns:
        Whether it contains "layer", in lower case. In a BERT those are the weights of
        the transformer layers, and not embeddings (whose norm Hugging Face calls
        `LayerNorm`), pooler and classifier.

    References:
        Xu et al., 2021, the code. https://github.com/RunxinXu/ChildTuning
    """
    return "layer" in path


def trainable_fraction(mask: Any) -> float:
    """The share of the parameters that a mask lets train.

    Args:
        mask: pytree of bool arrays.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if there are no entries, or a leaf is not bool.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, section 2.3, where the
        fraction is of the leaves that compete. https://arxiv.org/abs/2109.05687
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    if not (size := sum(leaf.size for leaf in leaves)):
        raise ValueError("mask must have at least one entry, got none.")
    for path, leaf in zip(_paths(mask), leaves, strict=True):
        if leaf.dtype != bool:
            raise ValueError(
                f"mask must hold bools, got {leaf.dtype} at {path!r}; pass the bool "
                "mask of fisher_mask."
            )
    return sum(int(jnp.sum(leaf, dtype=jnp.int32)) for leaf in leaves) / size


def _masks(names, leaves, p: float, ties: str) -> list[jax.Array]:
    """Masks of the leaves that compete."""
    size = sum(leaf.size for leaf in leaves)
    is_local = is_concrete(leaves) and all(x.is_fully_addressable for x in leaves)
    if not is_local:
        if ties == "exact":
            return _exact_by_sums(leaves, round(p * size))
        return _reach(leaves, _percentile_by_sums(leaves, size, p))
    shards = order.local_shards(leaves)
    try:
        if ties == "exact":
            return _exact(leaves, shards, round(p * size))
        return _reach(leaves, order.percentile(shards, 1 - p))
    except ValueError as error:
        bad = (n for n, x in zip(names, leaves, strict=True) if not _is_valid(x))
        if (name := next(bad, None)) is None:
            raise  # it is not about the entries
        raise ValueError(
            f"fisher must be finite and at least 0, got another entry at {name!r}."
        ) from error


def _exact(leaves, shards, count: int) -> list[jax.Array]:
    """Masks of exactly so many of the largest entries."""
    threshold = order.select(shards, max(count, 1), stop_early=True)
    if not count:
        return _reach(leaves, blocks.NOT_FINITE)
    surplus = threshold.num_at_least - count
    if not surplus:
        return _reach(leaves, threshold.pattern)
    pattern, masks = threshold.pattern, []
    for leaf in reversed(leaves):  # of equal entries, the last ones go
        end = leaf.size
        if surplus:
            end, num_dropped = order.end_without_last(leaf, pattern, surplus)
            surplus -= num_dropped
        masks.append(_reach_with_ties(leaf, np.uint32(pattern), np.uint32(end)))
    return masks[::-1]


def _exact_by_sums(leaves, count: int) -> list[jax.Array]:
    """`_exact` for traced leaves."""
    if not count:
        return _reach(leaves, blocks.NOT_FINITE)
    pattern = sums.select(leaves, count)
    equal = [_num_equal(leaf, pattern) for leaf in leaves]
    above = [_num_above(leaf, pattern) for leaf in leaves]
    left, masks = count - sum(above, start=jnp.uint32(0)), []
    for leaf, num_equal in zip(leaves, equal, strict=True):
        num_kept = jnp.minimum(left, num_equal)
        left = left - num_kept
        end = sums.end_of_first(leaf, pattern, num_kept)
        masks.append(_reach_with_ties(leaf, pattern, jnp.where(num_kept > 0, end, 0)))
    return masks


def _percentile_by_sums(leaves, size: int, p: float) -> jax.Array:
    """`order.percentile` of traced leaves."""
    index, weight = order.percentile_position(size, 1 - p)
    ranks = (size - index, max(size - index - 1, 1))
    a, b = (
        jax.lax.bitcast_convert_type(sums.select(leaves, k), jnp.float32) for k in ranks
    )
    part = min(weight, 1 - weight)
    # Rounded, where XLA would make it one operation with the sum.
    part = jax.lax.reduce_precision((b - a) * part, 8, 23)
    return blocks.patterns(b - part if weight >= 0.5 else a + part)


def _reach(leaves, pattern: int | jax.Array) -> list[jax.Array]:
    """Masks of the entries that have at least a bit pattern."""
    pattern = jnp.asarray(pattern, jnp.uint32)
    return [_at_least(leaf, pattern) for leaf in leaves]


@jax.jit
def _at_least(x: jax.Array, pattern: jax.Array) -> jax.Array:
    return blocks.patterns(x) >= pattern


@jax.jit
def _reach_with_ties(x: jax.Array, pattern: jax.Array, end: jax.Array) -> jax.Array:
    """Above a pattern, or equal to it and before a flat index."""
    bits = blocks.patterns(x)
    is_tie = (bits == pattern) & (sums.flat_index(x.shape) < end)
    return (bits > pattern) | is_tie


@jax.jit
def _num_equal(x: jax.Array, pattern: jax.Array) -> jax.Array:
    return jnp.sum(blocks.patterns(x) == pattern, dtype=jnp.uint32)


@jax.jit
def _num_above(x: jax.Array, pattern: jax.Array) -> jax.Array:
    return jnp.sum(blocks.patterns(x) > pattern, dtype=jnp.uint32)


@jax.jit
def _is_valid(x: jax.Array) -> jax.Array:
    return jnp.all(blocks.patterns(x) < blocks.NOT_FINITE)


def _competing(fisher: Any, where: Any) -> list[bool]:
    """Whether each leaf competes."""
    if where is None:
        return [True] * len(jax.tree.leaves(fisher))
    if callable(where):
        return [bool(where(path)) for path in _paths(fisher)]
    try:
        full = jax.tree.map(
            lambda chosen, subtree: jax.tree.map(lambda _: chosen, subtree),
            where,
            fisher,
        )
    except ValueError as error:
        raise ValueError(
            f"where must be a function of a path, or a pytree of bools that is a "
            f"prefix of fisher: {error}"
        ) from error
    flags = jax.tree.leaves(full)
    for path, flag in zip(_paths(fisher), flags, strict=True):
        if not isinstance(flag, (bool, np.bool_)):
            raise ValueError(
                f"where must hold bools, got {flag!r:.80} for {path!r}; a function of "
                "the path will do too."
            )
    return [bool(flag) for flag in flags]


def _paths(tree: Any) -> list[str]:
    """Where the leaves are, such as `encoder/layer/0/w`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(tree)
    ]


def _check(fisher: Any, leaves: list[jax.Array], reserve_p: Any, ties: str) -> None:
    """Raises ValueError for an argument that cannot be used."""
    require_reserve_p(reserve_p)
    if not isinstance(reserve_p, (int, float)):
        raise ValueError(f"reserve_p must be a Python number, got {reserve_p!r}.")
    require_choice("ties", ties, TIES)
    for path, leaf in zip(_paths(fisher), leaves, strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"fisher must hold floating-point arrays, got {leaf.dtype} at {path!r}."
            )
