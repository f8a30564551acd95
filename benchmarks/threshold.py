"""What the largest 30 % of 22 million numbers cost, by counting and by sorting.

    python benchmarks/threshold.py

The numbers are squares of normal ones, in one float32 array. Rounds go through all
variants in turn, the least time of each counts, and only ratios to `np.percentile` are
reported: it is what the authors of ChildTuning call, after they have copied all Fisher
information to the host, which is not counted here. NumPy's variants run on the host.

`np.partition` selects within a copy of one array. `order.select` leaves the numbers
where they are, in any number of sharded arrays, and reads them five times to count
digits. Then `fisher_mask` has a number that exactly k entries reach, which is enough
for a mask; the threshold alone is the k-th entry itself, and takes a sixth pass to
find, about as long as the mask. `ties="keep"` takes that pass and makes the mask.
"""

import time

import jax
import jax.numpy as jnp
import measuring
import numpy as np

import childtuning
from childtuning import order

REFERENCE = "np.percentile"
SIZE, RESERVE_P = 22_000_000, 0.3
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time ratio",
    "kept": "entries kept",
    "is_same": "mask of a sort",
}
# Slow ones, measured once.
ONCE = ("jnp.sort",)


def make_variants(values: np.ndarray) -> dict:
    """Functions without arguments that return a threshold or a mask."""
    size, count = values.size, round(RESERVE_P * values.size)
    array = jnp.asarray(values)
    sort = jax.jit(jnp.sort)

    def threshold(k):
        return np.uint32(order.select([array], k).pattern).view(np.float32)

    def mask(ties):
        return lambda: childtuning.fisher_mask(array, RESERVE_P, ties=ties)

    return {
        REFERENCE: lambda: np.percentile(values, 100 * (1 - RESERVE_P)),
        "np.partition": lambda: np.partition(values, size - count)[size - count],
        "jnp.sort": lambda: sort(array)[size - count],
        "np.percentile and comparison": lambda: (
            values >= np.percentile(values, 100 * (1 - RESERVE_P))
        ),
        "order.select, the threshold alone": lambda: threshold(count),
        'fisher_mask, ties="exact"': mask("exact"),
        'fisher_mask, ties="keep"': mask("keep"),
    }


def measure(values: np.ndarray, rounds: int) -> list[dict]:
    variants = make_variants(values)
    results = {
        name: np.asarray(run()) for name, run in variants.items() if name not in ONCE
    }
    seconds = dict.fromkeys(variants, float("inf"))
    for number in range(rounds):
        for name, run in variants.items():
            if name in ONCE and number:
                continue
            start = time.perf_counter()
            result = jax.block_until_ready(run())
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            results.setdefault(name, np.asarray(result))
    return [
        summary(name, results[name], values, seconds[name] / seconds[REFERENCE])
        | {"milliseconds": 1e3 * seconds[name]}
        for name in variants
    ]


def summary(name: str, result: np.ndarray, values: np.ndarray, ratio: float) -> dict:
    mask = result if result.ndim else values >= result
    count = round(RESERVE_P * values.size)
    smallest = np.partition(values, values.size - count)[values.size - count]
    is_same = bool((mask >= (values > smallest)).all() and mask.sum() == count)
    return {
        "variant": name,
        "time_ratio": ratio,
        "kept": int(mask.sum()),
        "is_same": is_same,
    }


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    values = rng.standard_normal(SIZE, dtype=np.float32) ** 2
    setting = f"{SIZE:,} entries, the largest {100 * RESERVE_P:.0f} %"
    table = measure(values, arguments.rounds)
    print(setting)
    for row in table:
        print(
            f"  {row['variant']:36s} {row['time_ratio']:8.3f}  kept {row['kept']:,}",
            flush=True,
        )
    measuring.save(
        __file__,
        arguments,
        question="Time of a global threshold over Fisher information.",
        notes=(
            f"Time is relative to {REFERENCE}. fisher_mask includes the check for "
            "nan, the mask and, where entries are equal to the threshold, the "
            "choice of the first of them; np.percentile is the threshold alone."
        ),
        columns={setting: COLUMNS},
        tables={setting: table},
    )


if __name__ == "__main__":
    main()
