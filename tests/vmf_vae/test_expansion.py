import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from vmf_reference import log_0f1, ratio, ratio_slope

from vmf_vae import expansion

pytestmark = pytest.mark.optimized


EXACT = {
    expansion.ratio: ratio,
    expansion.ratio_over_x: lambda v, x: ratio(v, x) / x,
    expansion.ratio_slope: ratio_slope,
    expansion.scaled_complement: lambda v, x: x * (1 - ratio(v, x)),
    expansion.one_minus_ratio: lambda v, x: 1 - ratio(v, x),
    expansion.log_0f1: log_0f1,
    expansion.log_0f1_minus_x: lambda v, x: log_0f1(v, x) - x,
    expansion.ratio_minus_log_0f1: lambda v, x: x * ratio(v, x) - log_0f1(v, x),
}


@pytest.mark.parametrize(
    "order",
    # Every step of the recursion makes the program longer; 13.5 has three.
    [0.0, 13.5, 20.0, *(pytest.param(v, marks=pytest.mark.slow) for v in (0.5, 3.5))],
)
def test_values_and_derivatives(order):
    @jax.jit  # one program: most of it is the same for all
    def compute(x):
        return [jax.value_and_grad(lambda x, fn=fn: fn(order, x))(x) for fn in EXACT]

    # At 1e-2 the exact slope is a difference that loses 20 of these digits.
    with jax.enable_x64(True), mpmath.workdps(60):
        for x in (1e-2, order + 1.0, order + 1.001, 9.0, 1e5):
            for exact, (value, slope) in zip(EXACT.values(), compute(x), strict=True):
                expected = exact(mpmath.mpf(order), mpmath.mpf(x))
                assert abs(float(value) / expected - 1) < 1e-14
                rise = mpmath.diff(
                    lambda t, exact=exact: exact(mpmath.mpf(order), t), x, h=1e-20
                )
                assert abs(float(slope) - rise) < 1e-11 * abs(rise) + 1e-16


@pytest.mark.parametrize(
    "order", [6.5, *(pytest.param(v, marks=pytest.mark.slow) for v in (0.5, 20.0))]
)
def test_second_derivatives_are_finite_at_zero_and_far_out(order):
    @jax.jit
    @jax.vmap
    def second(x):
        first = (jax.grad(lambda x, fn=fn: fn(order, x)) for fn in EXACT)
        return [jax.jacfwd(slope)(x) for slope in first]

    assert np.isfinite(second(jnp.array([0.0, 1e-3, 2e6]))).all()


def test_third_derivative_of_the_ratio_at_zero():
    """A = x/d - x^3 / (d^2 (d + 2)) + ..., d = 42."""
    third = jax.jit(jax.grad(jax.grad(jax.grad(lambda x: expansion.ratio(20.0, x)))))
    np.testing.assert_allclose(third(0.0), -6 / (42**2 * 44), rtol=1e-5)


@pytest.mark.parametrize("x", [1e12, 1e19, 1e30, 1e37])
def test_far_beyond_the_range_in_which_squares_are_finite(x):
    """sinh x / x, that is d = 3: x A - log M = log 2x - 1 and log M - x = -log 2x."""
    x = jnp.float32(x)
    log_2x = np.log(2.0 * float(x))
    np.testing.assert_allclose(expansion.ratio_minus_log_0f1(0.5, x), log_2x - 1, 2e-7)
    np.testing.assert_allclose(expansion.log_0f1_minus_x(0.5, x), -log_2x, 2e-7)
    np.testing.assert_allclose(expansion.one_minus_ratio(0.5, x), 1 / float(x), 2e-7)


@pytest.mark.parametrize("fn", EXACT, ids=lambda fn: fn.__name__)
def test_float32_is_not_widened_where_float64_is_enabled(fn):
    with jax.enable_x64(True):
        x = jnp.ones(3, jnp.float32)
        for order in (0.5, 20.0):
            assert jax.eval_shape(lambda x, v=order: fn(v, x), x).dtype == jnp.float32
            _, change = jax.eval_shape(
                lambda x, v=order: jax.jvp(lambda x: fn(v, x), (x,), (x,)), x
            )
            assert change.dtype == jnp.float32
