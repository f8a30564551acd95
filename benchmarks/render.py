"""Writes benchmarks/README.md from the JSON files in benchmarks/results.

python benchmarks/render.py
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent
INTRO = """# Benchmarks

Each script asks one question, measures every variant in the same process, in turn, and
keeps the least time of each; ratios are what counts. `python benchmarks/run_all.py`
runs them all, and goes on where it was interrupted. The tables are written by
`python benchmarks/render.py` from the files in `results/`.

Everything is measured on CPUs. The public functions and the training steps are lowered
for GPUs and TPUs by `tests/test_export.py`; nothing has been run there.

## Where a peer is ahead

- **A global threshold.** `np.partition` takes about half the time of `fisher_mask`. It
  selects within a copy of one array on the host; `fisher_mask` reads the numbers five
  times where they lie, in any number of sharded arrays, checks them, and makes the
  mask. The threshold alone takes as long as threshold and mask: a mask needs a number
  that k entries reach, the threshold is the k-th entry itself, which takes one more
  pass.
- **The search for a threshold.** From 100,000 scores on Powell's method is faster than
  the exact sweep: it evaluates the accuracy some tens of times, and the sweep sorts. It
  loses little on the scores of this table and tens of points on others
  ([claims](../cosent/README.md#results)). Under `jit` the sweep takes XLA's sort, on a
  CPU the slower one. For class weights Powell's method is faster than the eight starts
  of `best_class_weights`, and loses points; from 10 classes on one start is faster yet.
- **Draws at a fixed concentration.** `FixedConcentrationSampler` takes about as long as
  `sample_vmf`, and in three coordinates four times as long. It is the table of an
  essay, kept since a claim is about it, and since a draw takes a fixed count of random
  numbers and no loop.
- **Draws in 768 coordinates.** They are made of normal numbers here and in TensorFlow
  Probability, and take as long, within 3 % either way.
- **AdamW's memory.** With a weight decay `child_adamw` has 4 temporary bytes a
  parameter and `optax.adamw` none: weights decay after the step, as in the authors'
  code, so that the step is used twice and XLA keeps it. The row of the table has no
  decay, which is left out and needs none.
- **A step of Lion.** PyTorch's fused AdamW is ahead of every step with a float32
  momentum.
- **Spans.** A CRF alone trains several times as fast as Global Pointer, which computes
  n² m scores; the efficient head is nearer to it, and beside an encoder both are.
  `span_divergence` takes about twice as long as the plain product: it masks before it
  subtracts, and keeps the digits where scores are close or both large.
- **Dense layers.** At length 128 the products of transformers are ahead; the whole
  encoder is not.
- **Compilation.** What ours compile and the first of their table does not: random
  numbers for each of 12 leaves, and AdamW (`child_tuning_f`); blocks of 8-bit momentum;
  a sort and sums in groups (`cosent_loss`); a gradient and its derivative along itself
  (`with_gradient_penalty`); both directions, masks and a logarithm by cases
  (`symmetric_kl`); a loop of rejections (`sample_vmf`).
"""


def cell(value) -> str:
    if isinstance(value, float):
        is_plain = value == 0 or 5e-4 <= abs(value) < 1e4
        return f"{value:.3f}" if is_plain else f"{value:.1e}"
    return "" if value is None else str(value)


def table(rows: list[dict], columns: dict[str, str]) -> list[str]:
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(cell(row.get(key)) for key in columns) + " |")
    return lines


def section(path: Path) -> str:
    content = json.loads(path.read_text())
    environment = content["environment"]
    rounds = f"; least of {content['rounds']} rounds" if "rounds" in content else ""
    where = f"{environment['cpu']} ({environment['cores']} cores)"
    device = environment["device"]["kind"]
    command = re.sub(r" --out \S+", "", environment["command"])
    if rounds and "--rounds" not in command:  # the default may have been another
        command += f" --rounds {content['rounds']}"
    lines = [
        f"## {content['question']}",
        "",
        f"`{command}` on {where}, device {device}, "
        f"{environment['date'][:10]}, commit {environment['commit']}, JAX "
        f"{environment['versions']['jax']}{rounds}. "
        f"{content['notes']}",
    ]
    for name, rows in content["tables"].items():
        title = name[:1].upper() + name[1:]
        if name.isdigit():
            title = f"{int(name):,} parameters"
        columns = content["columns"][name]
        lines += ["", f"### {title}", "", *table(rows, columns)]
    return "\n".join(lines) + "\n"


def render() -> str:
    files = sorted((FOLDER / "results").glob("*.json"))
    return "\n".join([INTRO, *map(section, files)])


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(render())
