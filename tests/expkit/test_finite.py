import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from expkit.finite import finite_leaves

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_is_found_whatever_holds_it(dtype, bad):
    values = np.ones((8, 3))
    values[6, 1] = bad
    good, found = jnp.ones(3, dtype), jnp.array(values, dtype)
    mesh = jax.make_mesh((4,), ("data",))
    tree = {"a": good, "b": [found], "c": jnp.arange(3), "d": jax.random.key(0)}
    for spec in (None, P("data"), P()):
        if spec is not None:
            tree["b"] = [jax.device_put(found, NamedSharding(mesh, spec))]
        assert finite_leaves(tree) == {"['a']": True, "['b'][0]": False}


def test_nothing_is_compiled_on_a_cpu():
    tree = [jnp.ones((n, n + 1)) for n in range(30, 36)] + [jnp.ones(())]
    compiled = []

    def listen(event, duration, **_):
        del duration
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert all(finite_leaves(tree).values())
        here = [event for event in compiled if "backend_compile" in event]
        jnp.isfinite(tree[0]).all()  # the control
        there = [event for event in compiled if "backend_compile" in event]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not here
    assert there


def test_leaves_without_values_are_finite():
    assert finite_leaves({"w": jnp.zeros((0, 2)), "n": jnp.int32(3)}) == {"['w']": True}


def test_an_array_without_memory_is_an_error():
    size = 2**23  # 256 TiB, which numpy would abort on
    array = jax.random.normal(jax.random.key(0), (size, size))
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        finite_leaves({"x": array})
