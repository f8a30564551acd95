r"""The accept-reject law of the first coordinate of a von Mises-Fisher sample.

The proposal of Ulrich (1984) and Wood (1994) is the image of the *uniform* law on the
sphere under a Moebius map. With :math:`y` the first coordinate of a uniform unit vector,

.. math:: t = 1 - w = \frac{(1 - x_0)(1 - y)}{1 + x_0 y}, \qquad
          x_0 = \frac{r}{1 + \sqrt{1 + r^2}}, \quad r = \frac{2\kappa}{d - 1},

and the proposal is accepted with probability

.. math:: \left(\frac{e^{s / (1 + s)}}{1 + s}\right)^{d - 1}, \qquad s = x_0 y,

which depends on nothing but :math:`s` and has its largest value, 1, at 0: Wood's three
logarithms in :math:`\kappa` cancel to this. At least 0.6577 of the proposals are accepted
for any dimension and concentration (0.7071 for a large dimension).

What differs from published samplers: only :math:`t` is kept, and :math:`1 \pm y` are
computed without subtraction, so float32 has its digits at :math:`w \to 1`; :math:`x_0` is
exact for every concentration (s-vae-pytorch puts :math:`(d-1)/(4\kappa)` for Wood's b
above 11, whatever d, and draws from another law when :math:`d \gg \kappa`); the loop runs
until every sample is accepted, on ever smaller arrays of what is missing, and ends for a
concentration that is nan.

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

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Of what is missing, at most 0.3423 is expected to be missing after another round.
SHRINKAGE = 0.35
SMALLEST = 2048


class RejectionInfo(NamedTuple):
    """What a call of the sampler cost.

    Attributes:
        rounds: number of times that a proposal was made for what was missing, int32
            scalar, the first included.
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


class _Pending(NamedTuple):
    """Samples of which some are missing."""

    t: jax.Array
    is_missing: jax.Array
    rounds: jax.Array
    proposals: jax.Array


def moebius(dim: int, concentration: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""The parameter of the Moebius map behind the proposal.

    Args:
        dim: :math:`d`, at least 2.
        concentration: :math:`\kappa`, any shape.

    Returns:
        :math:`x_0` and :math:`1 - x_0`, neither with cancellation.
    """
    r = concentration * (2.0 / (dim - 1))
    root = jnp.sqrt(1.0 + r * r)
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
    """
    dtype = concentration.dtype
    first_key, accept_key, key = jax.random.split(key, 3)
    if first is None:
        first = from_uniform(dim, *open_uniform(first_key, (2, n), dtype))
    u = open_uniform(accept_key, (n,), dtype)
    t, is_missing = _propose(dim, concentration, first, u)
    state = _Pending(t, is_missing, jnp.int32(1), jnp.int32(n))
    elements = jnp.arange(n, dtype=jnp.uint32)
    state = _complete(key, dim, concentration, elements, state)
    rate = jnp.float32(n) / jnp.maximum(state.proposals, 1) if n else jnp.float32(1.0)
    return state.t, RejectionInfo(state.rounds, state.proposals, rate)


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


def _complete(
    key: jax.Array,
    dim: int,
    concentration: jax.Array,
    elements: jax.Array,
    state: _Pending,
) -> _Pending:
    """Draws again what is missing, on smaller arrays as soon as it fits."""
    n = elements.size
    size = int(SHRINKAGE * n) + 64 if n > SMALLEST else 0

    def draw_again(state):
        round_key = jax.random.fold_in(key, state.rounds)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(round_key, elements)
        dtype = state.t.dtype
        radius, turn, u = jax.vmap(lambda k: open_uniform(k, (3,), dtype))(keys).T
        y = from_uniform(dim, radius, turn)
        t, is_rejected = _propose(dim, concentration, y, u)
        return _Pending(
            jnp.where(state.is_missing, t, state.t),
            state.is_missing & is_rejected,
            state.rounds + 1,
            state.proposals + jnp.sum(state.is_missing, dtype=jnp.int32),
        )

    def is_too_many(state):
        return jnp.sum(state.is_missing, dtype=jnp.int32) > size

    state = jax.lax.while_loop(is_too_many, draw_again, state)
    if not size:
        return state
    (slots,) = jnp.nonzero(state.is_missing, size=size, fill_value=n)
    part = state._replace(
        t=jnp.zeros(size, state.t.dtype),
        is_missing=jnp.arange(size) < jnp.sum(state.is_missing),
    )
    part_concentration = concentration[slots] if concentration.ndim else concentration
    part = _complete(key, dim, part_concentration, elements[slots], part)
    t = state.t.at[slots].set(part.t, mode="drop")
    return part._replace(t=t, is_missing=jnp.zeros_like(state.is_missing))
