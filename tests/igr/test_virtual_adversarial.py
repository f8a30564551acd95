"""Virtual adversarial perturbations against dense linear algebra in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from igr import virtual_adversarial_loss, virtual_adversarial_perturbation

KEY = jax.random.key(0)


def network(params, x):
    """A tanh network with a hidden layer: x [batch, in] to logits [batch, classes]."""
    w, b, v = params
    return jnp.tanh(x @ w + b[None]) @ v


def example(gain=1.0, dtype=np.float32):
    """Parameters and a batch; a large gain makes confident predictions."""
    rng = np.random.default_rng(0)
    w, b, v = rng.normal(size=(6, 8)), rng.normal(size=8), rng.normal(size=(8, 4))
    x = rng.normal(size=(64, 6))
    params = (0.5 * w, 0.1 * b, gain * v)
    return tuple(a.astype(dtype) for a in params), x.astype(dtype)


def dense_hessians(params, x):
    """J' (diag p - p p') J for each example, in numpy and float64.

    Summed over pairs of classes, since p - p p leaves nothing of p = 1 - 1e-17.
    """
    w, b, v = (np.asarray(a, np.float64) for a in params)
    hidden = np.tanh(np.asarray(x, np.float64) @ w + b)
    jacobian = np.einsum("ih,bh,hk->bki", w, 1 - hidden**2, v)
    p = softmax(hidden @ v, axis=1)
    pairs = jacobian[:, :, None] - jacobian[:, None]
    return 0.5 * np.einsum("bk,bl,bkli,bklj->bij", p, p, pairs, pairs)


def dense_product(params, x):
    """The dense Hessians times the directions at which the iteration starts."""
    start = np.asarray(perturbation(params, x, num_iterations=0), np.float64)
    return np.einsum("bij,bj->bi", dense_hessians(params, x), start)


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / norms


@functools.partial(jax.jit, static_argnames="num_iterations")
def perturbation(params, x, epsilon=1.0, key=KEY, num_iterations=1):
    return virtual_adversarial_perturbation(
        lambda x: network(params, x),
        x,
        key,
        epsilon=epsilon,
        num_iterations=num_iterations,
    )


@pytest.mark.parametrize("gain", [1.0, 8.0])
def test_the_power_iteration_reaches_the_top_eigenvector(gain):
    params, x = example(gain)
    top = np.linalg.eigh(dense_hessians(params, x))[1][:, :, -1]
    got = perturbation(params, x, num_iterations=300)
    assert np.abs(cosines(got, top)).min() >= 0.9999
    start = perturbation(params, x, num_iterations=0)
    assert np.abs(cosines(start, top)).min() < 0.5


@pytest.mark.parametrize("gain", [1.0, 3.0, 8.0])
def test_an_iteration_in_float32_is_the_exact_hessian_product(gain):
    params, x = example(gain)
    got = perturbation(params, x)
    assert cosines(got, dense_product(params, x)).min() > 0.999999


def test_differences_at_the_papers_distance_are_rounding_error_in_float32():
    params, x = example(1.0)
    # A traced xi asks for differences.
    differences = jax.jit(
        lambda xi: virtual_adversarial_perturbation(
            lambda x: network(params, x), x, KEY, epsilon=1.0, xi=xi
        )
    )
    got = cosines(differences(1e-6), dense_product(params, x))
    assert got.min() < -0.5
    with jax.enable_x64(True):
        params, x = example(1.0, np.float64)
        got = cosines(differences(1e-6), dense_product(params, x))
        assert got.min() > 0.999999


def test_a_finite_distance_is_that_of_algorithm_1():
    rng = np.random.default_rng(1)
    w, x = rng.normal(size=(5, 3)), rng.normal(size=(7, 5))
    with jax.enable_x64(True):

        @functools.partial(jax.jit, static_argnums=0)
        def run(num_iterations):
            return virtual_adversarial_perturbation(
                lambda x: x @ w,
                x,
                KEY,
                epsilon=0.7,
                xi=2.0,
                num_iterations=num_iterations,
            )

        direction = np.asarray(run(0)) / 0.7
        for _ in range(2):
            # The gradient of KL(p(x) || p(x + r)) in r, for linear logits.
            moved = softmax((x + 2.0 * direction) @ w, axis=1)
            direction = (moved - softmax(x @ w, axis=1)) @ w.T
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        np.testing.assert_allclose(run(2), 0.7 * direction, rtol=1e-9)


def vat(logits_fn, epsilon=0.5):
    """The loss as a function of parameters and inputs."""

    def loss(params, x):
        return virtual_adversarial_loss(
            lambda x: logits_fn(params, x), x, KEY, epsilon=epsilon
        )

    return loss


def divergence(logits_p, logits_q):
    """KL from logits by scipy in float64."""
    p, q = (softmax(np.asarray(z, np.float64), axis=1) for z in (logits_p, logits_q))
    return rel_entr(p, q).sum(axis=1)


def test_the_loss_is_the_divergence_at_the_perturbed_input():
    params, x = example()
    r = np.asarray(perturbation(params, x, epsilon=0.5))
    np.testing.assert_allclose(np.linalg.norm(r, axis=1), 0.5, rtol=1e-6)
    got = jax.jit(vat(network, 0.5))(params, x)
    logits_fn = jax.jit(network)
    expected = divergence(logits_fn(params, x), logits_fn(params, x + r))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_arguments_may_have_their_names():
    params, x = example()
    logits_fn, key = functools.partial(network, params), jax.random.key(0)
    named, placed = jax.jit(
        lambda x: (
            virtual_adversarial_loss(logits_fn=logits_fn, x=x, key=key, epsilon=0.5),
            virtual_adversarial_loss(logits_fn, x, key, epsilon=0.5),
        )
    )(x)
    np.testing.assert_array_equal(named, placed)
    with pytest.raises(TypeError, match="positional"):
        virtual_adversarial_loss(logits_fn, x, key, 0.5)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 1e-2])
def test_a_small_divergence_keeps_its_digits(epsilon):
    rng = np.random.default_rng(2)
    w, x = np.asarray(rng.normal(size=(5, 3)), np.float32), np.zeros((64, 5), "float32")
    arguments = lambda x: x @ w, x, KEY
    r, got = jax.jit(
        lambda epsilon: (
            virtual_adversarial_perturbation(*arguments, epsilon=epsilon),
            virtual_adversarial_loss(*arguments, epsilon=epsilon),
        )
    )(epsilon)
    logits = np.asarray(r, np.float64) @ w
    expected = -np.log(3) - log_softmax(logits, axis=1).mean(axis=1)
    assert (got >= 0).all()
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def as_constants(params, x, p, r):
    """The divergence with the clean prediction and the perturbation given."""
    log_q = jax.nn.log_softmax(network(params, x + r))
    return jnp.sum(p * (jnp.log(p) - log_q))


def test_derivatives_see_neither_the_direction_nor_the_clean_prediction():
    with jax.enable_x64(True):
        params, x = example(dtype=np.float64)
        r = np.asarray(perturbation(params, x))
        p = softmax(np.asarray(jax.jit(network)(params, x)), axis=1)
        loss = vat(network, 1.0)
        got = jax.jit(jax.grad(lambda *a: loss(*a).sum(), (0, 1)))(params, x)
        wanted = jax.jit(jax.grad(as_constants, (0, 1)))(params, x, p, r)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), got, wanted)

        def clean_too(params):
            return as_constants(params, x, jax.nn.softmax(network(params, x)), r)

        other = jax.jit(jax.grad(clean_too))(params)
        assert not np.allclose(other[0], got[0][0], rtol=1e-3)


def test_the_perturbation_is_a_constant():
    params, x = example()
    slope = jax.jit(jax.grad(lambda *a: perturbation(*a).sum(), (0, 1)))(params, x)
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_array_equal(leaf, 0.0)


def test_the_loss_is_twice_differentiable():
    with jax.enable_x64(True):
        params, x = example(dtype=np.float64)
        params = jax.tree.map(jnp.asarray, params)

        def slope(shift):
            moved = params[0] + shift, *params[1:]
            return jax.grad(lambda p: vat(network, 1.0)(p, x).sum())(moved)[1].sum()

        second = jax.jit(jax.grad(slope))(0.0)
        assert np.isfinite(second)
        assert second != 0.0


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_give_finite_losses_and_gradients(size):
    x = np.random.default_rng(3).normal(size=(16, 3)).astype(np.float32)

    def loss(scale, epsilon):
        return virtual_adversarial_loss(lambda x: scale * x, x, KEY, epsilon=epsilon)

    def total(scale, epsilon):
        value = loss(scale, epsilon)
        return value.sum(), value

    gradient_fn = jax.jit(jax.grad(total, has_aux=True))
    for epsilon in (0.0, 1.0, 30.0):
        gradient, value = gradient_fn(jnp.float32(size), epsilon)
        assert (value >= 0).all()
        assert np.isfinite(value).all()
        assert np.isfinite(gradient)


ALLOWED = np.array([True, True, False, True])


def loss_and_gradient(logits_fn):
    params, x = example()

    def total(params):
        loss = vat(logits_fn, 1.0)(params, x)
        return loss.sum(), loss

    return jax.jit(jax.grad(total, has_aux=True))(params)


@pytest.fixture(scope="module")
def without_the_class():
    return loss_and_gradient(lambda params, x: network(params, x)[:, ALLOWED])


@pytest.mark.parametrize(
    "exclude",
    [
        lambda logits: jnp.where(ALLOWED[None], logits, -jnp.inf),
        lambda logits: logits + np.where(ALLOWED, 0.0, -np.inf)[None],
    ],
    ids=["where", "add"],
)
def test_an_excluded_class_changes_nothing(exclude, without_the_class):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        loss_and_gradient(lambda params, x: exclude(network(params, x))),
        without_the_class,
    )


def test_examples_do_not_influence_each_other_and_the_key_counts():
    params, x = example()
    first = perturbation(params, x)
    other = np.concatenate([5.0 + x[:1], x[1:]])
    second = perturbation(params, other)
    np.testing.assert_array_equal(first[1:], second[1:])
    assert not np.allclose(first[0], second[0])
    changed = perturbation(params, x, key=jax.random.key(1))
    assert (cosines(first, changed) < 0.0).any()  # the sign is that of the start


def test_a_flat_prediction_is_not_perturbed():
    flat = jax.jit(
        lambda x: virtual_adversarial_perturbation(
            lambda x: 0.0 * x, x, KEY, epsilon=1.0
        )
    )
    got = flat(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(got, 0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_inputs_give_float32_losses(dtype):
    params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), example())
    r = perturbation(params, x)
    assert r.dtype == dtype
    np.testing.assert_allclose(
        np.linalg.norm(np.asarray(r, np.float32), axis=1), 1.0, rtol=1e-2
    )
    loss = jax.eval_shape(vat(network), params, x)
    assert loss.dtype == jnp.float32


@pytest.mark.parametrize("xi", [1e-6, 1.0])
def test_an_example_may_be_a_number(xi):
    x = jnp.array([0.3, -1.0, 2.0])

    def logits_fn(x):
        return jnp.stack([x, x**2], axis=-1)

    found = jax.jit(
        lambda x: virtual_adversarial_perturbation(
            logits_fn, x, jax.random.key(0), epsilon=0.3, xi=xi
        )
    )(x)
    np.testing.assert_allclose(np.abs(found), np.full(3, 0.3), rtol=1e-6)
