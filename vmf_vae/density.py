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

from vmf_vae import debye
from vmf_vae.anchored import change_of_log_0f1
from vmf_vae.arguments import (
    elementwise,
    order_of,
    where_valid,
)
from vmf_vae.expansion import (
    log_0f1,
    log_0f1_minus_x,
    ratio,
    ratio_minus_log_0f1,
)
from vmf_vae.inverse import inverse_kl


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
    if debye.high_order(order, x.dtype)[0] == order:
        anchor = debye.anchor_of_log_normalizer(order)
        if anchor is not None:
            return -change_of_log_0f1(order, x, anchor)
    return debye.log_constant_at_zero(order) - log_0f1(order, x)


@_log_normalizer.defjvp
def _log_normalizer_jvp(order, primals, tangents):
    (x,), (dx,) = primals, tangents
    return _log_normalizer(order, x), -ratio(order, x) * dx
