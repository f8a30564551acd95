"""Losses, heads and spans on generated input: SciPy in float64, loops, enumeration."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import assert_close, filled, masks, numbers, wide
from scipy import special

import gp_kl

PROPERTIES = properties.Properties("gp_kl")
SHAPES = ((0,), (5,), (2, 3), (2, 2, 3))
EXTREMES = (0.0, 1e-30, 1e4, -1e4, 90.0, -90.0, 1e-40)
SCORES = st.one_of(numbers(special=EXTREMES), st.integers(-30, 30).map(float))
KINDS = {
    bool: st.booleans(),
    np.int32: st.integers(0, 1),
    np.float32: st.sampled_from((0.0, 1.0, 0.5, 0.25, 1e-6, 0.999)),
}


@st.composite
def labelled(draw, shapes=SHAPES, kinds=tuple(KINDS), elements=SCORES):
    """Scores, labels of some kind, and a mask or none."""
    shape = draw(st.sampled_from(shapes))
    s = draw(filled(shape, draw(st.sampled_from(tuple(properties.DTYPES))), elements))
    kind = draw(st.sampled_from(kinds))
    size = int(np.prod(shape))
    labels = draw(st.lists(KINDS[kind], min_size=size, max_size=size))
    where = draw(st.one_of(st.none(), masks(shape)))
    return s, np.array(labels, kind).reshape(shape), where


def log_one_plus_sum(z, axes):
    """In float64, with the derivative and how far rounding can reach."""
    shift = np.maximum(z.max(axes, keepdims=True, initial=0.0), 0.0)
    powers = np.exp(z - shift)
    value = shift + np.log1p(powers.sum(axes, keepdims=True) + np.expm1(-shift))
    shares = np.exp(z - value)
    reach = np.where(shares > 0, shares * (1 + np.abs(np.where(z > -1e9, z, 0))), 0.0)
    size = value + reach.sum(axes, keepdims=True)
    return value.squeeze(axes), shares, size.squeeze(axes)


def both_sums(s, t, axes, where=None):
    """Logarithms of the sums over positives and over negatives, as above."""
    s, t = wide(s), np.float64(t)
    keep = np.ones(s.shape, bool) if where is None else where
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(keep & (t > 0), -s + np.log(t), -np.inf)
        y = np.where(keep & (t < 1), s + np.log(1 - t), -np.inf)
    return log_one_plus_sum(z, axes), log_one_plus_sum(y, axes)


def cross_entropy(s, t, axes, where=None):
    """The loss in float64, and how far rounding can reach."""
    one, two = both_sums(s, t, axes, where)
    return one[0] + two[0], one[2] + two[2]


@functools.cache
def jitted(name, **options):
    return jax.jit(functools.partial(getattr(gp_kl, name), **options))


@PROPERTIES.of("multilabel_cross_entropy", cases=350, rows=labelled(), data=st.data())
def test_loss_is_that_of_float64_along_any_axes(rows, data):
    s, t, where = rows
    choices = ((-1,),) if np.ndim(s) == 1 else ((-1,), (-2, -1))
    axes = data.draw(st.sampled_from(choices))
    axis = axes[0] if len(axes) == 1 else axes
    got = jitted("multilabel_cross_entropy", axis=axis)(s, t, where=where)
    assert got.dtype == jnp.float32
    want, size = cross_entropy(s, t, axes, where)
    # An exponential and a logarithm of two roundings, and a sum of up to 12.
    assert_close(got, want, roundings=24, size=size)
    assert (np.asarray(got) >= 0).all()


@jax.jit
def slopes(s, t, where):
    """Loss and gradient of all rows."""
    loss = lambda s: jnp.sum(  # noqa: E731
        gp_kl.multilabel_cross_entropy(s, t, where=where)
    )
    return jax.value_and_grad(loss)(s)


@PROPERTIES.of("multilabel_cross_entropy", cases=200, rows=labelled())
def test_a_mask_leaves_classes_out_and_gradients_are_shares(rows):
    s, t, where = rows
    where = np.ones(np.shape(s), bool) if where is None else where
    bad = np.where(where, np.float32(s), np.nan)
    bad_labels = np.where(where, t, 7).astype(np.float32)
    value, gradient = slopes(bad, bad_labels, where)
    want, size = cross_entropy(s, t, (-1,), where)
    assert_close(value, want.sum(), roundings=30, size=size.sum())
    assert not np.asarray(gradient)[~where].any()
    # The shares of a soft label in both sums cancel; each has the errors of a score and
    # of its sum.
    (_, of_positives, _), (_, of_negatives, _) = both_sums(s, t, (-1,), where)
    reach = np.abs(wide(s)) + size[..., None] if np.size(s) else 0.0
    size = (1 + reach) * (of_positives + of_negatives)
    assert_close(gradient, of_negatives - of_positives, roundings=30, size=size)


@PROPERTIES.of(
    "sparse_multilabel_cross_entropy",
    "multilabel_cross_entropy",
    cases=300,
    rows=labelled(shapes=((5,), (2, 3)), kinds=(bool,)),
    k=st.sampled_from((0, 1, 6)),
    data=st.data(),
)
def test_indices_say_what_labels_say(rows, k, data):
    s, _, where = rows
    kind = data.draw(st.sampled_from((np.int32, np.int8)))
    draws = st.integers(-3, np.shape(s)[-1] - 1)
    size = int(np.prod(np.shape(s)[:-1])) * k
    indices = data.draw(st.lists(draws, min_size=size, max_size=size))
    indices = np.array(indices, kind).reshape(*np.shape(s)[:-1], k)
    labels = (indices[..., None] == np.arange(np.shape(s)[-1])).any(-2)
    sparse = jitted("sparse_multilabel_cross_entropy")
    got = sparse(s, indices, where=where)
    want, size = cross_entropy(s, labels, (-1,), where)
    assert_close(got, want, roundings=24, size=size)
    dense = jitted("multilabel_cross_entropy", axis=-1)(s, labels, where=where)
    assert_close(got, np.float64(dense), roundings=48, size=size)


@st.composite
def score_pairs(draw, shapes=((0, 2), (3,), (2, 2, 3)), dtype=None):
    """Scores of two passes, far, close or equal, with cells excluded in both."""
    shape = draw(st.sampled_from(shapes))
    dtype = dtype or draw(st.sampled_from(tuple(properties.DTYPES)))
    s = np.asarray(draw(filled(shape, dtype, SCORES)))
    kind = draw(st.sampled_from(("far", "close", "equal")))
    t = s if kind == "equal" else np.asarray(draw(filled(shape, dtype, SCORES)))
    if kind == "close":
        t = (np.float64(s) + 1e-3 * np.float64(t)).astype(s.dtype)
    if draw(st.booleans()):
        out = draw(masks(shape))
        s, t = (np.where(out, -np.inf, z).astype(z.dtype) for z in (s, t))
    layouts = st.sampled_from(properties.LAYOUTS[: 5 if dtype == "float64" else 6])
    return [properties.lay_out(z, draw(layouts)) for z in (s, t)]


def divergence(s, t, where=None, reduction="sum", temperature=1.0):
    """In float64, by 1 - exp of the difference, and how far rounding can reach."""
    s, t = wide(s), wide(t)
    keep = ~(np.isneginf(s) & np.isneginf(t)) & (True if where is None else where)
    a, b = (np.where(keep, z, 0.0) / np.float64(temperature) for z in (s, t))
    a, b = np.maximum(a, b), np.minimum(a, b)
    d = a - b
    terms = d * special.expit(a) * special.expit(-b) * -np.expm1(-d)
    either, other = (special.expit(x) * special.expit(-y) for x, y in ((a, b), (b, a)))
    # A sigmoid far below 0 has the error of its argument, relatively.
    low = {x: np.abs(z) * special.expit(-z) for x, z in (("a", a), ("b", b))}
    high = {x: np.abs(z) * special.expit(z) for x, z in (("a", a), ("b", b))}
    reach = either * (1 + low["a"] + high["b"]) + other * (1 + low["b"] + high["a"])
    # A sigmoid below 2**-126 is lost, before it is multiplied by the difference.
    size = reach * d * np.tanh(d / 2) + 2.0**-102 * d
    size += (either + other) * (np.abs(a) + np.abs(b)) * (np.tanh(d / 2) + d / 4)
    axes = tuple(range(1, s.ndim))
    count = np.maximum(keep.sum(axes), 1) if reduction == "mean" else 1
    return terms.sum(axes) / count, size.sum(axes) / count


@PROPERTIES.of(
    "span_divergence",
    cases=350,
    pair=score_pairs(),
    data=st.data(),
    reduction=st.sampled_from(("sum", "mean")),
    temperature=st.sampled_from((1.0, 2.0, 0.3, 1e3)),
)
def test_divergence_is_that_of_float64(pair, data, reduction, temperature):
    s, t = pair
    where = data.draw(st.one_of(st.none(), masks(np.shape(s))))
    options = {"where": where, "temperature": np.float32(temperature)}
    apart = jitted("span_divergence", reduction=reduction)
    got = apart(s, t, **options)
    assert got.dtype == jnp.float32
    want, size = divergence(s, t, reduction=reduction, **options)
    assert_close(got, want, roundings=24, size=size)
    assert (np.asarray(got) >= 0).all()
    properties.same(apart(t, s, **options), got)
    np.testing.assert_array_equal(apart(s, s, **options), 0.0)
    if where is not None:
        bad = [np.where(where, z, np.asarray(z).dtype.type(np.nan)) for z in (s, t)]
        properties.same(apart(*bad, **options), got)


@jax.jit
def divergence_slopes(s, t):
    return jax.grad(lambda s, t: jnp.sum(gp_kl.span_divergence(s, t)), (0, 1))(s, t)


@PROPERTIES.of("span_divergence", cases=200, pair=score_pairs())
def test_gradient_of_the_divergence_is_the_closed_form(pair):
    s, t = pair
    got = divergence_slopes(s, t)
    for gradient, (x, y) in zip(got, ((s, t), (t, s)), strict=True):
        assert gradient.dtype == s.dtype
        x, y = wide(x), wide(y)
        keep = ~(np.isneginf(x) & np.isneginf(y))
        x, y = np.where(keep, x, 0.0), np.where(keep, y, 0.0)
        slope = special.expit(x) * special.expit(-x)
        d = x - y
        # sigmoid(x) - sigmoid(y) from the smaller side, without cancellation
        apart = special.expit(x) * special.expit(-y) * -np.expm1(-np.abs(d))
        back = special.expit(y) * special.expit(-x) * -np.expm1(-np.abs(d))
        apart = np.where(d > 0, apart, -back)
        want = np.where(keep, slope * d + apart, 0.0)
        # Sigmoids far below 0 have the error of their argument.
        size = (slope * np.abs(d) + np.abs(apart)) * (2 + np.abs(x) + np.abs(y))
        size = np.minimum(size, 4 * np.abs(d) + 4)
        # A sigmoid below 2**-126 is lost, before it is multiplied by the difference.
        size = np.where(keep, size + 2.0**-102 * np.abs(d), 0.0)
        # In float32, and then rounded once to the dtype of the scores.
        assert_close(gradient, want, roundings=24, size=size, dtype=np.float32)


@PROPERTIES.of(
    "span_rdrop_loss",
    cases=200,
    pair=score_pairs(shapes=((1, 1, 2, 2), (2, 2, 2, 2))),
    data=st.data(),
    alpha=st.sampled_from((0.0, 0.5, 4.0, 1e-3)).map(np.float32),
    reduction=st.sampled_from(("sum", "mean")),
)
def test_loss_of_two_passes_is_their_losses_and_divergence(
    pair, data, alpha, reduction
):
    s, t = pair
    shape = np.shape(s)
    # A label on an excluded cell would make the loss infinite.
    labels = data.draw(masks(shape)) & ~np.isneginf(np.float64(s))
    where = data.draw(st.one_of(st.none(), masks(shape)))
    options = {"where": where, "reduction": reduction}
    loss = jitted("span_rdrop_loss", reduction=reduction)
    got = loss(s, t, labels, alpha, where=where)
    assert got.dtype == jnp.float32
    both = [cross_entropy(z, labels, (-2, -1), where) for z in (s, t)]
    apart, reach = divergence(s, t, **options)
    alpha = float(alpha)
    want = (both[0][0] + both[1][0]).mean() + alpha / 2 * apart.mean()
    size = (both[0][1] + both[1][1]).mean() + alpha / 2 * reach.mean()
    assert_close(got, want, roundings=32, size=size)
    once = loss(s, s, labels, alpha, where=where)
    twice = 2 * both[0][0].mean()
    assert_close(once, twice, roundings=32, size=2 * both[0][1].mean())


@st.composite
def spans(draw, num_types=2, length=3):
    """Spans of a sentence, in any order, some of them twice."""
    kinds, places = st.integers(0, num_types - 1), st.integers(0, length - 1)
    ends = st.tuples(places, places).map(sorted)
    found = draw(st.lists(st.tuples(kinds, ends), max_size=6))
    return [(kind, *ends) for kind, ends in found]


@PROPERTIES.of(
    "span_labels",
    "span_indices",
    "decode_spans",
    cases=250,
    short=True,
    found=spans(),
    length=st.integers(3, 5),
    threshold=st.sampled_from((0.0, -1.5, 2.0, np.inf)),
    scores=filled((2, 3, 3), elements=numbers(special=(np.inf, -np.inf, 2.0, -1.5))),
)
def test_spans_come_back_from_labels_indices_and_scores(
    found, length, threshold, scores
):
    labels = gp_kl.span_labels(found, 2, length)
    assert labels.shape == (2, length, length)
    assert labels.sum() == len(set(found))
    assert gp_kl.decode_spans(labels) == sorted(set(found))
    rows = gp_kl.span_indices(found, 2, length, 6)
    back = [
        (kind, *divmod(int(index), length))
        for kind, row in enumerate(rows)
        for index in row
        if index >= 0
    ]
    assert back == sorted(set(found))
    brute = [
        (a, i, j)
        for a, i, j in itertools.product(range(2), range(3), range(3))
        if i <= j and float(scores[a, i, j]) > threshold
    ]
    assert gp_kl.decode_spans(scores, threshold) == brute


@PROPERTIES.of(
    "span_counts",
    "span_f1",
    "score_counts",
    "SpanCounts",
    cases=250,
    short=True,
    pairs=st.lists(st.tuples(spans(), spans()), max_size=3),
)
def test_counts_and_f1_are_those_of_sets(pairs):
    predicted, gold = ([set(pair[side]) for pair in pairs] for side in (0, 1))
    counts = gp_kl.span_counts(predicted, gold)
    found = {(n, *s) for n, row in enumerate(predicted) for s in row}
    true = {(n, *s) for n, row in enumerate(gold) for s in row}
    total = len(found) + len(true)
    want = 2 * len(found & true) / total if total else 1.0
    np.testing.assert_allclose(gp_kl.span_f1(predicted, gold), want, rtol=2.0**-50)
    assert set(counts) == {s[1] for s in found | true}
    for kind, row in counts.items():
        p, g = ({s for s in rows if s[1] == kind} for rows in (found, true))
        assert row == (len(p & g), len(p), len(g))
        assert row.precision == (len(p & g) / len(p) if p else 1.0)
        assert row.recall == (len(p & g) / len(g) if g else 1.0)
        assert row.f1 == 2 * len(p & g) / (len(p) + len(g))
    if pairs:
        arrays = [
            np.stack([gp_kl.span_labels(row, 2, 3) for row in rows])
            for rows in (predicted, gold)
        ]
        junk = np.where(np.tri(3, k=-1, dtype=bool), 1.0, -1.0)  # no span
        scores = np.where(arrays[0], 2.0, junk)
        got = gp_kl.score_counts(scores, arrays[1])
        for kind in range(2):
            row = gp_kl.SpanCounts(*(int(column[kind]) for column in got))
            assert row == counts.get(kind, (0, 0, 0))
            np.testing.assert_allclose(got.f1[kind], row.f1, rtol=1e-6)


@PROPERTIES.of(
    "bio_to_spans",
    "spans_to_bio",
    cases=250,
    short=True,
    tags=st.lists(st.integers(0, 6), max_size=7),
)
def test_tags_and_spans_are_two_names_of_one_thing(tags):
    got = gp_kl.bio_to_spans(np.array(tags, int))
    want = []
    for i, tag in enumerate(tags):  # one token after another
        kind = (tag - 1) // 2
        goes_on = tag and tag % 2 == 0 and i and tags[i - 1] in (tag, tag - 1)
        if goes_on:
            want[-1] = (kind, want[-1][1], i)
        elif tag:
            want.append((kind, i, i))
    assert got == want
    again = gp_kl.spans_to_bio(got, len(tags))
    assert again.dtype == np.int32
    assert gp_kl.bio_to_spans(again) == got
    covered = {i for _, start, end in got for i in range(start, end + 1)}
    assert [bool(tag) for tag in again] == [i in covered for i in range(len(tags))]


@PROPERTIES.of(
    "rotary",
    "span_mask",
    cases=200,
    x=properties.arrays(
        shapes=((1, 2), (3, 4), (2, 3, 2), (0, 2), (3, 0)), elements=numbers(1e3)
    ),
    start=st.integers(-50, 50),
)
def test_rotations_keep_norms_and_see_differences_of_positions(x, start):
    n, d = np.shape(x)[-2:]
    positions = np.arange(start, start + n)
    got = gp_kl.rotary(x, positions)
    assert got.dtype == x.dtype
    half = d // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / max(half, 1))
    turn, values = np.exp(1j * angles), wide(x)
    pairs = (values[..., :half] + 1j * values[..., half:]) * turn
    want = np.concatenate([pairs.real, pairs.imag], -1)
    # Angles of up to 50 are known to 50 roundings; a rotation adds three.
    size = np.abs(np.concatenate(2 * [pairs], -1))
    if got.dtype == jnp.float32:
        assert_close(got, want, roundings=64, size=size)
    else:  # one more, in the dtype of the rows
        error = 64 * 2.0**-24 + float(jnp.finfo(got.dtype).eps) / 2
        least = properties.smallest(got.dtype)
        with np.errstate(over="ignore"):
            shown = want.astype(got.dtype).astype(np.float64)
        is_finite = np.isfinite(shown)
        apart = np.abs(np.float64(got) - want)[is_finite]
        assert (apart <= error * size[is_finite] + least).all()
    mask = (
        np.asarray(np.float64(x)[..., 0] > 0) if d else np.ones(np.shape(x)[:-1], bool)
    )
    cells = np.asarray(gp_kl.span_mask(mask))
    for index in np.ndindex(cells.shape):
        *row, i, j = index
        assert cells[index] == (i <= j and mask[(*row, i)] and mask[(*row, j)])


@st.composite
def sentences(draw, width=3):
    """Hidden states and a mask; one batch shape a size."""
    shape = draw(st.sampled_from(((1, 1), (2, 3), (1, 4))))
    dtype = draw(st.sampled_from(("float32", "bfloat16")))
    hidden = draw(filled((*shape, width), dtype, numbers(special=(0.0, 100.0))))
    return hidden, draw(masks(shape))


def plain_scores(head, params, hidden):
    """Scores of all cells in float64, a product at a time."""
    p = {name: np.float64(leaf) for name, leaf in params.items()}
    h, d = wide(hidden), head.head_size
    if isinstance(head, gp_kl.GlobalPointer):
        rows = np.einsum("bnh,hmsd->bmsnd", h, p["kernel"]) + p["bias"][:, :, None]
    else:
        rows = np.einsum("bnh,hsd->bsnd", h, p["kernel"]) + p["bias"][:, None]
        ends = np.concatenate([rows[:, 0], rows[:, 1]], -1)
        ends = np.einsum("bnk,ksm->sbmn", ends, p["type_kernel"])
        first, last = ends + p["type_bias"][:, None, :, None]
        rows = rows[:, None]
    if head.rotary:
        angles = np.arange(h.shape[1])[:, None] * 10000.0 ** (
            -np.arange(d // 2) / (d // 2)
        )
        turned = (rows[..., : d // 2] + 1j * rows[..., d // 2 :]) * np.exp(1j * angles)
        rows = np.concatenate([turned.real, turned.imag], -1)
    scores = rows[:, :, 0] @ np.swapaxes(rows[:, :, 1], -1, -2) / np.sqrt(d)
    if isinstance(head, gp_kl.GlobalPointer):
        return scores
    return scores + first[..., :, None] + last[..., None, :]


@functools.cache
def heads(name, is_rotary):
    """A head, its first parameters from a key, and its scores, jitted."""
    head = getattr(gp_kl, name)(3, 2, head_size=4, rotary=is_rotary)
    return head, jax.jit(head.init), jax.jit(head.apply)


@PROPERTIES.of(
    "GlobalPointer",
    "EfficientGlobalPointer",
    cases=200,
    sentence=sentences(),
    name=st.sampled_from(("GlobalPointer", "EfficientGlobalPointer")),
    is_rotary=st.booleans(),
    seed=st.integers(0, 3),
)
def test_scores_of_a_head_are_those_of_float64_and_masked_ones_excluded(
    sentence, name, is_rotary, seed
):
    hidden, mask = sentence
    head, init, scores = heads(name, is_rotary)
    params = init(jax.random.key(seed))
    params = jax.tree.map(lambda p: p + 0.1, params)
    bad = np.where(mask[..., None], np.float32(hidden), np.nan)
    bad = bad.astype(np.asarray(hidden).dtype)
    got = scores(params, bad, mask)
    assert got.dtype == bad.dtype
    is_span = np.asarray(gp_kl.span_mask(mask))[:, None]
    is_span = np.broadcast_to(is_span, got.shape)
    got = np.float64(got)
    assert np.isneginf(got[~is_span]).all()
    want = plain_scores(head, params, hidden)
    assert want.shape == got.shape
    # States, queries and keys, their products: sums of 3, 4 and 8, one after another.
    eps = float(jnp.finfo(bad.dtype).eps)
    rows = np.abs(wide(hidden)).max(-1, initial=0.0) * 3 * 3 + 1
    size = rows[:, None, :, None] * rows[:, None, None, :] * 4 + 10 * rows.max()
    apart = np.abs(got - want) / (eps * size)
    assert (apart[is_span] <= 8).all()


CRF = gp_kl.LinearChainCRF(3, 1)


@jax.jit
def tagged(params, hidden, tags, mask):
    """Log likelihoods, and the best tags."""
    best = CRF.decode(params, hidden, mask)
    return CRF.log_likelihood(params, hidden, tags, mask), best


@PROPERTIES.of(
    "LinearChainCRF",
    cases=200,
    sentence=sentences(),
    seed=st.integers(0, 3),
    d=st.data(),
)
def test_likelihoods_and_best_tags_are_those_of_all_sequences(sentence, seed, d):
    hidden, mask = sentence
    params = CRF.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    for part in ("transitions", "start", "end", "bias"):
        params[part] = jnp.asarray(rng.normal(size=params[part].shape), jnp.float32)
    tags = np.array(d.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))
    tags = np.where(mask, tags[: mask.size].reshape(mask.shape), 9)
    bad = np.where(mask[..., None], np.float32(hidden), np.nan)
    bad = bad.astype(np.asarray(hidden).dtype)
    got, best = (np.asarray(x) for x in tagged(params, bad, tags, mask))
    assert got.dtype == jnp.float32
    p = {name: np.float64(leaf) for name, leaf in params.items()}
    kernel = np.float64(jnp.asarray(params["kernel"], bad.dtype))
    emissions = wide(hidden) @ kernel + p["bias"]
    # The scores of tags are rounded in the dtype of the states.
    reach = np.abs(wide(hidden)) @ np.abs(kernel) + 3
    eps = 2 * float(jnp.finfo(bad.dtype).eps) + 40 * 2.0**-24

    def score(e, y):
        steps = [e[i, tag] for i, tag in enumerate(y)]
        moves = [p["transitions"][a, b] for a, b in itertools.pairwise(y)]
        return sum(steps) + sum(moves) + (p["start"][y[0]] + p["end"][y[-1]])

    for row, keep in enumerate(mask):
        e, length = emissions[row][keep], int(keep.sum())
        if not length:
            assert got[row] == 0
            assert not best[row].any()
            continue
        every = [score(e, y) for y in itertools.product(range(3), repeat=length)]
        want = score(e, tags[row][keep]) - special.logsumexp(every)
        allowed = eps * 2 * reach[row].max(-1)[keep].sum()
        assert abs(float(got[row]) - want) <= allowed
        assert max(every) - score(e, best[row][keep]) <= allowed
        assert not best[row][~keep].any()


@PROPERTIES.of(
    "multilabel_cross_entropy",
    "span_divergence",
    "sparse_multilabel_cross_entropy",
    cases=60,
    pair=score_pairs(shapes=((2, 3),), dtype="float64"),
    t=masks((2, 3)),
)
def test_float64_is_computed_in_float64(pair, t):
    s = np.where(np.isneginf(np.float64(pair[0])), -90.0, pair[0])
    with jax.enable_x64(True):
        loss = gp_kl.multilabel_cross_entropy(s, t)
        apart = gp_kl.span_divergence(*pair)
        sparse = gp_kl.sparse_multilabel_cross_entropy(s, np.where(t, np.arange(3), -1))
    assert loss.dtype == apart.dtype == sparse.dtype == np.float64
    want, size = cross_entropy(s, t, (-1,))
    assert_close(loss, want, roundings=48, size=size)
    assert_close(sparse, want, roundings=48, size=size)
    want, size = divergence(*pair)
    assert_close(apart, want, roundings=48, size=size)


@PROPERTIES.of(
    "multilabel_cross_entropy",
    "sparse_multilabel_cross_entropy",
    "span_divergence",
    "span_rdrop_loss",
    "span_labels",
    "spans_to_bio",
    "decode_spans",
    "GlobalPointer",
    "LinearChainCRF",
    cases=100,
    label=st.one_of(st.floats(1.5, 1e6), st.floats(-1e6, -0.5)),
    number=st.one_of(st.floats(max_value=-1e-9), st.sampled_from((np.inf, np.nan))),
    count=st.integers(max_value=0),
    span=st.tuples(st.integers(-3, 3), st.integers(-3, 4), st.integers(-3, 4)).filter(
        lambda s: not (0 <= s[0] < 2 and 0 <= s[1] <= s[2] < 3)
    ),
)
def test_what_is_out_of_range_is_refused_by_name_and_value(label, number, count, span):
    s = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"^labels must be in \[0, 1\], got"):
        gp_kl.multilabel_cross_entropy(s, np.full(s.shape, label))
    with pytest.raises(ValueError, match=r"number of classes 2, got"):
        gp_kl.sparse_multilabel_cross_entropy(
            np.zeros(2, np.float32), np.array([2 + abs(count)])
        )
    for name, call in {
        "temperature": lambda: gp_kl.span_divergence(s, s, temperature=number),
        "alpha": lambda: gp_kl.span_rdrop_loss(s, s, s > 0, number),
        "hidden_size": lambda: gp_kl.GlobalPointer(count, 1),
        "num_types": lambda: gp_kl.LinearChainCRF(2, count),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
            call()
        value = count if name in ("hidden_size", "num_types") else number
        assert str(caught.value).endswith(f"got {value!r}.")
    for call in (
        lambda: gp_kl.span_labels([span], 2, 3),
        lambda: gp_kl.span_indices([span], 2, 3, 1),
        lambda: gp_kl.spans_to_bio([(min(span[0], 0) or -1, *span[1:])], 3),
    ):
        with pytest.raises(ValueError, match=r"^span .* is not within"):
            call()
    with pytest.raises(ValueError, match=r"^threshold must be a number, got nan"):
        gp_kl.decode_spans(s[0], np.nan)


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(gp_kl.__all__)
