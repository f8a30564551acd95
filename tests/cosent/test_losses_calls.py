"""CoSENT's loss however it is called: conformance, devices, and what it is made of."""

import functools

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cosent import binary_cosent_loss, cosent_loss, losses
from expkit import testing

RNG = np.random.default_rng(0)
SMALL = RNG.uniform(-1.0, 1.0, 8).astype(np.float32)
GRADES = np.array([0, 2, 1, 0, 2, 1, 1, 0])
WHERE = np.array([True, False, True, True, True, False, True, True])


def sorted_loss(similarities, labels, *, scale, where):
    """The form of large batches, also for a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CROSSING", 0)
        return cosent_loss(similarities, labels, scale=scale, where=where)


SUITES = {
    "pairs": (cosent_loss, GRADES),
    "sorted": (sorted_loss, GRADES),
    "binary": (binary_cosent_loss, GRADES > 0),
}
SLOW = (
    *conformance.COMPILED,
    "second_derivative_matches_finite_differences",
    "keyword_arguments",
    "low_precision",
)


@pytest.mark.parametrize(
    "check",
    [
        case
        for suite, (loss, labels) in SUITES.items()
        for case in conformance.cases(
            testing.loss_checks(
                loss,
                (SMALL, labels),
                kwargs={"where": WHERE, "scale": 5.0},
                mask_name="where",
                second_order=True,
            ),
            suite,
            slow=() if suite == "pairs" else SLOW,
        )
    ],
)
def test_the_losses_conform(check):
    check()


def batch(size, kind):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    labels = rng.integers(0, 4, size)
    labels = labels > 1 if kind == "binary" else labels
    return x, labels, rng.random(size) < 0.8


def model_loss(w, x, labels, where, axis_name=None):
    """Cosines that depend on parameters which every device has."""
    return cosent_loss(jnp.tanh(x @ w), labels, where=where, axis_name=axis_name)


WEIGHTS = np.array([0.3, -0.2, 0.5], np.float32)
BATCHES = [(16, "pairs"), (400, "sorted"), (16, "binary")]


def single_device(size, kind):
    return jax.jit(jax.value_and_grad(model_loss))(WEIGHTS, *batch(size, kind))


def make_mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize(("size", "kind"), BATCHES)
def test_sharded_inputs_have_the_loss_of_one_device(size, kind):
    mesh = make_mesh()
    rows = jax.device_put(batch(size, kind), NamedSharding(mesh, P("data")))
    w = jax.device_put(WEIGHTS, NamedSharding(mesh, P()))
    got = jax.jit(jax.value_and_grad(model_loss))(w, *rows)
    for a, b in zip(got, single_device(size, kind), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "kind", "side"),
    [
        (16, "pairs", "inside"),
        pytest.param(16, "pairs", "outside", marks=pytest.mark.slow),
        (400, "sorted", "inside"),
        (400, "sorted", "outside"),
        pytest.param(16, "binary", "inside", marks=pytest.mark.slow),
        (16, "binary", "outside"),
    ],
)
def test_shard_map_has_the_loss_and_gradient_of_the_whole_batch(size, kind, side):
    loss = functools.partial(model_loss, axis_name="data")
    inner = jax.value_and_grad(loss) if side == "inside" else loss
    mapped = jax.shard_map(
        inner, mesh=make_mesh(), in_specs=(P(), *[P("data")] * 3), out_specs=P()
    )
    mapped = mapped if side == "inside" else jax.value_and_grad(mapped)
    got = jax.jit(mapped)(WEIGHTS, *batch(size, kind))
    for a, b in zip(got, single_device(size, kind), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def test_unchecked_maps_average_the_gradients():
    """As in `pmap`: the map does not know that the parameters are the same."""

    def step(w, *rows):
        value, gradient = jax.value_and_grad(model_loss)(w, *rows, axis_name="data")
        return value, jax.lax.pmean(gradient, "data")

    mapped = jax.shard_map(
        step,
        mesh=make_mesh(),
        in_specs=(P(), *[P("data")] * 3),
        out_specs=P(),
        check_vma=False,
    )
    got = jax.jit(mapped)(WEIGHTS, *batch(400, "sorted"))
    for a, b in zip(got, single_device(400, "sorted"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def test_the_losses_of_the_parts_are_not_that_of_the_whole():
    """The control: without the axis every device sees its own pairs only."""
    x, labels, where = batch(16, "pairs")
    parts = [
        model_loss(WEIGHTS, x[i : i + 4], labels[i : i + 4], where[i : i + 4])
        for i in range(0, 16, 4)
    ]
    whole, _ = single_device(16, "pairs")
    assert np.mean(parts) < 0.8 * whole


def test_nothing_but_rows_travels():
    """Bytes gathered: a float, an integer and a mask bit of each row."""
    mapped = jax.shard_map(
        functools.partial(model_loss, axis_name="data"),
        mesh=make_mesh(),
        in_specs=(P(), *[P("data")] * 3),
        out_specs=P(),
    )
    jaxpr = jax.make_jaxpr(mapped)(WEIGHTS, *batch(400, "sorted"))
    (inner,) = [e for e in jaxpr.eqns if "shard_map" in e.primitive.name]
    gathered = [
        equation.outvars[0].aval.str_short()
        for equation in inner.params["jaxpr"].eqns
        if equation.primitive.name.startswith("all_gather")
    ]
    assert [name.partition("{")[0] for name in gathered] == [
        "float32[400]",
        "int32[400]",
        "bool[400]",
    ]


def test_the_loss_is_vmapped_over_further_axes():
    s = RNG.uniform(-1, 1, (3, 300)).astype(np.float32)
    y = RNG.integers(0, 4, (3, 300))
    scales = jnp.array([1.0, 20.0, 300.0])
    loss = jax.jit(lambda s, y, c: cosent_loss(s, y, scale=c))
    got = jax.jit(jax.vmap(loss))(s, y, scales)
    each = [loss(s[i], y[i], scales[i]) for i in range(3)]
    np.testing.assert_allclose(got, each, rtol=1e-6)
