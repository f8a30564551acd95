"""What a step of an optimizer holds, and a plan of a large run on paper.

    python benchmarks/scale.py

Bytes are those of compiled programs, per device, on one and on eight devices (on a CPU:
virtual ones, in a process of its own) over which everything is sharded. The plan is
computed from the bytes that were measured.

`child_adamw` with a weight decay has 4 temporary bytes a parameter where `optax.adamw`
has none: weights decay after the step, as in the authors' code, so the step is used
twice, and XLA keeps it. A decay that is the number 0, as here, is left out.
"""

import argparse
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning
import lion
from childtuning import fisher

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 8
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


BYTES, PAPER = "Bytes a parameter", "1B parameters on 64 chips"
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
    PAPER: {
        "symbol": "symbol",
        "variant": "what",
        "from": "from",
        "shown": "value",
    },
}


def main() -> None:
    parser = measuring.parser(__doc__, rounds=None)
    parser.add_argument("--bytes", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bytes:
        print(json.dumps(bytes_here()))
        return
    rows = byte_rows()
    tables = {BYTES: rows, PAPER: plan_rows(rows)}
    for name, table in tables.items():
        print(name)
        for row in table:
            print("  ", *(f"{row[key]}" for key in COLUMNS[name]), sep="  ")
    measuring.save(
        __file__,
        arguments,
        question="What a step of an optimizer holds.",
        notes=(
            "State and temporary memory in bytes a float32 parameter, of compiled "
            "updates with donated parameters and state; of Fisher information the "
            "sum, and what is beside parameters, sum and batch."
        ),
        columns=COLUMNS,
        tables=tables,
    )


if __name__ == "__main__":
    main()
