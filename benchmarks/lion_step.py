"""How long a step of Lion takes, and what it copies, next to its peers.

    python benchmarks/lion_step.py

Every variant updates the same parameters from the same gradients. Rounds go through all
variants in turn, the least time of each counts, and only ratios are reported: absolute
times say more about the machine. `lion-pytorch` and `torch` are measured too where they
are installed.
"""

import functools
import re
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import measuring
import optax

import lion

NUM_LEAVES = 84  # of a 12-block transformer
REFERENCE = "optax.lion, donated"
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time ratio",
    "copies": "copies",
    "temp_bytes_per_param_byte": "temporary",
    "state_bytes_per_param_byte": "state",
}
OPTIMIZERS = {
    "optax.lion": lambda: optax.lion(1e-4),
    "lion": lambda: lion.lion(1e-4),
    "lion in_place": lambda: lion.lion(1e-4, in_place=True),
    "lion in_place bfloat16": lambda: lion.lion(
        1e-4, mu_dtype="bfloat16", in_place=True
    ),
    "lion in_place cautious": lambda: lion.lion(1e-4, in_place=True, cautious=True),
    "lion int8": lambda: lion.lion(1e-4, mu_dtype="int8"),
    "lion in_place int8": lambda: lion.lion(1e-4, mu_dtype="int8", in_place=True),
    "lion bfloat16": lambda: lion.lion(1e-4, mu_dtype="bfloat16"),
    "optax.adamw": lambda: optax.adamw(1e-3),
    "optax.sgd": lambda: optax.sgd(1e-2, momentum=0.9),
}


def make_params(num_params: int) -> dict[str, jax.Array]:
    rows = max(1, num_params // NUM_LEAVES // 256)
    keys = jax.random.split(jax.random.key(0), NUM_LEAVES)
    return {f"w{i}": jax.random.normal(k, (rows, 256)) for i, k in enumerate(keys)}


def num_bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def prepare(make_optimizer, params, grads, *, donate: bool):
    """Compiles a step; returns a function that runs it once and its memory figures."""
    optimizer = make_optimizer()

    @functools.partial(jax.jit, donate_argnums=(0, 1) if donate else ())
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = jax.tree.map(jnp.copy, params), optimizer.init(params)
    compiled = step.lower(*carry, grads).compile()
    memory = compiled.memory_analysis()
    figures = {
        "copies": len(re.findall(r"\bcopy(?:-start)?\(", compiled.as_text())),
        "temp_bytes_per_param_byte": memory.temp_size_in_bytes / num_bytes(params),
        "state_bytes_per_param_byte": num_bytes(carry[1]) / num_bytes(params),
    }

    def run():
        nonlocal carry
        result = jax.block_until_ready(compiled(*carry, grads))
        if donate:
            carry = result

    return run, figures


def torch_variants(num_params: int) -> dict[str, Callable[[], None]]:
    """Steps of lion-pytorch and torch, as far as they are installed."""
    try:
        import torch
    except ImportError:
        return {}
    rows = max(1, num_params // NUM_LEAVES // 256)

    def prepare_torch(make):
        params = [torch.nn.Parameter(torch.randn(rows, 256)) for _ in range(NUM_LEAVES)]
        for p in params:
            p.grad = torch.randn_like(p)
        return make(params).step

    variants = {
        "torch AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3),
        "torch AdamW fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    }
    try:
        from lion_pytorch import Lion
        from lion_pytorch.foreach import Lion as ForeachLion

        variants["lion-pytorch"] = lambda p: Lion(p, lr=1e-4)
        variants["lion-pytorch foreach"] = lambda p: ForeachLion(p, lr=1e-4)
    except ImportError:
        pass
    return {name: prepare_torch(make) for name, make in variants.items()}


def measure(num_params: int, rounds: int) -> list[dict]:
    params = make_params(num_params)
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    runs, rows = {}, {}
    for name, make in OPTIMIZERS.items():
        for donate in (True, False):
            label = f"{name}, {'donated' if donate else 'not donated'}"
            runs[label], rows[label] = prepare(make, params, grads, donate=donate)
    for label, run in torch_variants(num_params).items():
        runs[label], rows[label] = run, {}
    seconds = measuring.least_seconds(runs, rounds)
    return [
        {
            "variant": label,
            "time_ratio": seconds[label] / seconds[REFERENCE],
            "milliseconds": 1e3 * seconds[label],
            **rows[label],
        }
        for label in runs
    ]


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e6, 1e7, 5e7])
    arguments = parser.parse_args()
    tables = {}
    for size in arguments.sizes:
        rows = measure(int(size), arguments.rounds)
        tables[f"{int(size)}"] = rows
        print(f"{size:.0e} parameters, time as a ratio to {REFERENCE}")
        for row in rows:
            memory = row.get("temp_bytes_per_param_byte")
            note = ""
            if memory is not None:
                note = f"{row['copies']:4d} copies, temp {memory:.3f}"
            print(f"  {row['variant']:38s} {row['time_ratio']:6.3f}  {note}")
        sys.stdout.flush()
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of one Lion step.",
        notes=(
            f"Time is relative to {REFERENCE}; temporary memory and optimizer state to "
            "the bytes of the parameters."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
