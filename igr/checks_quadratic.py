"""Quadratics, where what gradient descent follows has a closed form, or none exists."""

import jax
import jax.numpy as jnp
import numpy as np

import igr
from expkit import claims
from expkit.claims import Context, Finding
from igr import checks_accuracy as accuracy

ORDERS = (1, 2, 3)


def check_quadratic_eigenvalue(context: Context) -> Finding:
    """The rates -log(1 - h l) / h at which gradient descent decays, for h = 1."""
    del context
    products = np.array([0.1, 0.5, 0.9])
    with jax.enable_x64(True):
        flows = {
            k: np.array(
                [-float(_field(product, k)(jnp.ones(1))[0]) for product in products]
            )
            for k in ORDERS
        }
        steps = [1.0 - float(jax.grad(_loss(x))(jnp.ones(1))[0]) for x in products]
    # Gradient descent multiplies by 1 - h l; a flow that does it decays at this rate.
    exact = -np.log1p(-products)
    is_exact = np.allclose(-np.log(steps), exact, rtol=1e-12, atol=0)
    terms = np.stack([products, products**2 / 2, products**3 / 3])
    are_terms = all(
        np.allclose(flows[k], terms[:k].sum(axis=0), rtol=1e-12, atol=0) for k in ORDERS
    )
    errors = {k: 1 - flows[k] / exact for k in ORDERS}
    is_closer = np.all(errors[1] > errors[2]) and np.all(errors[2] > errors[3])
    text = "; ".join(
        f"h l = {x:g}: {e:.4f} against {flows[1][i]:.4f}, {flows[2][i]:.4f} and "
        f"{flows[3][i]:.4f}"
        for i, (x, e) in enumerate(zip(products, exact, strict=True))
    )
    return claims.exact(
        is_exact and are_terms and is_closer and np.all(errors[3] > 0),
        "; ".join(f"{e:.4f}" for e in exact),
        f"Exact rate of decay against those of the flows of order 1, 2 and 3: {text}. "
        "The flows have the Taylor terms of the logarithm to 1e-12.",
    )


def check_oscillation(context: Context) -> Finding:
    """Sign changes in 40 converging steps on a quadratic with h l = 1.5."""
    del context

    def run(product):
        points, gradient = [jnp.ones(1)], jax.grad(_loss(product))
        for _ in range(40):
            points.append(points[-1] - gradient(points[-1]))
        path = np.asarray(points)[:, 0]
        return int(np.sum(np.diff(np.sign(path)) != 0)), abs(float(path[-1]))

    with jax.enable_x64(True):
        (changes, end), (control, _) = run(1.5), run(0.5)
        ends = [
            float(accuracy.follow(jax.jit(_field(1.5, k)), [1.0], 1.0)[0])
            for k in ORDERS
        ]
    return claims.exact(
        changes == 40 and end < 1e-9 and control == 0 and min(ends) > 0,
        changes,
        "A flow on a line does not pass its fixed point: after the time of one step "
        f"those of order 1, 2 and 3 are at {ends[0]:.3f}, {ends[1]:.3f} and "
        f"{ends[2]:.3f}, the step is at -0.5. With h l = 0.5, the control, it changes "
        f"{control} times.",
    )


def _loss(curvature):
    return lambda theta: curvature * jnp.sum(theta**2) / 2


def _field(curvature, order):
    return igr.modified_flow(_loss(curvature), 1.0, order)
