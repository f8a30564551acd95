import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit.testing import (
    finite_difference_gradient,
    finite_difference_hessian_vector,
    inner_product,
    random_direction,
)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("order", [2, 4])
def test_the_error_has_the_stated_order(order):
    x, v = jnp.float64(0.3), jnp.float64(1.0)

    def error(step):
        got = finite_difference_gradient(jnp.exp, x, v, step, order=order)
        return abs(float(got) - np.exp(0.3))

    rate = np.log2(error(0.1) / error(0.05))
    np.testing.assert_allclose(rate, order, atol=0.02)


@pytest.mark.parametrize(("order", "degree"), [(2, 2), (4, 4)])
def test_polynomials_up_to_the_order_are_exact(order, degree):
    x = jnp.linspace(-1.0, 1.0, 5)
    got = finite_difference_gradient(
        lambda x: x**degree, x, jnp.ones(5), 0.5, order=order
    )
    np.testing.assert_allclose(got, degree * x ** (degree - 1), atol=1e-14)


def test_the_default_step_leaves_twelve_digits():
    x = {"a": jnp.array([0.2, -0.7]), "b": (jnp.float64(0.4),)}
    direction = random_direction(x, seed=3)

    def fn(x):
        return jnp.sum(jnp.sin(x["a"])) * jnp.exp(x["b"][0])

    got = finite_difference_gradient(fn, x, direction)
    expected = inner_product(jax.grad(fn)(x), direction)
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_array_valued_functions_give_the_jacobian_vector_product():
    matrix = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    got = finite_difference_gradient(
        lambda x: matrix @ x, jnp.ones(2), jnp.array([1.0, -1.0])
    )
    np.testing.assert_allclose(got, [-1.0, -1.0, -1.0], rtol=1e-11)


def test_hessian_vector_of_a_quadratic_is_its_matrix_times_the_vector():
    matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
    got = finite_difference_hessian_vector(
        lambda x: 0.5 * x @ matrix @ x, jnp.array([0.3, 0.4]), jnp.array([1.0, 2.0])
    )
    np.testing.assert_allclose(got, [4.0, 7.0], rtol=1e-10)


def test_random_directions_have_unit_norm_and_follow_the_seed():
    x = [jnp.zeros((3, 2)), jnp.zeros(()), jnp.zeros((0,))]
    direction = random_direction(x, seed=1)
    np.testing.assert_allclose(inner_product(direction, direction), 1.0, rtol=1e-12)
    assert [leaf.dtype for leaf in direction] == [leaf.dtype for leaf in x]
    other = random_direction(x, seed=2)
    assert abs(float(inner_product(direction, other))) < 0.999
    assert inner_product(random_direction([]), []) == 0.0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="order must be 2 or 4, got 3"):
        finite_difference_gradient(jnp.sin, 0.0, 1.0, order=3)
    with pytest.raises(ValueError, match=r"step must be positive, got -0\.1"):
        finite_difference_gradient(jnp.sin, 0.0, 1.0, -0.1)
