"""Splitting of arguments and closures, and scalars with a supplied gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr import attached

X, Y = np.arange(3.0, dtype=np.float32), np.ones(3, np.float32)


def test_a_partition_is_put_together_again():
    key = jax.random.key(0)
    tree = {
        "float": np.array(0.5),
        "scalar": np.float64(0.5),  # a number, whatever its dtype
        "half": jnp.ones(2, jnp.bfloat16),
        "int": np.arange(3),
        "mask": np.array([True, False]),
        "key": key,
        "number": 0.1,
        "count": 3,
        "name": "mean",
        "none": None,
    }
    floats, others, merge = attached.partition(tree)
    assert [x.dtype.name for x in floats] == ["float32", "bfloat16"]
    assert len(others) == 3  # in the order of the names: int, key, mask
    assert others[1] is key
    whole = merge(floats, others)
    assert jax.tree.structure(whole) == jax.tree.structure(tree)
    for name in ("int", "mask", "key", "number", "scalar", "count", "name", "none"):
        assert whole[name] is tree[name], name
    new = merge([1.0, 2.0], [x + 1 if x.dtype == int else x for x in others])
    assert (new["float"], new["half"], new["number"]) == (1.0, 2.0, 0.1)
    np.testing.assert_array_equal(new["int"], [1, 2, 3])


def test_arrays_at_places_are_replaced_in_a_copy():
    leaves = [1, 2, 3]
    assert attached.replace(leaves, [2, 0], ["c", "a"]) == ["a", 2, "c"]
    assert leaves == [1, 2, 3]


def test_what_a_function_closes_over_is_appended():
    scale, shift, key = jnp.float32(2.0), jnp.arange(2), jax.random.key(3)

    def fn(floats, others, rest):
        noise = jax.random.normal(key, (2,))
        return {"sum": scale * floats[0] + shift * noise + others[0], "rest": rest}

    @jax.jit  # so that they are traced: constants would be left inside
    def convert(floats, others, rest, captured):
        nonlocal scale, shift, key
        scale, shift, key = captured
        converted, floats, others = attached.without_closure(fn, floats, others, rest)
        assert [x.dtype.name for x in floats] == ["float32", "float32"]
        assert sorted(x.dtype.name for x in others) == ["int32", "int32", "key<fry>"]
        doubled = converted([floats[0], 2 * floats[1]], others, rest)
        return converted(floats, others, rest), doubled

    captured = scale, shift, key
    noise = jax.random.normal(key, (2,))
    got, doubled = convert([jnp.ones(2)], [jnp.int32(5)], (jnp.zeros(1),), captured)
    np.testing.assert_allclose(got["sum"], 2.0 + jnp.arange(2) * noise + 5, rtol=1e-6)
    np.testing.assert_allclose(doubled["sum"], got["sum"] + 2.0, rtol=1e-6)
    assert isinstance(got["rest"], tuple)


@jax.custom_vjp
def square(x):
    return x**2


# Wrong by a factor of ten, to tell the rule from the derivative of what is inside.
square.defvjp(lambda x: (x**2, x), lambda x, g: (20.0 * x * g,))


def scanned(x):
    return jax.lax.scan(lambda total, row: (total + row**2, None), 0.0, x)[0]


@pytest.mark.parametrize(
    ("fn", "factor"),
    [
        (lambda x: square(x).sum(), 20.0),
        (scanned, 2.0),
        (jax.checkpoint(lambda x: jnp.sum(x**2)), 2.0),
        (lambda x: jax.lax.cond(x[0] > 0, jnp.sum, scanned, x), 2.0),
        (lambda x: jax.pure_callback(np.sum, jnp.float32(0), x) + scanned(x), None),
    ],
)
def test_rules_loops_and_branches_keep_their_derivatives(fn, factor):
    scale = jnp.float32(3.0)

    @jax.jit
    def gradient(x, scale):
        def of_arrays(floats, others):
            del others
            return scale * fn(floats[0])

        converted, floats, others = attached.without_closure(of_arrays, [x], [])
        return jax.grad(lambda floats: converted(floats, others))(floats)

    if factor is None:  # a callback has no derivative, and says so
        with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
            gradient(X, scale)
        return
    by_x, by_scale = gradient(X, scale)
    np.testing.assert_allclose(by_x, 3.0 * factor * X, rtol=1e-6)
    np.testing.assert_allclose(by_scale, 5.0, rtol=1e-6)


def attach_square(log, floats, others, aux_fn=None):
    """The sum of `others[0]` times squares, its gradient wrong by a factor of 10."""

    def value_fn(floats, others):
        value = sum(jnp.sum(others[0] * x**2) for x in floats)
        return value, None if aux_fn is None else aux_fn(floats, others)

    def gradient_fn(floats, others, wanted):
        log.append(list(wanted))
        gradients = [20.0 * others[0] * floats[i] for i in wanted]
        return value_fn(floats, others)[0], gradients

    return attached.attach_gradient(value_fn, gradient_fn, floats, others, aux_fn)


def test_the_gradient_is_the_supplied_one():
    def value(x, n):
        return attach_square([], [x], [n])[0]

    n = jnp.int32(2)
    assert value(X, n) == 10.0
    np.testing.assert_array_equal(jax.grad(value)(X, n), 40.0 * X)
    got, tangent = jax.jvp(lambda x: value(x, n), (X,), (Y,))
    assert (got, tangent) == (10.0, 120.0)
    # The derivative of the supplied gradient, not ten times that of the square's.
    np.testing.assert_array_equal(
        jax.hessian(value)(X, n), 40.0 * np.eye(3, dtype=np.float32)
    )


def test_only_wanted_gradients_are_asked_for():
    log = []

    def value(x, y):
        return attach_square(log, [x, y], [jnp.int32(1)])[0]

    jax.jit(value)(X, Y)
    assert log == []
    for argnums, wanted in ((0, [0]), (1, [1]), ((0, 1), [0, 1])):
        jax.jit(jax.grad(value, argnums))(X, Y)
        assert log == [wanted]
        log.clear()
    jax.jvp(lambda y: value(X, y), (Y,), (Y,))
    assert log == [[1]]


def test_aux_has_its_own_derivative():
    def aux_fn(floats, others):
        return {"cube": floats[0] ** 3, "count": others[0]}

    def value_and_cube(x):
        value, aux = attach_square([], [x, Y], [jnp.int32(1)], aux_fn)
        return value, aux["cube"]

    primals, tangents = jax.jvp(value_and_cube, (X,), (Y,))
    assert (primals[0], tangents[0]) == (8.0, 60.0)
    np.testing.assert_array_equal(primals[1], X**3)
    np.testing.assert_array_equal(tangents[1], 3 * X**2)
    got = jax.jit(jax.grad(lambda x: value_and_cube(x)[1].sum()))(X)
    np.testing.assert_array_equal(got, 3 * X**2)


def test_a_python_number_can_be_differentiated():
    def value(x):
        return attach_square([], [jnp.asarray(x)], [jnp.int32(1)])[0]

    assert jax.grad(value)(3.0) == 60.0
    assert jax.jvp(value, (3.0,), (1.0,)) == (9.0, 60.0)


def test_a_call_counts_the_penalised_leaves():
    captured = jnp.arange(2.0)

    def loss(a, b, *, n, name):
        assert name == "sum"
        return jnp.sum(b["x"] * a) + n * captured.sum() + b["y"], None

    b = {"x": jnp.full(2, 3.0), "y": jnp.float32(1.0)}
    args = (jnp.ones(2), b)
    call = attached.make_call(loss, -1, args, {"n": jnp.int32(2), "name": "sum"})
    assert [call.floats[i].shape for i in call.target] == [(2,), ()]
    assert len(call.floats) == 4  # with what it closes over
    assert call.loss(call.floats, call.others) == (9.0, None)
    moved = attached.replace(call.floats, call.target, [jnp.zeros(2), 0.0])
    assert call.loss(moved, call.others)[0] == 2.0


def test_a_loss_must_return_what_it_says():
    assert attached.scalar_loss(lambda x: x, has_aux=False)(2.0) == (2.0, None)
    assert attached.scalar_loss(lambda x: (x, 3), has_aux=True)(2.0) == (2.0, 3)
    for output, has_aux, message in (
        (np.ones(2), False, r"floating-point scalar, got f.*\[2\]; take a mean or, "),
        (np.int32(1), False, "floating-point scalar, got i"),
        ((1.0, 2), False, "has_aux=True"),
        (1.0, True, r"must return \(loss, aux\), got float"),
        ((1.0, 2, 3), True, r"must return \(loss, aux\), got tuple"),
        ((np.ones(2), None), True, r"scalar, got f.*\[2\]; take a mean\.$"),
    ):
        loss = attached.scalar_loss(lambda output=output: output, has_aux=has_aux)
        with pytest.raises(ValueError, match=message):
            loss()


def test_whether_a_loss_has_more_to_say_is_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        attached.scalar_loss(jnp.sum, True)


class Layer:
    """Has a dtype and is no array, like a module of Flax."""

    dtype = jnp.dtype("float32")


@pytest.mark.parametrize(
    "static",
    [jnp.float32, np.float32, np.dtype("float32"), Layer()],
    ids=["jax", "numpy", "dtype", "layer"],
)
def test_what_only_has_a_dtype_is_static(static):
    """Of w^2 with h / 4 = c = 1.875: w^2 + c (2 w)^2 is 34 at w = 2."""

    def loss(w, x, *, kind):
        dtype = kind.dtype if isinstance(kind, Layer) else kind
        return jnp.sum(x * w**2).astype(dtype)

    losses = [
        igr.with_gradient_penalty(loss, 1.875, mode=mode)
        for mode in ("exact", "nested")
    ]
    losses.append(igr.modified_loss(loss, 7.5))
    for fn in losses:
        value, slope = jax.value_and_grad(fn)(
            jnp.float32(2.0), jnp.ones(1), kind=static
        )
        assert (value, slope) == (34.0, 34.0)  # 2 w + 8 c w
    fn = igr.with_per_example_gradient_penalty(loss, 1.875)
    assert fn(jnp.float32(2.0), jnp.ones(3), kind=static) == 34.0
    with pytest.raises(TypeError, match="argument 0 must hold floating-point arrays"):
        losses[0](static, jnp.ones(1), kind=static)


def mean_loss(params, x):
    return jnp.mean(jnp.tanh(x @ params) ** 2)


VALUES = {
    "exact": lambda p, x, c: igr.with_gradient_penalty(mean_loss, c)(p, x),
    "finite_difference": lambda p, x, c: igr.with_gradient_penalty(
        mean_loss, c, mode="finite_difference"
    )(p, x),
    "closure": lambda p, x, c: igr.with_gradient_penalty(
        lambda p: c * mean_loss(p, x), 0.1
    )(p),
    "examples": lambda p, x, c: igr.with_per_example_gradient_penalty(mean_loss, c)(
        p, x
    ),
    "examples-closure": lambda p, x, c: igr.with_per_example_gradient_penalty(
        lambda p, x: c * mean_loss(p, x), 0.1
    )(p, x),
    "two-batches": lambda p, x, c: igr.two_batch_gradient_penalty(mean_loss, c)(
        p, x, x
    ),
    "batches": lambda p, x, c: igr.stochastic_modified_loss(mean_loss, 0.1)(p, x[None]),
}
"""Values whose own derivative is left for later."""


@pytest.mark.parametrize("name", VALUES)
def test_a_derivative_for_later_holds_no_tracers(name):
    """What `jax.jit` caches of the value would keep the arrays of a trace."""
    arguments = (jnp.ones((3, 2)), jnp.ones((4, 3)), jnp.float32(0.5))
    with jax.checking_leaks():
        jax.make_jaxpr(jax.jit(VALUES[name]))(*arguments)


def test_a_tracer_that_is_held_is_found():
    """The negative control: the rule of a custom derivative that closes over one."""

    def fn(x):
        identity = jax.custom_jvp(lambda y: y)
        identity.defjvp(lambda y, dy: (y[0], dy[0] * x))
        return identity(x)

    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked trace"):
        jax.make_jaxpr(jax.jit(fn))(jnp.float32(1.0))
