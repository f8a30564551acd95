"""Stochastic rounding: the two neighbours, with the right probability, everywhere."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from scipy import stats

import lion
from expkit import testing
from expkit.checkpoint import Checkpointer
from lion.rounding import round_stochastically

LOW = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def neighbours(value, dtype):
    """The representable numbers around a float, by an independent library."""
    near = LOW[dtype](value)
    if float(near) == value:
        return float(near), float(near)
    if float(near) > value:
        return float(np.nextafter(near, LOW[dtype](-np.inf))), float(near)
    return float(near), float(np.nextafter(near, LOW[dtype](np.inf)))


CASES = [
    ("bfloat16", 1.001),
    ("bfloat16", -1.001),
    ("bfloat16", 1.9999),  # the upper neighbour is in the next binade
    ("bfloat16", 0.99999),
    ("bfloat16", 1e-30),
    ("bfloat16", 3.3e38),
    ("float16", 1.0001),
    ("float16", 1.9999),
    ("float16", -3e-5),  # subnormal in float16
    ("float16", 1e-8),  # between 0 and the smallest subnormal
    ("float16", 65500.0),
]


@pytest.mark.parametrize(("dtype", "value"), CASES)
def test_the_neighbours_come_with_the_right_probability(dtype, value):
    num_draws = 100_000
    value = float(np.float32(value))
    low, high = neighbours(value, dtype)
    x = jnp.full((num_draws,), value, jnp.float32)
    drawn = np.float64(round_stochastically(jax.random.key(0), x, dtype))
    ups = int((drawn == high).sum())
    assert ups + int((drawn == low).sum()) == num_draws
    p = (value - low) / (high - low)
    expected = [num_draws * (1 - p), num_draws * p]
    assert stats.chisquare([num_draws - ups, ups], expected).pvalue > 1e-4
    nearest = [num_draws, 0] if p < 0.5 else [0, num_draws]  # the control
    assert stats.chisquare(nearest, expected).pvalue < 1e-4


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", LOW)
def test_representable_values_stay(dtype):
    bits = np.arange(2**16, dtype=np.uint16)
    values = bits.view(LOW[dtype])
    wide = values.astype(np.float32)
    # The CPU flushes float32 subnormals to 0.
    values = values[(np.abs(wide) >= np.finfo(np.float32).tiny) | (wide == 0)]
    x = jnp.asarray(values.astype(np.float32))
    rounded = round_stochastically(jax.random.key(0), x, dtype)
    np.testing.assert_array_equal(np.asarray(rounded), values)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_update_of_zero_moves_no_small_weight(sign):
    """Next to 1000 spacings a float32 has no digits for every random number."""
    params = jnp.full(400_000, sign * 1000 * 2.0**-24, jnp.float16)
    tx = lion.stochastic_rounding(jax.random.key(0))
    updates, _ = tx.update(jnp.zeros_like(params), tx.init(params), params)
    np.testing.assert_array_equal(updates, 0.0)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after, params)


@pytest.mark.parametrize("value", [1000.25, 1000.75, -1000.25, 0.5, -0.125, 1023.5])
def test_between_two_small_weights_the_mean_is_right(value):
    spacing, num_draws = 2.0**-24, 400_000
    x = jnp.full(num_draws, value * spacing, jnp.float32)
    drawn = round_stochastically(jax.random.key(0), x, "float16")
    counts = np.float64(drawn) / spacing
    assert set(np.unique(counts)) == {np.floor(value), np.ceil(value)}
    p = value - np.floor(value)  # a Bernoulli number, and its mean
    deviation = np.sqrt(p * (1 - p) / num_draws)
    assert abs(counts.mean() - value) < 4 * deviation


@pytest.mark.parametrize("dtype", LOW)
def test_what_is_not_finite_stays_and_nothing_else_becomes_so(dtype):
    largest = float(jnp.finfo(dtype).max)
    x = jnp.array([np.nan, np.inf, -np.inf, largest, -largest, largest * 1.0001])
    rounded = np.float64(round_stochastically(jax.random.key(0), x, dtype))
    expected = [np.nan, np.inf, -np.inf, largest, -largest, largest]
    np.testing.assert_array_equal(rounded, expected)


@pytest.mark.optimized
def test_apply_updates_lands_on_the_rounded_value():
    rng = np.random.default_rng(0)
    n = 200_000
    p = jnp.asarray(rng.normal(size=n) * 10.0 ** rng.uniform(-20, 20, n), jnp.bfloat16)
    free = rng.normal(size=n) * 10.0 ** rng.uniform(-20, 20, n)
    # Half of the updates almost cancel the parameter.
    error = 1 + rng.normal(size=n) * 10.0 ** rng.uniform(-8, 0, n)
    cancelling = -np.float64(p) * error
    u = jnp.asarray(np.where(np.arange(n) % 2, free, cancelling), jnp.float32)
    tx = lion.stochastic_rounding(jax.random.key(1))
    updates, _ = tx.update(u, tx.init(p), p)
    assert updates.dtype == jnp.float32
    got = np.float64(optax.apply_updates(p, updates))
    exact = np.float64(np.float32(np.float32(p) + np.float32(u)))
    near = exact.astype(ml_dtypes.bfloat16)
    below, above = (
        np.float64(np.nextafter(near, ml_dtypes.bfloat16(to)))
        for to in (-np.inf, np.inf)
    )
    near = np.float64(near)
    low, high = np.where(near > exact, below, near), np.where(near < exact, above, near)
    assert ((got == low) | (got == high)).all()
    is_between = low < high
    assert 0.3 < np.mean((got == high)[is_between]) < 0.7  # both of them


@pytest.mark.parametrize("dtype", LOW)
def test_an_infinite_parameter_stays_what_it_is(dtype):
    params = jnp.array([np.inf, -np.inf, np.inf, 1.0], dtype)
    updates = jnp.array([0.5, 0.5, -np.inf, np.inf])
    tx = lion.stochastic_rounding(jax.random.key(0))
    rounded, _ = tx.update(updates, tx.init(params), params)
    after = np.float64(optax.apply_updates(params, rounded))
    np.testing.assert_array_equal(after, [np.inf, -np.inf, np.nan, np.inf])


def displacement(tx, dtype, num_steps=1000):
    params = jax.random.normal(jax.random.key(0), (20_000,)).astype(dtype)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.ones_like(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (after, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=num_steps)
    return np.float64(params) - np.float64(after)


@pytest.mark.optimized
def test_a_thousand_small_steps_move_bfloat16_as_far_as_float32():
    rule = lion.lion(1e-4, weight_decay=0.0)
    rounded = optax.chain(rule, lion.stochastic_rounding(jax.random.key(2)))
    wide = displacement(rule, jnp.float32).mean()
    np.testing.assert_allclose(
        displacement(rounded, jnp.bfloat16).mean(), wide, rtol=0.01
    )
    stuck = displacement(rule, jnp.bfloat16)  # the control: round to nearest
    assert (stuck != 0).mean() < 0.05


def test_steps_and_leaves_use_different_randomness():
    params = {"a": jnp.ones(1000, jnp.bfloat16), "b": jnp.ones(1000, jnp.bfloat16)}
    tx = lion.stochastic_rounding(jax.random.key(0))
    small = jax.tree.map(lambda p: jnp.full(p.shape, 2e-3), params)
    first, state = tx.update(small, tx.init(params), params)
    second, _ = tx.update(small, state, params)
    again, _ = tx.update(small, tx.init(params), params)
    np.testing.assert_array_equal(first["a"], again["a"])
    for other in (first["b"], second["a"]):
        # Independent draws with p about 1/4 agree in 10/16 of the entries.
        agreement = np.mean(first["a"] == other)
        assert 0.5 < agreement < 0.75


def test_a_run_from_a_checkpoint_has_the_bits_of_one_without(tmp_path):
    tx = optax.chain(lion.lion(1e-4), lion.stochastic_rounding(jax.random.key(3)))

    def advance(carry, num_steps):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, length=num_steps)[0]

    params = jax.random.normal(jax.random.key(0), (1000,)).astype(jnp.bfloat16)
    start = params, tx.init(params)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(20, advance(start, 20))
    with Checkpointer(tmp_path) as checkpoints:
        resumed = advance(checkpoints.restore(start), 20)
    np.testing.assert_array_equal(resumed[0], advance(start, 40)[0])
    again = advance((resumed[0], start[1]), 20)  # the control: another state
    assert (again[0] != advance(resumed, 20)[0]).any()


def test_other_leaves_pass_unchanged():
    params = {"f": jnp.ones(3), "i": jnp.arange(3), "h": jnp.ones(3, jnp.float16)}
    updates = {"f": jnp.full(3, 1e-9), "i": jnp.arange(3), "h": jnp.ones(3) / 3}
    tx = lion.stochastic_rounding(jax.random.key(0))
    rounded, _ = tx.update(updates, tx.init(params), params)
    assert rounded["f"] is updates["f"]
    assert rounded["i"] is updates["i"]
    assert rounded["h"].dtype == jnp.float32


@pytest.mark.parametrize(
    "check",
    testing.transformation_checks(
        lambda **options: optax.chain(
            lion.lion(**options), lion.stochastic_rounding(jax.random.key(0))
        ),
        hyperparameters={"learning_rate": 1e-2, "weight_decay": 0.1},
        update_dtype="float32",
        optimizer=True,
        learning_rate=0.03,
    ),
    ids=lambda check: check.name,
)
def test_lion_with_rounding_passes_the_conformance_suite(check):
    check()


def test_steps_that_are_not_finite_are_left_out_by_optax_before_it():
    params = jnp.ones(3, jnp.bfloat16)
    step = optax.apply_if_finite(lion.lion(0.25, weight_decay=0.0), 3)
    tx = optax.chain(step, lion.stochastic_rounding(jax.random.key(0)))
    bad, good = jnp.full_like(params, jnp.nan), jnp.ones_like(params)
    updates, state = tx.update(bad, tx.init(params), params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates), params)
    updates, _ = tx.update(good, state, params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates), 0.75 * params)


def test_wrong_keys_and_missing_parameters_are_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    for wrong in (jnp.zeros(2, jnp.uint32), None, "0", 0, keys):
        with pytest.raises(ValueError, match="key must be one typed key from"):
            lion.stochastic_rounding(wrong)
    tx = lion.stochastic_rounding(jax.random.key(0))
    with pytest.raises(ValueError, match="needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_numbers_of_python_are_parameters():
    tx = lion.stochastic_rounding(jax.random.key(0))
    updates, _ = tx.update({"x": 0.1}, tx.init({"x": 2.0}), {"x": 2.0})
    assert updates["x"] == jnp.float32(0.1)
