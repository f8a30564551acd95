"""What CoSENT's loss costs, by how its sum over pairs is formed.

    python benchmarks/cosent.py

Value and gradient for b similarities with labels of six levels, and of two. The naive
loss is the one in use: a b x b table of differences, lowered by 1e12 where a pair does
not count; in PyTorch too where that is installed (sentence-transformers' formula). A
variant stops being measured when it has used its time.
"""

import importlib
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import numpy as np

# Python puts the folder of a script in front, and this script has the package's name.
HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
cosent = importlib.import_module("cosent")
losses = importlib.import_module("cosent.losses")
try:
    import torch
except ImportError:
    torch = None

SIZES = (16, 64, 96, 128, 160, 192, 256, 512, 1024, 4096, 16_384, 65_536)
LARGEST_TABLE = 16_384
"""The naive loss of more rows wants tens of GiB."""
CHUNK = 512
SCALE = 20.0
OURS = "cosent_loss"
NAIVE = "naive, b x b"
SECONDS = 10.0
"""For one variant of one size."""
COLUMNS = {
    "variant": "variant",
    "time_ratio": f"time / {OURS}",
    "milliseconds": "milliseconds",
    "temp_mebibytes": "temporary MiB",
    "temp_percent": "% of naive",
}


def naive(s, labels):
    """Every difference, the unwanted ones lowered by 1e12, and a 0."""
    x = SCALE * s
    differences = x[None, :] - x[:, None]
    unwanted = labels[:, None] <= labels[None, :]
    differences -= unwanted.astype(x.dtype) * 1e12
    return jax.nn.logsumexp(jnp.append(0.0, differences.ravel()))


def chunked(s, labels):
    """The same sum, some rows of the table at a time."""
    x = SCALE * s

    @jax.checkpoint
    def one(rows):
        differences = x[None, :] - rows[0][:, None]
        unwanted = rows[1][:, None] <= labels[None, :]
        return jax.nn.logsumexp(jnp.where(unwanted, -1e12, differences))

    chunks = x.reshape(-1, CHUNK), labels.reshape(-1, CHUNK)
    return jax.nn.logsumexp(jnp.append(0.0, jax.lax.map(one, chunks)))


def by_sorting(s, labels):
    return losses._by_sorting(s, labels, jnp.float32(SCALE), None)


def torch_naive(s, labels):
    x = SCALE * s
    differences = x[:, None] - x[None, :]
    unwanted = (labels[:, None] >= labels[None, :]).float()
    differences = (differences - unwanted * 1e12).reshape(-1)
    return torch.logsumexp(torch.cat((torch.zeros(1), differences)), dim=0)


def make_variants(size: int) -> dict:
    """Functions without arguments that compute value and gradient, and memory."""
    rng = np.random.default_rng(0)
    s, labels = rng.uniform(-1, 1, size).astype(np.float32), rng.integers(0, 6, size)
    variants = {OURS: (cosent.cosent_loss, labels)}
    if size <= LARGEST_TABLE:
        variants[NAIVE] = naive, labels
    if size >= CHUNK:
        variants[f"naive, {CHUNK} rows at a time"] = chunked, labels
    if size < losses.CROSSING:
        variants["sorted, below the crossing"] = by_sorting, labels
    variants["binary_cosent_loss"] = cosent.binary_cosent_loss, labels > 2
    made = {}
    for name, (loss, y) in variants.items():
        arguments = jnp.asarray(s), jnp.asarray(y)
        compiled = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20

        def run(compiled=compiled, arguments=arguments):
            return jax.block_until_ready(compiled(*arguments))

        made[name] = run, temporary
    if (
        torch is not None
        and size <= LARGEST_TABLE
        and jax.devices()[0].platform == "cpu"
    ):
        made["naive, PyTorch"] = _torch_run(s, labels), None
    return made


def _torch_run(s, labels):
    x, y = torch.tensor(s, requires_grad=True), torch.tensor(labels)

    def run():
        value = torch_naive(x, y)
        return value.detach(), torch.autograd.grad(value, x)[0]

    return run


def measure(size: int, rounds: int) -> list[dict]:
    made = make_variants(size)
    expected = float(made[OURS][0]()[0])
    repeats, best, spent = {}, {}, {}
    rng = np.random.default_rng(0)
    for name, (run, _) in made.items():
        value = float(run()[0])
        if "binary" not in name and abs(value - expected) > 1e-5 * expected:
            raise AssertionError(f"{name}: {value}, expected {expected}")
        start = time.perf_counter()
        run()
        best[name] = spent[name] = time.perf_counter() - start
        repeats[name] = int(np.clip(1e-3 / spent[name], 1, 200))
    for _ in range(rounds):
        # Threads of PyTorch go on spinning for a while after a call, so that always the
        # same variant would be measured beside them.
        for name in rng.permutation(list(made)):
            run, _ = made[name]
            if spent[name] > SECONDS:
                continue
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            used = time.perf_counter() - start
            best[name] = min(best[name], used / repeats[name])
            spent[name] += used
    table = made.get(NAIVE, (None, None))[1]
    return [
        {
            "variant": name,
            "time_ratio": best[name] / best[OURS],
            "milliseconds": 1e3 * best[name],
            "temp_mebibytes": memory,
            "temp_percent": 100 * memory / table if table and memory else None,
        }
        for name, (_, memory) in made.items()
    ]


def main() -> None:
    parser = measuring.parser(__doc__, rounds=300)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    arguments = parser.parse_args()
    tables = {}
    for size in arguments.sizes:
        name = f"b = {size:,}"
        tables[name] = measure(size, arguments.rounds)
        print(name)
        for row in tables[name]:
            memory = row["temp_mebibytes"]
            print(
                f"  {row['variant']:28s} {row['time_ratio']:9.2f}  "
                f"{row['milliseconds']:10.3f} ms  temp "
                f"{'-' if memory is None else f'{memory:10.4f}'} MiB",
                flush=True,
            )
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of CoSENT's loss.",
        notes=(
            "Value and gradient in float32, labels of six levels, of two for "
            f"binary_cosent_loss. Below {losses.CROSSING} rows cosent_loss "
            "compares all pairs too. PyTorch's memory is not measured."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
