"""In-place, cautious and low-precision Lion, and what happens at the edges."""

import functools
import re

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion
from expkit import testing

VARIANTS = {
    "in_place": {"in_place": True},
    "cautious": {"cautious": True},
    "in_place cautious": {"in_place": True, "cautious": True},
    "int8": {"mu_dtype": "int8"},
    "int8 in_place": {"mu_dtype": "int8", "in_place": True},
    "int8 in_place cautious": {"mu_dtype": "int8", "in_place": True, "cautious": True},
    # Eager code rounds to bfloat16 after every operation, compiled code once.
    "bfloat16": {"mu_dtype": "bfloat16"},
    "bfloat16 in_place": {"mu_dtype": "bfloat16", "in_place": True},
}


# How a transformation is wrapped and what its trees are like: options change nothing
# of it, but for codes, of which the state has others.
WRAPPED = (
    "chain",
    "masked",
    "multi_transform",
    "multi_steps",
    "apply_if_finite",
    "extra_arguments",
    "inject_hyperparams",
    "no_recompilation",
    "export_runs_elsewhere",
    "nested_containers",
    "none_leaves",
    "empty_tree",
)


def suite(make, hyperparameters, name):
    loose = {"rtol": 1e-2, "atol": 1e-3} if "bfloat16" in name else {}
    checks = testing.transformation_checks(
        make,
        hyperparameters=hyperparameters,
        optimizer=True,
        learning_rate=0.03,
        **loose,
    )
    # Each option alone always, their combinations in the slow suite.
    return conformance.cases(
        checks,
        name,
        slow=() if name == "int8" else WRAPPED,
        quick=() if " " in name else None,
    )


@pytest.mark.parametrize(
    "check",
    [
        check
        for name, options in VARIANTS.items()
        for check in suite(
            functools.partial(lion.lion, **options),
            {"learning_rate": 1e-2, "weight_decay": 1.0},
            name,
        )
    ],
)
def test_variants_pass_the_conformance_suite(check):
    check()


def compile_donated(tx, params):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    grads = jax.tree.map(jnp.ones_like, params)
    return step.lower(params, tx.init(params), grads).compile()


def copies_and_temp(tx, shape=(64, 128)):
    params = {f"w{i}": jnp.ones(shape) for i in range(10)}
    compiled = compile_donated(tx, params)
    copies = re.findall(r"= (\w+)\[.*\bcopy(?:-start)?\(", compiled.as_text())
    temp = compiled.memory_analysis().temp_size_in_bytes
    return copies, temp / sum(p.nbytes for p in params.values())


@pytest.mark.optimized
@pytest.mark.parametrize("options", [{}, {"cautious": True}], ids=str)
def test_a_donated_step_in_place_copies_nothing(options):
    copies, temp = copies_and_temp(lion.lion(1e-4, in_place=True, **options))
    assert not copies
    assert temp <= 0.01


@pytest.mark.optimized
@pytest.mark.parametrize("shape", [(64, 128), (61, 130)])
def test_a_donated_step_in_place_keeps_no_codes(shape):
    tx = lion.lion(1e-4, mu_dtype="int8", in_place=True)
    copies, temp = copies_and_temp(tx, shape)
    assert copies == ["f32"] * 10  # scales
    assert temp <= 4 / 256


@pytest.mark.optimized
@pytest.mark.parametrize("shape", [(64, 128), (61, 130)])
def test_a_donated_step_with_codes_has_no_other_momentum_in_memory(shape):
    copies, temp = copies_and_temp(lion.lion(1e-4, mu_dtype="int8"), shape)
    assert sorted(copies) == ["f32"] * 10 + ["s8"] * 10
    assert temp <= 0.25 + 4 / 256


@pytest.mark.optimized
def test_a_donated_step_of_optax_lion_copies_every_momentum():
    copies, temp = copies_and_temp(optax.lion(1e-4))
    assert copies == ["f32"] * 10
    assert temp >= 0.99


def directions(tx, grads):
    def step(state, g):
        updates, state = tx.update(g, state)
        return state, updates

    start = tx.init(jax.tree.map(lambda g: g[0], grads))
    return jax.jit(lambda g: jax.lax.scan(step, start, g)[1])(grads)


def noisy_gradients(num_steps=50, size=40_000):
    key_mean, key_noise = jax.random.split(jax.random.key(0))
    scales = jnp.logspace(-6, 1, size)[None]
    means = jax.random.normal(key_mean, (1, size))
    return scales * (means + jax.random.normal(key_noise, (num_steps, size)))


@pytest.mark.optimized
def test_in_place_flips_at_most_one_sign_in_a_million():
    grads = noisy_gradients()
    standard = directions(lion.scale_by_lion(), grads)
    in_place = directions(lion.scale_by_lion(in_place=True), grads)
    assert np.mean(standard != in_place) <= 1e-6
    other = directions(lion.scale_by_lion(b1=0.89, in_place=True), grads)
    assert np.mean(standard != other) > 1e-3  # the control


def test_in_place_is_algebraically_the_same_in_float64():
    with jax.enable_x64(True):
        grads = jnp.asarray(np.float64(noisy_gradients(20, 1000)))
        standard = directions(lion.scale_by_lion(0.95, 0.98), grads)
        in_place = directions(lion.scale_by_lion(0.95, 0.98, in_place=True), grads)
        np.testing.assert_array_equal(standard, in_place)


def test_in_place_refuses_a_momentum_without_memory():
    with pytest.raises(ValueError, match=r"b2 must be above 0 when in_place, got 0\.0"):
        lion.lion(1e-3, b2=0.0, in_place=True)
    lion.lion(1e-3, b2=0.0)


def test_cautious_is_the_published_rule():
    """C-Optim: mask = (u * g > 0); u * mask * numel / (mask.sum() + 1), per tensor."""
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (6, 5), (0, 4), (4, 0), (1025,), (3, 2100), (2, 40, 33)]
    grads = {str(shape): rng.normal(size=(8, *shape)) for shape in shapes}
    got = directions(
        lion.scale_by_lion(cautious=True),
        jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads),
    )
    for name, series in grads.items():
        m = np.zeros(series.shape[1:])
        for t, g in enumerate(series):
            u = np.sign(0.9 * m + 0.1 * g)
            mask = u * g > 0
            wanted = u * mask * (mask.size / (mask.sum() + 1))
            np.testing.assert_allclose(got[name][t], wanted, rtol=1e-6)
            m = 0.99 * m + 0.01 * g


def test_cautious_factor_beyond_float16_is_its_largest_number():
    """One of n = 300000 coordinates agrees: n / 2 in exact arithmetic."""
    size = 300_000
    for dtype, wanted in (
        (np.float16, np.finfo(np.float16).max),
        (np.float32, size / 2),
        (jnp.bfloat16, np.asarray(size / 2, jnp.bfloat16)),
    ):
        params = jnp.ones(size, dtype)
        grad = jnp.zeros_like(params).at[0].set(1)
        tx = lion.scale_by_lion(cautious=True)
        update, _ = jax.jit(tx.update)(grad, tx.init(params))
        update = np.asarray(update)
        assert update.dtype == dtype
        assert update[0] == wanted
        assert not update[1:].any()
    many = jnp.zeros(size, jnp.float16).at[:9].set(1)  # n / (k + 1) = 30000
    tx = lion.scale_by_lion(cautious=True)
    update, _ = jax.jit(tx.update)(many, tx.init(many))
    assert update[0] == np.float16(30000)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_zero_gradients_from_the_start_move_nothing(options):
    updates = directions(lion.scale_by_lion(**options), jnp.zeros((5, 300)))
    np.testing.assert_array_equal(updates, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_apply_if_finite_keeps_the_momentum_clean(bad):
    tx = optax.apply_if_finite(lion.lion(1e-2), max_consecutive_errors=3)
    params = jnp.ones(4)
    clean = tx.init(params)
    _, clean = tx.update(jnp.ones(4), clean, params)
    updates, after = tx.update(jnp.full(4, bad), clean, params)
    np.testing.assert_array_equal(updates, 0.0)
    np.testing.assert_array_equal(after.inner_state[0].mu, clean.inner_state[0].mu)
    unguarded = lion.lion(1e-2)
    _, state = unguarded.update(jnp.full(4, bad), unguarded.init(params), params)
    assert not np.isfinite(state[0].mu).any()  # what the guard is for


def test_global_norm_clipping_changes_only_the_mixture():
    grads = noisy_gradients(30, 500)
    clip = optax.clip_by_global_norm(1.0)
    clipped = directions(optax.chain(clip, lion.scale_by_lion()), grads)
    assert set(np.unique(clipped)) <= {-1.0, 0.0, 1.0}
    # Scaling each step's gradient by hand gives the same: clipping does no more.
    norms = jnp.linalg.norm(grads, axis=1, keepdims=True)
    by_hand = directions(lion.scale_by_lion(), grads / jnp.maximum(1.0, norms))
    assert np.mean(clipped != by_hand) <= 1e-4
    plain = directions(lion.scale_by_lion(), grads)
    np.testing.assert_array_equal(clipped[0], plain[0])


def test_cautious_compares_complex_numbers_by_their_angle():
    gradient = jnp.array([1j, 1.0, 1.0 - 1j], jnp.complex64)
    tx = lion.scale_by_lion(cautious=True)
    updates, _ = tx.update(gradient, tx.init(jnp.zeros_like(gradient)))
    np.testing.assert_allclose(
        updates, 3 / 4 * np.array([1j, 1.0, (1 - 1j) / np.sqrt(2)]), rtol=1e-6
    )


@pytest.mark.parametrize("mu_dtype", ["int8", "bfloat16"])
def test_a_real_momentum_of_complex_parameters_is_refused(mu_dtype):
    params = {"w": jnp.zeros(2), "z": jnp.zeros(2, jnp.complex64)}
    with pytest.raises(ValueError, match="mu_dtype must be complex or None for"):
        lion.lion(0.1, mu_dtype=mu_dtype).init(params)
    lion.lion(0.1, mu_dtype="complex64").init(params)
