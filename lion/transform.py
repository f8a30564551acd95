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

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`, with the fields of `optax.ScaleByLionState`.

    Attributes:
        count: number of updates done, int32 scalar.
        mu: momentum :math:`m_t`, shaped like the parameters.
    """

    count: jax.Array
    mu: optax.Updates


def scale_by_lion(
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.99,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Replaces each gradient by the sign of Lion's interpolation.

    .. math:: u_t = \mathrm{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t), \qquad
              m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t.

    A gradient that is 0 from the start gives an update of 0. Multiplying all gradients
    by a positive constant changes no update. A NaN stays in the momentum for ever: put
    `optax.apply_if_finite` around the whole optimizer.

    Args:
        b1: :math:`\beta_1` in [0, 1], weight of the momentum in the direction.
        b2: :math:`\beta_2` in [0, 1), decay rate of the momentum.
        mu_dtype: dtype of the momentum; None keeps that of the parameters.

    Returns:
        A `GradientTransformation`. It does not apply a learning rate or flip the sign;
        its updates are -1, 0 or 1 in the wider of the gradient's and momentum's dtype.

    Raises:
        ValueError: if `b1` or `b2` is a Python number out of range.

    References:
        Chen et al., *Symbolic Discovery of Optimization Algorithms*, 2023, Algorithm 2.
        https://arxiv.org/abs/2302.06675
    """
    _require("b1", b1, "in [0, 1]", lambda x: 0 <= x <= 1)
    _require("b2", b2, "in [0, 1)", lambda x: 0 <= x < 1)

    def init(params):
        mu = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=mu_dtype), params)
        return ScaleByLionState(count=jnp.zeros([], jnp.int32), mu=mu)

    def update(updates, state, params=None):
        del params
        directions = jax.tree.map(
            lambda g, m: jnp.sign((1.0 - b1) * g + b1 * m), updates, state.mu
        )
        mu = jax.tree.map(
            lambda g, m: ((1 - b2) * g + b2 * m).astype(m.dtype), updates, state.mu
        )
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
        mu_dtype: dtype of the momentum; None keeps that of the parameters.
        weight_decay: :math:`\lambda`, at least 0; it is multiplied by the learning rate
            and does not pass through the sign. The paper's default is 0.
        mask: pytree of bools like the parameters (or a prefix of it), or a function of
            the parameters giving one: where False, weights do not decay.

    Returns:
        A `GradientTransformation`; `update` needs the parameters.

    Raises:
        ValueError: if a Python number is out of range.

    References:
        Chen et al., *Symbolic Discovery of Optimization Algorithms*, 2023, Algorithm 2.
        https://arxiv.org/abs/2302.06675
    """
    if not callable(learning_rate):
        _require("learning_rate", learning_rate, "at least 0", lambda x: x >= 0)
    _require("weight_decay", weight_decay, "at least 0", lambda x: x >= 0)
    return optax.chain(
        scale_by_lion(b1=b1, b2=b2, mu_dtype=mu_dtype),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def _require(name: str, value: Any, allowed: str, is_allowed: Callable) -> None:
    """Checks Python numbers; arrays may be traced or injected, and pass."""
    if isinstance(value, (int, float)) and not is_allowed(value):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")
