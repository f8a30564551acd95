r"""ChildTuning: fine-tune a child network by masking gradients, as transformations.

Xu et al., *Raise a Child in Large Language Model: Towards Effective and Generalizable
Fine-tuning*, 2021, section 2 (https://arxiv.org/abs/2109.05687):

.. math::
    \theta_{t+1} &= \theta_t - \eta\, \nabla L(\theta_t) \odot M_t \\
    \text{ChildTuning-F:} \quad M_t &\sim \mathrm{Bernoulli}(p)^n / p
        \quad \text{anew at every step} \\
    \text{ChildTuning-D:} \quad M_t &= M
        \quad \text{the largest entries of the Fisher information, fixed}

`reserve_p` is the fraction that is kept. What differs from the paper: nothing in the
masks. The paper writes them into gradient descent; in the authors' code, and here, they
are put before whatever optimizer follows. What that leaves moving:

- momentum moves an entry also in the steps in which its gradient is masked, and, after
  a mask is switched on, with what it had gathered before. `update_dropout` masks what
  comes out of the optimizer instead, and so does a second `child_tuning_d(mask)` at the
  end of the chain;
- weight decay, when it comes after the mask, moves every entry.

Under Adam the factor :math:`1/p` of F cancels, and steps are :math:`\sqrt{p}` shorter
on average: compare with plain training at the learning rate :math:`\eta\sqrt{p}`.

Example::

    import childtuning
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        childtuning.child_tuning_f(0.3, jax.random.key(0)),
        optax.adamw(4e-5),
    )
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from childtuning import bits
from childtuning.arguments import require_key, require_mask, require_reserve_p
from expkit import explicit, trees


class ChildTuningFState(NamedTuple):
    """State of `child_tuning_f` and `update_dropout`.

    Attributes:
        key: typed PRNG key, the same at every step.
        count: number of updates done, int32 scalar.
    """

    key: jax.Array
    count: jax.Array


class ChildTuningDState(NamedTuple):
    """State of `child_tuning_d`.

    Attributes:
        mask: a tree like the parameters; every leaf holds the bits of its mask, eight
            to a byte, uint8.
    """

    mask: Any


def child_tuning_f(
    reserve_p: jax.typing.ArrayLike, key: jax.Array, *, rescale: bool = True
) -> optax.GradientTransformation:
    r"""Keeps a random part of the gradient, drawn anew for every step and leaf.

    .. math:: g'_i = \frac{e_i}{p} g_i, \qquad e_i \sim \mathrm{Bernoulli}(p),

    so that :math:`\mathrm{E}[g'] = g` and :math:`\mathrm{Var}[g'_i] = \sigma_i^2 +
    \frac{1-p}{p} (\mu_i^2 + \sigma_i^2)` for a gradient of mean :math:`\mu` and
    variance :math:`\sigma^2`. With `reserve_p=1` gradients pass bit for bit. Entries
    are selected, not multiplied: a NaN or infinity that is not kept is gone, one that
    is kept stays.

    Put it after clipping and before the optimizer, as the authors do.

    Args:
        reserve_p: :math:`p`, the fraction kept, in (0, 1]; a number, or traced by
            `optax.inject_hyperparams`.
        key: typed PRNG key. The count of steps and the number of the leaf are folded
            in: a run that is resumed repeats its bits, and a sharded leaf gets the
            mask of a whole one. Other random parts of a chain need keys of their own.
        rescale: divide by :math:`p`. Under an optimizer that forgets the scale of the
            gradient, such as Adam or Lion, it makes no difference.

    Returns:
        A `GradientTransformation`. Leaves that are neither floating-point nor complex
        pass unchanged.

    Raises:
        ValueError: if `reserve_p` is outside (0, 1] and not traced, or `key` is not a
            typed key.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, section 2.2.
        https://arxiv.org/abs/2109.05687
    """
    require_reserve_p(reserve_p)
    require_key(key)

    def init(params):
        del params
        # A copy: a donated state must not take the caller's key with it.
        return ChildTuningFState(jnp.copy(key), jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        del params
        step_key = jax.random.fold_in(state.key, state.count)
        leaves, structure = jax.tree.flatten(updates)
        kept = [
            _keep_at_random(jax.random.fold_in(step_key, i), leaf, reserve_p, rescale)
            for i, leaf in enumerate(leaves)
        ]
        count = jnp.asarray(optax.safe_increment(state.count))
        return structure.unflatten(kept), ChildTuningFState(state.key, count)

    return optax.GradientTransformation(init, update)


def update_dropout(
    reserve_p: jax.typing.ArrayLike, key: jax.Array, *, rescale: bool = True
) -> optax.GradientTransformation:
    r"""Keeps a random part of the update: `child_tuning_f` for the end of a chain.

    .. math:: u'_i = \frac{e_i}{p} u_i, \qquad e_i \sim \mathrm{Bernoulli}(p).

    The same transformation under the name that says where it stands. After Adam, what
    is masked does not move in that step, where masking the gradient leaves the momentum
    to move it, and :math:`1/p` does not cancel: with it the mean update is that of the
    optimizer. Weight decay before it in the chain is masked too.

    Args:
        reserve_p: :math:`p`, the fraction kept, in (0, 1].
        key: typed PRNG key, as in `child_tuning_f`.
        rescale: divide by :math:`p`.

    Returns:
        A `GradientTransformation`.

    Raises:
        ValueError: as `child_tuning_f`.

    References:
        Su, on ChildTuning and "incre drop", 2021. https://kexue.fm/archives/8764
    """
    return child_tuning_f(reserve_p, key, rescale=rescale)


def child_tuning_d(mask: Any) -> optax.GradientTransformation:
    r"""Keeps the gradient where a fixed mask is True.

    .. math:: g'_i = M_i g_i,

    without the factor :math:`1/p`, as in the authors' code. Entries are selected, not
    multiplied: a NaN or infinity outside the mask is gone.

    Put it after clipping and before the optimizer. Entries outside the mask then never
    move if the optimizer starts from a state of zeros and has no weight decay. Weight
    decay that comes after the mask moves them, and so does momentum from before; a
    second `child_tuning_d(mask)` at the end of the chain stops both, and
    `child_adamw(..., decay="child")` the decay.

    Args:
        mask: pytree like the parameters of bool arrays, such as `fisher_mask` returns.
            It is kept in the state as packed bits, an eighth of a byte a parameter, so
            a checkpoint restores it.

    Returns:
        A `GradientTransformation`. Its `init` raises ValueError, naming the leaf, where
        the mask does not match the parameters.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, section 2.3.
        https://arxiv.org/abs/2109.05687
    """

    def init(params):
        return ChildTuningDState(packed_mask(mask, params))

    def update(updates, state, params=None):
        del params
        return jax.tree.map(keep, updates, state.mask), state

    return optax.GradientTransformation(init, update)


def packed_mask(mask: Any, params: Any) -> Any:
    """The mask of the parameters' leaves as packed bits.

    Args:
        mask: pytree like the parameters of bool arrays.
        params: the parameters, or what `optax.tree_map_params` puts in their place.

    Returns:
        Pytree like `params` of uint8 arrays.

    Raises:
        ValueError: naming the first leaf that does not match.
    """
    if type(params) is _placeholder_type():
        # Packed bits have other shapes than the parameters, so
        # `optax.tree_map_params` must not take them for such.
        return jax.tree.map(bits.pack, mask)
    require_mask(mask, params)
    by_path = dict(jax.tree.leaves_with_path(mask))
    return jax.tree.map_with_path(lambda path, _: bits.pack(by_path[path]), params)


@functools.cache
def _placeholder_type() -> type:
    """What `optax.tree_map_params` puts in the place of parameters; not exported."""
    seen = []

    def init(params):
        seen.append(type(params))
        return params

    optax.tree_map_params(init, lambda leaf: leaf, ())
    return seen[0]


def keep(x: jax.Array, packed: jax.Array) -> jax.Array:
    """Replaces by 0 what is outside of a packed mask.

    Args:
        x: array, any shape.
        packed: bits of a mask of that shape.

    Returns:
        Array like `x`. A gradient of an integer parameter, which has no bits (float0),
        comes back as it is.
    """
    x = _with_dtype(x)
    if x.dtype == jax.dtypes.float0:
        return x

    def select(x, packed):
        return jnp.where(bits.unpack(packed, x.shape), x, jnp.zeros_like(x))

    return explicit.freely(select, x, packed, like=explicit.placement(x))


def _with_dtype(x: Any) -> Any:
    """A number of Python as an array; float0 has no array of JAX, and stays."""
    return x if hasattr(x, "dtype") else jnp.asarray(x)


def _keep_at_random(
    key: jax.Array, x: jax.Array, p: jax.typing.ArrayLike, rescale: bool
) -> jax.Array:
    x = _with_dtype(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x

    def draw(key, p, x):
        return jax.random.bernoulli(key, p, x.shape)

    # In float32 also where float64 is enabled, or the draws would be others.
    p32, place = jnp.asarray(p, jnp.float32), explicit.placement(x)
    is_kept = explicit.freely(draw, key, p32, x, like=place)
    if rescale:
        scaled = (x.astype(trees.wide_dtype(x)) / p).astype(x.dtype)
        x = jnp.where(p == 1, x, scaled)  # the CPU flushes what is subnormal to 0
    return jnp.where(is_kept, x, jnp.zeros_like(x))
