"""What scoring all spans costs, next to a CRF and to other ways to write it.

    python benchmarks/global_pointer.py

Training steps (value, gradient, AdamW) and predictions (states to lists of spans) of a
BERT encoder with each head, and of the heads alone; memory of the heads on a long
sentence; the loss and the divergence next to other forms of theirs. Rounds go through
all variants in turn, the least time of each counts, and only ratios are reported.
"""

import functools

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax

import gp_kl
from expkit.text import EncoderConfig, apply_encoder, init_encoder

REFERENCE = "linear-chain CRF"
WIDTH, HEAD_SIZE, SPANS = 256, 64, 3
SIZES = {(16, 64, 3): True, (16, 128, 10): True, (16, 128, 30): False}
"""Batch, length and types, and whether also with an encoder."""
CONFIG = EncoderConfig(
    vocab_size=5000,
    hidden_size=WIDTH,
    num_layers=4,
    num_heads=4,
    intermediate_size=4 * WIDTH,
    max_positions=128,
)
HEAD_COLUMNS = {
    "variant": "variant",
    "train_time_ratio": "training, time ratio",
    "predict_time_ratio": "prediction, time ratio",
    "parameters": "parameters of the head",
    "temp_mebibytes": "temporary MiB, training",
}
MEMORY_COLUMNS = {
    "variant": "variant",
    "temp_mebibytes": "temporary MiB, scores",
    "gradient_temp_mebibytes": "temporary MiB, gradient",
}
LOSS_COLUMNS = {
    "variant": "variant",
    "time_ratio": "value, time ratio",
    "gradient_time_ratio": "gradient, time ratio",
    "temp_ratio": "value, temporary / scores",
    "gradient_temp_ratio": "gradient, temporary / scores",
}


def random_spans(rng, length, num_types):
    """A few spans of a sentence that do not overlap."""
    starts = np.sort(rng.choice(length // 4, size=SPANS, replace=False)) * 4
    return [(int(rng.integers(num_types)), int(s), int(s) + 2) for s in starts]


def make_data(batch, length, num_types):
    rng = np.random.default_rng(0)
    spans = [random_spans(rng, length, num_types) for _ in range(batch)]
    labels = [gp_kl.span_labels(s, num_types, length) for s in spans]
    tags = [gp_kl.spans_to_bio(s, length) for s in spans]
    mask = np.arange(length) < rng.integers(length // 2, length + 1, (batch, 1))
    return {
        "ids": jnp.asarray(rng.integers(3, CONFIG.vocab_size, (batch, length))),
        "hidden": jax.random.normal(jax.random.key(0), (batch, length, WIDTH)),
        "mask": jnp.asarray(mask),
        "labels": jnp.asarray(np.stack(labels)),
        "tags": jnp.asarray(np.stack(tags)),
    }


def span_head(make_head, num_types):
    """A head, its loss, its prediction, and how spans come from that."""
    head = make_head(WIDTH, num_types, HEAD_SIZE)

    def loss(params, hidden, data):
        scores = head.apply(params, hidden, data["mask"])
        values = gp_kl.multilabel_cross_entropy(scores, data["labels"], axis=(-2, -1))
        return jnp.mean(values)

    def predict(params, hidden, data):
        return head.apply(params, hidden, data["mask"])

    return head, loss, predict, few_spans


def few_spans(scores):
    """Decodes as many spans as there are: of a head without training, half is one."""
    threshold = np.sort(scores, axis=None)[-SPANS * len(scores)]
    return functools.partial(gp_kl.decode_spans, threshold=threshold)


def crf_head(num_types):
    """The same for the CRF."""
    crf = gp_kl.LinearChainCRF(WIDTH, num_types)

    def loss(params, hidden, data):
        args = params, hidden, data["tags"], data["mask"]
        return -jnp.mean(crf.log_likelihood(*args))

    def predict(params, hidden, data):
        return crf.decode(params, hidden, data["mask"])

    return crf, loss, predict, lambda tags: gp_kl.bio_to_spans


def make_heads(num_types):
    return {
        REFERENCE: crf_head(num_types),
        "GlobalPointer": span_head(gp_kl.GlobalPointer, num_types),
        "EfficientGlobalPointer": span_head(gp_kl.EfficientGlobalPointer, num_types),
    }


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def make_runs(head, loss, predict, decode, data, with_encoder):
    """A training step and a prediction, both compiled, and the memory of the first."""
    keys = jax.random.split(jax.random.key(1))
    params = {"head": head.init(keys[0])}
    if with_encoder:
        params["encoder"] = init_encoder(CONFIG, keys[1])
    optimizer = optax.adamw(1e-4)

    def states(params, data, key=None):
        if not with_encoder:
            return data["hidden"]
        ids, mask = data["ids"], data["mask"]
        return apply_encoder(CONFIG, params["encoder"], ids, mask, key=key)

    def step(params, state, data, key):
        def total(params):
            return loss(params["head"], states(params, data, key), data)

        value, grads = jax.value_and_grad(total)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    arguments = params, optimizer.init(params), data, jax.random.key(2)
    train = jax.jit(step).lower(*arguments).compile()
    infer = jax.jit(lambda p, d: predict(p["head"], states(p, d), d))
    infer = infer.lower(params, data).compile()

    decode = decode(np.asarray(infer(params, data)))

    def predicted():
        return [decode(x) for x in np.asarray(infer(params, data))]

    memory = train.memory_analysis().temp_size_in_bytes / 2**20
    row = {"parameters": count(params["head"]), "temp_mebibytes": memory}
    return functools.partial(train, *arguments), predicted, row


def measure_heads(size, with_encoder, rounds) -> list[dict]:
    batch, length, num_types = size
    data = make_data(batch, length, num_types)
    runs, rows = {}, {}
    for name, parts in make_heads(num_types).items():
        *both, rows[name] = make_runs(*parts, data, with_encoder)
        runs[name, "train"], runs[name, "predict"] = both
    best = measuring.least_seconds(runs, rounds)
    return [
        {
            "variant": name,
            **{
                f"{kind}_time_ratio": best[name, kind] / best[REFERENCE, kind]
                for kind in ("train", "predict")
            },
            "train_milliseconds": 1e3 * best[name, "train"],
            "predict_milliseconds": 1e3 * best[name, "predict"],
            **row,
        }
        for name, row in rows.items()
    ]


def concatenated(head, params, hidden, mask):
    """The efficient head with the array [q_i; k_i; q_j; k_j], and no positions."""
    n = hidden.shape[1]
    rows = jnp.einsum("bnh,hsd->bnsd", hidden, params["kernel"]) + params["bias"]
    both = rows.reshape(1, n, 2 * head.head_size)
    shape = (1, n, n, 2 * head.head_size)
    ends = [jnp.broadcast_to(jnp.expand_dims(both, x), shape) for x in (2, 1)]
    pairs = jnp.concatenate(ends, axis=-1)
    weights = jnp.swapaxes(params["type_kernel"], 0, 1).reshape(-1, head.num_types)
    linear = jnp.einsum("bijk,km->bmij", pairs, weights)
    products = jnp.einsum("bid,bjd->bij", rows[:, :, 0], rows[:, :, 1])
    scores = linear + products[:, None] + params["type_bias"].sum(0)[:, None, None]
    return jnp.where(gp_kl.span_mask(mask)[:, None], scores, -jnp.inf)


def measure_memory(length, num_types) -> list[dict]:
    full = gp_kl.GlobalPointer(WIDTH, num_types, HEAD_SIZE)
    efficient = gp_kl.EfficientGlobalPointer(WIDTH, num_types, HEAD_SIZE)
    variants = {
        "GlobalPointer": (full, full.apply),
        "EfficientGlobalPointer": (efficient, efficient.apply),
        "with [q; k; q; k]": (efficient, functools.partial(concatenated, efficient)),
    }
    hidden = jax.ShapeDtypeStruct((1, length, WIDTH), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, length), bool)
    labels = jax.ShapeDtypeStruct((1, num_types, length, length), bool)
    table = []
    for name, (head, apply) in variants.items():

        def loss(params, hidden, mask, labels, apply=apply):
            scores = apply(params, hidden, mask)
            return gp_kl.multilabel_cross_entropy(scores, labels, axis=(2, 3)).mean()

        params = jax.eval_shape(head.init, jax.random.key(0))
        scores = jax.jit(apply).lower(params, hidden, mask).compile()
        gradient = jax.jit(jax.grad(loss, (0, 1)))
        gradient = gradient.lower(params, hidden, mask, labels).compile()
        sizes = [
            program.memory_analysis().temp_size_in_bytes / 2**20
            for program in (scores, gradient)
        ]
        columns = "temp_mebibytes", "gradient_temp_mebibytes"
        table.append({"variant": name} | dict(zip(columns, sizes, strict=True)))
    return table


def idiom(logits, labels):
    """The loss as other implementations write it."""
    ones = labels.astype(logits.dtype)
    signed = (1 - 2 * ones) * logits
    parts = signed - ones * 1e12, signed - (1 - ones) * 1e12
    padded = (jnp.pad(part, ((0, 0), (0, 1))) for part in parts)
    return sum(jax.nn.logsumexp(part, axis=1) for part in padded)


def plain_divergence(s, t):
    """The divergence as the essay writes it, after masking."""
    keep = jnp.isfinite(s)
    s, t = (jnp.where(keep, z, 0.0) for z in (s, t))
    return jnp.sum((jax.nn.sigmoid(s) - jax.nn.sigmoid(t)) * (s - t), axis=-1)


def measure_losses(functions: dict, first, rounds) -> list[dict]:
    """Each with its other argument, of the scores `first`."""
    programs, rows = {}, {}
    for name, (function, other) in functions.items():

        def total(x, other, function=function):
            return jnp.sum(function(x, other))

        value = jax.jit(total).lower(first, other).compile()
        gradient = jax.jit(jax.value_and_grad(total)).lower(first, other).compile()
        programs[name, "value"] = functools.partial(value, first, other)
        programs[name, "gradient"] = functools.partial(gradient, first, other)
        sizes = [p.memory_analysis().temp_size_in_bytes for p in (value, gradient)]
        rows[name] = {
            "temp_ratio": sizes[0] / first.nbytes,
            "gradient_temp_ratio": sizes[1] / first.nbytes,
        }
    best = measuring.least_seconds(programs, rounds)
    (reference, *_) = functions
    return [
        {
            "variant": name,
            "time_ratio": best[name, "value"] / best[reference, "value"],
            "gradient_time_ratio": best[name, "gradient"] / best[reference, "gradient"],
            "gradient_milliseconds": 1e3 * best[name, "gradient"],
            **row,
        }
        for name, row in rows.items()
    ]


def loss_tables(rounds) -> dict[str, list[dict]]:
    batch, length, num_types = 16, 128, 10
    data = make_data(batch, length, num_types)
    labels = data["labels"].reshape(batch * num_types, -1)
    cells = np.flatnonzero(gp_kl.span_mask(np.ones(length, bool)))
    s, t = 3.0 * jax.random.normal(jax.random.key(3), (2, *labels.shape))
    indices = np.full((len(labels), 4), -1, np.int32)
    for row, flags in zip(indices, np.asarray(labels), strict=True):
        found = np.flatnonzero(flags)
        row[: len(found)] = found
    losses = {
        "minus 1e12 where it does not count": (idiom, labels),
        "multilabel_cross_entropy": (gp_kl.multilabel_cross_entropy, labels),
        "sparse_multilabel_cross_entropy": (
            gp_kl.sparse_multilabel_cross_entropy,
            jnp.asarray(indices),
        ),
    }
    upper = jnp.zeros(s.shape[1], bool).at[cells].set(True)[None]
    s, t = (jnp.where(upper, z, -jnp.inf) for z in (s, t))
    divergences = {
        "(sigmoid(s) - sigmoid(t)) (s - t)": (plain_divergence, t),
        "span_divergence": (gp_kl.span_divergence, t),
    }
    where = f"batch {batch}, length {length}, {num_types} types"
    return {
        f"the loss, {where}": measure_losses(losses, s, rounds),
        f"the divergence, {where}": measure_losses(divergences, s, rounds),
    }


def measure(rounds) -> tuple[dict, dict]:
    tables, columns = {}, {}

    def add(name, rows, shown):
        tables[name], columns[name] = rows, shown
        print(name)
        for row in rows:
            print("  " + "  ".join(f"{row[key]}"[:34] for key in shown), flush=True)

    for size, with_encoder in SIZES.items():
        where = "batch {}, length {}, {} types".format(*size)
        kinds = {"with an encoder": True, "heads alone": False}
        for name, is_whole in kinds.items():
            if with_encoder or not is_whole:
                rows = measure_heads(size, is_whole, rounds)
                add(f"{name}, {where}", rows, HEAD_COLUMNS)
    name = "memory, one sentence of 512 tokens, 10 types"
    add(name, measure_memory(512, 10), MEMORY_COLUMNS)
    for name, rows in loss_tables(rounds).items():
        add(name, rows, LOSS_COLUMNS)
    return tables, columns


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    arguments = parser.parse_args()
    tables, columns = measure(arguments.rounds)
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of heads that score all spans.",
        notes=(
            "Times of the heads are relative to the CRF: a training step with "
            "AdamW, and a prediction from the states, or the tokens, to lists of "
            f"spans. The encoder is a BERT of {CONFIG.num_layers} layers and width "
            f"{WIDTH} with dropout {CONFIG.hidden_dropout}; queries and keys have "
            f"the width {HEAD_SIZE}; all in float32. Temporary memory of the loss "
            "and the divergence is relative to the bytes of the scores; a gradient "
            "has its own result besides."
        ),
        columns=columns,
        tables=tables,
    )


if __name__ == "__main__":
    main()
