"""Flooding: exact values, signs and dtypes; and what two steps of it amount to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import igr
from expkit import testing

LOSSES = jnp.array([0.5, 0.1, 0.02, 0.3, 1e-9, 2.0])


def test_value_is_that_of_numpy_in_float64():
    with jax.enable_x64(True):
        losses = np.random.default_rng(0).exponential(0.1, 1000)
        wanted = np.abs(losses - 0.07) + 0.07
        np.testing.assert_allclose(igr.flood(losses, 0.07), wanted, rtol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_loss_above_the_level_is_returned_bit_for_bit(dtype):
    """The control, the formula as it is printed, rounds."""
    losses = jnp.asarray(np.random.default_rng(0).uniform(0.02, 1.0, 999), dtype)
    flooded = igr.flood(losses, 0.02)
    assert flooded.dtype == dtype
    np.testing.assert_array_equal(flooded, losses)
    level = jnp.asarray(0.02, dtype)
    assert np.any(np.asarray(abs(losses - level) + level) != np.asarray(losses))


def test_gradient_is_the_sign_of_the_distance_to_the_level():
    level = 0.1
    gradient = jax.vmap(jax.grad(igr.flood), (0, None))(LOSSES, level)
    np.testing.assert_array_equal(gradient, [1.0, 0.0, -1.0, 1.0, -1.0, 1.0])


def test_gradient_in_the_level_is_one_minus_that_in_the_loss():
    gradient = jax.vmap(jax.grad(igr.flood, argnums=1), (0, None))(LOSSES, 0.1)
    np.testing.assert_array_equal(gradient, [0.0, 1.0, 2.0, 0.0, 2.0, 0.0])


def test_levels_apply_per_group_and_per_example():
    losses = LOSSES.reshape(3, 2)
    groups = igr.flood(losses, jnp.array([0.2, 0.05]))
    np.testing.assert_allclose(groups, [[0.5, 0.1], [0.38, 0.3], [0.4, 2.0]], rtol=1e-6)
    examples = igr.flood(losses, jnp.array([[0.6], [0.0], [0.0]]))
    np.testing.assert_allclose(
        examples, [[0.7, 1.1], [0.02, 0.3], [1e-9, 2.0]], rtol=1e-6
    )


def test_mean_of_flooded_losses_is_not_the_flooded_mean():
    """Jensen: flooding is convex, so per example it is at least as large."""
    each, mean = jnp.mean(igr.flood(LOSSES, 0.2)), igr.flood(jnp.mean(LOSSES), 0.2)
    assert each > mean + 0.1


def test_nan_stays_and_infinities_are_reflected():
    losses = jnp.array([jnp.nan, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(igr.flood(losses, 0.1), [jnp.nan, jnp.inf, jnp.inf])


def test_level_of_minus_infinity_never_floods():
    np.testing.assert_array_equal(igr.flood(LOSSES, -jnp.inf), LOSSES)
    gradient = jax.grad(lambda x: igr.flood(x, -jnp.inf))(0.3)
    assert gradient == 1.0


@pytest.mark.parametrize("level", [float("nan"), float("inf"), [0.1, float("nan")]])
def test_levels_that_are_no_level_are_refused(level):
    with pytest.raises(ValueError, match="level must be a number below infinity, got"):
        igr.flood(jnp.ones(2), jnp.array(level) if isinstance(level, list) else level)


def test_levels_that_are_traced_in_part_are_traced():
    flooded = jax.jit(lambda level: igr.flood(jnp.array([0.1, 0.3]), [0.2, level]))
    np.testing.assert_allclose(flooded(0.5), [0.3, 0.7], rtol=1e-6)


@pytest.mark.parametrize("level", ["a", None, 1j, True])
def test_levels_that_are_no_numbers_are_refused(level):
    with pytest.raises(TypeError, match="level must be real numbers, got"):
        igr.flood(jnp.ones(2), level)


@pytest.mark.parametrize("shape", [(2,), (3, 1)])
def test_levels_for_more_losses_than_there_are_are_refused(shape):
    loss = jnp.ones(3) if shape == (3, 1) else jnp.float32(1.0)
    with pytest.raises(ValueError, match="level must broadcast to the shape of loss"):
        igr.flood(loss, jnp.zeros(shape))


def test_integer_losses_are_refused():
    with pytest.raises(TypeError, match="loss must be floating-point, got int32"):
        igr.flood(jnp.arange(3), 0.1)


@pytest.mark.parametrize(
    "check",
    testing.loss_checks(
        igr.flood,
        (LOSSES, jnp.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1])),
        elementwise=True,
    ),
    ids=lambda check: check.name,
)
def test_flooding_conforms(check):
    check()


def network(params):
    """Loss of a tanh network of 40 parameters on fixed data."""
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(8, n))) for n in (3, 2))
    w = params[:24].reshape(3, 8)
    v = params[24:].reshape(8, 2)
    return jnp.mean(jnp.sum((jnp.tanh(x @ w) @ v - y) ** 2, axis=-1)) / 2


START = np.random.default_rng(2).normal(size=40)
HALVINGS = 0.5 ** np.arange(6)


def two_flooded_steps(optimizer, params):
    """A step down and a step up: the level lies between the losses of the two."""
    gradient = jax.grad(network)(params)
    state = optimizer.init(params)
    first, _ = optimizer.update(gradient, state, params)
    level = (network(params) + network(params + first)) / 2
    for _ in range(2):
        gradient = jax.grad(lambda p: igr.flood(network(p), level))(params)
        updates, state = optimizer.update(gradient, state, params)
        params = params + updates
    return params


def observed_order(make_optimizer, rates):
    """Order of the distance between two flooded steps and one penalty step."""
    params = jnp.asarray(START)

    @jax.jit
    def distance(rate):
        penalty = jax.grad(igr.with_gradient_penalty(network, 1.0))
        direction = penalty(params) - jax.grad(network)(params)
        wanted = params - rate**2 / 2 * direction
        got = two_flooded_steps(make_optimizer(rate), params)
        return jnp.linalg.norm(got - wanted)

    errors = [float(distance(rate)) for rate in rates]
    return np.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(
    ("make_optimizer", "order"),
    [
        (optax.sgd, 3),
        (lambda rate: optax.sgd(rate, momentum=0.9), 1),
        (optax.adam, 1),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_down_and_up_are_a_penalty_step_for_plain_gradient_descent_alone(
    make_optimizer, order
):
    with jax.enable_x64(True):
        got = observed_order(make_optimizer, 0.05 * HALVINGS)
    assert got == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("factor", "order"), [(1.0, 3), (0.5, 2)])
def test_a_shorter_step_up_leaves_descent_on_a_penalised_loss(factor, order):
    """With steps e1 > e2: rate e1 - e2 and penalty e1 e2 / (2 (e1 - e2)); no other."""
    ratio = 0.4

    @jax.jit
    def distance(down):
        up = ratio * down
        params = jnp.asarray(START)
        middle = params - down * jax.grad(network)(params)
        got = middle + up * jax.grad(network)(middle)
        coefficient = factor * down * up / (2 * (down - up))
        loss = igr.with_gradient_penalty(network, coefficient)
        wanted = params - (down - up) * jax.grad(loss)(params)
        return jnp.linalg.norm(got - wanted)

    with jax.enable_x64(True):
        errors = [float(distance(rate)) for rate in 0.05 * HALVINGS]
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.1)


def test_a_level_may_be_a_traced_parameter_of_flax():
    level = jax.jit(lambda b: igr.flood(1.0, nnx.Param(b)))
    assert level(3.0) == 5.0
