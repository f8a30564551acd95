"""Implicit regularisers against closed forms and dense derivatives."""

import re

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from expkit import testing

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(5, 5)) / 3
MATRIX = ROOT @ ROOT.T + 0.1 * np.eye(5)
POINT = RNG.normal(size=5)


def quadratic(theta):
    return theta @ jnp.asarray(MATRIX, theta.dtype) @ theta / 2


def network(params, batch, scale=1.0):
    x, y = batch
    w, v = params
    return scale * jnp.mean((jnp.tanh(x @ w) @ v - y) ** 2)


PARAMS = (
    jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
    jnp.asarray(RNG.normal(size=4), jnp.float32),
)
BATCHES = (
    jnp.asarray(RNG.normal(size=(4, 6, 3)), jnp.float32),
    jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32),
)
BATCH = jax.tree.map(lambda leaf: leaf[0], BATCHES)


def test_regularizer_of_a_quadratic_is_the_mean_square_of_its_gradient():
    got = jax.jit(igr.implicit_regularizer(quadratic))(np.float32(POINT))
    np.testing.assert_allclose(got, np.mean((MATRIX @ POINT) ** 2), rtol=1e-5)


def test_regularizer_is_zero_without_parameters():
    assert igr.implicit_regularizer(lambda p: jnp.float32(1.0))({}) == 0.0


def test_regularizer_of_one_parameter_is_its_squared_slope():
    got = igr.implicit_regularizer(lambda p: p**3)(jnp.float32(2.0))
    np.testing.assert_allclose(got, 12.0**2, rtol=1e-6)


def test_modified_loss_of_a_quadratic_has_the_closed_form():
    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(igr.modified_loss(quadratic, 0.3)))
        value, gradient = evaluate(POINT)
    plain = POINT @ MATRIX @ POINT / 2
    slope = MATRIX @ POINT
    np.testing.assert_allclose(value, plain + 0.075 * slope @ slope, rtol=1e-13)
    np.testing.assert_allclose(gradient, slope + 0.15 * MATRIX @ slope, rtol=1e-13)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_modified_losses_agree_with_the_eigenvalues_of_a_quadratic(momentum):
    """A step of heavy ball multiplies by the larger root of z^2-(1+b-hl)z+b=0."""
    rate, curvature = 1e-5, 3.0
    middle = 1 + momentum - rate * curvature
    root = (middle + np.sqrt(middle**2 - 4 * momentum)) / 2
    time = rate / (1 - momentum)

    def gradient(rate, momentum):
        loss = igr.modified_loss(
            lambda t: curvature * t**2 / 2, rate, momentum=momentum
        )
        return jax.grad(loss)(jnp.float64(1.0))

    with jax.enable_x64(True):
        evaluate = jax.jit(gradient, static_argnums=1)
        got, control = float(evaluate(rate, momentum)), float(evaluate(time, 0.0))
    exact = -np.log(root) / time - curvature
    np.testing.assert_allclose(got - curvature, exact, rtol=1e-2)
    if momentum:
        assert abs((control - curvature) / exact - 1) > 0.5


def test_flows_of_a_quadratic_are_the_taylor_terms_of_its_logarithm():
    """A step multiplies by 1 - h l; the flow that does this decays at -log(1-hl)/h."""
    rate, curvature = 0.1, 0.7
    terms = [curvature, rate * curvature**2 / 2, rate**2 * curvature**3 / 3]
    with jax.enable_x64(True):
        for order in (1, 2, 3):
            flow = igr.modified_flow(lambda t: curvature * t**2 / 2, rate, order)
            got = jax.jit(flow)(np.float64(2.0))
            np.testing.assert_allclose(got, -2.0 * sum(terms[:order]), rtol=1e-14)


def test_third_order_flow_is_that_of_dense_derivatives():
    with jax.enable_x64(True):
        params = jnp.asarray(RNG.normal(size=16))
        batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), BATCH)

        def loss(p):
            return network((p[:12].reshape(3, 4), p[12:]), batch)

        @jax.jit
        def dense(p):
            g, h = jax.grad(loss)(p), jax.hessian(loss)(p)
            third = jnp.einsum("ijk,j,k->i", jax.jacfwd(jax.hessian(loss))(p), g, g)
            return -(g + 0.1 * h @ g + 0.04 * (h @ h @ g / 3 + third / 12))

        wanted = dense(params)
        got = jax.jit(igr.modified_flow(loss, 0.2, order=3))(params)
        np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-13)


def test_second_order_flow_descends_the_modified_loss():
    flow = jax.jit(igr.modified_flow(network, 0.2, order=2))
    gradient = jax.jit(jax.grad(igr.modified_loss(network, 0.2)))
    flow = flow(PARAMS, BATCH, scale=0.5)
    gradient = gradient(PARAMS, BATCH, scale=0.5)
    wanted = jax.tree.map(jnp.negative, gradient)
    testing.assert_trees_close(flow, wanted, "flow", rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_flow_keeps_the_dtype_of_every_parameter(order):
    params = (PARAMS[0].astype(jnp.bfloat16), PARAMS[1])
    got = jax.eval_shape(igr.modified_flow(network, 0.1, order), params, BATCH)
    assert [x.dtype for x in got] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_flow_is_differentiable_in_a_batch_of_learning_rates(order):
    def speed(rate):
        return igr.modified_flow(quadratic, rate, order)(point)[0]

    with jax.enable_x64(True):
        point = jnp.asarray(POINT)
        rates = jnp.array([0.0, 0.1])
        slopes = jax.jit(jax.vmap(jax.grad(speed)))(rates)
        square = MATRIX @ MATRIX @ POINT
        cube = MATRIX @ square
        wanted = [[0, 0], *2 * [[-square[0] / 2] * 2]][order - 1]
        wanted = np.array(wanted) - (order == 3) * 2 / 3 * rates * cube[0]
        np.testing.assert_allclose(slopes, wanted, rtol=1e-12, atol=1e-14)


def test_losses_are_differentiable_in_a_batch_of_learning_rates():
    point, rates = jnp.asarray(POINT, jnp.float32), jnp.array([0.0, 0.1])
    scales = jnp.array([1.0, 2.0])

    def scaled(theta, scale):
        return scale * quadratic(theta)

    def stochastic(rate):
        return igr.stochastic_modified_loss(scaled, rate)(point, scales)

    def full(rate):
        return igr.modified_loss(quadratic, rate)(point)

    square = np.sum((MATRIX @ POINT) ** 2) / 4
    for loss, wanted in ((full, square), (stochastic, 2.5 * square)):
        slopes = jax.jit(jax.vmap(jax.grad(loss)))(rates)
        np.testing.assert_allclose(slopes, [wanted] * 2, rtol=1e-5)


@pytest.mark.optimized
def test_flow_of_second_order_costs_one_product_more_than_a_gradient():
    wide = (jnp.ones((3, 64)), jnp.ones(64))
    cost = [
        jax.jit(igr.modified_flow(network, 0.1, order))
        .lower(wide, BATCH)
        .compile()
        .cost_analysis()["flops"]
        for order in (1, 2)
    ]
    assert cost[1] <= 4 * cost[0]  # a Hessian of 256 columns would cost 500


LOSSES = {
    "implicit_regularizer": (igr.implicit_regularizer, BATCH, {}),
    "modified_loss": (
        lambda fn: igr.modified_loss(fn, 0.1, momentum=0.5),
        BATCH,
        {},
    ),
    "stochastic_modified_loss": (
        lambda fn: igr.stochastic_modified_loss(fn, 0.1),
        BATCHES,
        {"no_recompilation": "an eager scan compiles its body anew at every call"},
    ),
}
LONG = (
    "closes_over_traced_arrays",
    "jit_equals_eager",
    "low_precision",
    "second_derivative_matches_finite_differences",
    "vmap_equals_loop",
)


def cases():
    """The checks of each loss; those with long compilations are for slow runs."""
    for name, (wrap, batch, exempt) in LOSSES.items():
        checks = testing.loss_checks(
            network,
            (PARAMS, batch),
            kwargs={"scale": jnp.float32(0.8)},
            wrap=wrap,
            extremes=(0.0, 10.0, -10.0),
            second_order=True,
            rtol=1e-4,
            atol=1e-5,
            exempt=exempt,
        )
        # A modified loss is a penalised one: test_penalty.py checks the rest of it.
        slow = () if name == "implicit_regularizer" else LONG
        yield from conformance.cases(checks, name, slow=slow)


@pytest.mark.parametrize("check", list(cases()))
def test_losses_conform(check):
    check()


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "make", [igr.modified_loss, igr.stochastic_modified_loss, igr.modified_flow]
)
def test_learning_rate_out_of_range_is_refused(make, rate):
    with pytest.raises(ValueError, match=f"learning_rate must be .* got {rate}"):
        make(quadratic, rate)


def test_learning_rates_of_several_parameters_are_refused():
    with pytest.raises(ValueError, match=r"learning_rate .* got shape \(2,\)"):
        igr.modified_flow(quadratic, jnp.ones(2))


def test_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match=r"momentum must be .* got 1.0"):
        igr.modified_loss(quadratic, 0.1, momentum=1.0)


@pytest.mark.parametrize("order", [0, 4, "2", 2.0, True, np.float32(2)])
def test_unknown_order_is_refused(order):
    message = f"order must be 1, 2 or 3, got {order!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        igr.modified_flow(quadratic, 0.1, order)


@pytest.mark.parametrize(
    "make",
    [
        igr.implicit_regularizer,
        lambda fn: igr.modified_loss(fn, 0.1),
        lambda fn: igr.modified_flow(fn, 0.1),
    ],
    ids=["regularizer", "loss", "flow"],
)
def test_losses_that_are_no_scalar_and_integer_parameters_are_refused(make):
    with pytest.raises(ValueError, match="loss_fn must return one"):
        make(lambda p: p)(jnp.ones(2))
    with pytest.raises(TypeError, match="floating-point arrays, got int32"):
        make(lambda p: jnp.sum(p * 1.0))(jnp.arange(2))
