"""Likelihoods of the chain against float64 and enumerations, where scores are large."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from gp_kl import LinearChainCRF

CRF = LinearChainCRF(hidden_size=5, num_types=2)
BATCH, LENGTH = 8, 100


def make_params(seed=0):
    """The layer copies the states: emissions are exact."""
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.eye(5),
        "bias": jnp.zeros(5),
        "transitions": jnp.asarray(3.0 * rng.normal(size=(5, 5)), jnp.float32),
        "start": jnp.asarray(rng.normal(size=5), jnp.float32),
        "end": jnp.asarray(rng.normal(size=5), jnp.float32),
    }


def make_states(scale):
    rng = np.random.default_rng(1)
    return (scale * rng.normal(size=(BATCH, LENGTH, 5))).astype(np.float32)


def make_mask():
    """Whole rows, padding, special tokens in front, gaps, one token, none."""
    mask = np.random.default_rng(2).random((BATCH, LENGTH)) < 0.8
    mask[0] = True
    mask[1, 50:] = False
    mask[2, :3] = False
    mask[3] = np.arange(LENGTH) == 7
    mask[4] = False
    return mask


def forward_backward(params, hidden, tags):
    """log p in float64, and its gradients in the emissions and the transitions."""
    names = "start", "transitions", "end"
    start, transitions, end = (np.asarray(params[name], float) for name in names)
    e, n = hidden.astype(float), len(hidden)
    alpha, beta = np.zeros((n, 5)), np.zeros((n, 5))
    alpha[0], beta[-1] = start + e[0], end
    for i in range(1, n):
        alpha[i] = logsumexp(alpha[i - 1][:, None] + transitions, axis=0) + e[i]
    for i in range(n - 2, -1, -1):
        beta[i] = logsumexp(transitions + (e[i + 1] + beta[i + 1])[None], axis=1)
    total = logsumexp(alpha[-1] + end)
    score = start[tags[0]] + end[tags[-1]] + e[np.arange(n), tags].sum()
    score += sum(transitions[a, b] for a, b in itertools.pairwise(tags))
    slopes = np.eye(5)[tags] - np.exp(alpha + beta - total)
    pairs = np.zeros((5, 5))
    for i, pair in enumerate(itertools.pairwise(tags)):
        pairs[pair] += 1.0
        own = alpha[i][:, None] + transitions + (e[i + 1] + beta[i + 1])[None]
        pairs -= np.exp(own - total)
    return score - total, slopes, pairs


def two_sums(params, hidden, tags):
    """The control: the score less the logarithm of the sum, both in float32."""
    e, transitions = hidden, np.asarray(params["transitions"])
    rows = np.arange(BATCH)
    alpha = np.asarray(params["start"])[None] + e[:, 0]
    score = alpha[rows, tags[:, 0]]
    for i in range(1, LENGTH):
        alpha = logsumexp(alpha[:, :, None] + transitions[None], axis=1) + e[:, i]
        score = score + transitions[tags[:, i - 1], tags[:, i]]
        score = score + e[rows, i, tags[:, i]]
    end = np.asarray(params["end"])
    difference = score + end[tags[:, -1]] - logsumexp(alpha + end[None], axis=1)
    assert difference.dtype == np.float32
    return difference


@functools.cache
def likelihoods():
    def compute(params, hidden, tags, mask):
        def total(params, hidden):
            values = CRF.log_likelihood(params, hidden, tags, mask)
            return values.sum(), values

        return jax.grad(total, (0, 1), has_aux=True)(params, hidden)

    return jax.jit(compute)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0, 3000.0])
@pytest.mark.parametrize("is_masked", [False, True])
def test_the_likeliest_sequence_has_a_likelihood_of_at_most_one(scale, is_masked):
    params, hidden = make_params(), make_states(scale)
    mask = make_mask() if is_masked else np.ones((BATCH, LENGTH), bool)
    tags = np.asarray(jax.jit(CRF.decode)(params, hidden, mask))
    # In NumPy, where rows of other lengths are no other programs.
    (gradients, slopes), got = jax.tree.map(
        np.asarray, likelihoods()(params, hidden, tags, mask)
    )
    assert (got <= 0.0).all()
    values, pairs = np.zeros(BATCH), np.zeros((5, 5))
    for b in range(BATCH):
        keep = mask[b]
        if not keep.any():
            assert got[b] == 0.0
            continue
        arguments = hidden[b][keep], tags[b][keep].tolist()
        values[b], slope, pair = forward_backward(params, *arguments)
        pairs += pair
        # A token adds a rounding of the logarithm of a sum of about 1.
        n = keep.sum()
        np.testing.assert_allclose(got[b], values[b], rtol=1e-6, atol=1.2e-7 * n)
        np.testing.assert_allclose(slopes[b][keep], slope, atol=1e-5)
        np.testing.assert_array_equal(slopes[b][~keep], 0.0)
    np.testing.assert_allclose(gradients["transitions"], pairs, rtol=1e-5, atol=1e-3)
    if scale >= 300.0 and not is_masked:
        assert np.abs(two_sums(params, hidden, tags) - values).max() > 1e-3


def test_an_unlikely_sequence_keeps_its_digits():
    params, hidden = make_params(), make_states(30.0)
    tags = np.random.default_rng(3).integers(5, size=(BATCH, LENGTH))
    mask = np.ones((BATCH, LENGTH), bool)
    got = CRF.log_likelihood(params, hidden, tags, mask)
    expected = [
        forward_backward(params, h, t.tolist())[0]
        for h, t in zip(hidden, tags, strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_short_sequences_are_those_of_an_enumeration(n):
    params, hidden = make_params(), make_states(100.0)[:1, :n]
    p = {name: np.asarray(leaf, float) for name, leaf in params.items()}
    every = np.array(list(itertools.product(range(5), repeat=n)))
    scores = p["start"][every[:, 0]] + p["end"][every[:, -1]]
    scores = scores + hidden[0].astype(float)[np.arange(n), every].sum(axis=1)
    scores = scores + p["transitions"][every[:, :-1], every[:, 1:]].sum(axis=1)
    repeated = np.repeat(hidden, len(every), axis=0)
    got = CRF.log_likelihood(params, repeated, every, np.ones(every.shape, bool))
    expected = scores - logsumexp(scores)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1.2e-7 * n)


@pytest.mark.parametrize("excluded", ["transitions", "start", "end", "bias"])
def test_what_is_excluded_has_no_probability(excluded):
    """With -inf as a parameter; the others are as likely as in an enumeration."""
    params, hidden = make_params(), make_states(1.0)[:1, :3]
    place = (1, 2) if excluded == "transitions" else 1
    params[excluded] = params[excluded].at[place].set(-jnp.inf)
    p = {name: np.asarray(leaf, float) for name, leaf in params.items()}
    every = np.array(list(itertools.product(range(5), repeat=3)))
    scores = p["start"][every[:, 0]] + p["end"][every[:, -1]]
    emissions = hidden[0].astype(float) + p["bias"]
    scores = scores + emissions[np.arange(3), every].sum(axis=1)
    scores = scores + p["transitions"][every[:, :-1], every[:, 1:]].sum(axis=1)
    repeated = np.repeat(hidden, len(every), axis=0)
    got = CRF.log_likelihood(params, repeated, every, np.ones(every.shape, bool))
    assert 0 < np.isinf(scores).sum() < len(scores)
    np.testing.assert_allclose(got, scores - logsumexp(scores), rtol=1e-5)
