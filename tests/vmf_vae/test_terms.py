import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from vmf_reference import log_0f1, ratio, ratio_slope

from vmf_vae import terms


def exact(order, x):
    """The fields of `Terms` that mean something by themselves, and log M."""
    v, x = mpmath.mpf(order), mpmath.mpf(x)
    a, slope, log_m = ratio(v, x), ratio_slope(v, x), log_0f1(v, x)
    kept = x * x * slope - v - 0.5 if x > 2 * v + 2 else slope
    return {
        "ratio_over_x": a / x,
        "complement": x * (1 - a),
        "slope": slope,
        "kept": kept,
        "kl": x * a - log_m,
        "log_m": log_m,
        "log_m_minus_x": log_m - x,
    }


@pytest.mark.parametrize("order", [0.0, 1.0, 2.5])
def test_fields_on_both_sides_of_every_switch(order):
    """At 2 nu + 2, and where the polynomials of low orders begin."""
    points = [2 * order + 1.9, 2 * order + 2.1, 11.9, 12.1, 400.0]
    with jax.enable_x64(True), mpmath.workdps(40):
        got = jax.jit(terms.terms_of, static_argnums=0)(order, jnp.array(points))
        named = {
            **got._asdict(),
            "log_m": got.growth + got.rest,
            "log_m_minus_x": got.growth_minus_x + got.rest,
        }
        for i, x in enumerate(points):
            for name, want in exact(order, x).items():
                # `kept` is added to nu + 1/2.
                scale = abs(want) + (order + 0.5 if name == "kept" else 0)
                assert abs(float(named[name][i]) - want) < 1e-14 * scale, (name, x)


def test_float32_switches_where_its_polynomials_begin():
    """Neighbouring floats on both sides of 3 differ by what the slope says."""
    x = jnp.array([3.0, np.nextafter(np.float32(3), np.float32(4))], jnp.float32)
    got = jax.jit(terms.terms_of, static_argnums=0)(0.0, x)
    with mpmath.workdps(40):
        for i, point in enumerate(map(float, x)):
            want = exact(0.0, point)
            for name in ("ratio_over_x", "complement", "slope", "kl"):
                error = abs(float(getattr(got, name)[i]) - want[name])
                assert error < 5.5e-7 * want[name], (name, point)


def test_limit_of_kept_begins_at_twice_the_order():
    x = jnp.array([4.9, 5.0, 5.1])
    np.testing.assert_array_equal(terms.is_beyond(1.5, x), [False, False, True])
