"""How state, memory and time grow: with parameters, batch, length, types, dimensions.

    python benchmarks/scale.py

Bytes are those of compiled programs, per device, on one and on eight devices (on a CPU:
virtual ones, in a process of its own) over which everything is sharded. Growth: every
series runs at several sizes; the exponent is the slope of the logarithms, next to that
of the expected law at the same sizes. Rounds go through all series in turn, the least
time of each counts. The plan on paper is computed from the bytes that were measured.
Runs unchanged on an accelerator.
"""

import argparse
import functools
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
import gp_kl
import lion
import vmf_vae
from childtuning import fisher
from expkit import environment, jsonfile

ROOT = Path(__file__).resolve().parents[1]
# Python puts the folder of the script first, and a benchmark is called cosent too.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks"]
cosent = importlib.import_module("cosent")
DEVICES = 8
SCALE = 20.0
WIDTH = 512


def weights() -> dict[str, tuple[int, int]]:
    """Shapes of the matrices whose optimizer is measured."""
    wide = 4 * WIDTH
    return {"out": (WIDTH, WIDTH), "up": (WIDTH, wide), "down": (wide, WIDTH)}


def masked(make: Callable) -> Callable:
    return lambda: make({name: np.ones(s, bool) for name, s in weights().items()})


def child_lion(mask, **options):
    return optax.chain(childtuning.child_tuning_d(mask), lion.lion(1e-4, **options))


OPTIMIZERS = {
    "optax.adamw": (lambda: optax.adamw(1e-4), 8),
    "optax.lion": (lambda: optax.lion(1e-4), 4),
    "lion": (lambda: lion.lion(1e-4), 4),
    "lion in_place": (lambda: lion.lion(1e-4, in_place=True), 4),
    "lion bfloat16": (lambda: lion.lion(1e-4, mu_dtype="bfloat16", in_place=True), 2),
    "lion int8": (
        lambda: lion.lion(1e-4, mu_dtype="int8", in_place=True),
        1 + 4 / 256,
    ),
    "child_adamw": (masked(lambda m: childtuning.child_adamw(1e-4, m)), 8 + 1 / 8),
    "child_tuning_f": (lambda: childtuning.child_tuning_f(0.3, jax.random.key(0)), 0),
    "child_tuning_d": (masked(childtuning.child_tuning_d), 1 / 8),
    "child_tuning_d, lion bfloat16": (
        masked(functools.partial(child_lion, mu_dtype="bfloat16", in_place=True)),
        2 + 1 / 8,
    ),
}
"""Each with the bytes of state that a float32 parameter should have."""


def sharded(tree: Any) -> Any:
    """The shapes of a tree, with every leaf cut along its first axis, if it can be."""
    devices = jax.devices()
    kind = (AxisType.Auto,)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=kind, devices=devices)

    def leaf(x):
        is_cut = x.ndim > 0 and x.shape[0] % len(devices) == 0
        cut = PartitionSpec("data") if is_cut else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, cut))

    return jax.tree.map(leaf, tree)


def of_optimizer(make: Callable) -> dict[str, float]:
    """Bytes per parameter and device of the state of a step, and beside its arrays."""
    optimizer = make()
    shapes = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in weights().items()}
    params = sharded(shapes)
    state = sharded(jax.eval_shape(optimizer.init, shapes))

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    memory = compiled_memory(step, params, state, params, donated=(0, 1))
    count = sum(math.prod(shape) for shape in weights().values())
    return {
        "parameters": count,
        # Parameters and gradients, in float32, are arguments too.
        "state": memory.argument_size_in_bytes / count - 8 / len(jax.devices()),
        "beside": memory.temp_size_in_bytes / count,
    }


def compiled_memory(fn, *args, donated=()):
    jitted = jax.jit(fn, donate_argnums=donated, keep_unused=True)
    return jitted.lower(*args).compile().memory_analysis()


def of_fisher(convention: str) -> dict[str, float]:
    """Bytes per parameter and device: the sum, and beside parameters, sum and batch.

    Of the pass over one batch that `fisher_information` compiles for sharded arrays.
    """
    shapes = {n: jax.ShapeDtypeStruct((256, 256), jnp.float32) for n in "abcdefgh"}
    x = sharded(jax.ShapeDtypeStruct((DEVICES, 256), jnp.float32))
    static = (x.sharding.mesh, ("data",)) if len(jax.devices()) > 1 else None
    pass_over, total = fisher._add_examples, shapes
    if convention == "authors":
        # The sum begins as zeros like the parameters, and stays where they are.
        pass_over, total, static = fisher._add_batch, sharded(shapes), 1.0
    lowered = pass_over.lower(dense_loss, sharded(shapes), total, x, static)
    memory = lowered.compile().memory_analysis()
    count = sum(math.prod(s.shape) for s in shapes.values())
    return {
        "parameters": count,
        "state": memory.output_size_in_bytes / count,
        "beside": memory.temp_size_in_bytes / count,
    }


def dense_loss(params, x):
    for w in params.values():
        x = jnp.tanh(x @ w)
    return jnp.mean(jnp.square(x))


def fisher_of(params, x, convention="paper"):
    return childtuning.fisher_information(
        dense_loss, params, [x], convention=convention
    )


def bytes_here() -> dict[str, dict[str, float]]:
    """All bytes per parameter, for the devices of this process."""
    rows = {name: of_optimizer(make) for name, (make, _) in OPTIMIZERS.items()}
    fishers = {f"Fisher, {c}": of_fisher(c) for c in ("paper", "authors")}
    return rows | fishers


def bytes_on(devices: int) -> dict[str, dict[str, float]]:
    """The same in a new process with so many devices, where they can be had."""
    flag = f" --xla_force_host_platform_device_count={devices}"
    visible = ",".join(map(str, range(devices)))
    env = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flag,
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", visible),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
    }
    command = [sys.executable, __file__, "--bytes"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def byte_rows() -> list[dict[str, Any]]:
    """State and memory per parameter on one device and, per device, on eight."""
    one, eight = bytes_on(1), bytes_on(DEVICES)
    expected = {name: state for name, (_, state) in OPTIMIZERS.items()}
    return [
        {
            "variant": name,
            "expected": expected.get(name, 4),
            "state_1": row["state"],
            "beside_1": row["beside"],
            "state_8": eight[name]["state"],
            "times_8": DEVICES * eight[name]["state"],
            "beside_8": eight[name]["beside"],
        }
        for name, row in one.items()
    ]


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


def layers(width=256, depth=8):
    keys = jax.random.split(jax.random.key(0), depth)
    scale = 1 / math.sqrt(width)
    return {
        str(i): scale * jax.random.normal(k, (width,) * 2) for i, k in enumerate(keys)
    }


def gradient_step(batch):
    x = jax.random.normal(jax.random.key(1), (batch, 256))
    return jax.value_and_grad(dense_loss), (layers(), x)


def fisher_pass(batch, convention="paper"):
    x = jax.random.normal(jax.random.key(1), (batch, 256))
    return functools.partial(fisher_of, convention=convention), (layers(), x)


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


PLAN = """
L | layers | 20 |
d | width | 2048 |
P | parameters, without embeddings | 12 * L * d**2 |
C | chips | 64 |
w | a parameter, kept in float32 | 4 | bytes
g | its gradient, float32 | 4 | bytes
s | its momentum in bfloat16 and bit of the mask, measured | {state} | bytes
a | all of it | w + g + s | bytes
A | all of it, for all parameters | a * P / 1e9 | GB
A_c | on a chip, fully sharded | A / C | GB
G_2 | two layers gathered, bfloat16 | 2 * 2 * P / L / 1e9 | GB
b | sequences a chip | 8 |
n | tokens a sequence | 512 |
X | inputs of all layers, kept in bfloat16 | 2 * b * n * d * L / 1e9 | GB
M | memory of a chip, without work space | A_c + G_2 + X | GB
r | share that comes from other chips | (C - 1) / C |
N_w | gathers, forward and backward, bfloat16 | 2 * 2 * P * r / 1e9 | GB
N_g | reduce-scatter of gradients, float32 | g * P * r / 1e9 | GB
W | bandwidth between chips, assumed | 100 | GB/s
t_N | time of gathers and reduce-scatter | (N_w + N_g) / W * 1e3 | ms
F | arithmetic that a chip reaches, assumed | 80e12 | FLOP/s
t_F | forward twice and backward | 8 * P * b * n / F * 1e3 | ms
H | bandwidth of memory, assumed | 1000 | GB/s
t_H | update: all read, all but gradients written | (a + w + s) * P / C / H / 1e6 | ms
t | a step, the network hidden behind arithmetic | max(t_F, t_N) + t_H | ms
E | examples of the Fisher pass, one batch | 2560 |
f | Fisher, paper: sum, own part, all parameters, measured | {fisher} | bytes
M_f | memory of a chip for it | (w / C + f) * P / 1e9 | GB
E_c | examples a chip | E // C |
t_E | forward and backward, one at a time | 6 * P * n * E_c / F * 1e3 | ms
N_f | sum of squares over chips | 2 * 4 * P * r / 1e9 | GB
t_f | time of that sum | N_f / W * 1e3 | ms
S | checkpoint: parameters and state | (w + s) * P / 1e9 | GB
S_c | of which a chip writes | S / C | GB
"""
"""Symbol, what it is, an expression in symbols from above, and its unit."""


def plan_rows(bytes_of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plan, from measured bytes per parameter."""
    rows = {row["variant"]: row for row in bytes_of}
    own = rows["Fisher, paper"]
    measured = {
        "state": round(rows["child_tuning_d, lion bfloat16"]["state_1"], 3),
        "fisher": round(own["state_8"] + own["beside_8"], 3),
    }
    known: dict[str, Any] = {"max": max, "__builtins__": {}}
    out = []
    for line in PLAN.strip().splitlines():
        symbol, meaning, expression, unit = (x.strip() for x in line.split("|"))
        expression = expression.format(**measured)
        value = known[symbol] = eval(expression, known)
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
        row = {"symbol": f"`{symbol}`", "variant": meaning, "from": f"`{expression}`"}
        out.append(row | {"value": value, "shown": f"{shown} {unit}".strip()})
    return out


BYTES, GROWTH, PAIRS, PAPER = (
    "Bytes a parameter",
    "Growth",
    "CoSENT next to all pairs",
    "1B parameters on 64 chips",
)
COLUMNS = {
    BYTES: {
        "variant": "variant",
        "expected": "state expected",
        "state_1": "state, 1 device",
        "state_8": "state, each of 8",
        "times_8": "state, all 8",
        "beside_1": "temporary, 1 device",
        "beside_8": "temporary, each of 8",
    },
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
    PAPER: {
        "symbol": "symbol",
        "variant": "what",
        "from": "from",
        "shown": "value",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, help="JSON file; default: by device")
    parser.add_argument("--bytes", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bytes:
        print(json.dumps(bytes_here()))
        return
    rows = byte_rows()
    measured = measure(arguments.rounds)
    tables = {
        BYTES: rows,
        GROWTH: growth_rows(measured),
        PAIRS: pair_rows(measured),
        PAPER: plan_rows(rows),
    }
    for name, table in tables.items():
        print(name)
        for row in table:
            print("  ", *(f"{row[key]}" for key in COLUMNS[name]), sep="  ")
    device = jax.devices()[0].device_kind.replace(" ", "-").lower()
    out = arguments.out or ROOT / f"benchmarks/results/scale-{device}.json"
    jsonfile.write(
        out,
        {
            "question": "How state, memory and time grow.",
            "notes": (
                "State and temporary memory in bytes a float32 parameter, of compiled "
                "updates with donated parameters and state; of Fisher information the "
                "sum, and what is beside parameters, sum and batch. The exponent is a "
                "slope of the logarithms over the range, that of the law at the same "
                "sizes. Memory that grows is temporary memory and results."
            ),
            "columns": COLUMNS,
            "rounds": arguments.rounds,
            "environment": environment.describe(
                ROOT, full=True, command="python benchmarks/scale.py"
            )
            | {"device": environment.device()},
            "tables": tables,
            "measurements": measured,
        },
    )
    print(out)


if __name__ == "__main__":
    main()
