"""Lion against optax.lion (bits), a float64 transcription, and its own symmetries."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit import testing

NUM_STEPS = 200


def make_params(dtype):
    key_w, key_b = jax.random.split(jax.random.key(0))
    return {
        "w": jax.random.normal(key_w, (16, 8), dtype),
        "b": {"c": jax.random.normal(key_b, (8,), dtype)},
        "s": jnp.ones((), dtype),
    }


def make_gradients(params, num_steps):
    """Gradients whose scale goes over seven decades inside every leaf."""

    def gradients(i, p):
        scale = 10.0 ** np.linspace(-6, 1, max(p.size, 2))[: p.size].reshape(p.shape)
        key = jax.random.fold_in(jax.random.key(1), i)
        noise = jax.random.normal(key, (num_steps, *p.shape))
        # In NumPy, where a step's are a view and no program.
        return np.asarray((noise * scale[None]).astype(p.dtype))

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten(gradients(i, p) for i, p in enumerate(leaves))


def run(tx, params, grads):
    """The parameters and the state after every step, one jitted step at a time."""

    @jax.jit
    def step(params, state, grad):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    trajectory = []
    for i in range(len(jax.tree.leaves(grads)[0])):
        grad = jax.tree.map(lambda g, i=i: g[i], grads)
        params, state = step(params, state, grad)
        trajectory.append((params, jax.tree.leaves(state)))
    return trajectory


def assert_same_bits(got, wanted):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w)


VARIANTS = {
    "defaults": {},
    "betas": {"b1": 0.95, "b2": 0.98, "weight_decay": 0.0},
    "bfloat16 momentum": {"mu_dtype": jnp.bfloat16, "weight_decay": 0.1},
    "mask": {"mask": {"w": True, "b": False, "s": False}, "weight_decay": 1.0},
    "mask function": {"mask": lambda p: jax.tree.map(lambda x: x.ndim > 1, p)},
    "schedule": {
        "learning_rate": optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, NUM_STEPS)
    },
}


@pytest.mark.optimized
@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_trajectory_has_the_bits_of_optax_lion(options, dtype):
    params = make_params(dtype)
    grads = make_gradients(params, NUM_STEPS)
    options = {"learning_rate": 1e-3, **options}
    assert_same_bits(
        run(lion.lion(**options), params, grads),
        run(optax.lion(**options), params, grads),
    )


@pytest.mark.optimized
def test_injected_hyperparameters_have_the_bits_of_optax_lion():
    params = make_params(jnp.float32)
    grads = make_gradients(params, NUM_STEPS)
    options = {"learning_rate": lambda step: 1e-3 / (1 + step), "b1": 0.8, "b2": 0.9}
    assert_same_bits(
        run(optax.inject_hyperparams(lion.lion)(**options), params, grads),
        run(optax.inject_hyperparams(optax.lion)(**options), params, grads),
    )


@pytest.mark.optimized
def test_comparison_with_optax_lion_sees_a_wrong_beta():
    params = make_params(jnp.float32)
    grads = make_gradients(params, NUM_STEPS)
    ours = run(lion.lion(1e-3, b2=0.99 + 1e-6), params, grads)
    with pytest.raises(AssertionError):
        assert_same_bits(ours, run(optax.lion(1e-3), params, grads))


def algorithm_2(params, grads, learning_rate, b1, b2, weight_decay, *, is_coupled):
    """Chen et al. 2023, Algorithm 2, in float64; `magnitude` is m run on |g|."""
    m, magnitude = np.zeros_like(params), np.zeros_like(params)
    for g in grads:
        decay = weight_decay * params
        if is_coupled:
            g, decay = g + decay, 0.0
        c = b1 * m + (1 - b1) * g
        c_magnitude = b1 * magnitude + (1 - b1) * np.abs(g)
        params = params - learning_rate * (np.sign(c) + decay)
        m = b2 * m + (1 - b2) * g
        magnitude = b2 * magnitude + (1 - b2) * np.abs(g)
        yield params, m, magnitude, c, c_magnitude


def compare_with_algorithm_2(*, is_coupled):
    settings = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1}
    size, num_steps, eps = 20_000, 10, np.finfo(np.float32).eps
    params = jax.random.normal(jax.random.key(2), (size,))
    grads = make_gradients(params, num_steps)
    reference = algorithm_2(
        np.float64(params), np.float64(grads), **settings, is_coupled=is_coupled
    )
    before = params
    for (after, (_, m, *_)), wanted in zip(
        run(lion.lion(**settings), params, grads), reference, strict=True
    ):
        _, m_wanted, magnitude, c, c_magnitude = wanted
        error = np.abs(np.float64(m) - m_wanted)
        assert (error <= 16 * eps * magnitude).all()
        # One step moves by lr * (sign + decay): the sign is what is left.
        step = (np.float64(before) - np.float64(after)) / settings["learning_rate"]
        sign = np.round(step - settings["weight_decay"] * np.float64(before))
        is_clear = np.abs(c) > 16 * eps * c_magnitude
        assert is_clear.mean() > 0.99
        np.testing.assert_array_equal(sign[is_clear], np.sign(c)[is_clear])
        before = after


@pytest.mark.optimized
def test_momentum_and_signs_are_those_of_algorithm_2_in_float64():
    compare_with_algorithm_2(is_coupled=False)


@pytest.mark.parametrize("in_place", [False, True])
def test_two_steps_by_hand(in_place):
    """m is 0.2 after the first; then c is 0.1 + 0.5 g, of either sign around -0.2."""
    tx = lion.scale_by_lion(0.5, 0.8, in_place=in_place)
    _, state = tx.update(jnp.ones(4), tx.init(jnp.ones(4)))
    signs, state = tx.update(jnp.array([0.0, -0.18, -0.22, -1.0]), state)
    np.testing.assert_array_equal(signs, [1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(state.mu, [0.16, 0.124, 0.116, -0.04], rtol=1e-6)


def test_coupled_weight_decay_is_not_algorithm_2():
    with pytest.raises(AssertionError):
        compare_with_algorithm_2(is_coupled=True)


@pytest.mark.parametrize(
    "check",
    testing.transformation_checks(
        lion.lion,
        hyperparameters={"learning_rate": 1e-2, "weight_decay": 0.1},
        optimizer=True,
        learning_rate=0.03,
    ),
    ids=lambda check: check.name,
)
def test_lion_passes_the_conformance_suite(check):
    check()


@pytest.mark.slow  # what lion passes on the whole
@pytest.mark.parametrize(
    "check", testing.transformation_checks(lion.scale_by_lion), ids=lambda c: c.name
)
def test_scale_by_lion_passes_the_conformance_suite(check):
    check()


@pytest.mark.optimized
@hypothesis.settings(derandomize=True, deadline=None, max_examples=50)
@hypothesis.given(
    grads=hnp.arrays(
        np.float32,
        (3, 7),
        # Far from the subnormals, which the CPU flushes to zero.
        elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False).map(
            lambda x: np.float32(0.0) if abs(x) < 2.0**-40 else np.float32(x)
        ),
    ),
    exponent=st.integers(-40, 40),
)
def test_power_of_two_gradient_scale_changes_no_bit(grads, exponent):
    params = jnp.ones(7)
    tx = lion.lion(1e-3, weight_decay=0.1)
    state_1 = state_2 = tx.init(params)
    for g in grads:
        one, state_1 = tx.update(g, state_1, params)
        two, state_2 = tx.update(g * np.float32(2.0) ** exponent, state_2, params)
        np.testing.assert_array_equal(one, two)


def test_momentum_keeps_its_dtype_under_wider_gradients():
    params = jnp.ones(3, jnp.bfloat16)
    tx = lion.scale_by_lion()
    _, state = tx.update(jnp.ones(3, jnp.float32), tx.init(params))
    assert state.mu.dtype == jnp.bfloat16
    _, theirs = optax.scale_by_lion().update(
        jnp.ones(3), optax.lion(1.0).init(params)[0]
    )
    assert theirs.mu.dtype == jnp.float32  # what the cast is for


def test_half_precision_of_numpy_stays_half():
    gradient = np.asarray(jnp.array([1.0, -2.0], jnp.bfloat16))
    assert (0.1 * gradient).dtype == np.float32  # what NumPy does
    tx = lion.scale_by_lion(cautious=True)
    update, state = tx.update(gradient, tx.init(jnp.zeros(2, jnp.bfloat16)))
    assert update.dtype == state.mu.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b1": 1.5}, r"b1 must be in \[0, 1\], got 1.5"),
        ({"b2": 1.0}, r"b2 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"b1": float("nan")}, r"b1 must be in \[0, 1\], got nan"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"learning_rate": -1e-3}, "learning_rate must be at least 0, got -0.001"),
    ],
)
def test_wrong_numbers_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        lion.lion(**{"learning_rate": 1e-3, **options})


WRONG_NUMBERS = [
    ("learning_rate", np.float32(-1e-3), ValueError),
    ("learning_rate", jnp.float32(-1e-3), ValueError),
    ("learning_rate", float("inf"), ValueError),
    ("learning_rate", np.ones(2), ValueError),
    ("learning_rate", None, TypeError),
    ("learning_rate", "1e-3", TypeError),  # what YAML makes of 1e-3
    ("learning_rate", True, TypeError),
    ("weight_decay", np.float32(-1.0), ValueError),
    ("weight_decay", np.inf, ValueError),
    ("weight_decay", None, TypeError),
    ("b1", np.float32(2.0), ValueError),
    ("b1", jnp.float32(np.nan), ValueError),
    ("b1", (0.9, 0.99), TypeError),
    ("b1", 0.9j, TypeError),
    ("b1", jax.random.key(0), TypeError),
    ("b2", np.float32(2.0), ValueError),
    ("b2", lambda step: 0.9, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG_NUMBERS)
def test_what_is_no_number_in_range_is_refused_by_name(name, value, error):
    with pytest.raises(error, match=rf"^{name} must be .*, got ") as caught:
        lion.lion(**{"learning_rate": 1e-3, name: value})
    shown = "shape (2,)" if isinstance(value, np.ndarray) else repr(value)
    assert str(caught.value).endswith(f"got {shown}.")


@pytest.mark.parametrize(
    "number", [np.float32, np.float64, np.asarray, jnp.float32, jnp.bfloat16]
)
def test_numbers_of_numpy_and_jax_do_as_those_of_python(number):
    """All are powers of two, so that no dtype rounds them."""
    values = {"learning_rate": 0.125, "b1": 0.5, "b2": 0.25, "weight_decay": 0.0625}
    params, grad = jnp.ones(2), jnp.array([2.0, -3.0])
    ours = lion.lion(**{name: number(value) for name, value in values.items()})
    theirs = optax.lion(**values)
    got, (state, *_) = ours.update(grad, ours.init(params), params)
    wanted, (their_state, *_) = theirs.update(grad, theirs.init(params), params)
    assert_same_bits((got, state.mu), (wanted, their_state.mu))


def test_a_traced_number_out_of_range_passes_and_another_kind_does_not():
    def first_update(learning_rate):
        tx = lion.lion(learning_rate, weight_decay=0.0)
        return tx.update(jnp.ones(()), tx.init(jnp.ones(())), jnp.ones(()))[0]

    assert jax.jit(first_update)(-0.5) == 0.5
    with pytest.raises(TypeError, match="learning_rate must be a real number, got"):
        jax.jit(first_update)(True)
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(2,\)"):
        jax.jit(first_update)(jnp.ones(2))


def test_weight_decay_may_be_a_schedule():
    tx = lion.lion(1.0, weight_decay=lambda step: 0.25 * (step + 1))
    params = jnp.array(2.0)
    state = tx.init(params)
    for wanted in (-0.5, -1.0):  # -decay * params
        update, state = tx.update(jnp.zeros(()), state, params)
        assert update == wanted


def test_defaults_are_those_of_optax_lion():
    import inspect

    ours = inspect.signature(lion.lion).parameters
    theirs = inspect.signature(optax.lion).parameters
    for name in ("b1", "b2", "mu_dtype", "weight_decay", "mask"):
        assert ours[name].default == theirs[name].default
    shared = [name for name in ours if name in theirs]
    assert shared == [name for name in theirs if name in shared]
