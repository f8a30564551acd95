r"""The Markdown of a package's README as HTML, with formulas as MathML.

It knows what the READMEs are written in: paragraphs, lists, tables, blocks of code and
of formulas (`math`), links, code and emphasis. The rest is shown as it was typed.

    to_html("A *rule*:\n\n```math\nu = \\mathrm{sign}(m)\n```")
"""

import ast
import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from expkit import syntax

BLOCKS = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
MATH = re.compile(r"^[ \t]*\.\. math::(.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)
INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|<(?P<address>https?://[^\s>]+)>"
    r"|\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|(?<![\w*])\*(?P<em>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])"
)


def section(text: str, heading: str) -> str:
    """What a README says under a heading of the second level.

    Args:
        text: the README.
        heading: first word of the heading.

    Returns:
        The Markdown between it and the next such heading; "" where it is missing.
    """
    # Comments of a shell in a block of code look like headings of the first level only.
    pattern = rf"^## {re.escape(heading)}\b[^\n]*\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, text, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def formulas(package: Path, order: str = "") -> list[tuple[str, str]]:
    """The first formula in the docstring of every function that a package exports.

    Args:
        package: folder of the package; its modules are parsed, not imported.
        order: a text that calls the functions by name; those it calls first come first,
            those it never calls last.

    Returns:
        `(name, LaTeX)` pairs; a formula that several functions share once.
    """
    found: dict[str, str] = {}
    for file in sorted(package.glob("*.py")):
        for node in syntax.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                formula = MATH.search(ast.get_docstring(node) or "")
                if formula and not node.name.startswith("_"):
                    found[node.name] = " ".join(formula[1].split()).rstrip(".,:")
    init = package / "__init__.py"
    public = init.read_text(encoding="utf-8") if init.is_file() else ""
    names = [name for name in found if f'"{name}"' in public]
    places = {name: re.search(rf"\b{name}\(", order) for name in names}
    places = {n: place.start() if place else len(order) for n, place in places.items()}
    pairs = [(name, found[name]) for name in sorted(names, key=places.__getitem__)]
    seen = {latex: name for name, latex in reversed(pairs)}
    return [(name, latex) for name, latex in pairs if seen[latex] == name]


def mathml(latex: str, *, display: str = "block") -> str:
    """A formula that a browser shows without a script.

    Args:
        latex: the formula, without dollar signs.
        display: block or inline.

    Returns:
        A `<math>` element; the escaped formula as `<code>` where it cannot be read.
    """
    from latex2mathml import converter

    typed = latex = " ".join(latex.split())
    if "\\begin" not in latex and ("\\\\" in latex or "&" in latex):
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    try:
        # The converter knows only one name of it.
        latex = latex.replace("{aligned}", "{align*}")
        element = converter.convert(latex, display=display)
        tags = [node.tag for node in ElementTree.fromstring(element).iter()]
    # Every fault has a class of its own there, and some are an IndexError.
    except Exception:
        element, tags = "", [""]
    # It passes on what stands in `text`, which may be more than a formula.
    if not all(tag.rpartition("}")[2].startswith("m") for tag in tags):
        return f"<code>{escape(typed)}</code>"
    # Two marks that the converter leaves as they are inside of names and braces.
    return element.replace("\\_", "_").replace("\\|", "\N{DOUBLE VERTICAL LINE}")


def to_html(text: str) -> str:
    """A piece of a README as HTML.

    Args:
        text: Markdown.

    Returns:
        HTML in which every character of the text that means something there is escaped.
        Links into the repository are words: the page stands alone.
    """
    found, end = [], 0
    for block in BLOCKS.finditer(text):
        found.append(_prose(text[end : block.start()]))
        end = block.end()
        if block[1] == "math":
            found.append(_scrolled(mathml(block[2]), "Formula"))
        else:
            found.append(_scrolled(f"<pre>{escape(block[2].rstrip())}</pre>", "Code"))
    found.append(_prose(text[end:]))
    return "\n".join(part for part in found if part)


def _scrolled(html: str, label: str) -> str:
    """Something wide, which scrolls on a narrow page and can be reached by keyboard."""
    return (
        f'<div class="scrolled" tabindex="0" role="group" aria-label="{label}">'
        f"{html}</div>"
    )


def _prose(text: str) -> str:
    """Paragraphs, lists and tables."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    found = []
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.strip().splitlines()
        if not lines:
            continue
        if lines[0].startswith("|"):
            found.append(_table(lines))
        elif lines[0].startswith("- "):
            items = re.split(r"^- ", "\n".join(lines), flags=re.MULTILINE)[1:]
            rows = "".join(f"<li>{_inline(_joined(item))}</li>" for item in items)
            found.append(f"<ul>{rows}</ul>")
        elif lines[0].startswith("#"):
            found.append(f"<h4>{_inline(lines[0].lstrip('# '))}</h4>")
        else:
            found.append(f"<p>{_inline(_joined(block))}</p>")
    return "\n".join(found)


def _joined(text: str) -> str:
    return " ".join(text.split())


def _table(lines: list[str]) -> str:
    """A table; the second line only separates the head from the body."""
    rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines]
    cells = [
        [_inline(cell.strip().replace("\\|", "|")) for cell in row] for row in rows
    ]
    head = "".join(f'<th scope="col">{cell}</th>' for cell in cells[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in cells[2:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _scrolled(table, "Table")


def _inline(text: str) -> str:
    """Code, links and emphasis of a line; the rest is escaped."""
    found, end = [], 0
    for match in INLINE.finditer(text):
        found.append(escape(text[end : match.start()]))
        end = match.end()
        kind = match.lastgroup
        if kind == "code":
            found.append(f"<code>{escape(match['code'])}</code>")
        elif kind == "address":
            address = escape(match["address"])
            found.append(f'<a href="{address}">{address.partition("://")[2]}</a>')
        elif kind == "target":
            label, target = _inline(match["label"]), escape(match["target"])
            is_page = target.startswith(("http://", "https://"))
            found.append(f'<a href="{target}">{label}</a>' if is_page else label)
        else:
            found.append(f"<{kind}>{_inline(match[str(kind)])}</{kind}>")
    found.append(escape(text[end:]))
    return "".join(found)
