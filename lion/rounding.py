r"""Stochastic rounding of parameter updates, for training in bfloat16 or float16.

With a learning rate of 1e-4 and weights around 1, an update is less than half the
spacing of bfloat16 (2^-8) and `optax.apply_updates` rounds it away: the weight never
moves. Rounded up or down at random, with the probability that makes the mean right, the
weight moves as in float32 on average.

Example::

    tx = optax.chain(lion.lion(1e-4), lion.stochastic_rounding(jax.random.key(0)))
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class StochasticRoundingState(NamedTuple):
    """State of `stochastic_rounding`.

    Attributes:
        key: typed PRNG key, the same at every step.
        count: number of updates done, int32 scalar.
    """

    key: jax.Array
    count: jax.Array


def stochastic_rounding(key: jax.Array) -> optax.GradientTransformation:
    r"""Makes `optax.apply_updates` round low-precision parameters at random.

    The sum :math:`x = p + u` is formed in float32 and lands on one of the two
    representable neighbours :math:`a \le x \le b`, on :math:`b` with probability
    :math:`(x - a) / (b - a)`, so that :math:`\mathrm{E}[p'] = x`. Put it last in a
    chain: what comes after would round again. `optax.apply_if_finite`, whose
    updates must keep the dtype of the gradients, goes around what is before it.

    Args:
        key: typed PRNG key. Step and leaf are folded in, so every leaf of every step
            gets randomness of its own, and a run that is resumed repeats its bits.

    Returns:
        A `GradientTransformation`; `update` needs the parameters. Updates of bfloat16
        and float16 parameters are float32 and must be applied by `optax.apply_updates`;
        other leaves pass unchanged.

    Raises:
        ValueError: if `key` is not one typed PRNG key, or `update` gets no parameters.

    References:
        Gupta et al., *Deep Learning with Limited Numerical Precision*, 2015, section 3.
        https://arxiv.org/abs/1502.02551
    """
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not is_key or key.shape != ():
        raise ValueError(
            f"key must be one typed key from jax.random.key, got {key!r:.80}."
        )

    def init(params):
        del params
        # A copy: a donated state must not take the caller's key with it.
        return StochasticRoundingState(jnp.copy(key), jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("stochastic_rounding needs params: update(..., params).")
        step_key = jax.random.fold_in(state.key, state.count)
        leaves, structure = jax.tree.flatten(updates)
        rounded = [
            _round_update(jax.random.fold_in(step_key, i), u, p)
            for i, (u, p) in enumerate(
                zip(leaves, structure.flatten_up_to(params), strict=True)
            )
        ]
        count = jnp.asarray(optax.safe_increment(state.count))
        state = StochasticRoundingState(state.key, count)
        return structure.unflatten(rounded), state

    return optax.GradientTransformation(init, update)


def round_stochastically(
    key: jax.Array, x: jax.Array, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Rounds float32 to bfloat16 or float16, up or down at random, right on average.

    Args:
        key: typed PRNG key.
        x: float32 array of any shape.
        dtype: bfloat16 or float16.

    Returns:
        Array of `dtype`: one of the two neighbours of each entry. A representable value
        is kept. A finite value beyond the largest finite one becomes that; nan and
        infinities are kept.
    """
    info = jnp.finfo(dtype)
    bits = jax.random.bits(key, x.shape, jnp.uint16)
    dropped = 23 - info.nmant  # bits of the mantissa that do not fit
    mask = jnp.uint32(2**dropped - 1)
    # Adding a uniform number below one unit in the last place and truncating rounds up
    # with the right probability, also where the carry goes into the exponent.
    raw = jax.lax.bitcast_convert_type(x, jnp.uint32)
    raw = (raw + (bits & mask.astype(jnp.uint16)).astype(jnp.uint32)) & ~mask
    rounded = jax.lax.bitcast_convert_type(raw, jnp.float32)
    if info.minexp > jnp.finfo(jnp.float32).minexp:
        # Below the smallest normal number the spacing is constant.
        unit = float(info.smallest_subnormal)
        lower = jnp.floor(x / unit)
        # Not added to x, whose own digits would round the sum up at 1000 units. The
        # half makes the mean right for both signs, where 16 bits are too few.
        uniform = (bits.astype(jnp.float32) + 0.5) / 2**16
        is_up = (x / unit - lower) + uniform >= 1.0
        subnormal = jnp.where(is_up, lower + 1.0, lower) * unit
        is_subnormal = jnp.abs(x) < float(info.smallest_normal)
        rounded = jnp.where(is_subnormal, subnormal, rounded)
    largest = jnp.float32(info.max)
    rounded = jnp.clip(rounded, -largest, largest)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(dtype)


def _round_update(key: jax.Array, update: jax.Array, param: jax.Array) -> jax.Array:
    dtype = jnp.result_type(param)  # a number of Python has no attribute of that name
    if dtype not in (jnp.bfloat16, jnp.float16):
        return update
    before, update = (jnp.asarray(x).astype(jnp.float32) for x in (param, update))
    after = round_stochastically(key, before + update, dtype)
    # An infinite parameter minus itself would be nan; it stays, as without rounding.
    return jnp.where(jnp.isfinite(before), after.astype(jnp.float32) - before, update)
