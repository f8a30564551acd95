"""How exact and how fast the von Mises-Fisher distribution is, next to its peers.

    python benchmarks/vmf.py

Accuracy: over the reference table of the tests (mpmath, 40 digits). Time: rounds go
through all variants in turn, and the least time of each counts; only ratios are
reported. TensorFlow Probability's JAX substrate is measured too where it is installed.

`FixedConcentrationSampler`, the table of the essay, is slower than `sample_vmf`: a draw
takes a search in the table besides d - 1 normal numbers, where the d normal numbers of
`sample_vmf` give the first proposal as well, and at d = 3 there is a closed form.
"""

import csv
import functools
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from scipy import special, stats

import vmf_vae
from vmf_vae import density, rejection

ROOT = Path(__file__).parents[1]
TFP_DIMS = (3, 10)  # it compiles for minutes over the whole table
FLOOR = "normal vectors over their length"
COLUMNS = {
    "accuracy": {
        "variant": "variant",
        "not_finite": "rows not finite",
        "ratio": "A",
        "log_normalizer": "log C",
        "entropy": "entropy",
        "kl": "KL",
    },
    "time of a Bessel function": {
        "dim": "d",
        "variant": "variant",
        "time_ratio": "time ratio",
    },
    "time of a draw": {
        "dim": "d",
        "concentration": "kappa",
        "variant": "variant",
        "time_ratio": "time ratio",
    },
    "derivative of E[w] in the concentration": {
        "dim": "d",
        "concentration": "kappa",
        "variant": "variant",
        "bias": "relative bias",
        "standard_error": "its standard error",
        "deviation": "standard deviation / A'",
    },
}


def reference_rows():
    with (ROOT / "tests/vmf_vae/vmf.csv").open() as file:
        for row in csv.DictReader(file):
            values = {
                "ratio": row["A_d"],
                "log_normalizer": row["log_normalizer"],
                "entropy": row["entropy"],
                "kl": row["kl_to_uniform"],
            }
            yield int(row["d"]), float(row["kappa"]), values


def ours(dim, kappa, dtype):
    with jax.enable_x64(dtype == np.float64):
        k = jnp.asarray(kappa, dtype)
        return {
            "ratio": vmf_vae.bessel_ratio(dim, k),
            "log_normalizer": vmf_vae.log_normalizer(dim, k),
            "entropy": density.entropy(dim, k),
            "kl": vmf_vae.kl_to_uniform(dim, k),
        }


def with_scaled_bessel_functions(dim, kappa, dtype):
    """The formulas of the papers with scipy's `ive`, as s-vae-pytorch has them."""
    v, k = dtype(dim / 2 - 1), dtype(kappa)
    lower, upper = (dtype(special.ive(order, k)) for order in (v, v + 1))
    log_c = v * np.log(k) - (v + 1) * np.log(dtype(2 * np.pi)) - (np.log(lower) + k)
    half = dtype(dim / 2)
    area = np.log(dtype(2)) + half * np.log(dtype(np.pi)) - dtype(special.gammaln(half))
    entropy = -log_c - k * upper / lower
    return {
        "ratio": upper / lower,
        "log_normalizer": log_c,
        "entropy": entropy,
        "kl": area - entropy,
    }


def with_tfp(dim, kappa, dtype):
    from tensorflow_probability.substrates.jax import distributions as tfd

    with jax.enable_x64(dtype == np.float64):
        mu = jnp.zeros(dim, dtype).at[0].set(1)
        vmf = tfd.VonMisesFisher(mu, jnp.asarray(kappa, dtype), validate_args=False)
        uniform = tfd.SphericalUniform(dim, dtype=dtype)
        entropy = vmf.entropy()
        return {
            "ratio": vmf._mean_resultant_length()
            if hasattr(vmf, "_mean_resultant_length")
            else vmf.mean()[0],
            "log_normalizer": vmf.log_prob(mu) - dtype(kappa),
            "entropy": entropy,
            "kl": -uniform.log_prob(mu) - entropy,
        }


def measure_accuracy(peers) -> list[dict]:
    """Largest relative error of each function over the finite rows of the table."""
    rows = []
    for name, fn in peers.items():
        for dtype in (np.float32, np.float64):
            worst, not_finite = {}, 0
            for dim, kappa, values in reference_rows():
                if fn is with_tfp and dim not in TFP_DIMS:
                    continue
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    got = {
                        key: float(value)
                        for key, value in fn(dim, kappa, dtype).items()
                    }
                if not np.isfinite(list(got.values())).all():
                    not_finite += 1
                    continue
                for key, value in got.items():
                    exact = float(values[key])
                    size = abs(exact)
                    if key in ("log_normalizer", "entropy"):  # which cross zero
                        size = max(1.0, size)
                    worst[key] = max(worst.get(key, 0.0), abs(value - exact) / size)
            rows.append(
                {
                    "variant": f"{name}, {dtype.__name__}",
                    "not_finite": not_finite,
                    **worst,
                }
            )
            print(rows[-1], flush=True)
    return rows


def compiled(fn, *args):
    jitted = jax.jit(fn)
    return lambda: jax.block_until_ready(jitted(*args))


def measure_functions(rounds, n=200_000) -> list[dict]:
    rows = []
    for dim in (2, 3, 10, 50, 100, 768, 4096):
        order = dim / 2 - 1
        kappa = 10 ** np.random.default_rng(0).uniform(-2, 5, n)
        variants = {"scipy.special.ive": functools.partial(special.ive, order, kappa)}
        for dtype in ("float32", "float64"):
            with jax.enable_x64(dtype == "float64"):
                x = jnp.asarray(kappa, dtype)
            for name, fn in {
                "log_iv": lambda x, v=order: vmf_vae.log_iv(v, x),
                "log_normalizer": lambda x, d=dim: vmf_vae.log_normalizer(d, x),
                "bessel_ratio": lambda x, d=dim: vmf_vae.bessel_ratio(d, x),
                "kl_to_uniform": lambda x, d=dim: vmf_vae.kl_to_uniform(d, x),
            }.items():
                variants[f"{name}, {dtype}"] = wide(compiled(fn, x), dtype)
        seconds = measuring.least_seconds(variants, rounds)
        for name, value in seconds.items():
            ratio = value / seconds["scipy.special.ive"]
            row = {"dim": dim, "variant": name, "time_ratio": ratio}
            rows.append(row | {"nanoseconds": 1e9 * value / n})
            print(row, flush=True)
    return rows


def wide(run, dtype):
    """Runs under the precision that the arrays were made with."""

    def wrapped():
        with jax.enable_x64(dtype == "float64"):
            return run()

    return wrapped


def measure_sampler(rounds) -> list[dict]:
    rows = []
    for dim, n in (
        (3, 100_000),
        (10, 100_000),
        (50, 100_000),
        (128, 50_000),
        (768, 10_000),
    ):
        mu = jnp.ones(dim) / np.sqrt(dim)
        for kappa in (1.0, 10.0, 100.0, 1000.0):
            seconds = measuring.least_seconds(
                sampler_variants(dim, kappa, mu, n), rounds
            )
            for name, value in seconds.items():
                row = {
                    "dim": dim,
                    "concentration": kappa,
                    "variant": name,
                    "time_ratio": value / seconds[FLOOR],
                }
                rows.append(row | {"nanoseconds": 1e9 * value / n})
                print(row, flush=True)
    return rows


def sampler_variants(dim, kappa, mu, n):
    key = jax.random.key(0)

    def floor(key):
        z = jax.random.normal(key, (n, dim))
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

    tabled = vmf_vae.FixedConcentrationSampler(dim, kappa)
    reference = stats.vonmises_fisher(np.asarray(mu, float) / np.linalg.norm(mu), kappa)
    variants = {
        FLOOR: compiled(floor, key),
        "sample_vmf": compiled(
            lambda key, mu, k: vmf_vae.sample_vmf(key, mu, k, (n,)), key, mu, kappa
        ),
        "FixedConcentrationSampler": compiled(
            lambda key, mu: tabled.sample(key, mu, (n,)), key, mu
        ),
        "PowerSpherical": compiled(
            lambda key, mu, k: vmf_vae.PowerSpherical(mu, k).sample(key, (n,)),
            key,
            mu,
            kappa,
        ),
        "scipy.stats.vonmises_fisher": lambda: reference.rvs(n),
    }
    try:
        from tensorflow_probability.substrates.jax import distributions as tfd
    except ImportError:
        return variants
    return variants | {
        "TensorFlow Probability": compiled(
            lambda key, mu, k: tfd.VonMisesFisher(mu, k).sample(n, seed=key),
            key,
            mu,
            kappa,
        )
    }


def measure_gradient(n) -> list[dict]:
    """Implicit, and through the accepted proposal alone."""
    rows = []
    for dim, kappa in ((5, 2.0), (10, 10.0), (50, 20.0), (50, 100.0), (128, 100.0)):
        key = jax.random.key(dim)
        slope = float(jax.grad(lambda k, d=dim: vmf_vae.bessel_ratio(d, k))(kappa))

        def radial(k, d=dim, key=key):
            return vmf_vae.sample_radial(key, d, k, (n,), complement=True)

        t, implicit = jax.jvp(radial, (kappa,), (1.0,))
        pull, gap = rejection.moebius(dim, jnp.float32(kappa))
        y = (gap - t) / (gap + pull * t)

        def proposal(k, d=dim, y=y):
            pull, gap = rejection.moebius(d, k)
            return gap * (1.0 - y) / (1.0 + pull * y)

        _, pathwise = jax.jvp(proposal, (kappa,), (1.0,))
        for name, values in (("implicit", implicit), ("accepted proposal", pathwise)):
            values = -np.asarray(values, float) / slope
            rows.append(
                {
                    "dim": dim,
                    "concentration": kappa,
                    "variant": name,
                    "bias": values.mean() - 1.0,
                    "standard_error": values.std() / np.sqrt(n),
                    "deviation": values.std(),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    parser.add_argument("--draws", type=int, default=400_000, help="for the gradient")
    arguments = parser.parse_args()
    peers = {"vmf_vae": ours, "formulas with scipy's ive": with_scaled_bessel_functions}
    try:
        import tensorflow_probability.substrates.jax  # noqa: F401

        peers["TensorFlow Probability (d = 3 and 10)"] = with_tfp
    except ImportError:
        pass
    names = list(COLUMNS)
    tables = {
        names[0]: measure_accuracy(peers),
        names[1]: measure_functions(arguments.rounds),
        names[2]: measure_sampler(arguments.rounds),
        names[3]: measure_gradient(arguments.draws),
    }
    measuring.save(
        __file__,
        arguments,
        question="Accuracy and time of the von Mises-Fisher distribution.",
        notes=(
            "Accuracy: largest relative error over the finite ones of 180 "
            "reference rows (entropy and log C on the scale of at least 1). Time "
            "of a Bessel function: relative to scipy.special.ive in float64, over "
            "200,000 concentrations. Time of a draw: relative to "
            f"{FLOOR}, of the same shape, in float32; scipy's are in float64."
        ),
        columns=COLUMNS,
        tables=tables,
    )


if __name__ == "__main__":
    main()
