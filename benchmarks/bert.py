"""How fast the encoder is next to the same network in PyTorch.

    python benchmarks/bert.py

A BERT of the sizes of MiniLM with random weights, the same in both: `transformers`
runs them where it is installed (with PyTorch), which is optional. `forward` is the mean
of the last hidden states without dropout; `training` the loss and gradient of a linear
classifier on it, with dropout; `products` the matrix products of the dense layers of a
forward pass alone, which each of the two has from a library. Every row has its full
length. Rounds go through all variants in turn, and the least time of each counts; the
processor time beside it means something on one core only (`--cores 1`), and there does
not depend on what else the machine does.
"""

import os
import time

import jax
import jax.numpy as jnp
import measuring
import numpy as np

from expkit import text

CONFIG = text.EncoderConfig(
    vocab_size=30522,
    hidden_size=384,
    num_layers=6,
    num_heads=12,
    intermediate_size=1536,
)
BATCH, LENGTHS, NUM_CLASSES = 32, (32, 128), 10
OURS, PEER = "expkit.text", "transformers"
COLUMNS = {
    "variant": "variant",
    "throughput_ratio": "throughput ratio",
    "processor_ratio": "by processor time",
    "milliseconds": "milliseconds",
    "difference": "difference",
}


def make_problem():
    params = {
        "encoder": text.init_encoder(CONFIG, jax.random.key(0)),
        "kernel": 0.02 * jax.random.normal(jax.random.key(1), (384, NUM_CLASSES)),
        "bias": jnp.zeros(NUM_CLASSES),
    }
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, BATCH).astype(np.int32)
    batches = {
        n: rng.integers(1000, CONFIG.vocab_size, (BATCH, n)).astype(np.int32)
        for n in LENGTHS
    }
    return params, batches, labels


def make_operands(length):
    """States and kernels of the dense layers of all blocks."""
    rng = np.random.default_rng(0)
    width, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    shapes = [*[(width, width)] * 4, (width, inner), (inner, width)] * CONFIG.num_layers
    return [
        tuple(
            rng.normal(size=shape).astype(np.float32)
            for shape in ((BATCH * length, kernel[0]), kernel)
        )
        for kernel in shapes
    ]


def ours(params, labels):
    """Functions of ids, jitted: pooled states, and loss with gradients."""

    @jax.jit
    def forward(params, ids):
        mask = jnp.ones(ids.shape, bool)
        hidden = text.apply_encoder(CONFIG, params["encoder"], ids, mask)
        return text.mean_pool(hidden, mask)

    def loss(params, ids, labels, key):
        mask = jnp.ones(ids.shape, bool)
        hidden = text.apply_encoder(CONFIG, params["encoder"], ids, mask, key=key)
        logits = text.mean_pool(hidden, mask) @ params["kernel"] + params["bias"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -jnp.mean(chosen)

    @jax.jit
    def training(params, ids, labels, key):
        return jax.value_and_grad(loss)(params, ids, labels, key)

    @jax.jit
    def products(operands):
        return [x @ kernel for x, kernel in operands]

    operands = {n: jax.tree.map(jnp.asarray, make_operands(n)) for n in LENGTHS}
    keys = iter(jax.random.split(jax.random.key(2), 10_000))
    return {
        ("forward", OURS): lambda ids: jax.block_until_ready(forward(params, ids)),
        ("training", OURS): lambda ids: jax.block_until_ready(
            training(params, ids, labels, next(keys))
        ),
        ("products", OURS): lambda ids: jax.block_until_ready(
            products(operands[ids.shape[1]])
        ),
    }


def peers(params, labels):
    """The same in PyTorch with both kinds of attention; empty without transformers."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    sizes = text.encoder_tensors(CONFIG, params["encoder"])
    weights = {name: torch.tensor(tensor) for name, tensor in sizes.items()}
    targets = torch.tensor(labels, dtype=torch.int64)
    operands = {
        n: [  # a dense layer holds its kernel transposed
            (torch.tensor(x), torch.tensor(kernel.T.copy()))
            for x, kernel in make_operands(n)
        ]
        for n in LENGTHS
    }

    def products(ids):
        with torch.inference_mode():
            return [
                torch.nn.functional.linear(x, kernel)
                for x, kernel in operands[ids.shape[1]]
            ]

    runs = {("products", PEER): products}
    for attention in ("sdpa", "eager"):
        settings = transformers.BertConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.hidden_size,
            num_hidden_layers=CONFIG.num_layers,
            num_attention_heads=CONFIG.num_heads,
            intermediate_size=CONFIG.intermediate_size,
            attn_implementation=attention,
        )
        model = transformers.BertModel(settings, add_pooling_layer=False)
        model.load_state_dict(weights, strict=True)
        head = torch.nn.Linear(CONFIG.hidden_size, NUM_CLASSES)

        def pooled(ids, model=model):
            ids = torch.tensor(ids, dtype=torch.int64)
            mask = torch.ones_like(ids)
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            return hidden.mean(dim=1)

        def forward(ids, model=model, pooled=pooled):
            model.eval()
            with torch.inference_mode():
                return pooled(ids).numpy()

        def training(ids, model=model, head=head, pooled=pooled):
            model.train()
            model.zero_grad(set_to_none=True)
            head.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(head(pooled(ids)), targets)
            loss.backward()
            return loss.item()

        runs["forward", f"{PEER}, {attention}"] = forward
        runs["training", f"{PEER}, {attention}"] = training
    return runs


def measure(runs, ids, rounds) -> dict:
    """Least seconds of each run, on the clock and of the processor."""
    clocks = (time.perf_counter, time.process_time)
    seconds = dict.fromkeys(runs, (float("inf"), float("inf")))
    for run in runs.values():
        run(ids)
    for _ in range(rounds):
        for name, run in runs.items():
            start = [clock() for clock in clocks]
            run(ids)
            spent = [
                clock() - since for clock, since in zip(clocks, start, strict=True)
            ]
            seconds[name] = tuple(map(min, seconds[name], spent))
    return seconds


def summarise(runs, ids, seconds) -> dict[str, list[dict]]:
    """Rows by `forward` or `training`; ratios are to the faster peer."""
    tables = {}
    for (what, variant), least in seconds.items():
        others = [s for (w, v), s in seconds.items() if w == what and v != OURS]
        others = others or [(float("nan"),) * 2]
        row = {
            "variant": variant,
            "milliseconds": 1e3 * least[0],
            "throughput_ratio": min(o[0] for o in others) / least[0],
            "processor_ratio": min(o[1] for o in others) / least[1],
        }
        if what == "forward":
            reference = np.asarray(runs["forward", OURS](ids))
            row["difference"] = float(
                np.max(np.abs(runs[what, variant](ids) - reference))
            )
        tables.setdefault(what, []).append(row)
    return tables


def main() -> None:
    parser = measuring.parser(__doc__, rounds=10)
    parser.add_argument("--cores", type=int, help="how many to use; default: all")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.cores :])
    params, batches, labels = make_problem()
    runs = ours(params, labels) | peers(params, labels)
    tables = {}
    for length, ids in batches.items():
        seconds = measure(runs, ids, arguments.rounds)
        for what, rows in summarise(runs, ids, seconds).items():
            name = f"{what}, batch {BATCH}, length {length}"
            tables[name] = rows
            print(name)
            for row in rows:
                print(
                    f"  {row['variant']:24s} {row['throughput_ratio']:6.3f} "
                    f"{row['processor_ratio']:6.3f} "
                    f"{row['milliseconds']:9.1f} ms",
                    flush=True,
                )
    measuring.save(
        __file__,
        arguments,
        question="Throughput of the BERT encoder, next to PyTorch.",
        notes=(
            "Throughput is relative to the faster of the two kinds of attention in "
            "transformers with PyTorch (larger is faster); the difference is the "
            "largest of the pooled states. Training: loss and gradient, with "
            "dropout. Products: the matrix products of the dense layers of a "
            "forward pass alone. On a machine with other work, read the ratio by "
            "processor time of a run on one core."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
