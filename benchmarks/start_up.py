"""How long a package takes to import, and a method to compile, next to its peers.

    python benchmarks/start_up.py

Each import is timed inside a fresh interpreter, each compilation on a function that JAX
has not seen; rounds go through all variants in turn and the least time of each counts.
Packages that are not installed are left out.

What ours compile and the first of their table does not is listed in the introduction of
`benchmarks/README.md`.
"""

import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import measuring
import optax

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = ("childtuning", "cosent", "gp_kl", "igr", "lion", "rdrop", "vmf_vae")
# Python puts the folder of a script in front, which has scripts of these names.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE]
childtuning, cosent, gp_kl, igr, lion, rdrop, vmf_vae = map(
    importlib.import_module, OURS
)
PEERS = ("jax", "optax", "flax.linen", "distrax", "blackjax", "equinox", "torch")
IMPORT = """
import sys, time
start = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - start)
"""


def import_seconds(name: str) -> float:
    """Seconds of an import in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def least(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Least seconds of each, taken in turn."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):  # the first round warms up, and cannot be the least
        for name, run in runs.items():
            seconds[name] = min(seconds[name], run())
    return seconds


def compilation(fn: Callable, *arguments) -> Callable[[], float]:
    """How to time tracing, lowering and compiling a function anew."""

    def run() -> float:
        fresh = jax.jit(lambda *a: fn(*a))
        start = time.perf_counter()
        fresh.lower(*arguments).compile()
        return time.perf_counter() - start

    return run


def plain_cosent(scores, labels):
    """The loss as it is defined, over all pairs."""
    gaps = 20.0 * (scores[:, None] - scores[None, :])
    chosen = jnp.where(labels[:, None] < labels[None, :], gaps, -jnp.inf)
    return jax.nn.logsumexp(jnp.append(chosen.ravel(), 0.0))


def plain_masked_cross_entropy(scores, labels):
    """The loss as it is usually written, with large constants for masks."""
    scores = (1 - 2 * labels) * scores
    zeros = jnp.zeros_like(scores[..., :1])
    found = [scores - 1e12 * labels, scores - 1e12 * (1 - labels)]
    sums = [jax.nn.logsumexp(jnp.append(s, zeros, axis=-1), axis=-1) for s in found]
    return jnp.mean(sum(sums))


def squared_error(params, x, y):
    hidden = x
    for name in sorted(params):
        hidden = jnp.tanh(hidden @ params[name])
    return jnp.mean((hidden - y) ** 2)


def normal_direction(key):
    x = jax.random.normal(key, (100, 1, 20))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def compilations() -> dict[str, dict[str, Callable[[], float]]]:
    """By question, what is compiled; the first of each is what ratios refer to."""
    params = {f"w{i:02d}": jnp.ones((64, 64)) for i in range(12)}
    grads = jax.tree.map(lambda p: 0.1 * p, params)

    def step(tx):
        return compilation(tx.update, grads, tx.init(params), params)

    x = jnp.ones((32, 64))
    scores, labels = jnp.linspace(-1.0, 1.0, 4096), jnp.arange(4096.0) % 6
    cells, marks = jnp.ones((8, 4096)), jnp.zeros((8, 4096))
    mean, key = jnp.eye(20)[:1], jax.random.key(0)
    logits = jnp.ones((32, 10))

    def value_and_gradient(fn, *arguments):
        return compilation(jax.value_and_grad(fn), *arguments)

    penalised = igr.with_gradient_penalty(squared_error, 0.1)
    return {
        "a step of 12 matrices": {
            "optax.lion": step(optax.lion(1e-4)),
            "lion.lion": step(lion.lion(1e-4)),
            "lion.lion, int8": step(lion.lion(1e-4, mu_dtype="int8")),
            "optax.adamw": step(optax.adamw(1e-3)),
            "childtuning.child_tuning_f, adamw": step(
                optax.chain(childtuning.child_tuning_f(0.3, key), optax.adamw(1e-3))
            ),
        },
        "value and gradient of a ranking loss, 4,096 rows": {
            "all pairs": value_and_gradient(plain_cosent, scores, labels),
            "cosent.cosent_loss": value_and_gradient(
                cosent.cosent_loss, scores, labels
            ),
        },
        "value and gradient of a multi-label loss": {
            "with large constants": value_and_gradient(
                plain_masked_cross_entropy, cells, marks
            ),
            "gp_kl.multilabel_cross_entropy": value_and_gradient(
                lambda s, t: jnp.mean(gp_kl.multilabel_cross_entropy(s, t)),
                cells,
                marks,
            ),
        },
        "value and gradient of a perceptron of 12 layers": {
            "the loss": value_and_gradient(squared_error, params, x, x),
            "igr.with_gradient_penalty": value_and_gradient(penalised, params, x, x),
        },
        "value and gradient of a divergence": {
            "optax.losses.kl_divergence": value_and_gradient(
                lambda p, q: jnp.mean(
                    optax.losses.kl_divergence(jax.nn.log_softmax(p), jax.nn.softmax(q))
                ),
                logits,
                logits,
            ),
            "rdrop.symmetric_kl": value_and_gradient(
                lambda p, q: jnp.mean(rdrop.symmetric_kl(p, q)), logits, logits
            ),
        },
        "a sample on the sphere": {
            "a normal vector over its length": compilation(normal_direction, key),
            "vmf_vae.sample_vmf": compilation(
                lambda key: vmf_vae.sample_vmf(key, mean, jnp.ones(1), (100,)), key
            ),
        },
    }


def rows_of(seconds: dict[str, float], reference: str) -> list[dict]:
    return [
        {
            "variant": name,
            "time_ratio": value / seconds[reference],
            "milliseconds": 1e3 * value,
        }
        for name, value in seconds.items()
    ]


def show(title: str, rows: Iterable[dict]) -> None:
    print(title)
    for row in rows:
        ratio, milliseconds = row["time_ratio"], row["milliseconds"]
        print(f"  {row['variant']:36s}{ratio:7.3f}{milliseconds:9.1f} ms")
    sys.stdout.flush()


def main() -> None:
    parser = measuring.parser(__doc__, rounds=9)
    arguments = parser.parse_args()
    names = [name for name in (*PEERS, *OURS) if is_installed(name)]
    imports = {name: lambda name=name: import_seconds(name) for name in names}
    tables = {"Import": rows_of(least(imports, arguments.rounds), "optax")}
    show("Import, as a ratio to optax", tables["Import"])
    for question, runs in compilations().items():
        title = f"Compilation of {question}"
        tables[title] = rows_of(least(runs, arguments.rounds), next(iter(runs)))
        show(title, tables[title])
    columns = {
        "variant": "variant",
        "time_ratio": "time ratio",
        "milliseconds": "milliseconds",
    }
    measuring.save(
        __file__,
        arguments,
        question="Time of an import and of a compilation.",
        notes="Imports relative to optax, compilations to the first of each table; "
        "with tracing and lowering. Why ours take longer is at the top of the page.",
        columns=dict.fromkeys(tables, columns),
        tables=tables,
    )


if __name__ == "__main__":
    main()
