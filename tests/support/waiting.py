"""Waits for what another process does."""

import time


def wait_until(condition, process=None, timeout=120):
    """Returns once a condition is true; a process that ends before is a failure."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def has_rows(n):
    """Whether the metrics of a run, by its folder, have so many rows."""

    def condition(workdir):
        path = workdir / "metrics.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") >= n

    return condition
