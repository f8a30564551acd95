"""Spans of syntax trees: exact places, what is left out, splits by file."""

import ast
import collections
import itertools
import re
import sys

import numpy as np
import pytest

from expkit.data import DataError, load
from expkit.datasets import code_spans
from expkit.datasets.code_spans import TYPES, read_statements, split_statements

SPLITS = ("train", "validation", "test")
MODULE = '''
"""The module itself, in a line that is long enough."""
import something.that.was.long

class Holder(made.of(bases, long=True)):
    """This docstring is long enough as well."""

    def method(self, default=some.call(1, 2)):
        self.value = compute(default, scale=2.5)
        first, second = default; other.value = 3
        more_of_it = [first, second][0]  # with a comment
        if other.thing and first.thing: self.also = first.value
        try:
            spread.over(several,
                        lines)
        except (ValueError, os.error):
            raise RuntimeError("it failed") from None
        match first:
            case Second(third=4):
                print("matched", first or second)
'''


def statements(code):
    return list(read_statements(code if isinstance(code, bytes) else code.encode()))


def slices(statement):
    return [(kind, statement.text[i : j + 1]) for kind, i, j in statement.spans]


@pytest.fixture(scope="module")
def files():
    return code_spans.read_files()


@pytest.fixture(scope="module")
def some(files):
    """The statements of one file in forty, which parse in a second."""
    contents = itertools.islice(files.values(), 7, None, 40)
    return [item for content in contents for item in read_statements(content)]


def test_statements_that_are_a_line_are_found_with_their_spans():
    found = statements(MODULE)
    assert [item.text for item in found] == [
        "self.value = compute(default, scale=2.5)",
        'raise RuntimeError("it failed") from None',
        'print("matched", first or second)',
    ]
    assert slices(found[0]) == [
        ("Attribute", "self.value"),
        ("Call", "compute(default, scale=2.5)"),
        ("keyword", "scale=2.5"),
        ("Constant", "2.5"),
    ]
    assert slices(found[2])[-1] == ("BoolOp", "first or second")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("größe = 'ä' + '€' + '\U0001f600!' + x", [("BinOp", 0), ("Constant", "'€'")]),
        (
            "the_texts = [f'{a.b} {c!r}', 'x'].y",
            [("JoinedStr", "f'{a.b} {c!r}'"), ("Constant", "'x'")],
        ),
        ("some_thing = -x if x < 0 else {1: x}", [("IfExp", 0), ("UnaryOp", "-x")]),
        ("a_generator[1, ::2] = [i for i in x]", [("ListComp", "[i for i in x]")]),
        ("parenthesised = ((first_one)).second", [("Attribute", 16)]),
    ],
)
def test_places_are_characters(line, expected):
    (found,) = statements("def f():\n\t" + line + "\n")
    assert found.text == line
    for kind, piece in expected:
        piece = line[line.index("=") + 2 :] if piece == 0 else piece
        piece = line[piece:] if isinstance(piece, int) else piece
        assert (kind, piece) in slices(found)


def test_what_stands_in_an_f_string_is_no_span():
    (found,) = statements("name_of_a_thing = f'{first.second(3)} and {[4]}'")
    assert [kind for kind, _ in slices(found)] == ["JoinedStr"]


@pytest.mark.parametrize(
    "code",
    [
        MODULE.replace("\n", "\r\n"),
        b"# -*- coding: latin-1 -*-\n"
        + MODULE.encode()
        + "x = 'é'\n".encode("latin-1"),
        b"\xef\xbb\xbf" + MODULE.encode(),
        MODULE + "\x0c\nshort = 'a\\d'\n",
    ],
)
def test_other_encodings_and_line_ends_change_nothing(code):
    assert len(statements(code)) == 3
    assert statements(code) == statements(MODULE)


@pytest.mark.parametrize(
    "code", [b"print 'Python 2, which does not parse'", b"x = '\xe9'", b"x = 1\0", b""]
)
def test_files_that_cannot_be_read_are_skipped(code):
    assert statements(code) == []


@pytest.mark.parametrize(
    ("n", "is_found"), [(19, False), (20, True), (99, True), (100, False)]
)
def test_lengths_have_bounds(n, is_found):
    assert len(statements(f"a.b = {'c' * (n - 6)}")) == is_found


def parsed_kind(kind, piece):
    """What a piece of code is when it is parsed on its own."""
    if kind == "keyword":
        return type(ast.parse(f"f({piece})", mode="eval").body.keywords[0]).__name__
    code = f"x[{piece}]" if kind == "Tuple" else f"({piece}\n)"
    body = ast.parse(code, mode="eval").body
    return type(body.slice if kind == "Tuple" else body).__name__


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_every_span_is_an_expression_of_its_kind(some):
    found = [pair for item in some for pair in slices(item)]
    assert len(found) > 1_000
    assert [pair for pair in found if parsed_kind(*pair) != pair[0]] == []


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_spans_moved_by_one_character_are_seldom_expressions(some):
    failures = 0
    for text, spans in some[:300]:
        for kind, start, end in spans:
            try:
                failures += parsed_kind(kind, text[start + 1 : end + 2]) != kind
            except SyntaxError:
                failures += 1
    assert failures > 0.5 * sum(len(spans) for _, spans in some[:300])


def test_spans_lie_inside_apart_or_nested_and_in_order(some):
    for text, spans in some:
        assert spans
        assert text == text.strip()
        assert all(kind in TYPES for kind, _, _ in spans)
        assert all(0 <= start <= end < len(text) for _, start, end in spans)
        keys = [(start, -end) for _, start, end in spans]
        assert keys == sorted(keys)
        pairs = itertools.combinations(spans, 2)
        assert all(b > j or c <= j for (_, _, j), (_, b, c) in pairs)


def test_tests_and_optional_parts_are_left_out(files):
    assert {"json/decoder.py", "unittest/case.py", "textwrap.py"} <= files.keys()
    foreign = r"(^|/)(tests?|site-packages|dist-packages)/|^(idlelib|lib2to3)/|_sysconf"
    assert [path for path in files if re.search(foreign, path)] == []
    assert list(files) == sorted(files)


def test_reading_runs_no_code_of_the_library(files):
    assert list(read_statements(files["this.py"]))
    assert {"this", "antigravity"}.isdisjoint(sys.modules)


def test_the_name_changes_with_the_content():
    files = {"a.py": b"x = 1\n", "b.py": b""}
    name, sentence = code_spans.describe(files)
    assert re.fullmatch(r"files_[0-9a-f]{16}", name)
    assert name in sentence
    others = ({"a.py": b"x = 2\n", "b.py": b""}, {"a.py": b"x = 1\n", "c.py": b""})
    assert len({name, *(code_spans.describe(other)[0] for other in others)}) == 3
    assert code_spans.describe(dict(reversed(files.items())))[0] == name


def test_paths_are_drawn_in_proportion():
    n = 10_000
    counts = collections.Counter(code_spans.split_of(f"m/f{i}.py") for i in range(n))
    assert counts.keys() == set(SPLITS)
    for split, share in code_spans.SHARES.items():
        assert abs(counts[split] - share * n) < 4 * np.sqrt(n * share * (1 - share))


def made_up_files():
    """Two files a split; each has a line of its own, and all have one in common."""
    paths = {split: [] for split in SPLITS}
    for i in range(200):
        paths[code_spans.split_of(f"f{i}.py")].append(f"f{i}.py")
    chosen = [path for split in SPLITS for path in paths[split][:2]]
    return {
        path: b"common.to_all = everywhere\nonly.here = %s_is_here()\n"
        % path[:-3].encode()
        for path in chosen
    }


def test_files_stay_whole_and_lines_that_repeat_are_in_training():
    files = made_up_files()
    splits = split_statements(files)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }
    assert "common.to_all = everywhere" in [row.text for row in splits["train"]]
    for split, rows in splits.items():
        for name in re.findall(r"= (f\d+)_is", " ".join(row.text for row in rows)):
            assert code_spans.split_of(f"{name}.py") == split
    assert split_statements(dict(reversed(files.items()))) == splits


def test_lines_that_differ_in_case_and_white_space_count_once():
    path, *_ = made_up_files()
    code = (
        b"first.line = of_a_file()\nFirst.line  = Of_A_File()\nother.line = of_a_file()"
    )
    splits = split_statements({path: code})
    assert sorted(row.text for row in splits["train"]) == [
        "first.line = of_a_file()",
        "other.line = of_a_file()",
    ]


def test_a_python_without_its_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(code_spans.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(
        DataError, match=r"'code_spans' reads .* has no \.py files; use"
    ):
        load("code_spans", "train")


@pytest.fixture(scope="module")
def splits():
    return {split: load("code_spans", split) for split in SPLITS}


def is_nested(spans):
    return any(c <= j for (_, _, j), (_, _, c) in itertools.combinations(spans, 2))


@pytest.mark.slow
def test_counts_are_near_those_of_other_versions(splits):
    spans = [found for data in splits.values() for found in data["spans"]]
    assert abs(len(spans) - 35_000) < 0.1 * 35_000
    assert abs(sum(map(len, spans)) - 102_000) < 0.1 * 102_000
    assert abs(np.mean([is_nested(found) for found in spans]) - 0.74) < 0.03
    shares = [len(data["text"]) / len(spans) for data in splits.values()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("same", [str, lambda t: " ".join(t.casefold().split())])
def test_no_line_is_in_two_splits_or_twice(splits, same):
    texts = [{same(t) for t in splits[split]["text"]} for split in SPLITS]
    n = sum(len(data["text"]) for data in splits.values())
    assert len(set.union(*texts)) == n


@pytest.mark.slow
def test_all_types_are_in_all_splits_alike(splits):
    rates = []
    for data in splits.values():
        counts = collections.Counter(kind for s in data["spans"] for kind, _, _ in s)
        assert counts.keys() == set(TYPES)
        rates.append([counts[kind] / counts.total() for kind in TYPES])
    np.testing.assert_allclose(rates[1:], [rates[0]] * 2, atol=0.05)
    assert isinstance(splits["test"]["spans"][0], list)
