r"""The implicit gradient of a von Mises-Fisher sample in its concentration.

A sample is :math:`z = w \mu + \sqrt{1 - w^2}\, \nu`, and only :math:`w` depends on the
concentration. Whatever made the draw, its distribution function :math:`F(w; \kappa)`
says how it moves when its quantile stays (Figurnov et al. 2018, eq. 5):

.. math:: \frac{dw}{d\kappa} = -\frac{\partial F / \partial \kappa}{p(w)}
          = \frac{1}{p(w)} \int_w^1 (s - A_d(\kappa))\, p(s)\, ds .

What differs from Davidson et al. 2018, who differentiate the accepted proposal and need
a score-function correction for the accept step (Naesseth et al. 2017; published code
omits it, and is then biased: -13 % at d = 5, concentration 2): the gradient above is
exact, needs no value of the integrated function and has less variance. The integral is
computed only when a derivative is asked for.

The quadrature is in the half-angle of the proposal of `sampler`, where the density has
width :math:`1/\sqrt{d-1}` for every concentration: Gauss-Legendre over the tail that
does not contain the mean, where the integrand has one sign, so nothing cancels. The
result is divided by :math:`1 - w^2`, which leaves it finite at both poles.

Example::

    >>> slope_over_sine2(3, jnp.float32(0.0), jnp.float32(0.5))  # 1/2 for all t
    Array(0.5, dtype=float32)

References:
    Figurnov, Mohamed and Mnih, *Implicit Reparameterization Gradients*, 2018.
    https://arxiv.org/abs/1805.08498
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from vmf_vae.arguments import align
from vmf_vae.expansion import one_minus_ratio
from vmf_vae.rejection import moebius


@functools.partial(jax.jit, static_argnums=0)
def slope_over_sine2(dim: int, concentration: jax.Array, t: jax.Array) -> jax.Array:
    r"""How a first coordinate moves with the concentration, over one minus its square.

    .. math:: g = \frac{1}{1 - w^2} \frac{dw}{d\kappa}, \qquad w = 1 - t .

    Positive, and finite at both poles: :math:`(1 - A_d) / (d - 1)` at :math:`t = 0`.

    Args:
        dim: :math:`d`, at least 2.
        concentration: :math:`\kappa \ge 0`, any shape that broadcasts with `t`.
        t: :math:`1 - w`, from 0 to 2, float32 or wider.

    Returns:
        Shape of `concentration` and `t` together, dtype of `t`. Relative error in
        float64 1e-7, in float32 1e-4 up to d = 768.
    """
    if dim == 3:
        return _slope_on_the_sphere(concentration, t)
    return _slope_by_quadrature(dim, concentration, t)


@jax.custom_jvp
def follow(
    mean_direction: jax.Array, concentration: jax.Array, z: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""Makes given samples move with the parameters they were drawn from.

    .. math:: dz = g \left((1 - w^2)\, \mu - w \sqrt{1-w^2}\, \nu\right) d\kappa
                 + w\, d\mu - (z^\top d\mu)\, \mu, \qquad dt = -g\, (1-w^2)\, d\kappa,

    with g of `slope_over_sine2`. The second term turns z as the mean direction turns.

    Args:
        mean_direction: :math:`\mu`, [..., d], unit vectors.
        concentration: :math:`\kappa`, [...].
        z: samples, [*shape, d]; the leading shapes of the first two broadcast to
            `shape`. Its own derivative is not passed on.
        t: :math:`1 - w`, [*shape], as `z`.

    Returns:
        `z` and `t`.
    """
    del mean_direction, concentration
    return z, t


@functools.partial(follow.defjvp, symbolic_zeros=True)
def _follow_jvp(primals, tangents):
    mean_direction, concentration, _, t = primals
    d_mean, d_concentration, _, _ = tangents
    z, t = follow(*primals)
    mu = jnp.broadcast_to(align(mean_direction, z.ndim), z.shape)
    dz, dt = jnp.zeros_like(z), jnp.zeros_like(t)
    if not isinstance(d_mean, SymbolicZero):
        d_mean = jnp.broadcast_to(align(d_mean, z.ndim), z.shape)
        dz = (1.0 - t)[..., None] * d_mean - _dot(z, d_mean) * mu
    if not isinstance(d_concentration, SymbolicZero):
        kappa, d_kappa = (align(k, t.ndim) for k in (concentration, d_concentration))
        slope = slope_over_sine2(z.shape[-1], kappa, t) * d_kappa
        dt = -slope * t * (2.0 - t)
        # Small next to z at a large concentration, and orthogonal to mu as it should.
        across = z - mu
        across = across - _dot(across, mu) * mu
        dz += -dt[..., None] * mu - (slope * (1.0 - t))[..., None] * across
    return (z, t), (dz, dt)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def follow_radial(dim: int, concentration: jax.Array, t: jax.Array) -> jax.Array:
    """`follow` for the first coordinate alone.

    Args:
        dim: d, at least 2.
        concentration: [...].
        t: 1 - w, [*shape]; the shape of `concentration` broadcasts to it. Its own
            derivative is not passed on.

    Returns:
        `t`.
    """
    del dim, concentration
    return t


@follow_radial.defjvp
def _follow_radial_jvp(dim, primals, tangents):
    t = follow_radial(dim, *primals)
    kappa, d_kappa = (align(k, t.ndim) for k in (primals[0], tangents[0]))
    return t, -slope_over_sine2(dim, kappa, t) * t * (2.0 - t) * d_kappa


def _dot(x, y):
    """Products over the last axis, which stays with size 1."""
    return jnp.sum(x * y, axis=-1, keepdims=True)


def _slope_by_quadrature(dim: int, concentration: jax.Array, t: jax.Array) -> jax.Array:
    r"""Integrates from the sample towards the pole on its side of the mean.

    With :math:`\varphi` the angle of the proposal's :math:`y = \cos\varphi`,
    :math:`\tau` the mean of :math:`t`, and :math:`G` the logarithm of the acceptance
    probability,

    .. math:: g = \frac{1}{\sin\varphi} \int \left|\tau - t(\varphi')\right|
        \left(\frac{\sin\varphi'}{\sin\varphi}\right)^{d-2} e^{G(\varphi') - G(\varphi)}
        d\varphi' .

    The variable is :math:`v = \tan(\varphi/2)`, or beyond the mean of the supplement's
    half; every difference in the exponent is a product of differences of v.
    """
    is_float32 = t.dtype == jnp.float32
    mean = one_minus_ratio(0.5 * dim - 1.0, concentration)
    mean, pull, gap, t = jnp.broadcast_arrays(mean, *moebius(dim, concentration), t)
    is_near = t < mean  # the tail holds the pole w = 1

    # 1 + x_0 y is `(numerator at v^2) / (1 + v^2)`.
    constant = jnp.where(is_near, gap + 2.0 * pull, gap)
    linear = jnp.where(is_near, gap, gap + 2.0 * pull)
    v2 = _ratio(is_near, t * (1.0 + pull), (2.0 - t) * gap)
    start = constant + linear * v2
    reach = _reach(dim, v2, 16.0 if is_float32 else 30.0)

    def add_height(total, node_and_weight):
        node, weight = node_and_weight
        step = reach * node  # from v to v (1 - step)
        at2 = v2 * (1.0 - step) ** 2
        size = constant + linear * at2
        t_at = 2.0 * gap * jnp.where(is_near, at2, 1.0) / size
        log_sine = jnp.log1p(-step * (1.0 - v2 * (1.0 - step)) / (1.0 + at2))
        change = jnp.where(is_near, 2.0, -2.0) * pull * v2 * step * (2.0 - step)
        log_accept = change / (start * size) - jnp.log1p(change / (start * (1.0 + at2)))
        exponent = (dim - 2) * log_sine + (dim - 1) * log_accept
        height = jnp.abs(mean - t_at) / (1.0 + at2) * jnp.exp(exponent)
        return total + weight * height, None

    rule = jnp.asarray(_legendre(20 if is_float32 else 28), t.dtype).T
    total, _ = jax.lax.scan(add_height, jnp.zeros_like(t), rule, unroll=4)
    return total * reach * (1.0 + v2)


def _reach(dim: int, v2: jax.Array, exponent: float) -> jax.Array:
    """The share of the way to the pole beyond which the integrand is below e^-exponent.

    It uses the sine's factor alone: log of it <= -s (1 - v^2 + v^2 s) / (1 + v^2).
    """
    if dim == 2:
        return jnp.ones_like(v2)
    fall = exponent * (1.0 + v2) / (dim - 2)
    slope = jnp.maximum(1.0 - v2, 0.0)
    return jnp.minimum(1.0, 2.0 * fall / (slope + jnp.sqrt(slope**2 + 4.0 * v2 * fall)))


def _slope_on_the_sphere(concentration: jax.Array, t: jax.Array) -> jax.Array:
    r"""The closed form at d = 3, from :math:`F = \mathrm{expm1}(-\kappa t) / \ldots`.

    With :math:`a = \kappa t` and :math:`b = \kappa (2 - t)`,

    .. math:: g = \frac{(1 - e^{-b}) / b - e^{-b} (1 - e^{-a}) / a}{1 - e^{-2\kappa}}
               = \int_0^1 e^{-\kappa w r}
                 \frac{\sinh(\kappa (1 - r))}{\sinh \kappa}\, dr .

    The fraction cancels for small concentrations, where the integral is used.
    """
    concentration, t = jnp.broadcast_arrays(concentration, t)
    is_small = concentration < 0.5
    large = jnp.where(is_small, 0.5, concentration)
    a, b = large * t, large * (2.0 - t)
    above = _mean_decay(b) - jnp.exp(-b) * _mean_decay(a)
    fraction = above / -jnp.expm1(-2.0 * large)

    small = jnp.where(is_small, concentration, 0.5)
    w = 1.0 - t

    def sinh_over(x2):  # sinh(x) / x
        return 1.0 + x2 / 6.0 * (1.0 + x2 / 20.0 * (1.0 + x2 / 42.0))

    def height(node):
        rest = 1.0 - node
        sines = rest * sinh_over((small * rest) ** 2) / sinh_over(small**2)
        return jnp.exp(-small * w * node) * sines

    integral = sum(weight * height(node) for node, weight in _legendre(5).T.tolist())
    return jnp.where(is_small, integral, fraction)


def _mean_decay(x: jax.Array) -> jax.Array:
    """(1 - e^-x) / x for x >= 0."""
    safe = jnp.where(x == 0.0, 1.0, x)
    return jnp.where(x == 0.0, 1.0, -jnp.expm1(-safe) / safe)


def _ratio(is_first: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """x / y or y / x, without dividing by a zero that is not chosen."""
    return jnp.where(is_first, x, y) / jnp.where(is_first, y, x)


@functools.cache
def _legendre(order: int) -> np.ndarray:
    """Gauss-Legendre nodes and weights on [0, 1], [2, order]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return np.stack([0.5 * (nodes + 1.0), 0.5 * weights])
