"""The penalised loss and its gradient against closed forms and dense Hessians."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit import nets
from expkit.testing import assert_trees_close, loss_checks
from igr import with_gradient_penalty

MODES = ("exact", "nested", "finite_difference")
RNG = np.random.default_rng(0)


def mlp_loss(params, x, labels, *, scale=1.0):
    h = jnp.tanh(x @ params["w1"] + params["b1"][None])
    losses = optax.softmax_cross_entropy_with_integer_labels(h @ params["w2"], labels)
    wide = jnp.promote_types(losses.dtype, jnp.float32)
    return scale * jnp.mean(losses, dtype=wide)


PARAMS = {
    "w1": RNG.normal(size=(5, 6)).astype(np.float32),
    "b1": RNG.normal(size=6).astype(np.float32),
    "w2": RNG.normal(size=(6, 3)).astype(np.float32),
}
X = RNG.normal(size=(7, 5)).astype(np.float32)
LABELS = np.arange(7) % 3


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def quadratic():
    a = RNG.normal(size=(6, 6))
    return a @ a.T, RNG.normal(size=6), RNG.normal(size=6)


@pytest.mark.parametrize("mode", MODES)
def test_the_penalty_of_a_quadratic_is_the_closed_form(mode):
    matrix, b, x = quadratic()
    with jax.enable_x64(True):

        def loss(x, *, b):
            return 0.5 * x @ jnp.asarray(matrix) @ x - b @ x

        penalised = with_gradient_penalty(loss, 0.3, mode=mode)
        evaluate = jax.jit(jax.value_and_grad(penalised))
        value, got = evaluate(jnp.asarray(x), b=jnp.asarray(b))
    slope = matrix @ x - b
    expected = 0.5 * x @ matrix @ x - b @ x + 0.3 * slope @ slope
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    # The difference quotient of a linear gradient has no truncation error.
    tolerance = 1e-9 if mode == "finite_difference" else 1e-13
    np.testing.assert_allclose(got, slope + 0.6 * matrix @ slope, rtol=tolerance)


@pytest.mark.optimized
@pytest.mark.parametrize("argnum", [0, pytest.param(1, marks=pytest.mark.slow), -2])
def test_the_gradient_is_that_of_a_dense_hessian(argnum):
    with jax.enable_x64(True):
        args = wide((PARAMS, X))
        flat, unravel = jax.flatten_util.ravel_pytree(args)
        position = argnum % 3
        places = np.asarray(
            jax.flatten_util.ravel_pytree(
                tuple(
                    jax.tree.map(lambda a, n=n: jnp.full(a.shape, n == position), arg)
                    for n, arg in enumerate(args)
                )
            )[0]
        )

        @jax.jit
        def derivatives(flat):
            def loss(flat):
                return mlp_loss(*unravel(flat), LABELS)

            return loss(flat), jax.grad(loss)(flat), jax.hessian(loss)(flat)

        plain, slope, hessian = map(np.asarray, derivatives(flat))
        penalised = with_gradient_penalty(mlp_loss, 0.3, argnum=argnum)
        evaluate = jax.jit(jax.value_and_grad(penalised, argnums=(0, 1)))
        value, got = evaluate(*args, LABELS)
        got = np.asarray(jax.flatten_util.ravel_pytree(got)[0])
    masked = np.where(places, slope, 0.0)
    np.testing.assert_allclose(value, plain + 0.3 * masked @ masked, rtol=1e-13)
    expected = slope + 0.6 * hessian @ masked
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)


def attention(params, x):
    """One block on [batch, n, width] in the dtype of its input.

    That of Flax takes its softmax in float32 whatever the inputs are.
    """
    q, k, v = (x @ params[name] for name in "qkv")
    weights = jax.nn.softmax(q @ k.mT / np.sqrt(x.shape[-1]))
    h = x + weights @ v
    h = h + jax.nn.gelu(h @ params["expand"]) @ params["contract"]
    return (h @ params["out"]).mean(axis=1)


def attention_params(key):
    shapes = dict.fromkeys("qkv", (4, 4))
    shapes |= {"expand": (4, 8), "contract": (8, 4), "out": (4, 3)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.5 * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def build(name):
    """`(init, apply, input shape)` of one small network."""
    kind, _, activation = name.partition("-")
    if kind == "transformer":
        return attention_params, attention, (5, 4)
    shape = (6,) if kind == "mlp" else (6, 6, 1)
    make, widths = (nets.mlp, (8, 8)) if kind == "mlp" else (nets.cnn, (4,))
    return *make(shape, widths, 3, activation=activation), shape


@pytest.mark.optimized
@pytest.mark.parametrize(
    "is_wide",
    [
        pytest.param(False, id="float32"),
        pytest.param(True, id="float64", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["mlp-tanh", "cnn-relu", "transformer-gelu"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mlp-gelu", "mlp-relu", "cnn-tanh", "cnn-gelu")
    ],
)
def test_exact_is_nested_up_to_rounding(name, is_wide):
    init, apply, shape = build(name)
    params = jax.tree.map(  # drawn by numpy, for which nothing is compiled
        lambda leaf: 0.3 * RNG.normal(size=leaf.shape).astype(np.float32),
        jax.eval_shape(init, jax.random.key(1)),
    )
    labels = np.arange(4) % 3

    def loss(params, x):
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def gradients(params, x):
        both = (with_gradient_penalty(loss, 0.3, mode=mode) for mode in MODES[:2])
        return [jax.flatten_util.ravel_pytree(jax.grad(f)(params, x))[0] for f in both]

    x = RNG.normal(size=(4, *shape)).astype(np.float32)
    with jax.enable_x64(is_wide):
        args = wide((params, x)) if is_wide else (params, x)
        exact, nested = (np.asarray(g) for g in jax.jit(gradients)(*args))
    assert exact.dtype == (np.float64 if is_wide else np.float32)
    distance = np.linalg.norm(exact - nested) / np.linalg.norm(nested)
    assert distance < (1e-10 if is_wide else 1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_where_the_gradient_is_zero_value_and_gradient_are_finite(mode):
    def loss(params):
        return jnp.sum(params["w"] ** 4) + jnp.sum(jnp.cos(params["b"]))

    zeros = {"w": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    penalised = with_gradient_penalty(loss, 2.0, mode=mode)
    value, got = jax.jit(jax.value_and_grad(penalised))(zeros)
    assert value == 4.0
    assert_trees_close(got, zeros, "gradient", rtol=0.0, atol=0.0)


def test_sam_is_not_finite_there():  # the control: what the guard is for
    sam = optax.contrib.sam(
        optax.sgd(1.0), optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    )
    params = jnp.zeros(3)
    updates, _ = sam.update(jnp.zeros(3), sam.init(params), params)
    assert not jnp.isfinite(updates).all()


def test_the_error_of_the_finite_difference_is_of_first_order_in_its_step():
    penalties = [with_gradient_penalty(mlp_loss, 0.3)] + [
        with_gradient_penalty(mlp_loss, 0.3, mode="finite_difference", step=step)
        for step in (1e-2, 1e-3)
    ]

    @jax.jit
    def distances(params, x):
        exact, *others = (jax.grad(f)(params, x, LABELS) for f in penalties)
        return [optax.tree.norm(optax.tree.sub(got, exact)) for got in others]

    with jax.enable_x64(True):
        far, near = distances(*wide((PARAMS, X)))
    np.testing.assert_allclose(np.log10(far / near), 1.0, atol=0.05)


def test_a_kink_between_the_two_gradients_is_counted_by_the_difference_alone():
    def loss(x):  # the second derivative is 0 wherever it exists
        return jnp.sum(jax.nn.relu(x))

    x = jnp.array([-1e-3, 2.0, 3.0])
    slope = jnp.array([0.0, 1.0, 1.0])
    exact = jax.grad(with_gradient_penalty(loss, 1.0))(x)
    np.testing.assert_array_equal(exact, slope)
    shifted = loss  # moves along its gradient, away from the kink: no difference
    options = {"mode": "finite_difference", "step": 0.1}
    got = jax.grad(with_gradient_penalty(shifted, 1.0, **options))(x)
    np.testing.assert_array_equal(got, slope)

    def towards(x):  # the gradient of the first term points across the kink
        return loss(x) + 0.5 * jnp.sum(x)

    exact = jax.grad(with_gradient_penalty(towards, 1.0))(x)
    got = jax.grad(with_gradient_penalty(towards, 1.0, **options))(x)
    np.testing.assert_allclose(exact, [0.5, 1.5, 1.5])
    norm = np.sqrt(0.25 + 2 * 2.25)
    np.testing.assert_allclose(got, [0.5 + 2 * norm / 0.1, 1.5, 1.5], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_negative_coefficient_takes_the_penalty_away(mode):
    @jax.jit
    def value(c):
        return with_gradient_penalty(mlp_loss, c, mode=mode)(PARAMS, X, LABELS)

    plain = mlp_loss(PARAMS, X, LABELS)
    np.testing.assert_allclose(value(-0.1) + value(0.1), 2 * plain, rtol=1e-6)


@functools.cache
def slopes():
    return jax.jit(jax.grad(mlp_loss))(PARAMS, X, LABELS)


@pytest.mark.parametrize("mode", MODES)
def test_the_derivative_in_the_coefficient_is_the_squared_norm(mode):
    def value(c):
        return with_gradient_penalty(mlp_loss, c, mode=mode)(PARAMS, X, LABELS)

    slope = slopes()
    expected = sum(float(np.sum(np.square(x, dtype=float))) for x in slope.values())
    got = jax.jit(lambda c: (jax.grad(value)(c), jax.jvp(value, (c,), (1.0,))[1]))(0.2)
    np.testing.assert_allclose(got, [expected, expected], rtol=1e-5)


def test_half_precision_parameters_give_float32_sums_and_half_precision_gradients():
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    penalised = with_gradient_penalty(mlp_loss, 0.3)
    evaluate = jax.jit(jax.value_and_grad(penalised))
    value, got = evaluate(half, X.astype(jnp.bfloat16), LABELS)
    assert value.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    _, expected = evaluate(exact, X, LABELS)
    for name, x in expected.items():
        scale = float(jnp.abs(x).max())
        np.testing.assert_allclose(got[name].astype(float), x, atol=0.05 * scale)


# The tests of calls do so in every mode.
SLOW = ("closes_over_traced_arrays", "vmap_equals_loop")


def _checks():
    for mode in MODES[:2]:
        wrap = functools.partial(with_gradient_penalty, coefficient=0.3, mode=mode)
        checks = loss_checks(
            mlp_loss,
            (PARAMS, X, LABELS),
            argnums=(0, 1),
            wrap=wrap,
            second_order=mode == "exact",
            extremes=(0.0, 30.0, -30.0),
        )
        quick = None if mode == "exact" else ()
        yield from conformance.cases(checks, mode, slow=SLOW, quick=quick)


@pytest.mark.parametrize("check", list(_checks()))
def test_the_penalised_loss_conforms(check):
    check()


@pytest.mark.parametrize("mode", ["exact", "nested", "finite_difference"])
def test_a_python_number_makes_no_loss_wider(mode):
    def loss(params):
        return jnp.sum(params**2)

    with jax.enable_x64(True):
        penalised = with_gradient_penalty(loss, 0.1, mode=mode)
        evaluate = jax.jit(jax.value_and_grad(penalised))
        for dtype in (np.float32, np.float64):
            value, gradient = evaluate(np.full(2, 0.3, dtype))
            assert value.dtype == gradient.dtype == dtype
        # 0.1 keeps the digits of float64: the sum of x^2 + 4 c x^2 over two entries.
        assert value == pytest.approx(2 * 0.09 * (1 + 4 * 0.1), rel=1e-15)
        wide = with_gradient_penalty(loss, np.float64(0.1), mode=mode)
        got = jax.eval_shape(wide, np.ones(2, np.float32))
        assert got.dtype == jnp.float64  # as it was asked
