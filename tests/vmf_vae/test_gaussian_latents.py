"""Normal posteriors against quadrature and scipy; the bound of normalised means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from vmf_vae.gaussian_latents import BatchNormLatent, DiagonalGaussian, GaussianLatent


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.3, 0.2), (-2.0, 3.0)])
def test_kl_is_the_integral(loc, scale):
    q, p = scipy.stats.norm(loc, scale), scipy.stats.norm()

    def integrand(z):
        return q.pdf(z) * (q.logpdf(z) - p.logpdf(z))

    span = loc - 12 * scale, loc + 12 * scale
    expected, _ = scipy.integrate.quad(integrand, *span)
    got = DiagonalGaussian(jnp.full((1, 1), loc), jnp.full((1, 1), scale))
    np.testing.assert_allclose(got.kl_to_standard(), [expected], atol=1e-6)


def test_densities_are_those_of_scipy():
    rng = np.random.default_rng(0)
    loc, z = rng.normal(size=(4, 3)), rng.normal(size=(5, 4, 3))
    scale = rng.uniform(0.2, 2.0, (4, 3))
    q = DiagonalGaussian(jnp.array(loc), jnp.array(scale))
    expected = scipy.stats.norm(loc, scale).logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(q.log_prob(jnp.array(z)), expected, rtol=5e-7)
    prior = GaussianLatent(3).prior_log_prob(jnp.array(z))
    expected = scipy.stats.norm().logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(prior, expected, rtol=5e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_added_up_in_float32(dtype):
    """The scales are from 1e-4, whose square float16 does not have, to 1.2."""
    rng = np.random.default_rng(1)
    loc, noise = rng.normal(size=(4, 40)), rng.normal(size=(3, 4, 40))
    scale = np.geomspace(1e-4, 1.2, 160).reshape(4, 40)
    loc, scale = (jnp.array(a, dtype) for a in (loc, scale))
    z = loc[None] + scale[None] * jnp.array(noise, dtype)
    q, mu, sigma, point = (
        DiagonalGaussian(loc, scale),
        *(np.asarray(a, np.float64) for a in (loc, scale, z)),
    )
    kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * np.log(sigma)).sum(axis=-1)
    expected = [
        (q.kl_to_standard(), kl),
        (q.log_prob(z), scipy.stats.norm(mu, sigma).logpdf(point).sum(axis=-1)),
        (
            GaussianLatent(40).prior_log_prob(z),
            scipy.stats.norm().logpdf(point).sum(axis=-1),
        ),
    ]
    for got, exact in expected:
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, exact, rtol=2e-6)


def test_draws_have_the_moments_and_the_key_changes_them():
    q = DiagonalGaussian(jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]]))
    n = 20_000
    z = q.sample(jax.random.key(0), (n,))
    assert z.shape == (n, 1, 2)
    error = np.abs(z.mean(axis=0) - q.loc)
    assert (error < 4 * q.scale / np.sqrt(n)).all()
    error = np.abs(z.std(axis=0) - q.scale)
    assert (error < 4 * q.scale / np.sqrt(2 * n)).all()
    assert (z != q.sample(jax.random.key(1), (n,))).all()


def features(n, dim, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.array(rng.normal(3.0, 5.0, (n, 2 * dim)), jnp.float32)


def test_normalised_means_have_the_moments_that_are_fixed():
    latent = BatchNormLatent(4, scale=0.7)
    params = {"shift": jnp.array([0.0, 1.0, -1.0, 0.5])}
    q = latent.posterior(params, features(32, 4))
    np.testing.assert_allclose(q.loc.mean(axis=0), params["shift"], atol=1e-5)
    np.testing.assert_allclose(q.loc.std(axis=0), 0.7, rtol=6e-7)


@pytest.mark.parametrize("scale", [0.3, 0.7, 2.0])
def test_the_mean_kl_stays_above_the_bound_and_meets_it_at_unit_scale(scale):
    latent = BatchNormLatent(3, scale=scale)
    params = {"shift": jnp.array([0.1, 0.0, -0.4])}
    bound = 0.5 * (3 * scale**2 + 0.17)
    np.testing.assert_allclose(latent.kl_bound(params), bound, rtol=1e-6)
    x = features(16, 3)
    assert latent.kl(latent.posterior(params, x)).mean() > bound
    tight = x.at[:, 3:].set(np.log(np.e - 1.0))  # the softplus of it is 1
    got = latent.kl(latent.posterior(params, tight)).mean()
    np.testing.assert_allclose(got, bound, rtol=1e-6)


def test_without_the_normalisation_there_is_no_bound():
    x = jnp.zeros((16, 6)).at[:, 3:].set(np.log(np.e - 1.0))
    x = x.at[::2, :3].set(1e-3)
    kl = GaussianLatent(3).kl(GaussianLatent(3).posterior({}, x)).mean()
    latent = BatchNormLatent(3, 0.5)
    bound = latent.kl_bound(latent.init())
    assert kl < 1e-3 < bound
    # The variance is 2.5e-7, of which its offset takes a twenty-fifth.
    assert 0.95 * bound < latent.kl(latent.posterior(latent.init(), x)).mean()


def test_stored_statistics_encode_one_example_like_its_batch():
    latent, x = BatchNormLatent(4), features(32, 4)
    params = latent.init()
    together = latent.posterior(params, x)
    frozen = latent.freeze(params, x)
    alone = latent.posterior(frozen, x[3:4])
    np.testing.assert_allclose(alone.loc[0], together.loc[3], rtol=1e-5)
    # Without them a single example is its own mean.
    np.testing.assert_array_equal(latent.posterior(params, x[3:4]).loc, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianLatent(0), "dim must be an integer >= 1, got 0"),
        (lambda: BatchNormLatent(2.5), "dim must be an integer >= 1, got 2.5"),
        (lambda: BatchNormLatent(2, scale=0.0), "scale must be positive, got 0.0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
