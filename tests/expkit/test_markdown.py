import xml.etree.ElementTree as ET

import pytest

from expkit import markdown

MATHML = "{http://www.w3.org/1998/Math/MathML}"
HOSTILE = """<script>alert(1)</script> & "quotes" </td>"""
README = """# Signs

Short.

## Idea

One.

```bash
# no heading
```

## Ideas of others

Two.
"""


def words(html):
    """The text of a piece of HTML, which has to be balanced."""
    return "".join(ET.fromstring(f"<div>{html}</div>").itertext())


def test_a_section_ends_at_the_next_heading():
    assert markdown.section(README, "Idea").startswith("One.")
    assert markdown.section(README, "Idea").endswith("# no heading\n```")
    assert markdown.section(README, "Ideas") == "Two."
    assert markdown.section(README, "API") == ""


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a\nb\n\nc", "<p>a b</p>\n<p>c</p>"),
        ("- a\n  b\n- c", "<ul><li>a b</li><li>c</li></ul>"),
        ("### A `b`", "<h4>A <code>b</code></h4>"),
        ("x*y*z and 2 * 3 * 4", "<p>x*y*z and 2 * 3 * 4</p>"),
        ("*x* and **y**", "<p><em>x</em> and <strong>y</strong></p>"),
        ("`*x*` and `a_b`", "<p><code>*x*</code> and <code>a_b</code></p>"),
        ("[`a`](b/c.md)", "<p><code>a</code></p>"),
        ("[a](javascript:b)", "<p>a</p>"),
        ("[a](https://b.c/?d&e)", '<p><a href="https://b.c/?d&amp;e">a</a></p>'),
        ("<https://b.c>", '<p><a href="https://b.c">b.c</a></p>'),
        ("a <!-- b\n\nc --> d", "<p>a d</p>"),
        ("", ""),
    ],
)
def test_markdown_becomes_html(text, html):
    assert markdown.to_html(text) == html


def test_a_table_keeps_its_cells():
    html = markdown.to_html(r"| a | |" + "\n|---|---|\n" + r"| `x \| y` | |")
    table = ET.fromstring(html)
    assert [cell.tag for cell in table.iter() if cell.tag in ("th", "td")] == [
        *("th", "th", "td", "td")
    ]
    assert [cell.text for cell in table.iter("code")] == ["x | y"]


@pytest.mark.parametrize("form", ["{}", "- {}", "`{}`", "| {} |", "```\n{}\n```"])
def test_hostile_words_are_shown_not_obeyed(form):
    html = markdown.to_html(form.format(HOSTILE))
    assert words(html).strip() == HOSTILE
    assert "<script" not in html


def test_a_formula_becomes_mathml():
    html = markdown.to_html("```math\nu = \\frac{a}{b}\n```")
    (fraction,) = ET.fromstring(html).iter(f"{MATHML}mfrac")
    assert [part.text for part in fraction.iter(f"{MATHML}mi")] == ["a", "b"]


@pytest.mark.parametrize("form", ["{}", r"\begin{{aligned}} {} \end{{aligned}}"])
def test_lines_of_a_formula_become_rows(form):
    root = ET.fromstring(markdown.mathml(form.format(r"a &= b \\ c &= d")))
    assert len(list(root.iter(f"{MATHML}mtr"))) == 2


def test_marks_in_names_lose_their_backslash():
    assert "\\" not in markdown.mathml(r"\text{a\_b} \Big\| c")


@pytest.mark.parametrize("latex", ["a_1_2 < b", r"\text{<b>c</b>}", r"\left( a"])
def test_a_formula_that_cannot_be_read_is_shown_as_typed(latex):
    html = markdown.mathml(latex)
    assert html.startswith("<code>")
    assert words(html) == latex


def test_formulas_are_those_of_exported_functions_in_the_order_of_the_text(tmp_path):
    (tmp_path / "__init__.py").write_text('__all__ = ["last", "first", "none"]')
    docstrings = {"last": "c.", "first": "a\n      b,", "hidden": "d", "_own": "e"}
    text = "".join(
        f'def {name}():\n    r"""One.\n\n    .. math:: {latex}\n\n    Two."""\n'
        for name, latex in docstrings.items()
    )
    (tmp_path / "rule.py").write_text(text + 'def none():\n    """One."""\n')
    order = "| `first(x)` | `hidden(x)` |"
    assert markdown.formulas(tmp_path, order) == [("first", "a b"), ("last", "c")]


def test_a_shared_formula_is_there_once(tmp_path):
    (tmp_path / "__init__.py").write_text('__all__ = ["a", "b"]')
    one = '    """\n    .. math:: x\n    """\n'
    (tmp_path / "rule.py").write_text(f"def a():\n{one}def b():\n{one}")
    assert markdown.formulas(tmp_path, "b() a()") == [("b", "x")]


def test_every_formula_of_the_packages_can_be_read(repository_root):
    found = [
        latex
        for readme in repository_root.glob("*/README.md")
        if (readme.parent / "claims.py").is_file()
        for _, latex in markdown.formulas(readme.parent)
    ]
    assert len(found) > 30
    for latex in found:
        html = markdown.mathml(latex)
        assert html.startswith("<math"), latex
        assert "\\" not in html, latex
