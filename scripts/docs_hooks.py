"""What `mkdocs build` needs to know about this repository; see `mkdocs.yml`.

A page includes a file by a line of its own, so that nothing is written twice:

    <!-- include: lion/README.md -->
    <!-- include: CONTRIBUTING.md ## Add a method -->
    <!-- include: examples/without_expkit.py -->
    <!-- claims: igr vat-difference -->

The last one is a table of rows of `results/igr.json`. Links of the included text are
made to lead to pages; those to files that are no pages become the names of the files.
Formulas, in docstrings or in blocks of `math`, become MathML: the browser of a reader
loads nothing for them.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe

from expkit import formatting, markdown

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r"^<!-- include: (\S+?)(?: (#+ .+?))? -->$", re.MULTILINE)
CLAIMS = re.compile(r"^<!-- claims: (\w+) (.+?) -->$", re.MULTILINE)
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
MATH = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^( *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def pages_of(docs: Path) -> dict[str, str]:
    """The page, relative to `docs`, that shows each file, or folder of programs."""
    found = {docs.name: "index.md"}
    for page in sorted(docs.rglob("*.md")):
        name = page.relative_to(docs).as_posix()
        found[f"{docs.name}/{name}"] = name
        for path, section in INCLUDE.findall(page.read_text(encoding="utf-8")):
            if path.endswith(".py"):
                found[path] = found[posixpath.dirname(path)] = name
            elif not (section and path in found):
                found[path] = name
    return found


def section_of(text: str, path: str) -> str:
    """The section under a heading, `## Claims`, or a path, `## Cost > ### Batch 64`.

    Of a section deeper than the second level the heading is left out.
    """
    for heading in path.split(" > "):
        level = len(heading) - len(heading.lstrip("#"))
        pattern = rf"^{re.escape(heading)}$.*?(?=^#{{1,{level}}} |\Z)"
        match = re.search(pattern, text, re.DOTALL | re.MULTILINE)
        if match is None:
            raise ValueError(f"there is no section {heading!r}.")
        text = match[0] if level < 3 else match[0].partition("\n")[2].lstrip()
    return text


def claims_table(package: str, ids: list[str], root: Path = ROOT) -> str:
    """Rows of the committed results of a package, as Markdown."""
    results = json.loads((root / f"results/{package}.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in results["claims"]}
    lines = ["| claim | measured | verdict |", "|---|---|---|"]
    for name in ids:
        cells = (rows[name]["statement"].replace("|", "\\|"), rows[name]["verdict"])
        measured = formatting.number(rows[name]["measured"])
        lines.append(f"| {cells[0]} | {measured} | {cells[1]} |")
    return "\n".join(lines)


def relink(text: str, source: str, page: str, pages: dict[str, str]) -> str:
    """A text of the file `source` with links that are right on `page`."""

    def replace(match: re.Match) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        shown = pages.get(path)
        if shown is None and not path.startswith("docs/"):
            return f"`{path}`" if label.strip("`") in path else f"{label} (`{path}`)"
        shown = shown or path.removeprefix("docs/")
        return f"[{label}]({posixpath.relpath(shown, posixpath.dirname(page))}{anchor})"

    parts = FENCE.split(text)
    # Every other part is a block of code.
    return "".join(p if i % 2 else LINK.sub(replace, p) for i, p in enumerate(parts))


def included(text: str, page: str, pages: dict[str, str], root: Path = ROOT) -> str:
    """The text of a page with the files that it includes."""

    def replace(match: re.Match) -> str:
        content = (root / match[1]).read_text(encoding="utf-8")
        if match[1].endswith(".py"):
            return f"```python\n{content}```"
        if match[2]:
            content = section_of(content, match[2])
        return relink(content, match[1], page, pages).rstrip()

    text = CLAIMS.sub(lambda m: claims_table(m[1], m[2].split(), root), text)
    return MATH.sub(lambda m: formula(m[1], "block"), INCLUDE.sub(replace, text))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs with the text of every page."""
    del files
    docs = Path(config["docs_dir"])
    return included(markdown, page.file.src_uri, pages_of(docs))


def on_config(config: Any) -> Any:
    """Called by MkDocs first: it also watches what the pages include."""
    names = {n.partition("/")[0] for n in pages_of(Path(config["docs_dir"]))}
    config["watch"] += [str(ROOT / name) for name in sorted(names - {"docs"})]
    return config


def formula(latex: str, display: str) -> str:
    """A formula as MathML that Markdown passes on as it is."""
    html = markdown.mathml(latex, display=display)
    html = html.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    for mark in "*_|":
        html = html.replace(mark, f"&#{ord(mark)};")
    # A line that starts with <math> would be a block of its own.
    return f"<span>{html}</span>"


def to_markdown(docstring: str) -> str:
    """A docstring with the marks of reStructuredText turned into Markdown."""
    text = re.sub(
        r"^\.\. math::(.*(?:\n[ \t]+\S.*)*)",
        lambda m: f"\n{formula(m[1], 'block')}\n",
        docstring,
        flags=re.MULTILINE,
    )
    text = re.sub(r":math:`([^`]+)`", lambda m: formula(m[1], "inline"), text)
    # A type before the colon is not what these sections hold.
    text = re.sub(
        r"^(Returns|References):\n((?:(?: {4}.*)?(?:\n|\Z))+)",
        lambda m: f"**{m[1]}:** " + re.sub(r"^ {4}", "", m[2], flags=re.M),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r"^(>>> .*(?:\n(?!\n).+)*)", r"```pycon\n\1\n```", text, flags=re.MULTILINE
    )
    text = re.sub(r"(?<![\w\"'`(<])(https?://[^\s>]+[\w/])", r"<\1>", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Turns docstrings into Markdown when griffe has read them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for every object that it finds."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
