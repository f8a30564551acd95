"""Virtual adversarial training with a divergence of the caller's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from igr import virtual_adversarial_loss, virtual_adversarial_perturbation

KEY = jax.random.key(0)


def sigmoids(s, t):
    """The divergence of sigmoids, over all axes but the first."""
    terms = (jax.nn.sigmoid(s) - jax.nn.sigmoid(t)) * (s - t)
    return jnp.sum(terms, axis=tuple(range(1, s.ndim)))


def softmaxes(s, t):
    """The paper's own divergence."""
    log_p, log_q = jax.nn.log_softmax(s), jax.nn.log_softmax(t)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def example():
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(6, 8)), rng.normal(size=(8, 4))
    return 0.5 * w, v, rng.normal(size=(16, 6))


def network(w, v, x):
    return jnp.tanh(x @ w) @ v


def dense_hessians(w, v, x):
    """J' diag(2 sigmoid') J for each example."""
    hidden = np.tanh(x @ w)
    jacobian = np.einsum("ih,bh,hk->bki", w, 1 - hidden**2, v)
    p = expit(hidden @ v)
    return 2 * np.einsum("bk,bki,bkj->bij", p * (1 - p), jacobian, jacobian)


def perturbation(logits_fn, x, **options):
    return virtual_adversarial_perturbation(logits_fn, x, KEY, epsilon=1.0, **options)


def cosines(a, b):
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(np.asarray(a) * b, axis=1) / norms


def test_the_direction_is_the_product_with_its_hessian():
    with jax.enable_x64(True):
        w, v, x = example()
        logits_fn = functools.partial(network, w, v)
        start, got, other = jax.jit(
            lambda x: (
                perturbation(logits_fn, x, num_iterations=0),
                perturbation(logits_fn, x, divergence=sigmoids),
                perturbation(logits_fn, x),
            )
        )(x)
        expected = np.einsum("bij,bj->bi", dense_hessians(w, v, x), np.asarray(start))
        assert cosines(got, expected).min() > 1 - 1e-12
        # The control: the direction of the other divergence is another.
        assert cosines(other, expected).min() < 0.99


def test_many_iterations_find_the_top_eigenvector():
    with jax.enable_x64(True):
        w, v, x = example()
        run = jax.jit(
            lambda x: perturbation(
                functools.partial(network, w, v),
                x,
                num_iterations=300,
                divergence=sigmoids,
            )
        )
        top = np.linalg.eigh(dense_hessians(w, v, x))[1][:, :, -1]
        assert np.abs(cosines(run(x), top)).min() > 0.9999


@pytest.mark.parametrize("xi", [pytest.param(1e-6, marks=pytest.mark.slow), 0.5])
def test_the_papers_divergence_given_by_hand_is_the_default(xi):
    with jax.enable_x64(True):
        w, v, x = example()

        def loss(v, divergence):
            return virtual_adversarial_loss(
                functools.partial(network, w, v),
                x,
                KEY,
                epsilon=0.5,
                xi=xi,
                divergence=divergence,
            )

        got, expected = (
            jax.jit(jax.value_and_grad(lambda v, d=d: loss(v, d).sum()))(v)
            for d in (softmaxes, None)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
            got,
            expected,
        )


def test_the_loss_is_that_divergence_and_logits_may_have_any_shape():
    w, v, x = (a.astype(np.float32) for a in example())

    def cells(x):
        scores = network(w, v, x).reshape(-1, 2, 2)
        return jnp.where(np.triu(np.ones((2, 2), bool))[None], scores, 0.0)

    @jax.jit
    def loss_and_cells(x):
        r = perturbation(cells, x, divergence=sigmoids)
        loss = virtual_adversarial_loss(cells, x, KEY, epsilon=1.0, divergence=sigmoids)
        return loss, cells(x), cells(x + r)

    got, s, t = (np.asarray(z) for z in loss_and_cells(x))
    s, t = s.astype(float), t.astype(float)
    expected = ((expit(s) - expit(t)) * (s - t)).sum((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.shape == (16,)


@pytest.mark.parametrize(
    ("divergence", "logits_fn", "error", "message"),
    [
        ("kl", lambda x: x, TypeError, "divergence must be a function, got 'kl'"),
        (sigmoids, jnp.sum, ValueError, r"to logits \[batch, ...\] = \[2, ...\]"),
        (None, lambda x: x[..., None], ValueError, r"logits \[batch, classes\]"),
    ],
)
def test_bad_input_is_named(divergence, logits_fn, error, message):
    with pytest.raises(error, match=message):
        virtual_adversarial_loss(
            logits_fn,
            np.ones((2, 3), np.float32),
            KEY,
            epsilon=1.0,
            divergence=divergence,
        )


def test_an_example_may_have_one_number_for_its_output():
    """A linear one, whose square is largest along its slope: here the ones."""
    got = jax.jit(
        lambda x: virtual_adversarial_loss(
            lambda x: x.sum(axis=1),
            x,
            jax.random.key(0),
            epsilon=0.1,
            divergence=lambda p, q: (p - q) ** 2,
        )
    )(jnp.zeros((2, 3)))
    np.testing.assert_allclose(got, [0.03, 0.03], rtol=1e-6)
