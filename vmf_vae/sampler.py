r"""Samples of the von Mises-Fisher distribution, exact and differentiable.

Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018, Algorithms 1 and 2
(https://arxiv.org/abs/1804.00891): with :math:`w` from its own one-dimensional law and
:math:`\nu` uniform among the unit vectors orthogonal to :math:`\mu`,

.. math:: z = w \mu + \sqrt{1 - w^2}\, \nu .

What differs: the d normal numbers that give :math:`\nu` also give the first proposal
for :math:`w` (see `rejection`); at d = 3 :math:`\nu` is an angle and :math:`w` has a
closed form. :math:`t = 1 - w` is kept, never :math:`1 - w^2`, which has no digits left
in float32 at a concentration of 1e6. The derivative in the
concentration is implicit (see `implicit`); the one in the mean direction turns the
sample with it,

.. math:: dz = \frac{\partial w}{\partial\kappa}
               \left(\mu - \frac{w\,\nu}{\sqrt{1-w^2}}\right) d\kappa
             + (z^\top \mu)\, d\mu - (z^\top d\mu)\, \mu,

so :math:`E f(z)` has unbiased gradients in both, where the paper's accepted proposal
needs a correction. They can be differentiated again.

Example::

    >>> mu = jnp.array([0.0, 0.0, 1.0])
    >>> z = sample_vmf(jax.random.key(0), mu, 10.0, (5,))  # [5, 3]
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vmf_vae import rejection
from vmf_vae.arguments import (
    align,
    as_float,
    order_of,
    require_broadcast,
    require_concrete,
    require_directions,
    shape_of_draws,
    where_valid,
)
from vmf_vae.elementary import freely, horner, wide_dtype
from vmf_vae.implicit import follow, follow_radial
from vmf_vae.reflection import reflect, reflect_parts, reflection_matrix
from vmf_vae.rejection import RejectionInfo


def sample_vmf(
    key: jax.Array,
    mean_direction: jax.typing.ArrayLike,
    concentration: jax.typing.ArrayLike,
    shape: int | Sequence[int] = (),
) -> jax.Array:
    r"""Independent draws on the sphere, from :math:`C_d(\kappa) e^{\kappa \mu^\top z}`.

    Exact: every draw is accepted before it is returned, after 1.52 proposals on average
    at most. The same key gives the same draws; compiled as part of another function,
    one in 1e5 at most may differ, where rounding turns a decision around.

    Args:
        key: typed PRNG key, a scalar.
        mean_direction: :math:`\mu`, [..., d], unit vectors, d from 2 to 200,000; what
            they differ from unit length is divided out.
        concentration: :math:`\kappa`, [...], 0 (the uniform law) to 2e6. The leading
            shapes of both broadcast; every element of the batch has its own draw.
        shape: of the draws from each element; a number is one axis.

    Returns:
        [*shape, *batch, d], unit vectors, in the promoted dtype of both arguments
        (float16 and bfloat16 are computed in float32); nan where the concentration is
        traced and negative, or not finite. Differentiable in both, forwards and
        backwards.

    Raises:
        ValueError: if a concrete direction is not of unit norm (to 1e-3, or 3e-2 in
            half precision), d is out of range, a concrete concentration or an entry of
            `shape` is negative, or the shapes do not broadcast.
        TypeError: if `key` is no typed key, an argument is complex, or `shape` holds no
            integers.

    References:
        Davidson et al., *Hyperspherical Variational Auto-Encoders*, 2018, Algorithm 1.
        https://arxiv.org/abs/1804.00891
        Figurnov, Mohamed and Mnih, *Implicit Reparameterization Gradients*, 2018.
        https://arxiv.org/abs/1805.08498
    """
    _check_key(key)
    require_concrete("concentration", concentration, "at least 0", lambda x: x < 0)
    mean_direction = require_directions("mean_direction", mean_direction)
    concentration = as_float("concentration", concentration)
    batch = require_broadcast(mean_direction, concentration)
    shape = shape_of_draws(shape)
    drawn, _ = freely(
        lambda *arrays: (_sample(*arrays, (*shape, *batch)), None),
        *(key, mean_direction, concentration),
        like=mean_direction if mean_direction.ndim > len(batch) else None,
        leading=len(shape),
    )
    return drawn


def sample_radial(
    key: jax.Array,
    dim: int,
    concentration: jax.typing.ArrayLike,
    shape: int | Sequence[int] = (),
    *,
    complement: bool = False,
) -> jax.Array:
    r"""Draws of :math:`w = \mu^\top z`, without the rest of the vector.

    .. math:: p(w) \propto e^{\kappa w} (1 - w^2)^{(d-3)/2} .

    Args:
        key: typed PRNG key, a scalar.
        dim: :math:`d`, 2 to 200,000; static.
        concentration: :math:`\kappa`, [...], 0 to 2e6.
        shape: of the draws from each element; a number is one axis.
        complement: returns :math:`1 - w`, which has digits where w is nearly 1.

    Returns:
        [*shape, ...], dtype of `concentration` (float16 and bfloat16 are computed in
        float32, integers become the default float); nan where the concentration is
        traced and negative, or not finite. Differentiable in the concentration.

    Raises:
        ValueError: if `dim` is out of range, or a concrete concentration or an entry of
            `shape` is negative.
        TypeError: if `key` is no typed key, `dim` or an entry of `shape` no Python
            integer, or the concentration complex.

    References:
        Wood, *Simulation of the von Mises Fisher Distribution*, 1994.
        https://doi.org/10.1080/03610919408813161
    """
    drawn, _ = sample_radial_with_info(
        key, dim, concentration, shape, complement=complement
    )
    return drawn


def sample_radial_with_info(
    key: jax.Array,
    dim: int,
    concentration: jax.typing.ArrayLike,
    shape: int | Sequence[int] = (),
    *,
    complement: bool = False,
) -> tuple[jax.Array, RejectionInfo]:
    """`sample_radial`, and the number of rounds and proposals that it took.

    Args:
        key: typed PRNG key, a scalar.
        dim: d, 2 to 200,000; static.
        concentration: [...], 0 to 2e6.
        shape: of the draws from each element; a number is one axis.
        complement: returns 1 - w.

    Returns:
        The draws, [*shape, ...], and a `RejectionInfo`; at d = 3, where nothing is
        rejected, it says one round.
    """
    _check_key(key)
    order_of(dim)
    require_concrete("concentration", concentration, "at least 0", lambda x: x < 0)
    concentration = as_float("concentration", concentration)
    shape = shape_of_draws(shape)
    full = (*shape, *concentration.shape)
    return freely(
        lambda key, kappa: _sample_radial(key, dim, kappa, full, complement),
        *(key, concentration),
        like=concentration,
        leading=len(shape),
    )


@functools.partial(jax.jit, static_argnums=3)
def _sample(key, mean_direction, concentration, shape):
    dtype = jnp.result_type(mean_direction, concentration)
    wide = wide_dtype(dtype)
    mu, kappa = mean_direction.astype(wide), where_valid(concentration.astype(wide))
    mu = mu / jnp.linalg.norm(mu, axis=-1, keepdims=True)
    fixed_mu, fixed_kappa = jax.lax.stop_gradient((mu, kappa))
    if mu.ndim > 1:
        fixed_mu = jnp.broadcast_to(
            align(fixed_mu, len(shape) + 1), (*shape, mu.shape[-1])
        )
    flat_kappa = fixed_kappa
    if kappa.ndim:
        flat_kappa = jnp.broadcast_to(align(kappa, len(shape)), shape).reshape(-1)
    draw = _draw_on_the_sphere if mu.shape[-1] == 3 else _draw
    z, t = draw(key, fixed_mu, jax.lax.stop_gradient(flat_kappa), shape)
    z, _ = follow(mu, kappa, z, t)
    return z.astype(dtype)


@functools.partial(jax.jit, static_argnums=(1, 3, 4))
def _sample_radial(key, dim, concentration, shape, complement):
    wide = wide_dtype(concentration.dtype)
    kappa = where_valid(concentration.astype(wide))
    flat = jnp.broadcast_to(align(kappa, len(shape)), shape).reshape(-1)
    flat = jax.lax.stop_gradient(flat if kappa.ndim else kappa)
    n = math.prod(shape)
    if dim == 3:
        t = _invert(flat, rejection.open_uniform(key, (n,), wide))
        one, count = jnp.int32(1), jnp.int32(n)
        info = RejectionInfo(one, count, jnp.float32(1.0))
    else:
        t, info = rejection.draw(key, dim, flat, n)
    t = follow_radial(dim, kappa, t.reshape(shape))
    return (t if complement else 1.0 - t).astype(concentration.dtype), info


def _draw(key, mean_direction, concentration, shape):
    """z and t from d normal numbers each; `mean_direction` is [d] or [*shape, d]."""
    normal_key, key = jax.random.split(key)
    dim, dtype = mean_direction.shape[-1], concentration.dtype
    n = math.prod(shape)
    normal = rejection.normal(normal_key, (*shape, dim), dtype)
    if dim == 2:  # the tangent needs a sign
        normal = jnp.where(normal == 0.0, 1e-7, normal)
    first, rest = rejection.from_normal(normal)
    first = jax.tree.map(jnp.ravel, first)
    t, _ = rejection.draw(key, dim, concentration, n, first)
    t = t.reshape(shape)
    scale = jnp.sqrt(t * (2.0 - t) / rest)
    return reflect_parts(mean_direction, 1.0 - t, scale, normal), t


def _draw_on_the_sphere(key, mean_direction, concentration, shape):
    """z and t in three dimensions, from two uniform numbers each."""
    n = math.prod(shape)
    u, turn = rejection.open_uniform(key, (2, n), concentration.dtype)
    t = _invert(concentration, u)
    radius = jnp.sqrt(t * (2.0 - t))
    cosine, sine = _circle(turn)
    x = 1.0 - t, radius * cosine, radius * sine
    if mean_direction.ndim == 1:
        # Written out: on a CPU a product with a 3x3 matrix takes five times longer.
        rows = reflection_matrix(mean_direction)
        first, second, third = (
            row[None] * part[:, None] for row, part in zip(rows, x, strict=True)
        )
        z = first + second + third
        return z.reshape(*shape, 3), t.reshape(shape)
    x = jnp.stack(x, axis=-1).reshape(*shape, 3)
    return reflect(mean_direction, x), t.reshape(shape)


def _circle(turn):
    """Cosine and sine of a share of a full turn, from those of an eighth of one.

    As polynomials in float32: the compiler's functions, which are good for any
    argument, would take longer than all the rest.
    """
    quarter = jnp.floor(4.0 * turn)
    angle = (4.0 * turn - quarter - 0.5) * (0.5 * jnp.pi)
    if turn.dtype == jnp.float32:
        square = angle * angle
        sine = angle * horner((1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0), square)
        cosine = horner((1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0), square)
    else:
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
    is_odd = (quarter == 1.0) | (quarter == 3.0)
    sign = jnp.where(quarter >= 2.0, -1.0, 1.0).astype(turn.dtype)
    return (
        sign * jnp.where(is_odd, -sine, cosine),
        sign * jnp.where(is_odd, cosine, sine),
    )


def _invert(concentration, u):
    """The quantile function of t in three dimensions."""
    is_small = concentration < 1e-30
    kappa = jnp.where(is_small, 1.0, concentration)
    t = -jnp.log1p(u * jnp.expm1(-2.0 * kappa)) / kappa
    return jnp.minimum(jnp.where(is_small, 2.0 * u, t), 2.0)


def _check_key(key):
    """A typed key, and one of it."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key must be a typed PRNG key, got {dtype or type(key).__name__}; make "
            "one with jax.random.key(seed) or jax.random.wrap_key_data."
        )
    if key.shape:
        raise ValueError(
            f"key must be one key, got an array of shape {key.shape}; use jax.vmap "
            "over the keys."
        )
