r"""The largest singular value of a matrix, with derivatives that stay finite.

The first derivative of :math:`\sigma = \|A\|_2` is :math:`u v^\top`, with the singular
vectors of :math:`\sigma`. The second needs the derivatives of `u` and `v`, and those of
`jnp.linalg.svd` divide by the gaps between *all* singular values: nan for a matrix with
two equal ones, such as the Jacobian of a layer with two dead units. The gaps to
:math:`\sigma` itself are enough, and only they are used here.

Example::

    >>> jax.hessian(spectral_norm)(jnp.diag(jnp.array([2.0, 1.0, 1.0]))).shape
    (3, 3, 3, 3)

References:
    Stewart & Sun, *Matrix Perturbation Theory*, 1990, chapter V.
    https://search.worldcat.org/isbn/9780126702309
"""

import jax
import jax.numpy as jnp

from expkit import explicit


@jax.custom_jvp
def spectral_norm(a: jax.Array) -> jax.Array:
    r"""The largest singular value, :math:`\|A\|_2 = \max_{|v| = 1} |A v|`.

    Args:
        a: [m, n], float32 or wider.

    Returns:
        Scalar. Two derivatives are exact where the largest singular value is simple;
        elsewhere the first is one of the subgradients, and 0 at a matrix of zeros.
    """
    return jnp.linalg.svd(explicit.whole(a), compute_uv=False)[0]


@spectral_norm.defjvp
def _spectral_norm_jvp(primals, tangents):
    value = spectral_norm(*primals)
    _, tangent = jax.jvp(_squared_spectral_norm, primals, tangents)
    return value, 0.5 * _divide(tangent, value)


def _squared_spectral_norm(a):
    r"""The Rayleigh quotient of :math:`A^\top A` at its top vector.

    The vector has the right first derivative, and so the quotient has the right third.
    """
    # The point of the expansion: a constant for every order of differentiation.
    a = explicit.whole(a)
    _, s, vectors = jnp.linalg.svd(jax.lax.stop_gradient(a), full_matrices=False)
    v, rest = vectors[0], vectors[1:]
    gaps = s[0] ** 2 - s[1:] ** 2
    gaps = jnp.where(gaps > jnp.finfo(s.dtype).eps * s[0] ** 2, gaps, 0.0)
    image = a.T @ (a @ v)
    change = image - jax.lax.stop_gradient(image)  # 0, but for its derivative
    inside = rest @ change
    outside = change - v * (v @ change) - inside @ rest
    v = v + _divide(inside, gaps) @ rest + _divide(outside, s[0] ** 2)
    image = a @ v
    return (image @ image) / (v @ v)


def _divide(a, b):
    """The quotient where b > 0, and 0 elsewhere."""
    is_safe = b > 0.0
    return jnp.where(is_safe, a / jnp.where(is_safe, b, 1.0), 0.0)
