"""Penalties of every example against closed forms and explicit gradients."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit.testing import assert_trees_close, loss_checks
from igr import with_gradient_penalty, with_per_example_gradient_penalty

MODES = ("exact", "nested", "finite_difference")
RNG = np.random.default_rng(0)
SIZE, C = 6, 0.3
W, B0 = RNG.normal(size=4), 0.7
X, Y = RNG.normal(size=(SIZE, 4)), RNG.normal(size=SIZE)
PARAMS = {
    "w": RNG.normal(size=(4, 3)).astype(np.float32),
    "v": RNG.normal(size=3).astype(np.float32),
}
PARTS = ("w", "b", "x", "y", "c")


def linear_loss(params, x, y):
    return 0.5 * jnp.square(x @ params["w"] + params["b"] - y)


def net_loss(params, x, *, scale=1.0):
    h = jnp.tanh(x @ params["w"])
    wide = jnp.promote_types(h.dtype, jnp.float32)
    return scale * jnp.square((h @ params["v"]).astype(wide))


def closed_form(argnum):
    """Value and derivatives of the penalised linear regression, in numpy."""
    e = X @ W + B0 - Y
    if argnum == 0:  # the gradient is e (x, 1)
        norms = 1 + np.sum(X**2, axis=1)
        moved_w, moved_x = 0.0, 2 * C * e[:, None] ** 2 * X
    else:  # it is e w
        norms = np.full(SIZE, W @ W)
        moved_w, moved_x = 2 * C * e[:, None] ** 2 * W, 0.0
    slope = e * (1 + 2 * C * norms)
    value = np.mean(0.5 * e**2 + C * e**2 * norms)
    by_w = np.mean(slope[:, None] * X + moved_w, axis=0)
    by_x = (slope[:, None] * W + moved_x) / SIZE
    parts = (by_w, slope.mean(), by_x, -slope / SIZE, np.mean(e**2 * norms))
    return value, dict(zip(PARTS, parts, strict=True))


def penalised_linear(argnum, mode, chunk_size):
    """Value and derivatives, in float64."""

    def value(w, b, x, y, c):
        penalised = with_per_example_gradient_penalty(
            linear_loss, c, argnum=argnum, mode=mode, chunk_size=chunk_size
        )
        return penalised({"w": w, "b": b}, x, y)

    with jax.enable_x64(True):
        args = [jnp.asarray(a) for a in (W, B0, X, Y, C)]
        got, parts = jax.jit(jax.value_and_grad(value, range(5)))(*args)
        return got, dict(zip(PARTS, parts, strict=True))


def assert_is_closed_form(got, argnum, names=PARTS, rtol=1e-12):
    value, parts = closed_form(argnum)
    np.testing.assert_allclose(got[0], value, rtol=1e-12)
    for name in names:
        np.testing.assert_allclose(
            got[1][name], parts[name], rtol=rtol, atol=rtol, err_msg=name
        )


@pytest.mark.parametrize("argnum", [0, 1, -2])
@pytest.mark.parametrize("mode", MODES[:2])
def test_of_a_linear_model_value_and_all_derivatives_are_the_closed_form(mode, argnum):
    got = penalised_linear(argnum, mode, chunk_size=1)
    assert_is_closed_form(got, argnum % 3)
    with pytest.raises(AssertionError, match="Mismatched"):  # the other penalty
        assert_is_closed_form(got, 1 - argnum % 3)


@pytest.mark.parametrize("chunk_size", [1, 2, SIZE])
def test_every_chunk_size_gives_the_closed_form(chunk_size):
    assert_is_closed_form(penalised_linear(0, "exact", chunk_size), 0)


@pytest.mark.parametrize(("argnum", "names"), [(0, "wbc"), (1, "xyc")])
def test_differences_of_linear_gradients_give_the_closed_form(argnum, names):
    # What is penalised moves, and in it (and in y) the gradient is linear.
    got = penalised_linear(argnum, "finite_difference", chunk_size=2)
    assert_is_closed_form(got, argnum, names, rtol=1e-9)


@pytest.mark.parametrize("argnum", [0, 1])
@pytest.mark.parametrize("mode", MODES[:2])
def test_of_a_network_it_is_the_explicit_mean_and_closures_are_differentiated(
    mode, argnum
):
    def explicit(params, x, scale, c):
        loss = functools.partial(net_loss, scale=scale)
        losses = jax.vmap(loss, in_axes=(None, 0))(params, x)
        slopes = jax.vmap(jax.grad(loss, argnum), in_axes=(None, 0))(params, x)
        squares = jax.tree.map(lambda g: jnp.sum(g**2), slopes)
        return losses.mean() + c * sum(jax.tree.leaves(squares)) / SIZE

    @jax.jit
    def built_inside(params, x, scale, c):
        def loss(params, x):  # closes over a traced array
            return net_loss(params, x, scale=scale)

        return with_per_example_gradient_penalty(
            loss, c * scale, argnum=argnum, mode=mode, chunk_size=3
        )(params, x)

    def expected(params, x, scale, c):
        return explicit(params, x, scale, c * scale)

    with jax.enable_x64(True):
        args = jax.tree.map(jnp.asarray, (PARAMS, X, 0.8, 0.3))
        args = jax.tree.map(lambda a: a.astype(jnp.float64), args)
        got, want = (
            jax.jit(jax.value_and_grad(f, argnums=range(4)))(*args)
            for f in (built_inside, expected)
        )
    assert_trees_close(got, want, "penalised loss", rtol=1e-11, atol=1e-13)


def test_the_value_is_a_sum_over_the_examples_in_numpy():
    penalised = with_per_example_gradient_penalty(net_loss, C, chunk_size=2)
    h = np.tanh(X @ PARAMS["w"].astype(float))
    f = h @ PARAMS["v"].astype(float)
    back = 2 * f[:, None] * PARAMS["v"] * (1 - h**2)  # by the pre-activations
    by_w = np.sum(X**2, axis=1) * np.sum(back**2, axis=1)
    by_v = 4 * f**2 * np.sum(h**2, axis=1)
    expected = np.mean(f**2 + C * (by_w + by_v))
    got = jax.jit(penalised)(PARAMS, X.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("argnum", [0, 1])
def test_the_mean_of_squares_is_not_the_square_of_the_mean(argnum):
    # Two examples whose gradients are 3 and -3 in either argument.
    params, x, signs = jnp.ones(()), jnp.full(2, 3.0), jnp.array([1.0, -1.0])
    x = x if argnum == 0 else jnp.ones(2)
    params = params if argnum == 0 else 3.0 * params

    def loss(params, x, sign):
        return sign * params * x

    def mean_loss(params, x, sign):
        return loss(params, x, sign).mean()

    per_example, of_the_mean = jax.jit(
        lambda *args: (
            with_per_example_gradient_penalty(loss, 1.0, argnum=argnum)(*args),
            with_gradient_penalty(mean_loss, 1.0, argnum=argnum)(*args),
        )
    )(params, x, signs)
    assert per_example == 9.0
    # An input has the gradient of its own example, of which the mean is half.
    assert of_the_mean == (0.0 if argnum == 0 else 2 * 1.5**2)


@pytest.mark.optimized
def test_a_chunk_of_one_holds_no_gradients_of_the_other_examples():
    size, width = 16, 64
    params = {"in": jnp.ones((width, width)), "out": jnp.ones(width)}
    num_bytes = sum(4 * p.size for p in params.values())

    def loss(params, x):
        return jnp.square(jnp.tanh(x @ params["in"]) @ params["out"])

    def temporary(chunk_size):
        penalised = with_per_example_gradient_penalty(loss, 0.1, chunk_size=chunk_size)
        step = jax.jit(jax.grad(penalised)).lower(params, jnp.ones((size, width)))
        return step.compile().memory_analysis().temp_size_in_bytes

    assert temporary(1) < 6 * num_bytes
    assert temporary(size) > size * num_bytes


# Of the second argument; the tests of a network above have closures for both of them.
QUICK = ("finite_at_extremes", "gradient_matches_finite_differences")
SCAN = "outside jit a loop with closures compiles at every call; see the calls tests"


def _checks():
    for argnum in (0, 1):
        wrap = functools.partial(
            with_per_example_gradient_penalty,
            coefficient=C,
            argnum=argnum,
            chunk_size=2,
        )
        example = (PARAMS, X[:2].astype(np.float32))
        checks = loss_checks(
            net_loss, example, argnums=(0, 1), wrap=wrap, second_order=argnum == 0,
            extremes=(0.0, 30.0, -30.0),
            exempt={"no_recompilation": SCAN} if argnum == 0 else {},
        )  # fmt: skip
        yield from conformance.cases(
            checks,
            str(argnum),
            slow=("closes_over_traced_arrays",),
            quick=QUICK if argnum == 1 else None,
        )


@pytest.mark.parametrize("check", list(_checks()))
def test_the_penalised_loss_conforms(check):
    check()
