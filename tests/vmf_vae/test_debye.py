import mpmath
import numpy as np
import pytest
import vmf_reference

from vmf_vae import debye


@pytest.mark.parametrize(("order", "precision"), [(8.5, 2.0**-24), (16.25, 2.0**-53)])
def test_series_is_what_the_leading_terms_leave(order, precision):
    series = debye.series(order, precision)
    with mpmath.workdps(40):
        v = mpmath.mpf(order)
        for z in (0.01, 0.5, 3.0, 100.0):
            s = mpmath.sqrt(1 + mpmath.mpf(z) ** 2)
            p = 1 / s
            log_m = mpmath.log(mpmath.besseli(v, v * z)) + mpmath.loggamma(v + 1)
            log_m -= v * mpmath.log(v * z / 2)
            rest = log_m - v * (s - 1) + v * mpmath.log((1 + s) / 2) + mpmath.log(s) / 2
            got = (1 - p) * vmf_reference.polynomial(series.value, p)
            assert abs(got - rest) <= precision * (1 + abs(log_m))
            ratio = v * z * mpmath.besseli(v + 1, v * z) / mpmath.besseli(v, v * z)
            rest = ratio - v * (s - 1) + (1 - p * p) / 2
            got = (1 - p) * vmf_reference.polynomial(series.ratio, p)
            assert abs(got - rest) <= precision * ratio


def test_a_higher_order_needs_fewer_terms():
    lengths = [len(debye.series(v, 2.0**-53).value) for v in (16.0, 100.0, 1e4, 1e5)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 10 < lengths[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [0.0, 8.0, 16.0, 383.0])
def test_no_term_is_evaluated_for_nothing(order, dtype):
    _, series = debye.high_order(order, dtype)
    assert all(coefficients[0] for coefficients in series)


@pytest.mark.parametrize("order", [0.3, 1.0, 8.5, 40.0, 511.0])
def test_anchor_of_log_iv_is_its_zero(order):
    anchor = debye.anchor_of_log_iv(order)
    with mpmath.workdps(50):
        x = mpmath.mpf(anchor.x[0]) + mpmath.mpf(anchor.x[1])
        assert abs(mpmath.log(mpmath.besseli(order, x))) < 1e-20 * max(order, 1.0)
        s = mpmath.sqrt(1 + (x / mpmath.mpf(order)) ** 2)
        assert abs(anchor.s - s) <= 2.0**-52 * s


@pytest.mark.parametrize("dim", [19, 50, 1000])
def test_anchor_of_log_normalizer_is_its_zero(dim):
    order = dim / 2 - 1
    anchor = debye.anchor_of_log_normalizer(order)
    with mpmath.workdps(50):
        x = mpmath.mpf(anchor.x[0]) + mpmath.mpf(anchor.x[1])
        log_c = order * mpmath.log(x) - mpmath.mpf(dim) / 2 * mpmath.log(2 * mpmath.pi)
        log_c -= mpmath.log(mpmath.besseli(order, x))
        assert abs(log_c) < 1e-20 * dim


def test_small_spheres_have_no_zero():
    """Their area is above 1, so the constant starts below 1 and falls."""
    assert debye.anchor_of_log_normalizer(18 / 2 - 1) is None
    assert debye.log_constant_at_zero(18 / 2 - 1) < 0
    assert debye.log_constant_at_zero(19 / 2 - 1) > 0


@pytest.mark.parametrize("order", [0.3, 2.0, 7.5])
def test_taylor_series_at_the_anchor(order):
    coefficients = debye.taylor_at_anchor(order, 8)
    with mpmath.workdps(50):
        x = sum(mpmath.mpf(part) for part in debye.anchor_of_log_iv(order).x)

        def log_m(u):
            y = x * (1 + u)
            return mpmath.log(mpmath.besseli(order, y)) - order * mpmath.log(y)

        expected = mpmath.taylor(log_m, 0, 8)[1:]
    np.testing.assert_allclose(coefficients[::-1], [float(c) for c in expected], 1e-13)


def test_order_is_raised_by_whole_steps():
    for dtype, lowest in (("float32", 8), ("float64", 16)):
        for order in (0.0, 0.5, 7.25, 15.9, 300.0):
            top, _ = debye.high_order(order, dtype)
            assert top >= lowest
            assert round(top - order) == pytest.approx(top - order)
            assert top == order or top < lowest + 1
