"""Paragraphs of installed documentation: masked names, splits by module, counts."""

import collections
import re
import subprocess
import sys

import numpy as np
import pytest

from expkit.data import DataError, load
from expkit.datasets import api_docs_pairs, docstrings
from expkit.datasets.docstrings import DocumentedObject, SourceFile, mask_names

SPLITS = ("train", "validation", "test")
LONG = "This sentence is repeated until the paragraph is long enough to count. " * 2
MODULE = '''
"""The module itself is no object."""

def documented():
    """First of numpy. {first}

    Second. {second}

    >>> example of code, {code}

    Third. {second}
    """

def _private():
    """{first}

    {second}
    """

class Holder:
    """{first} of the class

    short

    {second} of the class
    """

    def method(self):
        """{first} of the method

        {second} of the method
        """
'''


def module(library="numpy", path="lib/a.py", text=LONG):
    fields = {"first": text + "One.", "second": text + "Two.", "code": text}
    return SourceFile(library, path, MODULE.format(**fields).encode())


@pytest.fixture(scope="module")
def files():
    return docstrings.read_files()


@pytest.fixture(scope="module")
def some(files):
    """The objects of one file in eight, which parses in a second."""
    return docstrings.documented_objects(files[::8])


def test_public_functions_classes_and_methods_are_found():
    found = docstrings.documented_objects([module()])
    names = [item.name for item in found]
    assert names == ["documented", "Holder", "Holder.method"]
    first, second = found[0].paragraphs
    assert first.startswith("First of library. This sentence")
    assert second.startswith("Second. This sentence")
    assert second == " ".join(second.split())


def test_a_paragraph_counts_once_in_a_library_and_never_in_two():
    apart = [module(), module(path="lib/b.py", text=LONG.upper() + "  ")]
    found = docstrings.documented_objects(apart)
    assert {item.path for item in found} == {"lib/a.py"}
    assert docstrings.documented_objects([module(), module("jax")]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("``np.linalg.norm`` of NumPy", "``library.linalg.norm`` of library"),
        (
            "jnp.sum, jax.lax.scan, a jaxpr",
            "library.sum, library.library.scan, a library",
        ),
        ("Scikit-learn, scikit learn or sklearn", "library, library or library"),
        ("sp.sparse and SCIPY_ARRAY_API", "library.sparse and library"),
        ("relax the input, inp, sp = 3", "relax the input, inp, sp = 3"),
    ],
)
def test_names_are_masked(text, expected):
    assert mask_names(text) == expected


def test_no_name_of_a_library_is_left(some):
    named = re.compile(
        r"numpy|scipy|sklearn|scikit|jax|\b(np|jnp|lax)\b", flags=re.IGNORECASE
    )
    texts = [text for item in some for text in item.paragraphs]
    assert [text for text in texts if named.search(text)] == []
    assert sum("library" in text for text in texts) > 10


def test_tests_and_vendored_files_are_left_out(files):
    paths = {f"{file.library}/{file.path}" for file in files}
    assert {"numpy/lib/_npyio_impl.py", "jax/_src/numpy/reductions.py"} <= paths
    assert "scipy/stats/_hypotests.py" in paths
    foreign = re.compile(r"/tests?/|/testing/|/test_|conftest|/externals/|/cobyqa/")
    assert [path for path in paths if foreign.search(path)] == []


def test_the_order_of_the_files_is_fixed(files):
    keys = [(docstrings.LIBRARIES.index(f.library), f.path) for f in files]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) > 1_000


def test_reading_runs_no_code_of_the_libraries():
    code = (
        "import sys; from expkit.datasets import docstrings; docstrings.read_files(); "
        "print(sorted({'jax', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    reply = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert reply.stdout.strip() == "[]"


def test_the_name_changes_with_the_content(files):
    few = files[:20]
    name, sentence = docstrings.describe(few)
    assert re.fullmatch(r"files_[0-9a-f]{16}", name)
    assert name in sentence
    assert "scikit-learn 1." in sentence
    changed = [*few[:-1], few[-1]._replace(content=few[-1].content + b"\n")]
    moved = [few[0]._replace(path="other.py"), *few[1:]]
    names = {docstrings.describe(each)[0] for each in (few, changed, moved)}
    assert len(names) == 3
    assert docstrings.describe(list(few))[0] == name


def made_up_objects(modules=60, size=5):
    return [
        DocumentedObject(
            library, f"part{m % 3}/m{m}.py", f"f{i}", (f"{tag}a", f"{tag}b")
        )
        for library in docstrings.LIBRARIES
        for m in range(modules)
        for i in range(size)
        for tag in [f"{library} {m} {i} "]
    ]


def test_modules_are_split_whole_and_in_proportion():
    objects = made_up_objects()
    homes = docstrings.split_modules(objects)
    assert len(homes) == 240
    counts = collections.Counter((m[0], split) for m, split in homes.items())
    for library in docstrings.LIBRARIES:
        found = [counts[library, split] for split in SPLITS]
        np.testing.assert_allclose(found, [42, 9, 9], atol=1)
    assert docstrings.split_modules(objects[::-1]) == homes


@pytest.mark.parametrize(
    ("library", "path", "expected"),
    [
        ("scipy", "stats/_qmc.py", "scipy.stats"),
        ("jax", "_src/numpy/sorting.py", "jax.numpy"),
        ("numpy", "_core/numeric.py", "numpy.core"),
        ("sklearn", "base.py", "sklearn.base"),
    ],
)
def test_submodules_are_named_without_private_parts(library, path, expected):
    item = DocumentedObject(library, path, "f", ("a", "b"))
    assert docstrings.submodule(item) == expected


def test_pairs_are_graded_by_what_they_share():
    objects = made_up_objects(modules=6, size=2)
    owner = {text: item for item in objects for text in item.paragraphs}
    pairs = api_docs_pairs.graded_pairs(objects)
    assert collections.Counter(score for *_, score in pairs) == dict.fromkeys(
        (0.0, 1.0, 2.0), len(objects)
    )
    for first, second, score in pairs:
        one, two = owner[first], owner[second]
        is_near = docstrings.submodule(one) == docstrings.submodule(two)
        assert score == (2.0 if one == two else float(is_near))
        assert first.endswith("a")
        assert second.endswith("b")
    assert api_docs_pairs.graded_pairs(objects) == pairs


def test_an_object_alone_in_its_submodule_has_no_near_pair():
    objects = [*made_up_objects(1, 2)[:2], *made_up_objects(1, 1)[1:2]]
    scores = [score for *_, score in api_docs_pairs.graded_pairs(objects)]
    assert sorted(scores) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(docstrings.importlib.util, "find_spec", lambda name: None)
    for name in ("api_docs", "api_docs_pairs"):
        with pytest.raises(DataError, match="pip install numpy"):
            load(name, "train")


@pytest.fixture(scope="module")
def docs():
    return {split: load("api_docs", split) for split in SPLITS}


@pytest.fixture(scope="module")
def pairs():
    return {split: load("api_docs_pairs", split) for split in SPLITS}


@pytest.mark.slow
def test_counts_are_near_those_of_other_versions(docs, pairs):
    n = sum(len(data["text"]) for data in docs.values())
    assert abs(n - 5_812) < 0.1 * 5_812
    assert abs(len(docs["train"]["text"]) / n - 0.7) < 0.03
    n_pairs = sum(len(data["score"]) for data in pairs.values())
    assert abs(n_pairs - 8_581) < 0.1 * 8_581


@pytest.mark.slow
def test_labels_are_balanced_alike_in_all_splits(docs):
    shares = [np.bincount(d["label"]) / len(d["label"]) for d in docs.values()]
    np.testing.assert_allclose(shares[1:], [shares[0]] * 2, atol=0.05)
    assert 0.3 < shares[0].max() < 0.45


@pytest.mark.slow
@pytest.mark.parametrize("same", [str, lambda t: " ".join(t.casefold().split())])
def test_no_paragraph_is_in_two_splits_or_twice(docs, pairs, same):
    texts = [{same(t) for t in docs[split]["text"]} for split in SPLITS]
    n = sum(len(data["text"]) for data in docs.values())
    assert len(set.union(*texts)) == n
    for split, known in zip(SPLITS, texts, strict=True):
        for key in ("text_1", "text_2"):
            assert {same(t) for t in pairs[split][key]} <= known


@pytest.mark.slow
def test_texts_survive_utf_8_and_a_slice_is_a_sample(docs):
    texts = docs["train"]["text"].tolist()
    assert [text.encode().decode() for text in texts] == texts
    assert any(not text.isascii() for text in texts)
    first = np.bincount(docs["train"]["label"][:500], minlength=4) / 500
    whole = np.bincount(docs["train"]["label"]) / len(texts)
    np.testing.assert_allclose(first, whole, atol=4 * np.sqrt(0.25 / 500))


@pytest.mark.slow
def test_grades_are_balanced(pairs):
    for data in pairs.values():
        assert data["score"].dtype == np.float32
        shares = np.bincount(data["score"].astype(int)) / len(data["score"])
        np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
