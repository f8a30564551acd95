"""Importance sampling against a marginal in closed form; counts against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

import vmf_vae
from vmf_vae import evaluation


@pytest.fixture(scope="module")
def linear():
    """A linear decoder with Gaussian noise, some images, and their log marginals."""
    model = vmf_vae.GaussianVAE(
        (2, 3), 2, hidden=(), likelihood="gaussian", noise_scale=0.6
    )
    params = model.init(jax.random.key(0))
    w = np.asarray(params["decoder"]["out"]["kernel"], np.float64)
    b = np.asarray(params["decoder"]["out"]["bias"], np.float64) + 0.2
    params["decoder"]["out"]["bias"] += 0.2
    # A proposal that is wider than the prior keeps the weights bounded.
    params["encoder"]["out"]["kernel"] *= 0.1
    params["encoder"]["out"]["bias"] += jnp.array([0.0, 0.0, 1.0, 1.0])
    law = scipy.stats.multivariate_normal(b, w.T @ w + 0.36 * np.eye(6))
    x = law.rvs(5, random_state=0)
    return model, params, jnp.array(x.reshape(5, 2, 3)), law.logpdf(x)


def estimates(model, params, x, num_samples, repeats=200):
    keys = jax.random.split(jax.random.key(3), repeats)

    def run(key):
        return evaluation.importance_log_likelihood(
            model, params, x, key, num_samples=num_samples
        )

    return np.asarray(jax.jit(lambda: jax.lax.map(run, keys))(), np.float64)


def test_the_mean_of_the_estimated_likelihoods_is_that_of_a_linear_model(linear):
    model, params, x, exact = linear
    ratios = np.exp(estimates(model, params, x, 50, repeats=2000) - exact)
    spread = ratios.std(axis=0) / np.sqrt(2000)
    assert (spread < 0.02).all()
    assert (np.abs(ratios.mean(axis=0) - 1) < 4.5 * spread).all()


def test_the_exact_posterior_gives_the_marginal_from_one_sample(linear):
    model, params, x, exact = linear
    w = np.asarray(params["decoder"]["out"]["kernel"], np.float64)
    b = np.asarray(params["decoder"]["out"]["bias"], np.float64)

    class Exact:
        """The posterior N(m, s^2 I) of a decoder with orthogonal rows."""

        latent, log_likelihood = model.latent, model.log_likelihood

        def encode(self, params, x):
            variance = 0.36 / (0.36 + 1.0)
            loc = (x.reshape(5, -1) - b[None]) @ rows.T / (0.36 + 1.0)
            scale = jnp.full((5, 2), np.sqrt(variance))
            return vmf_vae.gaussian_latents.DiagonalGaussian(loc, scale)

    rows = np.linalg.qr(w.T)[0].T
    params = {"decoder": {"out": {"kernel": jnp.array(rows), "bias": jnp.array(b)}}}
    law = scipy.stats.multivariate_normal(b, rows.T @ rows + 0.36 * np.eye(6))
    exact = law.logpdf(np.asarray(x).reshape(5, 6))
    got = evaluation.importance_log_likelihood(
        Exact(), params, x, jax.random.key(0), num_samples=1
    )
    np.testing.assert_allclose(got, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_float64_is_enabled_the_exact_posterior_gives_the_marginal(dtype):
    """Of x = b + n with a decoder that does not look at z: p(x) has one factor."""
    model = vmf_vae.GaussianVAE(
        (2, 3), 2, hidden=(), likelihood="gaussian", noise_scale=0.6
    )
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(dtype), model.init(jax.random.key(0)))
        kernel = params["decoder"]["out"]["kernel"]
        params["decoder"]["out"]["kernel"] = jnp.zeros_like(kernel)
        features = params["encoder"]["out"]
        features["kernel"] = jnp.zeros_like(features["kernel"])
        # The posterior is the prior: softplus of log(e^s - 1) is s, and 1e-6 is added.
        raw = [0.0, 0.0, *[np.log(np.expm1(1.0 - 1e-6))] * 2]
        features["bias"] = jnp.array(raw, dtype)
        x = np.linspace(-1.0, 1.0, 12).reshape(2, 2, 3)
        got = evaluation.importance_log_likelihood(
            model, params, jnp.array(x, dtype), jax.random.key(0), num_samples=13
        )
    exact = scipy.stats.norm(0.0, 0.6).logpdf(x).sum(axis=(1, 2))
    assert got.dtype == dtype
    rtol = {"float32": 2e-6, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(got, exact, rtol=rtol)


def test_the_estimate_grows_with_the_samples_from_the_bound_to_the_marginal(linear):
    model, params, x, exact = linear
    means = [estimates(model, params, x, s).mean(axis=0) for s in (1, 4, 16, 64)]
    errors = [
        estimates(model, params, x, s).std(axis=0) / np.sqrt(200) for s in (1, 64)
    ]
    assert (np.diff(means, axis=0) > 0).all()
    assert (means[-1] < exact + 4 * errors[1]).all()
    keys = jax.random.split(jax.random.key(4), 2000)
    elbo = jax.jit(jax.vmap(lambda key: model.elbo(params, x, key)[0]))(keys)
    spread = np.hypot(elbo.std(axis=0) / np.sqrt(2000), errors[0])
    assert (np.abs(means[0] - elbo.mean(axis=0)) < 4.5 * spread).all()


@pytest.mark.parametrize("num_samples", [1, 7, 10, 23])
def test_every_sample_counts_once(linear, num_samples):
    model, params, x, _ = linear

    class Constant:
        """All weights are e, so the estimate is 1 whatever the number."""

        latent = model.latent

        def encode(self, params, x):
            return model.encode(params, x)

        def log_likelihood(self, params, x, z):
            q = model.encode(params, x)
            return 1.0 + q.log_prob(z) - self.latent.prior_log_prob(z)

    got = evaluation.importance_log_likelihood(
        Constant(), params, x, jax.random.key(0), num_samples=num_samples
    )
    np.testing.assert_allclose(got, 1.0, rtol=1e-6)


def test_on_the_sphere_the_estimate_is_above_the_bound():
    model = vmf_vae.VMFVAE((4, 4, 1), 3, (8,), concentration=30.0)
    params = model.init(jax.random.key(0))
    x = jax.random.bernoulli(jax.random.key(1), 0.5, (50, 4, 4, 1)).astype(jnp.float32)
    got = estimates(model, params, x, 200, repeats=1)
    elbo, _ = jax.jit(model.elbo)(params, x, jax.random.key(2))
    assert got.mean() > elbo.mean()


def test_no_samples_are_refused(linear):
    model, params, x, _ = linear
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        evaluation.importance_log_likelihood(
            model, params, x, jax.random.key(0), num_samples=0
        )


@pytest.mark.parametrize("num_samples", [2.5, 3.0, True, "3", None])
def test_a_number_of_samples_that_is_no_integer_is_named(linear, num_samples):
    model, params, x, _ = linear
    message = f"num_samples must be an integer, got {num_samples!r}"
    with pytest.raises(TypeError, match=message):
        evaluation.importance_log_likelihood(
            model, params, x, jax.random.key(0), num_samples=num_samples
        )


def test_figures_of_rows_are_those_of_the_model(linear):
    model, params, x, _ = linear
    key = jax.random.key(0)
    figures, means = evaluation.row_figures(model, params, x, key, num_samples=5)
    elbo, parts = model.elbo(params, x, key)
    np.testing.assert_array_equal(figures["loss"], -elbo)
    np.testing.assert_array_equal(figures["kl"], parts["kl"])
    assert figures["log_likelihood"].shape == (5,)
    np.testing.assert_array_equal(means, model.encode(params, x).loc)


def test_active_units_are_directions_that_vary():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 4)) * [1.0, 0.5, 0.05, 0.0]
    assert evaluation.active_units(points) == 2
    assert evaluation.active_units(points, threshold=1e-3) == 3
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert evaluation.active_units(points @ turn.T) == 4
    assert evaluation.active_units(points @ turn.T, rotated=True) == 2
    with pytest.raises(ValueError, match=r"\[n, d\], got the shape \(4,\)"):
        evaluation.active_units(points[0])


def test_neighbours_vote():
    train = np.array([[0.0, 0], [0, 1], [1, 0], [5, 5], [5, 6]])
    labels = np.array([0, 0, 0, 1, 1])
    test = np.array([[0.2, 0.2], [5.1, 5.4]])
    points = (train, labels, test, np.array([0, 1]))
    assert evaluation.neighbor_accuracy(*points, num_neighbors=3) == 1.0
    assert evaluation.neighbor_accuracy(*points, num_neighbors=5) == 0.5
    with pytest.raises(ValueError, match=r"must be in 1..5, got 6"):
        evaluation.neighbor_accuracy(*points, num_neighbors=6)


def test_neighbours_agree_with_a_plain_loop():
    rng = np.random.default_rng(1)
    train, test = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    labels = rng.integers(0, 4, 40)
    votes = np.array(
        [
            np.bincount(labels[np.argsort(row)[:5]], minlength=4).argmax()
            for row in scipy.spatial.distance.cdist(test, train)
        ]
    )
    truth = np.where(np.arange(25) < 10, votes, (votes + 1) % 4)
    assert evaluation.neighbor_accuracy(train, labels, test, votes) == 1.0
    assert evaluation.neighbor_accuracy(train, labels, test, truth) == 0.4


def test_the_number_of_samples_is_that_of_the_literature(linear):
    model, params, x, _ = linear
    default = evaluation.importance_log_likelihood(model, params, x, jax.random.key(0))
    # Burda et al. (2016) and Davidson et al. (2018) take 500.
    explicit = evaluation.importance_log_likelihood(
        model, params, x, jax.random.key(0), num_samples=500
    )
    np.testing.assert_array_equal(default, explicit)
