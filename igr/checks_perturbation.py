"""What perturbing the input does to the loss: orders of accuracy, and directions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import igr
from expkit import claims
from expkit.claims import Context, Finding
from igr import checks_accuracy as accuracy

SIZES = 0.1 * 0.5 ** np.arange(6)
MIN_COSINE = 0.99


def check_fast_gradient_order(context: Context) -> Finding:
    """Order of |L(x + eps g / |g|) - L(x) - eps |g||."""
    with jax.enable_x64(True):
        params, x = _network(1.0, np.float64)
        gradient = np.asarray(jax.grad(_loss, 1)(params, x))
        random = np.random.default_rng(1).normal(size=x.shape)
        random /= np.linalg.norm(random)
        loss = jax.jit(_loss)

        def error(direction: Callable[[float], np.ndarray], size: float) -> float:
            rise = loss(params, x + direction(size)) - loss(params, x)
            return abs(float(rise) - size * float(np.linalg.norm(gradient)))

        def fast(size):
            return igr.fast_gradient_perturbation(lambda x: _loss(params, x), x, size)

        errors = [error(fast, size) for size in SIZES]
        control = [error(lambda size: size * random, size) for size in SIZES]
    measured = accuracy.order(errors)
    accuracy.draw_errors(
        context,
        "fast_gradient_order",
        SIZES,
        {"along the gradient": errors, "random direction": control},
        "Error of L(x) + ε‖g‖ as the loss at x + r. Halving ε quarters it along the "
        "gradient, and halves it in a random direction of the same length.",
        xlabel="ε",
    )
    return claims.exact(
        abs(measured - 2.0) < accuracy.TOLERANCE < 2.0 - accuracy.order(control),
        measured,
        f"A random direction, the control: {accuracy.order(control):.2f}.",
    )


def check_constant_direction(context: Context) -> Finding:
    """Order of the parameter gradient of L(x + eps g) as that of L + eps/2 |g|^2."""
    del context
    with jax.enable_x64(True):
        params, x = _network(1.0, np.float64)

        def perturbed(params, size):
            r = igr.fast_gradient_perturbation(
                lambda x: _loss(params, x), x, size, normalize=False
            )
            return _loss(params, x + r)

        def penalised(params, coefficient):
            square = jnp.sum(jax.grad(_loss, 1)(params, x) ** 2)
            return _loss(params, x) + coefficient * square

        def errors(factor):
            difference = jax.jit(
                lambda size: jax.tree.map(
                    jnp.subtract,
                    jax.grad(perturbed)(params, size),
                    jax.grad(penalised)(params, factor * size),
                )
            )
            leaves = [jax.tree.leaves(difference(size)) for size in SIZES]
            return [max(float(jnp.abs(a).max()) for a in row) for row in leaves]

        half, whole = accuracy.order(errors(0.5)), accuracy.order(errors(1.0))
    return claims.exact(
        abs(half - 2.0) < accuracy.TOLERANCE < 2.0 - whole,
        half,
        f"With the coefficient that the value suggests, the control: {whole:.2f}.",
    )


def check_noise_order(context: Context) -> Finding:
    """Order of |E L(x + s n) - L(x) - s^2/2 tr H|, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    with jax.enable_x64(True):
        params, x = _network(1.0, np.float64)
        x = x[:1, :3]
        params = (params[0][:3], *params[1:])
        grid = np.stack(np.meshgrid(*[nodes] * 3, indexing="ij"), -1).reshape(-1, 3)
        mass = np.einsum("i,j,k->ijk", *[weights / weights.sum()] * 3).ravel()
        hessian = jax.jit(jax.hessian(_loss, 1))(params, x)
        trace = float(np.trace(np.reshape(hessian, (3, 3))))
        values = jax.jit(
            lambda size: jax.vmap(lambda n: _loss(params, x + size * n[None]))(grid)
        )
        start = float(_loss(params, x))

        def errors(factor):
            return [
                abs(float(mass @ np.asarray(values(s))) - start - factor * s**2 * trace)
                for s in SIZES
            ]

        half, whole = errors(0.5), errors(1.0)
    measured, control = accuracy.order(half), accuracy.order(whole)
    accuracy.draw_errors(
        context,
        "noise_order",
        SIZES,
        {"half the variance": half, "the variance": whole},
        "Error of L(x) + c tr H, with two choices of c, as the mean loss under "
        "Gaussian noise. With half the variance a noise of half the size has a "
        "sixteenth of the error.",
        xlabel="standard deviation of the noise",
    )
    return claims.exact(
        abs(measured - 4.0) < accuracy.TOLERANCE < 4.0 - control,
        measured,
        f"With twice the coefficient, the control: {control:.2f}.",
    )


def check_power_iteration(context: Context) -> Finding:
    """Least |cosine| between the perturbation in float32 and a dense eigenvector."""
    del context
    params, x = _network(1.0, np.float32)
    top = np.linalg.eigh(_dense_hessians(params, x))[1][:, :, -1]

    def cosine(num_iterations):
        r = _perturbation(params, x, num_iterations=num_iterations)
        return float(np.abs(_cosines(r, top)).min())

    reached, one, start = (cosine(n) for n in (300, 1, 0))
    return claims.exact(
        reached >= MIN_COSINE > start,
        reached,
        f"300 iterations, {len(x)} examples; after the one of the paper {one:.2f}, at "
        f"the random start, the control, {start:.2f}.",
    )


def check_finite_difference(context: Context) -> Finding:
    """Least cosine, in float32, of the gradient at distance 1e-6 with H d."""
    del context
    params, x = _network(1.0, np.float32)
    start = np.asarray(_perturbation(params, x, num_iterations=0), np.float64)
    expected = np.einsum("bij,bj->bi", _dense_hessians(params, x), start)
    # A traced distance asks for differences, a Python number this small for the limit.
    found = _cosines(
        jax.jit(lambda xi: _perturbation(params, x, xi=xi))(1e-6), expected
    )
    ours = _cosines(_perturbation(params, x, xi=1e-6), expected)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x))
        start = np.asarray(_perturbation(*wide, num_iterations=0))
        expected = np.einsum("bij,bj->bi", _dense_hessians(*wide), start)
        exact = _cosines(
            jax.jit(lambda xi: _perturbation(*wide, xi=xi))(1e-6), expected
        )
    return claims.exact(
        found.min() >= MIN_COSINE,
        float(found.min()),
        f"{len(x)} examples; median {np.median(found):.3f}. In float64 the least is "
        f"{exact.min():.4f}; the exact product used here has {ours.min():.4f} in "
        "float32.",
    )


def _network(gain: float, dtype: type) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Weights of a tanh network with a hidden layer, and 64 inputs."""
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(16, 32)) / 4.0, gain * rng.normal(size=(32, 5)) / 4.0
    x = rng.normal(size=(64, 16))
    return (w.astype(dtype), v.astype(dtype)), x.astype(dtype)


def _logits(params, x):
    w, v = params
    return jnp.tanh(x @ w) @ v


def _loss(params, x):
    """Mean cross-entropy, with the first class as every label."""
    return -jnp.mean(jax.nn.log_softmax(_logits(params, x))[:, 0])


def _perturbation(params, x, **options) -> jax.Array:
    return igr.virtual_adversarial_perturbation(
        lambda x: _logits(params, x), x, jax.random.key(0), epsilon=1.0, **options
    )


def _dense_hessians(params, x) -> np.ndarray:
    """Hessian of the divergence for each example, from its definition in numpy."""
    w, v = (np.asarray(a, np.float64) for a in params)
    hidden = np.tanh(np.asarray(x, np.float64) @ w)
    jacobian = np.einsum("ih,bh,hk->bki", w, 1 - hidden**2, v)
    p = np.exp(hidden @ v)
    p /= p.sum(axis=1, keepdims=True)
    pairs = jacobian[:, :, None] - jacobian[:, None]
    return 0.5 * np.einsum("bk,bl,bkli,bklj->bij", p, p, pairs, pairs)


def _cosines(a, b) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / norms
