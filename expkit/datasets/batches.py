"""Batches of arrays in memory by global step, so that resuming needs no state."""

import dataclasses
import functools
import operator
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import numpy as np

Remainder = Literal["drop", "wrap", "pad"]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Batches of arrays in memory, by global step: `batches[step]`.

    Every epoch has its own order, drawn from `seed` and the number of the epoch; the
    same step always gives the same rows. Iterating gives one epoch, the first.

    Attributes:
        arrays: arrays with the same leading length n.
        batch_size: rows in every batch, at least 1.
        seed: non-negative int, or None for the order of the arrays (evaluation).
        remainder: what happens to the last n mod `batch_size` rows of an epoch.
            `"drop"`: left out of that epoch. `"wrap"`: their batch goes on with the
            start of the next epoch. `"pad"`: their batch is filled with copies of
            row 0, and every batch has an array `mask`, bool [batch_size], that is False
            on copies.
    """

    arrays: Mapping[str, np.ndarray]
    batch_size: int
    _: dataclasses.KW_ONLY
    seed: int | None
    remainder: Remainder = "drop"

    def __post_init__(self):
        for key, array in self.arrays.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{key!r} must be a numpy array, got {type(array)}.")
        lengths = {key: len(array) for key, array in self.arrays.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise ValueError(
                f"arrays must have one leading length, at least 1, got {lengths}."
            )
        if self.remainder not in get_args(Remainder):
            raise ValueError(
                f"remainder must be one of {get_args(Remainder)}, got "
                f"{self.remainder!r}."
            )
        check_batch_size(self.batch_size)
        if self.remainder == "drop" and self.batch_size > self.num_rows:
            raise ValueError(
                f"batch_size must be at most the number of rows, {self.num_rows}, with "
                f"remainder='drop', got {self.batch_size}."
            )
        if self.remainder == "pad" and "mask" in self.arrays:
            raise ValueError("remainder='pad' adds 'mask', which arrays already has.")
        if self.seed is not None and operator.index(self.seed) < 0:
            raise ValueError(f"seed must be None or at least 0, got {self.seed}.")

    @property
    def num_rows(self) -> int:
        """Number of rows n."""
        return len(next(iter(self.arrays.values())))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch: n / batch_size, rounded down by "drop", else up."""
        if self.remainder == "drop":
            return self.num_rows // self.batch_size
        return -(-self.num_rows // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a global step >= 0."""
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, count: int) -> dict[str, np.ndarray]:
        """Makes a part of a batch, and not the rest.

        Args:
            step: global step, at least 0.
            index: which part, from 0.
            count: how many parts of the same size the batch has.

        Returns:
            Rows `index * batch_size / count` and following of the batch.

        Raises:
            ValueError: if `count` does not divide the batch.
        """
        size, rest = divmod(self.batch_size, count)
        if rest:
            raise ValueError(
                f"batch_size must be a multiple of the {count} parts, got "
                f"{self.batch_size}."
            )
        rows = self._rows(check_step(step))
        cut = slice(index * size, (index + 1) * size)
        batch = self._take(np.pad(rows, (0, self.batch_size - len(rows)))[cut])
        if self.remainder == "pad":
            batch["mask"] = np.arange(self.batch_size)[cut] < len(rows)
        return batch

    def _rows(self, step: int) -> np.ndarray:
        """Returns the rows of a step, without copies of row 0."""
        if self.remainder == "wrap":
            first = step * self.batch_size
            return self._stream(first, first + self.batch_size)
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return _order(self.num_rows, self.seed, epoch)[start : start + self.batch_size]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[step] for step in range(self.steps_per_epoch))

    def _stream(self, start: int, stop: int) -> np.ndarray:
        """Returns the rows at these positions of all epochs laid end to end."""
        n = self.num_rows
        pieces = []
        for epoch in range(start // n, (stop - 1) // n + 1):
            order = _order(n, self.seed, epoch)
            pieces.append(order[max(start - epoch * n, 0) : stop - epoch * n])
        return np.concatenate(pieces)

    def _take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[rows] for key, array in self.arrays.items()}


@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int | None, epoch: int) -> np.ndarray:
    """Returns the order of the rows in an epoch; the last few are kept."""
    if seed is None:
        return np.arange(n)
    return np.random.default_rng([seed, epoch]).permutation(n)


def check_batch_size(batch_size: int) -> None:
    """Raises unless a batch size is usable.

    Args:
        batch_size: an int of at least 1.

    Raises:
        ValueError: if it is less than 1.
    """
    if operator.index(batch_size) < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")


def check_step(step: int) -> int:
    """Raises unless a step number is usable.

    Args:
        step: an int of at least 0, of Python or numpy.

    Returns:
        The same as a Python int.

    Raises:
        ValueError: if it is negative.
    """
    if operator.index(step) < 0:
        raise ValueError(f"step must be at least 0, got {step}.")
    return operator.index(step)
