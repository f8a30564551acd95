"""Squared gradients of single examples against `vmap` of `grad` and closed forms."""

import functools
import itertools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strict_promotion

from expkit import testing
from expkit.per_example import dense_fisher, dense_squared_norms

BATCH = 5
# Lengths on both sides of the choice between Gram matrices and the product.
SHAPES = {"vectors": (3,), "short": (2, 3), "long": (9, 3)}
sequences = pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, id=name, marks=[pytest.mark.slow] * (name == "vectors"))
        for name, shape in SHAPES.items()
    ],
)


def make(seed=0, sizes=(3, 6, 5, 2), bias=True, dtype=jnp.float32):
    # Not by jax.random: collecting the tests would compile a program for each shape.
    rng = np.random.default_rng(seed)
    return [
        (
            jnp.asarray(rng.standard_normal((i, o)), dtype),
            jnp.asarray(rng.standard_normal(o), dtype) if bias else None,
        )
        for i, o in itertools.pairwise(sizes)
    ]


def make_input(shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(9), (BATCH, *shape), dtype)


def forward(params, x, activation):
    for index, (w, b) in enumerate(params):
        x = activation(x) if index else x
        x = jnp.einsum("...i,io->...o", x, w)
        x = x if b is None else x + jnp.broadcast_to(b, x.shape)
    return x


def output_loss(out):
    """Mixes the positions of a sequence, so that they are no separate examples."""
    out = out.reshape(len(out), -1)
    return jax.nn.logsumexp(out, axis=-1) - out[:, 0] + 0.1 * jnp.sum(out**3, axis=-1)


@functools.partial(jax.jit, static_argnames=("activation", "loss"))
def norms_of(params, x, activation=jnp.tanh, loss=output_loss):
    return dense_squared_norms(params, x, loss, activation)


@functools.partial(jax.jit, static_argnames=("activation", "loss"))
def fisher_of(params, x, activation=jnp.tanh, loss=output_loss):
    return dense_fisher(params, x, loss, activation)


@functools.partial(jax.jit, static_argnums=2)
def gradients(params, x, activation):
    """The gradient of every example, each computed in a batch of one."""

    def loss(params, row):
        return output_loss(forward(params, row[None], activation))[0]

    return jax.vmap(jax.grad(loss), (None, 0))(params, x)


@functools.partial(jax.jit, static_argnums=2)
def norms_by_vmap(params, x, activation):
    grads = gradients(params, x, activation)
    return sum(jnp.sum(g.reshape(len(x), -1) ** 2, -1) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("bias", "activation"), [(True, jnp.tanh), (False, jax.nn.relu)]
)
def test_norms_and_fisher_are_those_of_each_gradient(shape, bias, activation):
    with jax.enable_x64(True):
        params = make(bias=bias, dtype=jnp.float64)
        x = make_input(shape, jnp.float64)
        norms = norms_of(params, x, activation)
        fisher = fisher_of(params, x, activation)
        grads = jax.tree.map(np.asarray, gradients(params, x, activation))
        expected = sum(
            np.sum(g.reshape(BATCH, -1) ** 2, axis=1) for g in jax.tree.leaves(grads)
        )
        assert norms.dtype == jnp.float64
        np.testing.assert_allclose(norms, expected, rtol=1e-12)
        assert jax.tree.structure(fisher) == jax.tree.structure(params)
        for got, g in zip(jax.tree.leaves(fisher), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(got, np.mean(g**2, 0), rtol=1e-11, atol=1e-14)
        total = sum(np.sum(f) for f in jax.tree.leaves(fisher))
        np.testing.assert_allclose(total, np.mean(norms), rtol=1e-12)


@sequences
def test_norms_in_float32_agree_to_one_in_100_000(shape):
    params = make(sizes=(3, 40, 40, 2))
    params = [(w / jnp.sqrt(jnp.float32(len(w))), b) for w, b in params]
    x = make_input(shape)
    got = norms_of(params, x)
    np.testing.assert_allclose(got, norms_by_vmap(params, x, jnp.tanh), rtol=1e-5)


@sequences
def test_the_gradient_of_the_mean_norm_is_that_of_the_vmapped_form(shape):
    with jax.enable_x64(True):
        params, x = make(dtype=jnp.float64), make_input(shape, jnp.float64)
        got, expected = (
            jax.jit(jax.grad(lambda p, fn=fn: jnp.mean(fn(p, x, jnp.tanh))))(params)
            for fn in (norms_of, norms_by_vmap)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
            got,
            expected,
        )


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 3)])
def test_a_linear_model_has_the_closed_form(shape):
    # Squared error of a linear model: the residual r times the input.
    x = np.asarray(make_input(shape), np.float64)
    w, b = (np.asarray(a, np.float64) for a in make(sizes=(3, 2))[0])
    residual = x @ w + b
    flat = (x.reshape(BATCH, -1, 3), residual.reshape(BATCH, -1, 2))
    of_weight = np.einsum("bti,bto->bio", *flat)
    of_bias = flat[1].sum(1)

    def loss(out):
        return 0.5 * jnp.sum(out.reshape(BATCH, -1) ** 2, axis=-1)

    params, x = [(jnp.float32(w), jnp.float32(b))], jnp.float32(x)
    got = norms_of(params, x, loss=loss)
    expected = (of_weight**2).sum((1, 2)) + (of_bias**2).sum(1)
    np.testing.assert_allclose(got, expected, rtol=2e-6)
    [(w_fisher, b_fisher)] = fisher_of(params, x, loss=loss)
    np.testing.assert_allclose(w_fisher, (of_weight**2).mean(0), rtol=2e-6)
    np.testing.assert_allclose(b_fisher, (of_bias**2).mean(0), rtol=2e-6)


@pytest.mark.parametrize("length", [2, 9])
def test_positions_that_share_weights_are_not_separate_examples(length):
    # The control: sum_t (1 + |h_t|^2) |delta_t|^2, as if they shared nothing.
    params, x = make(sizes=(3, 2)), make_input((length, 3))
    [(w, b)] = params
    z = np.asarray(x) @ np.asarray(w) + np.asarray(b)
    delta = np.asarray(jax.jit(jax.grad(lambda z: jnp.sum(output_loss(z))))(z))
    per_position = (1.0 + np.sum(np.square(x), -1)) * np.sum(delta**2, -1)
    naive = np.sum(per_position, axis=1)
    got = norms_of(params, x)
    assert np.all(np.abs(naive / got - 1.0) > 1e-4)
    np.testing.assert_allclose(got, norms_by_vmap(params, x, None), rtol=1e-5)


def test_a_sequence_of_length_one_is_a_vector():
    params, x = make(), make_input((3,))
    for fn in (norms_of, fisher_of):
        vectors, sequences = fn(params, x), fn(params, x[:, None])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), vectors, sequences
        )


def test_positions_that_cancel_leave_a_norm_that_is_not_negative():
    # Opposite signs of the same large position: every gradient is 0 but for rounding.
    params = [(jnp.ones((40, 60)), None)]
    x = 1e3 * jax.random.normal(jax.random.key(1), (BATCH, 1, 40))
    x = jnp.concatenate([x, -x, 0.3 * x], axis=1)
    signs = jnp.array([1.0, 1.0 + 1e-7, 0.0])[None, :, None]
    got = norms_of(params, x, loss=lambda out: jnp.sum(signs * out, axis=(1, 2)))
    assert np.all(got >= 0.0)


@pytest.mark.slow
def test_a_loss_that_mixes_the_batch_is_outside_the_contract():
    # The control for "loss i depends on row i only": nothing can detect it here.
    params, x = make(), make_input((3,))

    def centred(out):
        return output_loss(out - jnp.mean(out, axis=0, keepdims=True))

    def one_by_one(loss):
        return [norms_of(params, row[None], loss=loss)[0] for row in x]

    got = norms_of(params, x, loss=centred)
    assert not np.allclose(got, one_by_one(centred), rtol=0.1)
    np.testing.assert_allclose(norms_of(params, x), one_by_one(output_loss), rtol=1e-5)


@pytest.mark.optimized
def test_no_gradient_per_example_is_in_memory():
    batch, width = 64, 128
    params = [(jnp.zeros((width, width)), jnp.zeros(width))] * 3
    x = jnp.zeros((batch, width))

    def temporary_bytes(fn):
        compiled = jax.jit(fn).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    all_gradients = 12 * batch * width**2
    for fn in (dense_squared_norms, dense_fisher):
        used = temporary_bytes(lambda p, fn=fn: fn(p, x, output_loss, jnp.tanh))
        assert used < 0.1 * all_gradients
    control = temporary_bytes(lambda p: norms_by_vmap(p, x, jnp.tanh))
    assert control > 0.3 * all_gradients


@pytest.mark.parametrize(
    "params",
    [
        make(dtype=jnp.bfloat16),
        [*make(sizes=(3, 4), dtype=jnp.bfloat16), *make(sizes=(4, 2))],
        [*make(sizes=(3, 4)), *make(sizes=(4, 2), dtype=jnp.bfloat16)],
    ],
    ids=["bfloat16", "bfloat16 then float32", "float32 then bfloat16"],
)
def test_low_and_mixed_precision_give_float32(params):
    x = make_input((2, 3), jnp.bfloat16)
    norms, fisher = norms_of(params, x), fisher_of(params, x)
    assert {a.dtype for a in jax.tree.leaves((norms, fisher))} == {jnp.dtype("float32")}
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    expected = norms_of(*wide)
    np.testing.assert_allclose(norms, expected, rtol=0.1)


def test_integer_inputs_such_as_pixels_are_allowed():
    params = make()
    pixels = jnp.arange(15, dtype=jnp.uint8).reshape(5, 3)
    expected = norms_of(params, pixels.astype(jnp.float32))
    np.testing.assert_array_equal(norms_of(params, pixels), expected)


def penalty(fn, shape):
    def output_loss(out, scale):
        return jnp.sin(scale * jnp.mean(out.reshape(len(out), -1), axis=-1))

    def loss(params, scale):
        x = jnp.linspace(-1.0, 1.0, 2 * np.prod(shape)).reshape(2, *shape)
        out = fn(params, x, lambda out: output_loss(out, scale), jnp.sin)
        return jax.tree.leaves(out)[0]

    return loss


# Both come from one backward pass: how they are called is checked of one of the two.
LONG = {
    dense_squared_norms: (
        *conformance.COMPILED,
        "second_derivative_matches_finite_differences",
        "keyword_arguments",
    ),
    dense_fisher: ("second_derivative_matches_finite_differences",),
}


@pytest.mark.parametrize(
    "check",
    [
        case
        for fn, name, is_slow in (
            (dense_squared_norms, "vectors", False),
            (dense_squared_norms, "short", True),
            (dense_squared_norms, "long", True),
            (dense_fisher, "vectors", True),
            (dense_fisher, "short", False),
        )
        for case in conformance.cases(
            testing.loss_checks(
                penalty(fn, SHAPES[name]),
                (make(3, (3, 4, 1)), jnp.float32(0.7)),
                argnums=(0, 1),
                extremes=(0.0, 10.0, -10.0),
                second_order=True,
            ),
            f"{fn.__name__}-{name}",
            slow=LONG[fn],
            quick=() if is_slow else None,
        )
    ],
)
def test_penalties_conform(check):
    check()


GOOD = {
    "params": make(),
    "x": jnp.ones((BATCH, 3)),
    "output_loss": output_loss,
    "activation": jnp.tanh,
}
W, B = jnp.ones((3, 2)), jnp.ones(2)


@pytest.mark.parametrize("fn", [dense_squared_norms, dense_fisher])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": jnp.ones(3)}, ValueError, r"x must be \[batch, in\].*got \(3,\)"),
        ({"x": jnp.ones((5, 2, 2, 3))}, ValueError, r"x must .*flatten"),
        ({"x": jnp.ones((5, 4))}, ValueError, r"params\[0\] .*\[4, out\] to follow x"),
        ({"params": []}, ValueError, r"params must be a list of at least one"),
        ({"params": {"w": W}}, ValueError, r"params must be a list"),
        ({"params": [W]}, ValueError, r"params\[0\] must be \(w \[in, out\]"),
        ({"params": [(None, B)]}, ValueError, r"params\[0\] must be \(w \[in, out\]"),
        ({"params": [(W, B), (W, B)]}, ValueError, r"params\[1\] .*\[2, out\] to foll"),
        ({"params": [(W, jnp.ones(3))]}, ValueError, r"params\[0\] must have b \[2\]"),
        ({"params": [(jnp.ones((3, 2), int), B)]}, TypeError, r"params\[0\] .*int32"),
        (
            {"params": [([[1.0]] * 3, None)]},
            TypeError,
            r"w of params\[0\] must .* list",
        ),
        ({"params": [(W, [0.0, 0.0])]}, TypeError, r"b of params\[0\] must .* list"),
        ({"activation": "tanh"}, TypeError, "activation must be a function, got 'tan"),
        ({"output_loss": None}, TypeError, "output_loss must be a function, got None"),
        ({"output_loss": jnp.mean}, ValueError, r"output_loss .*\(5,\), got \(\)"),
        ({"output_loss": lambda o: o}, ValueError, r"output_loss .*got \(5, 2\)"),
        ({"output_loss": lambda o: o.argmax(-1)}, TypeError, r"output_loss .*int32"),
    ],
)
def test_wrong_arguments_are_named(fn, bad, error, message):
    with pytest.raises(error, match=message):
        fn(**GOOD | bad)


@pytest.mark.parametrize("bias", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_strict_promotion_gives_the_same_numbers(shape, bias):
    params, x = make(bias=bias), make_input(shape)
    strict_promotion.assert_the_same(lambda: norms_of(params, x))
    strict_promotion.assert_the_same(lambda: fisher_of(params, x))


def test_one_matrix_in_two_layers_is_refused():
    w = jnp.eye(3)
    with pytest.raises(ValueError, match="one matrix in several"):
        dense_squared_norms(
            [(w, None), (w, None)], jnp.ones((2, 3)), lambda z: z.sum(axis=-1), jnp.tanh
        )


def test_a_batch_without_examples_has_norms_and_no_mean():
    empty = GOOD | {"x": jnp.zeros((0, 3)), "output_loss": lambda out: out[:, 0]}
    assert jax.jit(lambda: dense_squared_norms(**empty))().shape == (0,)
    with pytest.raises(ValueError, match=r"at least one example, got shape \(0, 3\)"):
        dense_fisher(**empty)
