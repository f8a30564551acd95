"""The figure that `fisher_information` documents is the one that was measured."""

import json
import re

import childtuning


def test_the_docstring_quotes_the_memory_that_the_benchmark_measured(repository_root):
    path = repository_root / "benchmarks/results/fisher-cpu.json"
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    (rows,) = (rows for name, rows in tables.items() if "3.7M parameters" in name)
    ratios = {row["variant"]: f"{row['temp_ratio']:.2f}" for row in rows}
    documentation = childtuning.fisher_information.__doc__ or ""
    quoted = re.findall(r"([\d.]+) gradients for a transformer of 3.7", documentation)
    assert quoted == [ratios["authors, one batch"]]
    assert quoted == [ratios["gradient of the mean loss"]]  # "as much as"
