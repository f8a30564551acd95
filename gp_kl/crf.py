r"""The baseline of the essays: a linear-chain conditional random field over BIO tags.

Lafferty, McCallum and Pereira (2001). A sequence of tags y has the score

.. math::
    S(y) = a_{y_1} + \sum_i e_{i, y_i} + \sum_i T_{y_i, y_{i+1}} + z_{y_n}, \qquad
    \log p(y) = S(y) - \log \sum_{y'} e^{S(y')}.

The sum over all sequences is taken by the forward algorithm, one step of `lax.scan` a
token; the best sequence by Viterbi's. As in the essay https://kexue.fm/archives/8373
the transitions usually want a learning rate of their own, 100 to 1000 times that of the
encoder, since they start at 0 and are few.

What differs from implementations: tokens that are masked are skipped wherever they are,
so special tokens in front need no care, and a row without tokens has the likelihood 1.
Example::

    >>> crf = LinearChainCRF(hidden_size=8, num_types=3)
    >>> params = crf.init(jax.random.key(0))
    >>> hidden, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
    >>> crf.log_likelihood(params, hidden, jnp.zeros((2, 5), int), mask).shape
    (2,)
    >>> crf.decode(params, hidden, mask).shape
    (2, 5)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from expkit import explicit, trees
from expkit.arguments import (
    as_integers,
    is_concrete,
    require_count,
    require_floating,
    require_mask,
    require_shape,
    wide_integers,
)

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LinearChainCRF:
    r"""A linear layer that scores the tags of tokens, and transitions between tags.

    .. math:: \log p(y \mid h) = S(y) - \log \sum_{y'} e^{S(y')}.

    Attributes:
        hidden_size: D, the width of the states.
        num_types: m; there are 2m + 1 tags, see `spans_to_bio`.

    Raises:
        TypeError: if a size is no integer.
        ValueError: if a size is below 1.

    References:
        Lafferty, McCallum, Pereira, *Conditional Random Fields*, 2001.
        https://repository.upenn.edu/cis_papers/159
        Su, *GlobalPointer: a unified treatment of nested and flat NER*, 2021, the
        baseline. https://kexue.fm/archives/8373
    """

    hidden_size: int
    num_types: int

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError for a size that is none."""
        require_count("hidden_size", self.hidden_size)
        require_count("num_types", self.num_types)

    @property
    def num_tags(self) -> int:
        """K = 2m + 1: outside, and first and further tokens of every type."""
        return 2 * self.num_types + 1

    def init(self, key: jax.Array) -> Params:
        r"""Draws the parameters: DK + K of the layer and K^2 + 2K of the chain.

        .. math:: W \sim \mathcal{N}(0, 1/D), \qquad a = z = T = 0.

        Args:
            key: typed key.

        Returns:
            `kernel [D, K]`, `bias [K]`, `transitions [K, K]` from row to column,
            `start [K]` and `end [K]`.
        """
        count = self.num_tags
        kernel = jax.random.normal(key, (self.hidden_size, count))
        zeros = {"bias": (count,), "start": (count,), "end": (count,)}
        return {
            "kernel": kernel / np.sqrt(self.hidden_size),
            "transitions": jnp.zeros((count, count)),
        } | {name: jnp.zeros(shape) for name, shape in zeros.items()}

    def log_likelihood(
        self,
        params: Params,
        hidden: jax.typing.ArrayLike,
        tags: jax.typing.ArrayLike,
        mask: jax.typing.ArrayLike,
    ) -> jax.Array:
        """Log-probabilities of sequences of tags.

        Args:
            params: as `init` draws them.
            hidden: states `[batch, n, D]`, real floating-point.
            tags: integers `[batch, n]`; those of masked tokens may be anything.
            mask: boolean `[batch, n]`, True at tokens.

        Returns:
            `[batch]`, at most 0, float32 or wider; 0 for a row without tokens, nan for
            one with a traced tag that does not exist.

        Raises:
            TypeError: if `hidden` is not floating-point, `mask` not boolean or `tags`
                no integers.
            ValueError: if the shapes do not fit, or a concrete tag of a token does not
                exist.
        """
        hidden, mask = self._check(hidden, mask)
        tags = as_integers("tags", tags)
        require_shape("tags", tags, mask.shape)
        tags = jnp.where(mask, wide_integers(tags), 0)
        is_valid = jnp.all((tags >= 0) & (tags < self.num_tags), axis=1)
        if is_concrete(is_valid) and not np.all(is_valid):
            wrong = np.asarray(tags)[~np.asarray(is_valid)]
            wrong = wrong[(wrong < 0) | (wrong >= self.num_tags)]
            raise ValueError(
                f"tags must be in [0, {self.num_tags - 1}] for num_types="
                f"{self.num_types}, got {wrong[0]}."
            )
        arrays = *self._chain(params, hidden), tags, mask
        likelihoods = explicit.freely(
            _log_likelihoods, *arrays, like=explicit.placement(is_valid)
        )
        return jnp.where(is_valid, likelihoods, jnp.nan)

    def decode(
        self, params: Params, hidden: jax.typing.ArrayLike, mask: jax.typing.ArrayLike
    ) -> jax.Array:
        """The likeliest sequences of tags, by Viterbi's algorithm.

        Args:
            params: as `init` draws them.
            hidden: states `[batch, n, D]`, real floating-point.
            mask: boolean `[batch, n]`, True at tokens.

        Returns:
            int32 `[batch, n]`; 0 at masked tokens.

        Raises:
            TypeError: if `hidden` is not floating-point or `mask` not boolean.
            ValueError: if the shapes do not fit.
        """
        hidden, mask = self._check(hidden, mask)
        arrays = *self._chain(params, hidden), mask
        return explicit.freely(_best_tags, *arrays, like=explicit.placement(mask))

    def _check(self, hidden, mask):
        """States with 0 on the padding, and the mask."""
        hidden, mask = jnp.asarray(hidden), require_mask("mask", mask)
        require_floating("hidden", hidden)  # its dtype becomes that of the kernel
        if hidden.ndim != 3 or hidden.shape[2] != self.hidden_size or not hidden.size:
            raise ValueError(
                f"hidden must be [batch, n, {self.hidden_size}] with batch and n of at "
                f"least 1, got {hidden.shape}."
            )
        require_shape("mask", mask, hidden.shape[:2])
        return jnp.where(mask[:, :, None], hidden, 0), mask

    def _chain(self, params, hidden):
        """Parameters of the chain, and scores of tags [batch, n, K], not narrow."""
        wide = trees.wide_dtype(hidden)
        emissions = (hidden @ jnp.asarray(params["kernel"], hidden.dtype)).astype(wide)
        emissions += jnp.asarray(params["bias"], wide)[None, None]
        names = ("start", "transitions", "end")
        return tuple(jnp.asarray(params[name], wide) for name in names), emissions


# Jitted, since a scan outside of `jit` is compiled anew in every call.
@jax.jit
def _log_likelihoods(parameters, emissions, tags, mask):
    """Of a batch [batch, n]."""
    arrays = parameters, emissions, tags, mask
    return jax.vmap(_log_likelihood, (None, 0, 0, 0))(*arrays)


@jax.jit
def _best_tags(parameters, emissions, mask):
    """Of a batch [batch, n]."""
    return jax.vmap(_viterbi, (None, 0, 0))(parameters, emissions, mask)


def _log_likelihood(parameters, emissions, tags, mask):
    """Of one sequence [n], of which masked tokens are no part.

    The forward algorithm on scores less that of the given sequence so far: the sum and
    the score are large, and nearly the same where the sequence is likely. The entry of
    its last tag is at least 0, since it contains the sequence itself.
    """
    start, transitions, end = parameters
    places = jnp.where(mask, jnp.arange(len(mask)), -1)
    before = jnp.roll(jax.lax.cummax(places), 1).at[0].set(-1)
    is_started = before >= 0
    arrivals = jnp.where(is_started, transitions[tags[before], tags], start[tags])
    own = jnp.take_along_axis(emissions, tags[:, None], axis=1, mode="clip")[:, 0]
    last = tags[jnp.max(places)]
    # What is impossible is not subtracted.
    is_out = mask & (jnp.isneginf(arrivals) | jnp.isneginf(own))
    is_possible = ~(jnp.any(is_out) | jnp.isneginf(end[last]))
    arrivals, own = (jnp.where(is_out, 0.0, x) for x in (arrivals, own))
    leave = end - jnp.where(is_possible, end[last], 0.0)

    def step(alpha, inputs):
        emission, arrival, is_token, is_later = inputs
        moved = jax.nn.logsumexp(alpha[:, None] + (transitions - arrival), axis=0)
        new = jnp.where(is_later, moved, start - arrival) + emission
        return jnp.where(is_token, new, alpha), None

    inputs = emissions - own[:, None], arrivals, mask, is_started
    alpha = explicit.varying_like(jnp.zeros_like(start), parameters, inputs)
    alpha, _ = jax.lax.scan(step, alpha, inputs)
    likelihood = -jax.nn.logsumexp(alpha + leave)
    likelihood = jnp.where(is_possible, likelihood, -jnp.inf)
    return jnp.where(jnp.any(mask), likelihood, 0.0)


def _viterbi(parameters, emissions, mask):
    """The best sequence of tags [n]."""
    start, transitions, end = parameters
    same = jnp.arange(len(start))

    def forward(carry, inputs):
        best, is_started = carry
        emission, is_token = inputs
        paths = best[:, None] + transitions
        is_move = is_token & is_started
        new = jnp.where(is_started, jnp.max(paths, axis=0), start) + emission
        came_from = jnp.where(is_move, jnp.argmax(paths, axis=0), same)
        return (jnp.where(is_token, new, best), is_started | is_token), came_from

    def backward(tag, inputs):
        came_from, is_token = inputs
        return came_from[tag], jnp.where(is_token, tag, 0)

    carry = jnp.zeros_like(start), jnp.zeros((), bool)
    carry = explicit.varying_like(carry, parameters, emissions, mask)
    (best, _), came_from = jax.lax.scan(forward, carry, (emissions, mask))
    last = jnp.argmax(best + end)
    _, tags = jax.lax.scan(backward, last, (came_from, mask), reverse=True)
    return tags.astype(jnp.int32)
