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
`python benchmarks/render.py` from the files in `results/`. Not measured here: a GPU or
TPU; the scripts run there unchanged.
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
