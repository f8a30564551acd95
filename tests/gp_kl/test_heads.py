"""Both heads against loops in numpy, their masks, sizes and invariances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expkit import testing
from gp_kl import EfficientGlobalPointer, GlobalPointer, rotary, span_mask

HEADS = [GlobalPointer, EfficientGlobalPointer]
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(2, 5, 6))
MASK = np.arange(5) < np.array([[5], [3]])


def make(head, **options):
    head = head(hidden_size=6, num_types=3, head_size=4, **options)
    params = head.init(jax.random.key(0))
    noise = (0.3 * RNG.normal(size=leaf.shape) for leaf in params.values())
    return head, {k: v + n for (k, v), n in zip(params.items(), noise, strict=True)}


def rotated(row, position):
    """One row of an even width at one position, as complex numbers."""
    half = len(row) // 2
    turn = np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))
    z = (row[:half] + 1j * row[half:]) * turn
    return np.concatenate([z.real, z.imag])


def definition(head, params, hidden, kind, i, j):
    """The score of one span of one sentence, straight from the equations."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    turn = rotated if head.rotary else lambda row, _: row
    scale = np.sqrt(head.head_size)
    if isinstance(head, GlobalPointer):
        q_i = hidden[i] @ p["kernel"][:, kind, 0] + p["bias"][kind, 0]
        k_j = hidden[j] @ p["kernel"][:, kind, 1] + p["bias"][kind, 1]
        return turn(q_i, i) @ turn(k_j, j) / scale
    q, k = (hidden @ p["kernel"][:, x] + p["bias"][x] for x in (0, 1))
    ends = np.concatenate([q[i], k[i], q[j], k[j]])  # the array of width 4d
    weights = p["type_kernel"][:, :, kind].T.ravel()
    constant = p["type_bias"][:, kind].sum()
    return turn(q[i], i) @ turn(k[j], j) / scale + weights @ ends + constant


@pytest.mark.parametrize("has_rotary", [True, False])
@pytest.mark.parametrize("make_head", HEADS)
def test_scores_are_those_of_the_equations(make_head, has_rotary):
    head, params = make(make_head, rotary=has_rotary)
    with jax.enable_x64(True):
        got = np.asarray(jax.jit(head.apply)(params, HIDDEN, MASK))
    for b, kind, i, j in np.ndindex(got.shape):
        if i <= j and MASK[b, i] and MASK[b, j]:
            expected = definition(head, params, HIDDEN[b], kind, i, j)
            np.testing.assert_allclose(got[b, kind, i, j], expected, rtol=0, atol=1e-13)
        else:
            assert got[b, kind, i, j] == -np.inf


@pytest.mark.parametrize("make_head", HEADS)
def test_scores_depend_on_the_distance_of_the_ends_only(make_head):
    head, params = make(make_head)
    same = np.broadcast_to(RNG.normal(size=6), (1, 9, 6))
    mask = np.ones((1, 9), bool)
    with jax.enable_x64(True):
        apply = jax.jit(head.apply)
        scores = np.asarray(apply(params, same, mask)[0])
        shifted = np.concatenate([RNG.normal(size=(1, 4, 6)), HIDDEN[:1]], axis=1)
        far = apply(params, shifted, mask)[0, :, 4:, 4:]
        near = apply(params, HIDDEN[:1], mask[:, :5])[0]
    for distance in range(9):
        diagonal = np.diagonal(scores, distance, axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal - diagonal[:, :1], 0.0, atol=1e-12)
    # Equal states: nothing but the rotation tells the distances apart.
    assert np.abs(scores[:, 0, 1:] - scores[:, 0, :1]).min() > 1e-3
    without = dataclasses.replace(head, rotary=False)
    plain = np.asarray(jax.jit(without.apply)(params, same, mask)[0])
    assert np.ptp(plain[:, 0], axis=1).max() < 1e-5
    upper = np.triu(np.ones((5, 5), bool))
    np.testing.assert_allclose(far[:, upper], near[:, upper], atol=1e-12)


def test_the_rotation_is_the_public_one():
    x = HIDDEN[0].astype(np.float32)
    expected = [rotated(row, i) for i, row in enumerate(HIDDEN[0])]
    np.testing.assert_allclose(rotary(x, np.arange(5)), expected, atol=1e-6)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("num_types", [1, 9, 10, 100])
def test_parameters_are_as_many_as_the_paper_says(num_types):
    width, size = 768, 64
    full, efficient = (
        jax.eval_shape(head(width, num_types).init, jax.random.key(0)) for head in HEADS
    )
    weights = {k: count(v) for k, v in full.items()}
    assert weights == {
        "kernel": 2 * width * size * num_types,
        "bias": 2 * size * num_types,
    }
    expected = 2 * width * size + 4 * size * num_types + 2 * size + 2 * num_types
    assert count(efficient) == expected


def test_published_sizes():
    """The counts for 10 types at the sizes of BERT-base."""
    full, efficient = (
        count(jax.eval_shape(head(768, 10).init, jax.random.key(0))) for head in HEADS
    )
    assert (full, efficient) == (984_320, 101_012)


@pytest.mark.parametrize("make_head", HEADS)
def test_scores_start_at_the_size_of_one(make_head):
    head = make_head(hidden_size=64, num_types=40, head_size=32, rotary=False)
    params = head.init(jax.random.key(1))
    assert all(leaf.dtype == jnp.float32 for leaf in params.values())
    hidden = np.random.default_rng(1).normal(size=(4, 12, 64)).astype(np.float32)
    apply = jax.jit(head.apply)
    scores = np.asarray(apply(params, hidden, np.ones((4, 12), bool)))
    spread = scores[np.isfinite(scores)].std()
    # A product of unit vectors, and with it a linear term of the same size.
    expected = 1.0 if make_head is GlobalPointer else np.sqrt(2.0)
    np.testing.assert_allclose(spread, expected, rtol=0.15)


@pytest.mark.parametrize("make_head", HEADS)
def test_what_is_on_the_padding_has_no_influence(make_head):
    head, params = make(make_head)
    hidden = HIDDEN.astype(np.float32)

    @jax.jit
    def evaluate(params, hidden):
        def total(params, hidden):
            scores = head.apply(params, hidden, MASK)
            return jnp.sum(jnp.where(jnp.isfinite(scores), scores, 0.0) ** 2)

        return jax.value_and_grad(total, (0, 1))(params, hidden)

    expected = evaluate(params, hidden)
    testing.assert_tree_finite(expected, "value and gradient")
    for garbage in (np.nan, np.inf, 1e9):
        wrong = np.where(MASK[:, :, None], hidden, np.float32(garbage))
        got = evaluate(params, wrong)
        testing.assert_trees_close(got, expected, "got", rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(got[1][1][1, 3:], 0.0)


@pytest.mark.parametrize("make_head", HEADS)
def test_special_tokens_in_front_can_be_masked_too(make_head):
    head, params = make(make_head)
    mask = MASK & (np.arange(5) > 0)
    apply = jax.jit(head.apply)
    scores = np.asarray(apply(params, HIDDEN.astype(np.float32), mask))
    assert np.isneginf(scores[:, :, 0]).all()
    assert np.isfinite(scores[0, :, 1, 1:]).all()


def test_the_mask_of_spans_is_the_upper_triangle_of_the_tokens():
    expected = [
        [[i <= j and row[i] and row[j] for j in range(5)] for i in range(5)]
        for row in MASK
    ]
    np.testing.assert_array_equal(span_mask(MASK), expected)
    np.testing.assert_array_equal(span_mask(MASK[1]), expected[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("make_head", HEADS)
def test_scores_keep_the_dtype_of_the_states(make_head, dtype):
    head, params = make(make_head)
    hidden = jnp.asarray(HIDDEN, dtype)
    got = jax.jit(head.apply)(params, hidden, MASK)
    assert got.dtype == dtype
    expected = jax.jit(head.apply)(params, hidden.astype(jnp.float32), MASK)
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=tolerance)


@pytest.mark.parametrize("make_head", HEADS)
def test_a_batch_is_its_sentences_and_jit_changes_nothing(make_head):
    head, params = make(make_head)
    hidden = HIDDEN.astype(np.float32)
    batch = head.apply(params, hidden, MASK)
    single = jax.jit(jax.vmap(lambda h, m: head.apply(params, h[None], m[None])[0]))
    np.testing.assert_allclose(single(hidden, MASK), batch, rtol=1e-6, atol=1e-6)


def largest_array(fn, *arguments):
    """Elements of the largest array in the program, however it is nested."""
    jaxpr = jax.make_jaxpr(fn)(*arguments).jaxpr
    sizes, queue = [], [jaxpr]
    while queue:
        equations = queue.pop().eqns
        sizes += [v.aval.size for eqn in equations for v in eqn.outvars]
        inner = (value for eqn in equations for value in eqn.params.values())
        queue += [value.jaxpr for value in inner if hasattr(value, "jaxpr")]
    return max(sizes)


def test_the_efficient_head_never_builds_the_array_of_width_4d():
    head = EfficientGlobalPointer(hidden_size=8, num_types=2, head_size=16)
    n, params = 32, head.init(jax.random.key(0))
    inputs = jnp.ones((1, n, 8)), jnp.ones((1, n), bool)

    def concatenated(params, hidden, mask):
        del mask
        rows = jnp.einsum("bnh,hsd->bnsd", hidden, params["kernel"])
        both = rows.reshape(1, n, 32)
        first, last = (
            jnp.broadcast_to(jnp.expand_dims(both, axis), (1, n, n, 32))
            for axis in (2, 1)
        )
        pairs = jnp.concatenate([first, last], axis=-1)
        return jnp.einsum("bijk,km->bmij", pairs, jnp.ones((64, 2)))

    assert largest_array(head.apply, params, *inputs) == 2 * n * n
    assert largest_array(concatenated, params, *inputs) == n * n * 64  # the control


@pytest.mark.parametrize("make_head", HEADS)
def test_a_model_for_all_lengths_can_be_exported(make_head):
    head, params = make(make_head)
    batch, n = jax.export.symbolic_shape("batch, n")
    inputs = map(jax.ShapeDtypeStruct, ((batch, n, 6), (batch, n)), (np.float32, bool))
    exported = jax.export.export(jax.jit(head.apply))(params, *inputs)
    for n in (3, 5):
        hidden, mask = HIDDEN[:, :n].astype(np.float32), MASK[:, :n]
        got = np.asarray(exported.call(params, hidden, mask))
        is_span = mask[:, :, None] & mask[:, None, :] & np.triu(np.ones((n, n), bool))
        np.testing.assert_array_equal(np.isfinite(got).all(axis=1), is_span)
        for b, kind, i, j in np.argwhere(np.isfinite(got)):
            expected = definition(head, params, HIDDEN[b], kind, i, j)
            np.testing.assert_allclose(got[b, kind, i, j], expected, atol=1e-5)


def test_heads_are_values_that_compare_and_hash():
    head = GlobalPointer(8, 2)
    assert head == GlobalPointer(hidden_size=8, num_types=2, head_size=64, rotary=True)
    assert hash(head) == hash(GlobalPointer(8, 2))
    assert head != EfficientGlobalPointer(8, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.num_types = 3


@pytest.mark.parametrize("make_head", HEADS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head_size": 7}, ValueError, "head_size must be even, .* got 7"),
        ({"head_size": 0}, ValueError, "head_size must be at least 1, got 0"),
        ({"hidden_size": -1}, ValueError, "hidden_size must be at least 1, got -1"),
        ({"num_types": 2.0}, TypeError, "num_types must be an integer, got 2.0"),
        ({"num_types": True}, TypeError, "num_types must be an integer, got True"),
        ({"rotary": 1}, TypeError, "rotary must be a bool, got 1"),
    ],
)
def test_bad_sizes_are_named(make_head, options, error, message):
    with pytest.raises(error, match=message):
        make_head(**{"hidden_size": 6, "num_types": 3, **options})


@pytest.mark.parametrize("make_head", HEADS)
def test_an_odd_head_is_fine_without_rotary_positions(make_head):
    head = make_head(6, 3, head_size=5, rotary=False)
    params, hidden = head.init(jax.random.key(0)), HIDDEN.astype(np.float32)
    scores = jax.jit(head.apply)(params, hidden, MASK)
    assert scores.shape == (2, 3, 5, 5)


@pytest.mark.parametrize("make_head", HEADS)
@pytest.mark.parametrize(
    ("hidden", "mask", "error", "message"),
    [
        (HIDDEN[0], MASK, ValueError, r"hidden must be \[batch, n, 6\], got \(5, 6\)"),
        (HIDDEN[:, :, :5], MASK, ValueError, r"got \(2, 5, 5\)"),
        (HIDDEN, MASK[0], ValueError, r"mask must have the shape \(2, 5\), got \(5,\)"),
        (HIDDEN, MASK.astype(int), TypeError, "mask must be boolean, got int"),
    ],
)
def test_bad_inputs_are_named(make_head, hidden, mask, error, message):
    head, params = make(make_head)
    with pytest.raises(error, match=message):
        head.apply(params, jnp.asarray(hidden, jnp.float32), mask)


@pytest.mark.parametrize("make_head", HEADS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_states_whose_dtype_would_cut_the_parameters_are_named(make_head, dtype):
    head, params = make(make_head)
    with pytest.raises(TypeError, match=f"hidden must be real float.*, got {dtype}"):
        head.apply(params, jnp.ones(HIDDEN.shape, dtype), MASK)


def test_a_mask_without_axis_is_named():
    with pytest.raises(ValueError, match=r"mask must be \[..., n\], got a scalar"):
        span_mask(True)
