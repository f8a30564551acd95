"""Every wrong argument of a loss gives one error that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdrop import consistency_loss, rdrop_loss, rdrop_regression_loss

LOGITS = np.ones((2, 3), np.float32)
LABELS = np.array([0, 2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"alpha": -0.5},
            ValueError,
            r"alpha must be finite and at least 0.*got -0.5",
        ),
        ({"alpha": np.nan}, ValueError, "alpha must be finite"),
        (
            {"alpha": np.ones(2)},
            ValueError,
            r"alpha must be a scalar, got shape \(2,\)",
        ),
        ({"alpha": True}, TypeError, "alpha must be a real number, got True"),
        ({"convention": "Paper"}, ValueError, "'Paper'. Did you mean 'paper'?"),
        ({"convention": "fairseq2"}, ValueError, "Did you mean 'fairseq'?"),
        ({"convention": None}, ValueError, "convention must be one of paper, readme"),
        ({"labels": np.array([0, 3])}, ValueError, r"in \[0, 2\] for 3 classes, got 3"),
        (
            {"labels": np.array([-1, 0])},
            ValueError,
            "got -1; leave unlabelled examples",
        ),
        (
            {"labels": np.array([0.0, 1.0])},
            ValueError,
            r"of shape \(2,\) or probabilities of shape \(2, 3\), got float",
        ),
        (
            {"labels": np.array([0, 1, 2])},
            ValueError,
            r"got int64 of shape \(3,\)|int32",
        ),
        ({"labels": 1.5 * LOGITS}, ValueError, r"labels must be in \[0, 1\]"),
        ({"labels": 0 * LOGITS + 1.5}, ValueError, r"in \[0, 1\] .*got 1.5; leave"),
        ({"labels": np.nan * LOGITS}, ValueError, r"labels must be in \[0, 1\]"),
        ({"logits_2": LOGITS[:1]}, ValueError, "logits_1 and logits_2 must have one"),
        ({"where": np.array([1, 0])}, TypeError, "where must be boolean, got int"),
        ({"where": np.array([True])}, ValueError, r"where must have the shape \(2,\)"),
        (
            {"logits_1": LOGITS[:0], "logits_2": LOGITS[:0], "labels": LABELS[:0]},
            ValueError,
            "the batch is empty",
        ),
        (
            {"logits_1": LOGITS[0, 0], "logits_2": LOGITS[0, 0]},
            ValueError,
            "must have an axis of classes",
        ),
    ],
)
def test_bad_input_is_named(options, error, message):
    arguments = {
        "logits_1": LOGITS,
        "logits_2": LOGITS,
        "labels": LABELS,
        "alpha": 1.0,
    }
    with pytest.raises(error, match=message):
        rdrop_loss(**(arguments | options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": -1.0}, ValueError, "alpha must be finite and at least 0"),
        ({"convention": "vitt"}, ValueError, "Did you mean 'vit'?"),
        (
            {"outputs_2": np.ones(3)},
            ValueError,
            "outputs_1 and outputs_2 must have one",
        ),
        ({"targets": np.ones((2, 1))}, ValueError, "outputs_1 and targets must have"),
        ({"where": np.ones((2, 1), bool)}, ValueError, "where must have the shape"),
    ],
)
def test_bad_input_of_the_regression_loss_is_named(options, error, message):
    ones = np.ones(2, np.float32)
    arguments = {"outputs_1": ones, "outputs_2": ones, "targets": ones, "alpha": 1.0}
    with pytest.raises(error, match=message):
        rdrop_regression_loss(**(arguments | options))


def test_bad_input_of_the_consistency_loss_is_named():
    with pytest.raises(ValueError, match="must have one shape"):
        consistency_loss(LOGITS, LOGITS[:, :2])
    with pytest.raises(TypeError, match="where must be boolean"):
        consistency_loss(LOGITS, LOGITS, where=np.zeros(2))


@pytest.mark.parametrize(
    ("convention", "wrap"),
    [
        pytest.param("paper", lambda f: f, marks=pytest.mark.slow),
        ("paper", jax.jit),
        ("fairseq", jax.jit),
        pytest.param("fairseq", lambda f: f, marks=pytest.mark.slow),
    ],
)
def test_of_no_example_the_losses_and_their_gradients_are_zero(convention, wrap):
    """The mask of a batch that is all padding is no mistake."""
    bad = np.full((2, 3), np.nan, np.float32)
    options = {"convention": convention, "where": np.zeros(2, bool)}
    losses = (
        lambda a, b: rdrop_loss(a, b, np.array([-100, 3]), 1.0, **options),
        lambda a, b: rdrop_regression_loss(a[0], b[0], bad[0], 1.0, **of_three),
        lambda a, b: consistency_loss(a, b, where=options["where"]),
    )
    of_three = options | {"where": np.zeros(3, bool)}
    for loss in losses:
        value, gradients = wrap(jax.value_and_grad(loss, (0, 1)))(bad, bad)
        np.testing.assert_array_equal(value, 0.0)
        np.testing.assert_array_equal(gradients, 0.0)


WIDE = [2**32, 2**32 + 1, -(2**32), 2**40 + 2, -(2**63)]


@pytest.mark.parametrize(
    ("label", "make"),
    [(label, np.array) for label in WIDE]
    + [(WIDE[0], list)]
    + [pytest.param(label, list, marks=pytest.mark.slow) for label in WIDE[1:]],
)
def test_a_label_beyond_32_bits_is_no_other_class(label, make):
    labels = make([np.int64(label), 1])
    counts, hides = np.array([True, True]), np.array([False, True])

    def call(where):
        return rdrop_loss(LOGITS, LOGITS, labels, 1.0, where=where)

    with pytest.raises(ValueError, match=rf"in \[0, 2\] for 3 classes, got {label};"):
        call(counts)
    # A mask that is traced says too late what is wrong.
    assert np.isnan(jax.jit(call)(counts))
    for of_the_other in (call(hides), jax.jit(call)(hides)):
        np.testing.assert_allclose(of_the_other, 2 * np.log(3), rtol=1e-6)


def test_an_unsigned_label_beyond_32_bits_and_a_wide_one_hot_are_refused():
    with pytest.raises(ValueError, match=f"got {2**63}"):
        rdrop_loss(LOGITS, LOGITS, np.array([2**63, 1], np.uint64), 1.0)
    with pytest.raises(ValueError, match=rf"in \[0, 1\] for 3 .*got {2**32}"):
        rdrop_loss(LOGITS, LOGITS, np.eye(3, dtype=int)[:2] * 2**32, 1.0)
    with pytest.raises(ValueError, match=f"got {2**32}"):
        rdrop_loss(LOGITS[0], LOGITS[0], np.int64(2**32), 1.0)


def test_what_is_traced_is_not_checked():
    loss = jax.jit(
        lambda alpha, labels, where: rdrop_loss(
            LOGITS, LOGITS, labels, alpha, where=where
        )
    )
    got = loss(jnp.float32(-1.0), LABELS, np.zeros(2, bool))
    assert got == 0.0
    labels = np.array([-100, 1])
    masked = loss(jnp.float32(1.0), labels, np.array([False, True]))
    np.testing.assert_allclose(masked, 2 * np.log(3), rtol=1e-6)
