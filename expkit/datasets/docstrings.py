"""Paragraphs from the docstrings of installed libraries, the names of which are masked.

The sources `api_docs` and `api_docs_pairs` are made of them. Files are parsed and never
run. A documented object is a public function, method or class with at least two long
paragraphs, of which it keeps the first two. A list of parameters counts as a paragraph,
an example does not. Tests and what a library ships of others are left out.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from expkit.datasets.errors import DataError
from expkit.datasets.installed import content_name, package_folder
from expkit.datasets.texts import mixing_key, same_key

LIBRARIES = ("numpy", "scipy", "sklearn", "jax")
SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MIN_CHARACTERS = 140
MASK = "library"

_REQUIREMENTS = ("numpy", "scipy", "scikit-learn", "jax")
_FOREIGN = re.compile(
    r"_?tests?|_?testing|test_.*|.*_tests?|.*_test_.*|conftest|externals|_vendored"
    r"|array_api_compat|array_api_extra|cobyqa|pyprima"
)
_HINT = re.compile(r"numpy|scipy|sci-?kit|sklearn|jax|jnp|onp|np|jsp|lax|sp", re.I)
# A word with a library's name in it goes as a whole: jaxpr says as much as jax.
_NAME = re.compile(
    r"\w*(?:numpy|scipy|sci-?kit[-_ ]?learn|sklearn|sci-?kits?|jax)\w*"
    r"|\b(?:jnp|onp|np|jsp|lax)\b|\b(?:sp|osp)(?=\.)",
    re.IGNORECASE,
)


class SourceFile(NamedTuple):
    """A module of a library.

    Attributes:
        library: name that `import` takes.
        path: inside the folder of the library, with `/`.
        content: Python code.
    """

    library: str
    path: str
    content: bytes


class DocumentedObject(NamedTuple):
    """A function, method or class.

    Attributes:
        library: name that `import` takes.
        path: of its module, inside the folder of the library.
        name: with the names of the classes it is in.
        paragraphs: the first two of its docstring.
    """

    library: str
    path: str
    name: str
    paragraphs: tuple[str, str]


def read_files() -> list[SourceFile]:
    """Reads the modules of the installed libraries.

    Returns:
        The files, in an order that does not depend on the file system.

    Raises:
        DataError: if a library is missing.
    """
    specs = (
        importlib.util.find_spec("numpy"),
        importlib.util.find_spec("scipy"),
        importlib.util.find_spec("sklearn"),
        importlib.util.find_spec("jax"),
    )
    files = []
    for library, spec in zip(LIBRARIES, specs, strict=True):
        folder = package_folder(spec)
        if folder is None:
            requirement = _REQUIREMENTS[LIBRARIES.index(library)]
            raise DataError(
                f"the source 'api_docs' reads the documentation of {library}, which is "
                f"not installed: run 'pip install {requirement}'."
            )
        paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
        own = sorted(path for path in paths if not _is_foreign(path))
        files += [SourceFile(library, p, Path(folder, p).read_bytes()) for p in own]
    return files


def describe(files: Sequence[SourceFile]) -> tuple[str, str]:
    """Names the content of the libraries, which changes with their versions.

    Args:
        files: as `read_files` gives them.

    Returns:
        The name of a configuration, with a hash of names and contents of all files,
        and a sentence with the versions and that name.
    """
    name = content_name(f"{f.library}/{f.path}\n".encode() + f.content for f in files)
    versions = [f"{r} {importlib.metadata.version(r)}" for r in _REQUIREMENTS]
    return name, f"Docstrings of {', '.join(versions)}; content {name}."


def documented_objects(files: Iterable[SourceFile]) -> list[DocumentedObject]:
    """Finds the objects with at least two paragraphs that no other object has.

    Args:
        files: modules; their order decides who keeps a paragraph that repeats.

    Returns:
        The objects in the order of the files. No two paragraphs are the same but for
        case and white space; those that occur in two libraries are left out.
    """
    found = [
        (file, name, paragraphs(docstring))
        for file in files
        for name, docstring in _docstrings(file)
    ]
    libraries: dict[str, set[str]] = {}
    for file, _, texts in found:
        for text in texts:
            libraries.setdefault(same_key(text), set()).add(file.library)
    taken = {key for key, names in libraries.items() if len(names) > 1}
    objects = []
    for file, name, texts in found:
        distinct = {same_key(text): text for text in texts}
        fresh = [text for key, text in distinct.items() if key not in taken]
        taken.update(distinct)
        if len(fresh) > 1:
            pair = (fresh[0], fresh[1])
            objects.append(DocumentedObject(file.library, file.path, name, pair))
    return objects


def paragraphs(docstring: str) -> list[str]:
    """Cuts a docstring into paragraphs at blank lines.

    Args:
        docstring: in any style.

    Returns:
        Paragraphs without examples of code, of at least `MIN_CHARACTERS` characters
        when words are joined by single spaces, with the names of libraries masked.
    """
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    texts = (" ".join(block.split()) for block in blocks if ">>>" not in block)
    return [mask_names(text) for text in texts if len(text) >= MIN_CHARACTERS]


def mask_names(text: str) -> str:
    """Replaces the names of the four libraries, and the usual short forms of them.

    Args:
        text: any text.

    Returns:
        The text with the word `library` in place of numpy, np, jnp, SciPy, sklearn,
        scikit-learn, JAX, lax and the like.
    """
    return _NAME.sub(MASK, text) if _HINT.search(text) else text


def split_modules(objects: Sequence[DocumentedObject]) -> dict[tuple[str, str], str]:
    """Assigns whole modules to splits, so that neighbours do not part.

    In every library the modules come in the order of a hash of their paths, and each
    goes to the split that it leaves the furthest below its share of that library: a
    large one mostly to training.

    Args:
        objects: of all modules.

    Returns:
        The split of each module, which is given as (library, path).
    """
    sizes: dict[tuple[str, str], int] = {}
    for item in objects:
        module = (item.library, item.path)
        sizes[module] = sizes.get(module, 0) + 1
    homes = {}
    filled = {(library, split): 0.0 for library in LIBRARIES for split in SHARES}
    for module in sorted(sizes, key=lambda module: mixing_key(*module)):
        library, size = module[0], sizes[module]
        after = {s: (filled[library, s] + size) / SHARES[s] for s in SHARES}
        home = min(after, key=lambda split: after[split])
        filled[library, home] += size
        homes[module] = home
    return homes


def submodule(item: DocumentedObject) -> str:
    """Names the part of a library that an object belongs to.

    Args:
        item: a documented object.

    Returns:
        Such as `"scipy.stats"`, or `"jax.numpy"` for what is in `jax/_src/numpy`.
    """
    first = item.path.removeprefix("_src/").partition("/")[0]
    return f"{item.library}.{first.removesuffix('.py').strip('_')}"


@functools.lru_cache(maxsize=1)
def installed_objects(name: str) -> tuple[DocumentedObject, ...]:
    """Returns the objects of the installed libraries, parsed once a process.

    Args:
        name: of the content, as `describe` gives it.

    Returns:
        What `documented_objects` finds.

    Raises:
        DataError: if the files are no longer those that the name stands for.
    """
    files = read_files()
    if describe(files)[0] != name:
        raise DataError("the documented libraries changed meanwhile; run again.")
    return tuple(documented_objects(files))


def _is_foreign(path: str) -> bool:
    parts = path.removesuffix(".py").split("/")
    return any(_FOREIGN.fullmatch(part) for part in parts)


def _docstrings(file: SourceFile) -> Iterator[tuple[str, str]]:
    """Yields name and docstring of public functions and classes, and of methods."""
    queue: list[tuple[str, ast.Module | ast.ClassDef]] = [
        ("", ast.parse(file.content, filename=file.path))
    ]
    while queue:
        prefix, parent = queue.pop(0)
        for node in parent.body:
            is_object = isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            )
            if is_object and not node.name.startswith("_"):
                docstring = ast.get_docstring(node, clean=False)
                if docstring:
                    yield prefix + node.name, docstring
                if isinstance(node, ast.ClassDef):
                    queue.append((f"{prefix}{node.name}.", node))
