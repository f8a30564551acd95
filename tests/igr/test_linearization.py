"""Values, gradients and Hessian-vector products of one call against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr import attached, linearization

RNG = np.random.default_rng(0)
A, D = RNG.normal(size=3), RNG.normal(size=3)
B = RNG.normal(size=(2, 3))


def make_call(target=(0,)):
    """The loss sum(a^3) + sum((B a)^2) + n, of floats a and B and of an integer n."""

    def loss(floats, others):
        a, b = floats
        return jnp.sum(a**3) + jnp.sum((b @ a) ** 2) + others[0], None

    floats, others = [jnp.asarray(A), jnp.asarray(B)], [jnp.int32(2)]
    return attached.Call(loss, floats, others, list(target))


def by_a():
    return 3 * A**2 + 2 * B.T @ B @ A


def by_b():
    return 2 * np.outer(B @ A, A)


def products():
    """The derivatives of both gradients along D in a."""
    first = 6 * A * D + 2 * B.T @ B @ D
    return first, 2 * np.outer(B @ D, A) + 2 * np.outer(B @ A, D)


VALUE = np.sum(A**3) + np.sum((B @ A) ** 2) + 2


@pytest.mark.parametrize("wanted", [[], [0], [1], [0, 1]])
def test_what_is_wanted_comes_in_order(wanted):
    with jax.enable_x64(True):
        near = linearization.linearize(make_call(), wanted)
        got = near.push([jnp.asarray(D)])
    np.testing.assert_allclose(near.loss, VALUE, rtol=1e-14)
    np.testing.assert_allclose(near.slopes[0], by_a(), rtol=1e-13)
    assert len(near.slopes) == 1
    gradients = [(by_a(), by_b())[i] for i in wanted]
    expected = [products()[i] for i in wanted]
    for name, values, terms in (
        ("gradients", near.gradients, gradients),
        ("products", got, expected),
    ):
        assert len(values) == len(wanted)
        for value, term in zip(values, terms, strict=True):
            np.testing.assert_allclose(value, term, rtol=1e-12, err_msg=name)


def test_several_arrays_may_be_the_target():
    with jax.enable_x64(True):
        near = linearization.linearize(make_call(target=(0, 1)), [0])
        got = near.push([jnp.asarray(D), jnp.zeros((2, 3))])
        both = near.push([jnp.asarray(D), jnp.asarray(B)])
    np.testing.assert_allclose(near.slopes[1], by_b(), rtol=1e-13)
    np.testing.assert_allclose(got[0], products()[0], rtol=1e-12)
    # Along B, the gradient 2 B'B a doubles in either factor.
    expected = products()[0] + 4 * B.T @ B @ A
    np.testing.assert_allclose(both[0], expected, rtol=1e-12)


@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_a_difference_has_the_error_of_its_step(step):
    with jax.enable_x64(True):
        near = linearization.difference(make_call(), [0, 1], step)
        got = near.push([jnp.asarray(D)])
        doubled = near.push([jnp.asarray(2 * D)])
    np.testing.assert_allclose(near.loss, VALUE, rtol=1e-14)
    np.testing.assert_allclose(near.gradients[1], by_b(), rtol=1e-13)
    # The third derivative adds 3 t d^2 to a step t d with a gradient 3 a^2.
    norm = np.linalg.norm(D)
    first, second = products()
    error = 3 * step / norm * D**2
    np.testing.assert_allclose(got[0], first + error, rtol=1e-9)
    assert np.abs(error).max() > 1e-5  # the control: it is not the exact product
    error = 2 * step / norm * np.outer(B @ D, D)
    np.testing.assert_allclose(got[1], second + error, rtol=1e-9)
    # The distance does not depend on the length of the direction.
    np.testing.assert_allclose(doubled[0], 2 * np.asarray(got[0]), rtol=1e-9)


def test_a_direction_of_zero_gives_products_of_zero():
    @jax.jit
    def push(direction):
        return linearization.difference(make_call(), [0], 1e-2).push([direction])[0]

    np.testing.assert_array_equal(push(jnp.zeros(3)), np.zeros(3))
    assert jnp.abs(push(jnp.full(3, 1e-3))).max() > 0  # the control


def test_gradients_are_those_of_the_places_in_their_order():
    with jax.enable_x64(True):
        (loss, aux), gradients = linearization.value_and_gradient(make_call(), [1, 0])
    assert aux is None
    np.testing.assert_allclose(loss, VALUE, rtol=1e-14)
    np.testing.assert_allclose(gradients[0], by_b(), rtol=1e-13)
    np.testing.assert_allclose(gradients[1], by_a(), rtol=1e-13)
