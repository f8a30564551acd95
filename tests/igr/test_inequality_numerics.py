"""The inequality where something is 0, in low precision, and with wrong arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import testing
from igr.inequality import ACTIVATIONS, input_gradient_bound, penalty_inequality

NORMS = ("joint", "spectral", "frobenius")


def make(sizes=(3, 4, 2), bias=True, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2 * len(sizes))
    return [
        (jax.random.normal(k, (i, o), dtype), jnp.ones(o, dtype) if bias else None)
        for k, i, o in zip(keys, sizes, sizes[1:], strict=False)
    ]


X = jnp.array([0.5, -1.0, 0.3])


def with_dead_units(count):
    """A ReLU network whose first layer has `count` dead units of 4."""
    (w, b), (last, c) = make()
    b = jnp.where(jnp.arange(4) < count, -100.0, 10.0) + b
    return [(w, b), (last, c + 100.0)]


@functools.partial(jax.jit, static_argnums=2)
def slacks_and_derivatives(params, x, norm):
    def slacks(x):
        got = penalty_inequality(params, x, jnp.sum, "relu", norm=norm)
        return got.input_side, got.parameter_side, got.layer_terms[1]

    return slacks(x), jax.jacrev(slacks)(x), jax.jacfwd(jax.jacrev(slacks))(x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("count", [0, 2, 4])
def test_dead_units_leave_values_and_two_derivatives_finite(norm, count):
    values, first, second = slacks_and_derivatives(with_dead_units(count), X, norm)
    assert all(jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((first, second)))
    assert (values[2] == 0.0) == (count == 4)
    assert values[0] <= values[1] * (1.0 + 1e-6)


def test_a_network_that_is_constant_has_infinite_slack():
    params = [(jnp.zeros((3, 4)), jnp.ones(4)), make()[1]]

    def of(params):
        got = penalty_inequality(params, X, jnp.sum, "tanh")
        return got.input_side, got

    gradient, got = jax.jit(jax.grad(of, has_aux=True))(params)
    assert got.input_side == 0.0 < got.parameter_side
    assert np.isinf(got.slack)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("bias", [True, False])
def test_the_origin_is_bounded_only_with_a_bias(bias):
    def of(x):
        return input_gradient_bound(make(bias=bias), x, jnp.sum, "tanh")

    got, gradient = jax.jit(lambda x: (of(x), jax.jacrev(of)(x)))(jnp.zeros(3))
    assert jnp.isfinite(got.parameter_side) == bias
    assert got.input_side > 0.0
    assert all(jnp.all(jnp.isfinite(g)) for g in gradient)


def test_jacobians_whose_squares_underflow_keep_their_terms():
    # In float32 the Jacobian of 1e-25 squares to 0; the quotient is of order 1.
    params = [(1e-25 * make()[0][0], jnp.ones(4)), make()[1]]
    scaled = [(params[0][0] * 1e25, jnp.ones(4)), make()[1]]
    x = jnp.zeros(3)
    terms = jax.jit(lambda p: penalty_inequality(p, x, jnp.sum, "tanh").layer_terms)
    np.testing.assert_allclose(terms(params), terms(scaled), rtol=1e-5)


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
)
def test_low_precision_is_computed_in_float32(dtype):
    params, x = make(dtype=dtype), X.astype(dtype)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    for fn in (penalty_inequality, input_gradient_bound):
        sides = jax.jit(fn, static_argnums=(2, 3))
        got = sides(params, x, jnp.sum, "tanh")
        expected = sides(wide, x.astype(jnp.float32), jnp.sum, "tanh")
        assert {leaf.dtype for leaf in got} == {jnp.dtype("float32")}
        jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_name_is_the_function_of_that_name(name):
    function = getattr(jax.nn, name, lambda z: z)
    one, other = jax.jit(
        lambda params: [
            penalty_inequality(params, X, jnp.sum, fn) for fn in (name, function)
        ]
    )(make((3, 2)))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def sides(norm):
    def loss(params, target):
        fn = lambda h: jnp.sum((h - target) ** 2)  # noqa: E731
        if norm == "first layer":
            return tuple(input_gradient_bound(params, X, fn, "tanh"))
        return tuple(penalty_inequality(params, X, fn, "tanh", norm=norm)[:2])

    return loss


QUICK = [
    (norm, name)
    for norm, names in {
        "joint": ("finite_at_extremes", "gradient_matches_finite_differences"),
        "first layer": ("keyword_arguments",),
    }.items()
    for name in names
]


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check,
            id=f"{norm}-{check.name}",
            marks=[] if (norm, check.name) in QUICK else [pytest.mark.slow],
        )
        for norm in (*NORMS, "first layer")
        for check in testing.loss_checks(
            sides(norm),
            (make((3, 3, 2)), jnp.array([0.3, -0.2])),
            argnums=(0, 1),
            extremes=(0.0, 10.0, -10.0),
            second_order=True,
        )
    ],
)
def test_both_sides_conform(check):
    check()


GOOD = {"params": make(), "x": X, "fn": jnp.sum, "activation": "tanh"}
W = jnp.ones((3, 3))


@pytest.mark.parametrize("function", [penalty_inequality, input_gradient_bound])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"activation": "tahn"}, ValueError, "activation must be .* tanh, got 'tahn'"),
        ({"activation": 3}, TypeError, "activation must be a function, got 3"),
        ({"fn": None}, TypeError, "fn must be a function, got None"),
        ({"fn": jnp.sin}, ValueError, r"fn must return a scalar, got shape \(2,\)"),
        (
            {"x": jnp.ones((5, 3))},
            ValueError,
            r"x must be one .*\(5, 3\); use jax.vmap",
        ),
        ({"x": jnp.ones(4)}, ValueError, r"params\[0\] must have w \[4, out\] to fol"),
        ({"params": [(W, W[0]), (W[:2], None)]}, ValueError, r"params\[1\] must have"),
        ({"params": [(W.astype(int), None)]}, TypeError, r"params\[0\] must be float"),
    ],
)
def test_wrong_arguments_are_named(function, bad, error, message):
    with pytest.raises(error, match=message):
        function(**GOOD | bad)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"norm must be one of joint, .*got 'nuclear'"):
        penalty_inequality(make(), X, jnp.sum, "tanh", norm="nuclear")


def test_nan_is_not_taken_for_slack():
    layers = [(jnp.full((2, 2), jnp.nan), None)]
    sides = jax.jit(lambda p: penalty_inequality(p, jnp.ones(2), jnp.sum, "tanh"))
    assert np.isnan(sides(layers).input_side)
    assert np.isnan(sides(layers).slack)
    layers = [(jnp.ones((2, 2)), jnp.zeros(2))]
    bound = jax.jit(lambda x: input_gradient_bound(layers, x, jnp.sum, "tanh"))
    assert np.isnan(bound(np.float32([np.nan, 1.0])).parameter_side)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_bias_that_bounds_the_origin_is_that_of_the_first_layer(is_first):
    params = make()
    index = -1 if is_first else 0
    params[index] = (params[index][0], None)
    got = input_gradient_bound(params, jnp.zeros(3), jnp.sum, "tanh")
    assert jnp.isfinite(got.parameter_side) == is_first
