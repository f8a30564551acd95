"""How a penalised loss may be called: closures, keys, aux, transformations, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import sharding
from expkit.testing import assert_trees_close, count_compilations
from igr import attached, penalty, with_gradient_penalty

MODES = ("exact", "nested", "finite_difference")
KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {
    "w": jax.random.normal(KEYS[0], (4, 6)),
    "v": jax.random.normal(KEYS[1], (6,)),
}
X = jax.random.normal(KEYS[2], (8, 4))


def dropout_loss(params, x, key=None, *, shift=0.0, power="square"):
    h = jnp.tanh(x @ params["w"])
    if key is not None:
        h = 2.0 * h * jax.random.bernoulli(key, 0.5, h.shape)
    error = h @ params["v"] - shift
    return jnp.mean(jnp.square(error) if power == "square" else jnp.abs(error))


def close(a, b):
    # Gradients reach 30 here: an atol of a few units in the last place of that.
    assert_trees_close(a, b, "penalised loss", rtol=2e-6, atol=1e-5)


@jax.jit
def with_two_masks(key, other):
    fresh = jax.grad(dropout_loss)(PARAMS, X, other)
    squares = sum(jnp.sum(g**2) for g in fresh.values())
    return dropout_loss(PARAMS, X, key) + 0.3 * squares


@pytest.mark.parametrize("mode", MODES)
def test_all_passes_see_the_same_dropout(mode):
    key = jax.random.key(3)
    penalised = with_gradient_penalty(dropout_loss, 0.3, mode=mode)

    def masked(params, x, mask):
        h = jnp.tanh(x @ params["w"]) * mask
        return jnp.mean(jnp.square(h @ params["v"]))

    @jax.jit
    def both(params, x, key):
        mask = 2.0 * jax.random.bernoulli(key, 0.5, (8, 6))
        expected = with_gradient_penalty(masked, 0.3, mode=mode)
        return (
            jax.value_and_grad(penalised)(params, x, key),
            jax.value_and_grad(expected)(params, x, mask),
        )

    got, expected = both(PARAMS, X, key)
    close(got, expected)
    # The control: a second pass with a fresh key is another number.
    assert abs(float(got[0] - with_two_masks(key, jax.random.key(4)))) > 1e-3


def built_by_hand(params, x, labels, key, scale):
    def loss(params):
        return scale * dropout_loss(params, x, key) + jnp.mean(labels * x[:, 0])

    slope = jax.grad(loss)(params)
    return loss(params) + scale * sum(jnp.sum(g**2) for g in slope.values())


derivatives_by_hand = jax.jit(jax.grad(built_by_hand, argnums=(0, 1, 4)))


@pytest.mark.parametrize("mode", MODES)
def test_a_jitted_function_that_builds_the_penalty_is_differentiated_outside(mode):
    labels = jnp.arange(8) % 2

    @jax.jit
    def objective(params, x, labels, key, scale):
        def loss(params):  # closes over a float, an integer and a key, all traced
            return scale * dropout_loss(params, x, key) + jnp.mean(labels * x[:, 0])

        return with_gradient_penalty(loss, scale, mode=mode)(params)

    args = (PARAMS, X, labels, jax.random.key(3), 0.7)
    got = jax.grad(objective, argnums=(0, 1, 4))(*args)
    expected = derivatives_by_hand(*args)
    if mode == "finite_difference":
        assert_trees_close(got, expected, "gradient", rtol=0.05, atol=0.05)
    else:
        close(got, expected)


def complex_by_hand(w, z):  # the gradient in p is 2 |F z|^2 p
    p, square = jnp.array([1.0, 0.5, 0.2]), jnp.abs(jnp.fft.fft(w) * z) ** 2
    return jnp.sum(square * p**2) + 0.1 * jnp.sum((2.0 * square * p) ** 2)


complex_derivatives_by_hand = jax.jit(jax.grad(complex_by_hand, argnums=(0, 1)))


@pytest.mark.parametrize("mode", MODES)
def test_complex_arrays_in_the_closure_and_as_arguments_are_differentiated(mode):
    def value(w, z):
        spectrum = jnp.fft.fft(w)

        def loss(p, z):
            return jnp.sum(jnp.abs(spectrum * p * z) ** 2)

        p = jnp.array([1.0, 0.5, 0.2])
        return with_gradient_penalty(loss, 0.1, mode=mode, step=1e-3)(p, z)

    args = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0 + 1.0j, 2.0, 1.0j])
    got = jax.jit(jax.grad(value, argnums=(0, 1)))(*args)
    expected = complex_derivatives_by_hand(*args)
    tolerance = 1e-2 if mode == "finite_difference" else 1e-5
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_numpy_numbers_are_static():
    def loss(p, n, is_cubic):
        return jnp.sum(p.reshape(n, -1) ** (3 if is_cubic else 2))

    penalised = with_gradient_penalty(loss, 0.1)
    value = penalised(jnp.ones(6), np.int64(3), np.bool_(True))
    np.testing.assert_allclose(value, 6 + 0.1 * 6 * 9, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES[:2])
def test_keyword_arguments_traced_and_static(mode):
    penalised = with_gradient_penalty(dropout_loss, 0.3, mode=mode)

    def value(shift):
        return penalised(PARAMS, X, key=jax.random.key(3), shift=shift, power="square")

    evaluate, step = jax.jit(value), 1e-2
    expected = (evaluate(0.5 + step) - evaluate(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.5), expected, rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_aux_is_that_of_the_loss_and_can_be_differentiated(mode):
    def loss(params, x):
        h = jnp.tanh(x @ params["w"])
        aux = {"mean": h.mean(axis=0), "count": jnp.arange(3), "none": None}
        return jnp.mean(jnp.square(h @ params["v"])), aux

    penalised = with_gradient_penalty(loss, 0.3, has_aux=True, mode=mode)
    plain = with_gradient_penalty(lambda p, x: loss(p, x)[0], 0.3, mode=mode)

    def through_aux(fn, params):
        return jnp.sum(fn(params, X)[1]["mean"] ** 2)

    @jax.jit
    def both(params):
        (_, aux), slope = jax.value_and_grad(penalised, has_aux=True)(params, X)
        got = aux, slope, jax.grad(lambda p: through_aux(penalised, p))(params)
        slope = jax.grad(plain)(params, X)
        through = jax.grad(lambda p: through_aux(loss, p))(params)
        return got, (loss(params, X)[1], slope, through)

    got, expected = both(PARAMS)
    close(got, expected)
    assert got[0]["count"].dtype == expected[0]["count"].dtype


@pytest.mark.parametrize("mode", MODES[:2])
def test_batched_keys_and_closed_over_batches(mode):
    keys = jax.random.split(jax.random.key(5), 4)

    def one(params, key):
        return with_gradient_penalty(lambda p: dropout_loss(p, X, key), 0.3, mode=mode)(
            params
        )

    got = jax.jit(jax.vmap(jax.grad(one), in_axes=(None, 0)))(PARAMS, keys)
    gradient = jax.jit(jax.grad(one))
    expected = [gradient(PARAMS, key) for key in keys]
    close(got, jax.tree.map(lambda *x: jnp.stack(x), *expected))


def test_forward_mode_and_second_derivatives_agree_with_nested():
    direction = jax.tree.map(jnp.cos, PARAMS)
    exact, nested = (
        with_gradient_penalty(dropout_loss, 0.3, mode=mode) for mode in MODES[:2]
    )
    for take in (
        lambda f: jax.jvp(lambda p: f(p, X), (PARAMS,), (direction,)),
        lambda f: jax.jvp(jax.grad(lambda p: f(p, X)), (PARAMS,), (direction,))[1],
        lambda f: jax.grad(lambda p: jnp.sum(jax.grad(f)(p, X)["w"] ** 2))(PARAMS),
    ):
        assert_trees_close(
            jax.jit(take, static_argnums=0)(exact),
            jax.jit(take, static_argnums=0)(nested),
            "derivative",
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_batch_over_several_devices_gives_the_gradient_of_one():
    penalised = with_gradient_penalty(dropout_loss, 0.3)
    step = jax.jit(jax.value_and_grad(penalised))
    expected = step(PARAMS, X)
    mesh = sharding.make_mesh("data:4", 8)
    got = step(PARAMS, sharding.place_batch({"x": np.asarray(X)}, mesh)["x"])
    close(got, expected)


def test_a_donated_step_compiles_once():
    penalised = with_gradient_penalty(dropout_loss, 0.3)

    def update(params, x):
        grads = jax.grad(penalised)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    step, again = jax.jit(update, donate_argnums=0), jax.jit(update)
    expected = again(again(PARAMS, X), X)
    params = step(jax.tree.map(jnp.copy, PARAMS), X)
    with count_compilations() as log:
        params = step(params, X)
    assert not log.names
    close(params, expected)


@pytest.mark.optimized
def test_only_what_is_differentiated_costs_anything():
    def flops(fn, *args):
        return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]

    penalised = with_gradient_penalty(dropout_loss, 0.3)
    by_params = flops(jax.grad(penalised), PARAMS, X)
    both = flops(jax.grad(penalised, argnums=(0, 1)), PARAMS, X)
    nested = flops(
        jax.grad(with_gradient_penalty(dropout_loss, 0.3, mode="nested")), PARAMS, X
    )
    assert by_params < both
    assert by_params <= 1.02 * nested
    assert flops(penalised, PARAMS, X) < 0.6 * by_params  # the value takes no product


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "exat"}, ValueError, "mode must be .* Did you mean 'exact'"),
        ({"argnum": 1.0}, TypeError, "argnum must be one integer, got 1.0"),
        ({"argnum": (0, 1)}, TypeError, r"argnum must be one integer, got \(0, 1\)"),
        ({"coefficient": np.nan}, ValueError, "coefficient must be finite, got nan"),
        (
            {"coefficient": np.ones(2)},
            ValueError,
            r"coefficient must be a scalar, .*\(2",
        ),
        ({"coefficient": "a"}, TypeError, "coefficient must be a real number, got 'a'"),
        ({"coefficient": 1j}, TypeError, "coefficient must be a real number"),
        ({"step": 0.0}, ValueError, "step must be positive and finite, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused_when_the_penalty_is_built(
    options, error, message
):
    with pytest.raises(error, match=message):
        with_gradient_penalty(dropout_loss, **{"coefficient": 0.1} | options)


@pytest.mark.parametrize(
    ("loss", "argnum", "args", "error", "message"),
    [
        (dropout_loss, 3, (PARAMS, X), ValueError, "argnum=3 is not among the 2 posit"),
        (dropout_loss, -3, (PARAMS, X), ValueError, "argnum=-3 is not among the 2"),
        (
            lambda p, x: x @ p["w"],
            0,
            (PARAMS, X),
            ValueError,
            r"scalar, got f.*\[8,6\]",
        ),
        (lambda p, x: (p["v"][0], x), 0, (PARAMS, X), ValueError, "has_aux=True"),
        (
            lambda p, x: 1,
            0,
            (PARAMS, X),
            ValueError,
            "one floating-point scalar, got i",
        ),
        (
            dropout_loss,
            0,
            ({**PARAMS, "step": jnp.int32(3)}, X),
            TypeError,
            r"argument 0 must hold floating-point arrays, got int32 at \['step'\]",
        ),
        (dropout_loss, 1, (PARAMS, np.arange(8)), TypeError, "argument 1 .* got int64"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_calls_that_cannot_be_penalised_are_refused(
    mode, loss, argnum, args, error, message
):
    with pytest.raises(error, match=message):
        with_gradient_penalty(loss, 0.1, argnum=argnum, mode=mode)(*args)


def test_aux_must_come_in_a_pair():
    with pytest.raises(ValueError, match=r"must return \(loss, aux\), got "):
        with_gradient_penalty(dropout_loss, 0.1, has_aux=True)(PARAMS, X)


def test_what_is_no_function_or_no_array_is_named():
    with pytest.raises(TypeError, match="loss_fn must be a function, got 3"):
        with_gradient_penalty(3, 0.1)
    penalised = with_gradient_penalty(
        lambda p: (jnp.sum(p["v"]), {"name": "v"}), 0.1, has_aux=True
    )
    with pytest.raises(TypeError, match=r"aux\['name'\] must be an array or a number"):
        penalised(PARAMS)


def test_a_finite_difference_in_half_precision_is_refused():
    penalised = with_gradient_penalty(dropout_loss, 0.1, mode="finite_difference")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    with pytest.raises(ValueError, match="less than bfloat16 resolves"):
        penalised(half, X)


def test_how_it_is_differentiated_is_given_by_name():
    call = attached.make_call(lambda x: (jnp.sum(x**2), None), 0, (jnp.ones(2),), {})
    assert penalty.penalise(call, 0.5, mode="nested") == (6.0, None)
    with pytest.raises(TypeError, match="positional"):
        penalty.penalise(call, 0.5, "nested")
    total, (slope,) = penalty.gradient(call, jnp.float32(0.5), [1], mode="exact")
    assert total == 6.0  # the penalised loss of x^2 is x^2 + 0.5 (2 x)^2
    np.testing.assert_allclose(slope, [6.0, 6.0], rtol=1e-6)
    with pytest.raises(TypeError, match="positional"):
        penalty.gradient(call, jnp.float32(0.5), [1], "exact")
