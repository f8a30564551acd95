"""What a step of R-Drop costs, by how the two passes are made.

    python benchmarks/rdrop.py

A training step (value, gradient, AdamW) of a BERT encoder with a classifier on its
first token, and value and gradient alone. The reference is one pass with cross-entropy,
dropout on. Rounds go through all variants in turn, the least time of each counts, and
only ratios are reported.
"""

import importlib
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import optax

from expkit.text import EncoderConfig, apply_encoder, init_encoder

# Python puts the folder of a script in front, and this script has the package's name.
HERE = Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
rdrop = importlib.import_module("rdrop")

REFERENCE = "one pass, cross-entropy"
LENGTH, CLASSES, ALPHA = 64, 10, 4.0
BATCHES = (16, 4)
CONFIG = EncoderConfig(
    vocab_size=5000,
    hidden_size=256,
    num_layers=4,
    num_heads=4,
    intermediate_size=1024,
    max_positions=LENGTH,
)
COLUMNS = {
    "variant": "variant",
    "time_ratio": "step, time ratio",
    "gradient_time_ratio": "gradient, time ratio",
    "flops_ratio": "flops ratio",
    "temp_mebibytes": "temporary MiB",
}


def make_problem(batch):
    keys = jax.random.split(jax.random.key(0), 4)
    head = 0.02 * jax.random.normal(keys[0], (CONFIG.hidden_size, CLASSES))
    params = {"encoder": init_encoder(CONFIG, keys[1]), "head": head}
    ids = jax.random.randint(keys[2], (batch, LENGTH), 3, CONFIG.vocab_size)
    labels = jax.random.randint(keys[3], (batch,), 0, CLASSES)
    return params, ids, labels, jax.random.key(1)


def apply_fn(params, ids, key):
    mask = jnp.ones(ids.shape, bool)
    hidden = apply_encoder(CONFIG, params["encoder"], ids, mask, key=key)
    return hidden[:, 0] @ params["head"]


def by_vmap(apply_fn, params, x, key):
    out = jax.vmap(apply_fn, (None, None, 0))(params, x, jax.random.split(key))
    return out[0], out[1]


def interleaved(apply_fn, params, x, key):
    out = apply_fn(params, jnp.repeat(x, 2, axis=0), key)
    return out[::2], out[1::2]


def make_variants() -> dict:
    """Losses of (params, ids, labels, key)."""

    def one_pass(params, ids, labels, key):
        log_p = jax.nn.log_softmax(apply_fn(params, ids, key))
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def with_passes(passes):
        def loss(params, ids, labels, key):
            outputs = passes(apply_fn, params, ids, key)
            return rdrop.rdrop_loss(*outputs, labels, ALPHA)

        return loss

    def concat(*args):
        return rdrop.two_passes(*args, mode="concat")

    return {
        REFERENCE: one_pass,
        "two_passes (default)": with_passes(rdrop.two_passes),
        'two_passes, mode="concat"': with_passes(concat),
        "vmap over two keys": with_passes(by_vmap),
        "rows of the passes interleaved": with_passes(interleaved),
    }


def make_step(loss, optimizer):
    def step(params, state, *batch):
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def measure(batch, rounds) -> list[dict]:
    params, *inputs = make_problem(batch)
    optimizer = optax.adamw(1e-4)
    state = optimizer.init(params)
    runs, rows = {}, {}
    for name, loss in make_variants().items():
        gradient = jax.jit(jax.value_and_grad(loss)).lower(params, *inputs).compile()
        step = jax.jit(make_step(loss, optimizer), donate_argnums=(0, 1))
        step = step.lower(params, state, *inputs).compile()
        runs[name] = step, gradient
        rows[name] = {
            "flops": (gradient.cost_analysis() or {}).get("flops"),
            "temp_mebibytes": gradient.memory_analysis().temp_size_in_bytes / 2**20,
        }
    steps, gradients = ({name: float("inf") for name in runs} for _ in range(2))
    for _ in range(rounds):
        for name, (step, gradient) in runs.items():
            start = time.perf_counter()
            params, state, _ = jax.block_until_ready(step(params, state, *inputs))
            middle = time.perf_counter()
            jax.block_until_ready(gradient(params, *inputs))
            end = time.perf_counter()
            steps[name] = min(steps[name], middle - start)
            gradients[name] = min(gradients[name], end - middle)
    flops = rows[REFERENCE]["flops"]
    return [
        {
            "variant": name,
            "time_ratio": steps[name] / steps[REFERENCE],
            "gradient_time_ratio": gradients[name] / gradients[REFERENCE],
            "milliseconds": 1e3 * steps[name],
            "flops_ratio": row["flops"] / flops if row["flops"] and flops else None,
            **row,
        }
        for name, row in rows.items()
    ]


def main() -> None:
    parser = measuring.parser(__doc__, rounds=25)
    arguments = parser.parse_args()
    tables = {}
    for batch in BATCHES:
        name = f"batch {batch}, length {LENGTH}"
        tables[name] = measure(batch, arguments.rounds)
        print(name)
        for row in tables[name]:
            print(
                f"  {row['variant']:32s} {row['time_ratio']:6.3f}  "
                f"gradient {row['gradient_time_ratio']:6.3f}  "
                f"{row['milliseconds']:7.1f} ms  temp {row['temp_mebibytes']:7.2f} MiB",
                flush=True,
            )
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of the two passes of R-Drop.",
        notes=(
            "Relative to one pass with cross-entropy: a training step with AdamW, "
            "and value and gradient alone (also flops, as XLA counts them, and "
            f"memory). A BERT of {CONFIG.num_layers} layers and width "
            f"{CONFIG.hidden_size}, dropout {CONFIG.hidden_dropout}, in float32."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
