"""Softmax with 50 digits, as an oracle for losses of logits."""

from collections.abc import Iterable

import mpmath


def probabilities(logits: Iterable[float]) -> list[mpmath.mpf]:
    """The softmax of one example; to be called with the digits that are wanted."""
    powers = [mpmath.exp(mpmath.mpf(float(x))) for x in logits]
    total = mpmath.fsum(powers)
    return [x / total for x in powers]
