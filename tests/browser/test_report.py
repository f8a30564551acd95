"""The report as a browser shows it, at the width of a phone and of a screen."""

import json

import chromium
import pytest

from expkit import jsonfile, report
from expkit.context import Context

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed"),
]

CONTRAST = 4.5  # https://www.w3.org/TR/WCAG22/#contrast-minimum
ENVIRONMENT = {
    "date": "2026-01-02 03:04 UTC",
    "mode": "quick",
    "command": "./reproduce.sh demo --out " + "a_very_long_name_of_a_folder/" * 5,
    "commit": "abc1234",
    "python": "3.11.7",
    "versions": {"jax": "0.10.2"},
    "platform": "Linux x86_64",
    "cpu": "Some CPU",
    "cores": 2,
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "state": "interrupted",
}
ABOUT = {
    "title": "A demonstration",
    "text": "Words before the claims. " * 8,
    "idea": "With `x`:\n\n```\n" + "y = x + 1   " * 20 + "\n```\n\n```math\n"
    "a &= \\frac{b}{c} \\\\ \\theta_t &= \\sum_i " + "x_i + " * 40 + "1\n```",
    "published": "From [a paper](https://a.example), on other data.\n\n"
    "| model | a | b | c | d | e | f | g |\n|---|---|---|---|---|---|---|---|\n"
    "| A long name of a model" + " | 12.34 / 56.78" * 7 + " |",
    "differences": "- None.\n\n"
    "| | first | second | third | fourth |\n|---|---|---|---|---|\n"
    "| `a_long_name_of_a_function` | " + "words " * 20 + "| b | c | d |",
    "formulas": [[f"f_{i}", rf"\log(1 + \sum_i e^{{{i} s_i}})"] for i in range(5)],
}
VERDICTS = ("holds", "does not hold", "not decided", "not testable here")


def claim(index, experiment, verdict, **found):
    row = {"id": f"claim-{index}", "package": "demo", "experiment": experiment}
    row |= {"statement": "A long statement of what is so. " * 9, "verdict": verdict}
    row |= {"source": "A et al. 2020, table. https://arxiv.org/abs/" + "1" * 80}
    row |= {"measured": 1.234e-16, "interval": [-1.5e-7, None], "seeds": [0, 1, 2]}
    row |= {"details": "Details, " * 12, "command": "python -m demo.claims --only=x"}
    return row | found


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The report of a small run with everything that can be in one."""
    out = tmp_path_factory.mktemp("out")
    rows = [claim(i, "identities", verdict) for i, verdict in enumerate(VERDICTS)]
    crash = "crashed: ValueError: " + "no_space_in_this_name_" * 10
    rows.append(claim(8, "sweep", "not decided", measured=None, details=crash))
    rows[-1] |= {"interval": None, "seeds": None}
    folder = out / "demo"
    plan = {"package": "demo", "experiments": ["identities", "sweep"]}
    keys = ("id", "statement", "source", "experiment")
    plan["claims"] = [{key: row[key] for key in keys} for row in rows]
    plan["claims"].append(plan["claims"][0] | {"id": "not-reached"})
    jsonfile.write(folder / "plan" / "plan.json", plan)
    jsonfile.write(folder / "about.json", ABOUT)
    for step, state in ("plan", "finished"), ("train", "finished"), ("sweep", "failed"):
        status = {"state": state, "command": f"python -m demo --step={step} " * 3}
        status |= {"exit": 0, "how": "SIGKILL", "log": ["ValueError: " + "x" * 300]}
        jsonfile.write(folder / step / "status.json", status)
    Context(folder / "identities", command="cmd").figure(
        "rate", lambda figure: figure.subplots().plot([1, 2]), "A caption. " * 9, "Line"
    )
    lines = [{"step": i, "loss": 1 / i, "validation_accuracy": 0.5} for i in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train" / "metrics.jsonl").write_text(text)
    jsonfile.write(folder / "train" / "config.json", {"net": {"layers": [64] * 40}})
    jsonfile.write(out / "environment.json", ENVIRONMENT)
    evidence = {"version": 1, "environment": ENVIRONMENT, "claims": rows}
    jsonfile.write(out / "claims.json", evidence)
    return report.write(out).read_text()


def faults(seen, *, dark):
    """What is wrong with a page that `chromium.look` has seen."""
    found = {"console"} if seen["console"] else set()
    for width in chromium.FRAMES:
        page = seen[width]
        if page["requests"] or page["addresses"]:
            found.add("outside")
        if page["overflow"] > 0:
            found.add(f"overflow at {width}")
        if any(min(image[:2]) <= 0 for image in page["images"]):
            found.add("image without size")
        if not all(alt.strip() for _, _, alt, _ in page["images"]):
            found.add("image without words")
        if page["contrast"][0] < CONTRAST:
            found.add("contrast")
        if page["dark"] is not dark or (page["ground"] < 0.2) is not dark:
            found.add("scheme")
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_is_right_on_a_phone_and_on_a_screen(html, dark):
    seen = chromium.look(html, dark=dark)
    assert faults(seen, dark=dark) == set(), seen
    for width in chromium.FRAMES:
        assert len(seen[width]["images"]) == 3  # loss, accuracy, and the one figure
        assert len(seen[width]["formulas"]) == 6
        assert all(min(size) > 10 for size in seen[width]["formulas"])


def test_the_dark_page_has_drawings_of_its_own(html):
    for dark in False, True:
        images = chromium.look(html, dark=dark)[390]["images"]
        assert [is_first_choice for *_, is_first_choice in images] == [not dark] * 3


PIXEL = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
)
VIOLATIONS = [
    ("console", "<script>undefinedName()</script>"),
    ("outside", "<img src='https://a.example/x.png' alt='x' width='9' height='9'>"),
    ("outside", "<p style='background: url(https://a.example/x.png)'>words</p>"),
    ("outside", "<script>fetch('https://a.example/x.json').catch(() => {})</script>"),
    ("overflow at 390", "<p style='width: 600px'>wide</p>"),
    ("overflow at 1280", "<p style='width: 1400px'>wide</p>"),
    ("image without size", "<img src='data:image/png;base64,AAAA' alt='x'>"),
    ("image without words", f'<img src="{PIXEL}">'),
    ("contrast", "<p style='color: #999999; background: #ffffff'>grey</p>"),
    ("scheme", "<style>:root { --page: #ffffff !important; --ink: #000000 }</style>"),
]


@pytest.mark.parametrize(("fault", "planted"), VIOLATIONS)
def test_a_planted_fault_is_found(html, fault, planted):
    dark = fault == "scheme"
    page = html.replace("</body>", planted + "</body>")
    assert planted in page
    assert fault in faults(chromium.look(page, dark=dark), dark=dark)
