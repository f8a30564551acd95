"""Search in cached vectors: the answer of the whole table, in the memory of a block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cosent import cosine_matrix, encode_once, top_k
from expkit.testing.compilation import count_compilations

RNG = np.random.default_rng(0)
QUERIES = RNG.normal(size=(4, 5)).astype(np.float32)
CORPUS = RNG.normal(size=(23, 5)).astype(np.float32)


QUICK = [(1, 1), (6, 5), (23, 8), (6, 23), (23, 1000)]
REST = [
    pytest.param(k, size, marks=pytest.mark.slow)
    for k in (1, 6, 23)
    for size in (1, 5, 8, 23, 1000)
    if (k, size) not in QUICK
]


@pytest.mark.parametrize(("k", "block_size"), QUICK + REST)
def test_the_answer_is_that_of_the_whole_table(k, block_size):
    cosines, indices = jax.jit(functools.partial(top_k, k=k, block_size=block_size))(
        QUERIES, CORPUS
    )
    table = np.asarray(cosine_matrix(QUERIES, CORPUS))
    expected = np.argsort(-table, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    found = np.take_along_axis(table, expected, axis=1)
    np.testing.assert_allclose(cosines, found, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [np.int64, np.array, jnp.array])
def test_sizes_may_be_integers_of_any_kind(kind):
    cosines, indices = top_k(QUERIES, CORPUS, kind(3), block_size=kind(5))
    table = np.asarray(cosine_matrix(QUERIES, CORPUS))
    expected = np.argsort(-table, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(indices, expected)
    assert cosines.shape == (4, 3)


def test_equal_cosines_come_in_the_order_of_the_corpus():
    corpus = np.tile(CORPUS[:2], (5, 1))
    for block_size in (1, 3, 10):
        _, indices = top_k(CORPUS[:1], corpus, 4, block_size=block_size)
        np.testing.assert_array_equal(indices, [[0, 2, 4, 6]])


def test_double_precision_works():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        queries, corpus = rng.normal(size=(3, 8)), rng.normal(size=(11, 8))
        cosines, indices = top_k(queries, corpus, 4, block_size=5)
    norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, corpus)]
    table = (queries / norms[0]) @ (corpus / norms[1]).T
    np.testing.assert_array_equal(indices, np.argsort(-table)[:, :4])
    np.testing.assert_allclose(cosines, -np.sort(-table)[:, :4], rtol=1e-13)


def test_a_zero_vector_is_at_no_end():
    corpus = np.stack([CORPUS[0], 0 * CORPUS[0], -CORPUS[0]])
    cosines, indices = top_k(CORPUS[:1], corpus, 3, block_size=2)
    np.testing.assert_array_equal(indices, [[0, 1, 2]])
    np.testing.assert_allclose(cosines, [[1.0, 0.0, -1.0]], atol=1e-6)


@pytest.mark.optimized
def test_memory_does_not_grow_with_the_corpus():
    def temporary(size, block_size):
        search = functools.partial(top_k, k=3, block_size=block_size)
        shapes = [jax.ShapeDtypeStruct((n, 8), jnp.float32) for n in (64, size)]
        compiled = jax.jit(search).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporary(1_000, 250), temporary(20_000, 250)
    assert large <= small + 1_000
    assert temporary(20_000, 20_000) > 20 * large  # the whole table, as a control


def test_vectors_do_not_depend_on_the_batches():
    inputs = {"x": CORPUS, "y": np.arange(23)}
    shapes = []

    def encode(batch):
        shapes.append(batch["x"].shape)
        return batch["x"] * (1.0 + batch["y"][:, None])

    expected = CORPUS / np.linalg.norm(CORPUS, axis=1, keepdims=True)
    for batch_size in (1, 7, 23, 100):
        shapes.clear()
        vectors = encode_once(encode, inputs, batch_size=batch_size)
        np.testing.assert_allclose(vectors, expected, rtol=1e-6, atol=1e-7)
        assert len(shapes) == 1  # compiled once


def test_a_corpus_of_one_text_has_one_vector():
    got = encode_once(jnp.asarray, CORPUS[:1], batch_size=8)
    expected = CORPUS[:1] / np.linalg.norm(CORPUS[:1])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_parameters_that_a_function_closes_over_may_change():
    params = {"w": np.eye(5, dtype=np.float32)}
    encode = lambda x: x @ params["w"]  # noqa: E731
    before = encode_once(encode, CORPUS)
    params["w"] = -params["w"]
    np.testing.assert_array_equal(encode_once(encode, CORPUS), -before)


def test_a_second_search_compiles_nothing():
    encode = jax.jit(lambda x: x * 2.0)
    plain = lambda x: x * 2.0  # noqa: E731

    def search(encode):
        corpus = encode_once(encode, CORPUS, batch_size=10)
        return top_k(encode_once(encode, QUERIES), corpus, 3, block_size=7)

    first = search(encode)
    with count_compilations() as log:
        second = search(encode)
    assert not log.names
    np.testing.assert_array_equal(first, second)
    with count_compilations() as log:
        search(plain)
    assert log.names  # a function that is not compiled, as a control


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: top_k(QUERIES, CORPUS, 24),
            ValueError,
            "k .* between 1 and 23, got 24",
        ),
        (lambda: top_k(QUERIES, CORPUS, 0), ValueError, "between 1 and 23, got 0"),
        (lambda: top_k(QUERIES, CORPUS, True), TypeError, "k must be an integer"),
        (
            lambda: top_k(QUERIES, CORPUS, 1, block_size=0),
            ValueError,
            "block_size must be at least 1",
        ),
        (
            lambda: top_k(QUERIES[:, :2], CORPUS, 1),
            ValueError,
            r"\(4, 2\) and \(23, 5\)",
        ),
        (
            lambda: encode_once(jnp.asarray, {"a": CORPUS, "b": QUERIES}),
            ValueError,
            r"one number of rows, got \[\(4,\), \(23,\)\]",
        ),
        (  # the batch would count as the coordinates of one vector
            lambda: encode_once(lambda x: x.sum(axis=1), CORPUS, batch_size=8),
            ValueError,
            r"encode_fn must return \[8, dim\] for 8 rows, got shape \(8,\)",
        ),
        (
            lambda: encode_once(lambda x: x[:2], CORPUS, batch_size=8),
            ValueError,
            r"encode_fn .* got shape \(2, 5\)",
        ),
        (
            lambda: encode_once(lambda x: x[:, None], CORPUS, batch_size=8),
            ValueError,
            r"encode_fn .* got shape \(8, 1, 5\)",
        ),
        (lambda: encode_once(jnp.asarray, 1.0), ValueError, r"one number of rows"),
        (lambda: encode_once(jnp.asarray, []), ValueError, r"one number of rows"),
        (
            lambda: encode_once(jnp.asarray, CORPUS[:0]),
            ValueError,
            r"one number of rows, got \[\(0,\)\]",
        ),
        (
            lambda: encode_once(jnp.asarray, CORPUS, batch_size=0),
            ValueError,
            "batch_size must be at least 1",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
