"""The small functions against NumPy, and where a square would overflow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vmf_vae import elementary


def test_polynomials():
    coefficients = (2.0, -3.0, 0.5)
    x = jnp.linspace(-1.0, 1.0, 5)
    np.testing.assert_allclose(
        elementary.horner(coefficients, x), np.polyval(coefficients, x), rtol=1e-6
    )


def test_secant_is_that_of_float64_before_and_after_its_square_overflows():
    z = np.array([0.0, 1e-30, 0.5, 3.0, 1e5, 4e9, 5e9, 2e19, 1e30, 3e38], np.float32)
    exact = np.sqrt(1.0 + z.astype(np.float64) ** 2)
    np.testing.assert_allclose(elementary.secant(z), exact, rtol=1.2e-7)
    naive = jnp.sqrt(1.0 + jnp.square(z))  # the negative control
    assert np.isinf(naive[-1])
    slope = jax.vmap(jax.grad(elementary.secant))(z)
    np.testing.assert_allclose(slope, z / exact, rtol=1.2e-7)
    assert np.isnan(elementary.secant(jnp.nan))
    assert elementary.secant(jnp.inf) == np.inf


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_to_compute_in_is_that_of_jax(dtype):
    with jax.enable_x64(True):
        want = jnp.promote_types(dtype, jnp.float32)
        with jax.numpy_dtype_promotion("strict"):
            assert elementary.wide_dtype(jnp.dtype(dtype)) == want


def test_arrays_vary_as_others_only_inside_of_a_map():
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=auto)

    def count(x, *, start):
        return jax.lax.fori_loop(0, 3, lambda i, total: total + x, start(x))

    def run(start):
        fn = functools.partial(count, start=start)
        return jax.shard_map(fn, mesh=mesh, in_specs=P("d"), out_specs=P("d"))

    x = jnp.array([1.0, 5.0])
    got = run(lambda x: elementary.vary_like(jnp.zeros(1), x))(x)
    np.testing.assert_array_equal(got, [3.0, 15.0])
    with pytest.raises(TypeError, match="carry"):  # the control
        run(lambda x: jnp.zeros(1))(x)
    outside = jnp.zeros(1)
    assert elementary.vary_like(outside, x) is outside


def test_a_rule_in_forward_mode_can_be_transposed():
    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda *args: elementary.along(lambda x: x**3, *args))
    x = jnp.array([-2.0, 0.0, 1.5])
    for derivative in (jax.grad, jax.jacfwd):
        slope = jax.vmap(derivative(cube))(x)
        np.testing.assert_allclose(slope, 3 * np.asarray(x) ** 2, rtol=1e-6)
        bend = jax.vmap(jax.grad(derivative(cube)))(x)
        np.testing.assert_allclose(bend, 6 * np.asarray(x), rtol=1e-6)


def test_a_draw_without_explicit_axes_is_called_as_it_is():
    def draw(key, x):
        return x + 1.0, (key, len(x))

    x = jnp.zeros(3)
    got, (key, size) = elementary.freely(draw, "key", x, like=x, leading=1)
    np.testing.assert_array_equal(got, np.ones(3))
    assert (key, size) == ("key", 3)
