"""ChildTuning's masks: which entries pass, with which factor, and what they keep."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
from expkit import testing
from expkit.checkpoint import Checkpointer

KEY = jax.random.key(0)


def masked_once(tx, grads):
    return tx.update(grads, tx.init(grads))[0]


def half_mask(params):
    """True at every second entry, beginning with the first."""
    return jax.tree.map(
        lambda p: jnp.asarray(np.arange(p.size).reshape(p.shape) % 2 == 0), params
    )


@pytest.mark.parametrize(
    "make", [childtuning.child_tuning_f, childtuning.update_dropout]
)
@pytest.mark.parametrize("p", [0.2, 0.7])
def test_entries_are_zero_or_divided_by_p_with_the_right_frequency(make, p):
    grads = jnp.linspace(1.0, 2.0, 100_000)
    kept = np.asarray(masked_once(make(p, KEY), grads))
    is_kept = kept != 0
    deviation = np.sqrt(p * (1 - p) / grads.size)
    assert abs(is_kept.mean() - p) < 4 * deviation
    expected = np.float64(grads) / p
    np.testing.assert_allclose(kept[is_kept], expected[is_kept], rtol=2e-7)
    plain = np.asarray(masked_once(make(p, KEY, rescale=False), grads))
    np.testing.assert_array_equal(plain, np.where(is_kept, grads, 0.0))


@pytest.mark.parametrize("p", [1, 1.0, jnp.float32(1.0)], ids=repr)
def test_with_p_one_gradients_pass_bit_for_bit(p):
    grads = jnp.array([1.0, -0.0, 1e-40, 3e38, jnp.inf, jnp.nan])
    kept = masked_once(childtuning.child_tuning_f(p, KEY), grads)
    testing.assert_trees_equal(kept, grads, "gradients")


def test_steps_leaves_and_keys_have_masks_of_their_own():
    grads = {"a": jnp.ones(4000), "b": jnp.ones(4000)}
    tx = childtuning.child_tuning_f(0.5, KEY)
    first, state = tx.update(grads, tx.init(grads))
    second, _ = tx.update(grads, state)
    other = masked_once(childtuning.child_tuning_f(0.5, jax.random.key(1)), grads)
    for x in (first["b"], second["a"], other["a"]):
        # Independent masks agree at half of the entries, up to 4 deviations.
        assert abs(np.mean(first["a"] == x) - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_a_nan_stays_only_where_it_is_kept():
    grads = jnp.full(64, jnp.nan)
    masks = {
        "F": childtuning.child_tuning_f(0.5, KEY),
        "D": childtuning.child_tuning_d(half_mask(grads)),
    }
    for tx in masks.values():
        kept = np.asarray(masked_once(tx, grads))
        shown = np.asarray(masked_once(tx, jnp.ones(64))) != 0
        np.testing.assert_array_equal(np.isnan(kept), shown)
        assert 0 < shown.sum() < 64


@pytest.mark.parametrize("axis", [0, 1])
def test_a_sharded_gradient_gets_the_mask_of_a_whole_one(axis):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec(*[None] * axis, "data")
    grads = jnp.ones((16, 64))
    sharded = jax.device_put(grads, NamedSharding(mesh, spec))
    for tx in (
        childtuning.child_tuning_f(0.3, KEY),
        childtuning.child_tuning_d(half_mask(grads)),
    ):
        whole = masked_once(tx, grads)
        cut = jax.jit(lambda g, tx=tx: masked_once(tx, g))(sharded)
        assert cut.sharding.is_equivalent_to(sharded.sharding, 2)
        np.testing.assert_array_equal(cut, whole)


def test_a_run_from_a_checkpoint_has_the_bits_of_one_without(tmp_path):
    params = {"w": jnp.linspace(-1.0, 1.0, 96).reshape(8, 12), "b": jnp.ones(5)}
    tx = optax.chain(
        childtuning.child_tuning_d(half_mask(params)),
        childtuning.child_tuning_f(0.5, KEY),
        optax.trace(0.9),
    )

    def advance(carry, num_steps):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, length=num_steps)[0]

    start = params, tx.init(params)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, advance(start, 3))
    with Checkpointer(tmp_path) as checkpoints:
        middle = checkpoints.restore(start)
    straight = advance(start, 6)
    testing.assert_trees_equal(advance(middle, 3), straight, "the end")
    again = advance((middle[0], start[1]), 3)  # the control: masks from the beginning
    assert (again[0]["w"] != straight[0]["w"]).any()


SHAPES = [(), (3,), (8,), (0, 4), (4, 0), (1025,), (5, 16), (7, 3), (2, 3, 24)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_d_selects_by_its_mask_in_every_shape(shape):
    rng = np.random.default_rng(0)
    mask, grads = rng.random(shape) < 0.4, rng.normal(size=shape).astype(np.float32)
    tx = childtuning.child_tuning_d({"w": jnp.asarray(mask)})
    params = {"w": jnp.asarray(grads)}
    kept = jax.jit(lambda g: masked_once(tx, g))(params)["w"]
    np.testing.assert_array_equal(kept, np.where(mask, grads, 0.0))
    assert kept.shape == shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_d_keeps_an_eighth_of_a_byte_for_each_parameter(shape):
    params = {"w": jnp.zeros(shape)}
    state = childtuning.child_tuning_d(half_mask(params)).init(params)
    (packed,) = jax.tree.leaves(state)
    assert packed.dtype == jnp.uint8
    assert packed.size == -(-params["w"].size // 8)


def test_integer_and_absent_leaves_pass():
    params = {"i": jnp.arange(4), "n": None, "f": jnp.ones(4)}
    grads = jax.grad(lambda p: jnp.sum(p["f"] ** 2), allow_int=True)(params)
    assert grads["i"].dtype == jax.dtypes.float0
    kept = masked_once(childtuning.child_tuning_f(0.5, KEY), grads)
    assert kept["i"] is grads["i"]
    assert kept["n"] is None
    tx = childtuning.child_tuning_d(half_mask(params))
    kept, _ = tx.update(grads, tx.init(params))
    assert kept["i"] is grads["i"]
    np.testing.assert_array_equal(kept["f"], [2, 0, 2, 0])
    kept, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(kept["i"], [0, 0, 2, 0])
    random = masked_once(childtuning.child_tuning_f(0.5, KEY), params)
    np.testing.assert_array_equal(random["i"], params["i"])


def test_complex_gradients_are_masked_and_rescaled_as_real_ones():
    real = jnp.linspace(1.0, 2.0, 64)
    tx = childtuning.child_tuning_f(0.25, KEY)
    kept = masked_once(tx, [real * (1 + 2j)])[0]
    assert kept.dtype == jnp.complex64
    np.testing.assert_array_equal(kept.imag, 2 * kept.real)
    np.testing.assert_array_equal(kept.real, masked_once(tx, [real])[0])
    assert 0 < np.sum(kept != 0) < 64


def moved(tx, num_steps=10):
    """How far each of 64 ones moves under normal gradients."""
    params = start = jnp.ones(64)
    state = tx.init(params)
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        grads = jnp.asarray(rng.normal(size=64), jnp.float32)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return np.abs(np.asarray(params - start))


def test_a_second_mask_at_the_end_stops_decay_and_momentum():
    mask = half_mask(jnp.ones(64))
    child = childtuning.child_tuning_d(mask)
    adamw = optax.adamw(1e-2, weight_decay=0.1)
    inside, outside = np.asarray(mask), ~np.asarray(mask)
    first = moved(optax.chain(child, adamw))
    np.testing.assert_allclose(first[outside], 1 - (1 - 1e-3) ** 10, rtol=1e-4)
    both = moved(optax.chain(child, adamw, child))
    np.testing.assert_array_equal(both[outside], 0.0)
    np.testing.assert_array_equal(both[inside], first[inside])


def test_update_dropout_freezes_what_it_masks_and_gradient_masks_do_not():
    params = jnp.ones(4000)

    def still(tx):
        state = tx.init(params)
        for _ in range(2):  # momentum has to gather first
            updates, state = tx.update(params, state, params)
        return np.mean(np.asarray(updates) == 0)

    adam = optax.adam(0.1)
    masked_updates = optax.chain(adam, childtuning.update_dropout(0.3, KEY))
    masked_gradients = optax.chain(childtuning.child_tuning_f(0.3, KEY), adam)
    deviation = np.sqrt(0.7 * 0.3 / 4000)
    assert abs(still(masked_updates) - 0.7) < 4 * deviation
    # Only what both masks have hidden has no momentum yet.
    assert abs(still(masked_gradients) - 0.49) < 4 * deviation


def child_d(params, **options):
    return childtuning.child_tuning_d(half_mask(params), **options)


SUITES = {
    "f": testing.transformation_checks(
        functools.partial(childtuning.child_tuning_f, key=KEY),
        hyperparameters={"reserve_p": 0.6},
        optimizer=True,
        learning_rate=0.03,
    ),
    "dropout": testing.transformation_checks(
        functools.partial(childtuning.update_dropout, key=KEY, rescale=False),
        hyperparameters={"reserve_p": 0.6},
    ),
    "d": testing.transformation_checks(child_d, takes_params=True),
}


@pytest.mark.parametrize(
    "check",
    [
        case
        for name, checks in SUITES.items()
        # "dropout" is the same transformation as "f", after the optimizer.
        for case in conformance.cases(
            checks, name, quick=() if name == "dropout" else None
        )
    ],
)
def test_masks_pass_the_conformance_suite(check):
    check()


@pytest.mark.parametrize("p", [0, 0.0, -0.1, 1.1, float("nan"), True, "0.3", None])
def test_fractions_outside_the_unit_interval_are_refused(p):
    for make in (childtuning.child_tuning_f, childtuning.update_dropout):
        with pytest.raises(ValueError, match=r"reserve_p must be in \(0, 1\]"):
            make(p, KEY)


@pytest.mark.parametrize("key", [0, jnp.zeros(2, jnp.uint32), jax.random.split(KEY)])
def test_what_is_no_typed_key_is_refused(key):
    with pytest.raises(ValueError, match="key must be one typed key"):
        childtuning.child_tuning_f(0.5, key)


YES = jnp.ones(3, bool)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"a": YES}, r"no leaf at .*'b'"),
        ({"a": YES, "b": [YES, YES]}, r"no leaf at .*'b'"),
        ({"a": YES, "b": YES, "c": YES}, r"a leaf at .*'c'"),
        ({"a": YES, "b": YES[:2]}, r"shape \(3,\) at .*'b'.*shape \(2,\)"),
        ({"a": YES, "b": jnp.ones(3)}, r"bools .* at .*'b'.*float32"),
        ({"a": YES, "b": True}, r"bools .* at .*'b'.*bool of shape \(\)"),
        (None, r"no leaf at .*'a'"),
    ],
)
def test_a_mask_that_does_not_match_is_refused_by_path(mask, message):
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    for tx in (childtuning.child_tuning_d(mask), childtuning.child_adamw(1e-3, mask)):
        with pytest.raises(ValueError, match=message):
            tx.init(params)


@pytest.mark.parametrize("keep", [True, False])
def test_a_scalar_parameter_may_have_a_bool_of_python(keep):
    params = {"scale": jnp.float32(2.0), "w": jnp.ones(2)}
    mask = {"scale": keep, "w": jnp.array([False, True])}
    kept = masked_once(childtuning.child_tuning_d(mask), params)
    np.testing.assert_array_equal(kept["scale"], 2.0 * keep)
    np.testing.assert_array_equal(kept["w"], [0.0, 1.0])


def test_a_mask_of_all_parameters_works_where_optax_hides_some():
    params = {"a": jnp.ones(4), "b": {"c": jnp.ones(4), "d": jnp.ones(4)}}
    tx = childtuning.child_tuning_d(half_mask(params))
    wrapped = optax.masked(tx, {"a": True, "b": False})
    kept = masked_once(wrapped, params)
    np.testing.assert_array_equal(kept["a"], [1, 0, 1, 0])
    np.testing.assert_array_equal(kept["b"]["c"], 1.0)


def test_an_option_of_the_random_mask_has_its_name():
    with pytest.raises(TypeError, match="positional"):
        childtuning.child_tuning_f(0.5, jax.random.key(0), True)


@pytest.mark.parametrize(
    "tx",
    [
        childtuning.child_tuning_f(1.0, KEY),
        childtuning.update_dropout(1.0, KEY),
        childtuning.child_tuning_d({"x": True, "y": np.ones(2, bool)}),
    ],
)
def test_a_number_of_python_is_a_parameter(tx):
    updates, _ = tx.update(
        {"x": 0.5, "y": jnp.ones(2)}, tx.init({"x": 2.0, "y": jnp.ones(2)})
    )
    assert updates["x"] == 0.5
