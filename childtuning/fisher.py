r"""Fisher information of every parameter: how much the data can say about it.

Xu et al. (2021, section 2.3) rank parameters by the diagonal of the empirical Fisher
matrix,

.. math:: F_i = \frac1n \sum_{j=1}^n
              \Big(\frac{\partial \log p(y_j | x_j)}{\partial \theta_i}\Big)^2.

What differs between the paper and its code: the code squares the gradient of the *mean*
loss of a mini-batch, after clipping every tensor's to norm 1, and averages that over
the batches. The two rank parameters differently: the square of a mean is not the mean
of squares, and clipping gives the tensors of a batch other weights. Both are here,
`convention="paper"` and `"authors"`. The authors also leave dropout on; `loss_fn`
decides that here.

Example::

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> loss = lambda p, batch: jnp.mean((batch["x"] @ p["w"] - batch["y"]) ** 2)
    >>> batch = {"x": jnp.eye(2), "y": jnp.zeros(2)}
    >>> fisher_information(loss, params, [batch])["w"].tolist()
    [2.0, 8.0]

Networks of dense layers alone have a closed form, one backward pass for the whole
batch: `expkit.per_example.dense_fisher`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from childtuning.arguments import require_number
from expkit import explicit
from expkit.arguments import is_concrete, require_choice

CONVENTIONS = ("paper", "authors")


def fisher_information(
    loss_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    batches: Iterable[Any],
    *,
    convention: str = "paper",
    clip_norm: float | None = 1.0,
) -> Any:
    r"""Mean squared gradients, entry by entry: the diagonal of the empirical Fisher.

    .. math::
        \text{paper:}\quad F &= \frac1n \sum_{j=1}^n (\nabla_\theta \ell_j)^2 \\
        \text{authors:}\quad F &= \frac1m \sum_{k=1}^m (c_k \nabla_\theta L_k)^2,
        \qquad c_k = \min\Big(1, \frac{\text{clip\_norm}}{\|\nabla L_k\| + 10^{-6}}
        \Big) \text{ for each tensor,}

    with :math:`\ell_j` the loss of example j of n and :math:`L_k` the mean loss of
    batch k of m. The paper's form takes one example's gradient at a time, so that one
    gradient is in memory beside the parameters and the result. The authors' takes what
    a training step on the batch takes, the activations of the batch, and nothing more:
    3.45 gradients for a transformer of 3.7 million parameters at 16 rows of 32 tokens,
    as much as the gradient of the mean loss alone (`benchmarks/fisher.py`). Where that
    is too much, `jax.checkpoint` inside `loss_fn` recomputes activations.

    The step over a batch is compiled once for each shape of a batch and kept for later
    calls with the same `loss_fn`, which must be pure as for `jax.jit`. Inside of
    `jax.shard_map` a device has the information of the examples that it holds.

    Args:
        loss_fn: `loss_fn(params, batch)`, the mean loss over the batch, a scalar. For
            Fisher information in the proper sense, a negative log likelihood.
        params: pytree of arrays. Of leaves that are not floating-point it is 0.
        batches: iterable of pytrees with leaves [B, ...], such as a list of one batch;
            B may differ from batch to batch. One example is `leaf[i:i+1]` of every
            leaf. They may be sharded along B.
        convention: `"paper"` or `"authors"`.
        clip_norm: for `"authors"`: norm above 0 that no tensor's gradient exceeds; None
            does not clip.

    Returns:
        Pytree like `params`, float32, at least 0.

    Raises:
        ValueError: if `convention` or `clip_norm` is out of range, `batches` is one
            batch and not an iterable of them, there is none or one without an example,
            the leaves of a batch differ in their first axis, or a loss is no scalar or,
            like a gradient, not finite.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, eq. (7).
        https://arxiv.org/abs/2109.05687; the authors' form:
        https://github.com/RunxinXu/ChildTuning
    """
    require_choice("convention", convention, CONVENTIONS)
    if clip_norm is not None:
        require_number("clip_norm", clip_norm, "above 0 or None", lambda x: x > 0)
        clip_norm = float(clip_norm)  # static below, so an array would not do
    _require_batches(batches)
    if not _is_hashable(loss_fn):
        loss_fn = loss_fn.__call__  # a method, which is static by what it belongs to
    total = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.float32), params)
    count, losses = 0, []
    for index, batch in enumerate(batches):
        size = _batch_size(index, batch)
        if convention == "paper":
            placement = _placement(batch)
            total, loss = _add_examples(loss_fn, params, total, batch, placement)
            count += size
        else:
            total, loss = _add_batch(loss_fn, params, total, batch, clip_norm)
            count += 1
        losses.append(loss)
    if not count:
        raise ValueError("batches must hold at least one example, got none.")
    _require_finite(losses, total)
    return _divide(total, count)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


# The sum is donated: the loop then adds to it where it is.
_compiled = functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=2)


@_compiled
def _add_examples(loss_fn, params, total, batch, placement):
    """Adds the squared gradient of every example; returns the sum and a mean loss."""

    def add_all(params, total, batch):
        def add(total, example):
            loss, squares = _squared_gradient(loss_fn, params, example, None)
            return jax.tree.map(jnp.add, total, squares), loss

        examples = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 1), batch)
        total = explicit.varying_like(total, params, batch)
        total, losses = jax.lax.scan(add, total, examples)
        return total, jnp.mean(losses)

    if placement is None:
        like = jax.tree.map(explicit.placement, total), None
        return explicit.freely(add_all, params, total, batch, like=like)
    mesh, axes = placement

    def add_own(params, total, batch):
        own, loss = add_all(params, jax.tree.map(jnp.zeros_like, total), batch)
        added = jax.tree.map(lambda t, x: t + jax.lax.psum(x, axes), total, own)
        return added, jax.lax.pmean(loss, axes)

    whole, own = PartitionSpec(), PartitionSpec(axes)
    add = jax.shard_map(
        add_own,
        mesh=mesh,
        in_specs=(whole, whole, own),
        out_specs=(whole, whole),
        axis_names=set(axes),
        check_vma=False,
    )
    gather = functools.partial(explicit.whole, axes=axes)
    added, loss = add(jax.tree.map(gather, params), jax.tree.map(gather, total), batch)
    return jax.tree.map(_placed_like, added, total), loss


def _placed_like(leaf, other):
    place = explicit.placement(other)
    return leaf if place is None else jax.reshard(leaf, place)


@_compiled
def _add_batch(loss_fn, params, total, batch, clip_norm):
    """Adds the squared gradient of the mean loss; returns the sum and that loss."""
    loss, squares = _squared_gradient(loss_fn, params, batch, clip_norm)
    return jax.tree.map(jnp.add, total, squares), loss


def _squared_gradient(loss_fn, params, batch, clip_norm):
    """The loss, and squares of its gradient in float32, each tensor clipped."""

    def scalar_loss(params, batch):
        loss = loss_fn(params, batch)
        is_scalar = jax.tree.structure(loss) == jax.tree.structure(0)
        if not (
            is_scalar
            and jnp.shape(loss) == ()
            and jnp.issubdtype(jnp.result_type(loss), jnp.floating)
        ):
            shown = jax.tree.map(lambda x: jax.typeof(x).str_short(), loss)
            raise ValueError(
                f"loss_fn must return one floating-point scalar, got {shown}; take a "
                "mean, and return no aux."
            )
        return loss

    if explicit.varies(batch):  # or JAX adds up the gradients of the devices' losses
        params = explicit.varying_like(params, scalar_loss(params, batch))
    loss, grads = jax.value_and_grad(scalar_loss, allow_int=True)(params, batch)

    def square(g):
        if not jnp.issubdtype(g.dtype, jnp.floating):  # float0 or complex
            return jnp.zeros(g.shape, jnp.float32)
        g = g.astype(jnp.float32)
        if clip_norm is not None:
            norm = jnp.sqrt(jnp.sum(jnp.square(g)))
            g = g * jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        return jnp.square(g)

    return loss, jax.tree.map(square, grads)


def _placement(batch: Any) -> tuple[Any, tuple[str, ...]] | None:
    """The mesh and its axes over which all leaves have their examples, if any."""
    found = set()
    for leaf in jax.tree.leaves(batch):
        sharding = None
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
        if not isinstance(sharding, NamedSharding) or not sharding.spec[:1]:
            return None
        axes = sharding.spec[0]
        axes = axes if isinstance(axes, tuple) else (axes,)
        found.add((sharding.mesh, axes))
    if len(found) != 1:
        return None
    ((mesh, axes),) = found
    return None if None in axes else (mesh, axes)


def _require_batches(batches: Any) -> None:
    """Refuses one batch in the place of a list of them."""
    arrays = (jax.Array, np.ndarray)
    found = ""
    if isinstance(batches, Mapping):
        found = "one dict; put it in a list"
    elif isinstance(batches, arrays):
        found = f"one array of shape {batches.shape}; put it in a list: [x]"
    elif isinstance(batches, tuple) and any(isinstance(x, arrays) for x in batches):
        found = "a tuple of arrays; put it in a list: [(x, y)]"
    elif not isinstance(batches, Iterable):
        found = f"{batches!r}; put the batches in a list"
    if found:
        raise ValueError(f"batches must be an iterable of batches, got {found}.")


def _batch_size(index: int, batch: Any) -> int:
    """Number of examples; raises ValueError for none, or where leaves disagree."""
    sizes = {
        jax.tree_util.keystr(path): jnp.shape(leaf)[:1]
        for path, leaf in jax.tree.leaves_with_path(batch)
    }
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            f"batch {index} must have leaves [B, ...] of one B, got first axes "
            f"{dict(list(sizes.items())[:5])}."
        )
    size = next(iter(sizes.values()))[0]
    if not size:
        raise ValueError(
            f"batch {index} must hold at least one example, got none; leave it out."
        )
    return size


def _require_finite(losses: list[jax.Array], total: Any) -> None:
    """Raises ValueError naming the batch or the parameter; skips traced values."""
    if not is_concrete([losses[0], total]):
        return
    bad = np.flatnonzero(~np.isfinite(np.array([float(loss) for loss in losses])))
    if bad.size:
        raise ValueError(
            f"loss_fn is not finite on batch {bad[0]}: {float(losses[bad[0]])}; check "
            "the batch and the parameters."
        )
    for path, leaf in jax.tree.leaves_with_path(total):
        if not bool(_all_finite(leaf)):
            raise ValueError(
                f"a gradient is not finite at {jax.tree_util.keystr(path)!r}, though "
                "the loss is."
            )


@functools.partial(jax.jit, donate_argnums=0)
def _divide(total: Any, count: jax.typing.ArrayLike) -> Any:
    return jax.tree.map(lambda t: t / count, total)


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x))
