"""Under JAX's strict promotion of dtypes every function gives the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strict_promotion
from scipy.special import softmax

import rdrop

RNG = np.random.default_rng(0)
LOGITS = tuple(jnp.asarray(z, jnp.float32) for z in RNG.normal(size=(2, 6, 4)))
LABELS = RNG.integers(4, size=6)
SOFT = softmax(RNG.normal(size=(6, 4)), axis=1)
WHERE = np.array([True, False, True, True, False, True])
ALPHAS = {"number": 0.7, "numpy": np.float64(0.7), "jax": jnp.float32(0.7)}


def noisy(params, x, key):
    return x * jax.random.bernoulli(key, 0.5, x.shape).astype(x.dtype)


def value_and_gradients(loss, *args, **options):
    def of_logits(a, b):
        return loss(a, b, *args[2:], **options)

    return jax.jit(jax.value_and_grad(of_logits, (0, 1)))(*args[:2])


CALLS = {
    f"{kind} labels, alpha of {name}": functools.partial(
        value_and_gradients, rdrop.rdrop_loss, *LOGITS, labels, alpha, where=WHERE
    )
    for kind, labels in {
        "integer": LABELS,
        "narrow": jnp.asarray(LABELS, jnp.int8),
        "unsigned": jnp.asarray(LABELS, jnp.uint32),
        "soft": SOFT,
        "one-hot": np.eye(4, dtype=int)[LABELS],
    }.items()
    for name, alpha in ALPHAS.items()
    if name == "jax" or kind == "integer"
} | {
    "sums": lambda: value_and_gradients(
        rdrop.rdrop_loss, *LOGITS, LABELS, 0.7, convention="fairseq", where=WHERE
    ),
    "regression": lambda: value_and_gradients(
        rdrop.rdrop_regression_loss, *LOGITS, SOFT, 0.7
    ),
    "consistency": lambda: value_and_gradients(
        rdrop.consistency_loss, *LOGITS, where=WHERE
    ),
    "divergence": lambda: jax.jit(
        functools.partial(rdrop.symmetric_kl, where=WHERE[:, None])
    )(*LOGITS),
    "two": lambda: rdrop.two_passes(noisy, None, LOGITS[0], jax.random.key(0)),
    "concat": lambda: rdrop.two_passes(
        noisy, None, LOGITS[0], jax.random.key(0), mode="concat"
    ),
    "alpha": lambda: rdrop.convert_alpha(jnp.float32(0.3), "vit", "paper", 512),
}


# An unsigned label is cast as a narrow one, and a one-hot one as a soft one.
ALIKE = ("unsigned labels, alpha of jax", "one-hot labels, alpha of jax")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in CALLS],
)
def test_no_dtype_is_left_to_implicit_promotion(name):
    strict_promotion.assert_the_same(CALLS[name])


def test_the_loss_under_strict_promotion_is_the_formula():
    p, q = (softmax(np.float64(z), axis=1) for z in LOGITS)
    rows = np.arange(6)
    entropies = -np.log(p[rows, LABELS]) - np.log(q[rows, LABELS])
    divergences = ((p - q) * np.log(p / q)).sum(axis=1)
    with jax.numpy_dtype_promotion("strict"):
        got, _ = value_and_gradients(rdrop.rdrop_loss, *LOGITS, LABELS, 4.0)
    np.testing.assert_allclose(got, np.mean(entropies + 2 * divergences), rtol=1e-6)
