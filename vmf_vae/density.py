r"""Normaliser, entropy and divergences of the von Mises-Fisher distribution.

On the unit sphere in :math:`\mathbb{R}^d`, with mean direction :math:`\mu` and
concentration :math:`\kappa`,

.. math:: p(x) = C_d(\kappa) \exp(\kappa \mu^\top x), \qquad
          C_d(\kappa) = \frac{\kappa^{d/2-1}}{(2\pi)^{d/2} I_{d/2-1}(\kappa)}

(Mardia & Jupp 2000, (9.3.4)). The divergence from the uniform law, the term that a
hyperspherical VAE pays, is :math:`\kappa A_d(\kappa) + \log C_d(\kappa) - \log C_d(0)`.
Computed like that it loses everything: at :math:`\kappa = 10^{-6}` the published
implementations are wrong by factors of 10,000,000, at :math:`10^6` in the second digit.
Here it is a sum of terms of its own size (see `expansion`), and so is :math:`\log C_d`
near its zero.

What differs from Davidson et al. (2018): nothing but the form of their (14). Xu &
Durrett's printed formula has its Bessel orders shifted by one, which is this divergence
in :math:`d + 2` dimensions.

Example::

    >>> kl_to_uniform(10, 1e-3)  # kappa^2 / (2 d)
    Array(5.e-08, dtype=float32, weak_type=True)

References:
    Davidson, Falorsi, De Cao, Kipf, Tomczak, *Hyperspherical Variational
    Auto-Encoders*, 2018, appendix B. https://arxiv.org/abs/1804.00891
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmf_vae import debye
from vmf_vae.anchored import change_of_log_0f1
from vmf_vae.arguments import (
    as_float,
    elementwise,
    order_of,
    require_concrete,
    require_directions,
    where_valid,
)
from vmf_vae.expansion import (
    high_order,
    log_0f1,
    log_0f1_minus_x,
    one_minus_ratio,
    ratio,
    ratio_minus_log_0f1,
    ratio_slope,
)
from vmf_vae.inverse import inverse_kl

# Gauss-Legendre: exact to working precision for A' over a factor of two.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


def log_normalizer(dim: int, concentration: jax.typing.ArrayLike) -> jax.Array:
    r"""Logarithm of the constant of the density, :math:`\log C_d(\kappa)`.

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        concentration: :math:`\kappa`, any shape, 0 to 2e6.

    Returns:
        Shape and dtype of `concentration` (float16 and bfloat16 are computed in
        float32); at 0 minus the logarithm of the sphere's area. nan where it is traced
        and negative, or not finite. The derivative is :math:`-A_d(\kappa)`.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `concentration`
            is negative.
        TypeError: if `dim` is no Python integer or `concentration` is complex.

    References:
        Mardia & Jupp, *Directional Statistics*, 2000, (9.3.4).
        https://doi.org/10.1002/9780470316979
    """
    return elementwise(_log_normalizer, order_of(dim), concentration)


def kl_to_uniform(dim: int, concentration: jax.typing.ArrayLike) -> jax.Array:
    r"""Divergence from the uniform law, :math:`\mathrm{KL}(\mathrm{vMF} \| U)`.

    .. math:: \kappa A_d(\kappa) + \log C_d(\kappa) - \log C_d(0)
              = \frac{\kappa^2}{2d} + O(\kappa^4).

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        concentration: :math:`\kappa`, any shape, 0 to 2e6.

    Returns:
        At least 0, shape and dtype of `concentration`; nan where it is traced and
        negative, or not finite. The derivative is :math:`\kappa A_d'(\kappa)`.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `concentration`
            is negative.
        TypeError: if `dim` is no Python integer or `concentration` is complex.

    References:
        Davidson et al., 2018, eq. (14). https://arxiv.org/abs/1804.00891
    """
    return elementwise(ratio_minus_log_0f1, order_of(dim), concentration)


def entropy(dim: int, concentration: jax.typing.ArrayLike) -> jax.Array:
    r"""Differential entropy, :math:`-\log C_d(\kappa) - \kappa A_d(\kappa)`.

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        concentration: :math:`\kappa`, any shape, 0 to 2e6.

    Returns:
        In nats, shape and dtype of `concentration`: the logarithm of the sphere's area
        minus the divergence from the uniform law.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `concentration`
            is negative.
        TypeError: if `dim` is no Python integer or `concentration` is complex.

    References:
        Mardia & Jupp, *Directional Statistics*, 2000, section 9.3.2.
        https://doi.org/10.1002/9780470316979
    """

    def compute(order, x):
        return -debye.log_constant_at_zero(order) - ratio_minus_log_0f1(order, x)

    return elementwise(compute, order_of(dim), concentration)


def concentration_for_kl(dim: int, kl: jax.typing.ArrayLike) -> jax.Array:
    r"""The concentration whose divergence from the uniform law is given.

    Newton's method in :math:`\log\kappa`, from a side on which no step overshoots.

    Args:
        dim: :math:`d`, 2 to 200,000; static.
        kl: in nats, any shape, at least 0.

    Returns:
        :math:`\kappa`, shape and dtype of `kl`; nan where it is traced and negative, or
        not finite, inf where the answer exceeds the dtype. The derivative is
        :math:`1 / (\kappa A_d')`, infinite at 0.

    Raises:
        ValueError: if `dim` is out of range or an entry of a concrete `kl` is negative.
        TypeError: if `dim` is no Python integer or `kl` is complex.

    References:
        Xu & Durrett, *Spherical Latent Spaces for Stable Variational Autoencoders*,
        2018, section 3.2, fix the divergence by the concentration.
        https://arxiv.org/abs/1808.10805
    """
    return elementwise(inverse_kl, order_of(dim), kl, name="kl")


def kl(
    mean_direction_p: jax.typing.ArrayLike,
    concentration_p: jax.typing.ArrayLike,
    mean_direction_q: jax.typing.ArrayLike,
    concentration_q: jax.typing.ArrayLike,
) -> jax.Array:
    r"""Divergence between two von Mises-Fisher distributions.

    .. math:: \mathrm{KL}(p \| q) = \log\frac{C_d(\kappa_p)}{C_d(\kappa_q)}
              + A_d(\kappa_p) (\kappa_p - \kappa_q \mu_p^\top \mu_q),

    computed as the Bregman divergence of :math:`-\log C_d` between the concentrations,
    plus :math:`\kappa_q A_d(\kappa_p) |\mu_p - \mu_q|^2 / 2`: two terms that are not
    negative and vanish as they should.

    Args:
        mean_direction_p: :math:`\mu_p`, [..., d], unit vectors.
        concentration_p: :math:`\kappa_p`, [...], 0 to 2e6.
        mean_direction_q: :math:`\mu_q`, [..., d], unit vectors.
        concentration_q: :math:`\kappa_q`, [...], 0 to 2e6.

    Returns:
        [...], the four leading shapes broadcast, in the widest dtype of the four.

    Raises:
        ValueError: if a direction has no axis of 2 to 200,000 entries, if the two
            differ in it or are concrete and not of unit norm, or if an entry of a
            concrete concentration is negative.
        TypeError: if an argument is complex.

    References:
        Diethe, *A Note on the Kullback-Leibler Divergence for the von Mises-Fisher
        Distribution*, 2015, eq. (2). https://arxiv.org/abs/1502.07104
    """
    p = require_directions("mean_direction_p", mean_direction_p)
    q = require_directions("mean_direction_q", mean_direction_q)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            "mean_direction_p and mean_direction_q must have the same last axis, got "
            f"shapes {p.shape} and {q.shape}."
        )
    order = order_of(p.shape[-1])
    numbers = []
    for name, x in (("p", concentration_p), ("q", concentration_q)):
        require_concrete(f"concentration_{name}", x, "at least 0", lambda x: x < 0)
        numbers.append(as_float(f"concentration_{name}", x))
    dtype = jnp.result_type(p, q, *numbers)
    wide = jnp.promote_types(dtype, jnp.float32)
    p, q, kappa_p, kappa_q = (x.astype(wide) for x in (p, q, *numbers))
    shape = jnp.broadcast_shapes(
        p.shape[:-1], q.shape[:-1], kappa_p.shape, kappa_q.shape
    )
    full = (*shape, p.shape[-1])
    apart = one_minus_dot(jnp.broadcast_to(p, full), jnp.broadcast_to(q, full))
    kappa_p, kappa_q = (
        jnp.broadcast_to(where_valid(x), shape) for x in (kappa_p, kappa_q)
    )
    turned = kappa_q * ratio(order, kappa_p) * apart
    return (_bregman(order, kappa_q, kappa_p) + turned).astype(dtype)


def log_density(
    mean_direction: jax.Array, concentration: jax.Array, x: jax.Array
) -> jax.Array:
    r"""Log density, as :math:`(\log C_d + \kappa) - \kappa (1 - \mu^\top x)`.

    Args:
        mean_direction: [..., d], float32 or wider, unit vectors.
        concentration: [...], same dtype.
        x: [..., d], same dtype, unit vectors.

    Returns:
        [...], the leading shapes broadcast.
    """
    order = order_of(x.shape[-1])
    shape = jnp.broadcast_shapes(
        x.shape[:-1], mean_direction.shape[:-1], concentration.shape
    )
    full = (*shape, x.shape[-1])
    kappa = jnp.broadcast_to(where_valid(concentration), shape)
    peak = debye.log_constant_at_zero(order) - log_0f1_minus_x(order, kappa)
    mu, x = jnp.broadcast_to(mean_direction, full), jnp.broadcast_to(x, full)
    return peak - kappa * one_minus_dot(mu, x)


@jax.custom_jvp
def one_minus_dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """1 - a.b of unit vectors as |a - b|^2 / 2, with all digits where they are close.

    Args:
        a: [..., d], unit vectors.
        b: same shape.

    Returns:
        [...]; the derivatives are those of 1 - a.b.
    """
    return 0.5 * jnp.sum(jnp.square(a - b), axis=-1)


@one_minus_dot.defjvp
def _one_minus_dot_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    return one_minus_dot(a, b), -jnp.sum(a * db + da * b, axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _log_normalizer(order: float, x: jax.Array) -> jax.Array:
    if high_order(order, x.dtype)[0] == order:
        anchor = debye.anchor_of_log_normalizer(order)
        if anchor is not None:
            return -change_of_log_0f1(order, x, anchor)
    return debye.log_constant_at_zero(order) - log_0f1(order, x)


@_log_normalizer.defjvp
def _log_normalizer_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return _log_normalizer(order, x), -ratio(order, x) * dx


def _bregman(order: float, to: jax.Array, at: jax.Array) -> jax.Array:
    """log M(to) - log M(at) - A(at) (to - at), at least 0.

    Nearby it is the integral of (to - t) A'(t), by quadrature: nothing cancels there.
    """
    step = to - at
    is_near = jnp.abs(step) < 0.5 * jnp.maximum(to, at)
    near_step = jnp.where(is_near, step, 0.0)
    near = jnp.zeros_like(step)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        slope = ratio_slope(order, at + 0.5 * float(1.0 + node) * near_step)
        near += 0.25 * float(weight * (1.0 - node)) * slope
    unscaled = log_0f1(order, to) - log_0f1(order, at) - ratio(order, at) * step
    scaled = log_0f1_minus_x(order, to) - log_0f1_minus_x(order, at)
    scaled += one_minus_ratio(order, at) * step
    is_large = jnp.minimum(to, at) > 2.0 * order + 2.0
    far = jnp.where(is_large, scaled, unscaled)
    return jnp.where(is_near, near * jnp.square(near_step), far)
