r"""A symmetric divergence for scores that go through sigmoids: spans, or any labels.

Su (2022), https://kexue.fm/archives/9039. For softmax outputs the symmetric
Kullback-Leibler divergence is :math:`\langle p - q, s - t \rangle`, an inner product of
what the scores become and what they are. With the sigmoid in place of the softmax,

.. math::
    D(s, t) = \sum_i (\sigma(s_i) - \sigma(t_i))(s_i - t_i)
    = \sum_i \big(\sigma(s_i)\sigma(-t_i) + \sigma(t_i)\sigma(-s_i)\big)\,
      d_i \tanh(d_i / 2), \qquad d_i = s_i - t_i.

That is the sum over all cells of the symmetric divergences of two coins, and the
symmetrised Bregman divergence of :math:`\sum \log(1 + e^{s})`. It lets R-Drop and
virtual adversarial training work on scores that are compared with 0. Its gradient is
:math:`\sigma'(s)(s - t) + \sigma(s) - \sigma(t)`, and near equality it is
:math:`\sum \sigma'(s) d^2`.

What differs from the essay: the second form above. The first subtracts two numbers
that agree in all digits where both scores are large or close: at (40, 30) float32 has
0, this has 9.4e-13. The essay has no masks, no reduction and no weight; here masks
select before anything is subtracted, and there is one value an example. Example::

    >>> span_divergence(jnp.array([[1.0, 20.0]]), jnp.array([[-1.0, 10.0]]))
    Array([0.92468...], dtype=float32)
"""

import jax
import jax.numpy as jnp

from expkit import trees
from expkit.arguments import (
    as_real,
    broadcast_mask,
    require_choice,
    require_scalar,
    require_shape,
)

REDUCTIONS = ("sum", "mean")


def span_divergence(
    scores_s: jax.typing.ArrayLike,
    scores_t: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
    reduction: str = "sum",
    temperature: jax.typing.ArrayLike = 1.0,
) -> jax.Array:
    r"""Symmetric divergence of two arrays of scores, for each example.

    .. math:: \sum_i \Big(\sigma\Big(\frac{s_i}{T}\Big) -
              \sigma\Big(\frac{t_i}{T}\Big)\Big) \frac{s_i - t_i}{T}.

    At least 0, and 0 with a zero gradient where the scores are equal. Unlike the
    divergence of two softmax outputs it changes when a constant is added to all scores:
    it looks where they lie to 0. It saturates: between 10 and 20 there is next to
    nothing, 4.5e-4, since both say yes; between 1 and -1 there is 0.92.

    Args:
        scores_s: s, `[batch, ...]`, real floating-point. A cell that is -inf in both
            arguments, as outside of the triangle, is left out.
        scores_t: t, the same shape. Both get a gradient.
        where: boolean, broadcasts to the shape of the scores; the cells that count.
            Others may hold anything and get no gradient.
        reduction: `"sum"` over the cells, or `"mean"` over those that count and are not
            -inf in both. A weight for the mean is the weight for the sum times the
            number of cells, which for m types and n tokens is m n (n + 1) / 2 and
            differs between sentences; 5 types and 64 tokens make 10,400.
        temperature: T, above 0, may be traced. The scores are divided by it. T above 1
            softens the saturation; the divergence shrinks by about :math:`T^2`.

    Returns:
        Divergences `[batch]`, float32 or wider; gradients have the dtypes of the
        scores. 0 for an example without any cell. Where one score is infinite and the
        other is not the same, the divergence is inf, and the gradient of that example
        0. A nan in a cell gives nan.

    Raises:
        TypeError: if scores are complex, `where` is not boolean, or `temperature` no
            real number.
        ValueError: if the shapes differ, `reduction` is unknown, or a concrete
            `temperature` is not positive.

    References:
        Su, *What should the KL divergence of GlobalPointer be?*, 2022, for
        sigmoids. https://kexue.fm/archives/9039
    """
    s, t = as_real("scores_s", scores_s), as_real("scores_t", scores_t)
    require_shape("scores_t", t, s.shape)
    require_choice("reduction", reduction, REDUCTIONS)
    require_scalar("temperature", temperature, "finite and above 0", lambda x: x > 0.0)
    if s.ndim < 1:
        raise ValueError("scores_s must be a batch [batch, ...], got a scalar.")
    keep = broadcast_mask(where, s.shape)
    keep &= ~(jnp.isneginf(s) & jnp.isneginf(t))
    wide = trees.wide_dtype(jnp.promote_types(s.dtype, t.dtype))
    cells = tuple(range(1, s.ndim))
    is_apart = keep & (jnp.isinf(s) | jnp.isinf(t)) & (s != t)
    is_nan = jnp.any(keep & (jnp.isnan(s) | jnp.isnan(t)), cells, keepdims=True)
    is_infinite = jnp.any(is_apart, cells, keepdims=True) & ~is_nan
    is_used = keep & ~is_infinite & ~(jnp.isinf(s) & (s == t))
    scale = 1.0 / jnp.asarray(temperature, wide)
    a, b = (jnp.where(is_used, z.astype(wide), 0.0) * scale for z in (s, t))
    total = jnp.sum(_coins(a, b), cells)
    if reduction == "mean":
        count = jnp.sum(keep, cells)
        total = total / jnp.maximum(count, 1).astype(wide)
    return jnp.where(jnp.squeeze(is_infinite, cells), jnp.inf, total)


@jax.custom_jvp
def _coins(a, b):
    """The terms, none of which is negative: sigmoid(a) - sigmoid(b), times a - b.

    The derivative in closed form keeps the three factors out of memory.
    """
    # In one order: a compiler that fuses a product and a sum would tell them apart.
    a, b = jnp.maximum(a, b), jnp.minimum(a, b)
    difference = a - b
    either = jax.nn.sigmoid(a) * jax.nn.sigmoid(-b)
    other = jax.nn.sigmoid(b) * jax.nn.sigmoid(-a)
    return (either + other) * jnp.tanh(0.5 * difference) * difference


@_coins.defjvp
def _coins_jvp(primals, tangents):
    (a, b), (change_a, change_b) = primals, tangents
    difference = a - b
    (p, not_p), (q, not_q) = _both_sides(a), _both_sides(b)
    # sigmoid(a) - sigmoid(b) with all its digits.
    apart = (p * not_q + q * not_p) * jnp.tanh(0.5 * difference)
    in_a = p * not_p * difference + apart
    in_b = q * not_q * difference + apart
    return apart * difference, in_a * change_a - in_b * change_b


def _both_sides(a):
    """sigmoid(a) and sigmoid(-a) from one exponential, which XLA keeps for both."""
    is_likely = a >= 0.0
    rare = jax.nn.sigmoid(jnp.where(is_likely, -a, a))
    often = 1.0 - rare
    return jnp.where(is_likely, often, rare), jnp.where(is_likely, rare, often)
