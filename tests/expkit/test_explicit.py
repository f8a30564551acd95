import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from expkit import explicit


def place(x, spec, kind=AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.mark.parametrize(
    "x",
    [
        jnp.ones(4),
        np.ones(4),
        "text",
        place(np.ones(4), (None,)),
        place(np.ones(4), ("data",), AxisType.Auto),
    ],
)
def test_what_is_not_cut_along_explicit_axes_is_left_alone(x):
    assert explicit.placement(x) is None
    assert explicit.whole(x) is x
    (same,) = explicit.freely(lambda *args: args, x)
    assert same is x


def test_a_placement_names_the_axes_of_every_dimension():
    x = place(np.ones((4, 3)), ("data",))
    assert explicit.placement(x).spec == PartitionSpec("data", None)


def test_an_array_becomes_whole():
    x = explicit.whole(place(np.arange(4.0), ("data",)))
    assert explicit.placement(x) is None
    np.testing.assert_array_equal(x, [0.0, 1.0, 2.0, 3.0])


def test_an_array_becomes_whole_along_some_axes():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    spec = PartitionSpec(("data", "model"), None)
    x = jax.device_put(np.ones((4, 3)), NamedSharding(mesh, spec))
    found = explicit.whole(x, ["data"])
    assert explicit.placement(found).spec == PartitionSpec("model", None)
    np.testing.assert_array_equal(found, x)


def test_what_is_no_array_passes_a_free_function():
    x = place(np.arange(4.0), ("data",))
    with pytest.raises(Exception, match="replicated"):
        jnp.cumsum(x)
    found = explicit.freely(
        lambda x, name, scale: {name: scale * jnp.cumsum(x)}, x, "sum", 2.0
    )
    np.testing.assert_array_equal(found["sum"], [0.0, 2.0, 6.0, 12.0])
    assert explicit.placement(found["sum"]) is None


def test_an_outcome_lies_as_it_is_told():
    x = place(np.arange(4.0), ("data",))
    like = explicit.placement(x), None
    sums, pairs = jax.jit(
        lambda x: explicit.freely(
            lambda x: (jnp.cumsum(x), {"low": x[:2], "high": x[2:]}), x, like=like
        )
    )(x)
    assert explicit.placement(sums) == like[0]
    assert {explicit.placement(half) for half in pairs.values()} == {None}
    np.testing.assert_array_equal(sums, [0.0, 1.0, 3.0, 6.0])


def test_a_free_function_can_be_differentiated_twice():
    x = place(np.arange(4.0), ("data",))

    def loss(x):
        return explicit.freely(lambda x: jnp.sum(jnp.cumsum(x) ** 2), x)

    gradient, product = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (x,)))(x)
    a = np.tril(np.ones((4, 4)))
    expected = 2 * a.T @ a @ np.arange(4.0)
    np.testing.assert_allclose(gradient, expected)
    np.testing.assert_allclose(product, expected)  # of a quadratic form
    assert explicit.placement(gradient) == explicit.placement(x)


def test_what_does_not_vary_is_left_alone():
    tree = {"a": np.ones(2), "b": jnp.zeros(3)}
    got = explicit.varying_like(tree, jnp.ones(4), 1.0)
    assert got["a"] is tree["a"]
    assert got["b"] is tree["b"]


def test_a_loop_over_parts_can_start_with_zeros():
    """Without the cast JAX refuses a carry that changes its type: the control."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def total(x, cast):
        zero = jnp.zeros(())
        start = explicit.varying_like(zero, x) if cast else zero
        return jax.lax.scan(lambda c, y: (c + y, None), start, x)[0][None]

    def on_parts(cast):
        spec = jax.sharding.PartitionSpec("data")
        fn = functools.partial(total, cast=cast)
        return jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec)

    x = jnp.arange(6.0)
    np.testing.assert_array_equal(jax.jit(on_parts(True))(x), [3.0, 12.0])
    with pytest.raises(TypeError, match="carry"):
        jax.jit(on_parts(False))(x)
