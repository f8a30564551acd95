"""Sums over trees and per-example gradients on generated arrays, in float64.

What is a sum of products has an error relative to the same sum of magnitudes, so the
oracles are evaluated twice.
"""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import assert_close, filled, wide

from expkit import per_example, trees

PROPERTIES = properties.Properties("expkit")
NAMES = ("inner_product", "squared_norm", "add_scaled", "wide_dtype")
DENSE = ("dense_squared_norms", "dense_fisher", "check_layers")
# Products of eight of these neither over- nor underflow.
EXACT = st.one_of(
    st.integers(-2, 2).map(float),
    st.integers(-4096, 4096).map(lambda i: i / 1024),
    st.sampled_from((0.0, 50.0, -50.0)),
)
STRUCTURES = (
    lambda a, b, c: {"a": a, "b": [b, c]},
    lambda a, b, c: (a, {"b": b}, c),
)


@st.composite
def pairs(draw):
    """Two trees of one structure, each leaf of a dtype and layout of its own."""
    make = draw(st.sampled_from(STRUCTURES))
    kinds = draw(
        st.sampled_from(
            (("float32",) * 3, ("bfloat16", "float32", "float16"), ("float16",) * 3)
        )
    )
    shapes = zip(((), (5,), (0, 2)), kinds, strict=True)
    leaves = [[draw(filled(s, k, EXACT)) for _ in "ab"] for s, k in shapes]
    return [make(*side) for side in zip(*leaves, strict=True)]


def flat(tree):
    """All entries in float64."""
    return np.concatenate([np.ravel(wide(x)) for x in jax.tree.leaves(tree)])


product, norm, combined = (jax.jit(getattr(trees, name)) for name in NAMES[:3])


@PROPERTIES.of("inner_product", "squared_norm", cases=700, short=True, pair=pairs())
def test_products_are_those_of_float64_in_any_order(pair):
    a, b = map(flat, pair)
    got = product(*pair)
    assert got.dtype == jnp.float32
    # A product, and a sum of six and over three leaves.
    assert_close(got, a @ b, roundings=9, size=np.abs(a) @ np.abs(b))
    properties.same(product(*pair[::-1]), got)
    assert_close(norm(pair[0]), a @ a, roundings=9)
    assert norm({}) == norm([]) == 0
    # In the words of this JAX, or of older ones.
    with pytest.raises(ValueError, match=r"structure|Expected (dict|tuple|list)"):
        trees.inner_product(pair[0], [pair[1]])


@PROPERTIES.of(
    "add_scaled",
    "wide_dtype",
    cases=700,
    pair=pairs(),
    scale=st.sampled_from((0.0, 1.0, -0.3, 1e3)),
)
def test_a_multiple_is_added_in_the_dtypes_of_the_first(pair, scale):
    got = combined(pair[0], scale, pair[1])
    scale = float(np.float32(scale))
    assert jax.tree.structure(got) == jax.tree.structure(pair[0])
    for result, a, b in zip(*map(jax.tree.leaves, (got, *pair)), strict=True):
        assert result.dtype == a.dtype
        assert trees.wide_dtype(a) == trees.wide_dtype(a.dtype) == np.float32
        size = np.abs(wide(a)) + np.abs(scale * wide(b))
        want = wide(a) + scale * wide(b)
        # A product and a sum in float32, and one rounding to the dtype of the leaf.
        assert_close(result, want, roundings=2, size=size, dtype=np.float32)
    with jax.enable_x64(True):
        assert trees.wide_dtype(np.float64) == np.float64


def square(z):
    return z * z


@jax.jit
def dense(params, x):
    """Both functions, for the sum of all outputs of an example."""
    loss = lambda out: jnp.sum(  # noqa: E731
        out, axis=tuple(range(1, out.ndim))
    )
    args = params, x, loss, square
    return per_example.dense_squared_norms(*args), per_example.dense_fisher(*args)


def gradients(layers, x):
    """Of every example, one product at a time; of magnitudes if all are at least 0."""
    (w1, b1), (w2, _) = layers
    rows = []
    for example in x.reshape(len(x), -1, x.shape[-1]):
        z = example @ w1 + (0.0 if b1 is None else b1)
        ones = np.ones((len(example), w2.shape[1]))
        delta = 2 * z * (ones @ w2.T)
        found = [example.T @ delta]
        found += [] if b1 is None else [delta.sum(0)]
        rows.append([*found, (z**2).T @ ones, ones.sum(0)])
    return [np.stack(part) for part in zip(*rows, strict=True)]


@PROPERTIES.of(
    "dense_squared_norms",
    "dense_fisher",
    cases=600,
    shape=st.sampled_from(((1, 2), (3, 2), (3, 2, 2))),
    biased=st.booleans(),
    data=st.data(),
)
def test_norms_and_squares_of_each_example_are_the_closed_forms(shape, biased, data):
    draw = lambda shape: data.draw(filled(shape, elements=EXACT))  # noqa: E731
    w1, w2, b2, x = (draw(s) for s in ((2, 3), (3, 2), (2,), shape))
    params = [(w1, draw((3,)) if biased else None), (w2, b2)]
    norms, fisher = dense(params, x)
    layers = [(wide(w), None if b is None else wide(b)) for w, b in params]
    large = [(abs(w), None if b is None else abs(b)) for w, b in layers]
    exact, sizes = gradients(layers, wide(x)), gradients(large, abs(wide(x)))
    total, size = (
        sum((g**2).reshape(len(g), -1).sum(1) for g in parts)
        for parts in (exact, sizes)
    )
    assert norms.dtype == jnp.float32
    # Each gradient is a sum of products with up to eight roundings, and is squared.
    assert_close(norms, total, roundings=40, size=size)
    assert jax.tree.structure(fisher) == jax.tree.structure(params)
    for got, g, reach in zip(jax.tree.leaves(fisher), exact, sizes, strict=True):
        assert got.dtype == jnp.float32
        want = (g**2).mean(0)
        assert_close(got, want, roundings=40, size=(reach**2).mean(0))


@PROPERTIES.of(
    "check_layers",
    "dense_squared_norms",
    "dense_fisher",
    cases=150,
    short=True,
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    n_in=st.integers(1, 4),
    width=st.integers(1, 4),
)
def test_layers_that_do_not_fit_are_refused_and_others_pass(sizes, n_in, width):
    first, second, last = sizes
    params = [
        (np.ones((first, second), np.float32), None),
        (np.ones((width, last), np.float32), np.ones(last, np.float32)),
    ]
    fits = first == n_in and width == second
    x = np.ones((2, n_in), np.float32)
    calls = [lambda: per_example.check_layers(params, n_in)]
    for name in DENSE[:2]:
        function = getattr(per_example, name)
        calls.append(functools.partial(function, params, x, jnp.ravel, square))
    if fits:
        assert calls[0]() is None
        return
    for call in calls:
        with pytest.raises(ValueError, match=r"params\[[01]\]"):
            call()
    with pytest.raises(TypeError, match="floating-point"):
        per_example.check_layers([(np.ones((n_in, 2), int), None)], n_in)


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check([*NAMES, *DENSE])
