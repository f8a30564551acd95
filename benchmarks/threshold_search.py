"""What the best threshold of n scores costs, and how good that of other searches is.

    python benchmarks/threshold_search.py

Scores of two overlapping normal laws, and probabilities of classes with unequal
frequencies. SciPy's Powell method is that of the essay's code. Points are lost against
the exact sweep; NumPy's variants run on the host.

Powell's method evaluates the accuracy some tens of times, in O(n) each, and the sweep
sorts, in O(n log n), so from some size on the first is faster. What it loses depends on
the law of the scores: little here, tens of points on others (the claims of `cosent`).
Under `jit` the sweep takes XLA's sort, which on a CPU is slower than NumPy's.
"""

import importlib
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from scipy import optimize

# Python puts the folder of a script in front, where a script has the package's name.
HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
cosent = importlib.import_module("cosent")

ROOT = HERE.parent
SIZES = (1000, 10_000, 100_000, 1_000_000)
CLASSES = (3, 10, 30)
ROWS = 3000
SWEEP = "best_threshold, NumPy"
WEIGHTS = "best_class_weights"
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time ratio",
    "milliseconds": "milliseconds",
    "value": "value",
    "points_lost": "points lost",
}
SECONDS = 20.0
"""For one variant of one size."""


def powell(loss, start):
    return -float(optimize.minimize(loss, start, method="Powell").fun)


def by_powell(scores, labels, start):
    def loss(x):
        return -np.mean((scores > np.tanh(np.ravel(x)[0])) == labels)

    return powell(loss, [start])


def make_searches(size: int) -> dict:
    """Functions without arguments that return an accuracy."""
    rng = np.random.default_rng(0)
    labels = rng.random(size) < 0.5
    scores = np.clip(0.2 + 0.3 * labels + 0.2 * rng.normal(size=size), -1.0, 1.0)
    scores = scores.astype(np.float32)
    arguments = jnp.asarray(scores), jnp.asarray(labels)
    sweep = jax.jit(cosent.best_threshold).lower(*arguments).compile()
    halve = jax.jit(cosent.bisect_threshold).lower(*arguments).compile()
    return {
        SWEEP: lambda: float(cosent.best_threshold(scores, labels)[1]),
        "best_threshold, jit": lambda: float(sweep(*arguments)[1]),
        "bisect_threshold, jit": lambda: float(halve(*arguments)[1]),
        "Powell from tanh(1)": lambda: by_powell(scores, labels, 1.0),
        "Powell from 0": lambda: by_powell(scores, labels, 0.0),
    }


def make_weightings(num_classes: int) -> dict:
    """Functions without arguments that return an accuracy."""
    rng = np.random.default_rng(0)
    labels = rng.choice(num_classes, ROWS, p=rng.dirichlet(np.ones(num_classes)))
    logits = rng.normal(size=(ROWS, num_classes)) + rng.normal(size=num_classes)
    p = np.exp(logits + 2.0 * np.eye(num_classes)[labels])
    p /= p.sum(axis=1, keepdims=True)

    def accuracy(weights):
        return float(np.mean(np.argmax(weights * p, axis=1) == labels))

    def loss(x):
        return -accuracy(0.5 * (np.tanh(x) + 1.0))

    return {
        WEIGHTS: lambda: cosent.best_class_weights(p, labels)[1],
        f"{WEIGHTS}, one start": lambda: cosent.best_class_weights(
            p, labels, num_starts=1
        )[1],
        "Powell": lambda: powell(loss, np.ones(num_classes)),
        "equal weights": lambda: accuracy(np.ones(num_classes)),
    }


def measure(searches: dict, reference: str, rounds: int) -> list[dict]:
    values = {name: search() for name, search in searches.items()}
    best, spent = dict.fromkeys(searches, float("inf")), dict.fromkeys(searches, 0.0)
    for _ in range(rounds):
        for name, search in searches.items():
            if spent[name] > SECONDS:
                continue
            start = time.perf_counter()
            search()
            used = time.perf_counter() - start
            best[name] = min(best[name], used)
            spent[name] += used
    return [
        {
            "variant": name,
            "time_ratio": best[name] / best[reference],
            "milliseconds": 1e3 * best[name],
            "value": values[name],
            # 0.0 where values differ by the rounding of float32.
            "points_lost": round(100.0 * (values[reference] - values[name]), 4) + 0.0,
        }
        for name in searches
    ]


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    arguments = parser.parse_args()
    made = {f"{n:,} scores": (make_searches, n, SWEEP) for n in SIZES}
    made |= {
        f"{n} classes, {ROWS:,} rows": (make_weightings, n, WEIGHTS) for n in CLASSES
    }
    tables = {}
    for name, (make, size, reference) in made.items():
        tables[name] = measure(make(size), reference, arguments.rounds)
        print(name)
        for row in tables[name]:
            print(
                f"  {row['variant']:30s} {row['time_ratio']:8.2f}  "
                f"{row['milliseconds']:9.3f} ms  lost {row['points_lost']:6.3f}",
                flush=True,
            )
    measuring.save(
        __file__,
        arguments,
        question="Time and quality of the search for a threshold.",
        notes=(
            "Accuracy; time relative to the exact sweep. SciPy's Powell method as "
            "in the essay's code."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
