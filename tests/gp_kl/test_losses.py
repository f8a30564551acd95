"""The multi-label loss against numpy and torch, at its extremes, and with masks."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from expkit import testing
from gp_kl import multilabel_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = 3.0 * RNG.normal(size=(5, 6)).astype(np.float32)
LABELS = RNG.random((5, 6)) < 0.3
SOFT = RNG.uniform(0.1, 0.9, size=(5, 6)).astype(np.float32)
WHERE = RNG.random((5, 6)) < 0.7
SPANS = RNG.normal(size=(2, 3, 4, 4)).astype(np.float32)


def over_cells(logits, labels, **options):
    return multilabel_cross_entropy(logits, labels, axis=(-2, -1), **options)


SUITES = {
    "labels": (multilabel_cross_entropy, LOGITS, LABELS, WHERE),
    "integers": (multilabel_cross_entropy, LOGITS, LABELS.astype(np.int32), WHERE),
    "soft": (multilabel_cross_entropy, LOGITS, SOFT, WHERE),
    "spans": (over_cells, SPANS, SPANS > 0.7, np.triu(np.ones((4, 4), bool))[None]),
}


SLOW = (
    *conformance.COMPILED,
    "second_derivative_matches_finite_differences",
)


@pytest.mark.parametrize(
    "check",
    [
        case
        for suite, (loss, logits, labels, where) in SUITES.items()
        for case in conformance.cases(
            testing.loss_checks(
                loss,
                (logits, labels),
                kwargs={"where": np.broadcast_to(where, logits.shape)},
                mask_name="where",
                second_order=True,
            ),
            suite,
            slow=SLOW if suite == "soft" else (),
            quick=() if suite in ("integers", "spans") else None,
        )
    ],
)
def test_the_loss_conforms(check):
    check()


def definition(logits, labels):
    """The formula in float64, over the last axis."""
    s, t = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    positive, negative = (t * np.exp(-s)).sum(-1), ((1 - t) * np.exp(s)).sum(-1)
    return np.log1p(positive) + np.log1p(negative)


@jax.jit
def value_and_gradient(logits, labels, where=None):
    def total(logits):
        values = multilabel_cross_entropy(logits, labels, where=where)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(logits)
    return values, gradient


@pytest.mark.optimized
@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.astype(int), LABELS.astype(np.float32), SOFT]
)
def test_it_is_the_formula(labels):
    values, _ = value_and_gradient(LOGITS, labels)
    np.testing.assert_allclose(values, definition(LOGITS, labels), rtol=1e-6)


def test_it_is_the_loss_of_torch_code_in_use():
    torch = pytest.importorskip("torch", reason="in no lock: see CONTRIBUTING.md")
    s, t = torch.tensor(LOGITS, dtype=torch.float64), torch.tensor(LABELS)
    signed = torch.where(t, -s, s)
    zeros = torch.zeros_like(s[:, :1])
    parts = [
        torch.cat([signed.masked_fill(out, -torch.inf), zeros], 1).logsumexp(1)
        for out in (t, ~t)
    ]
    values, _ = value_and_gradient(LOGITS, LABELS)
    np.testing.assert_allclose(values, sum(parts).numpy(), rtol=1e-6)


def test_the_gradients_of_each_side_add_up_to_less_than_one():
    logits = RNG.normal(size=(1, 20_000)).astype(np.float32)
    labels = np.arange(20_000)[None] < 3
    _, gradient = value_and_gradient(logits, labels)
    positive, negative = np.asarray(gradient[labels]), np.asarray(gradient[~labels])
    s = logits.astype(float)
    sums = np.exp(-s[labels]).sum(), np.exp(s[~labels]).sum()
    np.testing.assert_allclose(positive.sum(), -sums[0] / (1 + sums[0]), rtol=5e-7)
    np.testing.assert_allclose(negative.sum(), sums[1] / (1 + sums[1]), rtol=5e-7)
    # The control: of binary cross-entropy the negatives have nearly all.
    binary = (expit(s) - labels)[0]
    assert np.abs(binary[3:]).sum() > 1000 * np.abs(binary[:3]).sum()


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_huge_scores_give_exact_values_and_gradients(dtype):
    logits = jnp.asarray([[7e3, -7e3, 7e3], [-7e3, 7e3, 7e3]], dtype)
    labels = jnp.asarray([[True, False, False], [True, False, True]])
    values, gradient = value_and_gradient(logits, labels)
    size = float(logits[0, 0])
    np.testing.assert_array_equal(values, [size, 2 * size])
    expected = [[0, 0, 1], [-1, 1, 0]]
    np.testing.assert_array_equal(gradient.astype(jnp.float32), expected)
    assert values.dtype == jnp.float32
    assert gradient.dtype == dtype


def idiom(logits, labels):
    """What other implementations do: subtract 1e12 from what does not count."""
    signed = jnp.where(labels, -logits, logits)
    ones = labels.astype(logits.dtype)
    zeros = jnp.zeros_like(signed[:, :1])
    sides = [signed - out * 1e12 for out in (ones, 1 - ones)]
    parts = [jax.nn.logsumexp(jnp.append(s, zeros, axis=1), axis=1) for s in sides]
    return parts[0] + parts[1]


@pytest.mark.optimized
def test_float16_is_finite_where_the_usual_idiom_is_nan():
    logits, labels = jnp.asarray(LOGITS, jnp.float16), jnp.asarray(LABELS)
    values, gradient = value_and_gradient(logits, labels)
    expected = definition(logits, labels)
    np.testing.assert_allclose(values, expected, rtol=5e-7)
    testing.assert_tree_finite(gradient, "gradient")
    assert np.isnan(idiom(logits, labels)).all()
    wide = idiom(jnp.asarray(LOGITS), labels)
    np.testing.assert_allclose(wide, definition(LOGITS, LABELS), rtol=5e-7)


@pytest.mark.optimized
def test_a_small_loss_keeps_its_digits():
    logits = np.array([[25.0, -25.0, -26.0]], np.float32)
    labels = np.array([[True, False, False]])
    values, gradient = value_and_gradient(logits, labels)
    np.testing.assert_allclose(values, definition(logits, labels), rtol=5e-7)
    np.testing.assert_allclose(gradient[0, 0], -np.exp(-25.0), rtol=5e-7)
    assert idiom(jnp.asarray(logits), jnp.asarray(labels)) == 0.0


@pytest.mark.parametrize(("label", "value"), [(True, -1e4), (False, 1e4)])
def test_one_side_may_be_empty(label, value):
    logits = np.full((1, 4), value, np.float32)
    logits[0, 1:] = -value
    values, gradient = value_and_gradient(logits, np.full((1, 4), label))
    assert values[0] == 1e4
    np.testing.assert_array_equal(gradient[0], [-1 if label else 1, 0, 0, 0])


@pytest.mark.optimized
def test_without_any_class_that_counts_the_loss_is_zero_and_flat():
    for where in (np.zeros((5, 6), bool), np.zeros((1, 1), bool)):
        values, gradient = value_and_gradient(LOGITS, LABELS, where)
        np.testing.assert_array_equal(values, 0.0)
        np.testing.assert_array_equal(gradient, 0.0)
    values = multilabel_cross_entropy(LOGITS, LABELS, where=np.zeros((5, 6), bool))
    np.testing.assert_array_equal(values, 0.0)


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["labels", "soft"])
def test_labels_and_scores_under_the_mask_are_ignored(labels):
    keep = np.arange(6) < 4
    expected, slope = value_and_gradient(LOGITS[:, keep], labels[:, keep])
    for garbage in (np.nan, np.inf, -np.inf):
        logits = np.where(keep, LOGITS, np.float32(garbage))
        wrong = np.where(keep, labels, True if labels.dtype == bool else np.nan)
        values, gradient = value_and_gradient(logits, wrong, keep[None])
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[:, keep], slope, rtol=1e-5)
        np.testing.assert_array_equal(gradient[:, ~keep], 0.0)


def test_cells_at_minus_infinity_are_left_out_and_a_label_there_shows():
    logits = LOGITS.copy()
    logits[:, 4:] = -np.inf
    labels = LABELS & (np.arange(6) < 4)
    values, gradient = value_and_gradient(logits, labels)
    expected = definition(LOGITS[:, :4], labels[:, :4])
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    labels[0, 5] = True
    values, gradient = value_and_gradient(logits, labels)
    assert np.isinf(values).tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(values[1:], expected[1:], rtol=1e-6)
    testing.assert_tree_finite(gradient, "gradient")


def test_nan_is_not_hidden():
    logits = LOGITS.copy()
    logits[1, 2] = np.nan
    values, _ = value_and_gradient(logits, LABELS)
    assert np.isnan(values).tolist() == [False, True, False, False, False]


def test_a_label_that_is_nan_is_not_hidden():
    soft = SOFT.copy()
    soft[2, 0] = np.nan
    values = jax.jit(multilabel_cross_entropy)(LOGITS, soft)
    assert np.flatnonzero(np.isnan(values)).tolist() == [2]


def test_the_optimum_of_a_soft_label_is_the_sigmoid_of_twice_the_score():
    with jax.enable_x64(True):
        s = jnp.linspace(-6.0, 6.0, 25)[:, None]
        slopes = [
            np.abs(value_and_gradient(s, jnp.asarray(f(s)))[1]).max()
            for f in (lambda s: expit(2 * s), expit)
        ]
    # 1 - t has an error of 1e-16, which e^s enlarges and 1 + sum takes back.
    assert slopes[0] < 1e-13
    assert slopes[1] > 0.1  # the control


def test_soft_labels_have_a_derivative():
    with jax.enable_x64(True):
        logits, soft = LOGITS.astype(float), SOFT.astype(float)
        slope = jax.grad(lambda t: multilabel_cross_entropy(logits, t).sum())
        got = jax.jit(slope)(soft)
        positive = 1 + (soft * np.exp(-logits)).sum(-1, keepdims=True)
        negative = 1 + ((1 - soft) * np.exp(logits)).sum(-1, keepdims=True)
        expected = np.exp(-logits) / positive - np.exp(logits) / negative
        np.testing.assert_allclose(got, expected, rtol=2e-14)


@pytest.mark.parametrize("axis", [0, 1, (0, 2), (-1, 0, 1)])
def test_the_classes_may_lie_on_any_axes(axis):
    logits = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    labels = logits > 0.8
    loss = functools.partial(multilabel_cross_entropy, labels=labels, axis=axis)
    got = jax.jit(loss)(logits)
    s = logits.astype(float)
    sides = np.where(labels, np.exp(-s), 0), np.where(labels, 0, np.exp(s))
    expected = sum(np.log1p(side.sum(axis)) for side in sides)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (LABELS[:4], {}, ValueError, r"labels must have the shape \(5, 6\)"),
        (LABELS[:, :1], {}, ValueError, "labels must have the shape"),
        (2 * LABELS.astype(int), {}, ValueError, r"labels must be in \[0, 1\], got 2"),
        (SOFT - 1, {}, ValueError, r"labels must be in \[0, 1\], got -0"),
        (LABELS, {"axis": 2}, ValueError, "different axes of logits with 2 axes"),
        (LABELS, {"axis": -3}, ValueError, "different axes of logits with 2 axes"),
        (LABELS, {"axis": (1, -1)}, ValueError, r"got \(1, -1\)"),
        (LABELS, {"axis": ()}, ValueError, "axis must name"),
        (LABELS, {"axis": None}, TypeError, "axis must be an integer or several"),
        (LABELS, {"where": np.ones((5, 6))}, TypeError, "where must be boolean"),
        (LABELS, {"where": np.ones(5, bool)}, ValueError, "where must broadcast"),
    ],
)
def test_bad_input_is_named(labels, options, error, message):
    with pytest.raises(error, match=message):
        multilabel_cross_entropy(LOGITS, labels, **options)


def test_complex_arrays_are_named():
    real, complex_ = np.zeros((2, 3)), np.zeros((2, 3)) + 1j
    with pytest.raises(TypeError, match="logits must be real, got complex"):
        multilabel_cross_entropy(complex_, real)
    with pytest.raises(TypeError, match="labels must be real, got complex"):
        multilabel_cross_entropy(real, complex_)
