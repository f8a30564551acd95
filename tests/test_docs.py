"""The documentation builds without a warning, loads nothing, and its code runs."""

import importlib.util
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import checkout
import pytest
import snippets

from expkit import config as config_lib
from expkit import finetuning

REQUESTS = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
OUTSIDE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])([^'\")]+)")


class Page(HTMLParser):
    """Collects the addresses that a page loads, and its main text."""

    def __init__(self, text: str):
        super().__init__()
        self.requests, self.words, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.requests += [found[n] for n in REQUESTS.get(tag, ()) if found.get(n)]
        self.requests += IN_STYLE.findall(found.get("style") or "")
        self._open.append(tag)

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            self.requests += IN_STYLE.findall(data)
        self.words.append(data)


def outside(text: str, suffix: str = ".html") -> list[str]:
    """The addresses of other hosts that a page or a style sheet loads."""
    found = Page(text).requests if suffix == ".html" else IN_STYLE.findall(text)
    return [address for address in found if OUTSIDE.match(address)]


@pytest.fixture(scope="module")
def hooks(repository_root):
    """`scripts/docs_hooks.py`, which MkDocs loads by its path."""
    path = repository_root / "scripts/docs_hooks.py"
    spec = importlib.util.spec_from_file_location("docs_hooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(repository_root, tmp_path_factory):
    """The site, built as CONTRIBUTING.md says."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository_root)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_loads_nothing_from_elsewhere(repository_root, site):
    sources = {f.relative_to("docs") for f in docs(repository_root)}
    pages = {file.relative_to(site): file for file in site.rglob("*.html")}
    assert {f.with_suffix(".html") for f in sources} <= set(pages)
    for file in [*pages.values(), *site.rglob("*.css")]:
        found = outside(file.read_text(encoding="utf-8"), file.suffix)
        assert found == [], file.relative_to(site)


def test_every_public_name_is_documented_with_its_formulas(repository_root, site):
    for package in checkout.paper_packages(repository_root):
        text = (site / f"packages/{package}.html").read_text(encoding="utf-8")
        names = checkout.exported(repository_root, package)
        missing = [name for name in names if f'id="{package}.{name}"' not in text]
        assert missing == [], package
        assert not re.search(r":math:|\.\. math|&lt;math", text), package
        formulas = re.findall(r"<math.*?</math>", text, flags=re.DOTALL)
        assert formulas
        assert not [formula for formula in formulas if "\\" in formula], package


def test_pages_begin_with_what_they_include(repository_root, site):
    for package in checkout.paper_packages(repository_root):
        readme = (repository_root / package / "README.md").read_text(encoding="utf-8")
        title = re.match(r"# (.+)", readme)[1]
        text = (site / f"packages/{package}.html").read_text(encoding="utf-8")
        (shown,) = re.findall(r"<h1[^>]*>(.*?)<a ", text)
        assert shown == title
    changes = (site / "changelog.html").read_text(encoding="utf-8")
    version = checkout.setup_cfg(repository_root)["metadata"]["version"]
    assert re.search(rf"<h2[^>]*>{re.escape(version)}", changes)


def test_every_paper_of_the_readme_can_be_cited(repository_root):
    text = (repository_root / "README.md").read_text(encoding="utf-8")
    (entries,) = snippets.blocks(text, "bibtex")
    named = set(re.findall(r"https://arxiv\.org/abs/(\d+\.\d+)", text))
    assert named == set(re.findall(r"eprint = {([\d.]+)}", entries))
    assert entries.count("{") == entries.count("}")


def docs(root: Path) -> list[Path]:
    """The pages in `docs/`."""
    files = (f for f in checkout.files(root) if f.parts[0] == "docs")
    return [f for f in files if f.suffix == ".md"]


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", docs(metafunc.config.rootpath), ids=str)


def test_python_blocks_run(repository_root, page, tmp_path, monkeypatch):
    # What a page includes is run by the test of the file it is from.
    text = (repository_root / page).read_text(encoding="utf-8")
    if not snippets.blocks(text, "python"):
        assert "```python" not in text
        return
    monkeypatch.chdir(tmp_path)
    snippets.execute(text)


def test_the_command_on_own_data_takes_the_files_of_its_page(
    repository_root, tmp_path, monkeypatch
):
    text = (repository_root / "docs/howto/your-data.md").read_text(encoding="utf-8")
    (command,) = snippets.blocks(text, "text")
    flags = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    config = config_lib.load(str(repository_root / flags.pop("--config")))
    del flags["--workdir"]
    for flag, value in flags.items():
        config_lib.override(config, flag.removeprefix("--config."), value)
    monkeypatch.chdir(tmp_path)
    snippets.execute(text)
    splits = finetuning.load_texts(config).task.splits
    labels = [split["label"].tolist() for split in splits.values()]
    assert labels == 3 * [[1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script src='https://x.org/a.js'></script>", ["https://x.org/a.js"]),
        ("<link rel='preconnect' href='//x.org'>", ["//x.org"]),
        ("<img src='a.png' srcset='http://x.org/a'>", ["http://x.org/a"]),
        ("<p style='background: url(https://x.org/b)'>", ["https://x.org/b"]),
        ("<style>@import 'https://x.org/c';</style>", ["https://x.org/c"]),
        ("<a href='https://x.org'>a link</a><img src='data:image/png,'>", []),
    ],
)
def test_an_outside_request_is_found(text, expected):
    assert outside(text) == expected
    assert outside("a { src: url('//x.org/d') }", ".css") == ["//x.org/d"]


def test_links_of_included_files_lead_to_pages(hooks, tmp_path):
    tree = {
        "docs/a/sam.md": "<!-- include: sam/README.md -->\n",
        "docs/b.md": "<!-- include: notes.md ## Two -->\n<!-- include: xs/x.py -->\n",
        "sam/README.md": "# Sam\n[n](../notes.md#two) [`d`](d.ipynb) [w](https://x.org)",
        "notes.md": "## One\n1\n## Two\n2\n### Deep\n[s](sam/README.md)\n## Three\n",
        "xs/x.py": "x = 1\n",
    }
    root = checkout.plant(tmp_path, tree)
    pages = hooks.pages_of(root / "docs")
    assert pages["sam/README.md"] == "a/sam.md"
    assert pages["notes.md"] == pages["xs"] == pages["xs/x.py"] == "b.md"
    text = hooks.included(tree["docs/a/sam.md"], "a/sam.md", pages, root)
    assert text == "# Sam\n[n](../b.md#two) `sam/d.ipynb` [w](https://x.org)\n"
    text = hooks.included(tree["docs/b.md"], "b.md", pages, root)
    assert "## Two\n2\n### Deep\n[s](a/sam.md)" in text
    assert "```python\nx = 1\n```" in text
    assert "Three" not in text
    deep = "## Two > ### Deep"
    assert hooks.section_of(tree["notes.md"], deep).strip() == "[s](sam/README.md)"
    with pytest.raises(ValueError, match="no section '## Four'"):
        hooks.section_of(tree["notes.md"], "## Four")


def test_docstrings_become_markdown(hooks):
    docstring = (
        "Sum of :math:`a_i * b`.\n\n.. math:: x^2\n    + y\n\nReturns:\n    A: b.\n\n"
        "Example::\n\n>>> f(1)\n2\n\nSee https://x.org/a.\n"
    )
    text = hooks.to_markdown(docstring)
    assert text.count("<math") == 2
    assert 'display="block"' in text
    assert "math::" not in text
    # Stars and underscores of a formula are not those of Markdown.
    assert not re.search(r"[*_]", re.search(r"<math.*?</math>", text)[0])
    assert "**Returns:** A: b." in text
    assert "Example:\n\n```pycon\n>>> f(1)\n2\n```" in text
    assert "<https://x.org/a>." in text
