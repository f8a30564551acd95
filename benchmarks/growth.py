"""How time and memory grow: with parameters, batch, length, types and dimension.

    python benchmarks/growth.py

Every series runs at several sizes; the exponent is the slope of the logarithms, next to
that of the expected law at the same sizes. Rounds go through all series in turn, the
least time of each counts.
"""

import functools
import importlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax

import childtuning
import gp_kl
import lion
import vmf_vae

ROOT = Path(__file__).resolve().parents[1]
# Python puts the folder of the script first, and a benchmark is called cosent too.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks"]
cosent = importlib.import_module("cosent")
SCALE = 20.0


class Series(NamedTuple):
    """One quantity that grows.

    Attributes:
        make: size -> `(function, arguments)`.
        sizes: of the quantity.
        law: of the time, and of the memory.
        text: both, in words.
        donated: which arguments are.
    """

    make: Callable[[int], tuple[Callable, tuple]]
    sizes: tuple[int, ...]
    law: tuple[Callable[[float], float], Callable[[float], float]]
    text: tuple[str, str]
    donated: tuple[int, ...] = ()


def lion_step(size):
    optimizer = lion.lion(1e-4, in_place=True)
    params = {str(i): jnp.ones((size // 4096, 256)) for i in range(16)}

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step, (params, optimizer.init(params), jax.tree.map(jnp.sin, params))


def layers():
    keys = jax.random.split(jax.random.key(0), 8)
    return {str(i): jax.random.normal(k, (256, 256)) / 16 for i, k in enumerate(keys)}


def dense_loss(params, x):
    for w in params.values():
        x = jnp.tanh(x @ w)
    return jnp.mean(jnp.square(x))


def gradient_step(batch):
    x = jax.random.normal(jax.random.key(1), (batch, 256))
    return jax.value_and_grad(dense_loss), (layers(), x)


def fisher_pass(batch):
    x = jax.random.normal(jax.random.key(1), (batch, 256))

    def fisher(params, x):
        return childtuning.fisher_information(dense_loss, params, [x])

    return fisher, (layers(), x)


def scores(length=256, types=8):
    head = gp_kl.GlobalPointer(32, types)
    hidden = jax.random.normal(jax.random.key(1), (1, length, 32))
    mask = jnp.ones((1, length), bool)
    return head.apply, (head.init(jax.random.key(0)), hidden, mask)


def draws(dim=64, count=256):
    direction = jnp.eye(dim)[0]
    concentration = jnp.full(count, float(dim))

    def sample(key, concentration):
        return vmf_vae.sample_vmf(key, direction, concentration)

    return sample, (jax.random.key(0), concentration)


def ranking(size, loss=cosent.cosent_loss):
    similarities = jnp.sin(jnp.arange(size) * 1.0)
    return jax.value_and_grad(loss), (similarities, jnp.arange(size) % 6)


def all_pairs(similarities, labels):
    """CoSENT's loss as it is written."""
    apart = SCALE * (similarities[None, :] - similarities[:, None])
    apart = jnp.where(labels[:, None] > labels[None, :], apart, -jnp.inf)
    return jnp.logaddexp(0.0, jax.nn.logsumexp(apart))


def one(x):
    return 1.0


def line(x):
    return x


def square(x):
    return x * x


def sorting(x):
    return x * math.log(x)


COSENT, NAIVE = "CoSENT, batch b", "CoSENT over all pairs, batch b"
SERIES = {
    "Lion step, parameters P": Series(
        lion_step, (2**20, 2**21, 2**22, 2**23), (line, line), ("P", "P"), (0, 1)
    ),
    "Gradient of dense layers, batch B": Series(
        gradient_step, (128, 256, 512, 1024), (line, line), ("B", "B")
    ),
    "GlobalPointer, length n": Series(
        scores, (128, 256, 512, 1024), (square, square), ("n^2 m", "n^2 m")
    ),
    "GlobalPointer, types m": Series(
        functools.partial(scores, 256), (4, 8, 16, 32), (line, line), ("n^2 m",) * 2
    ),
    "vMF sampler, dimension d": Series(
        draws, (512, 1024, 2048, 4096, 8192), (line, line), ("n d", "n d")
    ),
    "vMF sampler, draws n": Series(
        functools.partial(draws, 64),
        (4096, 8192, 16384, 32768),
        (line, line),
        ("n d",) * 2,
    ),
    COSENT: Series(
        ranking, (512, 1024, 2048, 4096, 16384), (sorting, line), ("b log b", "b")
    ),
    NAIVE: Series(
        functools.partial(ranking, loss=all_pairs),
        (512, 1024, 2048, 4096),
        (square, square),
        ("b^2", "b^2"),
    ),
    "Fisher information, paper, batch B": Series(
        fisher_pass, (8, 16, 32, 64, 128), (line, one), ("B", "1")
    ),
}


class Run(NamedTuple):
    """A compiled function: how to run it, and the bytes beside its arguments."""

    run: Callable[[], Any]
    memory: int


def prepare(series: Series, size: int) -> Run:
    fn, args = series.make(size)
    compiled = jax.jit(fn, donate_argnums=series.donated).lower(*args).compile()
    found = compiled.memory_analysis()
    memory = found.temp_size_in_bytes + found.output_size_in_bytes
    state = list(args)

    def run():
        out = jax.block_until_ready(compiled(*state))
        for i in series.donated:
            state[i] = out[i]

    return Run(run, memory)


def measure(rounds: int) -> dict[str, dict[str, list]]:
    """Sizes, least milliseconds and bytes of every series."""
    runs = {
        (name, size): prepare(series, size)
        for name, series in SERIES.items()
        for size in series.sizes
    }
    best, repeats = dict.fromkeys(runs, math.inf), {}
    for label, (run, _) in runs.items():
        run()
        start = time.perf_counter()
        run()
        repeats[label] = int(np.clip(2e-3 / (time.perf_counter() - start), 1, 50))
    for _ in range(rounds):
        for label, (run, _) in runs.items():
            start = time.perf_counter()
            for _ in range(repeats[label]):
                run()
            used = (time.perf_counter() - start) / repeats[label]
            best[label] = min(best[label], used)
    return {
        name: {
            "sizes": list(series.sizes),
            "milliseconds": [1e3 * best[name, size] for size in series.sizes],
            "bytes": [runs[name, size].memory for size in series.sizes],
        }
        for name, series in SERIES.items()
    }


def slope(sizes, values) -> tuple[float, float]:
    """Exponent of a power law by least squares, and the largest factor off it."""
    x, y = np.log(sizes), np.log(values)
    fitted = np.polyfit(x, y, 1)
    return float(fitted[0]), float(np.exp(np.max(np.abs(np.polyval(fitted, x) - y))))


def growth_rows(measured: dict[str, dict[str, list]]) -> list[dict[str, Any]]:
    rows = []
    for name, series in SERIES.items():
        found = measured[name]
        for i, figure in enumerate(("milliseconds", "bytes")):
            exponent, factor = slope(series.sizes, found[figure])
            law = [series.law[i](float(size)) for size in series.sizes]
            rows.append(
                {
                    "variant": name,
                    "figure": {"milliseconds": "time", "bytes": "memory"}[figure],
                    "law": series.text[i],
                    "range": f"{series.sizes[0]:,} to {series.sizes[-1]:,}",
                    "expected": slope(series.sizes, law)[0],
                    "exponent": round(exponent, 12),  # of what is constant, 0
                    "factor": factor,
                }
            )
    return rows


def pair_rows(measured: dict[str, dict[str, list]]) -> list[dict[str, Any]]:
    """CoSENT next to the form over all pairs, at the sizes that both have."""
    ours, naive = measured[COSENT], measured[NAIVE]
    return [
        {
            "variant": f"{size:,}",
            "time": naive["milliseconds"][i] / ours["milliseconds"][i],
            "memory": naive["bytes"][i] / ours["bytes"][i],
            "law": size / math.log(size),
        }
        for i, size in enumerate(naive["sizes"])
    ]


GROWTH, PAIRS = "Growth", "CoSENT next to all pairs"
COLUMNS = {
    GROWTH: {
        "variant": "what grows",
        "figure": "figure",
        "law": "law",
        "range": "range",
        "expected": "exponent of the law",
        "exponent": "exponent measured",
        "factor": "largest factor off the fit",
    },
    PAIRS: {
        "variant": "b",
        "time": "time ratio",
        "memory": "memory ratio",
        "law": "b / log b",
    },
}


def main() -> None:
    parser = measuring.parser(__doc__, rounds=40)
    arguments = parser.parse_args()
    measured = measure(arguments.rounds)
    tables = {GROWTH: growth_rows(measured), PAIRS: pair_rows(measured)}
    for name, table in tables.items():
        print(name)
        for row in table:
            print("  ", *(f"{row[key]}" for key in COLUMNS[name]), sep="  ")
    measuring.save(
        __file__,
        arguments,
        question="How time and memory grow.",
        notes=(
            "The exponent is a slope of the logarithms over the range, that of the "
            "law at the same sizes. Memory is temporary memory and results."
        ),
        columns=COLUMNS,
        tables=tables,
        measurements=measured,
    )


if __name__ == "__main__":
    main()
