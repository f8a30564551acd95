"""The chain against all sequences of tags, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from expkit import testing
from gp_kl import LinearChainCRF

RNG = np.random.default_rng(0)
CRF = LinearChainCRF(hidden_size=4, num_types=1)
HIDDEN = RNG.normal(size=(5, 5, 4))
# All tokens, padding, special tokens in front, a gap, nothing.
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [1, 0, 1, 1, 0]])
MASK = np.concatenate([MASK, np.zeros((1, 5), int)]).astype(bool)
TAGS = RNG.integers(3, size=(5, 5))


def make_params():
    noise = np.random.default_rng(1)
    params = CRF.init(jax.random.key(0))
    return {k: v + noise.normal(size=v.shape) for k, v in params.items()}


def sequence_score(p, hidden, tags):
    """S of one sequence, all of whose tokens count."""
    emissions = hidden @ p["kernel"] + p["bias"]
    total = p["start"][tags[0]] + p["end"][tags[-1]]
    total += sum(e[t] for e, t in zip(emissions, tags, strict=True))
    return total + sum(p["transitions"][a, b] for a, b in itertools.pairwise(tags))


def all_sequences(params, b, states=HIDDEN):
    """`{tags: score}` for the tokens of one row that count."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    hidden = states[b][MASK[b]]
    sequences = itertools.product(range(3), repeat=len(hidden))
    return {tags: sequence_score(p, hidden, tags) for tags in sequences}


def likelihoods(params, states=HIDDEN):
    """By an enumeration; the last row has no token."""
    values = np.zeros(5)
    for b in range(4):
        scores = all_sequences(params, b, states)
        tags = tuple(TAGS[b][MASK[b]].tolist())
        values[b] = scores[tags] - logsumexp(list(scores.values()))
    return values


def test_the_likelihood_is_that_of_an_enumeration():
    with jax.enable_x64(True):
        params = make_params()
        got = jax.jit(CRF.log_likelihood)(params, HIDDEN, TAGS, MASK)
        np.testing.assert_allclose(got, likelihoods(params), rtol=1e-13)


def test_probabilities_add_up_to_one():
    with jax.enable_x64(True):
        params = make_params()
        every = np.array(list(itertools.product(range(3), repeat=3)))
        tags = np.zeros((27, 5), int)
        tags[:, 1:4] = every
        hidden, mask = (np.repeat(x[2:3], 27, axis=0) for x in (HIDDEN, MASK))
        values = CRF.log_likelihood(params, hidden, tags, mask)
        np.testing.assert_allclose(np.exp(values).sum(), 1.0, rtol=1e-12)


def test_viterbi_finds_the_best_of_all_sequences():
    params = make_params()
    got = np.asarray(jax.jit(CRF.decode)(params, HIDDEN.astype(np.float32), MASK))
    assert got.dtype == np.int32
    for b in range(4):
        scores = all_sequences(params, b)
        best = max(scores, key=scores.__getitem__)
        assert got[b][MASK[b]].tolist() == list(best)
    assert not got[~MASK].any()


def test_the_gradient_is_what_was_expected_minus_what_was_seen():
    """In the transitions: counts of pairs minus their expectation."""
    with jax.enable_x64(True):
        params = make_params()

        def total(params):
            return CRF.log_likelihood(params, HIDDEN[:1], TAGS[:1], MASK[:1])[0]

        got = jax.grad(total)(params)["transitions"]
        scores = all_sequences(params, 0)
        weights = np.exp(np.array(list(scores.values())))
        weights /= weights.sum()
        expected = np.zeros((3, 3))
        for tags, weight in zip(scores, weights, strict=True):
            for pair in itertools.pairwise(tags):
                expected[pair] -= weight
        for pair in itertools.pairwise(TAGS[0].tolist()):
            expected[pair] += 1.0
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def negative_log_likelihood(params, hidden, tags, where):
    return -CRF.log_likelihood(params, hidden, tags, where)


CHECKS = testing.loss_checks(
    negative_log_likelihood,
    (make_params(), HIDDEN.astype(np.float32), TAGS),
    kwargs={"where": MASK},
    mask_name="where",
    argnums=(0, 1),
    masked_argnums=(1, 2),
    extremes=(0.0, 100.0, -100.0),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_likelihood_conforms(check):
    check()


def test_rows_without_tokens_have_no_gradient():
    params, nothing = make_params(), np.zeros_like(MASK)
    gradient = jax.grad(
        lambda p: CRF.log_likelihood(p, HIDDEN.astype(np.float32), TAGS, nothing).sum()
    )(params)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), gradient)


def test_a_batch_is_its_rows():
    params, hidden = make_params(), HIDDEN.astype(np.float32)
    whole = CRF.log_likelihood(params, hidden, TAGS, MASK)
    rows = [
        CRF.log_likelihood(params, hidden[b : b + 1], TAGS[b : b + 1], MASK[b : b + 1])
        for b in range(2)
    ]
    np.testing.assert_allclose(whole[:2], np.concatenate(rows), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_added_up_in_float32(dtype):
    """The layer copies a state to each tag: emissions are exact."""
    params = make_params() | {"kernel": jnp.eye(4, 3)}
    hidden = jnp.asarray(HIDDEN, dtype)
    got = CRF.log_likelihood(params, hidden, TAGS, MASK)
    assert got.dtype == jnp.float32
    expected = likelihoods(params, np.float64(hidden))
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_a_chain_is_a_value_that_compares_and_hashes():
    same = LinearChainCRF(hidden_size=4, num_types=1)
    assert (same, hash(same)) == (CRF, hash(CRF))
    assert same != LinearChainCRF(hidden_size=4, num_types=2)


def test_parameters_are_those_of_a_layer_and_a_chain():
    crf = LinearChainCRF(hidden_size=64, num_types=3)
    params = crf.init(jax.random.key(0))
    assert crf.num_tags == 7
    shapes = {name: leaf.shape for name, leaf in params.items()}
    assert shapes == {
        "kernel": (64, 7),
        "bias": (7,),
        "transitions": (7, 7),
        "start": (7,),
        "end": (7,),
    }
    np.testing.assert_allclose(params["kernel"].std(), 1 / 8, rtol=0.15)
    assert not any(np.any(v) for k, v in params.items() if k != "kernel")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((HIDDEN[0], TAGS, MASK), ValueError, r"hidden must be \[batch, n, 4\]"),
        ((HIDDEN, TAGS[:, :4], MASK), ValueError, "tags must have the shape"),
        ((HIDDEN, TAGS + 0.5, MASK), TypeError, "tags must be integers, got float"),
        ((HIDDEN, TAGS, MASK.astype(int)), TypeError, "mask must be boolean"),
        ((HIDDEN, TAGS, MASK[:1]), ValueError, "mask must have the shape"),
        ((HIDDEN[:, :0], TAGS[:, :0], MASK[:, :0]), ValueError, "n of at least 1"),
        (
            (HIDDEN, np.where(MASK, CRF.num_tags, TAGS), MASK),
            ValueError,
            rf"in \[0, {CRF.num_tags - 1}\] for num_types=.*got {CRF.num_tags}\.",
        ),
        ((HIDDEN, np.where(MASK, -1, TAGS), MASK), ValueError, "tags must be in.*-1"),
        # 64-bit integers of the host, which 32 bits would make the tag 0.
        ((HIDDEN, np.where(MASK, 2**32, TAGS), MASK), ValueError, "tags must be in"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        CRF.log_likelihood(make_params(), *arguments)


@pytest.mark.parametrize(
    ("num_types", "dtype"),  # 129 and 257 tags
    [
        (64, "int8"),
        (128, "uint8"),
        (128, "int8"),
        pytest.param(64, "uint8", marks=pytest.mark.slow),
        *(
            pytest.param(num_types, dtype, marks=pytest.mark.slow)
            for num_types in (64, 128)
            for dtype in ("int16", "int64")
        ),
    ],
)
def test_tags_of_any_width_count_many_types(num_types, dtype):
    """Where every sequence is equally likely, it has the probability K^-n."""
    crf = LinearChainCRF(hidden_size=4, num_types=num_types)
    params = jax.tree.map(jnp.zeros_like, crf.init(jax.random.key(0)))
    tags = np.full(MASK.shape, 5, dtype)
    for likelihood in (crf.log_likelihood, jax.jit(crf.log_likelihood)):
        got = likelihood(params, HIDDEN.astype(np.float32), tags, MASK)
        expected = -MASK.sum(axis=1) * np.log(2 * num_types + 1)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_traced_tag_that_does_not_exist_shows():
    tags = TAGS.copy()
    tags[0, np.flatnonzero(MASK[0])[0]] = CRF.num_tags
    tags = np.where(MASK, tags, -7)  # what is masked may be anything
    got = jax.jit(CRF.log_likelihood)(make_params(), HIDDEN, tags, MASK)
    expected = CRF.log_likelihood(make_params(), HIDDEN, TAGS, MASK)
    assert np.isnan(got[0])
    np.testing.assert_array_equal(got[1:], expected[1:])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_states_whose_dtype_would_cut_the_kernel_are_named(dtype):
    hidden, params = jnp.ones(HIDDEN.shape, dtype), make_params()
    for call in (
        lambda: CRF.log_likelihood(params, hidden, TAGS, MASK),
        lambda: CRF.decode(params, hidden, MASK),
    ):
        with pytest.raises(TypeError, match=f"hidden must be real.*, got {dtype}"):
            call()


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="num_types must be at least 1, got 0"):
        LinearChainCRF(4, 0)
    with pytest.raises(TypeError, match="hidden_size must be an integer"):
        LinearChainCRF(4.0, 1)
