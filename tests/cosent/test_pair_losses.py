"""The losses that CoSENT is compared with, against scipy, optax and definitions."""

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import log_softmax

import cosent
from cosent import (
    cosine_matrix,
    cosine_mse_loss,
    in_batch_contrastive_loss,
    init_sentence_bert,
    pair_features,
    pairwise_cosine,
    sentence_bert_logits,
    sentence_bert_loss,
)
from expkit import testing

RNG = np.random.default_rng(0)
U, V = RNG.normal(size=(2, 6, 3)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 6)
TARGETS = RNG.uniform(-1, 1, 6).astype(np.float32)
WHERE = np.array([True, False, True, True, True, False])
UNIFORM = stats.uniform(-1, 2).cdf
PARAMS = {"w": RNG.normal(size=(9, 4)).astype(np.float32), "b": np.ones(4, np.float32)}


def sentence_bert(u, v, labels, *, where):
    return sentence_bert_loss(PARAMS, u, v, labels, where=where)


SUITES = {
    "sentence_bert": (sentence_bert, (U, V, CLASSES)),
    "cosine_mse": (cosine_mse_loss, (U, V, TARGETS)),
    "contrastive": (in_batch_contrastive_loss, (U, V)),
}
SLOW = (
    *conformance.COMPILED,
    "second_derivative_matches_finite_differences",
    "keyword_arguments",
    "low_precision",
)


@pytest.mark.parametrize(
    "check",
    [
        case
        for suite, (loss, arguments) in SUITES.items()
        for case in conformance.cases(
            testing.loss_checks(
                loss,
                arguments,
                argnums=(0, 1),
                kwargs={"where": WHERE},
                mask_name="where",
                second_order=True,
                # The alternating extremes make parallel vectors, where |u - v| is 0.
                rtol=2e-5,
            ),
            suite,
            slow=() if suite == "contrastive" else SLOW,
        )
    ],
)
def test_the_losses_conform(check):
    check()


def test_sentence_bert_is_the_cross_entropy_of_its_features():
    features = np.concatenate([U, V, np.abs(U - V)], axis=1).astype(float)
    logits = features @ PARAMS["w"] + PARAMS["b"]
    np.testing.assert_allclose(sentence_bert_logits(PARAMS, U, V), logits, rtol=1e-5)
    each = -log_softmax(logits, axis=1)[np.arange(6), CLASSES]
    got = sentence_bert_loss(PARAMS, U, V, CLASSES, where=WHERE)
    np.testing.assert_allclose(got, each[WHERE].mean(), rtol=1e-6)
    np.testing.assert_array_equal(pair_features(U, U)[:, 6:], 0.0)


def test_equal_vectors_have_no_gradient_through_their_distance():
    slope = jax.grad(lambda u: pair_features(u, jnp.asarray(U))[:, 6:].sum())(
        jnp.asarray(U)
    )
    np.testing.assert_array_equal(slope, 0.0)
    assert jax.grad(jnp.abs)(0.0) == 1.0  # what it would be without care


def test_fresh_parameters_have_the_scale_of_glorot():
    params = init_sentence_bert(jax.random.key(0), dim=400, num_classes=3)
    assert params["w"].shape == (1200, 3)
    np.testing.assert_array_equal(params["b"], np.zeros(3))
    limit = np.sqrt(6.0 / 1203)
    assert np.abs(params["w"]).max() <= limit
    assert stats.kstest(np.ravel(params["w"]) / limit, UNIFORM).pvalue > 1e-4
    normal = np.random.default_rng(0).normal(size=3600) / np.sqrt(3)  # the control
    assert stats.kstest(normal, UNIFORM).pvalue < 1e-4


def test_the_squared_error_is_that_of_the_cosine():
    cosines = np.sum(U * V, axis=1, dtype=float)
    cosines /= np.linalg.norm(U.astype(float), axis=1) * np.linalg.norm(V, axis=1)
    got = cosine_mse_loss(U, V, TARGETS, where=WHERE)
    expected = np.mean(((cosines - TARGETS) ** 2)[WHERE])
    np.testing.assert_allclose(got, expected, rtol=5e-7)
    np.testing.assert_allclose(cosine_mse_loss(U, U, np.ones(6)), 0.0, atol=1e-12)


def test_the_contrastive_loss_is_the_cross_entropy_of_the_table():
    table = 20.0 * np.asarray(cosine_matrix(U, V), float)
    expected = -np.mean(np.diag(log_softmax(table, axis=1)))
    np.testing.assert_allclose(in_batch_contrastive_loss(U, V), expected, rtol=1e-6)
    kept = table[np.ix_(WHERE, WHERE)]
    expected = -np.mean(np.diag(log_softmax(kept, axis=1)))
    got = in_batch_contrastive_loss(U, V, where=WHERE)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_contrastive_loss_of_optax_has_more_wrong_answers():
    """ntxent: both sides ask, and every other vector of both sides is an answer."""
    x, scale = np.concatenate([U, V]), 5.0
    theirs = optax.losses.ntxent(
        jnp.asarray(x), jnp.tile(jnp.arange(6), 2), temperature=1.0 / scale
    )
    table = scale * np.array(cosine_matrix(x, x), float)
    np.fill_diagonal(table, -np.inf)
    log_p = log_softmax(table, axis=1)
    expected = -np.mean(log_p[np.arange(12), (np.arange(12) + 6) % 12])
    np.testing.assert_allclose(theirs, expected, rtol=1e-6)
    assert theirs > 1.05 * in_batch_contrastive_loss(U, V, scale=scale)


def test_a_single_pair_has_nothing_to_be_told_apart_from():
    where = np.arange(6) == 2
    loss = jax.value_and_grad(lambda u: in_batch_contrastive_loss(u, V, where=where))
    value, slope = loss(jnp.asarray(U))
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_training_each_loss_brings_similar_pairs_together():
    targets = np.array([1.0, 0.0] * 3, np.float32)

    def similar_minus_other(loss):
        optimizer = optax.sgd(0.3)

        def step(carry, _):
            x, state = carry
            updates, state = optimizer.update(jax.grad(loss)(x), state)
            return (optax.apply_updates(x, updates), state), None

        start = jnp.asarray(np.stack([U, V]))
        (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=60)
        cosines = pairwise_cosine(x[0], x[1])
        return jnp.mean(cosines[::2]) - jnp.mean(cosines[1::2])

    assert similar_minus_other(lambda x: cosine_mse_loss(x[0], x[1], targets)) > 0.5
    first = similar_minus_other(
        lambda x: in_batch_contrastive_loss(x[0], x[1], where=targets > 0)
    )
    assert first > 0.5


def test_a_traced_label_out_of_range_is_not_silent():
    loss = jax.jit(lambda y: sentence_bert_loss(PARAMS, U, V, y))
    for label in (-100, -1, 4):
        assert np.isnan(loss(jnp.full(6, label)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_labels_of_any_width_count_many_classes(dtype):
    params = init_sentence_bert(jax.random.key(0), U.shape[1], 300)
    loss = jax.jit(lambda y: sentence_bert_loss(params, U, V, y))
    labels = np.arange(6)
    np.testing.assert_array_equal(loss(labels.astype(dtype)), loss(labels))
    if dtype != "uint8":
        labels[2] = -1  # 300 would be 44 in eight bits
        assert np.isnan(loss(labels.astype(dtype)))


def test_the_cosines_of_a_teacher_are_targets():
    """Cosines of parallel vectors, which rounding puts above 1."""
    u = jax.random.normal(jax.random.key(0), (64, 64))
    teacher = cosent.pairwise_cosine(u, 2 * u)
    assert teacher.max() > 1.0
    assert cosine_mse_loss(u, 2 * u, teacher) < 1e-12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sentence_bert_loss(PARAMS, U, V, CLASSES + 3),
            ValueError,
            r"labels must be in \[0, 3\], got \d; leave unlabelled",
        ),
        (
            # 64-bit integers of the host, which 32 bits would make the class 1.
            lambda: sentence_bert_loss(PARAMS, U, V, CLASSES * 0 + 2**32 + 1),
            ValueError,
            r"labels must be in \[0, 3\], got",
        ),
        (
            lambda: cosine_mse_loss(U, V, 1.001 * np.ones(6)),
            ValueError,
            r"targets must be in \[-1, 1\], got 1.001",
        ),
        (
            lambda: sentence_bert_loss(PARAMS, U, V, TARGETS),
            TypeError,
            "labels must be integers, got float32",
        ),
        (
            lambda: cosine_mse_loss(U, V, 5.0 * np.ones(6)),
            ValueError,
            r"targets must be in \[-1, 1\], got 5.0",
        ),
        (
            lambda: cosine_mse_loss(U, V, TARGETS[:2]),
            ValueError,
            r"targets must have the shape \(6,\), got \(2,\)",
        ),
        (
            lambda: in_batch_contrastive_loss(U[None], V[None]),
            ValueError,
            r"shape \[b, dim\], got \(1, 6, 3\)",
        ),
        (
            lambda: in_batch_contrastive_loss(U, V, scale=-1.0),
            ValueError,
            "scale must be finite and positive .*, got -1.0",
        ),
        (
            lambda: init_sentence_bert(jax.random.key(0), 0, 2),
            ValueError,
            "dim must be at least 1, got 0",
        ),
        (
            lambda: init_sentence_bert(jax.random.key(0), 2, 1.5),
            TypeError,
            "num_classes must be an integer",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_rows_that_count_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        cosine_mse_loss(U, V, TARGETS, WHERE)


def test_complex_targets_are_named():
    u = np.eye(2, dtype=np.float32)
    with pytest.raises(TypeError, match="targets must be real, got complex"):
        cosine_mse_loss(u, u, np.ones(2) + 1j)
