"""Fast gradient and Gaussian perturbations: closed forms and orders of accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from expkit import testing
from igr import fast_gradient_perturbation, gaussian_perturbation


def loss_fn(params, x):
    """A smooth scalar loss of x [3]; every derivative is different from 0."""
    w, v = params
    return jnp.sum(jnp.sin(v @ jnp.tanh(w @ x)))


def example():
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(2, 4)))
    return params, jnp.asarray(rng.normal(size=3))


def order(sizes, errors):
    """Observed order of accuracy: the slope at the smallest sizes."""
    return np.log(errors[-2] / errors[-1]) / np.log(sizes[-2] / sizes[-1])


SIZES = 0.1 * 0.5 ** np.arange(6)


def test_a_linear_loss_is_left_along_its_weight():
    x, w = jnp.zeros(2), jnp.array([3.0, 4.0])
    got = fast_gradient_perturbation(lambda x: w @ x, x, 0.5)
    np.testing.assert_allclose(got, [0.3, 0.4], rtol=1e-6)
    got = fast_gradient_perturbation(lambda x: w @ x, x, 0.5, normalize=False)
    np.testing.assert_allclose(got, [1.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("normalize", "power", "wanted"),
    [(True, 1, 2.0), (False, 2, 2.0), (True, 2, 1.0), (False, 1, 1.0)],
    ids=["norm", "square", "not the square", "not the norm"],
)
def test_the_loss_rises_by_the_norm_of_the_gradient(normalize, power, wanted):
    with jax.enable_x64(True):
        params, x = example()
        norm = np.linalg.norm(jax.grad(loss_fn, 1)(params, x))

        @jax.jit
        def rise(epsilon):
            r = fast_gradient_perturbation(
                lambda x: loss_fn(params, x), x, epsilon, normalize=normalize
            )
            return loss_fn(params, x + r) - loss_fn(params, x)

        errors = [abs(float(rise(e)) - e * norm**power) for e in SIZES]
    assert order(SIZES, errors) == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize(
    ("normalize", "coefficient", "wanted"),
    [(True, 1.0, 2.0), (False, 0.5, 2.0), (True, 0.5, 1.0), (False, 1.0, 1.0)],
    ids=["norm", "half the square", "not half the norm", "not the square"],
)
def test_a_constant_direction_trains_on_a_penalty(normalize, coefficient, wanted):
    with jax.enable_x64(True):
        params, x = example()

        def penalty(params):
            square = jnp.sum(jax.grad(loss_fn, 1)(params, x) ** 2)
            return coefficient * (jnp.sqrt(square) if normalize else square)

        def perturbed(params, epsilon):
            r = fast_gradient_perturbation(
                lambda x: loss_fn(params, x), x, epsilon, normalize=normalize
            )
            return loss_fn(params, x + r)

        plain, extra = jax.grad(loss_fn)(params, x), jax.grad(penalty)(params)
        gradient = jax.jit(jax.grad(perturbed))
        errors = []
        for size in SIZES:
            predicted = jax.tree.map(lambda a, b: a + size * b, plain, extra)  # noqa: B023
            wrong = jax.tree.map(jnp.subtract, gradient(params, size), predicted)
            errors.append(max(float(jnp.abs(leaf).max()) for leaf in wrong))
    assert order(SIZES, errors) == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1.0, 1e25, 1e30, 8e37])
def test_the_norm_neither_vanishes_nor_overflows(scale):
    weight = jnp.array([3.0, -4.0])
    got = fast_gradient_perturbation(lambda x: scale * (weight @ x), jnp.ones(2), 0.5)
    np.testing.assert_allclose(got, [0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_kept_and_normalised_in_float32(dtype):
    x = jnp.ones(4096, dtype)  # 4096 * 200**2 overflows float16
    got = fast_gradient_perturbation(lambda x: 200 * jnp.sum(x), x, 2.0)
    assert got.dtype == dtype
    np.testing.assert_array_equal(np.asarray(got, np.float32), 2.0 / 64.0)


@pytest.mark.parametrize("normalize", [True, False])
def test_at_a_stationary_point_all_derivatives_are_finite(normalize):
    def perturbed(x):
        r = fast_gradient_perturbation(
            lambda x: jnp.sum(x**2),
            x,
            0.1,
            normalize=normalize,
            through_direction=True,
        )
        return jnp.sum(x + r) + jnp.sum((x + r) ** 2)

    x = jnp.zeros(3)
    r = fast_gradient_perturbation(lambda x: jnp.sum(x**2), x, 0.1, normalize=normalize)
    np.testing.assert_array_equal(r, 0.0)
    assert jnp.isfinite(jax.jit(jax.grad(perturbed))(x)).all()
    assert jnp.isfinite(jax.jit(jax.hessian(perturbed))(x)).all()


def perturbed_loss(loss_fn, through_direction=True, normalize=True):
    def loss(params, x):
        r = fast_gradient_perturbation(
            lambda x: loss_fn(params, x),
            x,
            0.3,
            normalize=normalize,
            through_direction=through_direction,
        )
        return loss_fn(params, x + r)

    return loss


@pytest.mark.parametrize(
    "check",
    testing.loss_checks(
        loss_fn,
        jax.tree.map(lambda a: a.astype(jnp.float32), example()),
        argnums=(0, 1),
        wrap=perturbed_loss,
        second_order=True,
        exempt={"low_precision": "this loss returns the dtype of its input"},
    ),
    ids=lambda check: check.name,
)
def test_a_perturbed_loss_conforms(check):
    check()


def test_no_derivative_flows_through_the_direction_unless_asked_for():
    with jax.enable_x64(True):
        params, x = example()
        r = fast_gradient_perturbation(lambda x: loss_fn(params, x), x, 0.3)
        as_constant = jax.grad(lambda p: loss_fn(p, x + np.asarray(r)))(params)
        got = jax.grad(perturbed_loss(loss_fn, through_direction=False))(params, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), got, as_constant)
        full = jax.grad(perturbed_loss(loss_fn))(params, x)
        assert not np.allclose(full[0], got[0], rtol=1e-3)


def test_a_pytree_has_one_norm():
    x = {"a": jnp.zeros(1), "b": (jnp.zeros((1, 1)),)}
    got = fast_gradient_perturbation(
        lambda x: 3 * x["a"][0] - 4 * x["b"][0][0, 0], x, 5.0
    )
    np.testing.assert_allclose(got["a"], [3.0], rtol=1e-6)
    np.testing.assert_allclose(got["b"][0], [[-4.0]], rtol=1e-6)


def test_vmap_makes_one_norm_for_each_example():
    x = jnp.arange(1.0, 7.0).reshape(3, 2)
    got = jax.vmap(
        lambda x: fast_gradient_perturbation(lambda x: jnp.sum(x**2), x, 0.1)
    )(x)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(got, 0.1 * np.asarray(x) / norms, rtol=1e-6)


@pytest.mark.parametrize("leading", [2.0, 0.5])
def test_gaussian_noise_adds_half_the_variance_times_the_laplacian(
    leading, monkeypatch
):
    """Gauss-Hermite nodes in place of the draws make the expectation exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    grid = np.stack(np.meshgrid(*[nodes] * 3, indexing="ij"), -1).reshape(-1, 3)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * 3), -1).reshape(-1, 3), axis=1)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: grid)
    with jax.enable_x64(True):
        params, x = example()
        laplacian = jnp.trace(jax.hessian(loss_fn, 1)(params, x))
        xs = jnp.broadcast_to(x, grid.shape)
        errors = []
        for size in SIZES[1:]:
            r = gaussian_perturbation(jax.random.key(0), xs, size)
            values = jax.vmap(loss_fn, (None, 0))(params, xs + r)
            mean = mass @ np.asarray(values) / mass.sum()
            predicted = loss_fn(params, x) + leading * size**2 * laplacian
            errors.append(abs(float(mean - predicted)))
    wanted = 4.0 if leading == 0.5 else 2.0
    assert order(SIZES[1:], errors) == pytest.approx(wanted, abs=0.1)


def test_gaussian_noise_is_normal_and_depends_on_the_key():
    x = {"a": jnp.zeros((50, 40)), "b": jnp.zeros(2000)}
    got = gaussian_perturbation(jax.random.key(0), x, 3.0)
    other = gaussian_perturbation(jax.random.key(1), x, 3.0)
    assert jax.tree.map(jnp.shape, got) == {"a": (50, 40), "b": (2000,)}
    a, b, c = (np.ravel(z) for z in (got["a"], got["b"], other["b"]))
    assert stats.kstest(np.concatenate([a, b]) / 3, "norm").pvalue > 1e-3
    for one, two in ((a, b), (b, c)):  # drawn independently
        assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(2000)
    again = gaussian_perturbation(jax.random.key(0), x, 3.0)
    np.testing.assert_array_equal(again["b"], got["b"])


def test_noise_without_a_deviation_is_zero():
    noise = gaussian_perturbation(jax.random.key(0), {"x": jnp.ones(3)}, 0)
    np.testing.assert_array_equal(noise["x"], 0.0)
    with pytest.raises(ValueError, match="stddev must be at least 0, got -1"):
        gaussian_perturbation(jax.random.key(0), jnp.ones(3), -1)


def test_gaussian_noise_is_rounded_once_to_the_dtype_of_the_input():
    key, wide = jax.random.key(3), jnp.zeros(1000)
    expected = gaussian_perturbation(key, wide, 0.1).astype(jnp.bfloat16)
    got = gaussian_perturbation(key, wide.astype(jnp.bfloat16), 0.1)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fast_gradient_perturbation(jnp.sum, jnp.ones(2), -0.1),
            ValueError,
            "epsilon must be at least 0, got -0.1",
        ),
        (
            lambda: fast_gradient_perturbation(jnp.sum, jnp.ones(2), float("nan")),
            ValueError,
            "epsilon must be at least 0, got nan",
        ),
        (
            lambda: fast_gradient_perturbation(jnp.sum, jnp.ones(2, int), 0.1),
            TypeError,
            "x must be real floating-point, got int32",
        ),
        (
            lambda: fast_gradient_perturbation(lambda x: x**2, jnp.ones(2), 0.1),
            ValueError,
            r"loss_fn must return a scalar, got shape \(2,\)",
        ),
        (
            lambda: gaussian_perturbation(jax.random.key(0), jnp.ones(2), -1.0),
            ValueError,
            "stddev must be at least 0, got -1.0",
        ),
        (
            lambda: gaussian_perturbation(jax.random.key(0), jnp.ones(2, int), 1.0),
            TypeError,
            "x must be real floating-point, got int32",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
