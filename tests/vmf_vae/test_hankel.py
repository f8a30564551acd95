import mpmath
import pytest
import vmf_reference

from vmf_vae import hankel


def largest_errors(order, start, num_terms):
    """Of `Tail.value` and `Tail.lack`, over arguments from `start` on."""
    errors = [0.0, 0.0]
    tail = hankel.tail(order, start, num_terms)
    with mpmath.workdps(40):
        for fraction in (1e-4, 0.01, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.97, 1):
            v, x = mpmath.mpf(order), start / mpmath.mpf(fraction)
            bessel = mpmath.besseli(v, x)
            h = mpmath.log(bessel) - x + mpmath.log(2 * mpmath.pi * x) / 2
            complement = x * (1 - mpmath.besseli(v + 1, x) / bessel)
            for i, want in enumerate((x * h, x * (complement - v - 0.5))):
                got = vmf_reference.polynomial(tail[i], 2 * mpmath.mpf(fraction) - 1)
                errors[i] = max(errors[i], float(abs(got - want)))
    return errors


@pytest.mark.parametrize("order", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("start", "num_terms", "bounds"),
    [(3.0, 19, (1e-8, 2e-8)), (12.0, 20, (1e-15, 1e-15))],
    ids=["float32", "float64"],
)
def test_polynomials_are_what_hankels_expansion_leaves(order, start, num_terms, bounds):
    value, lack = largest_errors(order, start, num_terms)
    assert value <= bounds[0]
    assert lack <= bounds[1]


def test_fewer_terms_do_not_meet_the_bound():
    assert largest_errors(0.0, 3.0, 12)[1] > 1e-7


def test_the_limit_is_the_first_term_of_the_series():
    """(1 - 4 nu^2) / 8 at t = 0, for both functions."""
    for order in (0.0, 0.25, 0.5, 1.0):
        for coefficients in hankel.tail(order, 12.0, 20):
            at_zero = vmf_reference.polynomial(coefficients, -1)
            assert abs(at_zero - (1 - 4 * order**2) / 8) < 1e-14
