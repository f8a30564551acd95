"""Fast gradient and Gaussian perturbations: closed forms and orders of accuracy."""

import conformance
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


gradient_in_x = jax.jit(jax.grad(loss_fn, 1))
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
        norm = np.linalg.norm(gradient_in_x(params, x))

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

        @jax.jit
        def error(params, size):
            plain, extra = jax.grad(loss_fn)(params, x), jax.grad(penalty)(params)
            wrong = jax.tree.map(
                lambda got, a, b: jnp.abs(got - (a + size * b)).max(),
                jax.grad(perturbed)(params, size),
                plain,
                extra,
            )
            return jnp.maximum(*wrong)

        errors = [float(error(params, size)) for size in SIZES]
    assert order(SIZES, errors) == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1.0, 1e25, 1e30, 8e37])
def test_the_norm_neither_vanishes_nor_overflows(scale):
    weight = jnp.array([3.0, -4.0])
    got = fast_gradient_perturbation(lambda x: scale * (weight @ x), jnp.ones(2), 0.5)
    np.testing.assert_allclose(got, [0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_kept_and_normalised_in_float32(dtype):
    x = jnp.ones(4096, dtype)  # 4096 * 200**2 overflows float16
    loss = lambda x: 200 * jnp.sum(x)  # noqa: E731
    got = jax.jit(lambda x: fast_gradient_perturbation(loss, x, 2.0))(x)
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

    @jax.jit
    def perturbation_and_derivatives(x):
        r = fast_gradient_perturbation(
            lambda x: jnp.sum(x**2), x, 0.1, normalize=normalize
        )
        return r, jax.grad(perturbed)(x), jax.hessian(perturbed)(x)

    r, slope, hessian = perturbation_and_derivatives(jnp.zeros(3))
    np.testing.assert_array_equal(r, 0.0)
    assert np.isfinite(slope).all()
    assert np.isfinite(hessian).all()


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


SLOW = ("jit_equals_eager", "vmap_equals_loop")  # to compile


@pytest.mark.parametrize(
    "check",
    conformance.cases(
        testing.loss_checks(
            loss_fn,
            jax.tree.map(lambda a: a.astype(jnp.float32), example()),
            argnums=(0, 1),
            wrap=perturbed_loss,
            second_order=True,
            exempt={"low_precision": "this loss returns the dtype of its input"},
        ),
        slow=SLOW,
    ),
)
def test_a_perturbed_loss_conforms(check):
    check()


def test_no_derivative_flows_through_the_direction_unless_asked_for():
    with jax.enable_x64(True):
        params, x = example()
        direction = jax.jit(
            lambda x: fast_gradient_perturbation(lambda x: loss_fn(params, x), x, 0.3)
        )
        moved = x + np.asarray(direction(x))
        as_constant, got, full = (
            jax.jit(jax.grad(f))(params, z)
            for f, z in (
                (loss_fn, moved),
                (perturbed_loss(loss_fn, through_direction=False), x),
                (perturbed_loss(loss_fn), x),
            )
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), got, as_constant)
        assert not np.allclose(full[0], got[0], rtol=1e-3)


def test_a_pytree_has_one_norm():
    x = {"a": jnp.zeros(1), "b": (jnp.zeros((1, 1)),)}
    loss = lambda x: 3 * x["a"][0] - 4 * x["b"][0][0, 0]  # noqa: E731
    got = jax.jit(lambda x: fast_gradient_perturbation(loss, x, 5.0))(x)
    np.testing.assert_allclose(got["a"], [3.0], rtol=1e-6)
    np.testing.assert_allclose(got["b"][0], [[-4.0]], rtol=1e-6)


def test_vmap_makes_one_norm_for_each_example():
    x = jnp.arange(1.0, 7.0).reshape(3, 2)
    one = lambda x: fast_gradient_perturbation(  # noqa: E731
        lambda x: jnp.sum(x**2), x, 0.1
    )
    got = jax.jit(jax.vmap(one))(x)
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
        xs = jnp.broadcast_to(x, grid.shape)

        @jax.jit
        def error(size):
            r = gaussian_perturbation(jax.random.key(0), xs, size)
            values = jax.vmap(loss_fn, (None, 0))(params, xs + r)
            laplacian = jnp.trace(jax.hessian(loss_fn, 1)(params, x))
            predicted = loss_fn(params, x) + leading * size**2 * laplacian
            return jnp.abs(mass @ values / mass.sum() - predicted)

        errors = [float(error(size)) for size in SIZES[1:]]
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
