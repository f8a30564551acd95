"""What two runs of a training loop must share to count as the same."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from expkit import loop, metrics


def bits(state: loop.TrainState) -> list[bytes]:
    """All that a later step depends on, as bytes."""
    state = state._replace(key=jax.random.key_data(state.key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The rows without what the clock says."""
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in metrics.read(workdir / "metrics.jsonl")
    ]
