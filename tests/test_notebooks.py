"""Every `demo.ipynb` is committed without outputs, imports its package, and runs."""

import ast
import importlib
import inspect
import json
import os
import resource
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import checkout
import nbclient
import nbformat
import pytest

SECONDS = 40
"""Of a processor, for one notebook: what else the machine runs does not count."""
PATIENCE = 240
"""Seconds after which a notebook is stopped."""


# The quickest. Of all, `call_problems` sees the calls of what a package exports. The
# methods of the objects that gp_kl and vmf_vae make are called by their READMEs too.
IN_CI = ("lion",)


def pytest_generate_tests(metafunc):
    papers = checkout.paper_packages(metafunc.config.rootpath)
    if "paper" in metafunc.fixturenames:
        metafunc.parametrize("paper", papers)
    if "paper_to_run" in metafunc.fixturenames:
        marks = {True: (), False: pytest.mark.slow}
        cases = [pytest.param(name, marks=marks[name in IN_CI]) for name in papers]
        metafunc.parametrize("paper_to_run", cases)


def read(file: Path) -> nbformat.NotebookNode:
    """The notebook in a file, which must be valid."""
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook) -> list:
    """The cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code(notebook) -> ast.Module:
    """The syntax tree of all code, without the lines that only IPython understands."""
    lines = "\n".join(cell.source for cell in code_cells(notebook)).splitlines()
    kept = (line for line in lines if not line.lstrip().startswith(("%", "!")))
    return ast.parse("\n".join(kept))


def problems(notebook, package: str, exported: list[str]) -> Iterator[str]:
    """What is wrong with a notebook as it is committed."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        if cell.outputs or cell.execution_count is not None:
            yield f"code cell {number} has outputs or a count: strip them"
    tree = code(notebook)
    names = [item.name for item in checkout.imports(tree, "")]
    if not any(checkout.is_in(name, (package,)) for name in names):
        yield f"{package} is not imported"
    for node in ast.walk(tree):
        is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if is_definition and node.name in exported:
            yield f"{node.name} is pasted: import it"


def call_problems(notebook, package: str) -> Iterator[str]:
    """Names that a package does not have, and calls that its functions do not take."""
    module = importlib.import_module(package)
    for node in ast.walk(code(notebook)):
        used = node.func if isinstance(node, ast.Call) else node
        if not isinstance(used, ast.Attribute) or ast.unparse(used.value) != package:
            continue
        name = used.attr
        if not hasattr(module, name):
            yield f"there is no {package}.{name}"
        elif isinstance(node, ast.Call):
            plain = [a for a in node.args if not isinstance(a, ast.Starred)]
            signature = inspect.signature(getattr(module, name))
            bind = signature.bind if plain == node.args else signature.bind_partial
            try:
                bind(*plain, **{word.arg: word.value for word in node.keywords})
            except TypeError as error:
                yield f"{ast.unparse(node)}: {error}"


@pytest.fixture
def own_kernel(repository_root, tmp_path):
    """Makes `python3` this Python, whatever kernels the machine has."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "python3", "language": "python"}
    checkout.plant(tmp_path, {"kernels/python3/kernel.json": json.dumps(spec)})
    path = os.pathsep.join([str(repository_root), os.environ.get("PYTHONPATH", "")])
    # A short folder: the sockets of a kernel may be files with limited names.
    with tempfile.TemporaryDirectory() as home:
        folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
        settings = dict.fromkeys(folders, home) | {
            "JUPYTER_PATH": str(tmp_path),
            "PYTHONPATH": path,
            "MPLCONFIGDIR": home,
        }
        with mock.patch.dict(os.environ, settings):
            yield


def processor_seconds() -> float:
    """What the processes that this one started, and that ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def execute(notebook, folder: Path, seconds: float = PATIENCE) -> set[str]:
    """Runs a notebook in a folder; returns the kinds of its outputs."""
    deadline = time.monotonic() + seconds
    nbclient.execute(
        notebook,
        kernel_name="python3",
        cwd=str(folder),
        # Each cell has what the cells before it have left.
        timeout_func=lambda cell: max(1, round(deadline - time.monotonic())),
    )
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return {kind for output in outputs for kind in output.get("data", {})}


def test_notebook_is_stripped_and_imports_its_package(repository_root, paper):
    notebook = read(repository_root / paper / "demo.ipynb")
    exported = checkout.exported(repository_root, paper)
    assert list(problems(notebook, paper, exported)) == []


def test_notebook_calls_what_its_package_has(repository_root, paper):
    notebook = read(repository_root / paper / "demo.ipynb")
    assert list(call_problems(notebook, paper)) == []


def test_notebook_runs_and_draws(repository_root, paper_to_run, own_kernel):
    notebook = read(repository_root / paper_to_run / "demo.ipynb")
    kinds = execute(notebook, repository_root)
    assert any(kind.startswith("image/") for kind in kinds), "no plot"


@pytest.mark.slow
def test_notebook_stays_within_its_processor_time(repository_root, paper, own_kernel):
    # How long it takes depends on the machine: no reason to refuse a change.
    notebook = read(repository_root / paper / "demo.ipynb")
    before = processor_seconds()
    execute(notebook, repository_root)
    assert 0.1 < processor_seconds() - before < SECONDS


def make_notebook(*sources: str) -> nbformat.NotebookNode:
    """A notebook of code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


GOOD = ("%pip install x\nimport sam", "def draw():\n    sam.sam()\ndraw()")


def test_a_good_notebook_passes():
    assert list(problems(make_notebook(*GOOD), "sam", ["sam"])) == []


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        (["import sample, jax"], "sam is not imported"),
        ([*GOOD, "def sam():\n    pass"], "sam is pasted: import it"),
    ],
)
def test_a_notebook_that_pastes_code_is_found(sources, problem):
    assert list(problems(make_notebook(*sources), "sam", ["sam"])) == [problem]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("sam.sam(1, *x, rho=2)", None),
        ("sam.sam(1)", "sam.sam(1): missing a required argument: 'y'"),
        ("sam.sam(1, 2, 3, 4)", "sam.sam(1, 2, 3, 4): too many positional arguments"),
        (
            "sam.sam(*x, r=2)",
            "sam.sam(*x, r=2): got an unexpected keyword argument 'r'",
        ),
        ("f(sam.absent)", "there is no sam.absent"),
        ("sam.absent(1)", "there is no sam.absent"),
    ],
)
def test_a_call_that_does_not_fit_is_found(monkeypatch, source, problem):
    module = types.SimpleNamespace(sam=lambda x, y, rho=1: None)
    monkeypatch.setitem(sys.modules, "sam", module)
    found = list(call_problems(make_notebook(source), "sam"))
    assert set(found) == ({problem} if problem else set())


@pytest.mark.parametrize("trace", ["outputs", "execution_count"])
def test_a_notebook_with_traces_of_a_run_is_found(trace):
    notebook = make_notebook(*GOOD)
    output = nbformat.v4.new_output("stream", text="x")
    notebook.cells[1][trace] = [output] if trace == "outputs" else 3
    (problem,) = problems(notebook, "sam", ["sam"])
    assert problem.startswith("code cell 2")


def test_a_notebook_without_a_plot_is_found(tmp_path, own_kernel):
    assert execute(make_notebook("'text'"), tmp_path) == {"text/plain"}


def test_a_notebook_that_fails_is_found(tmp_path, own_kernel):
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match="division by zero"
    ):
        execute(make_notebook("1 / 0"), tmp_path)


def test_a_notebook_that_takes_too_long_is_found(tmp_path, own_kernel):
    with pytest.raises(nbclient.exceptions.CellTimeoutError):
        execute(make_notebook("import time; time.sleep(60)"), tmp_path, seconds=1)
