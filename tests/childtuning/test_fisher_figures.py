"""The figure that `fisher_information` documents is the one that was measured.

And what it no longer needs gives way to what it returns.
"""

import json
import re

import jax.numpy as jnp

import childtuning
from childtuning import fisher


def test_the_docstring_quotes_the_memory_that_the_benchmark_measured(repository_root):
    path = repository_root / "benchmarks/results/fisher-cpu.json"
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    (rows,) = (rows for name, rows in tables.items() if "3.7M parameters" in name)
    ratios = {row["variant"]: f"{row['temp_ratio']:.2f}" for row in rows}
    documentation = childtuning.fisher_information.__doc__ or ""
    quoted = re.findall(r"([\d.]+) gradients for a transformer of 3.7", documentation)
    assert quoted == [ratios["authors, one batch"]]
    assert quoted == [ratios["gradient of the mean loss"]]  # "as much as"


def test_the_sum_is_not_kept_beside_the_mean():
    total = {"w": jnp.full(3, 6.0)}
    mean = fisher._divide(total, 4)
    assert mean["w"].tolist() == [1.5] * 3
    assert total["w"].is_deleted()
