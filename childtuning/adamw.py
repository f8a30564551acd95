r"""AdamW as the authors of ChildTuning run it, with the gradient mask inside.

Their optimizer is that of Hugging Face with one line more, :math:`g_t \leftarrow
\nabla L(\theta_{t-1}) \odot M`:

.. math::
    m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad
    v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
    \tilde\theta_t &= \theta_{t-1} - \eta_t \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t}\,
        \frac{m_t}{\sqrt{v_t} + \epsilon} \\
    \theta_t &= \tilde\theta_t - \eta_t \lambda\, \tilde\theta_t.

It is not `optax.adamw` behind `child_tuning_d`: there :math:`\epsilon` is added after
the correction of the bias, and weights decay before the step. The difference is small,
and larger than rounding.

What differs from the authors: with :math:`\lambda > 0` they let every weight decay,
also those that the paper calls fixed; `decay="child"` lets only the child network
decay. Their default of :math:`\epsilon` is 1e-6, and their trainer passes 1e-8.

Example::

    import childtuning
    tx = childtuning.child_adamw(4e-5, mask, weight_decay=0.01, decay="child")
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from childtuning import masking
from expkit import trees
from expkit.arguments import require_scalar


class ChildAdamWState(NamedTuple):
    """State of `child_adamw`.

    Attributes:
        count: number of updates done, int32 scalar.
        mu: first moment :math:`m_t`, like the parameters.
        nu: second moment :math:`v_t`, like the parameters.
        mask: a tree like the parameters; the bits of the mask, eight to a byte, uint8.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates
    mask: Any


def child_adamw(
    learning_rate: optax.ScalarOrSchedule,
    mask: Any,
    *,
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.999,
    eps: jax.Array | float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    decay: str = "all",
) -> optax.GradientTransformation:
    r"""AdamW of a child network, in the order of the authors' operations.

    .. math:: \theta_t = (1 - \eta_t \lambda) \Big(\theta_{t-1} - \eta_t
              \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t}
              \frac{m_t}{\sqrt{v_t}+\epsilon}\Big), \qquad g_t = M \odot \nabla L.

    Outside the mask the moments stay 0 and the step is exactly 0.

    Args:
        learning_rate: :math:`\eta`, a number or a schedule of the count of updates
            done, 0 at the first.
        mask: pytree like the parameters of bool arrays, such as `fisher_mask` returns;
            kept in the state as packed bits.
        b1: :math:`\beta_1` in [0, 1).
        b2: :math:`\beta_2` in [0, 1).
        eps: :math:`\epsilon` above 0, added before the correction of the bias. With
            parameters in half precision `optax.inject_hyperparams` rounds it to 0 and
            `b2` to 1, unless `hyperparam_dtype=jnp.float32`.
        weight_decay: :math:`\lambda`, at least 0, or a schedule of the same count;
            multiplied by the learning rate.
        decay: what decays: `"all"` weights, as in the authors' code, or only the
            `"child"` network, so that the others do not move at all.

    Returns:
        A `GradientTransformation` whose updates are to be added; `update` needs the
        parameters. Its `init` raises ValueError, naming the leaf, where the mask does
        not match. Parameters that are not floating-point do not move.

    Raises:
        TypeError: if an argument that must be a number is none.
        ValueError: if a number is no scalar, or out of range or not finite where it is
            not traced, `decay` is unknown, or `update` gets no parameters.

    References:
        Xu et al., *Raise a Child in Large Language Model*, 2021, section 2.3, and the
        optimizer of its code. https://arxiv.org/abs/2109.05687
        https://github.com/RunxinXu/ChildTuning
    """
    _check(learning_rate, b1, b2, eps, weight_decay, decay)

    def init(params):
        return ChildAdamWState(
            count=jnp.zeros([], jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
            mask=masking.packed_mask(mask, params),
        )

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("child_adamw needs params: update(..., params).")
        # A number of Python has no dtype.
        updates, params = (jax.tree.map(jnp.asarray, x) for x in (updates, params))
        count = jnp.asarray(optax.safe_increment(state.count))
        rate, shrinkage = (
            value(state.count) if callable(value) else value
            for value in (learning_rate, weight_decay)
        )
        correction = jnp.sqrt(_one_minus_power(b2, count)) / _one_minus_power(b1, count)

        def leaf(g, m, v, bits, p):
            if not jnp.issubdtype(p.dtype, jnp.floating):
                return jnp.zeros_like(p), m, v
            dtype = trees.wide_dtype(p)
            g, p = masking.keep(g, bits).astype(dtype), p.astype(dtype)
            m = b1 * m.astype(dtype) + (1 - b1) * g
            v = b2 * v.astype(dtype) + (1 - b2) * jnp.square(g)
            step = -(rate * correction) * m / (jnp.sqrt(v) + eps)
            if isinstance(shrinkage, int | float) and shrinkage == 0:
                return step, m, v  # 0 times an infinite parameter would be nan
            decayed = rate * shrinkage * (p + step)
            if decay == "child":
                decayed = masking.keep(decayed, bits)
            return step - decayed, m, v

        new = jax.tree.map(leaf, updates, state.mu, state.nu, state.mask, params)
        steps, mu, nu = (_column(new, updates, i) for i in range(3))
        return _like(steps, updates, params), ChildAdamWState(
            count, _like(mu, state.mu), _like(nu, state.nu), state.mask
        )

    return optax.GradientTransformation(init, update)


def _one_minus_power(decay: jax.Array | float, count: jax.Array) -> jax.Array:
    """1 - decay ** count, to the last digits also where decay is almost 1."""
    if isinstance(decay, (int, float)):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(decay)
    return -jnp.expm1(count.astype(jnp.result_type(float)) * log)


def _column(tree: Any, like: Any, index: int) -> Any:
    """One entry of the tuples that a map over `like` has returned."""
    return jax.tree.map(lambda _, entries: entries[index], like, tree)


def _like(tree: Any, *references: Any) -> Any:
    """The tree in the dtypes of the first reference that has one for a number."""

    def cast(x, *others):
        dtypes = (r.dtype for r in others if r.dtype != jax.dtypes.float0)
        return x.astype(next(dtypes))

    return jax.tree.map(cast, tree, *references)


def _check(learning_rate, b1, b2, eps, weight_decay, decay) -> None:
    """Raises TypeError for what is no number, ValueError for one out of range."""
    for name, value in (
        ("learning_rate", learning_rate),
        ("weight_decay", weight_decay),
    ):
        if not callable(value):
            require_scalar(name, value, "at least 0", lambda x: x >= 0)
    require_scalar("b1", b1, "in [0, 1)", lambda x: 0 <= x < 1)
    require_scalar("b2", b2, "in [0, 1)", lambda x: 0 <= x < 1)
    require_scalar("eps", eps, "above 0", lambda x: x > 0)
    if decay not in ("all", "child"):
        raise ValueError(f"decay must be 'all' or 'child', got {decay!r}.")
