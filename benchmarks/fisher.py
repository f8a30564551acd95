"""What Fisher information costs: example by example, by `vmap`, and in closed form.

    python benchmarks/fisher.py

Every variant of a convention computes the same numbers; how far they are from those of
`fisher_information` is a column. Rounds go through all variants in turn, the least time
of each counts, and only ratios to one gradient of the mean loss are reported.
"""

import functools

import jax
import jax.numpy as jnp
import measuring
import numpy as np

from childtuning import fisher
from expkit.per_example import dense_fisher
from expkit.text.encoder import EncoderConfig, apply_encoder, init_encoder

REFERENCE = "gradient of the mean loss"
SIZES = (784, 400, 400, 400, 400, 10)
ENCODER = EncoderConfig(
    vocab_size=2000,
    hidden_size=256,
    num_layers=4,
    num_heads=4,
    intermediate_size=1024,
    max_positions=64,
)
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time ratio",
    "temp_ratio": "temporary / gradient",
    "relative_error": "relative error",
}


def cross_entropy(logits, labels):
    """Per example."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[
        :, 0
    ]


def make_perceptron(batch):
    """Loss, parameters, batch, and the closed form."""
    keys = jax.random.split(jax.random.key(0), len(SIZES) + 1)
    params = [
        (jax.random.normal(key, (i, o)) / np.sqrt(i), jnp.zeros(o))
        for key, i, o in zip(keys, SIZES, SIZES[1:], strict=False)
    ]
    x = jax.random.normal(keys[-1], (batch, SIZES[0]))
    labels = jax.random.randint(keys[-2], (batch,), 0, SIZES[-1])

    def loss_fn(params, batch):
        h, y = batch
        for w, b in params[:-1]:
            h = jnp.tanh(h @ w + b)
        return jnp.mean(cross_entropy(h @ params[-1][0] + params[-1][1], y))

    def closed(params, batch):
        h, y = batch
        return dense_fisher(params, h, lambda out: cross_entropy(out, y), jnp.tanh)

    return loss_fn, params, (x, labels), closed


def make_encoder(batch, length=32):
    """Loss, parameters and batch of a classifier over the first token."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "encoder": init_encoder(ENCODER, keys[0]),
        "head": 0.02 * jax.random.normal(keys[1], (ENCODER.hidden_size, 2)),
    }
    ids = jax.random.randint(keys[2], (batch, length), 1, ENCODER.vocab_size)
    labels = jax.random.randint(keys[3], (batch,), 0, 2)

    def loss_fn(params, batch):
        ids, y = batch
        hidden = apply_encoder(ENCODER, params["encoder"], ids, ids > 0)
        return jnp.mean(cross_entropy(hidden[:, 0] @ params["head"], y))

    return loss_fn, params, (ids, labels), None


def make_variants(loss_fn, closed) -> dict:
    """Functions of (params, batch), under what they are; the first is the reference."""

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, params)

    def paper(params, batch):
        total, _ = fisher._add_examples(loss_fn, params, zeros(params), batch, None)
        return jax.tree.map(lambda t: t / len(batch[0]), total)

    def authors(params, batch):
        return fisher._add_batch(loss_fn, params, zeros(params), batch, 1.0)[0]

    def by_vmap(params, batch):
        def squares(*example):
            example = tuple(leaf[None] for leaf in example)
            return jax.tree.map(jnp.square, jax.grad(loss_fn)(params, example))

        every = jax.vmap(squares)(*batch)
        return jax.tree.map(lambda s: jnp.mean(s, axis=0), every)

    variants = {
        REFERENCE: jax.grad(loss_fn),
        "authors, one batch": authors,
        "paper, fisher_information": paper,
        "paper, vmap": by_vmap,
    }
    if closed is not None:
        variants["paper, dense_fisher"] = closed
    return variants


def relative_error(got, expected) -> float:
    """Largest difference, relative to the largest entry of all leaves.

    Of all, since some are 0 but for rounding: a bias of the keys shifts all scores of a
    query alike.
    """
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True))
    error = max(np.max(np.abs(np.asarray(a) - b)) for a, b in pairs)
    return float(error / max(np.max(np.abs(b)) for _, b in pairs))


def measure(problem, rounds) -> list[dict]:
    loss_fn, params, batch, closed = problem
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    runs, rows, expected = {}, {}, None
    for name, fn in make_variants(loss_fn, closed).items():
        compiled = jax.jit(fn).lower(params, batch).compile()
        result = compiled(params, batch)
        if name == "paper, fisher_information":
            expected = result
        runs[name] = functools.partial(compiled, params, batch)
        temporary = compiled.memory_analysis().temp_size_in_bytes
        is_paper = name.startswith("paper")
        rows[name] = {
            "temp_ratio": temporary / gradient,
            "temp_mebibytes": temporary / 2**20,
            "relative_error": relative_error(result, expected) if is_paper else None,
        }
    seconds = measuring.least_seconds(runs, rounds)
    return [
        {
            "variant": name,
            "time_ratio": seconds[name] / seconds[REFERENCE],
            "milliseconds": 1e3 * seconds[name],
            **row,
        }
        for name, row in rows.items()
    ]


def main() -> None:
    parser = measuring.parser(__doc__, rounds=9)
    arguments = parser.parse_args()
    encoder = make_encoder(16)
    millions = sum(leaf.size for leaf in jax.tree.leaves(encoder[1])) / 1e6
    problems = {
        "Perceptron 784-4x400-10, tanh, batch 64": make_perceptron(64),
        f"Transformer, {millions:.1f}M parameters, batch 16": encoder,
    }
    tables = {}
    for name, problem in problems.items():
        tables[name] = measure(problem, arguments.rounds)
        print(name)
        for row in tables[name]:
            print(
                f"  {row['variant']:28s} {row['time_ratio']:8.3f}  "
                f"temp {row['temp_ratio']:7.2f} gradients",
                flush=True,
            )
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of Fisher information.",
        notes=(
            f"Over one batch; time is relative to the {REFERENCE} of that batch, "
            "temporary memory to the size of one gradient. Paper: mean of the "
            "squared gradients of examples; errors are to fisher_information, in "
            "float32. Authors: square of the clipped gradient of the mean."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
