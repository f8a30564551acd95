"""The tracker: exact records, untouched updates, and what it costs."""

import re

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from expkit import testing

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(6, 6)) / 3
HESSIAN = ROOT @ ROOT.T + 0.1 * np.eye(6)
POINT = {"a": jnp.asarray(RNG.normal(size=4)), "b": jnp.asarray(RNG.normal(size=2))}


def quadratic(params):
    flat = jnp.concatenate([params["a"], params["b"]])
    return flat @ jnp.asarray(HESSIAN, flat.dtype) @ flat / 2


GRADIENT = jax.grad(quadratic)


def run(tx, num_steps, **extra):
    """States after each step of gradient descent with rate 0.3."""
    params, state, states = POINT, tx.init(POINT), []

    @jax.jit
    def step(params, state):
        updates, state = tx.update(GRADIENT(params), state, params, **extra)
        return optax.apply_updates(params, optax.tree.scale(-0.3, updates)), state

    for _ in range(num_steps):
        params, state = step(params, state)
        states.append(state)
    return states


def numpy_gradients(num_steps):
    flat = np.concatenate([np.asarray(x, np.float64) for x in POINT.values()])
    for _ in range(num_steps):
        gradient = HESSIAN @ flat
        yield gradient
        flat = flat - 0.3 * gradient


def test_records_are_those_of_numpy():
    decay, num_steps = 0.8, 6
    schedule = optax.linear_schedule(0.3, 0.1, 5)
    states = run(igr.track_gradient_norm(schedule, decay=decay), num_steps)
    squares = [g @ g for g in numpy_gradients(num_steps)]
    for t, state in enumerate(states):
        weights = decay ** np.arange(t, -1, -1.0)
        mean = weights @ squares[: t + 1] / weights.sum()
        rate = 0.3 - 0.04 * t
        np.testing.assert_allclose(state.squared_norm, squares[t], rtol=2e-6)
        np.testing.assert_allclose(state.mean_squared_norm, mean, rtol=2e-6)
        wanted = rate / 4 * squares[t]
        np.testing.assert_allclose(state.implied_penalty, wanted, rtol=2e-6)
        assert state.count == t + 1


def test_implied_penalty_is_what_the_modified_loss_adds():
    (state,) = run(igr.track_gradient_norm(0.3), 1)
    modified = igr.modified_loss(quadratic, 0.3)
    added = jax.jit(lambda p: modified(p) - quadratic(p))(POINT)
    np.testing.assert_allclose(state.implied_penalty, added, rtol=2e-6)


def test_without_a_learning_rate_no_penalty_is_recorded():
    (state,) = run(igr.track_gradient_norm(), 1)
    assert state.implied_penalty is None
    assert state.curvature is None


def test_curvature_is_that_of_the_dense_hessian_every_third_step():
    tx = igr.track_gradient_norm(0.3, curvature_every=3)
    states = run(tx, 7, grad_fn=GRADIENT)
    gradients = list(numpy_gradients(7))
    for t, state in enumerate(states):
        g = gradients[t - t % 3]
        product = HESSIAN @ g
        np.testing.assert_allclose(state.curvature, g @ product / (g @ g), rtol=2e-6)
        wanted = np.linalg.norm(product)
        np.testing.assert_allclose(state.product_norm, wanted, rtol=2e-6)


def test_curvature_at_a_stationary_point_is_zero():
    tx = igr.track_gradient_norm(curvature_every=1)
    zero = jax.tree.map(jnp.zeros_like, POINT)
    update = jax.jit(
        lambda zero: tx.update(zero, tx.init(zero), zero, grad_fn=GRADIENT)
    )
    _, state = update(zero)
    assert state.curvature == 0.0
    assert state.product_norm == 0.0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_updates_pass_bit_for_bit(dtype):
    tx = igr.track_gradient_norm(0.1)
    gradient = {"w": jnp.asarray([np.nan, *RNG.normal(size=98)], dtype)}
    updates, state = jax.jit(tx.update)(gradient, tx.init(gradient))
    testing.assert_trees_equal(updates, gradient, "updates")
    assert state.squared_norm.dtype == jnp.float32


def test_float64_parameters_are_recorded_in_float64():
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(RNG.normal(size=9))}
        tx = igr.track_gradient_norm(0.1)
        _, state = tx.update(params, tx.init(params))
        assert state.squared_norm.dtype == jnp.float64
        wanted = np.sum(np.square(params["w"]))
        np.testing.assert_allclose(state.squared_norm, wanted, rtol=1e-14)


def test_behind_clipping_it_records_the_clipped_norm():
    """The control for its place in the chain: first, or it says something else."""
    clip = optax.clip_by_global_norm(0.1)
    tracker = igr.track_gradient_norm()
    first = run(optax.chain(tracker, clip), 1)[0][0]
    last = run(optax.chain(clip, tracker), 1)[0][1]
    np.testing.assert_allclose(last.squared_norm, 0.01, rtol=1e-5)
    assert first.squared_norm > 10 * last.squared_norm


def test_grad_fn_reaches_the_tracker_through_a_chain():
    tx = optax.chain(igr.track_gradient_norm(0.3, curvature_every=2), optax.sgd(0.1))
    _, state = jax.jit(
        lambda p: tx.update(GRADIENT(p), tx.init(p), p, grad_fn=GRADIENT)
    )(POINT)
    assert optax.tree.get(state, "curvature") > 0


def tanh_loss(params, x):
    return jnp.mean(jnp.tanh(x @ params["w"]) ** 2)


def lowered(tx, **extra):
    """A compiled step on 64 x 32 parameters."""

    def step(params, state, x):
        gradient = jax.grad(tanh_loss)(params, x)
        if extra.get("curvature"):
            arguments = {"grad_fn": lambda p: jax.grad(tanh_loss)(p, x)}
        else:
            arguments = {}
        updates, state = tx.update(gradient, state, params, **arguments)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.ones((64, 32))}
    return jax.jit(step).lower(params, tx.init(params), jnp.ones((128, 64))).compile()


@pytest.mark.optimized
def test_compiled_extra_cost_is_one_sum_of_squares():
    plain = optax.with_extra_args_support(optax.sgd(0.1))
    tracked = optax.chain(igr.track_gradient_norm(0.1), optax.sgd(0.1))
    costs = [lowered(tx).cost_analysis()["flops"] for tx in (plain, tracked)]
    assert costs[0] < costs[1] <= costs[0] + 2 * 64 * 32 + 100


def computations(text):
    """The body of each computation of an HLO module, by name."""
    bodies, name = {}, None
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = header[1]
            bodies[name] = ""
        elif name:
            bodies[name] += line + "\n"
    return bodies


def called(bodies, names):
    """The computations with these names, and all that they call."""
    found = set(names)
    while names:
        tokens = {t for name in names for t in re.findall(r"[\w.\-]+", bodies[name])}
        names = (tokens & bodies.keys()) - found
        found |= names
    return found


def num_products(bodies):
    return sum(
        len(re.findall(r"\bdot\(|custom-call\(", body)) for body in bodies.values()
    )


@pytest.mark.optimized
def test_hessian_products_are_computed_in_the_conditional_alone():
    plain = computations(lowered(optax.sgd(0.1)).as_text())
    tx = optax.chain(igr.track_gradient_norm(0.1, curvature_every=5), optax.sgd(0.1))
    bodies = computations(lowered(tx, curvature=True).as_text())
    (arms,) = re.findall(
        r"branch_computations=\{(.*?)\}|(true_computation=.*)", "".join(bodies.values())
    )
    arms = set(re.findall(r"[\w.\-]+", " ".join(arms))) & bodies.keys()
    inside = called(bodies, arms)
    outside = {name: body for name, body in bodies.items() if name not in inside}
    assert num_products({name: bodies[name] for name in inside}) > 0
    assert num_products(outside) == num_products(plain) > 0


def with_curvature(**options):
    """The tracker with a gradient function for any tree, for the suite."""
    tx = igr.track_gradient_norm(curvature_every=2, **options)

    def grad_fn(params):
        return jax.tree.map(jnp.sin, params)

    def update(updates, state, params=None, **extra):
        return tx.update(updates, state, params, grad_fn=grad_fn, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


INVISIBLE = {"inject_hyperparams": "no hyperparameter changes an update"}
ANEW = {"no_recompilation": "an eager conditional compiles anew at every call"}
HYPERPARAMETERS = {"learning_rate": 0.1, "decay": 0.9}


@pytest.mark.parametrize(
    "check",
    [
        case
        for name, make, exempt in (
            ("norm", igr.track_gradient_norm, INVISIBLE),
            ("curvature", with_curvature, INVISIBLE | ANEW),
        )
        for case in conformance.cases(
            testing.transformation_checks(
                make, hyperparameters=HYPERPARAMETERS, exempt=exempt
            ),
            name,
            quick=() if name == "norm" else None,
        )
    ],
)
def test_tracker_conforms(check):
    check()


def test_a_jitted_step_with_curvature_compiles_once():
    tx = igr.track_gradient_norm(0.1, curvature_every=2)
    traces = testing.TraceCounter()
    step = jax.jit(
        traces.wrap(lambda g, s: tx.update(g, s, POINT, grad_fn=GRADIENT)[1])
    )
    gradient, state = GRADIENT(POINT), tx.init(POINT)
    state = step(gradient, state)
    with testing.count_compilations() as log:
        for _ in range(3):
            state = step(gradient, state)
    assert traces.count == 1
    assert not log.names


def test_learning_rate_can_be_injected():
    tx = optax.inject_hyperparams(igr.track_gradient_norm)(learning_rate=0.1)
    state = tx.init(POINT)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    _, state = jax.jit(tx.update)(GRADIENT(POINT), state)
    inner = state.inner_state
    np.testing.assert_allclose(inner.implied_penalty, 0.05 * inner.squared_norm)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1 - 1e-6, 1 - 1e-8])
def test_the_mean_of_equal_norms_is_that_norm(decay):
    tx = igr.track_gradient_norm(0.1, decay=decay)
    gradient = jnp.array([1.0, 2.0, 3.0])
    state, update = tx.init(gradient), jax.jit(tx.update)
    for _ in range(3):
        _, state = update(gradient, state)
        np.testing.assert_allclose(state.mean_squared_norm, 14.0, rtol=1e-6)


def test_the_mean_for_a_decay_next_to_1_is_the_plain_mean():
    tx = igr.track_gradient_norm(decay=1 - 1e-8)
    state = tx.init(jnp.zeros(()))
    for value in (1.0, 2.0, 3.0):
        _, state = tx.update(jnp.array(value), state)
    np.testing.assert_allclose(state.mean_squared_norm, 14.0 / 3.0, rtol=1e-6)
