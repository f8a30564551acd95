"""R-Drop and virtual adversarial training on scores of spans."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import igr
from expkit import testing
from gp_kl import GlobalPointer, span_divergence, span_rdrop_loss

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
LABELS = SCORES[0] > 0.8
TRIANGLE = np.triu(np.ones((4, 4), bool))
WHERE = np.broadcast_to(TRIANGLE & (np.arange(4) < 3), LABELS.shape)


# What takes long to compile; the losses that it consists of pass all in CI.
SLOW = conformance.COMPILED


@pytest.mark.parametrize(
    "check",
    [
        case
        for reduction in ("sum", "mean")
        for case in conformance.cases(
            testing.loss_checks(
                functools.partial(span_rdrop_loss, reduction=reduction),
                (*SCORES, LABELS, 0.7),
                argnums=(0, 1),
                kwargs={"where": WHERE},
                mask_name="where",
            ),
            reduction,
            # What is counted under a mask decides the mean.
            slow=SLOW,
            quick=conformance.MASKS if reduction == "mean" else None,
        )
    ],
)
def test_the_loss_conforms(check):
    check()


def cross_entropies(scores):
    """Of every example and type, in float64, over the cells of the triangle."""
    s = np.where(TRIANGLE, scores.astype(float), -np.inf)
    positive = np.where(LABELS & TRIANGLE, np.exp(-s), 0).sum((2, 3))
    negative = np.where(~LABELS & TRIANGLE, np.exp(s), 0).sum((2, 3))
    return np.log1p(positive) + np.log1p(negative)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 4.0])
@pytest.mark.parametrize(("reduction", "count"), [("sum", 1), ("mean", 20)])
def test_it_is_the_formula(alpha, reduction, count):
    masked = np.where(TRIANGLE, SCORES, -np.inf).astype(np.float32)
    labels = LABELS & TRIANGLE
    got = span_rdrop_loss(*masked, labels, alpha, reduction=reduction)
    s, t = SCORES.astype(float)
    terms = np.where(TRIANGLE, (expit(s) - expit(t)) * (s - t), 0)
    divergence = terms.sum((1, 2, 3)) / count
    expected = (cross_entropies(s) + cross_entropies(t)).mean()
    np.testing.assert_allclose(got, expected + alpha / 2 * divergence.mean(), rtol=1e-6)


def test_equal_passes_are_twice_the_plain_loss_whatever_alpha_is():
    labels = LABELS & TRIANGLE
    masked = np.where(TRIANGLE, SCORES[0], -np.inf).astype(np.float32)
    for alpha in (0.0, 10.0):
        got = span_rdrop_loss(masked, masked, labels, alpha)
        np.testing.assert_allclose(got, 2 * cross_entropies(SCORES[0]).mean(), 1e-6)


def test_without_alpha_the_divergence_may_be_infinite():
    other = SCORES[1].copy()
    other[0, 0, 0, 3] = -np.inf
    labels = LABELS & (other > -np.inf)
    known = span_rdrop_loss(SCORES[0], other, labels, 0.0)
    assert np.isfinite(known)
    assert np.isinf(span_rdrop_loss(SCORES[0], other, labels, 1.0))
    traced = jax.jit(lambda alpha: span_rdrop_loss(SCORES[0], other, labels, alpha))
    np.testing.assert_allclose(traced(0.0), known, rtol=1e-6)
    assert np.isinf(traced(1.0))


def setting():
    head = GlobalPointer(hidden_size=5, num_types=2, head_size=4)
    hidden = np.random.default_rng(1).normal(size=(3, 4, 5))
    mask = np.arange(4) < np.array([[4], [3], [2]])
    return head, head.init(jax.random.key(0)), hidden, mask


def test_the_adversarial_direction_is_the_curvature_of_the_divergence_of_spans():
    head, params, hidden, mask = setting()

    @functools.partial(jax.jit, static_argnames="num_iterations")
    def perturbation(num_iterations):
        return igr.virtual_adversarial_perturbation(
            lambda x: head.apply(params, x, mask),
            hidden,
            jax.random.key(1),
            epsilon=1.0,
            num_iterations=num_iterations,
            divergence=span_divergence,
        )

    @jax.jit
    def cells(x, mask):
        """Scores of one sentence, of which those that are no spans are constants."""
        scores = jnp.ravel(head.apply(params, x.reshape(1, 4, 5), mask[None]))
        return jnp.where(jnp.isneginf(scores), -100.0, scores)

    with jax.enable_x64(True):
        jacobian_fn = jax.jit(jax.jacrev(cells))
        start, got = perturbation(0), np.asarray(perturbation(1))
        for b in range(3):
            jacobian = np.asarray(jacobian_fn(hidden[b].ravel(), mask[b]))
            p = expit(cells(hidden[b].ravel(), mask[b]))
            hessian = jacobian.T @ np.diag(2 * p * (1 - p)) @ jacobian
            expected = hessian @ np.asarray(start[b]).ravel()
            expected /= np.linalg.norm(expected)
            np.testing.assert_allclose(got[b].ravel(), expected, atol=1e-8)
            np.testing.assert_array_equal(got[b][~mask[b]], 0.0)


def test_the_adversarial_loss_of_spans_has_finite_gradients_through_masks():
    head, params, hidden, mask = setting()

    def loss(params, hidden):
        values = igr.virtual_adversarial_loss(
            lambda x: head.apply(params, x, mask),
            hidden,
            jax.random.key(1),
            epsilon=0.5,
            divergence=span_divergence,
        )
        return values.sum(), values

    hidden = jnp.asarray(hidden, jnp.float32)
    gradient, values = jax.jit(jax.grad(loss, has_aux=True))(params, hidden)
    assert (values > 0).all()
    testing.assert_tree_finite(gradient, "gradient")
    assert np.any(gradient["kernel"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": -1.0}, ValueError, "alpha must be finite and at least 0, got -1.0"),
        ({"alpha": True}, TypeError, "alpha must be a real number, got True"),
        ({"alpha": np.ones(2)}, ValueError, r"alpha must be a scalar, got shape \(2,"),
        ({"alpha": np.nan}, ValueError, "alpha must be finite"),
        ({"scores_1": SCORES[0, 0]}, ValueError, r"scores_1 must be \[batch, types"),
        ({"scores_2": SCORES[1, :2]}, ValueError, "scores_2 must have the shape"),
        ({"labels": LABELS[:1]}, ValueError, "labels must have the shape"),
        ({"reduction": "Sum"}, ValueError, "Did you mean 'sum'?"),
        ({"where": np.ones(4)}, TypeError, "where must be boolean"),
    ],
)
def test_bad_input_is_named(options, error, message):
    given = {"scores_1": SCORES[0], "scores_2": SCORES[1], "labels": LABELS}
    with pytest.raises(error, match=message):
        span_rdrop_loss(**{**given, "alpha": 1.0, **options})
