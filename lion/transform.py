r"""Lion as optax transformations.

Chen et al., *Symbolic Discovery of Optimization Algorithms*, 2023, Algorithm 2
(https://arxiv.org/abs/2302.06675):

.. math::
    c_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t \\
    \theta_t &= \theta_{t-1} - \eta_t (\mathrm{sign}(c_t) + \lambda \theta_{t-1}) \\
    m_t &= \beta_2 m_{t-1} + (1-\beta_2) g_t, \qquad m_0 = 0.

What differs from the paper: nothing in the rule. The default weight decay is that of
`optax.lion`, 1e-3, where the authors have 0. What differs from `optax.lion` 0.2.8,
whose results are reproduced bit for bit under `jit`: the momentum keeps its dtype when
gradients are wider than parameters (there it widens at the first update, and the step
compiles twice), and arguments out of range are refused.

Example::

    import lion
    tx = optax.chain(optax.clip_by_global_norm(1.0), lion.lion(1e-4, weight_decay=0.1))
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion import momentum


class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`, with the fields of `optax.ScaleByLionState`.

    Attributes:
        count: number of updates done, int32 scalar.
        mu: momentum :math:`m_t`, shaped like the parameters; with `mu_dtype="int8"` an
            `Int8Momentum`.
    """

    count: jax.Array
    mu: optax.Updates


def scale_by_lion(
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.99,
    mu_dtype: jax.typing.DTypeLike | None = None,
    *,
    in_place: bool = False,
    cautious: bool = False,
) -> optax.GradientTransformation:
    r"""Replaces each gradient by the sign of Lion's interpolation.

    .. math:: u_t = \mathrm{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t), \qquad
              m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t.

    A gradient that is 0 from the start gives an update of 0. Multiplying all gradients
    by a positive constant changes no update, so clipping by the global norm changes
    only how much each step's gradient weighs in the momentum. A NaN or infinity stays
    in the momentum for ever: put `optax.apply_if_finite` around the whole optimizer.

    Args:
        b1: :math:`\beta_1` in [0, 1], weight of the momentum in the direction.
        b2: :math:`\beta_2` in [0, 1), decay rate of the momentum; above 0 when
            `in_place`.
        mu_dtype: floating-point dtype of the momentum, of at least 16 bits; None keeps
            that of the parameters. `"int8"` stores it in 8 bits a parameter and a
            float32 scale for every 256, as an `Int8Momentum`.
        in_place: computes the direction from the *new* momentum,
            :math:`\frac{\beta_1}{\beta_2} m_t + \left(1 - \beta_1 -
            \frac{\beta_1}{\beta_2} (1-\beta_2)\right) g_t`, the same number in exact
            arithmetic. With donated parameters and state the compiled step then copies
            nothing (of 8-bit momentum, only the scales); otherwise XLA saves every old
            momentum first. A sign may differ where the two terms cancel to rounding
            error, more often the fewer bits the momentum has.
        cautious: zeroes the coordinates whose direction disagrees in sign with the
            gradient, and multiplies the others by :math:`n / (k + 1)`, where :math:`k`
            of the tensor's :math:`n` coordinates agree, or by the largest number of the
            update's dtype where that is less (65504 in float16).

    Returns:
        A `GradientTransformation`. It does not apply a learning rate or flip the sign;
        its updates are -1, 0 or 1 (before the factor of `cautious`) in the wider of the
        gradient's and momentum's dtype, or the gradient's for 8-bit momentum.

    Raises:
        TypeError: if `b1` or `b2` is no real number.
        ValueError: if one is no scalar, or out of range where it is not traced, or for
            another `mu_dtype`.

    References:
        Chen et al., *Symbolic Discovery of Optimization Algorithms*, 2023, Algorithm 2.
        https://arxiv.org/abs/2302.06675; `cautious`: Liang et al., *Cautious
        Optimizers: Improving Training with One Line of Code*, 2024, Algorithm 1.
        https://arxiv.org/abs/2411.16085
    """
    _require("b1", b1, "in [0, 1]", lambda x: 0 <= x <= 1)
    _require("b2", b2, "in [0, 1)", lambda x: 0 <= x < 1)
    if in_place:
        _require("b2", b2, "above 0 when in_place", lambda x: x > 0)
    momentum.require_dtype(mu_dtype)
    is_int8 = momentum.is_int8(mu_dtype)

    def init(params):
        momentum.require_holds(mu_dtype, params)
        dtype = None if is_int8 else mu_dtype
        mu = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)
        if is_int8:
            mu = momentum.compress(mu)
        return ScaleByLionState(count=jnp.zeros([], jnp.int32), mu=mu)

    def direction(g, old, new):
        if in_place:
            ratio = b1 / b2
            c = _sum(ratio * new, ((1.0 - b1) - ratio * (1.0 - b2)) * g)
        else:
            c = _sum((1.0 - b1) * g, b1 * old)
        sign = jnp.sign(c)
        if is_int8:  # computed in float32, which says nothing about the parameters
            sign = sign.astype(g.dtype)
        return _only_agreeing(sign, g) if cautious else sign

    def update(updates, state, params=None):
        del params
        # NumPy would widen its bfloat16 next to a Python number.
        updates = jax.tree.map(jnp.asarray, updates)
        old = momentum.expand(state.mu) if is_int8 else state.mu
        new = jax.tree.map(
            lambda g, m: _sum((1 - b2) * g, b2 * m).astype(m.dtype), updates, old
        )
        mu = momentum.compress(new) if is_int8 else new
        if is_int8 and in_place:  # as it is stored: so the old codes can go before
            new = momentum.expand(mu)
        directions = jax.tree.map(direction, updates, old, new)
        count = jnp.asarray(optax.safe_increment(state.count))
        return directions, ScaleByLionState(count=count, mu=mu)

    return optax.GradientTransformation(init, update)


def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.99,
    mu_dtype: jax.typing.DTypeLike | None = None,
    weight_decay: jax.Array | float = 1e-3,
    mask: Any | Callable[[optax.Params], Any] | None = None,
    *,
    in_place: bool = False,
    cautious: bool = False,
) -> optax.GradientTransformation:
    r"""Lion with decoupled weight decay; a drop-in for `optax.lion`.

    .. math:: \theta_t = \theta_{t-1} - \eta_t\,(\mathrm{sign}(\beta_1 m_{t-1} +
              (1-\beta_1) g_t) + \lambda \theta_{t-1}).

    Every step moves every coordinate by :math:`\eta`, so the authors advise a learning
    rate 3 to 10 times smaller than AdamW's, and a weight decay as many times larger to
    keep the product. The defaults suit vision; for language models they use `b1=0.95,
    b2=0.98`.

    Args:
        learning_rate: :math:`\eta`, a number or a schedule of the step.
        b1: :math:`\beta_1` in [0, 1], weight of the momentum in the direction.
        b2: :math:`\beta_2` in [0, 1), decay rate of the momentum.
        mu_dtype: dtype of the momentum; None keeps that of the parameters, `"int8"`
            stores it in 8 bits.
        weight_decay: :math:`\lambda`, at least 0; it is multiplied by the learning rate
            and does not pass through the sign. The paper's default is 0.
        mask: pytree of bools like the parameters (or a prefix of it), or a function of
            the parameters giving one: where False, weights do not decay.
        in_place: makes a donated step copy nothing; see `scale_by_lion`.
        cautious: moves only where direction and gradient agree in sign; see
            `scale_by_lion`.

    Returns:
        A `GradientTransformation`; `update` needs the parameters.

    Raises:
        TypeError: if an argument that must be a number is none.
        ValueError: if a number is no scalar, or out of range or not finite where it is
            not traced, or for a `mu_dtype` that `scale_by_lion` does not have.

    References:
        Chen et al., *Symbolic Discovery of Optimization Algorithms*, 2023, Algorithm 2.
        https://arxiv.org/abs/2302.06675
    """
    if not callable(learning_rate):
        _require("learning_rate", learning_rate, "at least 0", lambda x: x >= 0)
    if not callable(weight_decay):  # optax takes a schedule here, too
        _require("weight_decay", weight_decay, "at least 0", lambda x: x >= 0)
    return optax.chain(
        scale_by_lion(b1, b2, mu_dtype, in_place=in_place, cautious=cautious),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def _only_agreeing(direction: jax.Array, gradient: jax.Array) -> jax.Array:
    """Keeps the coordinates that agree with the gradient, scaled by n / (k + 1)."""
    # Where the momentum is wider than the gradient, the direction is too.
    agrees = jnp.real(jnp.conj(direction) * gradient.astype(direction.dtype)) > 0
    scale = direction.size / (_count(agrees) + 1)
    # n / (k + 1) of a large tensor is infinite in float16.
    scale = jnp.minimum(scale, float(jnp.finfo(direction.dtype).max))
    return direction * (agrees.astype(scale.dtype) * scale).astype(direction.dtype)


def _sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """The sum in the wider dtype, also where JAX promotes nothing by itself."""
    with jax.numpy_dtype_promotion("standard"):
        return x + y


def _count(where: jax.Array) -> jax.Array:
    """Number of True entries, int32.

    XLA:CPU sums rows of up to 32 entries as it computes them; what is longer it writes
    to memory first. It would merge two sums of one dtype into a long one.
    """
    counts = where
    for dtype in (jnp.int32, jnp.uint32) if where.ndim else ():
        *lead, size = counts.shape
        row = min(max(size, 1), 32)
        padding = [(0, 0)] * len(lead) + [(0, -size % row)]
        rows = jnp.pad(counts.astype(dtype), padding)
        counts = rows.reshape(*lead, -(-size // row), row).sum(axis=-1)
    return jnp.sum(counts.astype(jnp.int32))


def _require(name: str, value: Any, allowed: str, is_allowed: Callable) -> None:
    """Checks a number; of a traced one only that it is a real scalar."""
    # As `expkit.arguments` does, so that Lion needs no other package.
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        kinds = (jnp.floating, jnp.integer)
        is_real = any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    else:
        is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_real:
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}.")
    if isinstance(value, jax.core.Tracer):
        return
    number = float(value)
    if not is_allowed(number):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}.")
