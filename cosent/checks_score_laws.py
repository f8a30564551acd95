"""Laws of similarity scores, on which searches of a threshold are compared.

scores, labels = draw("A: separated", size=2000, seed=0)
"""

import numpy as np

LAWS = {
    "A: separated": "two normal laws, three standard deviations apart",
    "B: two maxima": "similar pairs on both sides of the others",
    "C: 3 % positive": "overlapping normal laws, few similar pairs",
    "D: within .9 to 1": "as on PAWS: every pair shares its words",
    "E: ties": "overlapping normal laws, rounded to 0.1",
    "F: above .999": "a collapsed encoder: all vectors are almost parallel",
}


def draw(law: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [-1, 1] and labels.

    Args:
        law: a name in `LAWS`.
        size: how many.
        seed: of the draw.

    Returns:
        `(scores [size] float64, labels [size] bool)`.
    """
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < {"C": 0.03, "D": 0.45}.get(law[0], 0.5)
    noise = rng.normal(size=size)
    if law[0] == "A":
        scores = 0.4 * (labels + noise / 3.0)
    elif law[0] == "B":
        is_low = rng.random(size) < 0.4
        scores = np.where(is_low, -0.1, 0.75) + 0.08 * noise
        scores = np.where(labels, scores, 0.3 + 0.12 * noise)
    elif law[0] == "C":
        scores = 0.2 + 0.3 * labels + 0.2 * noise
    elif law[0] == "D":
        scores = 0.96 + 0.01 * labels + 0.02 * noise
        scores = np.clip(scores, 0.9, 1.0)
    elif law[0] == "E":
        scores = np.round(0.3 + 0.2 * labels + 0.2 * noise, 1)
    else:
        scores = 0.9994 + 0.0002 * labels + 0.00013 * noise
        scores = np.clip(scores, 0.999, 1.0)
    return np.clip(scores, -1.0, 1.0), labels
