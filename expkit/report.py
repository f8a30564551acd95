"""One self-contained HTML page from the folder that `expkit.reproduce` filled.

    python -m expkit.report out      # rebuilds out/report.html

The page needs no network and no scripts; it follows the reader's light or dark setting.
"""

import base64
import functools
import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expkit import formatting, jsonfile, markdown, metrics, plots
from expkit.claim_rows import is_environment, read_plan, read_report
from expkit.command_line import Parser
from expkit.context import FIGURE
from expkit.formatting import number
from expkit.statistics import BOOTSTRAP_FROM, VERDICTS

NOT_RUN = "not run"
"""Stands in the place of the verdict of a claim that has not been measured yet."""

CURVES = (("loss", "Loss"), ("accuracy", "Accuracy"))
"""Endings of the keys in `metrics.jsonl` that are drawn, and the name of the figure."""

POINTS = 300
"""Points of a drawn curve; a longer run is averaged in as many bins."""

Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _image(light: str, dark: str) -> dict[str, Any]:
    """Both drawings as data addresses, and the size of the first in pixels."""
    addresses = [
        "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        for svg in (light, dark)
    ]
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', light)
    width, height = (round(float(x) * 4 / 3) for x in size.groups()) if size else (0, 0)
    return dict(zip(("light", "dark"), addresses, strict=True)) | {
        "width": width,
        "height": height,
    }


def _figures(folder: Path) -> list[dict[str, Any]]:
    """Figures listed by an experiment whose drawings exist."""
    found = []
    for row in jsonfile.read_objects(folder / "figures.json", FIGURE):
        files = [folder / row[theme] for theme in ("light", "dark")]
        if all(file.is_file() for file in files):
            drawn = [file.read_text(encoding="utf-8") for file in files]
            found.append(row | _image(*drawn))
    return found


def _binned(pairs: Sequence[tuple[float, float]]) -> Curve:
    """`(x, mean, lowest, highest)` of at most `POINTS` bins of `(step, value)`."""
    steps, values = np.array(pairs, dtype=float).T
    bins = np.array_split(np.arange(len(steps)), min(len(steps), POINTS))
    chunks = [values[index] for index in bins]
    return (
        np.array([steps[index].mean() for index in bins]),
        np.array([chunk.mean() for chunk in chunks]),
        np.array([chunk.min() for chunk in chunks]),
        np.array([chunk.max() for chunk in chunks]),
    )


@functools.lru_cache(maxsize=64)
def _drawn_curves(file: Path, ending: str, stamp: tuple[int, int]) -> dict | None:
    """Drawing of the metrics whose name ends so; a new `stamp` is a new file."""
    del stamp
    rows, series = metrics.read(file), {}
    for name in dict.fromkeys(k for row in rows for k in row if k.endswith(ending)):
        values = ((row["step"], row.get(name)) for row in rows)
        pairs = [(step, y) for step, y in values if isinstance(y, (int, float))]
        if pairs:
            series[name.replace("_", " ")] = _binned(pairs)
    if not series:
        return None
    floor = _floor(series) if ending == "loss" else None
    drawn = series
    if floor is not None:
        drawn = {k: (s[0], *np.maximum(s[1:], floor)) for k, s in series.items()}

    def draw(fig: Any) -> None:
        log_y = floor is not None
        plots.curves(fig.subplots(), drawn, ylabel=ending, log_y=log_y)

    last = ", ".join(f"{k} {number(float(s[1][-1]))}" for k, s in series.items())
    alt = f"{ending.capitalize()} over {rows[-1]['step']} steps; at the end {last}."
    lowest = min(low.min() for _, _, low, _ in series.values())
    note = "" if lowest or floor is None else f" 0 is drawn as {number(floor)}."
    return _image(*plots.render(draw)) | {"alt": alt, "note": note}


def _floor(series: Mapping[str, Curve]) -> float | None:
    """Smallest positive value, to stand for zero on a logarithmic axis.

    None where the axis has to be linear: a value is negative, or all are zero.
    """
    values = np.concatenate([np.ravel(curve[1:]) for curve in series.values()])
    positive = values[values > 0]
    return float(positive.min()) if positive.size and values.min() >= 0 else None


def _training(folder: Path, package: str) -> dict[str, Any]:
    """What the package's default training run left."""
    file, figures = folder / "metrics.jsonl", []
    for ending, title in CURVES if file.is_file() else ():
        stamp = (file.stat().st_mtime_ns, file.stat().st_size)
        if image := _drawn_curves(file, ending, stamp):
            caption = f"{title} of the training run of {package}.{image['note']}"
            figures.append(image | {"caption": caption})
    return {
        "status": jsonfile.read(folder / "status.json", {}),
        "figures": figures,
        "result": jsonfile.read(folder / "result.json", {}),
        "config": jsonfile.read(folder / "config.json", {}),
    }


def _package(
    out: Path, name: str, rows: list[dict[str, Any]], stale: Container[str]
) -> dict[str, Any]:
    """Everything the page says about one package; nothing of the steps in `stale`."""
    folder = out / name
    plan = read_plan(folder / "plan" / "plan.json") or {}
    done = {row["id"] for row in rows}
    waiting = [
        claim | {"verdict": NOT_RUN}
        for claim in plan.get("claims", [])
        if claim["id"] not in done
    ]
    every = [row | {"experiment": row.get("experiment", "claims")} for row in rows]
    every += waiting
    order = [claim["id"] for claim in plan.get("claims", [])]
    every.sort(key=lambda r: order.index(r["id"]) if r["id"] in order else len(order))
    experiments = []
    for experiment in dict.fromkeys(row["experiment"] for row in every):
        place, is_stale = folder / experiment, f"{name}/{experiment}" in stale
        entry = {"name": experiment, "figures": [] if is_stale else _figures(place)}
        entry["status"] = {} if is_stale else jsonfile.read(place / "status.json", {})
        entry["rows"] = [row for row in every if row["experiment"] == experiment]
        experiments.append(entry)
    is_stale = f"{name}/train" in stale
    return {
        "name": name,
        "about": jsonfile.read(folder / "about.json", {}),
        "plan_status": jsonfile.read(folder / "plan" / "status.json", {}),
        "training": {"status": {}} if is_stale else _training(folder / "train", name),
        "experiments": experiments,
        "counts": counts(every),
        "sources": _sources(every),
    }


def _sources(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name, address and verdicts of each source, that of the most claims first.

    Two papers may go by one name, and one paper by two: the address tells.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name, address = formatting.origin(row["source"])
        found.setdefault(address or name, []).append(row)
    groups = sorted(found.values(), key=len, reverse=True)
    named = [
        (*formatting.origin(group[0]["source"]), counts(group)) for group in groups
    ]
    return [dict(zip(("name", "address", "counts"), n, strict=True)) for n in named]


def _failures(packages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Package and step of everything that failed."""
    found = []
    for package in packages:
        steps = {"plan": package["plan_status"], "train": package["training"]["status"]}
        steps |= {e["name"]: e["status"] for e in package["experiments"]}
        failed = [
            name for name, status in steps.items() if status.get("state") == "failed"
        ]
        found += [(package["name"], name) for name in failed]
    return found


def counts(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How often each verdict occurs.

    Args:
        rows: rows of `claims.json`; "not run" counts as a verdict.

    Returns:
        `{verdict: count}`, zeros included.
    """
    found = dict.fromkeys((*VERDICTS, NOT_RUN), 0)
    for row in rows:
        found[row["verdict"]] += 1
    return found


def write(out_dir: str | Path) -> Path:
    """Writes `report.html` from what lies in the folder.

    Args:
        out_dir: the folder that `expkit.reproduce` filled.

    Returns:
        Path of the page.

    Raises:
        ValueError: if the folder holds no readable `claims.json`.
    """
    import jinja2
    import markupsafe

    out = Path(out_dir)
    evidence = read_report(out)
    rows = evidence["claims"]
    facts = jsonfile.read(out / "environment.json")
    facts = facts if is_environment(facts) else evidence["environment"]
    places = {file.parent.parent.name for file in out.glob("*/*/status.json")}
    names = sorted(places | {row["package"] for row in rows})
    packages = [
        _package(
            out,
            name,
            [row for row in rows if row["package"] == name],
            facts.get("stale", ()),
        )
        for name in names
    ]
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name, convert in ("html", markdown.to_html), ("mathml", markdown.mathml):
        page.filters[name] = lambda text, f=convert: markupsafe.Markup(f(text))
    plain = ("number", "interval", "seeds", "cores", "pieces", "slug", "flat", "words")
    for name in plain:
        page.filters[name] = getattr(formatting, name)
    text = page.get_template("report.html.jinja").render(
        environment=facts,
        packages=packages,
        failures=_failures(packages),
        not_run=NOT_RUN,
        bootstrap_from=BOOTSTRAP_FROM,
        totals={v: sum(p["counts"][v] for p in packages) for v in (*VERDICTS, NOT_RUN)},
        seeds_used=sorted({s for row in rows for s in row.get("seeds") or ()}),
    )
    jsonfile.write_text(out / "report.html", text)
    return out / "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuilds the page of a finished or interrupted run.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0.

    Raises:
        SystemExit: with status 2 and one line when there is nothing to report.
    """
    parser = Parser(prog="python -m expkit.report", description=main.__doc__)
    parser.add_argument("out", type=Path, help="the folder of ./reproduce.sh")
    arguments = parser.parse_args(argv)
    try:
        print(write(arguments.out))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
