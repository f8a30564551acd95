"""Masks, AdamW and Fisher information on generated trees: NumPy, float64, counts."""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import properties
import pytest
from properties import DTYPES, assert_close, filled, masks, numbers, wide
from scipy import stats

import childtuning

PROPERTIES = properties.Properties("childtuning")
SHAPES = ((0,), (), (5,), (2, 8))
ANY = numbers(special=(*properties.SPECIAL, *properties.NOT_FINITE))
FRACTIONS = st.sampled_from((1.0, 0.3, 0.5, 1e-3, 1, np.float32(0.25)))
RULES = st.sampled_from(("child_tuning_f", "update_dropout"))


@functools.cache
def dropped(name, p, rescale):
    """The jitted update; the key is in the state."""
    tx = getattr(childtuning, name)(p, jax.random.key(0), rescale=rescale)
    return jax.jit(tx.update)


@PROPERTIES.of(
    "child_tuning_f",
    "update_dropout",
    "ChildTuningFState",
    cases=300,
    x=properties.arrays(SHAPES, elements=ANY),
    p=FRACTIONS,
    name=RULES,
    seed=st.integers(0, 2**31),
    rescale=st.booleans(),
)
def test_entries_are_kept_or_gone_and_what_is_kept_is_divided(
    x, p, name, seed, rescale
):
    tx = getattr(childtuning, name)(p, jax.random.key(seed), rescale=rescale)
    updates, update = {"x": x, "count": np.arange(3)}, dropped(name, p, rescale)
    got, state = update(updates, tx.init(updates))
    assert isinstance(state, childtuning.ChildTuningFState)
    assert state.count == 1
    np.testing.assert_array_equal(got["count"], np.arange(3))
    assert got["x"].dtype == x.dtype
    if p == 1:
        assert np.asarray(got["x"]).tobytes() == np.asarray(x).tobytes()
        return
    # The mask depends on key, step, leaf and shape alone: a leaf of ones shows it.
    ones = {"x": np.ones(np.shape(x), x.dtype), "count": np.arange(3)}
    kept = np.asarray(update(ones, tx.init(ones))[0]["x"]) > 0
    assert not np.float64(got["x"])[~kept].any()
    result = np.asarray(got["x"])[kept]
    if rescale:  # a quotient in float32
        want = wide(x)[kept] / float(np.float32(p))
        assert_close(result, want, roundings=1, dtype=np.float32)
    else:
        assert result.tobytes() == np.asarray(x)[kept].tobytes()


@PROPERTIES.of(
    "child_tuning_f",
    "update_dropout",
    cases=150,
    seed=st.integers(0, 2**31),
    p=st.floats(0.02, 1.0),
    name=RULES,
    steps=st.integers(1, 3),
)
def test_the_fraction_kept_is_binomial_and_drawn_anew(seed, p, name, steps):
    size = 600
    tx = getattr(childtuning, name)(p, jax.random.key(seed))
    ones = {"a": jnp.ones(size), "b": jnp.ones((size,))}
    state, drawn = tx.init(ones), []
    for _ in range(steps):
        got, state = tx.update(ones, state)
        drawn += [np.asarray(got["a"]) > 0, np.asarray(got["b"]) > 0]
        again, _ = tx.update(ones, tx.init(ones))
    total = sum(mask.sum() for mask in drawn)
    # One in 1e9 draws is farther out than this.
    low, high = stats.binom.ppf((5e-10, 1 - 5e-10), size * len(drawn), p)
    assert low <= total <= high
    if 0.05 < p < 0.95:
        assert all((mask != drawn[0]).any() for mask in drawn[1:])
    first, _ = tx.update(ones, tx.init(ones))
    properties.same(first, again)


@st.composite
def masked_leaves(draw, elements=ANY, dtypes=tuple(DTYPES), count=1):
    """Arrays of one shape and dtype, and a mask."""
    shape = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(dtypes))
    leaves = [draw(filled(shape, dtype, elements)) for _ in range(count)]
    mask = draw(masks(shape))
    return leaves, properties.lay_out(mask, draw(st.sampled_from(properties.LAYOUTS)))


@jax.jit
def selected(updates, state):
    """One update; the mask is in the state."""
    return childtuning.child_tuning_d(None).update(updates, state)


@PROPERTIES.of(
    "child_tuning_d",
    "ChildTuningDState",
    cases=300,
    short=True,
    case=masked_leaves(count=2),
)
def test_a_fixed_mask_selects_bits_and_drops_the_rest(case):
    (x, y), mask = case
    state = childtuning.child_tuning_d({"x": mask}).init({"x": y})
    assert isinstance(state, childtuning.ChildTuningDState)
    assert state.mask["x"].dtype == jnp.uint8
    assert state.mask["x"].size == -(-np.size(mask) // 8)
    got, after = selected({"x": x}, state)
    properties.same(after, state)
    assert got["x"].dtype == x.dtype
    want = np.where(mask, np.asarray(x), np.zeros_like(np.asarray(x)))
    assert np.asarray(got["x"]).tobytes() == want.tobytes()
    again, _ = selected(got, state)
    assert np.asarray(again["x"]).tobytes() == want.tobytes()


@functools.cache
def adamw(decay, weight_decay, eps):
    """The jitted update; the mask is in the state."""
    options = {"weight_decay": weight_decay, "decay": decay, "eps": eps}
    tx = childtuning.child_adamw(0.1, None, **options)
    return jax.jit(tx.update)


@PROPERTIES.of(
    "child_adamw",
    "ChildAdamWState",
    cases=300,
    case=masked_leaves(numbers(special=(0.0, 1e-10, 1e4, -1e4)), count=4),
    options=st.sampled_from(
        (("all", 0.1, 1e-8), ("child", 0.1, 1e-3), ("all", 0.0, 1e-3))
    ),
)
def test_steps_are_those_of_the_authors_in_float64(case, options):
    (p, *gradients), mask = case
    decay, weight_decay, eps = options
    tx = childtuning.child_adamw(
        0.1, mask, weight_decay=weight_decay, decay=decay, eps=eps
    )
    update, state = adamw(*options), tx.init(p)
    keep = np.asarray(mask)
    for count, g in enumerate(gradients, start=1):
        got, after = update(g, state, p)
        assert isinstance(after, childtuning.ChildAdamWState)
        assert after.count == count
        assert got.dtype == after.mu.dtype == after.nu.dtype == p.dtype
        g_64 = np.where(keep, wide(g), 0.0)
        m = 0.9 * wide(state.mu) + 0.1 * g_64
        v = 0.999 * wide(state.nu) + 0.001 * g_64**2
        rate = 0.1 * math.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        # A term of the momentum below 2**-126 is lost, not rounded.
        m_size = 0.9 * np.abs(wide(state.mu)) + 0.1 * np.abs(g_64) + 2.0**-102
        slope = rate / (np.sqrt(v) + eps)
        want = -slope * m
        decayed = 0.1 * weight_decay * (wide(p) + want)
        want = want - (decayed if decay == "all" else np.where(keep, decayed, 0.0))
        size = slope * m_size
        size = size + 0.1 * weight_decay * (np.abs(wide(p)) + size)
        # In float32: 12 of the rate, 3 of the momentum, 5 of the root, a product, a
        # quotient, and two of the decay. Only results are in the dtype of the leaf.
        options = {"dtype": np.float32}
        assert_close(got, want, roundings=24, size=size, **options)
        assert_close(after.mu, m, roundings=3, size=m_size, **options)
        assert_close(after.nu, v, roundings=5, **options)
        assert not np.float64(after.mu)[~keep].any()
        if decay == "child" or not weight_decay:
            assert not np.float64(got)[~keep].any()
        state = after


def linear(params, batch):
    """Mean over examples; the gradient of one is its row, times a fixed number."""
    rows = batch["x"] @ params["w"] + 2.0 * batch["x"][:, 0] * params["b"]
    return jnp.mean(rows)


def averages(rows, convention, clip_norm):
    """Squared gradients of `linear` in float64, and how far rounding can reach.

    A mean of up to four rows has six roundings, relative to the mean magnitude. A
    tensor is clipped by a factor with six more, and clipping carries an error of the
    gradient over at most by that factor; then there are a square and a mean.
    """
    results = {}
    for name, of_rows in (("w", lambda r: r), ("b", lambda r: 2 * r[:, :1])):
        if convention == "paper":  # a gradient has no error, and nothing cancels
            want = (np.concatenate([of_rows(r) for r in rows]) ** 2).mean(0)
            results[name] = want, 0.0
            continue
        squares, sizes = [], []
        for r in map(of_rows, rows):
            h, reach = r.mean(0), np.linalg.norm(np.abs(r).mean(0))
            if clip_norm is not None:
                factor = min(1.0, float(clip_norm) / (np.linalg.norm(h) + 1e-6))
                h, reach = h * factor, reach * factor
            squares.append(h**2)
            sizes.append((2 * np.abs(h) + 12 * 2.0**-24 * reach) * reach)
        results[name] = np.mean(squares, 0), np.mean(sizes, 0)
    want, size = results["b"]
    results["b"] = want[0], np.max(size)
    return results


@PROPERTIES.of(
    "fisher_information",
    cases=300,
    batches=st.lists(
        properties.arrays(
            ((1, 2), (3, 2), (4, 2)),
            ("float32",),
            numbers(special=(0.0, 1e4, 1e-10)),
        ),
        min_size=1,
        max_size=3,
    ),
    convention=st.sampled_from(("paper", "authors")),
    clip_norm=st.sampled_from((1.0, None, 0.01, np.float32(100.0))),
    order=st.integers(0, 5),
)
def test_fisher_information_of_a_linear_loss(batches, convention, clip_norm, order):
    params = {"w": jnp.ones(2), "b": jnp.ones(()), "n": jnp.arange(2)}
    got = childtuning.fisher_information(
        linear,
        params,
        [{"x": x} for x in batches],
        convention=convention,
        clip_norm=clip_norm,
    )
    wants = averages([wide(x) for x in batches], convention, clip_norm)
    for name, (want, size) in wants.items():
        assert_close(got[name], want, roundings=18, size=size)
    np.testing.assert_array_equal(got["n"], [0.0, 0.0])
    assert got["w"].dtype == jnp.float32
    if convention == "paper":
        turned = [{"x": x} for x in batches[order % len(batches) :]]
        turned += [{"x": x} for x in batches[: order % len(batches)]]
        again = childtuning.fisher_information(linear, params, turned)
        assert_close(again["w"], np.float64(got["w"]), roundings=32)


TREES = (((0,), (), (7,)), ((7,), (3, 5), (1,)), ((0,), (0,), (0,)))


@st.composite
def fishers(draw, trees=TREES, least=0.0):
    """Trees of non-negative numbers with ties."""
    elements = st.one_of(
        st.integers(0, 3).map(float),
        st.floats(0, 8, width=32).map(lambda x: x if x >= least else 0.0),
        st.just(3e38),
    )
    shapes = draw(st.sampled_from(trees))
    kinds = st.sampled_from((("float32",) * 3, ("bfloat16", "float32", "bfloat16")))
    named = zip(("encoder/layer", "head", "other"), shapes, draw(kinds), strict=True)
    return {name: draw(filled(shape, k, elements)) for name, shape, k in named}


def competing(fisher, names):
    """The entries that compete, in the order of the leaves."""
    rows = [np.asarray(fisher[name]).reshape(-1) for name in sorted(fisher)]
    used = [
        row for name, row in zip(sorted(fisher), rows, strict=True) if name in names
    ]
    return np.float32(np.concatenate(used)) if used else np.zeros(0, np.float32)


@PROPERTIES.of(
    "fisher_mask",
    "in_layers",
    "trainable_fraction",
    cases=350,
    fisher=fishers(),
    p=st.one_of(st.sampled_from((1.0, 0.5, 1, 1e-9)), st.floats(1e-3, 1.0)),
    ties=st.sampled_from(("exact", "keep")),
    where=st.sampled_from((None, "layers", "tree")),
)
def test_masks_are_those_of_a_stable_sort_and_of_a_percentile(fisher, p, ties, where):
    flags = {"encoder/layer": True, "head": False, "other": True}
    chosen, names = {
        None: (None, set(fisher)),
        "layers": (childtuning.in_layers, {"encoder/layer"}),
        "tree": (flags, {"encoder/layer", "other"}),
    }[where]
    values = competing(fisher, names)
    call = functools.partial(
        childtuning.fisher_mask, fisher, p, ties=ties, where=chosen
    )
    if not values.size:
        with pytest.raises(ValueError, match=r"^where must select at least one entry"):
            call()
        return
    mask = call()
    got = competing(mask, names) > 0
    if ties == "exact":
        want = np.zeros(values.size, bool)
        order = np.argsort(-np.float64(values), kind="stable")
        want[order[: round(p * values.size)]] = True
        np.testing.assert_array_equal(got, want)
    else:
        with np.errstate(over="ignore"):
            bound = np.percentile(values, 100 * (1 - p))
        # NumPy interpolates in float32 with a fraction of its own rounding.
        near = np.abs(np.float64(values) - bound) <= 4 * 2.0**-24 * np.abs(bound)
        np.testing.assert_array_equal(got[~near], (values >= bound)[~near])
        assert all(len(set(got[values == v])) == 1 for v in values)
    for name, leaf in mask.items():
        assert leaf.shape == np.shape(fisher[name])
        assert leaf.dtype == bool
        assert name in names or np.asarray(leaf).all()
    total = sum(np.asarray(leaf).sum() for leaf in mask.values())
    size = sum(np.size(leaf) for leaf in mask.values())
    assert childtuning.trainable_fraction(mask) == total / size


@PROPERTIES.of(
    "fisher_mask",
    cases=80,
    # Under `jit` the CPU takes a percentile that is subnormal for 0.
    fisher=fishers(trees=TREES[1:2], least=1e-30),
    p=st.sampled_from((0.3, 0.9)),
    ties=st.sampled_from(("exact", "keep")),
    factor=st.sampled_from((0.5, 0.25)),
)
def test_masks_do_not_depend_on_jit_or_on_the_scale(fisher, p, ties, factor):
    select = functools.partial(childtuning.fisher_mask, reserve_p=p, ties=ties)
    mask = select(fisher)
    properties.same(jitted_mask(p, ties)(fisher), mask)
    halved = jax.tree.map(
        lambda x: (np.float32(x) * factor).astype(np.asarray(x).dtype), fisher
    )
    properties.same(select(halved), mask)


@functools.cache
def jitted_mask(p, ties):
    return jax.jit(functools.partial(childtuning.fisher_mask, reserve_p=p, ties=ties))


@PROPERTIES.of(
    "in_layers",
    "trainable_fraction",
    cases=150,
    short=True,
    path=st.text(max_size=12),
    d=st.data(),
)
def test_layers_are_named_and_fractions_counted(path, d):
    assert childtuning.in_layers(path) == (path.find("layer") >= 0)
    assert childtuning.in_layers(path + "layer" + path)
    leaves = [d.draw(masks(shape)) for shape in ((3,), (2, 2), ())]
    want = sum(int(leaf.sum()) for leaf in leaves) / 8
    assert childtuning.trainable_fraction(leaves) == want


@PROPERTIES.of(
    "child_tuning_d",
    "child_adamw",
    cases=100,
    p=masked_leaves(numbers(), ("float64",), count=2),
)
def test_float64_is_computed_in_float64(p):
    (p, g), mask = p
    mask = np.asarray(mask)
    with jax.enable_x64(True):
        tx = childtuning.child_adamw(0.1, mask, weight_decay=0.1)
        got, state = tx.update(jnp.asarray(g), tx.init(jnp.asarray(p)), jnp.asarray(p))
        kept, _ = childtuning.child_tuning_d(mask).update(g, state)
    assert got.dtype == state.nu.dtype == kept.dtype == np.float64
    np.testing.assert_array_equal(kept, np.where(mask, g, 0.0))
    m, v = np.where(mask, 0.1 * g, 0.0), np.where(mask, 0.001 * g**2, 0.0)
    step = -0.1 * math.sqrt(0.001) / 0.1 * m / (np.sqrt(v) + 1e-8)
    want = step - 0.01 * (p + step)
    # 1 - 0.999 in float64 has lost ten bits.
    size = 2**10 * np.abs(step) + 0.01 * np.abs(p)
    assert_close(got, want, roundings=20, size=size)


@PROPERTIES.of(
    "child_tuning_f",
    "update_dropout",
    "child_adamw",
    "fisher_mask",
    "fisher_information",
    cases=100,
    short=True,
    p=st.one_of(
        st.floats(max_value=0.0),
        st.floats(min_value=1.0, exclude_min=True),
        st.just(np.nan),
    ),
    number=st.one_of(st.floats(max_value=-1e-9), st.sampled_from((np.nan, np.inf))),
    name=st.sampled_from(("b1", "b2", "eps", "weight_decay", "learning_rate")),
)
def test_what_is_out_of_range_is_refused_by_name_and_value(p, number, name):
    key, mask = jax.random.key(0), np.ones(2, bool)
    for call in (
        lambda: childtuning.child_tuning_f(p, key),
        lambda: childtuning.update_dropout(p, key),
        lambda: childtuning.fisher_mask({"a": np.ones(3, np.float32)}, p),
    ):
        with pytest.raises(
            ValueError, match=r"^reserve_p must be in \(0, 1\]"
        ) as caught:
            call()
        assert str(caught.value).endswith(f"got {p!r}.")
    with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
        childtuning.child_adamw(**{"learning_rate": 0.1, "mask": mask, name: number})
    assert str(caught.value).endswith(f"got {number!r}.")
    params, batch = {"w": jnp.ones(2), "b": jnp.ones(())}, {"x": np.ones((1, 2))}
    with pytest.raises(ValueError, match=r"^clip_norm must be above 0") as caught:
        childtuning.fisher_information(linear, params, [batch], clip_norm=number)
    assert repr(number) in str(caught.value)
    with np.errstate(over="ignore"):
        bad = np.array([1.0, number], np.float32)
    with pytest.raises(ValueError, match=r"^fisher must be finite and at least 0"):
        childtuning.fisher_mask({"a": bad}, 0.5)


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(childtuning.__all__)
