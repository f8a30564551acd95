"""Values of the von Mises-Fisher distribution from mpmath, not from our own code."""

import csv
from pathlib import Path

import mpmath

TABLE = Path(__file__).parents[1] / "vmf_vae" / "vmf.csv"
# With many steps of the recursion, with few, with some in float64 alone, and with none.
FEW_DIMS = (2, 5, 20, 512, 100_000)
NAMES = ("log_iv", "log_normalizer", "ratio", "kl", "entropy", "slope", "complement")


def table(dims=None):
    """Rows `(dim, concentration, {name: value with 40 digits})`.

    180 of them: 15 dimensions from 2 to 100,000, 12 concentrations from 1e-6 to 1e6,
    each of which is a float32 number; or those of some dimensions.
    """
    with TABLE.open() as file, mpmath.workdps(40):
        for row in csv.DictReader(file):
            dim, kappa = int(row["d"]), float(row["kappa"])
            if dims is not None and dim not in dims:
                continue
            columns = ("log_iv", "log_normalizer", "A_d", "kl_to_uniform", "entropy")
            values = {
                name: mpmath.mpf(row[column])
                for name, column in zip(NAMES, columns, strict=False)
            }
            yield dim, kappa, values | _derived(dim, kappa, values["ratio"])


def values(dim, kappa):
    """The same dictionary for any point, from mpmath's Bessel functions."""
    with mpmath.workdps(60):
        v, k = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
        bessel = mpmath.besseli(v, k)
        ratio = mpmath.besseli(v + 1, k) / bessel
        log_iv = mpmath.log(bessel)
        log_c = v * mpmath.log(k) - (v + 1) * mpmath.log(2 * mpmath.pi) - log_iv
        kl = log_c + k * ratio + log_area(dim)
        named = dict(
            zip(NAMES, (log_iv, log_c, ratio, kl, -log_c - k * ratio), strict=False)
        )
        return named | _derived(dim, kappa, ratio)


def ratio(order, x):
    """I_{nu+1} / I_nu."""
    return mpmath.besseli(order + 1, x) / mpmath.besseli(order, x)


def ratio_slope(order, x):
    """Its derivative, by the equation that it solves."""
    a = ratio(order, x)
    return 1 - a**2 - (2 * order + 1) * a / x


def log_0f1(order, x):
    """log of Gamma(nu + 1) (2 / x)^nu I_nu(x)."""
    value = mpmath.log(mpmath.besseli(order, x)) + mpmath.loggamma(order + 1)
    return value - order * mpmath.log(x / 2)


def polynomial(coefficients, at):
    """Of floats, highest power first."""
    total = mpmath.mpf(0)
    for c in coefficients:
        total = total * at + mpmath.mpf(float(c))
    return total


def log_area(dim):
    """Logarithm of the area of the unit sphere in R^dim."""
    half = mpmath.mpf(dim) / 2
    return mpmath.log(2) + half * mpmath.log(mpmath.pi) - mpmath.loggamma(half)


def _derived(dim, kappa, ratio):
    k = mpmath.mpf(kappa)
    slope = 1 - ratio**2 - (dim - 1) * ratio / k
    return {"slope": k * k * slope, "complement": k * (1 - ratio)}


def error(got, expected, *, floor=0):
    """Relative error of a float, on the scale of at least `floor`."""
    with mpmath.workdps(40):
        difference = abs(mpmath.mpf(float(got)) - expected)
        return float(difference / max(abs(expected), mpmath.mpf(floor)))
