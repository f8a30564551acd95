import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import vmf_reference

from vmf_vae import density, divergence, expansion

pytestmark = pytest.mark.optimized


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def exact_kl(dim, kappa_p, kappa_q, cosine):
    p, q = (vmf_reference.values(dim, k) for k in (kappa_p, kappa_q))
    with mpmath.workdps(60):
        turned = mpmath.mpf(kappa_p) - mpmath.mpf(kappa_q) * cosine
        return p["log_normalizer"] - q["log_normalizer"] + p["ratio"] * turned


@pytest.mark.parametrize(
    "dim", [2, 200, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10))]
)
@pytest.mark.parametrize(
    ("kappa_p", "kappa_q"),
    [
        (1e-3, 2e-3),
        (1e-3, 30.0),
        (12.0, 12.0001),
        (12.0, 7.0),
        (3e5, 1e5),
        (3e5, 2.99e5),
        (2.0, 3e5),
        (3e5, 2.0),
    ],
)
def test_kl_between_two(dim, kappa_p, kappa_q, dtype):
    mu, other = np.eye(2, dim, dtype=dtype)
    kappas = dtype(kappa_p), dtype(kappa_q)
    slack = 40 * float(jnp.finfo(dtype).eps)
    for nu, cosine in ((mu, 1), (-mu, -1), (other, 0)):
        got = divergence.kl(mu, kappas[0], nu, kappas[1])
        expected = exact_kl(dim, *map(float, kappas), cosine)
        assert vmf_reference.error(got, expected) <= slack


def test_kl_properties():
    rng = np.random.default_rng(0)
    mu, nu = rng.normal(size=(2, 50, 40))
    mu, nu = (np.float32(x / np.linalg.norm(x, axis=-1)[:, None]) for x in (mu, nu))
    a, b = np.exp(3 * rng.normal(size=(2, 50))).astype(np.float32)
    kl = jax.jit(divergence.kl)
    assert (kl(mu, a, nu, b) >= 0).all()
    np.testing.assert_array_equal(kl(mu, a, mu, a), np.zeros(50))
    uniform = density.kl_to_uniform(40, a)
    np.testing.assert_allclose(kl(mu, a, nu, np.zeros_like(b)), uniform, rtol=1e-6)
    assert jax.eval_shape(kl, mu, a, nu[0], 2.0).shape == (50,)
    assert jax.eval_shape(kl, mu[:, None], a[:, None], nu, b).shape == (50, 50)


@pytest.mark.parametrize("batched", range(4))
def test_any_argument_alone_may_be_a_batch(batched):
    x, y, z = np.eye(3, 20, dtype=np.float32)
    one = [0.6 * x + 0.8 * y, 5.0, 0.6 * y + 0.8 * z, 3.0]
    many = [np.stack([x, y]), np.float32([1.0, 30.0])] * 2
    pair = [
        divergence.kl(*one[:batched], x, *one[batched + 1 :]) for x in many[batched]
    ]
    found = divergence.kl(*one[:batched], many[batched], *one[batched + 1 :])
    assert found.shape == (2,)
    np.testing.assert_allclose(found, jnp.stack(pair), rtol=3e-7)
    assert abs(found[1] - found[0]) > 0.1


def test_kl_gradient_matches_finite_differences():
    with jax.enable_x64(True):
        x, y = np.eye(2, 20)
        mu = 0.6 * x + 0.8 * y

        def value(angle, a, b):
            return divergence.kl(mu, a, jnp.cos(angle) * x + jnp.sin(angle) * y, b)

        both = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
        for point in ((0.3, 4.0, 7.0), (0.3, 5.0, 5.0), (2.0, 0.1, 50.0)):
            _, grads = both(*point)
            for i, grad in enumerate(grads):
                h = 1e-5
                up, down = list(point), list(point)
                up[i], down[i] = up[i] + h, down[i] - h
                numeric = (both(*up)[0] - both(*down)[0]) / (2 * h)
                np.testing.assert_allclose(grad, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dim", [2, pytest.param(10, marks=pytest.mark.slow), 200])
def test_kl_gradient_has_all_digits_where_the_concentrations_are_far_apart(dim, dtype):
    """Along one direction: A(q) - A(p), and A'(p) (p - q)."""
    mu = np.eye(1, dim, dtype=dtype)[0]
    slack = 40 * float(jnp.finfo(dtype).eps)
    gradient = jax.jit(
        jax.grad(lambda p, q: divergence.kl(mu, p, mu, q), argnums=(0, 1))
    )
    pairs = [(1e5, 1e6), (1e6, 1e5), (2e3, 1e4), (30.0, 1e6), (1.0, 8.0), (1e-3, 20.0)]
    for point in pairs:
        p, q = (dtype(k) for k in point)
        at, to = (vmf_reference.values(dim, float(k)) for k in (p, q))
        by_p, by_q = gradient(p, q)
        with mpmath.workdps(60):
            p, q = mpmath.mpf(float(p)), mpmath.mpf(float(q))
            rise = to["ratio"] - at["ratio"]
            assert vmf_reference.error(by_p, at["slope"] / p**2 * (p - q)) < slack
        assert vmf_reference.error(by_q, rise) < slack


def test_a_difference_of_two_ratios_near_one_does_not():
    """The control: 1 - A is 5e-6 and 5e-7 on the circle, and float32 has 6e-8 at 1."""
    low, high = (expansion.ratio(0.0, jnp.float32(k)) for k in (1e5, 1e6))
    want = vmf_reference.values(2, 1e6)["ratio"] - vmf_reference.values(2, 1e5)["ratio"]
    assert vmf_reference.error(high - low, want) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: divergence.kl(
                jnp.array([1.0, 0.0]), 1.0, jnp.array([2.0, 0.0]), 1.0
            ),
            "mean_direction_q must have unit norm, got norm 2",
        ),
        (
            lambda: divergence.kl(jnp.array([1.0, 0.0]), 1.0, jnp.eye(3)[0], 1.0),
            "must have the same last axis",
        ),
        (
            lambda: divergence.kl(jnp.eye(3)[0], 1.0, jnp.eye(3)[0], -2.0),
            "concentration_q must be at least 0",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_half_precision_is_summed_in_float32():
    x = jnp.zeros(50, jnp.bfloat16).at[0].set(1.0)
    got = divergence.kl(x, jnp.bfloat16(30.0), x, jnp.bfloat16(10.0))
    assert got.dtype == jnp.float32
    wide = x.astype(jnp.float32)
    np.testing.assert_allclose(got, divergence.kl(wide, 30.0, wide, 10.0), rtol=1e-6)
