"""CoSENT's loss: equal to its definition wherever it is defined, and nan elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cosent import binary_cosent_loss, cosent_loss, losses

pytestmark = pytest.mark.optimized

CROSSING = losses.CROSSING
SIZES = (1, 2, 7, CROSSING - 1, CROSSING, 300)


def definition(s, y, scale=20.0, where=None):
    """The sum over all pairs and its gradient, in float64."""
    s, y = np.asarray(s, float), np.asarray(y)
    counts = np.ones(len(s), bool) if where is None else where
    is_pair = (y[:, None] > y[None, :]) & counts[:, None] & counts[None, :]
    exponents = np.where(is_pair, scale * (s[None, :] - s[:, None]), -np.inf)
    largest = max(exponents.max(), 0.0)
    powers = np.exp(exponents - largest)
    total = powers.sum()
    value = (
        np.log1p(total)
        if largest == 0.0
        else largest + np.log(np.exp(-largest) + total)
    )
    weights = scale * powers / (np.exp(-largest) + total)
    return value, weights.sum(axis=0) - weights.sum(axis=1)


def draw(size, levels=6, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.uniform(-1.0, 1.0, size).astype(np.float32)
    return s, rng.integers(0, levels, size)


VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(cosent_loss))


def evaluate(s, labels, **options):
    """Compiled once for every size and dtype."""
    return VALUE_AND_GRADIENT(jnp.asarray(s), jnp.asarray(labels), **options)


def assert_same(got, expected, scale=20.0):
    """To 3e-7 of the value and 4e-6 of the gradient.

    A loss below 1 is about exp(t), whose exponent t float32 rounds before anything.
    """
    rtol = 3e-7 * max(1.0, -np.log(max(expected[0], 1e-30)))
    np.testing.assert_allclose(got[0], expected[0], rtol=rtol)
    np.testing.assert_allclose(got[1], expected[1], rtol=0, atol=4e-6 * scale)


@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_are_those_of_the_definition(size):
    s, y = draw(size)
    assert_same(evaluate(s, y), definition(s, y))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("band", [1.0, 1e-3])
def test_no_scale_costs_digits(scale, band):
    s, y = draw(300)
    s *= band
    assert_same(evaluate(s, y, scale=scale), definition(s, y, scale), scale)


def test_a_violation_far_below_the_spread_keeps_its_digits():
    """With logarithms of whole exponentials it is lost in a spread of 20,000."""
    y = np.repeat(np.arange(300), 2)
    s = np.linspace(-1.0, 1.0, 600).astype(np.float32)
    expected = definition(s, y, 1e4)
    assert 0.0 < expected[0] < 1.0
    assert_same(evaluate(s, y, scale=1e4), expected, scale=1e4)

    @jax.jit
    def plain(x):
        suffix = jax.lax.cumlogsumexp(-x, reverse=True)
        above = jnp.minimum(2 * (jnp.arange(600) // 2) + 2, 599)
        terms = jnp.where(jnp.arange(600) < 598, x + suffix[above], -jnp.inf)
        return jnp.logaddexp(jax.nn.logsumexp(terms), 0.0)

    assert abs(plain(1e4 * jnp.asarray(s)) / expected[0] - 1.0) > 1e-5


@pytest.mark.parametrize("size", [5, 300])
def test_tied_similarities_count_half_of_the_pairs_as_one(size):
    y = np.arange(size) % 3
    pairs = np.sum(y[:, None] > y[None, :])
    value, gradient = evaluate(np.full(size, 0.3, np.float32), y)
    np.testing.assert_allclose(value, np.log1p(pairs), rtol=1e-6)
    below, above = (
        np.array([np.sum(f(y, level)) for level in y]) for f in (np.less, np.greater)
    )
    expected = 20.0 * (above - below) / (1.0 + pairs)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 300])
@pytest.mark.parametrize("label", [0, 2.5, True])
def test_without_a_pair_the_loss_and_its_gradient_are_zero(size, label):
    s, _ = draw(size)
    value, gradient = evaluate(s, np.full(size, label))
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("size", [9, 300])
def test_rows_left_out_do_not_exist(size):
    s, y = draw(size)
    where = np.arange(size) % 3 != 0
    got = evaluate(s, y, where=where)
    assert_same(got, definition(s, y, where=where))
    np.testing.assert_array_equal(got[1][~where], 0.0)
    s, y = np.where(where, s, np.nan), np.where(where, y, np.nan)
    again = evaluate(s, y.astype(np.float32), where=where)
    np.testing.assert_array_equal(again[0], got[0])
    assert evaluate(s, y * 0, where=np.zeros(size, bool))[0] == 0.0


@pytest.mark.parametrize("size", [2, 7, 300])
def test_two_labels_factor(size):
    s, y = draw(size, levels=2)
    expected = definition(s, y)
    assert_same(evaluate(s, y == 1), expected)
    assert_same(evaluate(s, y), expected)
    value = jax.jit(binary_cosent_loss)(s, y == 1)
    np.testing.assert_allclose(value, expected[0], rtol=3e-7)


def test_65536_rows_agree_with_the_factored_form():
    s, y = draw(65_536, levels=2)
    value, gradient = evaluate(s, y)
    expected, slopes = evaluate(s, y == 1)
    np.testing.assert_allclose(value, expected, rtol=3e-7)
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=4e-6)


@pytest.mark.slow
def test_65536_rows_of_many_labels_agree_with_the_definition():
    s, y = draw(65_536)
    value = evaluate(s, y)[0]
    x, logs = 20.0 * s.astype(float), []
    for level in range(1, 6):
        pairs = np.logaddexp.reduce(-x[y == level]), np.logaddexp.reduce(x[y < level])
        logs.append(sum(pairs))
    np.testing.assert_allclose(value, np.logaddexp.reduce([0.0, *logs]), rtol=3e-7)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float16", 12),
        ("float16", 300),
        ("bfloat16", 12),
        pytest.param("bfloat16", 300, marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_that_of_the_rounded_cosines(dtype, size):
    s, y = draw(size)
    s = jnp.asarray(s, dtype)
    value, gradient = evaluate(s, y)
    expected, slopes = definition(s.astype(jnp.float32), y)
    assert value.dtype == jnp.float32
    assert gradient.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=3e-7)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(gradient.astype(float), slopes, rtol=eps, atol=1e-5)


def idiom(s, y):
    """The table lowered by 1e12 that other libraries use."""
    x = 20 * s
    differences = x[None, :] - x[:, None]
    differences -= jnp.asarray(y[:, None] <= y[None, :], s.dtype) * 1e12
    return jax.nn.logsumexp(jnp.append(jnp.zeros(1, s.dtype), differences.ravel()))


def test_the_idiom_of_other_libraries_is_nan_in_float16():
    s, y = draw(12)
    expected = definition(s, y)[0]
    np.testing.assert_allclose(idiom(jnp.asarray(s), y), expected, rtol=1e-6)
    value, gradient = jax.value_and_grad(idiom)(jnp.asarray(s, "float16"), y)
    assert np.isnan(value)
    assert np.isnan(gradient).any()


@pytest.mark.parametrize("size", [4, 300])
def test_nan_is_not_silent(size):
    s, y = draw(size)
    y = y.astype(np.float32)
    bad = np.where(np.arange(size) == 1, np.nan, 0.0).astype(np.float32)
    for case in ((s + bad, y), (s, y + bad), (s + bad, y * 0), (s + bad, y > 2)):
        assert np.isnan(evaluate(*case)[0])
    assert np.isnan(evaluate(s + bad, y)[1]).any()
    assert np.isnan(evaluate(s[:1] + np.nan, y[:1])[0])


@pytest.mark.parametrize("size", [2, 300])
def test_labels_are_compared_in_their_own_dtype(size):
    """0.3 and 0.1 + 0.2 are different numbers, which float32 cannot tell apart."""
    y = np.where(np.arange(size) % 2 == 0, 0.3, 0.1 + 0.2)
    s = draw(size)[0]

    def on_host(labels):
        return jax.jit(lambda s: cosent_loss(s, labels))(s)

    np.testing.assert_allclose(on_host(y), definition(s, y)[0], rtol=3e-7)
    assert evaluate(s, y.astype(np.float32))[0] == 0.0
    large, expected = on_host(2**40 + np.arange(size)), definition(s, np.arange(size))
    np.testing.assert_allclose(large, expected[0], rtol=3e-7)


def test_zeros_of_both_signs_are_equal_labels():
    s = draw(300)[0]
    y = np.where(np.arange(300) % 2 == 0, 0.0, -0.0).astype(np.float32)
    assert evaluate(s, y)[0] == 0.0


def test_memory_is_linear_and_a_hundredth_of_the_table():
    s, y = (jnp.asarray(x) for x in draw(4096))

    def temporary(loss):
        compiled = jax.jit(jax.value_and_grad(loss)).lower(s, y).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(cosent_loss) <= 0.01 * temporary(idiom)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([0.1], [1, 2]), {}, ValueError, r"must have one shape \[n\]"),
        (([], []), {}, ValueError, r"n >= 1, got \(0,\)"),
        (([[0.1]], [[1]]), {}, ValueError, r"got \(1, 1\)"),
        (([1, 2], [1, 2]), {}, TypeError, "similarities must be floating-point"),
        (([0.1], [1j]), {}, TypeError, "labels must be real"),
        (([0.1], ["a"]), {}, TypeError, "labels must be real"),
        (
            ([0.1], [1]),
            {"scale": 0.0},
            ValueError,
            "positive .CoSENT uses 20., got 0.0",
        ),
        (([0.1], [1]), {"scale": True}, TypeError, "scale must be a real number"),
        (([0.1], [1]), {"scale": [1.0]}, TypeError, "scale must be a real number"),
        (([0.1], [1]), {"where": [1]}, TypeError, "where must be boolean"),
        (([0.1], [1]), {"where": [True] * 2}, ValueError, r"where must have .* \(1,\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        cosent_loss(jnp.asarray(arguments[0]), arguments[1], **options)


def test_only_boolean_labels_are_binary():
    with pytest.raises(TypeError, match="got int32; pass labels > 0"):
        binary_cosent_loss(jnp.zeros(2), jnp.arange(2))
