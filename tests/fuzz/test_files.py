"""Damaged files: each is read exactly, or refused in one line. See `fuzz_check`."""

import fuzz_check
import fuzz_encoders
import fuzz_folders
import fuzz_tables
import pytest

CASES = fuzz_tables.CASES | fuzz_encoders.CASES | fuzz_folders.CASES
NUMBERS = {
    "csv": 100,
    "tsv": 70,
    "txt": 30,
    "jsonl": 90,
    "mentions": 60,
    "conll": 80,
    "archives": 60,
    "bombs": 20,
    "idx": 80,
    "arguments": 80,
    "weights": 60,
    "encoder config": 50,
    "tokenizers": 50,
    "run folders": 20,
}
"""With 100 in `test_configs`, 950."""


def test_every_kind_has_cases():
    assert NUMBERS.keys() == CASES.keys()
    assert sum(NUMBERS.values()) == 850


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() - {"bombs", "run folders"}))
def test_the_first_cases_are_exact_or_refused(name, tmp_path):
    fuzz_check.run_cases(name, CASES[name], range(2), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_all_cases_are_exact_or_refused(name, tmp_path):
    fuzz_check.tally.clear()
    fuzz_check.run_cases(name, CASES[name], range(NUMBERS[name]), tmp_path)
    if name == "run folders":  # which are not read by `attempt`
        return
    assert fuzz_check.tally.total() == NUMBERS[name]
    assert fuzz_check.tally["refused"] >= NUMBERS[name] // 10
    assert name == "bombs" or fuzz_check.tally["read"] >= NUMBERS[name] // 10


def missing_key(path):
    return {}["rows"]


def two_lines(path):
    raise ValueError(f"{path}: is\nno table.")


def nameless(path):
    raise ValueError("is no table.")


def greedy(path):
    bytearray(2 * fuzz_check.MEMORY)


def writing(path):
    path.with_suffix(".cache").write_text("rows")


@pytest.mark.parametrize(
    ("reader", "problem"),
    [
        (missing_key, "case 0 of 'control': KeyError: 'rows'"),
        (two_lines, "not one line"),
        (nameless, "names nothing"),
        (greedy, "more than the memory allowed"),
        (writing, "changed a file"),
    ],
)
def test_a_broken_reader_is_caught(reader, problem, tmp_path):
    def case(rng, folder):
        path = folder / "train.csv"
        path.write_bytes(rng.bytes(9))
        fuzz_check.attempt(lambda: reader(path), folder, str(path))

    with pytest.raises(AssertionError, match=problem):
        fuzz_check.run_cases("control", case, [0], tmp_path)


def test_a_reader_that_mixes_up_its_rows_is_caught(tmp_path, monkeypatch):
    def backwards(*args, **kwargs):
        return {k: v[::-1] for k, v in load(*args, **kwargs).items()}

    load = fuzz_tables.load
    monkeypatch.setattr(fuzz_tables, "load", backwards)
    with pytest.raises(AssertionError, match="of 'csv'"):
        fuzz_check.run_cases("csv", CASES["csv"], range(20), tmp_path)
