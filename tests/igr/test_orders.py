"""Orders of accuracy in float64: steps of gradient descent against scipy's flows."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import integrate

import igr

NUM_HALVINGS = 5


def network(p, batch):
    x, y = batch
    hidden = jnp.tanh(x @ p["w1"] + p["b1"][None])
    return jnp.mean(jnp.sum((hidden @ p["w2"] + p["b2"][None] - y) ** 2, axis=-1)) / 2


def network_problem(num_batches=None):
    """A tanh network of 52 parameters at a random point, and data for it."""
    rng = np.random.default_rng(0)
    lead = (8,) if num_batches is None else (num_batches, 4)
    shapes = {"w1": (3, 6), "b1": (6,), "w2": (6, 4), "b2": (4,)}
    params = {k: jnp.asarray(0.7 * rng.normal(size=s)) for k, s in shapes.items()}
    batch = [jnp.asarray(rng.normal(size=(*lead, n))) for n in (3, 4)]
    return params, tuple(batch)


def product_model(p, batch):
    """The paper's model: two weights in a row, one data point."""
    x, y = batch
    return (y - p[0] * p[1] * x) ** 2 / 2


def problem(name):
    """`(loss, params, batch, largest learning rate)`."""
    if name == "network":
        return network, *network_problem(), 0.08
    start, rate = {
        "near": ((2.8, 3.5), 0.02),
        "far": ((75.0, 74.925), 2e-5),
    }[name]
    return product_model, jnp.array(start), (jnp.float64(1.0), jnp.float64(0.6)), rate


def rates(largest):
    return largest * 0.5 ** np.arange(NUM_HALVINGS + 1)


def follow(field, start, rate, time):
    """Where the flow `field(vector, rate)` is after a time."""
    flat = np.asarray(ravel_pytree(start)[0])
    solution = integrate.solve_ivp(
        lambda _, v: np.asarray(field(v, rate)),
        (0.0, float(time)),
        flat,
        method="DOP853",
        rtol=1e-13,
        atol=1e-15 * max(1.0, np.abs(flat).max()),
    )
    assert solution.success
    return solution.y[:, -1]


def compiled(field, start):
    """A field of trees as one of vectors."""
    unravel = ravel_pytree(start)[1]
    return jax.jit(lambda v, rate: ravel_pytree(field(unravel(v), rate))[0])


def observed_order(errors):
    """From the last two errors, where the step is smallest."""
    assert np.all(np.diff(errors) < 0)
    return np.log2(errors[-2] / errors[-1])


@functools.partial(jax.jit, static_argnums=0)
def descend(loss, params, rate, batch, num_steps=1):
    def step(_, p):
        return jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p, batch))

    return ravel_pytree(jax.lax.fori_loop(0, num_steps, step, params))[0]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["network", "near", "far"])
def test_one_step_differs_from_the_flow_of_order_n_by_order_n_plus_one(name, order):
    with jax.enable_x64(True):
        loss, params, batch, largest = problem(name)
        field = compiled(
            lambda p, h: igr.modified_flow(loss, h, order)(p, batch), params
        )
        errors = [
            np.linalg.norm(
                follow(field, params, h, h)
                - np.asarray(descend(loss, params, h, batch))
            )
            for h in rates(largest)
        ]
        assert observed_order(errors) == pytest.approx(order + 1, abs=0.1)


def flow_without(term):
    """Field of order 3 without one of its three corrections."""

    def field(loss, h, params):
        g = jax.grad(loss)
        slope = g(params)
        hg, third = jax.jvp(
            lambda p: jax.jvp(g, (p,), (slope,))[1], (params,), (slope,)
        )
        hhg = jax.jvp(g, (params,), (hg,))[1]
        c = np.array([1 / 2, 1 / 3, 1 / 12])
        c[term] = 0.0
        return -(slope + c[0] * h * hg + h**2 * (c[1] * hhg + c[2] * third))

    return field


@pytest.mark.parametrize(("term", "order"), [(0, 2), (1, 3), (2, 3)])
def test_without_any_one_of_its_terms_the_third_order_is_lost(term, order):
    """The control."""
    with jax.enable_x64(True):
        loss, params, batch, largest = problem("far")
        field = compiled(
            lambda p, h: flow_without(term)(lambda q: loss(q, batch), h, p), params
        )
        errors = [
            np.linalg.norm(
                follow(field, params, h, h)
                - np.asarray(descend(loss, params, h, batch))
            )
            for h in rates(largest)
        ]
        assert observed_order(errors) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["network", "near"])
def test_after_a_fixed_time_the_flow_of_order_n_is_off_by_order_n(name, order):
    with jax.enable_x64(True):
        loss, params, batch, largest = problem(name)
        field = compiled(
            lambda p, h: igr.modified_flow(loss, h, order)(p, batch), params
        )
        steps = 4 * 2 ** np.arange(NUM_HALVINGS + 1)
        time = 4 * largest
        errors = [
            np.linalg.norm(
                follow(field, params, time / n, time)
                - np.asarray(descend(loss, params, time / n, batch, n))
            )
            for n in steps
        ]
        assert observed_order(errors) == pytest.approx(order, abs=0.1)


@jax.jit
def mean_over_orders(params, batches, rate):
    """End of an epoch of SGD, the mean over all orders of the batches."""
    num_batches = len(batches[0])
    orders = jnp.array(list(itertools.permutations(range(num_batches))))

    def epoch(order):
        def step(p, k):
            g = jax.grad(network)(p, jax.tree.map(lambda x: x[k], batches))
            return jax.tree.map(lambda a, b: a - rate * b, p, g), None

        return ravel_pytree(jax.lax.scan(step, params, order)[0])[0]

    return jnp.mean(jax.vmap(epoch)(orders), axis=0)


def mean_loss(params, batches):
    return jnp.mean(jax.vmap(lambda b: network(params, b))(batches))


SMITH = {
    "each batch's gradient": (
        lambda h: igr.stochastic_modified_loss(network, h),
        3,
    ),
    "the gradient of the mean": (lambda h: igr.modified_loss(mean_loss, h), 2),
    "no gradient": (lambda h: mean_loss, 2),
}


@pytest.mark.parametrize("num_batches", [3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("penalty", SMITH)
def test_the_mean_epoch_follows_the_squares_of_the_batches_gradients(
    num_batches, penalty
):
    """The penalty on the gradient of the mean, the control, loses an order."""
    make, order = SMITH[penalty]
    with jax.enable_x64(True):
        params, batches = network_problem(num_batches)
        field = compiled(
            lambda p, h: jax.tree.map(
                jnp.negative, jax.grad(make(h))(p, jax.lax.stop_gradient(batches))
            ),
            params,
        )
        errors = [
            np.linalg.norm(
                follow(field, params, h, num_batches * h)
                - np.asarray(mean_over_orders(params, batches, h))
            )
            for h in rates(0.04 / num_batches)
        ]
        assert observed_order(errors) == pytest.approx(order, abs=0.1)


def heavy_ball(params, batch, rate, momentum, num_steps):
    """The last two points of heavy ball from rest, as flat vectors."""

    def step(carry, _):
        p, v = carry
        g = jax.grad(network)(p, batch)
        v = jax.tree.map(lambda a, b: momentum * a - rate * b, v, g)
        p = jax.tree.map(jnp.add, p, v)
        return (p, v), ravel_pytree(p)[0]

    rest = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(step, (params, rest), length=num_steps)[1][-2:]


@pytest.mark.parametrize(
    ("assumed", "order"),
    [("its own", 3), ("that of gradient descent with the rate h/(1-beta)", 2)],
)
def test_heavy_ball_follows_its_modified_loss_after_the_transient(assumed, order):
    momentum, num_steps = 0.5, 52  # 0.5 ** 52 is one rounding error
    with jax.enable_x64(True):
        params, batch = network_problem()

        def modified(h):
            if assumed == "its own":
                return igr.modified_loss(network, h, momentum=momentum)
            return igr.modified_loss(network, h / (1 - momentum))

        field = compiled(
            lambda p, h: jax.tree.map(jnp.negative, jax.grad(modified(h))(p, batch)),
            params,
        )
        run = jax.jit(lambda h: heavy_ball(params, batch, h, momentum, num_steps))
        errors = []
        for h in rates(0.002):
            before, after = run(h)
            end = follow(field, before, h, h / (1 - momentum))
            errors.append(np.linalg.norm(end - np.asarray(after)))
        assert observed_order(errors) == pytest.approx(order, abs=0.1)
