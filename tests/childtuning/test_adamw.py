"""`child_adamw` follows the authors' optimizer to the last digits of float32."""

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import childtuning
from expkit import testing

NUM_STEPS = 10


def make_problem(seed=0, size=2000):
    """Weights in [-1, 1], a mask, and gradients over seven decades."""
    rng = np.random.default_rng(seed)
    scales = np.logspace(-6, 1, size)
    return (
        np.float32(rng.uniform(-1, 1, size)),
        rng.random(size) < 0.4,
        np.float32(rng.normal(size=(NUM_STEPS, size)) * scales),
    )


def authors_rule(weights, mask, grads, rates, b1, b2, eps, weight_decay):
    """The published optimizer step by step, in float64: the weights after each step."""
    p = np.float64(weights)
    exp_avg, exp_avg_sq = np.zeros_like(p), np.zeros_like(p)
    history = []
    for t, (grad, lr) in enumerate(zip(np.float64(grads), rates, strict=True), start=1):
        grad = grad * mask
        exp_avg = exp_avg * b1 + grad * (1.0 - b1)
        exp_avg_sq = exp_avg_sq * b2 + grad * grad * (1.0 - b2)
        denominator = np.sqrt(exp_avg_sq) + eps
        step_size = lr * np.sqrt(1.0 - b2**t) / (1.0 - b1**t)
        p = p - step_size * exp_avg / denominator
        p = p - lr * weight_decay * p
        history.append(p)
    return np.array(history)


def run(tx, weights, grads, wrap=jax.jit):
    @wrap
    def step(params, state, grad):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    params = jnp.asarray(weights)
    state = tx.init(params)
    history = []
    for grad in grads:
        params, state = step(params, state, jnp.asarray(grad))
        history.append(np.float64(params))
    return np.array(history)


SETTINGS = {
    "paper": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    "decay": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1},
    "large eps": {"b1": 0.9, "b2": 0.98, "eps": 1e-4, "weight_decay": 0.1},
    "no momentum": {"b1": 0.0, "b2": 0.9, "eps": 1e-6, "weight_decay": 0.1},
}


@pytest.mark.optimized
@pytest.mark.parametrize("wrap", [jax.jit, lambda step: step], ids=["jit", "eager"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_ten_steps_are_those_of_the_authors(setting, wrap):
    weights, mask, grads = make_problem()
    options = SETTINGS[setting]
    rates = np.full(NUM_STEPS, 1e-3)
    wanted = authors_rule(weights, mask, grads, rates, **options)
    tx = childtuning.child_adamw(1e-3, jnp.asarray(mask), **options)
    assert np.abs(run(tx, weights, grads, wrap) - wanted).max() <= 3e-7


def test_masked_optax_adamw_is_another_rule():
    weights, mask, grads = make_problem()
    options = SETTINGS["decay"]
    rates = np.full(NUM_STEPS, 1e-3)
    wanted = authors_rule(weights, mask, grads, rates, **options)
    tx = optax.chain(
        childtuning.child_tuning_d(jnp.asarray(mask)), optax.adamw(1e-3, **options)
    )
    assert np.abs(run(tx, weights, grads) - wanted).max() > 2e-6


def test_a_schedule_starts_at_zero_and_counts_updates():
    weights, mask, grads = make_problem(1)
    schedule = optax.linear_schedule(0.0, 1e-3, NUM_STEPS)
    rates = 1e-3 * np.arange(NUM_STEPS) / NUM_STEPS
    options = SETTINGS["decay"]
    wanted = authors_rule(weights, mask, grads, rates, **options)
    tx = childtuning.child_adamw(schedule, jnp.asarray(mask), **options)
    got = run(tx, weights, grads)
    assert np.abs(got - wanted).max() <= 3e-7
    np.testing.assert_array_equal(got[0], np.float64(weights))


@pytest.mark.parametrize("decay", ["all", "child"])
def test_weight_decay_may_be_a_schedule_of_the_same_count(decay):
    """Without a gradient what is left of a weight is a product."""
    schedule = optax.linear_schedule(0.5, 0.0, NUM_STEPS)
    mask = np.array([True, False])
    tx = childtuning.child_adamw(0.1, mask, weight_decay=schedule, decay=decay)
    got = run(tx, np.ones(2, np.float32), np.zeros((NUM_STEPS, 2), np.float32))
    decays = 0.5 - 0.05 * np.arange(NUM_STEPS)
    wanted = np.cumprod(1 - 0.1 * decays)
    np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-6)
    np.testing.assert_allclose(got[:, 1], wanted if decay == "all" else 1, rtol=1e-6)
    rest = optax.add_decayed_weights(schedule), optax.scale(-0.1)
    optaxs = run(optax.chain(*rest), np.ones(1, np.float32), np.zeros((NUM_STEPS, 1)))
    np.testing.assert_allclose(got[:, :1], optaxs, rtol=1e-6)


@pytest.mark.optimized
def test_in_float64_the_rules_agree_to_its_digits():
    weights, mask, grads = make_problem(2, 50)
    options = SETTINGS["decay"]
    rates = np.full(NUM_STEPS, 1e-3)
    with jax.enable_x64(True):
        tx = childtuning.child_adamw(1e-3, jnp.asarray(mask), **options)
        got = run(tx, np.float64(weights), np.float64(grads))
    wanted = authors_rule(weights, mask, grads, rates, **options)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-14)


def test_torch_runs_the_same_rule():
    """`torch.optim.Adam` on masked gradients, brought to the same place of eps."""
    torch = pytest.importorskip("torch", reason="in no lock: see CONTRIBUTING.md")
    weights, mask, grads = make_problem(3)
    p = torch.nn.Parameter(torch.tensor(weights))
    adam = torch.optim.Adam([p], lr=1e-3, eps=0.0)
    inside = np.flatnonzero(mask)  # 0 / 0 elsewhere
    for grad in grads:
        p.grad = torch.tensor(grad * mask)
        adam.step()
    tx = childtuning.child_adamw(1e-3, jnp.asarray(mask), eps=1e-30)
    got = run(tx, weights, grads)[-1]
    assert np.abs(got - p.detach().numpy())[inside].max() <= 3e-7


@pytest.mark.parametrize("decay", ["all", "child"])
def test_outside_the_mask_weights_only_decay_and_with_child_not_at_all(decay):
    weights, mask, grads = make_problem()
    tx = childtuning.child_adamw(1e-2, jnp.asarray(mask), weight_decay=0.1, decay=decay)
    got = run(tx, weights, grads)[-1]
    factor = (1 - 1e-3) ** NUM_STEPS if decay == "all" else 1.0
    wanted = np.float64(weights) * factor
    np.testing.assert_allclose(got[~mask], wanted[~mask], rtol=1e-6)
    if decay == "child":
        np.testing.assert_array_equal(got[~mask], np.float64(weights)[~mask])
    everywhere = childtuning.child_adamw(1e-2, jnp.asarray(mask), weight_decay=0.1)
    np.testing.assert_array_equal(got[mask], run(everywhere, weights, grads)[-1][mask])


def test_outside_the_mask_moments_stay_zero():
    weights, mask, grads = make_problem()
    tx = childtuning.child_adamw(1e-2, jnp.asarray(mask))
    state = tx.init(jnp.asarray(weights))
    for grad in grads:
        _, state = tx.update(jnp.asarray(grad), state, jnp.asarray(weights))
    for moment in (state.mu, state.nu):
        np.testing.assert_array_equal(np.asarray(moment) == 0, ~mask)


def test_integer_and_absent_parameters_do_not_move():
    params = {"i": jnp.arange(3), "n": None, "f": jnp.ones(3)}
    mask = {"i": jnp.ones(3, bool), "n": None, "f": jnp.array([True, False, True])}
    tx = childtuning.child_adamw(0.1, mask, weight_decay=0.1)
    grads = jax.grad(lambda p: jnp.sum(p["f"] ** 2), allow_int=True)(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after["i"], params["i"])
    assert after["n"] is None
    assert (after["f"] < 1).all()


def test_parameters_may_be_numbers_of_python():
    params = {"w": 3.0}
    mask = {"w": np.array(True)}
    grads = jax.grad(lambda p: p["w"] ** 2)(params)
    tx = childtuning.child_adamw(0.1, mask, weight_decay=0.5)
    updates, _ = tx.update(grads, tx.init(params), params)
    # The first step of Adam is the learning rate, and what is left of 2.9 decays.
    np.testing.assert_allclose(3.0 + updates["w"], 2.9 * 0.95, rtol=1e-6)
    same, _ = tx.update({"w": 6.0}, tx.init(params), params)
    assert same == updates


def build(params, **options):
    mask = jax.tree.map(
        lambda p: jnp.asarray(np.arange(p.size).reshape(p.shape) % 4 != 3), params
    )
    return childtuning.child_adamw(mask=mask, decay="child", **options)


CHECKS = testing.transformation_checks(
    build,
    hyperparameters={"learning_rate": 0.02, "b1": 0.8, "weight_decay": 0.1},
    takes_params=True,
    optimizer=True,
    max_loss_ratio=0.5,  # a quarter of the parameters stays where it is
)
# How it is wrapped, as the masks that test_masking.py wraps.
SLOW = (
    "chain",
    "masked",
    "multi_transform",
    "multi_steps",
    "apply_if_finite",
    "extra_arguments",
    "no_recompilation",
    "export_runs_elsewhere",
    "nested_containers",
    "none_leaves",
)


@pytest.mark.parametrize("check", conformance.cases(CHECKS, slow=SLOW))
def test_child_adamw_passes_the_conformance_suite(check):
    check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1e-3}, r"learning_rate must be at least 0, got -0.001"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"eps": 0.0}, r"eps must be above 0, got 0.0"),
        ({"weight_decay": -1}, r"weight_decay must be at least 0, got -1"),
        ({"decay": "some"}, r"decay must be 'all' or 'child', got 'some'"),
        ({"eps": np.ones(2)}, r"eps must be a scalar, got shape \(2,\)"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        childtuning.child_adamw(**{"learning_rate": 1e-3, "mask": None, **options})


@pytest.mark.parametrize("value", ["a", None, True, 1j])
@pytest.mark.parametrize("name", ["learning_rate", "b1", "b2", "eps", "weight_decay"])
def test_what_is_no_number_is_refused_by_its_name(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a real number, got {value!r}"):
        childtuning.child_adamw(**{"learning_rate": 1e-3, "mask": None, name: value})


def test_missing_parameters_are_refused():
    tx = childtuning.child_adamw(1e-3, jnp.ones(2, bool))
    with pytest.raises(ValueError, match="child_adamw needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_without_decay_an_infinite_parameter_stays():
    params, gradient = jnp.array([-jnp.inf, 1.0]), jnp.ones(2)

    def step(**options):
        tx = childtuning.child_adamw(0.1, np.array([False, True]), **options)
        return tx.update(gradient, tx.init(params), params)[0]

    np.testing.assert_allclose(step(), [0.0, -0.1], rtol=1e-6)
    # The bias of optax's second moment is corrected by 1 - 0.999 in float32.
    np.testing.assert_allclose(step(), optax_step(params, gradient), rtol=1e-5)
    assert np.isnan(step(weight_decay=jnp.zeros(()))[0])  # the control


def optax_step(params, gradient):
    """The first step of AdamW without decay, where the mask is True."""
    tx = optax.adamw(0.1, weight_decay=0.0, eps=1e-8)
    gradient = jnp.where(np.array([False, True]), gradient, 0.0)
    return tx.update(gradient, tx.init(params), params)[0]
