r"""Heads that score every span (i, j) of a sequence for every type.

Su et al. (2022), *Global Pointer*, and the essays https://kexue.fm/archives/8373 and
8877. With h the hidden states, R the rotations of rotary positions and d the width of a
head,

.. math::
    \text{Global Pointer:} \quad & s_a(i, j) = (R_i q_{i,a})^\top (R_j k_{j,a}), \qquad
        q_{i,a} = W_{q,a} h_i + b_{q,a},\ k_{i,a} = W_{k,a} h_i + b_{k,a} \\
    \text{Efficient:} \quad & s_a(i, j) = (R_i q_i)^\top (R_j k_j)
        + w_a^\top [q_i; k_i; q_j; k_j].

The first has 2Ddm weights for m types and hidden size D. The second finds the spans
once for all types, and classifies them by their ends: 2Dd + 4dm weights.

What differs from the paper, as in the author's code: products are divided by
:math:`\sqrt{d}`. The linear term has a bias for each end, and is not halved. Cells that
are no span (i > j, or an end on padding) are -inf, not -1e12, so that a probability
there is exactly 0. The efficient head adds two vectors of length n for each type; the
array [q; k; q; k] of n x n x 4d is never built. Example::

    >>> head = GlobalPointer(hidden_size=8, num_types=3, head_size=4)
    >>> params = head.init(jax.random.key(0))
    >>> hidden, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
    >>> head.apply(params, hidden, mask).shape
    (2, 3, 5, 5)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from expkit.arguments import (
    require_count,
    require_floating,
    require_mask,
    require_shape,
)
from expkit.rotary import rotary

__all__ = ["EfficientGlobalPointer", "GlobalPointer", "rotary", "span_mask"]

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class _SpanHead:
    """What both heads share: their sizes, and which cells are spans."""

    hidden_size: int
    num_types: int
    head_size: int = 64
    rotary: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_types", "head_size"):
            require_count(name, getattr(self, name))
        if not isinstance(self.rotary, bool):
            raise TypeError(f"rotary must be a bool, got {self.rotary!r}.")
        if self.rotary and self.head_size % 2:
            raise ValueError(
                "head_size must be even, since rotary positions turn pairs, got "
                f"{self.head_size!r}."
            )

    def _check(self, hidden, mask):
        """States with 0 on the padding, and the mask of the spans."""
        hidden, mask = jnp.asarray(hidden), require_mask("mask", mask)
        require_floating("hidden", hidden)  # its dtype becomes that of the parameters
        if hidden.ndim != 3 or hidden.shape[-1] != self.hidden_size:
            raise ValueError(
                f"hidden must be [batch, n, {self.hidden_size}], got {hidden.shape}."
            )
        require_shape("mask", mask, hidden.shape[:2])
        # What is on the padding must not reach the gradients as 0 times nan.
        return jnp.where(mask[:, :, None], hidden, 0), span_mask(mask)[:, None]

    def _products(self, queries, keys):
        """Dot products of rotated rows: two times [..., n, d] to [..., n, n]."""
        if self.rotary:
            positions = jnp.arange(queries.shape[-2])
            queries, keys = rotary(queries, positions), rotary(keys, positions)
        scale = np.asarray(self.head_size**-0.5, queries.dtype)
        return (scale * queries) @ jnp.swapaxes(keys, -1, -2)


@dataclasses.dataclass(frozen=True)
class GlobalPointer(_SpanHead):
    r"""Queries and keys of every type, whose products are the scores of the spans.

    .. math:: s_a(i, j) = (R_i q_{i,a})^\top (R_j k_{j,a}) / \sqrt{d}, \qquad i \le j.

    A span is predicted where its score is above 0. Scores depend on where a span is
    only through j - i.

    Attributes:
        hidden_size: D, the width of the states.
        num_types: m.
        head_size: d, the width of queries and keys; even with rotary positions.
        rotary: whether they are rotated. Without, a score cannot see how far its ends
            are from each other, except through the states.

    Raises:
        TypeError: if a size is no integer or `rotary` no bool.
        ValueError: if a size is below 1, or `head_size` is odd with rotary positions.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, the score of a span. https://arxiv.org/abs/2208.03054
    """

    def init(self, key: jax.Array) -> Params:
        r"""Draws the parameters: 2Ddm weights and 2dm biases.

        .. math:: W \sim \mathcal{N}(0, 1/D), \qquad b = 0.

        Args:
            key: typed key.

        Returns:
            `kernel [D, m, 2, d]` and `bias [m, 2, d]`; queries come first.
        """
        shape = (self.num_types, 2, self.head_size)
        return {
            "kernel": _kernel(key, (self.hidden_size, *shape)),
            "bias": jnp.zeros(shape),
        }

    def apply(
        self, params: Params, hidden: jax.typing.ArrayLike, mask: jax.typing.ArrayLike
    ) -> jax.Array:
        """Scores of all spans.

        Args:
            params: as `init` draws them.
            hidden: states `[batch, n, D]`, real floating-point.
            mask: boolean `[batch, n]`, True at tokens; False also at the special tokens
                of an encoder, which are in no span.

        Returns:
            Scores `[batch, types, n, n]` in the dtype of `hidden`; row i is the first
            token of the span and column j the last. -inf where i > j or an end is
            masked.

        Raises:
            TypeError: if `hidden` is not floating-point or `mask` not boolean.
            ValueError: if the shapes do not fit.
        """
        hidden, is_span = self._check(hidden, mask)
        p = {name: jnp.asarray(leaf, hidden.dtype) for name, leaf in params.items()}
        rows = jnp.einsum("bnh,hmsd->sbmnd", hidden, p["kernel"])
        queries, keys = rows + jnp.swapaxes(p["bias"], 0, 1)[:, None, :, None, :]
        return jnp.where(is_span, self._products(queries, keys), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class EfficientGlobalPointer(_SpanHead):
    r"""One head that finds spans, and a linear classifier of their ends.

    .. math:: s_a(i, j) = (R_i q_i)^\top (R_j k_j) / \sqrt{d}
              + u_a^\top [q_i; k_i] + v_a^\top [q_j; k_j] + c_a.

    Attributes:
        hidden_size: D, the width of the states.
        num_types: m.
        head_size: d, the width of queries and keys; even with rotary positions.
        rotary: whether queries and keys are rotated in the first term. The second
            always has them as they are.

    Raises:
        TypeError: if a size is no integer or `rotary` no bool.
        ValueError: if a size is below 1, or `head_size` is odd with rotary positions.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, fewer parameters. https://arxiv.org/abs/2208.03054
        Su, *Efficient GlobalPointer: fewer parameters, better results*, 2022.
        https://kexue.fm/archives/8877
    """

    def init(self, key: jax.Array) -> Params:
        r"""Draws the parameters: 2Dd + 4dm weights and 2d + 2m biases.

        .. math:: W \sim \mathcal{N}(0, 1/D), \qquad u, v \sim \mathcal{N}(0, 1/(4d)).

        Args:
            key: typed key.

        Returns:
            `kernel [D, 2, d]` and `bias [2, d]` of queries and keys, in this order,
            `type_kernel [2d, 2, m]` and `type_bias [2, m]` of the first and the last
            token of a span.
        """
        keys = jax.random.split(key)
        type_shape = (2 * self.head_size, 2, self.num_types)
        return {
            "kernel": _kernel(keys[0], (self.hidden_size, 2, self.head_size)),
            "bias": jnp.zeros((2, self.head_size)),
            # Both ends together have 4d inputs.
            "type_kernel": np.sqrt(0.5) * _kernel(keys[1], type_shape),
            "type_bias": jnp.zeros((2, self.num_types)),
        }

    def apply(
        self, params: Params, hidden: jax.typing.ArrayLike, mask: jax.typing.ArrayLike
    ) -> jax.Array:
        """Scores of all spans.

        Args:
            params: as `init` draws them.
            hidden: states `[batch, n, D]`, real floating-point.
            mask: boolean `[batch, n]`, True at tokens; False also at the special tokens
                of an encoder, which are in no span.

        Returns:
            Scores `[batch, types, n, n]` in the dtype of `hidden`, with -inf where i >
            j or an end is masked.

        Raises:
            TypeError: if `hidden` is not floating-point or `mask` not boolean.
            ValueError: if the shapes do not fit.
        """
        hidden, is_span = self._check(hidden, mask)
        p = {name: jnp.asarray(leaf, hidden.dtype) for name, leaf in params.items()}
        rows = jnp.einsum("bnh,hsd->bnsd", hidden, p["kernel"])
        rows += p["bias"][None, None]
        products = self._products(rows[:, :, 0], rows[:, :, 1])
        both = rows.reshape(*rows.shape[:2], 2 * self.head_size)
        ends = jnp.einsum("bnk,ksm->sbmn", both, p["type_kernel"])
        first, last = ends + p["type_bias"][:, None, :, None]
        scores = products[:, None] + first[:, :, :, None] + last[:, :, None, :]
        return jnp.where(is_span, scores, -jnp.inf)


def span_mask(mask: jax.typing.ArrayLike) -> jax.Array:
    r"""Which cells are spans: both ends are tokens, in their order.

    .. math:: M_{ij} = m_i \wedge m_j \wedge (i \le j).

    Args:
        mask: boolean `[..., n]`, True at tokens.

    Returns:
        Boolean `[..., n, n]`.

    Raises:
        TypeError: if it is not boolean.
        ValueError: if it has no axis.

    References:
        Su et al., *Global Pointer: Novel Efficient Span-based Approach for Named Entity
        Recognition*, 2022, spans as cells. https://arxiv.org/abs/2208.03054
    """
    mask = require_mask("mask", mask)
    if mask.ndim < 1:
        raise ValueError("mask must be [..., n], got a scalar.")
    # Not by NumPy: the length is a symbol where a model for all lengths is exported.
    places = jnp.arange(mask.shape[-1])
    upper = jnp.expand_dims(places[:, None] <= places[None, :], range(mask.ndim - 1))
    return mask[..., :, None] & mask[..., None, :] & upper


def _kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gaussian weights of variance one over the number of inputs, the first axis."""
    return jax.random.normal(key, shape) / np.sqrt(shape[0])
