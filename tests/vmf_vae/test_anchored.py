import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vmf_vae import anchored, debye


@pytest.fixture(params=[jnp.float32, jnp.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


REFERENCE = (2.0 / 3.0, 2.0 / 3.0 * 1e-17)


def exact_reference():
    return mpmath.mpf(REFERENCE[0]) + mpmath.mpf(REFERENCE[1])


def test_differences_from_a_number_that_is_no_float(dtype):
    """The second part of the reference survives the compiler."""
    x = jnp.array([0.66, 2.0 / 3.0, 0.67, 1e-6, 0.3, 0.34, 1.1, 40.0], dtype)
    logs = jax.jit(lambda x: anchored.log_over(x, REFERENCE))(x)
    shifts = jax.jit(lambda x: anchored.relative_difference(x, REFERENCE))(x)
    slack = 4 * float(jnp.finfo(dtype).eps)
    with mpmath.workdps(40):
        for value, log, shift in zip(x, logs, shifts, strict=True):
            quotient = mpmath.mpf(float(value)) / exact_reference()
            if abs(quotient - 1) < 1e-12:
                continue
            assert abs(float(log) / mpmath.log(quotient) - 1) <= slack
            assert abs(float(shift) / (quotient - 1) - 1) <= slack


def test_rounding_the_reference_would_show():
    """The control: float32 of 2/3 alone."""
    x = np.float32(2 / 3 * 1.0001)
    with mpmath.workdps(40):
        exact = mpmath.log(mpmath.mpf(float(x)) / exact_reference())
    plain = float(jnp.log1p((x - np.float32(2 / 3)) / np.float32(2 / 3)))
    ours = float(anchored.log_over(x, REFERENCE))
    assert abs(ours / exact - 1) < 3e-7 < abs(plain / exact - 1)


@pytest.mark.parametrize("order", [20.0, 383.0, 1535.0])
def test_change_of_log_0f1_vanishes_at_the_anchor(order, dtype):
    anchor = debye.anchor_of_log_iv(order)
    with mpmath.workdps(40):
        x0 = mpmath.mpf(anchor.x[0]) + mpmath.mpf(anchor.x[1])
        for shift in (-0.9, -1e-3, 1e-3, 0.5, 50.0):
            x = float(dtype(float(x0) * (1 + shift)))
            ratio = mpmath.besseli(order, x) / mpmath.besseli(order, x0)
            exact = mpmath.log(ratio) - order * mpmath.log(x / x0)
            got = anchored.change_of_log_0f1(order, dtype(x), anchor)
            assert abs(float(got) / exact - 1) <= 8 * float(jnp.finfo(dtype).eps)
