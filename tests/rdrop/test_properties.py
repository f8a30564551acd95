"""R-Drop on generated logits: SciPy in float64, the table of weightings, symmetries."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import assert_close, masks, numbers, wide
from scipy import special

import rdrop

PROPERTIES = properties.Properties("rdrop")
SHAPES = ((1,), (0, 3), (4, 3), (2, 2, 3))
LOGITS = numbers(special=(0.0, 1e-30, 1e4, -1e4, 300.0, -300.0, 1e-40))
# What the losses are, from the authors' code and the essay: entropies c and d of the
# passes, the divergence s, and alpha.
WEIGHTINGS = {
    "paper": lambda c, d, s, alpha: np.mean(c + d + alpha / 2 * s),
    "readme": lambda c, d, s, alpha: (c.mean() + d.mean() + alpha * s.sum()) / 2,
    "hf_bert": lambda c, d, s, alpha: c.mean() + d.mean() + alpha / 2 * s.sum(),
    "vit": lambda c, d, s, alpha: c.mean() + d.mean() + alpha * s.sum(),
    "fairseq": lambda c, d, s, alpha: np.sum(c + d + alpha / 2 * s),
    "bojone": lambda c, d, s, alpha: np.mean((c + d) / 2 + alpha / 4 * s),
}
NAMES = st.sampled_from(sorted(WEIGHTINGS))
ALPHAS = st.sampled_from((0.0, 1.0, 0.3, 4.0, 1e-6, 500.0)).map(np.float32)


@st.composite
def logit_pairs(draw, shapes=SHAPES, dtypes=tuple(properties.DTYPES), elements=LOGITS):
    """Logits of two passes: far apart, close to each other, or equal."""
    shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes))
    a = draw(properties.filled(shape, dtype, elements))
    kind = draw(st.sampled_from(("far", "close", "equal")))
    if kind == "equal":
        return a, properties.lay_out(np.asarray(a), "fortran")
    b = np.asarray(draw(properties.filled(shape, dtype, elements)))
    if kind == "close":
        b = (np.float64(a) + 1e-3 * np.float64(b)).astype(b.dtype)
    return a, properties.lay_out(b, draw(st.sampled_from(properties.LAYOUTS)))


def divergence(a, b, keep):
    """Both divergences of one example in float64, and how far rounding can reach."""
    keep = keep & ~(np.isneginf(a) & np.isneginf(b))
    if not keep.any():
        return 0.0, 0.0
    a, b = a[keep], b[keep]
    if np.isneginf(a).any() or np.isneginf(b).any():
        return np.inf, 0.0
    log_p, log_q = special.log_softmax(a), special.log_softmax(b)
    p, q, t = np.exp(log_p), np.exp(log_q), log_p - log_q
    total = np.sum((p - q) * t)
    # The differences of the logits are rounded, which moves t by up to this.
    constant = np.abs(a - b).max()
    size = total + np.sum((p + q) * np.abs(t)) * constant + 1e-7 * constant**2
    if np.abs(t).max() > 0.9:  # t from the two logarithms, with the errors of both
        size += np.sum((p + q) * (np.abs(log_p) + np.abs(log_q) + 1))
    size += np.sum(np.abs(t) * (p * np.abs(log_p) + q * np.abs(log_q)))
    return total, size


def divergences(a, b, where=None):
    """Of every example, with the classes on the last axis."""
    a, b = wide(a), wide(b)
    where = np.broadcast_to(True if where is None else where, a.shape)
    results = np.zeros((2, *a.shape[:-1]))
    for index in np.ndindex(a.shape[:-1]):
        results[:, *index] = divergence(a[index], b[index], where[index])
    return results


@functools.cache
def jitted(name, **options):
    return jax.jit(functools.partial(getattr(rdrop, name), **options))


@jax.jit
def kl_gradients(a, b):
    """Of the sum of the divergences, in both arguments."""
    return jax.grad(lambda a, b: jnp.sum(rdrop.symmetric_kl(a, b)), (0, 1))(a, b)


@PROPERTIES.of("symmetric_kl", cases=450, pair=logit_pairs(), data=st.data())
def test_divergence_is_that_of_float64(pair, data):
    a, b = pair
    where = data.draw(st.one_of(st.none(), masks(np.shape(a))))
    got = jitted("symmetric_kl")(a, b, where=where)
    assert got.dtype == jnp.float32
    want, size = divergences(a, b, where)
    # A dozen roundings a term, and those of the sum.
    assert_close(got, want, roundings=24, size=size)
    assert (np.asarray(got) >= 0).all()
    if where is not None and not where.any() and np.size(a):
        known = rdrop.symmetric_kl(a, b, where=where)
        np.testing.assert_array_equal(known, np.zeros_like(want))


@PROPERTIES.of(
    "symmetric_kl",
    cases=200,
    pair=logit_pairs(
        shapes=((3,), (4, 3)),
        elements=st.one_of(numbers(special=()), st.just(-np.inf)),
    ),
)
def test_excluded_classes_and_one_sided_ones(pair):
    a, b = pair
    got = jitted("symmetric_kl")(a, b)
    want, size = divergences(a, b)
    assert_close(got, want, roundings=24, size=size)
    for gradient in kl_gradients(a, b):
        assert np.isfinite(np.float64(gradient)).all()
        assert not np.float64(gradient)[np.isinf(want)].any()
        both = np.isneginf(np.float64(a)) & np.isneginf(np.float64(b))
        assert not np.float64(gradient)[both].any()


@PROPERTIES.of(
    "symmetric_kl",
    cases=200,
    pair=logit_pairs(shapes=((4, 3), (1,)), dtypes=("float32", "bfloat16")),
    order=st.permutations(range(3)),
    shift=st.sampled_from((0.0, 2.0, -16.0)),
)
def test_order_of_arguments_classes_and_axes_and_a_constant(pair, order, shift):
    a, b = pair
    kl = jitted("symmetric_kl")
    got, (_, size) = kl(a, b), divergences(a, b)
    assert_close(kl(b, a), np.float64(got), roundings=48, size=size)
    order = [i for i in order if i < np.shape(a)[-1]]
    permuted = kl(np.asarray(a)[..., order], np.asarray(b)[..., order])
    assert_close(permuted, np.float64(got), roundings=48, size=size)
    if np.ndim(a) == 2:
        along_0 = jitted("symmetric_kl", axis=0)(np.asarray(a).T, np.asarray(b).T)
        assert_close(along_0, np.float64(got), roundings=48, size=size)
    np.testing.assert_array_equal(kl(a, a), 0.0)
    moved = (np.float64(a) + shift).astype(np.asarray(a).dtype)
    if np.array_equal(np.float64(moved), np.float64(a) + shift):
        _, moved_size = divergences(moved, b)
        size = np.maximum(size, moved_size)
        assert_close(kl(moved, b), np.float64(got), roundings=48, size=size)


def divergence_slope(x, y):
    """Gradient of the divergence in x, and how far rounding can reach."""
    x, y = wide(x), wide(y)
    log_p, log_q = (special.log_softmax(z, -1) for z in (x, y))
    p, q, t = np.exp(log_p), np.exp(log_q), log_p - log_q
    kl = np.sum(p * t, -1, keepdims=True)
    want = p * (t - kl) + p - q
    # t to the last place of the logits, p to a few of its own.
    reach = np.abs(x - y).max(-1, keepdims=True) + np.abs(log_p) + np.abs(log_q)
    mean = np.sum(p * reach, -1, keepdims=True)
    size = p * (1 + np.abs(t) + np.abs(kl)) * (1 + np.abs(log_p))
    return want, size + (p + q) * (1 + reach + mean)


@PROPERTIES.of(
    "symmetric_kl",
    cases=150,
    short=True,
    pair=logit_pairs(shapes=((4, 3), (1,)), dtypes=("float32",)),
)
def test_gradient_is_the_closed_form(pair):
    a, b = (np.asarray(z) for z in pair)
    for gradient, (x, y) in zip(kl_gradients(a, b), ((a, b), (b, a)), strict=True):
        want, size = divergence_slope(x, y)
        assert_close(gradient, want, roundings=24, size=size)


@st.composite
def batches(draw, dtypes=("float32", "bfloat16")):
    """Logits of two passes, labels of either kind, and a mask or none."""
    shape = draw(st.sampled_from(((4, 3), (2, 2, 3))))
    a, b = draw(logit_pairs(shapes=(shape,), dtypes=dtypes))
    if draw(st.booleans()):
        labels = np.array(
            draw(st.lists(st.integers(0, shape[-1] - 1), min_size=4, max_size=4))
        )[: np.prod(shape[:-1])].reshape(shape[:-1])
    else:
        raw = draw(properties.filled(shape, elements=st.integers(0, 4).map(float)))
        raw = np.asarray(raw) + np.eye(1, shape[-1])[0]
        labels = np.float32(raw / raw.sum(-1, keepdims=True))
    where = draw(st.one_of(st.none(), masks(shape[:-1]).filter(np.any)))
    return a, b, labels, where


def entropies(logits, labels):
    """Cross-entropies in float64, and how large the terms are."""
    log_p = special.log_softmax(wide(logits), -1)
    if labels.ndim < log_p.ndim:
        labels = np.eye(log_p.shape[-1])[labels]
    terms = -np.where(labels > 0, np.float64(labels) * log_p, 0.0)
    return terms.sum(-1), terms.sum(-1) + np.log(log_p.shape[-1]) + 1


@jax.jit
def weighted(a, b, labels, alpha, where):
    """The loss in every convention, the mean divergence, and gradients."""

    def losses(a, b):
        values = {
            name: rdrop.rdrop_loss(a, b, labels, alpha, convention=name, where=where)
            for name in WEIGHTINGS
        }
        return values["fairseq"], (values, rdrop.consistency_loss(a, b, where=where))

    (_, values), gradients = jax.value_and_grad(losses, (0, 1), has_aux=True)(a, b)
    return *values, gradients


@PROPERTIES.of(
    "rdrop_loss",
    "consistency_loss",
    "CONVENTIONS",
    cases=250,
    batch=batches(),
    alpha=ALPHAS,
)
def test_losses_are_the_weightings_of_the_table(batch, alpha):
    a, b, labels, where = batch
    values, mean, _ = weighted(a, b, labels, alpha, where)
    keep = np.ones(np.shape(a)[:-1], bool) if where is None else where
    (c, c_size), (d, d_size) = entropies(a, labels), entropies(b, labels)
    s, s_size = divergences(a, b)
    assert set(rdrop.CONVENTIONS) == set(WEIGHTINGS)
    for name, weigh in WEIGHTINGS.items():
        assert isinstance(rdrop.CONVENTIONS[name], rdrop.Convention)
        got = values[name]
        assert got.dtype == jnp.float32
        assert got.shape == ()
        want = weigh(c[keep], d[keep], s[keep], float(alpha))
        size = weigh(c_size[keep], d_size[keep], s_size[keep], float(alpha))
        assert_close(got, want, roundings=32, size=size)
    assert_close(mean, s[keep].mean(), roundings=32, size=s_size[keep].mean())


@PROPERTIES.of("rdrop_loss", "consistency_loss", cases=200, batch=batches())
def test_a_mask_leaves_examples_out_whatever_they_hold(batch):
    a, b, labels, where = batch
    where = np.ones(np.shape(a)[:-1], bool) if where is None else where
    dtype = np.asarray(a).dtype
    bad = [
        np.where(where[..., None], np.float32(z), np.nan).astype(dtype) for z in (a, b)
    ]
    is_index = labels.ndim < np.ndim(a)
    shown = where if is_index else where[..., None]
    bad_labels = np.where(shown, labels, -7).astype(labels.dtype)
    plain = weighted(a, b, labels, np.float32(2.0), where)
    masked = weighted(*bad, bad_labels, np.float32(2.0), where)
    properties.same(masked, plain)
    targets = np.eye(np.shape(a)[-1])[labels] if is_index else np.float64(labels)
    for gradient, (x, y) in zip(masked[-1], ((a, b), (b, a)), strict=True):
        assert not np.float64(gradient)[~where].any()
        # Of a sum over examples of an entropy and, for alpha = 2, the divergence.
        want, size = divergence_slope(x, y)
        log_p = special.log_softmax(wide(x), -1)
        p = np.exp(log_p) * targets.sum(-1, keepdims=True)
        want = np.where(where[..., None], want + p - targets, 0.0)
        size = size + p * (1 + np.abs(log_p)) + targets
        assert_close(gradient, want, roundings=32, size=size, dtype=np.float32)


@PROPERTIES.of(
    "rdrop_loss",
    "consistency_loss",
    "rdrop_regression_loss",
    cases=100,
    batch=batches(),
    name=NAMES,
)
def test_a_mask_of_nothing_gives_zero_traced_and_known(batch, name):
    a, b, labels, _ = batch
    nothing = np.zeros(np.shape(a)[:-1], bool)
    options = {"convention": name, "where": nothing}
    for call in (
        lambda: rdrop.rdrop_loss(a, b, labels, 1.0, **options),
        lambda: rdrop.consistency_loss(a, b, where=nothing),
        lambda: rdrop.rdrop_regression_loss(
            a[..., 0], b[..., 0], a[..., 0], 1.0, **options
        ),
    ):
        assert call() == 0.0
    for leaf in jax.tree.leaves(weighted(a, b, labels, np.float32(1.0), nothing)):
        assert not np.float64(leaf).any()


@st.composite
def outputs(draw):
    """Outputs of two passes, targets, and a mask or none."""
    shape = draw(st.sampled_from(((), (5,), (2, 3))))
    dtype = draw(st.sampled_from(tuple(properties.DTYPES)))
    elements = numbers(special=(0.0, 1e4, -1e4, 1e-30))
    values = [draw(properties.filled(shape, dtype, elements)) for _ in range(3)]
    return values, draw(st.one_of(st.none(), masks(shape).filter(np.any)))


@jax.jit
def regressions(f, g, y, alpha, where):
    """The loss in every convention."""
    return {
        name: rdrop.rdrop_regression_loss(f, g, y, alpha, convention=name, where=where)
        for name in WEIGHTINGS
    }


@PROPERTIES.of("rdrop_regression_loss", cases=250, case=outputs(), alpha=ALPHAS)
def test_regression_losses_are_the_weightings_of_squares(case, alpha):
    (f, g, y), where = case
    got = regressions(f, g, y, alpha, where)
    keep = np.ones(np.shape(y), bool) if where is None else where
    f_64, g_64, y_64 = (np.atleast_1d(wide(z)[keep]) for z in (f, g, y))
    terms = (f_64 - y_64) ** 2, (g_64 - y_64) ** 2, 2 * (f_64 - g_64) ** 2
    for name, weigh in WEIGHTINGS.items():
        assert got[name].dtype == jnp.float32
        # Differences are rounded once, relatively: no cancellation beyond that.
        assert_close(got[name], weigh(*terms, float(alpha)), roundings=16)
    if where is not None:
        bad = [
            np.where(where, np.float32(z), np.inf).astype(np.asarray(z).dtype)
            for z in (f, g, y)
        ]
        properties.same(regressions(*bad, alpha, where), got)


@PROPERTIES.of("consistency_loss", cases=150, pair=logit_pairs(shapes=((4, 3), (1, 2))))
def test_consistency_is_the_mean_divergence(pair):
    got = jitted("consistency_loss")(*pair)
    want, size = divergences(*pair)
    assert_close(got, want.mean(), roundings=32, size=size.mean())


@PROPERTIES.of(
    "convert_alpha",
    "convention_scale",
    "Convention",
    cases=200,
    short=True,
    source=NAMES,
    target=NAMES,
    alpha=st.floats(0, 1e6, allow_subnormal=False),
    size=st.integers(1, 2**31),
    seed=st.integers(0, 99),
)
def test_converted_alphas_make_losses_proportional(source, target, alpha, size, seed):
    converted = rdrop.convert_alpha(alpha, source, target, size)
    assert type(converted) is float
    back = rdrop.convert_alpha(converted, target, source, size)
    np.testing.assert_allclose(back, alpha, rtol=8 * 2.0**-53, atol=1e-290)
    # One example that stands for `size` equal ones.
    c, d, s = np.random.default_rng(seed).uniform(0.1, 3.0, (3, 1))

    def loss(name, alpha):
        chosen = rdrop.CONVENTIONS[name]
        many = alpha * size if chosen.sums_divergence else alpha
        first = WEIGHTINGS[name](c, d, s, 0.0) * (
            size if chosen.sums_cross_entropy else 1
        )
        return first + WEIGHTINGS[name](0 * c, 0 * d, s, many)

    ratio = rdrop.convention_scale(target, size) / rdrop.convention_scale(source, size)
    got, want = loss(target, converted), ratio * loss(source, alpha)
    np.testing.assert_allclose(got, want, rtol=32 * 2.0**-53, atol=1e-290)
    np.testing.assert_allclose(
        rdrop.convert_alpha(np.float32(alpha), source, target, size),
        np.float64(np.float32(alpha)) * (converted / alpha if alpha else 0.0),
        rtol=8 * 2.0**-24,
        atol=1e-37,
    )


@PROPERTIES.of(
    "two_passes",
    cases=150,
    x=properties.arrays(shapes=((0, 2), (3,), (4, 2)), elements=numbers()),
    seed=st.integers(0, 2**32 - 1),
    as_tree=st.booleans(),
)
def test_passes_see_the_same_rows_and_different_keys(x, seed, as_tree):
    batch = {"x": x, "y": (x,)} if as_tree else x
    key = jax.random.key(seed)

    def apply_fn(params, batch, key):
        (leaf, *_) = jax.tree.leaves(batch)
        noise = jax.random.uniform(key, (jnp.shape(leaf)[0], 2))
        return {"rows": jnp.asarray(leaf) + params, "noise": noise}

    for mode in ("two", "concat"):
        one, two = rdrop.two_passes(apply_fn, jnp.int8(0), batch, key, mode=mode)
        properties.same(one["rows"], two["rows"])
        np.testing.assert_array_equal(np.float64(one["rows"]), wide(x))
        if np.size(one["noise"]):
            assert (one["noise"] != two["noise"]).all()
        again = rdrop.two_passes(apply_fn, jnp.int8(0), batch, key, mode=mode)
        properties.same(again, (one, two))


@PROPERTIES.of(
    "symmetric_kl",
    "rdrop_loss",
    "consistency_loss",
    cases=80,
    pair=logit_pairs(shapes=((4, 3),), dtypes=("float64",)),
    labels=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_float64_is_computed_in_float64(pair, labels):
    with jax.enable_x64(True):
        got = rdrop.symmetric_kl(*pair)
        mean = rdrop.consistency_loss(*pair)
        loss = rdrop.rdrop_loss(*pair, np.array(labels), 2.0)
    assert got.dtype == mean.dtype == loss.dtype == np.float64
    want, size = divergences(*pair)
    assert_close(got, want, roundings=48, size=size)
    assert_close(mean, want.mean(), roundings=48, size=size.mean())
    (c, c_size), (d, d_size) = (entropies(z, np.array(labels)) for z in pair)
    size = np.mean(c_size + d_size + size)
    assert_close(loss, np.mean(c + d + want), roundings=48, size=size)


@PROPERTIES.of(
    "rdrop_loss",
    "rdrop_regression_loss",
    "convert_alpha",
    "convention_scale",
    cases=100,
    short=True,
    alpha=st.one_of(
        st.floats(max_value=-1e-300), st.sampled_from((np.inf, np.nan, -1))
    ),
    size=st.integers(max_value=0),
    name=st.text(max_size=5).filter(lambda name: name not in WEIGHTINGS),
    label=st.one_of(st.integers(3, 99), st.integers(-99, -1)),
)
def test_what_is_out_of_range_is_refused_by_name_and_value(alpha, size, name, label):
    z, labels = np.zeros((2, 3), np.float32), np.array([0, 1])
    for call in (
        lambda: rdrop.rdrop_loss(z, z, labels, alpha),
        lambda: rdrop.rdrop_regression_loss(z, z, z, alpha),
        lambda: rdrop.convert_alpha(alpha, "paper", "vit", 2),
    ):
        with pytest.raises(ValueError, match=r"^alpha must be ") as caught:
            call()
        assert str(caught.value).endswith(f"got {alpha!r}.")
    for call in (
        lambda: rdrop.convention_scale("paper", size),
        lambda: rdrop.convert_alpha(1.0, "paper", "vit", size),
    ):
        with pytest.raises(ValueError, match=rf"^batch_size .* got {size}\.$"):
            call()
    for call in (
        lambda: rdrop.convention_scale(name, 2),
        lambda: rdrop.rdrop_loss(z, z, labels, 1.0, convention=name),
    ):
        with pytest.raises(ValueError, match=r"^convention must be one of") as caught:
            call()
        assert repr(name) in str(caught.value)
    with pytest.raises(ValueError, match=rf"^labels must be .* got {label};"):
        rdrop.rdrop_loss(z, z, np.array([0, label]), 1.0)


@PROPERTIES.of(
    "symmetric_kl",
    "rdrop_loss",
    "rdrop_regression_loss",
    "consistency_loss",
    cases=30,
    short=True,  # all there are
    shapes=st.tuples(
        *2 * [st.sampled_from(((2, 3), (3, 2), (2, 1), (3,), (1, 3), (2, 3, 1)))]
    ),
)
def test_shapes_that_differ_are_refused_with_both(shapes):
    hypothesis.assume(shapes[0] != shapes[1])
    a, b = map(np.zeros, shapes)
    labels = np.zeros(shapes[0][:-1], int)
    for call in (
        lambda: rdrop.symmetric_kl(a, b),
        lambda: rdrop.consistency_loss(a, b),
        lambda: rdrop.rdrop_loss(a, b, labels, 1.0),
        lambda: rdrop.rdrop_regression_loss(a, b, a, 1.0),
    ):
        with pytest.raises(ValueError, match=r"must have one shape") as caught:
            call()
        assert all(str(shape) in str(caught.value) for shape in shapes)


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(rdrop.__all__)
