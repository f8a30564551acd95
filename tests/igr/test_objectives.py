"""Every objective against an expression of its own, on a network small enough."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit.testing import assert_trees_close
from igr import objectives

SIZE, NUM_CLASSES = 5, 3
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.integers(0, 256, size=(SIZE, 2, 2)).astype(np.uint8),
    "label": np.arange(SIZE) % NUM_CLASSES,
}
PARAMS = {
    "w": RNG.normal(size=(4, 6)).astype(np.float32),
    "v": RNG.normal(size=(6, NUM_CLASSES)).astype(np.float32),
}
KEY = jax.random.key(1)


def prepare(images):
    return (images.astype(jnp.float32) - 128.0) / 64.0


def apply(params, x, key):
    h = jnp.tanh(x.reshape(len(x), -1) @ params["w"])
    if key is not None:
        h = 2.0 * h * jax.random.bernoulli(key, 0.5, h.shape)
    return h @ params["v"]


PROBLEM = objectives.Problem(apply, prepare)
# The same network without dropout, however it is called.
CERTAIN = objectives.Problem(lambda params, x, key: apply(params, x, None), prepare)
X, LABELS = np.asarray(prepare(BATCH["image"])), BATCH["label"]


@functools.cache
def compiled(name, problem):
    objective = functools.partial(objectives.OBJECTIVES[name], problem)
    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def evaluate(name, strength, key=KEY, problem=CERTAIN):
    """`((objective, figures), gradient)`."""
    return compiled(name, problem)(PARAMS, BATCH, key, strength)


def losses(params, x, labels=LABELS):
    """Of every example: the logarithm of the sum less the logit of the class."""
    logits = apply(params, x, None)
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jax.scipy.special.logsumexp(logits, axis=1) - chosen


def plain(params, x=X, labels=LABELS):
    return losses(params, x, labels).mean()


def jacobian(params):
    """Gradient of every loss in every input [loss, input, height, width]."""
    return jax.jacrev(functools.partial(losses, params))(X)


def parameter_penalty(params):
    slope = jax.grad(plain)(params)
    return plain(params) + 0.3 * sum(jnp.sum(g**2) for g in slope.values())


def two_batch_penalty(params):
    a, b = ((X[i:4:2], LABELS[i:4:2]) for i in (0, 1))  # the fifth has no partner
    product = jax.tree.map(
        lambda g, h: jnp.sum(g * h),
        jax.grad(plain)(params, *a),
        jax.grad(plain)(params, *b),
    )
    return 0.5 * (plain(params, *a) + plain(params, *b)) + 0.3 * sum(product.values())


def input_penalty(params):
    return plain(params) + 0.3 * jnp.sum(jacobian(params) ** 2) / SIZE


def flooding(params):
    return jnp.abs(plain(params) - 10.0) + 10.0


def fgm(params):
    slopes = jacobian(PARAMS).sum(axis=0)  # a loss depends on its own input alone
    norms = jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2), keepdims=True))
    return 0.5 * (plain(params) + plain(params, X + 0.3 * slopes / norms))


def clean_logits():
    x = (BATCH["image"].astype(float) - 128) / 64
    return np.tanh(x.reshape(SIZE, -1) @ PARAMS["w"]) @ PARAMS["v"]


def clean_loss():
    logits = clean_logits()
    total = np.log(np.exp(logits).sum(axis=1))
    return np.mean(total - logits[np.arange(SIZE), LABELS])


EXPRESSIONS = {
    "none": (plain, 0.3),
    "parameter_penalty": (parameter_penalty, 0.3),
    "two_batch_penalty": (two_batch_penalty, 0.3),
    "input_penalty": (input_penalty, 0.3),
    "flooding": (flooding, 10.0),
    "fgm": (fgm, 0.3),
    "noise": (plain, 0.0),
    "vat": (plain, 0.0),
}


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_value_and_gradient_are_those_of_the_expression(name):
    expression, strength = EXPRESSIONS[name]
    (value, _), got = evaluate(name, strength)
    expected = jax.jit(jax.value_and_grad(expression))(PARAMS)
    assert_trees_close((value, got), expected, name, rtol=2e-5, atol=2e-6)
    if strength:
        assert (abs(value - clean_loss()) > 1e-2) == (name != "none")


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_figures_are_those_of_the_clean_batch(name):
    (_, figures), _ = evaluate(name, 0.3)
    np.testing.assert_allclose(figures["cross_entropy"], clean_loss(), rtol=1e-5)
    hits = np.mean(clean_logits().argmax(axis=1) == LABELS)
    np.testing.assert_allclose(figures["accuracy"], hits, rtol=1e-6)


def test_above_its_level_flooding_changes_nothing():
    assert_trees_close(
        evaluate("flooding", 0.01), evaluate("none", 0.0), "loss", rtol=0.0, atol=0.0
    )


def test_noise_has_its_strength_as_standard_deviation_and_another_key_another_draw():
    def linear(params, x, key):  # of one input: logits (s, 0), the loss log(1 + e^-s)
        del key
        s = params * x.reshape(len(x), -1).sum(axis=1, keepdims=True)
        return jnp.concatenate([s, jnp.zeros_like(s)], axis=1)

    problem = objectives.Problem(linear, lambda x: x)
    batch = {"image": jnp.zeros((4000, 1)), "label": jnp.zeros(4000, jnp.int32)}
    objective = jax.jit(functools.partial(objectives.OBJECTIVES["noise"], problem))
    first, second = (
        float(objective(1.0, batch, jax.random.key(i), 1.5)[0]) for i in (0, 1)
    )
    # E log(1 + exp(-sigma n)) by Gauss-Hermite quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    terms = np.log1p(np.exp(-1.5 * nodes))
    expected = np.average(terms, weights=weights)
    deviation = np.sqrt(np.average((terms - expected) ** 2, weights=weights) / 4000)
    assert first != second
    np.testing.assert_allclose([first, second], expected, atol=4 * deviation)
    assert abs(expected - np.log(2)) > 10 * deviation  # the control: no noise


def test_the_divergence_of_vat_is_at_most_that_of_the_worst_direction():
    epsilon = 1e-2
    (value, _), _ = evaluate("vat", epsilon)

    def logits(x):
        return apply(PARAMS, x[None], None)[0]

    @jax.jit
    def linearise(x):
        return jax.vmap(logits)(x), jax.vmap(jax.jacrev(logits))(x)

    outputs, jacobians = (np.asarray(a, np.float64) for a in linearise(X))
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    jacobians = jacobians.reshape(SIZE, NUM_CLASSES, -1)
    middle = np.eye(NUM_CLASSES) * p[:, None] - p[:, :, None] * p[:, None]
    hessians = np.swapaxes(jacobians, 1, 2) @ middle @ jacobians
    worst = 0.5 * epsilon**2 * np.linalg.eigvalsh(hessians)[:, -1].mean()
    average = 0.5 * epsilon**2 * np.trace(hessians, axis1=1, axis2=2).mean() / 4
    divergence = float(value) - clean_loss()
    assert average < divergence < 1.05 * worst


# These hand the key to the network as the penalty of the parameters does.
PLAIN = ("none", "flooding")


@pytest.mark.parametrize(
    "name",
    ["parameter_penalty"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in PLAIN],
)
def test_with_a_key_the_objective_is_that_of_the_masked_network(name):
    mask = 2.0 * jax.random.bernoulli(KEY, 0.5, (SIZE, 6))

    def masked(params, x, key):
        del key
        return (jnp.tanh(x.reshape(len(x), -1) @ params["w"]) * mask) @ params["v"]

    got = evaluate(name, 0.3, problem=PROBLEM)
    expected = evaluate(name, 0.3, problem=objectives.Problem(masked, prepare))
    assert_trees_close(got, expected, name, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in PLAIN))
        for name in objectives.OBJECTIVES
    ],
)
def test_without_a_key_there_is_no_dropout(name):
    got = evaluate(name, 0.3, None, PROBLEM)
    # The others draw nothing for a network without dropout, whatever their key.
    expected = evaluate(name, 0.3, None if name in ("noise", "vat") else KEY)
    assert_trees_close(got, expected, name, rtol=1e-6, atol=1e-7)


def losses_and_norms_under_every_mask(params, x):
    """Of one example, the loss and the norm of its input gradient for all 64 masks."""
    masks = 2.0 * jnp.asarray(list(itertools.product((0, 1), repeat=6)))

    def loss(x, mask):
        logits = (jnp.tanh(x @ params["w"]) * mask) @ params["v"]
        return -jax.nn.log_softmax(logits)[0]

    take = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))
    values, slopes = take(x.reshape(-1), masks)
    return np.asarray(values), np.linalg.norm(slopes, axis=1)


@pytest.mark.parametrize("name", ["input_penalty", "fgm"])
def test_every_example_has_a_mask_of_its_own_in_all_passes(name):
    # Of two equal examples, loss and slope must be those of one pair of masks.
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), BATCH)
    strength = 1e-6 if name == "fgm" else 0.3
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), PARAMS)
        problem = objectives.Problem(apply, lambda x: prepare(x).astype(jnp.float64))
        losses, norms = losses_and_norms_under_every_mask(
            params, problem.prepare(batch["image"][0])
        )
        objective = functools.partial(objectives.OBJECTIVES[name], problem)
        keys = jax.random.split(KEY, 8)
        take = jax.jit(jax.vmap(objective, in_axes=(None, None, 0, None)))
        values, figures = take(params, batch, keys, strength)
        means, values = np.asarray(figures["cross_entropy"]), np.asarray(values)
    slopes = (values - means) / (0.5 * strength if name == "fgm" else strength)
    norms = norms if name == "fgm" else norms**2
    chosen = []
    for mean, slope in zip(means, slopes, strict=True):
        misses = np.hypot(
            0.5 * (losses[:, None] + losses) - mean,
            0.5 * (norms[:, None] + norms) - slope,
        )
        assert misses.min() < 1e-4
        chosen.append(np.unravel_index(misses.argmin(), misses.shape))
    assert sum(a != b for a, b in chosen) >= 5  # of 8; chance makes one in 64 equal
