"""What `docs/reliability.md` says is what was measured, and is good enough."""

import json

import fault_cases
import fault_tables
import pytest


@pytest.fixture(scope="module")
def measured(repository_root):
    """What `benchmarks/faults.py` wrote."""
    return json.loads((repository_root / "benchmarks/faults.json").read_text())


@pytest.mark.parametrize("name", fault_tables.TABLES)
def test_the_page_shows_what_was_measured(repository_root, measured, name):
    page = (repository_root / "docs/reliability.md").read_text(encoding="utf-8")
    assert fault_tables.section(page, name) == fault_tables.TABLES[name](measured[name])


def test_fifty_kills_in_all_windows_changed_nothing(measured):
    rows = measured["kills"]
    assert [row["number"] for row in rows] == list(range(50))
    assert {row["window"] for row in rows} == set(fault_tables.WINDOWS)
    assert all(row["exact"] for row in rows)
    assert not any(row["finished"] for row in rows)
    assert any(row["half_checkpoint"] for row in rows)
    torn = [row["half_row"] for row in rows if row["window"] == "metrics"]
    assert sum(torn) > len(torn) / 2
    compiling = [row for row in rows if row["window"] == "compilation"]
    assert not any(row["compiled"] or row["rows"] for row in compiling)


def test_every_fault_ended_exact_or_in_a_line_and_the_documented_status(measured):
    cases = {case.name: case for case in fault_cases.CASES}
    found = {row["fault"]: row for row in measured["faults"]}
    assert set(cases) == set(found) - {fault_cases.FULL_DISK}
    for name, row in found.items():
        case = cases.get(name)
        if "status" not in row:
            continue
        assert case is None or row["status"] == case.status, name
        if row["status"]:
            assert row["line"].startswith("lion.main: "), name
            assert case is None or case.says in row["line"], name
            assert not row["traceback"], name
            assert row["next_exact"] == (case is None or case.recovers), name
        else:
            assert row["exact"], name


def test_other_devices_change_the_last_digits_only(measured):
    pairs = {(row["before"], row["after"]) for row in measured["devices"]}
    assert pairs == {(a, b) for a in (1, 2, 4) for b in (1, 2, 4) if a != b}
    assert all(row["largest_relative_error"] < 1e-5 for row in measured["devices"])


def test_one_of_two_processes_does_not_go_on_alone(measured):
    rows = measured["processes"]
    kinds = {(row["signal"], row["process"], row["processes_after"]) for row in rows}
    assert kinds == {
        (name, process, after)
        for name, after in [("SIGKILL", 2), ("SIGKILL", 1), ("SIGTERM", 2)]
        for process in (0, 1)
    }
    for row in rows:
        assert row["status"]
        assert row["line"]
        assert row["seconds"] < 60
        assert not row["traceback"]
        assert not row["finished"]
        assert row["exact"] or row["processes_after"] == 1
        assert row["largest_relative_error"] < 1e-5
