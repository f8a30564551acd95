"""Sharpness of a minimum: the largest eigenvalue of the Hessian, by Lanczos."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree


def largest_eigenvalue(
    loss_fn: Callable[..., jax.Array], params: Any, *args: Any, rtol: float = 1e-4
) -> float:
    r"""Largest eigenvalue of the Hessian of a loss in its parameters.

    .. math:: \lambda_{\max}(\nabla_\theta^2 L(\theta)),

    the most positive one, also where others are larger in size. It takes some tens of
    Hessian-vector products; they are compiled once for a `loss_fn` and shapes, so keep
    the function and pass data and parameters as arguments.

    Args:
        loss_fn: `(params, *args) -> scalar`, hashable, twice differentiable.
        params: real floating-point array, or pytree of them.
        *args: pytrees of arrays, not differentiated.
        rtol: relative accuracy asked of the iteration; products in float32 do not
            support much less than the default.

    Returns:
        The eigenvalue.

    Raises:
        ValueError: if there is no parameter.
    """
    from scipy.sparse import linalg

    flat, _ = ravel_pytree(params)
    if flat.size == 0:
        raise ValueError("params must hold at least one number, got none.")

    def product(vector):
        tangent = np.asarray(vector, flat.dtype).reshape(flat.shape)
        return np.asarray(_product(loss_fn, params, tangent, args), np.float64)

    if flat.size == 1:  # ARPACK looks for fewer eigenvalues than there are
        return float(product(np.ones(1))[0])
    shape = flat.size, flat.size
    # `__new__` takes these, and `__init__` others.
    operator = linalg.LinearOperator(shape, matvec=product)  # pyrefly: ignore
    # Fixed, so that the same run gives the same digits; normal, since a constant start
    # may be orthogonal to the eigenvector.
    start = np.random.default_rng(0).normal(size=flat.size)
    if not product(start).any():  # ARPACK cannot begin with a Hessian of zeros
        return 0.0
    values = linalg.eigsh(
        operator, k=1, which="LA", v0=start, tol=rtol, return_eigenvectors=False
    )
    return float(values[0])


@functools.partial(jax.jit, static_argnums=0)
def _product(loss_fn, params, vector, args):
    """The Hessian times a flat vector."""
    flat, unflatten = ravel_pytree(params)

    def gradient(flat):
        return jax.grad(lambda flat: loss_fn(unflatten(flat), *args))(flat)

    return jax.jvp(gradient, (flat,), (vector,))[1]
