"""What a gradient penalty costs, next to nested differentiation and a plain gradient.

    python benchmarks/gradient_penalty.py

Every variant returns the value and the gradient in the parameters. Rounds go through
all variants in turn, the least time of each counts, and only ratios are reported.
`optax.contrib.sam` in its opaque mode, the nearest thing optax has, is timed with its
inner gradient.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import measuring
import optax

import igr
from expkit import nets

PLAIN, NESTED = "plain gradient", "nested"
MODES = ("exact", "nested", "finite_difference")
COLUMNS = {
    "variant": "variant",
    "time_ratio": "time / plain",
    "to_nested": "time / nested",
    "flops": "operations / plain",
    "temp": "temporary / plain",
    "error": "relative error of the gradient",
}


def problems():
    """`name -> (net, inputs)`: the shapes that the ratios are known of."""
    normal = functools.partial(jax.random.normal, jax.random.key(1))
    image = nets.vit((32, 32, 3), 10, patch_size=4, width=256, depth=4, num_heads=4)
    yield "transformer, 3.2M parameters, batch 16", image, normal((16, 32, 32, 3))
    for batch in (64, 512):
        net = nets.mlp((784,), (400,) * 4, 10, activation="tanh")
        name = f"perceptron 784-4x400-10, tanh, batch {batch}"
        yield name, net, normal((batch, 784))
    net = nets.cnn((32, 32, 3), (32, 64, 128), 10)
    yield "convolutions 32-64-128, batch 64", net, normal((64, 32, 32, 3))


def variants(net):
    """`name -> (params, x, labels) -> (value, gradient)`."""

    def loss_fn(params, x, labels):
        logits = net.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    made = {PLAIN: jax.value_and_grad(loss_fn)}
    for mode in MODES:
        penalised = igr.with_gradient_penalty(loss_fn, 0.1, mode=mode)
        made[mode.replace("_", " ")] = jax.value_and_grad(penalised)
    inputs = igr.with_gradient_penalty(loss_fn, 0.1, argnum=1)
    made["exact, of the inputs"] = jax.value_and_grad(inputs)
    two = igr.two_batch_gradient_penalty(
        lambda params, batch: loss_fn(params, *batch), 0.1
    )

    def halves(params, x, labels):
        return two(params, (x[::2], labels[::2]), (x[1::2], labels[1::2]))

    made["two half batches"] = jax.value_and_grad(halves)
    made["optax.contrib.sam"] = functools.partial(sam, loss_fn)
    return made


def sam(loss_fn, params, x, labels):
    """The update of SAM, which takes two gradients."""
    inner = optax.chain(optax.contrib.normalize(), optax.sgd(1e-2))
    optimizer = optax.contrib.sam(
        optax.sgd(1.0), inner, sync_period=2, opaque_mode=True
    )
    value, grads = jax.value_and_grad(loss_fn)(params, x, labels)
    updates, _ = optimizer.update(
        grads,
        optimizer.init(params),
        params,
        grad_fn=lambda params, _: jax.grad(loss_fn)(params, x, labels),
    )
    return value, updates


def measure(net, x, rounds: int) -> list[dict]:
    params, labels = net.init(jax.random.key(0)), jnp.arange(len(x)) % 10
    compiled = {
        name: jax.jit(fn).lower(params, x, labels).compile()
        for name, fn in variants(net).items()
    }
    gradients = {
        name: jax.flatten_util.ravel_pytree(fn(params, x, labels)[1])[0]
        for name, fn in compiled.items()
    }
    runs = {n: functools.partial(fn, params, x, labels) for n, fn in compiled.items()}
    seconds = measuring.least_seconds(runs, rounds)
    flops = {name: fn.cost_analysis()["flops"] for name, fn in compiled.items()}
    temp = {n: fn.memory_analysis().temp_size_in_bytes for n, fn in compiled.items()}
    nested = gradients[NESTED]
    rows = []
    for name in compiled:
        row = {
            "variant": name,
            "time_ratio": seconds[name] / seconds[PLAIN],
            "to_nested": seconds[name] / seconds[NESTED],
            "milliseconds": 1e3 * seconds[name],
            "flops": flops[name] / flops[PLAIN],
            "temp": temp[name] / temp[PLAIN],
        }
        if name in ("exact", "finite difference"):
            off = jnp.linalg.norm(gradients[name] - nested)
            row["error"] = float(off / jnp.linalg.norm(nested))
        rows.append(row)
    return rows


def main() -> None:
    parser = measuring.parser(__doc__, rounds=15)
    arguments = parser.parse_args()
    tables = {}
    for name, net, x in problems():
        tables[name] = measure(net, x, arguments.rounds)
        print(name)
        for row in tables[name]:
            print(
                f"  {row['variant']:22s} {row['time_ratio']:6.2f} of plain "
                f"{row['to_nested']:5.2f} of nested, operations {row['flops']:.2f}, "
                f"temporary {row['temp']:.2f}"
            )
        sys.stdout.flush()
    measuring.save(
        __file__,
        arguments,
        question="Cost of a gradient penalty.",
        notes=(
            "Value and gradient in float32. Time, operations (XLA's count) and "
            "temporary memory are relative to one plain gradient; the error is "
            "that to nested differentiation, relative to its norm."
        ),
        columns=dict.fromkeys(tables, COLUMNS),
        tables=tables,
    )


if __name__ == "__main__":
    main()
