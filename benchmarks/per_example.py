"""What squared gradients of single examples cost, in closed form and by `vmap`.

    python benchmarks/per_example.py

Every variant computes the same numbers from the same network; how far they are from
those of `jax.vmap` of `jax.grad` is a column. Rounds go through all variants in turn,
the least time of each counts, and only ratios to one plain gradient of the mean loss
are reported.
"""

import functools

import jax
import jax.numpy as jnp
import measuring
import numpy as np

from expkit.per_example import dense_fisher, dense_squared_norms

REFERENCE = "gradient of the mean loss"
# Layer sizes, batch, and the length of the sequences or None.
SETTINGS = {
    "784-400-400-400-400-10, batch 64": ((784, 400, 400, 400, 400, 10), 64, None),
    "784-400-400-400-400-10, batch 512": ((784, 400, 400, 400, 400, 10), 512, None),
    "sequences of 16, 256-256-256-10, batch 32": ((256, 256, 256, 10), 32, 16),
    "sequences of 256, 64-64-64-10, batch 32": ((64, 64, 64, 10), 32, 256),
}
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time ratio",
    "flops_ratio": "flops ratio",
    "temp_mebibytes": "temporary MiB",
    "relative_error": "relative error",
}
# What is computed; the first variant of each is what the others are compared with.
NORMS, PENALTY, FISHER = "norms", "gradient of the mean norm", "Fisher"


def make_problem(sizes, batch, length):
    keys = jax.random.split(jax.random.key(0), len(sizes) + 1)
    params = [
        (jax.random.normal(key, (i, o)) / np.sqrt(i), jnp.zeros(o))
        for key, i, o in zip(keys, sizes, sizes[1:], strict=False)
    ]
    shape = (batch, sizes[0]) if length is None else (batch, length, sizes[0])
    x = jax.random.normal(keys[-1], shape)
    return params, x, jax.random.randint(keys[-2], (batch,), 0, sizes[-1])


def forward(params, x):
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    return x @ params[-1][0] + params[-1][1]


def cross_entropy(out, labels):
    """Per example, of the mean over the positions where there are any."""
    out = out if out.ndim == 2 else jnp.mean(out, axis=1)
    return -jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], axis=-1)[:, 0]


def make_variants() -> dict:
    """Functions of (params, x, labels), each under what it computes."""

    def mean_loss(params, x, y):
        return jnp.mean(cross_entropy(forward(params, x), y))

    def one_gradient(params, x, y):
        return jax.grad(mean_loss)(params, x[None], y[None])

    def squares(params, x, y):
        return jax.tree.map(jnp.square, one_gradient(params, x, y))

    def norm(params, x, y):
        return sum(jnp.sum(g) for g in jax.tree.leaves(squares(params, x, y)))

    def norms_by_vmap(params, x, y):
        return jax.vmap(norm, (None, 0, 0))(params, x, y)

    def norms_by_scan(params, x, y):
        return jax.lax.map(lambda example: norm(params, *example), (x, y))

    def norms(params, x, y):
        return dense_squared_norms(
            params, x, lambda out: cross_entropy(out, y), jnp.tanh
        )

    def fisher_by_vmap(params, x, y):
        every = jax.vmap(squares, (None, 0, 0))(params, x, y)
        return jax.tree.map(lambda s: jnp.mean(s, axis=0), every)

    def fisher_by_scan(params, x, y):
        def add(total, example):
            return jax.tree.map(jnp.add, total, squares(params, *example)), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, _ = jax.lax.scan(add, zeros, (x, y))
        return jax.tree.map(lambda t: t / len(x), total)

    def fisher(params, x, y):
        return dense_fisher(params, x, lambda out: cross_entropy(out, y), jnp.tanh)

    def penalty(of):
        return jax.grad(lambda params, x, y: jnp.mean(of(params, x, y)))

    return {
        REFERENCE: {"": jax.grad(mean_loss)},
        NORMS: {
            "vmap": norms_by_vmap,
            "scan": norms_by_scan,
            "dense_squared_norms": norms,
        },
        PENALTY: {
            "vmap": penalty(norms_by_vmap),
            "scan": penalty(norms_by_scan),
            "dense_squared_norms": penalty(norms),
        },
        FISHER: {
            "vmap": fisher_by_vmap,
            "scan": fisher_by_scan,
            "dense_fisher": fisher,
        },
    }


def relative_error(got, expected) -> float:
    """Largest difference in a leaf, relative to the largest entry of that leaf."""
    errors = [
        np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    ]
    return float(max(errors))


def measure(sizes, batch, length, rounds) -> list[dict]:
    problem = make_problem(sizes, batch, length)
    runs, rows = {}, {}
    for what, variants in make_variants().items():
        expected = None
        for name, fn in variants.items():
            label = f"{what}, {name}" if name else what
            compiled = jax.jit(fn).lower(*problem).compile()
            result = compiled(*problem)
            expected = result if expected is None else expected
            runs[label] = functools.partial(compiled, *problem)
            rows[label] = {
                "flops": (compiled.cost_analysis() or {}).get("flops"),
                "temp_mebibytes": compiled.memory_analysis().temp_size_in_bytes / 2**20,
                "relative_error": relative_error(result, expected),
            }
    seconds = measuring.least_seconds(runs, rounds)
    return [
        summary(label, row, rows[REFERENCE], seconds) for label, row in rows.items()
    ]


def summary(label, row, reference, seconds) -> dict:
    # XLA counts the body of a loop once.
    is_counted = row["flops"] and reference["flops"] and "scan" not in label
    return {
        "variant": label,
        "time_ratio": seconds[label] / seconds[REFERENCE],
        "milliseconds": 1e3 * seconds[label],
        "flops_ratio": row["flops"] / reference["flops"] if is_counted else None,
        **row,
    }


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    arguments = parser.parse_args()
    tables = {}
    for name, setting in SETTINGS.items():
        tables[name] = measure(*setting, arguments.rounds)
        print(name)
        for row in tables[name]:
            print(
                f"  {row['variant']:48s} {row['time_ratio']:8.3f}  "
                f"temp {row['temp_mebibytes']:8.2f} MiB  "
                f"error {row['relative_error']:.1e}",
                flush=True,
            )
    measuring.save(
        __file__,
        arguments,
        question="Time and memory of squared gradients of single examples.",
        notes=(
            f"Time and flops (as XLA counts them) are relative to the {REFERENCE}; "
            "errors to the form by vmap, in float32. Norms: squared norm of every "
            "example's gradient. Fisher: mean of the squared gradients."
        ),
        columns=dict.fromkeys(SETTINGS, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
