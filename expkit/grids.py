"""Settings that tuning tries, and what they are called.

grid = {"learning_rate": (1e-4, 1e-3), "strength": (1.0, 3.0)}
listed(combinations(grid)[0], grid)  # "learning rate 0.0001, the lowest tried, ..."
"""

import itertools
from collections.abc import Mapping, Sequence

Grid = Mapping[str, Sequence[float]]
Settings = Mapping[str, float]


def combinations(grid: Grid) -> list[dict[str, float]]:
    """Every combination of the values of a grid.

    Args:
        grid: values of each setting.

    Returns:
        A value for each setting, in each; the last setting changes first.
    """
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def listed(settings: Settings, grid: Grid) -> str:
    """Settings in words, such as `learning rate 0.0005, strength 4`.

    Args:
        settings: a value for each.
        grid: values that were tried; beyond an end of these a better one may be, so it
            is told.

    Returns:
        The words.
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.2g}{_end(value, grid.get(name, ()))}"
        for name, value in settings.items()
    )


def is_at_end(settings: Settings, grid: Grid) -> bool:
    """Whether a value is the lowest or the highest of several that were tried.

    Args:
        settings: a value for each.
        grid: values that were tried.

    Returns:
        Whether one of them is.
    """
    return any(_end(value, grid.get(name, ())) for name, value in settings.items())


def _end(value: float, tried: Sequence[float]) -> str:
    if len(tried) < 2 or min(tried) < value < max(tried):
        return ""
    return f", the {'lowest' if value <= min(tried) else 'highest'} tried"
