"""CoSENT on generated rows: all pairs in float64, SciPy, searches by brute force."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import assert_close, masks, numbers, wide
from scipy import special, stats

import cosent

PROPERTIES = properties.Properties("cosent")
SIMILARITIES = numbers(1.0, special=(0.0, 1e-30, 1e4, -1e4, 1e-40, 0.5))
SCALES = st.sampled_from((20.0, 1, 1e-3, 1e4, np.float32(0.05)))
LABELS = {
    "bool": st.booleans(),
    "int": st.integers(-2, 2),
    "float": st.sampled_from((0.0, 0.3, 0.1 + 0.2, -1.5, np.inf, -np.inf)),
}


@st.composite
def ranked(draw, kinds=tuple(LABELS), sizes=(1, 5, 182)):
    """Similarities, labels and a mask or none; long ones from a seed."""
    size = draw(st.sampled_from(sizes))
    kind = draw(st.sampled_from(kinds))
    dtype = draw(st.sampled_from(tuple(properties.DTYPES)))
    if size < 10:
        s = draw(properties.filled((size,), dtype, SIMILARITIES))
        y = draw(st.lists(LABELS[kind], min_size=size, max_size=size))
        where = draw(st.one_of(st.none(), masks((size,))))
    else:  # long enough to be sorted
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        s = rng.normal(size=size) * 10.0 ** rng.integers(-6, 3)
        s = s.astype(properties.DTYPES[dtype])
        y = rng.integers(0, draw(st.integers(2, 200)), size)
        y = y > y.mean() if kind == "bool" else y * (0.1 if kind == "float" else 1)
        where = draw(st.sampled_from((None, rng.uniform(size=size) < 0.5)))
    return s, np.asarray(y), where


def all_pairs(s, y, scale, where=None):
    """The loss in float64, its gradient, and how far rounding can reach."""
    s, scale = wide(s), np.float64(scale)
    keep = np.ones(len(s), bool) if where is None else where
    with np.errstate(over="ignore"):
        exponents = scale * (s[None, :] - s[:, None])
    is_pair = (y[:, None] > y[None, :]) & keep[:, None] & keep[None, :]
    if not is_pair.any():
        return 0.0, np.zeros(len(s)), 0.0
    exponents = np.where(is_pair, exponents, -np.inf)
    largest = max(exponents.max(), 0.0)
    total = np.sum(np.exp(exponents - largest))
    loss = largest + np.log1p(total + np.expm1(-largest))
    weights = np.exp(exponents - loss)
    gradient = scale * (weights.sum(0) - weights.sum(1))
    spread = scale * np.ptp(s[keep])
    return loss, gradient, loss + weights.sum() * (1 + spread)


@functools.cache
def jitted(name, **options):
    return jax.jit(functools.partial(getattr(cosent, name), **options))


@PROPERTIES.of("cosent_loss", cases=350, rows=ranked(), scale=SCALES)
def test_loss_is_the_sum_over_pairs_in_float64(rows, scale):
    s, y, where = rows
    got = cosent.cosent_loss(s, y, scale=scale, where=where)
    assert got.dtype == jnp.float32
    want, _, size = all_pairs(s, y, scale, where)
    # Ten roundings in an exponent and in the sums, which are by groups of 8.
    assert_close(got, np.float64(want), roundings=20, size=size)


@PROPERTIES.of("cosent_loss", "binary_cosent_loss", cases=200, rows=ranked(("bool",)))
def test_two_labels_are_the_factored_sum(rows):
    s, y, where = rows
    got = cosent.binary_cosent_loss(s, y, where=where)
    want, _, size = all_pairs(s, y, 20.0, where)
    assert_close(got, np.float64(want), roundings=20, size=size)
    by_order = cosent.cosent_loss(s, y.astype(int), where=where)
    assert_close(by_order, np.float64(got), roundings=40, size=size)
    properties.same(cosent.cosent_loss(s, y, where=where), got)


@PROPERTIES.of("cosent_loss", "binary_cosent_loss", cases=150, rows=ranked())
def test_a_mask_leaves_rows_out_whatever_they_hold(rows):
    s, y, where = rows
    where = np.ones(len(s), bool) if where is None else where
    name = "binary_cosent_loss" if y.dtype == bool else "cosent_loss"
    loss = getattr(cosent, name)
    bad = np.where(where, np.float32(s), np.nan)
    bad_labels = y if y.dtype != float else np.where(where, y, np.nan)
    value, gradient = jax.value_and_grad(loss)(bad, bad_labels, where=where)
    want, slope, size = all_pairs(s, y, 20.0, where)
    assert_close(value, np.float64(want), roundings=20, size=size)
    assert not np.asarray(gradient)[~where].any()
    # A weight has the errors of its exponent; it is at most 1.
    reach = 20.0 * (1 + size) if want else 0.0
    assert_close(gradient, slope, roundings=40, size=reach)
    if where.any() and len(s) < 10:
        kept = loss(np.float32(s)[where], y[where])
        assert_close(kept, np.float64(value), roundings=40, size=size)
        spoilt = np.where(np.arange(len(s)) == where.argmax(), np.nan, bad)
        assert np.isnan(loss(spoilt, bad_labels, where=where))


@PROPERTIES.of("cosent_loss", cases=200, rows=ranked(("int",)), seed=st.integers(0, 9))
def test_only_the_order_of_labels_and_the_differences_count(rows, seed):
    s, y, _ = rows
    loss = jitted("cosent_loss")
    got = np.float64(loss(s, y))
    _, _, size = all_pairs(s, y, 20.0)
    order = np.random.default_rng(seed).permutation(len(s))
    changes = {
        "order of rows": (np.asarray(s)[order], y[order]),
        "labels": (s, y * 7 - 3),
        "both signs": (-np.asarray(s), -y),
    }
    for change in changes.values():
        assert_close(loss(*change), got, roundings=40, size=size)
    halved = np.float32(s) / 2
    doubled = cosent.cosent_loss(halved, y, scale=40.0)
    if not (np.abs(halved) < 1e-37).any():
        assert_close(doubled, got, roundings=40, size=size)


@st.composite
def vectors(draw, shapes=((0, 3), (3,), (1, 1), (4, 3), (2, 2, 5), (2, 0))):
    """Two arrays of one shape, zero vectors and huge entries among them."""
    shape = draw(st.sampled_from(shapes))
    dtype = draw(st.sampled_from(tuple(properties.DTYPES)))
    special = (0.0, 1e-30, 1e4, -1e4, 3e38, 1e-40)
    elements = numbers(special=[x for x in special if dtype != "float16" or x < 1e5])
    u, v = (np.array(draw(properties.filled(shape, dtype, elements))) for _ in "uv")
    if draw(st.booleans()) and u.ndim and len(u):
        u[0] = 0
    layouts = st.sampled_from(properties.LAYOUTS)
    return properties.lay_out(u, draw(layouts)), properties.lay_out(v, draw(layouts))


def units(x):
    """Unit vectors in float64, 0 for a zero vector."""
    x = wide(x)
    x = x / np.where((top := np.abs(x).max(-1, keepdims=True, initial=0)) > 0, top, 1)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)


@PROPERTIES.of("unit_vectors", "pairwise_cosine", cases=250, pair=vectors())
def test_cosines_are_those_of_float64_at_any_length(pair):
    u, v = pair
    a, b = units(u), units(v)
    got = cosent.unit_vectors(u)
    assert got.dtype == jnp.float32
    # A quotient, squares, their sum, a root and a quotient.
    assert_close(got, a, roundings=2 * np.shape(u)[-1] + 6)
    cosine = cosent.pairwise_cosine(u, v)
    terms = np.sum(np.abs(a * b), -1)
    roundings = 6 * np.shape(u)[-1] + 14
    assert_close(cosine, np.sum(a * b, -1), roundings=roundings, size=terms)
    properties.same(cosent.pairwise_cosine(v, u), cosine)
    halved = np.asarray(u) * np.asarray(u).dtype.type(0.5)
    exact = np.float64(halved) == np.float64(u) / 2
    if exact.all() and not (np.abs(wide(u)[wide(u) != 0]) < 1e-36).any():
        properties.same(cosent.pairwise_cosine(halved, v), cosine)


@PROPERTIES.of(
    "cosine_matrix",
    "unit_vectors",
    "pairwise_cosine",
    cases=150,
    pair=vectors(((0, 3), (1, 1), (4, 3), (2, 0))),
    rows=st.integers(0, 4),
)
def test_a_table_holds_the_cosines_of_all_pairs(pair, rows):
    u, v = pair[0], np.asarray(pair[1])[:rows]
    got = cosent.cosine_matrix(u, v)
    a, b = units(u), units(v)
    terms = np.abs(a) @ np.abs(b).T
    roundings = 6 * np.shape(u)[-1] + 14
    assert_close(got, a @ b.T, roundings=roundings, size=terms)
    gradient = jax.grad(lambda u: jnp.sum(cosent.cosine_matrix(u, v)))(jnp.asarray(u))
    is_zero = ~wide(u).any(-1)
    assert not np.float64(gradient)[is_zero].any()
    large = np.abs(wide(u)).max(-1, initial=0) > 1e-3
    assert np.isfinite(np.float64(gradient))[large].all()


@PROPERTIES.of("pair_features", "sentence_bert_logits", cases=150, pair=vectors())
def test_features_are_both_vectors_and_their_distance(pair):
    u, v = (np.clip(np.float32(x), -1e30, 1e30) for x in pair)
    u, v = (np.where(np.abs(x) < 1e-37, 0, x) for x in (u, v))
    got = cosent.pair_features(u, v)
    want = np.concatenate([u, v, np.abs(u - v)], -1)
    np.testing.assert_array_equal(got, want)
    slope = jax.grad(lambda u: jnp.sum(cosent.pair_features(u, v)))(u)
    np.testing.assert_array_equal(slope, 1.0 + np.sign(u - v))
    weights = np.linspace(-1, 1, 2 * want.shape[-1], dtype=np.float32).reshape(-1, 2)
    params = {"w": weights, "b": np.float32([3.0, -1.0])}
    logits = cosent.sentence_bert_logits(params, u, v)
    exact = np.float64(want) @ np.float64(weights) + params["b"]
    size = np.float64(np.abs(want)) @ np.float64(np.abs(weights)) + 3
    assert_close(logits, exact, roundings=2 * want.shape[-1] + 4, size=size)


@PROPERTIES.of(
    "init_sentence_bert",
    cases=40,
    short=True,
    seed=st.integers(0, 2**31),
    dim=st.integers(1, 3),
    num_classes=st.integers(1, 4),
)
def test_first_parameters_are_uniform_within_glorots_bound(seed, dim, num_classes):
    params = cosent.init_sentence_bert(jax.random.key(seed), dim, num_classes)
    assert params["w"].shape == (3 * dim, num_classes)
    np.testing.assert_array_equal(params["b"], np.zeros(num_classes))
    bound = np.sqrt(6 / (3 * dim + num_classes))
    assert np.abs(params["w"]).max() <= bound * (1 + 2.0**-22)
    other = cosent.init_sentence_bert(jax.random.key(seed + 1), dim, num_classes)
    assert (params["w"] != other["w"]).any()


@PROPERTIES.of(
    "sentence_bert_loss",
    "cosine_mse_loss",
    "in_batch_contrastive_loss",
    cases=250,
    pair=vectors(((1, 1), (4, 3))),
    data=st.data(),
    scale=st.sampled_from((20.0, 1, 0.05)),
)
def test_losses_of_vectors_are_those_of_float64(pair, data, scale):
    u, v = (np.clip(np.float32(x), -1e4, 1e4) for x in pair)
    size = len(u)
    where = data.draw(st.one_of(st.none(), masks((size,))))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=4, max_size=4)))
    labels = labels[:size]
    keep = np.ones(size, bool) if where is None else where
    weights = np.linspace(-1, 1, 6 * u.shape[1], dtype=np.float32).reshape(-1, 2)
    params = {"w": weights, "b": np.float32([0.5, -0.5])}
    cosines = units(u) @ units(v).T
    features = np.concatenate([wide(u), wide(v), np.abs(wide(u) - wide(v))], -1)
    logits = features @ np.float64(weights) + params["b"]
    reach = np.abs(features) @ np.abs(np.float64(weights)) + 2
    table = np.where(keep[None, :] | np.eye(size, dtype=bool), scale * cosines, -np.inf)
    targets = np.float32(labels - 0.5)
    own = cosines.diagonal()
    wants = {
        "sentence_bert_loss": (
            -special.log_softmax(logits, -1)[np.arange(size), labels],
            reach.sum(-1),
        ),
        "cosine_mse_loss": ((own - targets) ** 2, np.full(size, 3.0)),
        "in_batch_contrastive_loss": (
            -special.log_softmax(table, -1).diagonal(),
            np.full(size, 2 * scale + 2),
        ),
    }
    bad_u, bad_v = (np.where(keep[:, None], x, np.nan) for x in (u, v))
    calls = {
        "sentence_bert_loss": ((params, bad_u, bad_v, np.where(keep, labels, 9)), {}),
        "cosine_mse_loss": ((bad_u, bad_v, np.where(keep, targets, 9)), {}),
        "in_batch_contrastive_loss": ((bad_u, bad_v), {"scale": scale}),
    }
    for name, (values, sizes) in wants.items():
        args, options = calls[name]
        got = getattr(cosent, name)(*args, where=where, **options)
        assert got.dtype == jnp.float32
        want = values[keep].mean() if keep.any() else 0.0
        # A sum over 3 dim features or dim products, and then a few.
        size = sizes[keep].max(initial=0.0)
        assert_close(got, np.float64(want), roundings=40, size=size)


@st.composite
def decisions(draw):
    """Scores with many ties, infinite ones among them, and binary labels."""
    size = draw(st.integers(1, 8))
    elements = numbers(3.0, special=(np.inf, -np.inf, 1e-30, 3e38, -3e38, 0.5))
    dtype = draw(st.sampled_from(("float32", "bfloat16", "float64", "float16")))
    scores = draw(properties.filled((size,), dtype, elements))
    labels = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    return scores, labels if draw(st.booleans()) else labels.astype(np.int8)


def quality(scores, labels, threshold, metric):
    """The metric of `score > threshold`, counted."""
    positive, labels = np.float64(scores) > float(threshold), labels != 0
    if metric == "accuracy":
        return np.mean(positive == labels)
    both = np.sum(positive & labels)
    return 2 * both / max(1, positive.sum() + labels.sum())


@PROPERTIES.of(
    "best_threshold",
    "bisect_threshold",
    cases=300,
    rows=decisions(),
    metric=st.sampled_from(("accuracy", "f1")),
)
def test_no_threshold_is_better_than_the_best_and_the_values_are_true(rows, metric):
    scores, labels = rows
    threshold, value = cosent.best_threshold(scores, labels, metric)
    exact = np.unique(np.float64(scores))
    # One threshold below all scores, and one at each of them, makes every decision.
    tried = [-np.inf, *exact]
    best = max(quality(scores, labels, t, metric) for t in tried)
    is_jax = isinstance(scores, jax.Array)
    # JAX divides the counts in float32; NumPy in float64.
    rtol = 2.0**-22 if is_jax else 2.0**-50
    np.testing.assert_allclose(value, best, rtol=rtol, atol=0)
    np.testing.assert_allclose(
        quality(scores, labels, threshold, metric), best, rtol=2.0**-50, atol=0
    )
    assert np.asarray(threshold).dtype == np.asarray(scores).dtype
    # Of equally good ones the highest: none above does as well.
    above = [t for t in exact if t > float(threshold)]
    beaten = [quality(scores, labels, t, metric) for t in above]
    is_last = [t for t, q in zip(above, beaten, strict=True) if q >= best - 1e-12]
    assert not is_last or not np.any(np.float64(scores) > float(threshold))
    found, reached = cosent.bisect_threshold(scores, labels, metric, num_iterations=5)
    assert -1 <= float(found) <= 1
    assert float(reached) <= best * (1 + rtol)
    np.testing.assert_allclose(
        reached, quality(scores, labels, found, metric), rtol=rtol, atol=0
    )


@st.composite
def numbers_to_rank(draw, size):
    """Numbers of several dtypes, equal ones and nan among them."""
    kind = draw(st.sampled_from(("bool", "int", "float32", "float64", "bfloat16")))
    if kind == "bool":
        values = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    elif kind == "int":
        near = st.sampled_from((2**60, 2**60 + 1, -5, 0, 3))
        values = np.array(draw(st.lists(near, min_size=size, max_size=size)))
    else:
        near = (1.0, 1.0 + 2.0**-40, np.inf, -np.inf, np.nan)
        elements = numbers(special=near if draw(st.booleans()) else near[:2])
        return draw(properties.filled((size,), kind, elements))
    return properties.lay_out(values, draw(st.sampled_from(properties.LAYOUTS[:5])))


@PROPERTIES.of(
    "average_ranks", "spearman", cases=300, size=st.sampled_from((1, 3, 8)), d=st.data()
)
def test_ranks_and_their_correlation_are_those_of_scipy(size, d):
    x, y = (d.draw(numbers_to_rank(size)) for _ in range(2))
    wants = [stats.rankdata(np.asarray(z).astype(np.float64)) for z in (x, y)]
    for z, want in zip((x, y), wants, strict=True):
        z = np.asarray(z)
        if z.dtype == np.int64:
            want = stats.rankdata(z)
        if z.dtype.kind != "i" and np.isnan(z.astype(np.float64)).any():
            want = np.full(size, np.nan)
        np.testing.assert_array_equal(cosent.average_ranks(z), want)
    ranks = [np.float64(cosent.average_ranks(z)) for z in (x, y)]
    got = float(cosent.spearman(x, y))
    if any(np.isnan(r).any() or np.ptp(r) == 0 for r in ranks):
        assert np.isnan(got)
    else:
        want = np.corrcoef(*ranks)[0, 1]
        assert_close(np.float32(got), want, roundings=24, size=1.0)
        assert -1 <= got <= 1
        np.testing.assert_allclose(cosent.spearman(y, x), got, atol=1e-6)


@PROPERTIES.of(
    "best_class_weights",
    cases=150,
    short=True,
    rows=st.integers(1, 6),
    classes=st.integers(1, 3),
    metric=st.sampled_from(("accuracy", "macro_f1")),
    d=st.data(),
)
def test_class_weights_reach_the_value_they_say(rows, classes, metric, d):
    elements = st.one_of(st.integers(0, 3).map(float), st.floats(0, 1), st.just(1e-300))
    p = d.draw(properties.filled((rows, classes), "float64", elements))
    y = np.array(d.draw(st.lists(st.integers(0, 8), min_size=rows, max_size=rows)))
    y = y % classes

    def reached(weights):
        predicted = np.argmax(weights * np.asarray(p), 1)
        if metric == "accuracy":
            return np.mean(predicted == y)
        counts = [
            2
            * np.sum((predicted == c) & (y == c))
            / max(1, np.sum(predicted == c) + np.sum(y == c))
            for c in range(classes)
        ]
        return np.mean(counts)

    weights, value = cosent.best_class_weights(p, y, metric, num_starts=3)
    assert weights.shape == (classes,)
    assert weights.max() == 1
    assert (weights > 0).all()
    np.testing.assert_allclose(value, reached(weights), rtol=1e-12)
    assert value >= reached(np.ones(classes)) - 1e-12
    if classes == 2 and metric == "accuracy":  # one number decides: try all of them
        with np.errstate(divide="ignore", invalid="ignore"):
            cuts = np.asarray(p)[:, 0] / np.asarray(p)[:, 1]
        cuts = cuts[np.isfinite(cuts) & (cuts > 1e-200) & (cuts < 1e200)]
        for cut in cuts:
            for weight in (cut * (1 - 1e-9), cut * (1 + 1e-9)):
                assert value >= reached(np.array([1.0, weight])) - 1e-12


@PROPERTIES.of(
    "top_k",
    "encode_once",
    cases=150,
    u=properties.arrays(
        shapes=((1, 2), (3, 2)),
        elements=numbers(special=(0.0, 1e4)),
        dtypes=("float32",),
    ),
    v=properties.arrays(
        shapes=((1, 2), (7, 2)), elements=st.integers(-2, 2).map(float)
    ),
    k=st.sampled_from((1, 3, 7)),
    size=st.sampled_from((1, 3, 8)),
)
def test_search_in_blocks_finds_what_the_whole_table_says(u, v, k, size):
    k = min(k, len(v))
    values, indices = cosent.top_k(u, v, k, block_size=size)
    table = np.asarray(cosent.cosine_matrix(u, v))
    exact = units(u) @ units(v).T
    assert_close(jnp.asarray(table), exact, roundings=26, size=1.0)
    assert values.shape == indices.shape == (len(u), k)
    np.testing.assert_allclose(
        np.take_along_axis(exact, np.asarray(indices), 1), values, atol=26 * 2.0**-24
    )
    ordered = -np.sort(-exact, axis=1)[:, :k]
    np.testing.assert_allclose(values, ordered, atol=26 * 2.0**-24)
    for row in np.asarray(indices):
        assert len(set(row)) == k
    encoded = cosent.encode_once(
        lambda x: x["v"] * 2, {"v": np.asarray(v)}, batch_size=size
    )
    assert_close(encoded, units(v), roundings=12)
    equal = np.asarray(values)[:, 1:] == np.asarray(values)[:, :-1]
    rising = np.asarray(indices)[:, 1:] > np.asarray(indices)[:, :-1]
    assert rising[equal].all()


@PROPERTIES.of(
    "cosent_loss",
    "binary_cosent_loss",
    "pairwise_cosine",
    cases=80,
    s=properties.arrays(((5,), (1,)), ("float64",), SIMILARITIES),
    y=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_float64_is_computed_in_float64(s, y):
    y = np.array(y)[: len(s)]
    with jax.enable_x64(True):
        got = cosent.cosent_loss(s, y)
        binary = cosent.binary_cosent_loss(s, y > 0)
        cosine = cosent.pairwise_cosine(s, y + 0.5)
    assert got.dtype == binary.dtype == cosine.dtype == np.float64
    for value, labels in ((got, y), (binary, y > 0)):
        want, _, size = all_pairs(s, labels, 20.0)
        assert_close(value, np.float64(want), roundings=40, size=size)
    want = np.sum(units(s) * units(y + 0.5))
    assert_close(cosine, want, roundings=80, size=1.0)


@PROPERTIES.of(
    "cosent_loss",
    "binary_cosent_loss",
    "in_batch_contrastive_loss",
    "best_threshold",
    "best_class_weights",
    "top_k",
    "cosine_mse_loss",
    cases=100,
    short=True,
    scale=st.one_of(st.floats(max_value=0.0), st.sampled_from((np.inf, np.nan))),
    number=st.one_of(st.floats(1.5, 1e6), st.floats(-1e6, -1.5)),
    count=st.one_of(st.integers(max_value=0), st.integers(4, 99)),
)
def test_what_is_out_of_range_is_refused_by_name_and_value(scale, number, count):
    s, y, u = np.zeros(3, np.float32), np.arange(3), np.eye(3, dtype=np.float32)
    for call in (
        lambda: cosent.cosent_loss(s, y, scale=scale),
        lambda: cosent.binary_cosent_loss(s, y > 0, scale=scale),
        lambda: cosent.in_batch_contrastive_loss(u, u, scale=scale),
    ):
        with pytest.raises(ValueError, match=r"^scale must be ") as caught:
            call()
        assert str(caught.value).endswith(f"got {scale!r}.")
    with pytest.raises(ValueError, match=r"^targets must be in \[-1, 1\], got"):
        cosent.cosine_mse_loss(u, u, np.array([0.0, number, 0.0]))
    with pytest.raises(ValueError, match=r"^labels must be boolean or 0 and 1, got"):
        cosent.best_threshold(s, np.array([0.0, number, 1.0]))
    with pytest.raises(ValueError, match=rf"^k must be .* got {count}\.$"):
        cosent.top_k(u, u, count)
    with pytest.raises(ValueError, match=r"^probabilities must be finite and at least"):
        cosent.best_class_weights(np.where(u == 1, -abs(number), 1.0), y)
    for shape in ((), (0,), (2,), (3, 1)):
        with pytest.raises(ValueError, match=r"similarities and labels must have one"):
            cosent.cosent_loss(s, np.zeros(shape))


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(cosent.__all__)
