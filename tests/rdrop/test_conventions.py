"""Each convention against the authors' rule, written down again in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from rdrop import (
    CONVENTIONS,
    convention_scale,
    convert_alpha,
    rdrop_loss,
    rdrop_regression_loss,
)

BATCH, CLASSES = 6, 5


def example(seed=0):
    """Logits of two passes and labels, float64."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, BATCH, CLASSES))
    return (*logits, rng.integers(CLASSES, size=BATCH))


def nll(logits, labels):
    """Negative log-likelihood of every row."""
    return -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def kl_div(logits, target_logits):
    """What torch calls `kl_div(log_softmax(logits), softmax(target))`, elementwise."""
    return rel_entr(softmax(target_logits, axis=-1), softmax(logits, axis=-1))


def paper(a, b, labels, alpha):
    loss = 0.0
    for i, label in enumerate(labels):
        p, q = softmax(a[i]), softmax(b[i])
        both = rel_entr(p, q).sum() + rel_entr(q, p).sum()
        loss += -np.log(p[label]) - np.log(q[label]) + alpha * 0.5 * both
    return loss / len(labels)


def readme(a, b, labels, alpha):
    ce_loss = 0.5 * (nll(a, labels).mean() + nll(b, labels).mean())
    kl_loss = (kl_div(a, b).sum() + kl_div(b, a).sum()) / 2
    return ce_loss + alpha * kl_loss


def hf_bert(a, b, labels, alpha):
    """Their code has alpha = 0.5 as a constant: 0.5 * (...) / 2."""
    loss = 0.0
    for logits in (a, b):
        loss += nll(logits, labels).mean()
    return loss + alpha * (kl_div(a, b).sum() + kl_div(b, a).sum()) / 2


def vit(a, b, labels, alpha):
    loss = nll(a, labels).mean() + nll(b, labels).mean()
    return loss + alpha * (kl_div(a, b).sum() + kl_div(b, a).sum())


def fairseq(a, b, labels, alpha):
    """One pass over the batch put next to itself, everything summed over tokens."""
    logits, doubled = np.concatenate([a, b]), np.concatenate([labels, labels])
    loss = nll(logits, doubled).sum()
    first, second = np.split(logits, 2)
    kl_loss = (kl_div(first, second).sum() + kl_div(second, first).sum()) / 2
    return loss + alpha * kl_loss


def bojone(a, b, labels, alpha):
    """Rows of the two passes alternate; Keras' divergence clips probabilities."""

    def kld(y_true, y_pred):
        y_true, y_pred = (np.clip(y, 1e-7, 1.0) for y in (y_true, y_pred))
        return np.sum(y_true * np.log(y_true / y_pred), axis=-1)

    y_pred = np.empty((2 * len(a), a.shape[1]))
    y_pred[::2], y_pred[1::2] = softmax(a, axis=-1), softmax(b, axis=-1)
    y_true = np.repeat(labels, 2)
    loss1 = -np.log(y_pred[np.arange(len(y_true)), y_true]).mean()
    loss2 = kld(y_pred[::2], y_pred[1::2]) + kld(y_pred[1::2], y_pred[::2])
    return loss1 + loss2.mean() / 4 * alpha


RULES = {
    "paper": paper,
    "readme": readme,
    "hf_bert": hf_bert,
    "vit": vit,
    "fairseq": fairseq,
    "bojone": bojone,
}


def test_every_convention_has_a_rule_here():
    assert list(RULES) == list(CONVENTIONS)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("alpha", [0.3, 5.0])
def test_a_convention_is_the_rule_of_its_authors(convention, alpha):
    with jax.enable_x64(True):
        arguments = example()
        got = rdrop_loss(*arguments, alpha, convention=convention)
        expected = RULES[convention](*arguments, alpha)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        others = [r(*arguments, alpha) for n, r in RULES.items() if n != convention]
        assert np.abs(got / np.array(others) - 1.0).min() > 1e-3


@pytest.fixture(scope="module")
def losses_and_gradients():
    """A function of convention and alpha, compiled once for each convention."""
    jitted = {
        name: jax.jit(
            jax.value_and_grad(
                lambda a, b, y, alpha, name=name: rdrop_loss(
                    a, b, y, alpha, convention=name
                ),
                (0, 1),
            )
        )
        for name in CONVENTIONS
    }
    return lambda name, alpha: jitted[name](*example(1), alpha)


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(CONVENTIONS, repeat=2))
)
def test_a_converted_alpha_makes_losses_and_gradients_proportional(
    source, target, losses_and_gradients
):
    with jax.enable_x64(True):
        alpha = 0.7
        other = convert_alpha(alpha, source, target, BATCH)
        ratio = convention_scale(target, BATCH) / convention_scale(source, BATCH)
        before, after = (
            losses_and_gradients(name, a)
            for name, a in ((source, alpha), (target, other))
        )
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_allclose(ratio * x, y, rtol=1e-10, atol=1e-14)
        wrong = losses_and_gradients(target, 1.1 * other)
        assert not np.allclose(ratio * before[0], wrong[0], rtol=1e-4)
        # The oracle does not know convert_alpha.
        expected = RULES[target](*example(1), other)
        np.testing.assert_allclose(ratio * before[0], expected, rtol=1e-10)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_batch_size_of_a_conversion_is_the_number_of_examples_selected(convention):
    with jax.enable_x64(True):
        a, b, labels = example(2)
        where = np.array([True, False, True, True, False, False])
        alpha = convert_alpha(2.0, "paper", convention, 3)
        masked = rdrop_loss(a, b, labels, alpha, convention=convention, where=where)
        expected = paper(a[where], b[where], labels[where], 2.0)
        scale = convention_scale(convention, 3)
        np.testing.assert_allclose(masked, scale * expected, rtol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_regression_weights_distances_as_the_convention_weights_divergences(convention):
    with jax.enable_x64(True):
        f_1, f_2, y = np.random.default_rng(3).normal(size=(3, BATCH))
        alpha = convert_alpha(0.4, "paper", convention, BATCH)
        got = rdrop_regression_loss(f_1, f_2, y, alpha, convention=convention)
        errors = np.mean((f_1 - y) ** 2) + np.mean((f_2 - y) ** 2)
        expected = errors + 0.4 * np.mean((f_1 - f_2) ** 2)
        scale = convention_scale(convention, BATCH)
        np.testing.assert_allclose(got, scale * expected, rtol=1e-12)


def test_the_published_alphas_in_the_formula_of_the_paper():
    assert convert_alpha(0.3, "vit", "paper", 512) == pytest.approx(2 * 512 * 0.3)
    assert convert_alpha(0.5, "hf_bert", "paper", 32) == pytest.approx(32 * 0.5)
    assert convert_alpha(1.0, "readme", "paper", 32) == pytest.approx(2 * 32)
    assert convert_alpha(5.0, "fairseq", "paper", 4096) == 5.0
    assert convert_alpha(4.0, "bojone", "paper", 32) == 4.0
    assert [convention_scale(name, 8) for name in CONVENTIONS] == [1, 0.5, 1, 1, 8, 0.5]


def test_a_traced_alpha_is_converted():
    got = jax.jit(lambda a: convert_alpha(a, "vit", "paper", 8))(jnp.float32(0.3))
    np.testing.assert_allclose(got, 16 * 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0, "papr", "vit", 8), ValueError, r"got 'papr'\. Did you mean 'paper'\?"),
        ((1.0, "paper", "hf-bert", 8), ValueError, "target must be one of paper, "),
        ((1.0, "paper", "vit", 0), ValueError, "batch_size must be an integer >= 1"),
        ((1.0, "paper", "vit", 2.5), ValueError, "batch_size must be .*, got 2.5"),
        ((-1.0, "paper", "vit", 8), ValueError, "alpha must be finite and at least 0"),
        (("1", "paper", "vit", 8), TypeError, "alpha must be a real number, got '1'"),
    ],
)
def test_a_conversion_that_means_nothing_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        convert_alpha(*arguments)


@pytest.mark.parametrize(
    "batch_size", [np.array(2.5), jnp.array(2.5), np.array([2, 3]), np.bool_(True)]
)
def test_arrays_that_are_no_batch_size_are_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got"):
        convention_scale("fairseq", batch_size)


@pytest.mark.parametrize("kind", [np.int32, np.array, jnp.array])
def test_a_batch_size_may_be_an_integer_of_any_kind(kind):
    got = convert_alpha(0.3, "vit", "paper", batch_size=kind(512))
    assert isinstance(got, float)
    assert got == 307.2


def test_a_scale_of_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'bojone'"):
        convention_scale("bojne", 8)
