"""How a penalty of every example may be called: keys, aux, pytrees, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit import sharding
from expkit.testing import assert_trees_close, count_compilations
from igr import with_gradient_penalty, with_per_example_gradient_penalty

MODES = ("exact", "nested", "finite_difference")
RNG = np.random.default_rng(0)
SIZE, C = 6, 0.3
X = RNG.normal(size=(SIZE, 4))
PARAMS = {
    "w": RNG.normal(size=(4, 3)).astype(np.float32),
    "v": RNG.normal(size=3).astype(np.float32),
}


def net_loss(params, x, key=None):
    h = jnp.tanh(x @ params["w"])
    if key is not None:
        h = 2.0 * h * jax.random.bernoulli(key, 0.5, h.shape)
    return jnp.square(h @ params["v"])


@pytest.mark.parametrize("mode", MODES[:2])
def test_every_example_has_its_own_key_or_all_share_one(mode):
    keys = jax.random.split(jax.random.key(1), SIZE)
    x = X.astype(np.float32)

    def over(fn, keys):  # one example at a time, with the penalty of a batch of one
        values = [fn(PARAMS, x[i], keys[i]) for i in range(SIZE)]
        return np.mean(np.array(values, np.float64))

    one = jax.jit(with_gradient_penalty(net_loss, C, mode=mode))
    penalised = jax.jit(
        with_per_example_gradient_penalty(net_loss, C, mode=mode, chunk_size=2)
    )
    got = penalised(PARAMS, x, keys)
    np.testing.assert_allclose(got, over(one, keys), rtol=1e-5)
    shared = penalised(PARAMS, x, key=keys[0])
    np.testing.assert_allclose(shared, over(one, [keys[0]] * SIZE), rtol=1e-5)
    assert abs(shared - got) > 1e-2  # the control


@pytest.mark.parametrize("argnum", [0, 1])
def test_aux_is_stacked_and_can_be_differentiated(argnum):
    def loss(params, x):
        h = jnp.tanh(x @ params["w"])
        return jnp.square(h @ params["v"]), {"h": h, "row": jnp.arange(2), "no": None}

    penalised = with_per_example_gradient_penalty(
        loss, C, argnum=argnum, has_aux=True, chunk_size=2
    )
    x = X.astype(np.float32)

    def objective(params, x):
        value, aux = penalised(params, x)
        return value + jnp.sum(aux["h"] ** 2), aux

    def plain(params, x):
        without = with_per_example_gradient_penalty(
            lambda *args: loss(*args)[0], C, argnum=argnum
        )
        return without(params, x) + jnp.sum(jnp.tanh(x @ params["w"]) ** 2)

    take = jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))
    (value, aux), got = take(PARAMS, x)
    np.testing.assert_allclose(aux["h"], np.tanh(x @ PARAMS["w"]), rtol=1e-5)
    np.testing.assert_array_equal(aux["row"], np.tile(np.arange(2), (SIZE, 1)))
    assert aux["no"] is None
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(PARAMS, x)
    assert_trees_close((value, got), expected, "with aux", rtol=1e-5, atol=1e-6)


def test_a_batch_may_be_a_pytree_of_integers_and_floats():
    def loss(params, example):
        logits = example["image"] @ params["w"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])

    labels = np.arange(SIZE) % 3
    penalised = with_per_example_gradient_penalty(loss, C, chunk_size=3)
    got = penalised(PARAMS, {"image": X.astype(np.float32), "label": labels})
    logits = X @ PARAMS["w"].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    delta = p - np.eye(3)[labels]
    squares = np.sum(X**2, axis=1) * np.sum(delta**2, axis=1)
    losses = -np.log(p[np.arange(SIZE), labels])
    np.testing.assert_allclose(got, np.mean(losses + C * squares), rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, SIZE])
def test_a_batch_over_several_devices_gives_the_gradient_of_one(chunk_size):
    penalised = with_per_example_gradient_penalty(net_loss, C, chunk_size=chunk_size)
    step = jax.jit(jax.value_and_grad(penalised, argnums=(0, 1)))
    x = X.astype(np.float32)
    placed = sharding.place_batch({"x": x}, sharding.make_mesh("data:2", SIZE))["x"]
    assert len(placed.sharding.device_set) == 2
    assert_trees_close(
        step(PARAMS, placed), step(PARAMS, x), "sharded", rtol=1e-5, atol=1e-6
    )


def test_a_jitted_gradient_compiles_once():
    penalised = with_per_example_gradient_penalty(net_loss, C, chunk_size=2)
    step = jax.jit(jax.grad(penalised))
    x, other = jnp.asarray(X, jnp.float32), jnp.asarray(-X, jnp.float32)
    step(PARAMS, x)
    with count_compilations() as log:
        step(PARAMS, other)
    assert not log.names


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "exat"}, ValueError, "mode must be one of exact, .* got 'exat'"),
        ({"argnum": True}, TypeError, "argnum must be one integer, got True"),
        ({"coefficient": np.inf}, ValueError, "coefficient must be finite, got inf"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1, got 0"),
        ({"chunk_size": 2.0}, TypeError, "chunk_size must be an integer, got 2.0"),
    ],
)
def test_options_out_of_range_are_refused_when_the_penalty_is_built(
    options, error, message
):
    with pytest.raises(error, match=message):
        with_per_example_gradient_penalty(net_loss, **{"coefficient": 0.1} | options)


@pytest.mark.parametrize(
    ("options", "batch", "error", "message"),
    [
        ({"chunk_size": 4}, (X,), ValueError, "chunk_size=4 does not divide .* of 6"),
        ({}, (X, X[:5]), ValueError, r"same number .* shapes \[\(6, 4\), \(5, 4\)\]"),
        ({}, (X[:0],), ValueError, r"at least 1, .* got shapes \[\(0, 4\)\]"),
        ({}, (), ValueError, r"at least 1, .* got shapes \[\]"),
        ({}, (X, 0.1), ValueError, "Pass what they share by keyword"),
        ({"argnum": 2}, (X,), ValueError, "argnum=2 is not among the 2 positional"),
        ({"argnum": -3}, (X,), ValueError, "argnum=-3 is not among the 2 positional"),
        ({"argnum": 1}, (X > 0,), TypeError, "argument 1 must hold .* got bool"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_calls_that_cannot_be_penalised_are_refused(
    mode, options, batch, error, message
):
    penalised = with_per_example_gradient_penalty(net_loss, 0.1, mode=mode, **options)
    with pytest.raises(error, match=message):
        penalised(PARAMS, *batch)


@pytest.mark.parametrize("argnum", [0, 1])
def test_the_loss_of_one_example_must_be_a_scalar(argnum):
    penalised = with_per_example_gradient_penalty(
        lambda params, x: x @ params["w"], 0.1, argnum=argnum
    )
    with pytest.raises(ValueError, match=r"one floating-point scalar, got f.*\[3\]"):
        penalised(PARAMS, X.astype(np.float32))


def test_integer_parameters_are_refused():
    penalised = with_per_example_gradient_penalty(net_loss, 0.1)
    with pytest.raises(TypeError, match=r"argument 0 .* got int32 at \['step'\]"):
        penalised({**PARAMS, "step": jnp.int32(3)}, X)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_examples_may_have_leaves_without_entries(chunk_size):
    def loss(params, x, nothing):
        return jnp.sum(params * x) + jnp.sum(nothing)

    penalised = with_per_example_gradient_penalty(loss, 0.5, chunk_size=chunk_size)
    x = np.float32([[1.0, 2.0], [3.0, 0.0]])
    value, gradient = jax.value_and_grad(penalised)(
        np.float32([1.0, 1.0]), x, np.zeros((2, 0), np.float32)
    )
    # The means of 1 + 2 and 3, of half of the squared norms 5 and 9, and of the rows.
    np.testing.assert_array_equal(value, 3.0 + 3.5)
    np.testing.assert_array_equal(gradient, [2.0, 1.0])
