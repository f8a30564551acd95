"""CoNLL files: tokens, tags and spans in characters."""

import gzip

import pytest

from expkit.data import DataError, load
from expkit.datasets.conll import spans_of

TEXT = """-DOCSTART-\tO

The\tO
Empire\tB-place
State\tI-place
Building\tI-place
,\tO
ESB\tB-place
\t
Ann\tB-name
Bob\tB-name
Lee\tI-name
"""


def read(tmp_path, text, columns=None):
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    (tmp_path / "train.conll").write_bytes(content)
    return load(f"file:{tmp_path}/{{split}}.conll", "train", columns=columns)


@pytest.mark.parametrize("separator", ["\t", " "])
def test_sentences_tags_and_spans(tmp_path, separator):
    data = read(tmp_path, TEXT.replace("\t", separator))
    assert data["text"].tolist() == ["The Empire State Building , ESB", "Ann Bob Lee"]
    assert data["tokens"][1] == ["Ann", "Bob", "Lee"]
    assert data["tags"][1] == ["B-name", "B-name", "I-name"]
    assert data["spans"].tolist() == [
        [("place", 4, 24), ("place", 28, 30)],
        [("name", 0, 2), ("name", 4, 10)],
    ]
    assert {array.shape for array in data.values()} == {(2,)}


def test_spans_cut_the_text_they_name(tmp_path):
    data = read(tmp_path, TEXT)
    found = [
        text[start : end + 1]
        for text, spans in zip(data["text"], data["spans"], strict=True)
        for _, start, end in spans
    ]
    assert found == ["Empire State Building", "ESB", "Ann", "Bob Lee"]


def test_characters_beyond_ascii_count_as_one(tmp_path):
    data = read(tmp_path, "é\tO\n北京\tB-place\n😀\tO\n")
    assert data["spans"][0] == [("place", 2, 3)]


@pytest.mark.parametrize("inside", ["\u00a0", "\u2009", "\u2028", "\x0b", "\x85"])
def test_only_spaces_separate_where_there_is_no_tab(tmp_path, inside):
    data = read(tmp_path, f"10{inside}000  B-number\nmen O \n")
    assert data["tokens"].tolist() == [[f"10{inside}000", "men"]]
    assert data["spans"].tolist() == [[("number", 0, 5)]]


@pytest.mark.parametrize("separator", ["\t", " "])
def test_lines_that_end_in_a_carriage_return_alone_are_refused(tmp_path, separator):
    text = TEXT.replace("\t", separator).replace("\n", "\r")
    with pytest.raises(DataError, match=r"line 1: .*carriage return.*line feed"):
        read(tmp_path, text.replace("-DOCSTART-", "A", 1))


def test_gzip_and_no_final_newline(tmp_path):
    (tmp_path / "dev.conll.gz").write_bytes(gzip.compress(TEXT.rstrip().encode()))
    data = load(f"file:{tmp_path}/{{split}}.conll.gz", "dev")
    assert len(data["text"]) == 2


def test_equal_lengths_stay_lists(tmp_path):
    data = read(tmp_path, "a O\nb O\n\nc O\nd O\n")
    assert data["tokens"].tolist() == [["a", "b"], ["c", "d"]]
    assert data["tokens"].shape == (2,)


def test_columns_give_other_positions(tmp_path):
    text = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"
    assert read(tmp_path, text)["tags"][0] == ["B-ORG", "O"]
    data = read(tmp_path, text, {"tokens": "0", "tags": "2"})
    assert data["tags"][0] == ["B-NP", "B-VP"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tO\nb\n", r"line 2: 'b' has 1 field\(s\)"),
        ("a\tO\n\tO\n", "line 2: the token is empty"),
        ("a\tX\n", "line 1: tag 'X' is not BIO"),
        ("a\tB-\n", "line 1: tag 'B-' is not BIO"),
        ("a\tb-x\n", "line 1: tag 'b-x' is not BIO"),
        ("a\tO \n", "line 1: tag 'O ' is not BIO"),
        ("a\tI-x\n", r"line 1: tag 'I-x' continues nothing .*'O'\); write 'B-x'"),
        ("a\tB-y\nb\tI-x\n", r"line 2: .* \(the tag before is 'B-y'\)"),
        ("a\tB-x\n\nb\tI-x\n", "line 3: tag 'I-x' continues nothing"),
        ("\n\n", "holds no rows"),
        (b"a\tO\n\xe9\tO\n", "line 2: byte 0xe9"),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, text)
    assert "train.conll" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "columns", [{"text": "0"}, {"tags": "ner"}, {"tags": "1:int"}, {"tags": "1.5"}]
)
def test_columns_are_positions_of_tokens_and_tags(tmp_path, columns):
    with pytest.raises(DataError, match="counted from 0"):
        read(tmp_path, TEXT, columns)


def test_a_position_beyond_the_line_is_named(tmp_path):
    with pytest.raises(DataError, match=r"line 3: .* has 2 field"):
        read(tmp_path, TEXT, {"tags": "2"})


def test_adjacent_spans_of_one_type_stay_apart():
    assert spans_of(["a", "b"], ["B-x", "B-x"]) == [("x", 0, 0), ("x", 2, 2)]
    assert spans_of(["a", "b"], ["B-x", "I-x"]) == [("x", 0, 2)]
