"""Lion on generated gradients: NumPy in float64, optax, ml_dtypes and symmetries."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import properties
import pytest
from properties import DTYPES, assert_close, numbers, smallest, wide

import lion
from lion.momentum import compress, expand

PROPERTIES = properties.Properties("lion")
BETAS = ((0.9, 0.99), (0.0, 0.0), (1.0, 0.5))
SPECIAL = (*properties.SPECIAL, *properties.NOT_FINITE)
ANY = numbers(special=SPECIAL)
FINITE = numbers()
LOW = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@st.composite
def alike(draw, count, elements=ANY, shapes=properties.SHAPES, dtypes=tuple(DTYPES)):
    """Arrays of one shape and dtype, each with its own layout."""
    shape = draw(st.sampled_from(shapes))
    dtype = draw(st.sampled_from(dtypes))
    return [draw(properties.filled(shape, dtype, elements)) for _ in range(count)]


@functools.cache
def compiled(rule, *args, **options):
    """The jitted update of a transformation."""
    return jax.jit(getattr(lion, rule)(*args, **options).update)


def started(gradient, **options):
    """A transformation after one gradient, and its state."""
    tx = lion.scale_by_lion(**options)
    update = compiled("scale_by_lion", **options)
    return update, update(gradient, tx.init(gradient))[1]


def clear_signs(b1, g, m, dtype):
    """The sign of the interpolation, and where roundings could not change it.

    Two products and a sum round three times; `1 - b1` and `b1` are rounded too.
    """
    with np.errstate(invalid="ignore"):
        terms = (1 - b1) * g, b1 * m
        c = terms[0] + terms[1]
        error = 2.5 * float(jnp.finfo(dtype).eps) * (abs(terms[0]) + abs(terms[1]))
        is_clear = ~(np.abs(c) <= error + 4 * smallest(dtype))
    return np.sign(c), is_clear | ((g == 0) & (m == 0)) | np.isnan(c)


@PROPERTIES.of(
    "scale_by_lion",
    "ScaleByLionState",
    cases=300,
    short=True,
    gradients=alike(2),
    betas=st.sampled_from(BETAS),
)
def test_update_and_momentum_are_those_of_float64(gradients, betas):
    b1, b2 = betas
    first, second = gradients
    update, state = started(first, b1=b1, b2=b2)
    got, after = update(second, state)
    assert isinstance(after, lion.ScaleByLionState)
    assert after.count == 2
    assert got.dtype == after.mu.dtype == first.dtype
    g, m = wide(second), wide(state.mu)
    sign, is_clear = clear_signs(b1, g, m, first.dtype)
    np.testing.assert_array_equal(np.float64(got)[is_clear], sign[is_clear])
    assert set(np.unique(np.float64(got))) <= {-1.0, 0.0, 1.0} or np.isnan(sign).any()
    with np.errstate(invalid="ignore"):
        momentum = (1 - b2) * g + b2 * m
        size = (1 - b2) * abs(g) + b2 * abs(m)
    assert_close(after.mu, momentum, roundings=5, size=size)


@pytest.mark.optimized
@PROPERTIES.of(
    "lion",
    cases=200,
    arrays=alike(3),
    betas=st.sampled_from(BETAS[:2]),
    weight_decay=st.sampled_from((0.0, 0.1)),
)
def test_bits_are_those_of_optax(arrays, betas, weight_decay):
    params, *gradients = arrays
    options = {"b1": betas[0], "b2": betas[1], "weight_decay": weight_decay}
    ours, theirs = lion.lion(1e-2, **options), optax.lion(1e-2, **options)
    our_update = compiled("lion", 1e-2, **options)
    their_update = jax.jit(theirs.update)
    state, their_state = ours.init(params), theirs.init(params)
    for gradient in gradients:
        got, state = our_update(gradient, state, params)
        want, their_state = their_update(gradient, their_state, params)
        properties.same(got, want)
        properties.same(list(state[0]), list(their_state[0]))


@PROPERTIES.of(
    "lion",
    cases=200,
    arrays=alike(4, elements=FINITE),
    mask=st.tuples(st.booleans(), st.booleans()),
)
def test_a_mask_leaves_leaves_out_of_the_decay(arrays, mask):
    params = dict(zip("ab", arrays[:2], strict=True))
    gradients = dict(zip("ab", arrays[2:], strict=True))
    decays = dict(zip("ab", mask, strict=True))
    tx = lion.lion(0.5, weight_decay=0.25, mask=decays)
    got, _ = tx.update(gradients, tx.init(params), params)
    rule = lion.scale_by_lion()
    signs, _ = rule.update(gradients, rule.init(params))
    for name, p in params.items():
        decay = 0.25 * wide(p) if decays[name] else 0.0
        # 0.5 and 0.25 are exact: only the sum rounds, and its scaled result.
        want = -0.5 * (np.float64(signs[name]) + decay)
        assert_close(got[name], want, roundings=2, size=0.5 + np.abs(decay))


@PROPERTIES.of("scale_by_lion", cases=200, gradients=alike(2, elements=FINITE))
def test_cautious_keeps_what_agrees_and_makes_up_for_the_rest(gradients):
    first, second = gradients
    _, state = started(first)
    plain, _ = compiled("scale_by_lion")(second, state)
    got, after = compiled("scale_by_lion", cautious=True)(second, state)
    properties.same(after, compiled("scale_by_lion")(second, state)[1])
    agrees = np.float64(plain) * wide(second) > 0
    scale = np.size(second) / (agrees.sum() + 1)
    assert_close(got, np.float64(plain) * agrees * scale, roundings=2)
    assert got.dtype == plain.dtype


@PROPERTIES.of(
    "scale_by_lion",
    cases=200,
    gradients=alike(2, elements=FINITE),
    betas=st.sampled_from(((0.9, 0.99), (0.0, 0.5), (0.95, 0.98))),
)
def test_in_place_has_the_same_momentum_and_the_same_clear_signs(gradients, betas):
    b1, b2 = betas
    first, second = gradients
    _, state = started(first, b1=b1, b2=b2)
    update = compiled("scale_by_lion", b1=b1, b2=b2, in_place=True)
    got, after = update(second, state)
    plain = compiled("scale_by_lion", b1=b1, b2=b2)(second, state)[1]
    properties.same(after, plain)
    g, m = wide(second), wide(state.mu)
    c = (1 - b1) * g + b1 * m
    # The new momentum is stored, with up to five roundings, and multiplied by b1 / b2.
    size = (1 + b1 / b2) * (np.abs(g) + np.abs(m))
    error = 5 * float(jnp.finfo(first.dtype).eps) * size + 8 * smallest(first.dtype)
    is_clear = (np.abs(c) > error) | (size == 0)
    np.testing.assert_array_equal(np.float64(got)[is_clear], np.sign(c)[is_clear])


@PROPERTIES.of(
    "scale_by_lion",
    "lion",
    cases=250,
    gradients=alike(2, elements=FINITE, shapes=((7,), (1,), (0,))),
    order=st.permutations(range(7)),
    exponent=st.integers(-3, 3),
    in_place=st.booleans(),
)
def test_order_sign_and_scale_of_gradients(gradients, order, exponent, in_place):
    first, second = (np.asarray(g) for g in gradients)
    order = [i for i in order if i < len(first)]
    options = {"in_place": in_place}
    tx, update = lion.scale_by_lion(**options), compiled("scale_by_lion", **options)

    def after_two(change):
        state = update(change(first), tx.init(first))[1]
        return np.float64(update(change(second), state)[0])

    plain = after_two(lambda g: g)
    permuted = after_two(lambda g: g[np.array(order, int)])
    np.testing.assert_array_equal(permuted, plain[np.array(order, int)])
    np.testing.assert_array_equal(after_two(lambda g: -g), -plain)
    # Scaling by a power of two is exact unless it over- or underflows.
    factor = 2.0**exponent
    magnitudes = np.abs(np.concatenate([wide(first), wide(second)]))
    info = jnp.finfo(first.dtype)
    with np.errstate(over="ignore"):
        small = magnitudes[magnitudes > 0].min(initial=1.0) < float(info.tiny) * 2**20
    if not small and magnitudes.max(initial=0.0) * 8 < float(info.max):
        scaled = after_two(lambda g: (g * g.dtype.type(factor)).astype(g.dtype))
        np.testing.assert_array_equal(scaled, plain)


@PROPERTIES.of("scale_by_lion", "lion", cases=200, arrays=alike(3))
def test_layout_and_kind_of_array_change_nothing(arrays):
    # `optax.add_decayed_weights` widens bfloat16 parameters of NumPy.
    params, gradients = jnp.asarray(arrays[0]), arrays[1:]
    tx = lion.lion(1e-2, cautious=True)

    def after_two(convert):
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(convert(gradient), state, params)
        return updates, state

    properties.same(after_two(lambda x: x), after_two(jnp.asarray))


@PROPERTIES.of(
    "lion",
    cases=100,
    arrays=alike(3, elements=FINITE, dtypes=("float64",)),
    lr=st.sampled_from((0.0, 1e-3, 0.1)),
)
def test_float64_is_computed_in_float64(arrays, lr):
    with jax.enable_x64(True):
        params, first, second = map(jnp.asarray, arrays)
        tx = lion.lion(lr, 0.9, 0.99, weight_decay=0.1)
        _, state = tx.update(first, tx.init(params), params)
        got, state = tx.update(second, state, params)
    p, g1, g2 = map(np.float64, arrays)
    m = 0.01 * g1
    sign, is_clear = clear_signs(0.9, g2, m, np.float64)
    want = -lr * (sign + 0.1 * p)
    assert got.dtype == np.float64
    # Three roundings here and as many in the oracle.
    size = lr * (1 + np.abs(p))
    pick = np.where(is_clear, want, np.float64(got))
    assert_close(got, pick, roundings=6, size=size)
    momentum = 0.01 * g2 + 0.99 * m
    assert_close(state[0].mu, momentum, roundings=10, size=abs(g1) + abs(g2))


@PROPERTIES.of(
    "Int8Momentum",
    cases=250,
    x=properties.arrays(
        shapes=((0,), (), (1,), (255,), (256,), (257,), (3, 100), (2, 0, 3)),
        elements=st.one_of(
            numbers(special=(0.0, 1e-30, 1e30, -1e4)),
            st.sampled_from((1.0, 0.5, 0.0, np.nan, np.inf)),
        ),
    ),
)
def test_eight_bits_keep_a_momentum_to_half_a_code(x):
    stored = jax.jit(compress)(x)
    assert isinstance(stored, lion.Int8Momentum)
    assert stored.codes.dtype == jnp.int8
    assert stored.codes.shape == np.shape(x)
    back = np.float64(jax.jit(expand)(stored)).reshape(-1)
    flat = wide(np.asarray(x).astype(np.float32)).reshape(-1)
    assert stored.scales.shape == (-(-flat.size // 256),)
    for start in range(0, flat.size, 256):
        block, read = flat[start : start + 256], back[start : start + 256]
        if not np.isfinite(block).all():
            assert np.isnan(read).all()
            continue
        scale = np.abs(block).max()
        roots = np.sqrt(np.abs(block) / max(scale, 1e-300))
        # Half a code, and eight roundings of float32 in roots and codes.
        half = 0.5 / 127 + 8 * 2.0**-24
        allowed = scale * ((roots + half) ** 2 - roots**2) + 2.0**-126
        assert (np.abs(read - block) <= allowed).all()
        assert (read * block >= 0).all()
        if scale:
            largest = np.abs(block).argmax()
            assert_close(np.float32(read[largest]), block[largest], roundings=4)
    again = jax.jit(compress)(jnp.asarray(back.reshape(np.shape(x)), jnp.float32))
    if np.isfinite(flat).all():
        np.testing.assert_array_equal(again.codes, stored.codes)


@PROPERTIES.of(
    "scale_by_lion",
    "Int8Momentum",
    cases=150,
    gradients=alike(2, elements=numbers(special=(0.0, 1e-3, 100.0))),
    in_place=st.booleans(),
)
def test_an_update_from_eight_bits_is_that_of_what_they_say(gradients, in_place):
    options = {"mu_dtype": "int8", "in_place": in_place}
    first, second = gradients
    update, state = started(first, **options)
    got, after = update(second, state)
    assert got.dtype == first.dtype
    g, m, g_dtype = wide(second), np.float64(expand(state.mu)), second.dtype
    if in_place:  # from the new momentum, as it is stored
        new = np.float64(expand(after.mu))
        ratio = 0.9 / 0.99
        terms = ratio * new, (0.1 - ratio * 0.01) * g
    else:
        terms = 0.9 * m, 0.1 * g
    # What has to do with the gradient is rounded in its dtype, the rest in float32.
    eps, least = float(jnp.finfo(g_dtype).eps), smallest(g_dtype)
    error = eps * np.abs(terms[1]) + 2.0**-20 * np.abs(terms[0]) + 2 * least
    is_clear = (np.abs(sum(terms)) > error) | ((g == 0) & (m == 0))
    want = np.sign(sum(terms))
    np.testing.assert_array_equal(np.float64(got)[is_clear], want[is_clear])
    momentum = (0.01 * g + 0.99 * m).reshape(-1)
    scale = np.abs(momentum).max(initial=0.0)
    error = np.abs(np.float64(expand(after.mu)).reshape(-1) - momentum)
    # Half a code of a root of 1, squared, is the largest step between two codes.
    rounded = eps * 0.01 * np.abs(g).reshape(-1) + 2 * least
    assert (error <= (scale + rounded.max(initial=0.0)) * (1.01 / 127) + rounded).all()


@PROPERTIES.of(
    "stochastic_rounding",
    "StochasticRoundingState",
    cases=250,
    params=properties.arrays(dtypes=tuple(LOW), elements=ANY),
    factor=st.sampled_from((1e-3, -1e-3, 0.3, -1.0, 0.0, 2.0)),
    offset=st.sampled_from((0.0, 1e-4, 1e-12, -3.0)),
    seed=st.integers(0, 3),
)
def test_parameters_land_on_a_neighbour_of_the_float32_sum(
    params, factor, offset, seed
):
    name = np.asarray(params).dtype.name
    with np.errstate(invalid="ignore"):
        update = np.float32(np.float32(params) * factor + offset)
        total = np.float32(wide(params)) + np.float32(wide(update))
    tx = lion.stochastic_rounding(jax.random.key(seed))
    rounded, state = tx.update(jnp.asarray(update), tx.init(params), params)
    assert isinstance(state, lion.StochasticRoundingState)
    assert state.count == 1
    assert rounded.dtype == jnp.float32
    got = np.asarray(optax.apply_updates(jnp.asarray(params), rounded))
    assert got.dtype == np.asarray(params).dtype
    largest = float(jnp.finfo(name).max)
    for value, landed in zip(total.flat, got.flat, strict=True):
        if not np.isfinite(value):
            np.testing.assert_equal(np.float64(landed), np.float64(value))
            continue
        value = float(np.clip(value, -largest, largest))
        near = LOW[name](value)
        below = np.nextafter(near, LOW[name](-np.inf))
        above = np.nextafter(near, LOW[name](np.inf))
        low, high = (
            (near, near)
            if float(near) == value
            else (below, near)
            if float(near) > value
            else (near, above)
        )
        # The CPU takes what is subnormal in float32 for 0.
        slack = 0.0 if name == "float16" else float(jnp.finfo(jnp.float32).tiny)
        assert float(low) - slack <= float(landed) <= float(high) + slack
        is_one = float(landed) in (float(low), float(high))
        assert is_one or abs(value) <= 4 * slack


@PROPERTIES.of(
    "stochastic_rounding",
    cases=100,
    short=True,
    wide_leaf=properties.arrays(dtypes=("float32",), elements=ANY),
    low_leaf=properties.arrays(dtypes=("bfloat16",), elements=FINITE),
)
def test_updates_of_wide_parameters_pass_and_zero_moves_nothing(wide_leaf, low_leaf):
    params = {"wide": wide_leaf, "low": low_leaf}
    updates = {"wide": wide_leaf, "low": jnp.zeros(np.shape(low_leaf))}
    tx = lion.stochastic_rounding(jax.random.key(0))
    rounded, _ = tx.update(updates, tx.init(params), params)
    assert rounded["wide"] is wide_leaf
    np.testing.assert_array_equal(np.asarray(rounded["low"]), 0.0)


@PROPERTIES.of(
    "lion",
    "scale_by_lion",
    cases=60,
    short=True,
    name=st.sampled_from(("b1", "b2", "weight_decay", "learning_rate")),
    value=st.one_of(
        st.floats(max_value=-1e-300, allow_nan=False),
        st.just(np.nan),
        st.integers(-5, -1),
    ),
)
def test_numbers_out_of_range_are_refused_by_name_and_value(name, value):
    options = {"learning_rate": 1e-3, name: value}
    with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
        lion.lion(**options)
    assert str(caught.value).endswith(f"got {value!r}.")
    if name in ("b1", "b2"):
        with pytest.raises(ValueError, match=rf"^{name} must be "):
            lion.scale_by_lion(**{name: value})


def test_every_public_name_has_a_property_and_the_slow_run_enough_cases():
    PROPERTIES.check(lion.__all__)
