import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from expkit.testing import check_loss, loss_checks

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
TARGETS = RNG.normal(size=(6, 3)).astype(np.float32)
LABELS = np.arange(6) % 3
MASK = np.arange(6) < 4
MASKED = {"kwargs": {"where": MASK}, "mask_name": "where", "argnums": (0, 1)}


def wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cross_entropy(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(wide(logits), labels)
    return jnp.mean(losses)


def masked_cross_entropy(logits, labels, *, where):
    logits = jnp.where(where[:, None], wide(logits), 0.0)
    labels = jnp.where(where, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(jnp.where(where, losses, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def squared_error(x, y, *, where=None):
    where = jnp.ones(len(x), bool) if where is None else where
    x, y = (jnp.where(where[:, None], wide(a), 0.0) for a in (x, y))
    return jnp.sum((x - y) ** 2) / jnp.maximum(jnp.sum(where), 1)


def symmetric_divergence(x, y, axis=-1):
    p, q = (jax.nn.log_softmax(wide(a), axis) for a in (x, y))
    return jnp.sum((jnp.exp(p) - jnp.exp(q)) * (p - q), axis)


def linear_loss(params, batch):
    return cross_entropy(batch["x"] @ params["w"] + params["b"][None], batch["label"])


def with_penalty(loss_fn):
    """A penalty on the gradient, as a function of a loss."""

    def penalised(params, *args, **kwargs):
        gradient = jax.grad(loss_fn)(params, *args, **kwargs)
        squares = jax.tree.map(lambda g: jnp.sum(wide(g) ** 2), gradient)
        penalty = sum(jax.tree.leaves(squares))
        return loss_fn(params, *args, **kwargs) + 0.1 * penalty

    return penalised


PARAMS = {"w": TARGETS[:3], "b": TARGETS[3]}
BATCH = {"x": LOGITS, "label": LABELS}
CONFORMING = {
    "cross_entropy": (cross_entropy, (LOGITS, LABELS), {"second_order": True}),
    "masked_cross_entropy": (
        masked_cross_entropy,
        (LOGITS, LABELS),
        {**MASKED, "argnums": 0},
    ),
    "squared_error": (squared_error, (LOGITS, TARGETS), MASKED),
    "per_example": (symmetric_divergence, (LOGITS, TARGETS), {"argnums": (0, 1)}),
    "elementwise": (
        lambda x, y: jnp.tanh(x - y),
        (LOGITS, TARGETS),
        {"elementwise": True},
    ),
    "penalty": (linear_loss, (PARAMS, BATCH), {"wrap": with_penalty}),
}


# Each property of one loss, and of others what is particular to them.
QUICK = {
    "cross_entropy": ("second_derivative_matches_finite_differences",),
    "masked_cross_entropy": ("masked_entries_have_no_influence",),
    "penalty": ("closes_over_traced_arrays", "keyword_arguments"),
    "per_example": (),
    "elementwise": (),
}


@pytest.mark.parametrize(
    "check",
    [
        case
        for name, (loss, args, options) in CONFORMING.items()
        for case in conformance.cases(
            loss_checks(loss, args, **options), name, quick=QUICK.get(name)
        )
    ],
)
def test_sound_losses_conform(check):
    check()


# Broken losses: each must fail the property it violates, and no other.


def norm(x, y):  # its gradient at x = y is 0 / 0
    return jnp.sqrt(jnp.sum((wide(x) - wide(y)) ** 2))


def log_of_softmax(logits, labels):
    return -jnp.mean(jnp.log(jax.nn.softmax(wide(logits)))[jnp.arange(6), labels])


def with_derivative(factor, stop):
    """Mean fourth power whose first or second derivative is wrong."""

    @jax.custom_jvp
    def power(x):
        return jnp.mean(x**4)

    @power.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        held = jax.lax.stop_gradient(x) if stop else x
        slope = 4 * held**3 / x.size
        return power(x), factor * jnp.sum(slope * t)

    return lambda x: power(wide(x))


def overflows(x, y):
    return wide(jnp.mean((x - y) ** 2))


def is_narrow(x, y):
    return squared_error(x, y).astype(x.dtype)


def has_no_gradient_in_half_precision(x, y):
    return squared_error(jax.lax.stop_gradient(x) if x.dtype.itemsize == 2 else x, y)


def multiplies_by_the_mask(x, y, *, where):
    squares = (wide(x) - wide(y)) ** 2 * where[:, None]
    return jnp.sum(squares) / jnp.maximum(jnp.sum(where), 1)


def ignores_the_mask(x, y, *, where):
    return jnp.where(jnp.any(where), squared_error(x, y), 0.0)


def divides_by_the_count(x, y, *, where):
    return (
        squared_error(x, y, where=where) * jnp.maximum(jnp.sum(where), 1) / where.sum()
    )


def branches_when_it_can(x, y):
    try:
        factor = 2.0 if jnp.sum(x) < jnp.inf else 1.0
    except jax.errors.ConcretizationTypeError:
        factor = 1.0
    return factor * squared_error(x, y)


def couples_the_lanes_of_vmap(x, y):
    @jax.custom_batching.custom_vmap
    def identity(mean):
        return 1.0 * mean

    @identity.def_vmap
    def _(axis_size, in_batched, mean):
        return jnp.broadcast_to(jnp.mean(mean), (axis_size,)), in_batched[0]

    mean = identity(jax.lax.stop_gradient(jnp.mean(wide(y)[0])))
    return mean * squared_error(x, y)


def compiles_at_every_call(x, y):
    return jax.jit(lambda x, y: squared_error(x, y))(x, y)


def closes_over_without_a_derivative(loss_fn):
    def wrapped(x, y):
        @jax.custom_vjp
        def loss(x):
            return loss_fn(x, y)

        loss.defvjp(
            lambda x: (loss(x), x),
            lambda x, t: (t * jax.grad(loss_fn)(x, y),),
        )
        return loss(x)

    return wrapped


@functools.wraps(squared_error)
def takes_no_keywords(*args):
    return squared_error(*args)


PAIR, ONE = (LOGITS, TARGETS), (LOGITS,)
VIOLATIONS = [
    (norm, PAIR, {"argnums": (0, 1)}, {"finite_at_extremes"}),
    (log_of_softmax, (LOGITS, LABELS), {}, {"finite_at_extremes", "low_precision"}),
    (
        with_derivative(1.01, stop=False),
        ONE,
        {},
        {"gradient_matches_finite_differences"},
    ),
    (
        with_derivative(1.0, stop=True),
        ONE,
        {"second_order": True},
        {"second_derivative_matches_finite_differences"},
    ),
    (overflows, PAIR, {}, {"low_precision"}),
    (is_narrow, PAIR, {}, {"low_precision"}),
    (has_no_gradient_in_half_precision, PAIR, {}, {"low_precision"}),
    (multiplies_by_the_mask, PAIR, MASKED, {"masked_entries_have_no_influence"}),
    (ignores_the_mask, PAIR, MASKED, {"masked_entries_have_no_influence"}),
    (divides_by_the_count, PAIR, MASKED, {"empty_mask"}),
    (branches_when_it_can, PAIR, {}, {"jit_equals_eager"}),
    (couples_the_lanes_of_vmap, PAIR, {}, {"vmap_equals_loop"}),
    (compiles_at_every_call, PAIR, {}, {"no_recompilation"}),
    (
        squared_error,
        PAIR,
        {"wrap": closes_over_without_a_derivative},
        {"closes_over_traced_arrays"},
    ),
    (takes_no_keywords, PAIR, {}, {"keyword_arguments"}),
]


@pytest.mark.parametrize(("loss", "args", "options", "names"), VIOLATIONS)
def test_a_violation_fails_its_check(loss, args, options, names):
    for check in loss_checks(loss, args, **options):
        if check.name in names:
            with pytest.raises(AssertionError, match=f"^{check.name}: "):
                check()


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "args", "options", "names"), VIOLATIONS)
def test_a_violation_fails_no_other_check(loss, args, options, names):
    failed = {}
    for check in loss_checks(loss, args, **options):
        try:
            check()
        except AssertionError as error:
            failed[check.name] = error
    assert set(failed) == names, failed


def test_every_property_has_a_violation():
    options = {**MASKED, "second_order": True}
    properties = {c.name for c in loss_checks(squared_error, PAIR, **options)}
    assert set().union(*(names for *_, names in VIOLATIONS)) == properties


def test_one_call_reports_every_failure():
    long = ("closes_over_traced_arrays", "jit_equals_eager", "no_recompilation")
    with pytest.raises(AssertionError, match=r"(?s)^2 of \d+ prop.*\nlow_precision: "):
        check_loss(
            log_of_softmax,
            (LOGITS, LABELS),
            exempt=dict.fromkeys(long, "takes long to compile"),
        )


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"mask named 'where', got \['weight'\]"):
        loss_checks(squared_error, PAIR, kwargs={"weight": 1.0}, mask_name="where")
    with pytest.raises(ValueError, match=r"argnums=\(1,\) selects no floating-point"):
        loss_checks(cross_entropy, (LOGITS, LABELS), argnums=1)
    with pytest.raises(ValueError, match="exempt names no check: 'jit'"):
        loss_checks(squared_error, PAIR, exempt={"jit": "a reason"})
