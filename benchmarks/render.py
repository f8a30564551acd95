"""Writes benchmarks/README.md from the JSON files in benchmarks/results.

python benchmarks/render.py
"""

import json
from pathlib import Path

FOLDER = Path(__file__).parent
INTRO = """# Benchmarks

Each script asks one question, measures every variant in the same process, in turn, and
keeps the least time of each; ratios are what counts. The tables are written by
`python benchmarks/render.py` from the files in `results/`. Not measured here: a GPU or
TPU; the scripts run there unchanged.
"""


def number(value) -> str:
    return "" if value is None else f"{value:.3f}"


def table(rows: list[dict]) -> list[str]:
    head = "| variant | time ratio | copies | temporary | state |"
    lines = [head, "|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row["variant"],
            number(row["time_ratio"]),
            str(row.get("copies", "")),
            number(row.get("temp_bytes_per_param_byte")),
            number(row.get("state_bytes_per_param_byte")),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def section(path: Path) -> str:
    content = json.loads(path.read_text())
    environment = content["environment"]
    where = f"{environment['cpu']} ({environment['cores']} cores)"
    device = environment["device"]["kind"]
    lines = [
        f"## {content['question']}",
        "",
        f"`{environment['command']}` on {where}, device {device}, "
        f"{environment['date'][:10]}, JAX {environment['versions']['jax']}; least of "
        f"{content['rounds']} rounds. Time is relative to {content['reference']}; "
        "temporary memory and optimizer state to the bytes of the parameters.",
    ]
    for size, rows in content["tables"].items():
        lines += ["", f"### {int(size):,} parameters", "", *table(rows)]
    return "\n".join(lines) + "\n"


def render() -> str:
    files = sorted((FOLDER / "results").glob("*.json"))
    return "\n".join([INTRO, *map(section, files)])


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(render())
