r"""The accept-reject law of the first coordinate of a von Mises-Fisher sample.

The proposal of Ulrich (1984) and Wood (1994) is the image of the *uniform* law on the
sphere under a Moebius map. With :math:`y` the first coordinate of a uniform vector,

.. math:: t = 1 - w = \frac{(1 - x_0)(1 - y)}{1 + x_0 y}, \qquad
          x_0 = \frac{r}{1 + \sqrt{1 + r^2}}, \quad r = \frac{2\kappa}{d - 1},

and the proposal is accepted with probability

.. math:: \left(\frac{e^{s / (1 + s)}}{1 + s}\right)^{d - 1}, \qquad s = x_0 y,

which depends on nothing but :math:`s` and has its largest value, 1, at 0: Wood's three
logarithms in :math:`\kappa` cancel to this. At least 0.6577 of the proposals are
accepted for any dimension and concentration (0.7071 for a large dimension).

What differs from published samplers: only :math:`t` is kept, and :math:`1 \pm y` are
computed without subtraction, so float32 has its digits at :math:`w \to 1`;
:math:`x_0` is exact for every concentration (s-vae-pytorch puts :math:`(d-1)/(4\kappa)`
for Wood's b above 11, whatever d, and draws from another law when
:math:`d \gg \kappa`); the loop runs until every sample is accepted, on a short array of
what is missing, and ends for a concentration that is nan.

The random numbers of a later round belong to the element, not to its place among the
missing: if rounding turns one decision around, no other sample changes.

Example::

    >>> t, info = draw(jax.random.key(0), 10, jnp.float32(5.0), 1000)

References:
    Wood, *Simulation of the von Mises Fisher Distribution*, 1994.
    https://doi.org/10.1080/03610919408813161
    Ulrich, *Computer Generation of Distributions on the m-Sphere*, 1984.
    https://doi.org/10.2307/2347441
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmf_vae.elementary import secant, vary_like

# How many of the missing are served at once: this share of all samples, but not fewer
# than so many.
PARTS = 16
SMALLEST = 1024
# Proposals are counted in int32; there are 1.52 a sample on average.
MAX_SAMPLES = 2**30
# Below it, a row is too short a loop for the compiler to vectorise the generator.
SHORT_ROW = 32


class RejectionInfo(NamedTuple):
    """What a call of the sampler cost.

    Attributes:
        rounds: number of times that a proposal was made for what was missing, int32
            scalar, the first included; counted to 32 for 2^27 samples.
        proposals: proposals made for all samples together, int32 scalar.
        acceptance_rate: samples per proposal, float32 scalar; 1 for no samples.
    """

    rounds: jax.Array
    proposals: jax.Array
    acceptance_rate: jax.Array


class Uniform(NamedTuple):
    """First coordinates y of uniform unit vectors.

    Attributes:
        below: 1 - y, [n].
        above: 1 + y, [n].
    """

    below: jax.Array
    above: jax.Array


class _Stack(NamedTuple):
    """Samples, and tickets of those that are missing.

    A ticket is the element in its low bits and the rounds so far in the others.

    Attributes:
        t: the samples, [n].
        tickets: [n], of which the first `length` count.
        length: number of samples missing.
        proposals: made so far.
        last: highest ticket served.
        turns: of the loop so far.
    """

    t: jax.Array
    tickets: jax.Array
    length: jax.Array
    proposals: jax.Array
    last: jax.Array
    turns: jax.Array


def moebius(dim: int, concentration: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""The parameter of the Moebius map behind the proposal.

    Args:
        dim: :math:`d`, at least 2.
        concentration: :math:`\kappa`, any shape.

    Returns:
        :math:`x_0` and :math:`1 - x_0`, neither with cancellation.
    """
    r = concentration * (2.0 / (dim - 1))
    root = secant(r)
    return r / (1.0 + root), 2.0 / (1.0 + r + root)


def from_normal(z: jax.Array) -> tuple[Uniform, jax.Array]:
    """The first coordinate of normal vectors divided by their length.

    Args:
        z: [..., d], standard normal.

    Returns:
        The coordinates, [...], and the squared lengths of the rest, [...].
    """
    is_first = jnp.broadcast_to(jnp.arange(z.shape[-1]) == 0, z.shape)
    rest = jnp.sum(jnp.where(is_first, 0.0, z * z), axis=-1)
    first = z[..., 0]
    length = jnp.sqrt(first * first + rest)
    far = length + jnp.abs(first)
    near = rest / far  # length - |first|
    is_positive = first > 0.0
    below = jnp.where(is_positive, near, far) / length
    return Uniform(below, jnp.where(is_positive, far, near) / length), rest


def from_uniform(dim: int, radius: jax.Array, turn: jax.Array) -> Uniform:
    r"""The first coordinate of a uniform vector from two uniform numbers.

    .. math:: y = \sqrt{1 - u^{2/(d-2)}} \cos(\pi v) .

    Args:
        dim: d, at least 2.
        radius: u, in (0, 1); not used in the plane.
        turn: v, in (0, 1), shape of `radius`.

    Returns:
        The coordinates.
    """
    half = 0.5 * jnp.pi * turn
    below, above = 2.0 * jnp.sin(half) ** 2, 2.0 * jnp.cos(half) ** 2
    if dim == 2:
        return Uniform(below, above)
    exponent = jnp.log(radius) * (2.0 / (dim - 2))
    length = jnp.sqrt(-jnp.expm1(exponent))
    rest = jnp.exp(exponent) / (1.0 + length)  # 1 - length
    return Uniform(rest + length * below, rest + length * above)


def open_uniform(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Uniform numbers in the middle of their grid cells, so never 0 and never 1.

    Args:
        key: typed PRNG key.
        shape: of the result.
        dtype: of the result.

    Returns:
        In (0, 1).
    """
    return jax.random.uniform(key, shape, dtype) + 0.5 * jnp.finfo(dtype).eps


def normal(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Normal numbers; short rows are generated as one long one.

    Args:
        key: typed PRNG key.
        shape: of the result, with at least one axis.
        dtype: of the result.

    Returns:
        Independent standard normal numbers.
    """
    if shape[-1] >= SHORT_ROW:
        return jax.random.normal(key, shape, dtype)
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return jax.lax.optimization_barrier(flat).reshape(shape)


def draw(
    key: jax.Array,
    dim: int,
    concentration: jax.Array,
    n: int,
    first: Uniform | None = None,
) -> tuple[jax.Array, RejectionInfo]:
    """Draws t = 1 - w until all are accepted.

    Args:
        key: typed PRNG key.
        dim: at least 2.
        concentration: [] or [n], at least 0 or nan.
        n: number of samples.
        first: the first proposal, [n]; None draws it.

    Returns:
        t, [n], nan where the concentration is, and what it cost.

    Raises:
        ValueError: if `n` is above 2^30.
    """
    if n > MAX_SAMPLES:
        raise ValueError(
            f"shape must make at most {MAX_SAMPLES:,} draws in one call, got {n:,}; "
            "split the key and draw in parts."
        )
    dtype = concentration.dtype
    first_key, accept_key, key = jax.random.split(key, 3)
    if first is None:
        first = from_uniform(dim, *open_uniform(first_key, (2, n), dtype))
    u = open_uniform(accept_key, (n,), dtype)
    t, is_missing = _propose(dim, concentration, first, u)
    if not n:
        return t, RejectionInfo(jnp.int32(0), jnp.int32(0), jnp.float32(1.0))
    (missing,) = jnp.nonzero(is_missing, size=n, fill_value=0)
    stack = _Stack(
        t,
        tickets=missing.astype(jnp.uint32),
        length=jnp.sum(is_missing, dtype=jnp.int32),
        proposals=jnp.int32(n),
        last=jnp.uint32(0),
        turns=jnp.uint32(0),
    )
    stack = vary_like(stack, t)
    serve = functools.partial(_serve, key, dim, concentration)
    stack = jax.lax.while_loop(lambda stack: stack.length > 0, serve, stack)
    rounds = (stack.last >> _element_bits(n)).astype(jnp.int32) + 1
    rate = jnp.float32(n) / stack.proposals.astype(jnp.float32)
    return stack.t, RejectionInfo(rounds, stack.proposals, rate)


def _serve(key: jax.Array, dim: int, concentration: jax.Array, stack: _Stack) -> _Stack:
    """Draws again for the top of the stack, and puts back who is rejected."""
    n, dtype, bits = stack.t.size, stack.t.dtype, _element_bits(stack.t.size)
    size = max(min(n, SMALLEST), n // PARTS)
    start = jnp.maximum(stack.length - size, 0)
    is_served = start + jnp.arange(size) < stack.length
    ticket = jax.lax.dynamic_slice(stack.tickets, (start,), (size,))
    element = (ticket & jnp.uint32(2**bits - 1)).astype(jnp.int32)
    ticket += jnp.uint32(2**bits)
    key = _key_of_turn(key, stack.turns, bits)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ticket)
    radius, turn, u = jax.vmap(lambda k: open_uniform(k, (3,), dtype))(keys).T
    if concentration.ndim:
        concentration = concentration[element]
    t, is_rejected = _propose(dim, concentration, from_uniform(dim, radius, turn), u)
    is_back = is_served & is_rejected
    place = jnp.cumsum(is_back, dtype=jnp.int32)
    back = jnp.zeros_like(ticket)
    back = back.at[jnp.where(is_back, place - 1, size)].set(ticket, mode="drop")
    accepted = jnp.where(is_served & ~is_rejected, element, n)
    return _Stack(
        t=stack.t.at[accepted].set(t, mode="drop"),
        tickets=jax.lax.dynamic_update_slice(stack.tickets, back, (start,)),
        length=start + place[-1],
        proposals=stack.proposals + jnp.sum(is_served, dtype=jnp.int32),
        last=jnp.maximum(stack.last, jnp.max(jnp.where(is_served, ticket, 0))),
        turns=stack.turns + 1,
    )


def _key_of_turn(key: jax.Array, turn: jax.Array, bits: int) -> jax.Array:
    """The key of a turn of the loop, another one before a ticket can come back."""
    # A turn serves an element once at most, and counts in the other bits of its ticket.
    epoch = turn >> min(32 - bits, 31)
    return jnp.where(epoch > 0, jax.random.fold_in(key, epoch), key)


def _element_bits(n: int) -> int:
    """Bits that hold the number of an element."""
    return (n - 1).bit_length()


def _propose(
    dim: int, concentration: jax.Array, y: Uniform, u: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """t and whether it is rejected; nan is not."""
    pull, gap = moebius(dim, concentration)
    s = 0.5 * pull * (y.above - y.below)
    size = gap + pull * y.above  # 1 + s
    log_size = jnp.where(s < -0.5, jnp.log(size), jnp.log1p(s))
    log_accept = (dim - 1) * (s / size - log_size)
    t = jnp.minimum(gap * y.below / size, 2.0)
    return t, u > jnp.exp(log_accept)
