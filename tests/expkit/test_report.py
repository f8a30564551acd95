import base64
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from expkit import claim_rows, jsonfile, report
from expkit.context import Context

HOSTILE = """<script>alert(1)</script> & "quotes" 'too' </td></table><img src=x>"""
VOID = {"meta", "link", "img", "source", "br"}


class Page(HTMLParser):
    """Collects elements, checks that tags are balanced, and gathers the text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.text += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


ENVIRONMENT = {
    "date": "2026-01-02 03:04 UTC",
    "mode": "quick",
    "command": "./reproduce.sh lion",
    "commit": "abc1234",
    "python": "3.11.7",
    "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
    "platform": "Linux x86_64",
    "cpu": "Some CPU",
    "cores": 2,
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "state": "finished",
}


def claim(name, experiment="identities", **found):
    row = {"id": name, "statement": f"{name} is so.", "source": "A. Author, 2020."}
    return row | {"experiment": experiment} | found


def measured(name, experiment="identities", **found):
    row = claim(name, experiment, package="lion", command=f"python -m x --only={name}")
    row |= {"measured": 0.5, "interval": None, "verdict": "holds", "seeds": None}
    return row | {"details": ""} | found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_templates):
    """A folder as a finished run of one package leaves it."""
    tmp_path = tmp_path_factory.mktemp("finished")
    rows = [
        measured("a", statement=HOSTILE, details=HOSTILE),
        measured(
            "b", verdict="does not hold", source="https://a.example/paper?x=1&y=2"
        ),
        measured(
            "c", "sweep", interval=[0.25, None], seeds=[0, 1, 2], verdict="not decided"
        ),
        measured("d", "published", measured=None, verdict="not testable here"),
    ]
    plan = {"package": "lion", "experiments": ["identities", "sweep", "published"]}
    plan["claims"] = [claim(row["id"], row["experiment"]) for row in rows]
    folder = tmp_path / "lion"
    jsonfile.write(folder / "plan" / "plan.json", plan)
    jsonfile.write(folder / "about.json", {"title": "Signs", "text": HOSTILE})
    for step in ("plan", "train", "identities", "sweep", "published"):
        status = {"state": "finished", "exit": 0, "command": f"python -m lion {step}"}
        jsonfile.write(folder / step / "status.json", status)
    Context(folder / "sweep", command="cmd").figure(
        "rate", lambda figure: figure.text(0, 0, "rate"), HOSTILE, f'alt " {HOSTILE}'
    )
    lines = [
        {"step": step, "loss": 1.0 / step, "validation_accuracy": None}
        for step in range(1, 1001)
    ]
    lines[-1]["validation_accuracy"] = 0.9
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train" / "metrics.jsonl").write_text(text + '{"step": 10')
    jsonfile.write(folder / "train" / "result.json", {"test_accuracy": 0.91234})
    jsonfile.write(folder / "train" / "config.json", {"net": {"layers": [64, 32]}})
    jsonfile.write(tmp_path / "environment.json", ENVIRONMENT)
    evidence = {"version": 1, "environment": ENVIRONMENT, "claims": rows}
    jsonfile.write(tmp_path / "claims.json", evidence)
    return tmp_path


@pytest.fixture(scope="module")
def html(finished):
    return report.write(finished).read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def out(finished, tmp_path):
    """A copy of it to spoil, without the curves, which take long to draw."""
    drawn = shutil.ignore_patterns("metrics.jsonl")
    return Path(shutil.copytree(finished, tmp_path / "out", ignore=drawn))


def rewrite(path, change):
    value = json.loads(path.read_text())
    change(value)
    jsonfile.write(path, value)


def test_page_loads_nothing_from_anywhere(page):
    for tag, attrs in page.elements:
        assert tag not in ("script", "iframe", "object", "embed")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "href", "data", "poster", "action"):
                allowed = ("data:", "#") + (("https://",) if tag == "a" else ())
                assert value.startswith(allowed), (tag, name, value[:60])


def test_style_loads_nothing_either(html):
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|https?:", style.group(1))


def test_hostile_words_are_shown_not_obeyed(page):
    # Statement, details, about and caption; the alt text is an attribute.
    assert page.text.count(HOSTILE) == 4
    (alt,) = [a["alt"] for a in page.all("img") if "alert" in a["alt"]]
    assert alt == f'alt " {HOSTILE}'


def test_every_picture_has_words_size_and_a_drawing_for_the_dark(page):
    images, sources = page.all("img"), page.all("source")
    assert len(images) == len(sources) == 3  # loss, accuracy, and the one of the sweep
    for image, source in zip(images, sources, strict=True):
        assert image["alt"].strip()
        assert int(image["width"]) > int(image["height"]) > 100
        assert "(prefers-color-scheme: dark)" in source["media"]
        drawings = [image["src"], source["srcset"]]
        assert drawings[0] != drawings[1]
        for address in drawings:
            kind, _, content = address.partition(",")
            assert kind == "data:image/svg+xml;base64"
            assert ET.fromstring(base64.b64decode(content)).tag.endswith("svg")


def test_loss_curve_says_where_it_ends(page):
    (alt,) = [a["alt"] for a in page.all("img") if a["alt"].startswith("Loss")]
    # 300 bins of 4 or 3 steps: the last mean is that of 1/998, 1/999 and 1/1000.
    assert alt == "Loss over 1000 steps; at the end loss 0.001001."


def test_ids_are_unique_and_every_inner_link_arrives(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids)
    assert {"lion", "lion-train", "lion-sweep", "environment"} <= targets


def test_claims_show_verdict_number_interval_seeds_source_and_command(page):
    words = " ".join(page.text.split())
    for expected in (
        "does not hold",
        "not testable here",
        "0.25 to ∞",
        "0, 1, 2",
        "python -m x --only=c",
        "A. Author, 2020.",
        "a.example/paper?x=1&y=2",
        "0.9123",
        "net.layers",
        "[64, 32]",
        "Some CPU, 2 cores",
        "1 \N{MULTIPLICATION SIGN} cpu (cpu)",
        "./reproduce.sh lion",
        "python -m lion sweep",
        "abc1234",
        "0.10.2",
    ):
        assert expected in words
    assert {"href": "https://a.example/paper?x=1&y=2"} in page.all("a")


def test_summary_counts_each_verdict(page):
    start = page.text.index("Summary", page.text.index("Summary") + 1)
    row = page.text[start:].split("lion", 1)[1].split()[:4]
    assert row == ["1"] * 4


def test_only_a_table_of_nothing_but_quotations_has_no_columns_of_numbers(page):
    tables = [a["class"] for a in page.all("table") if "claims" in a["class"]]
    assert tables == ["claims", "claims", "claims quoted"]
    assert page.text.count("Numbers of the sources, quoted.") == 1


def test_claims_are_counted_by_source_too(page):
    words = " ".join(page.text.split())
    start = words.index("By source")
    # Verdicts in the order of the page; three claims of one author, one of a page.
    assert "A. Author 1 0 1 1 " in words[start:]
    assert "a.example/paper?x=1&y=2 0 1 0 0 " in words[start:]


def test_the_sections_and_formulas_of_the_readme_are_shown(out):
    about = {
        "idea": f"Signs. {HOSTILE}\n\n```math\nu = \\frac{{a}}{{b}}\n```",
        "published": f"Table {HOSTILE}:\n\n| model | gain |\n|---|---|\n| ViT | 1.25 |",
        "differences": "- None in the `rule`.",
        "formulas": [["f", "a_1"], ["g", "a_2"], ["h", "a_3"], ["k", "a_4 < x_y_z"]],
    }
    rewrite(out / "lion" / "about.json", lambda value: value.update(about))
    page = Page(report.write(out).read_text())
    assert len(page.all("math")) == 4
    assert len(page.all("mfrac")) == 1
    words = " ".join(page.text.split())
    assert f"Idea Signs. {HOSTILE}" in words
    assert "1 more" in words
    assert "a_4 < x_y_z" in words
    ends = "Published tables", "Differences None in the rule."
    sections = [words.rindex(title) for title in ends]
    quoted = words[sections[0] : sections[1]]
    assert quoted.startswith(f"Published tables Table {HOSTILE}:")
    assert quoted.replace(" ", "").endswith("modelgainViT1.25")
    for name in "published", "differences":
        assert {"href": f"#lion-about-{name}"} in page.all("a")
        assert {"id": f"lion-about-{name}"} in page.all("section")


def test_claims_that_were_not_reached_are_listed_as_not_run(out):
    rewrite(out / "claims.json", lambda value: value["claims"].pop(2))
    page = Page(report.write(out).read_text())
    assert "not run" in page.text
    assert "c is so." in page.text


def test_failures_are_told_at_the_top_with_the_end_of_the_log(out):
    status = {"state": "failed", "exit": 1, "how": "SIGKILL", "command": "c"}
    status["log"] = ["one", HOSTILE]
    jsonfile.write(out / "lion" / "sweep" / "status.json", status)
    page = Page(report.write(out).read_text())
    assert "Not everything ran" in page.text[: page.text.index("Summary")]
    assert "This experiment failed (SIGKILL)" in " ".join(page.text.split())
    assert f"one\n{HOSTILE}" in page.text


def test_an_interrupted_run_says_so(out, html):
    rewrite(out / "environment.json", lambda value: value.update(state="interrupted"))
    assert "This run was stopped" in report.write(out).read_text()
    assert "This run was stopped" not in html


def test_a_package_that_could_not_be_listed_is_on_the_page(out):
    status = {
        "state": "failed",
        "exit": 1,
        "how": "exit status 1",
        "log": ["ImportError"],
    }
    jsonfile.write(out / "rdrop" / "plan" / "status.json", status | {"command": "c"})
    page = Page(report.write(out).read_text())
    assert "Listing the claims failed (exit status 1)" in " ".join(page.text.split())
    assert "ImportError" in page.text


def test_what_stale_steps_left_is_not_shown(out):
    stale = ["lion/sweep", "lion/train"]
    rewrite(out / "environment.json", lambda value: value.update(stale=stale))
    page = Page(report.write(out).read_text())
    assert not page.all("img")
    assert "python -m lion identities" in page.text
    assert "python -m lion sweep" not in page.text
    assert "python -m lion train" not in page.text


def test_a_diverged_run_still_has_a_page(out):
    lines = ['{"step": 1, "loss": null}\n', '{"step": 2, "loss": null}\n']
    (out / "lion" / "train" / "metrics.jsonl").write_text("".join(lines))
    assert len(Page(report.write(out).read_text()).all("img")) == 1


def test_claims_alone_make_a_page(tmp_path):
    rows = [measured("a")]
    del rows[0]["experiment"], rows[0]["details"]
    evidence = {"version": 1, "environment": ENVIRONMENT, "claims": rows}
    jsonfile.write(tmp_path / "claims.json", evidence)
    assert "a is so." in Page(report.write(tmp_path).read_text()).text


def test_the_page_is_the_same_when_rebuilt(out):
    first = report.write(out).read_text()
    assert report.main([str(out)]) == 0
    assert (out / "report.html").read_text() == first


@pytest.mark.parametrize("text", ["[1]", '"x"', "[{}]", '{"claims": [{}]}'])
@pytest.mark.parametrize(
    "name",
    [
        *("environment.json", "lion/plan/plan.json", "lion/about.json"),
        *("lion/sweep/status.json", "lion/plan/status.json", "lion/sweep/figures.json"),
        *("lion/train/status.json", "lion/train/result.json", "lion/train/config.json"),
    ],
)
def test_a_damaged_file_costs_no_more_than_its_part_of_the_page(out, name, text):
    (out / name).write_text(text)
    assert "b is so." in Page(report.write(out).read_text()).text


@pytest.mark.parametrize(
    ("name", "value"),
    [("commit", None), ("commit", 3), ("device", {"kind": "cpu"}), ("cores", "two")],
)
def test_an_environment_without_what_the_page_shows_is_damaged(
    out, capsys, name, value
):
    content = jsonfile.read(out / "claims.json")
    assert claim_rows.is_environment(content["environment"])
    content["environment"].pop(name)
    if value is not None:
        content["environment"][name] = value
    assert not claim_rows.is_environment(content["environment"])
    jsonfile.write(out / "claims.json", content)
    with pytest.raises(SystemExit, match="2"):
        report.main([str(out)])
    assert "claims.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[1]", "{}", '{"environment": {}, "claims": [{}]}'])
def test_damaged_claims_are_one_line_and_status_2(out, capsys, text):
    (out / "claims.json").write_text(text)
    with pytest.raises(SystemExit) as caught:
        report.main([str(out)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "claims.json is damaged: run ./reproduce.sh first" in error


def test_a_folder_without_results_is_one_line_and_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        report.main([str(tmp_path / "nothing")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run ./reproduce.sh first" in error
