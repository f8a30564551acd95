"""Which tables of similarities are cosines of vectors, and of how many dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize, stats

from expkit import claims, plots
from expkit.claims import Context, Finding

SENTENCES = 200
ROUNDS, STEPS = 20, 10  # of the search for vectors whose cosines are in an order


def check_counterexample(context: Context) -> Finding:
    """Smallest eigenvalue of a matrix of similarities that no vectors have."""
    del context
    matrix = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]])
    found = float(np.linalg.eigvalsh(matrix)[0])
    milder = matrix - 0.2 * (matrix == 0.9)
    control = float(np.linalg.eigvalsh(milder)[0])
    return claims.exact(
        found >= 0.0,
        found,
        "[[1, .9, 0], [.9, 1, .9], [0, .9, 1]] has the eigenvalue 1 - 0.9 sqrt(2) = "
        f"{1 - 0.9 * np.sqrt(2):.4f} and is no table of cosines: what is similar to "
        "two sentences makes these similar. With .7 in place of .9, the control, the "
        f"smallest is {control:.4f}.",
    )


def check_repair(context: Context) -> Finding:
    """Share of random matrices whose order survives in the cosines of real vectors."""
    del context
    rng = np.random.default_rng(0)
    kept, clipped, negative = [], [], 0
    for _ in range(300):
        size = int(rng.integers(3, 30))
        s = np.triu(rng.random((size, size)), 1)
        s = s + s.T + np.eye(size)
        values, vectors = np.linalg.eigh(s)
        negative += values[0] < 0.0
        shift = max(0.0, -values[0])
        for outcome, spectrum in (
            (kept, values + shift),
            (clipped, np.maximum(values, 0.0)),
        ):
            b = vectors * np.sqrt(np.maximum(spectrum, 0.0))
            b /= np.linalg.norm(b, axis=1, keepdims=True)
            outcome.append(_same_order(s, b @ b.T))
    share, control = float(np.mean(kept)), float(np.mean(clipped))
    return claims.exact(
        share == 1.0 > control and negative > 0,
        share,
        f"300 random symmetric matrices of 3 to 29 sentences, {negative} of them not "
        "positive semidefinite. S + c I, c minus the smallest eigenvalue, is the Gram "
        "matrix of vectors whose cosines are S / (1 + c). Eigenvalues set to 0 "
        f"instead, the control, keep the order of {100 * control:.0f} %.",
    )


def _same_order(a, b):
    """Whether the entries above the diagonals are in the same order."""
    upper = np.triu_indices(len(a), 1)
    return np.array_equal(np.argsort(a[upper]), np.argsort(b[upper]))


def check_projection_lemma(context: Context) -> Finding:
    """Error of a squared distance over the bound: largest of all, least of the maps."""
    del context
    n, trials = 300, 10
    found, controls = 0.0, []
    x = np.random.default_rng(0).normal(size=(n, 1000))
    for epsilon in (0.2, 0.3, 0.5):
        dim = int(np.ceil(8.0 * np.log(n) / (epsilon**2 * (1.0 - 2.0 * epsilon / 3.0))))
        maps = [np.random.default_rng(seed) for seed in range(trials)]
        found = max(found, min(_distortion(x, dim, rng) for rng in maps) / epsilon)
        controls += [_distortion(x, dim // 8, rng) / epsilon for rng in maps]
    control = min(controls)
    return claims.exact(
        found <= 1.0 < control,
        float(found),
        f"{n} vectors, the best of {trials} random projections to 8 log(n) / (e^2 "
        "(1 - 2e/3)) dimensions for e of 0.2, 0.3 and 0.5: every squared distance is "
        "kept to a factor of 1 +- e, in units of which this is the largest error. "
        f"With an eighth of the dimensions, the control, it is {control:.2f} and more.",
    )


def _distortion(x, dim, rng):
    """Largest relative error of a squared distance under a random projection."""
    y = x @ rng.normal(size=(x.shape[1], dim)) / np.sqrt(dim)
    before, after = (_squared_distances(z) for z in (x, y))
    return np.max(np.abs(after / before - 1.0))


def _squared_distances(x):
    squares = np.sum(x**2, axis=1)
    table = squares[:, None] + squares[None, :] - 2.0 * x @ x.T
    return table[np.triu_indices(len(x), 1)]


def check_dimensions(context: Context) -> Finding:
    """Best Spearman correlation of the cosines with those in 8 log n dimensions."""
    vectors = np.array(context.memo("vectors", _sentence_vectors, size=SENTENCES))
    n, width = vectors.shape
    cosines = _cosines(vectors)
    claimed = round(8.0 * np.log(n))
    dims = sorted({4, 8, 16, 32, claimed, 96, 192, width})
    rng = np.random.default_rng(0)
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    found: dict[str, list[float]] = {"random projection": [], "principal axes": []}
    for dim in dims:
        maps = rng.normal(size=(width, dim)), axes[:dim].T
        for name, matrix in zip(found, maps, strict=True):
            rho = stats.spearmanr(cosines, _cosines(vectors @ matrix))[0]
            found[name].append(float(rho))
    random, principal = (found[name][dims.index(claimed)] for name in found)
    moved = _in_order(vectors @ axes[:claimed].T, cosines)
    searched = float(stats.spearmanr(cosines, _cosines(moved))[0])
    _draw_dimensions(context, dims, found, claimed)
    best = max(random, principal, searched)
    return Finding(
        best,
        claims.HOLDS if best > 0.99 else claims.NOT_DECIDED,
        details=f"{n} sentences, vectors of {width} dimensions. Rank correlation of "
        f"the cosines with those of vectors of {claimed}: a random projection "
        f"{random:.3f}, the first principal axes {principal:.3f}, moved from there to "
        f"keep the order {searched:.3f}. Required: 0.99; below that nothing is "
        "decided, since other vectors may keep more. The lemma has 1/e^2 beside "
        "8 log n, and without it allows errors as large as the cosines.",
    )


def _cosines(vectors):
    """Cosines of all pairs of different vectors."""
    y = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (y @ y.T)[np.triu_indices(len(y), 1)]


def _in_order(start, cosines):
    """Vectors moved from a start so that their cosines are in a given order.

    By turns the cosines nearest to theirs that are in this order, and some steps to
    these: Kruskal's nonmetric scaling.
    """
    pairs = np.triu_indices(len(start), 1)
    order = np.argsort(cosines)
    optimizer = optax.adam(2e-3)

    def distance(x, target):
        y = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        found = jnp.sum(y[pairs[0]] * y[pairs[1]], axis=1)
        return jnp.mean(jnp.square(found - target)) / jnp.var(found)

    @jax.jit
    def move(carry, target):
        def step(_, carry):
            x, state = carry
            updates, state = optimizer.update(jax.grad(distance)(x, target), state)
            return x + updates, state

        return jax.lax.fori_loop(0, STEPS, step, carry)

    x = jnp.asarray(start, jnp.float32)
    carry = x, optimizer.init(x)
    for _ in range(ROUNDS):
        target = _cosines(np.asarray(carry[0]))
        target[order] = optimize.isotonic_regression(target[order]).x
        carry = move(carry, jnp.asarray(target, jnp.float32))
    return np.asarray(carry[0])


def _sentence_vectors():
    """Real sentences, by the packaged encoder."""
    from expkit import data, text

    pairs = data.load("api_docs_pairs", "test")
    texts = list(dict.fromkeys(map(str, pairs["text_1"])))[:SENTENCES]
    return np.asarray(text.sentence_embeddings(texts, max_length=32))


def _draw_dimensions(context, dims, found, claimed):
    def draw(figure):
        axes = figure.subplots()
        series = {name: (dims, y, None, None) for name, y in found.items()}
        plots.curves(axes, series, xlabel="dimensions", ylabel="rank correlation")
        axes.set_xscale("log", base=2)
        axes.axvline(claimed, linestyle="--", color="C2")

    context.figure(
        "dimensions",
        draw,
        "Spearman correlation of all cosines before and after the vectors lose "
        f"dimensions; the dashed line is 8 log n = {claimed}.",
        f"At {claimed} dimensions a random projection has "
        f"{found['random projection'][dims.index(claimed)]:.3f}.",
    )
