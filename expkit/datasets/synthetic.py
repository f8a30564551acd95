"""Made-up data that a small model learns in seconds, for smoke runs and tests.

`synthetic:28x28x1:10` is images of that shape in 10 classes: every class has a fixed
random prototype, and a row is the prototype of its class under noise.
`synthetic:linear:32` is least squares with 32 features and condition number 10,000.
Another kind of data is one more line in `_KINDS`.
"""

import math
import re

import numpy as np

from expkit.datasets.errors import shorten

SIZES = {"train": 256, "validation": 64, "test": 64}
_MAX_PIXELS = 2**20
_MAX_CLASSES = 2**16
_MAX_FEATURES = 2**14


def synthetic(kind: str, split: str) -> dict[str, np.ndarray]:
    """Generates one split of a synthetic source; the same arrays every time.

    Args:
        kind: what follows `synthetic:`, such as `"28x28x1:10"`.
        split: `"train"`, `"validation"` or `"test"`.

    Returns:
        Arrays with 256, 64 or 64 rows: `image` uint8 and `label` int64 for images, `x`
        [rows, features] and `y` float32 for `linear`.

    Raises:
        ValueError: if the kind is not understood.
    """
    for pattern, generate in _KINDS.items():
        match = re.fullmatch(pattern, kind)
        if match:
            return generate(match, SIZES[split], list(SIZES).index(split))
    raise ValueError(
        f"unknown data source {shorten(f'synthetic:{kind}')}: write "
        "synthetic:SHAPE:CLASSES, such as 'synthetic:28x28x1:10', or "
        "synthetic:linear:FEATURES."
    )


def _images(match: re.Match[str], n_rows: int, stream: int) -> dict[str, np.ndarray]:
    """Prototypes of values 0..191 plus noise of 0..63, so that uint8 never wraps."""
    shape = tuple(int(side) for side in match["shape"].split("x"))
    n_classes = int(match["classes"])
    if not 1 <= math.prod(shape) <= _MAX_PIXELS or not 1 <= n_classes <= _MAX_CLASSES:
        raise ValueError(
            f"'synthetic:{match[0]}' is outside the limits: 1 to {_MAX_PIXELS:,} values"
            f" an image and 1 to {_MAX_CLASSES:,} classes."
        )
    if math.prod(shape) * (n_classes + n_rows) > 2**30:
        raise ValueError(f"'synthetic:{match[0]}' needs over 1 GiB: make it smaller.")
    prototypes = np.random.default_rng([0, *shape, n_classes]).integers(
        0, 192, (n_classes, *shape), dtype=np.uint8
    )
    rng = np.random.default_rng([1 + stream, *shape, n_classes])
    label = rng.permutation(np.arange(n_rows) % n_classes)
    noise = rng.integers(0, 64, (n_rows, *shape), dtype=np.uint8)
    return {"image": prototypes[label] + noise, "label": label.astype(np.int64)}


def _linear(match: re.Match[str], n_rows: int, stream: int) -> dict[str, np.ndarray]:
    """Normal features with variances 1 to 1e-4; targets exactly linear in them."""
    n_features = int(match["features"])
    if not 1 <= n_features <= _MAX_FEATURES:
        raise ValueError(f"'synthetic:{match[0]}': 1 to {_MAX_FEATURES:,} features.")
    weights = np.random.default_rng([0, n_features]).normal(size=n_features)
    rng = np.random.default_rng([1 + stream, n_features])
    x = rng.normal(size=(n_rows, n_features)) * np.logspace(0, -2, n_features)
    return {"x": x.astype(np.float32), "y": (x @ weights).astype(np.float32)}


_KINDS = {
    r"(?P<shape>\d{1,6}(x\d{1,6}){0,3}):(?P<classes>\d{1,6})": _images,
    r"linear:(?P<features>\d{1,6})": _linear,
}
