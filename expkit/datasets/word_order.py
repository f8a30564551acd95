"""Pairs of texts that differ in the order of their words, made from real sentences.

As in PAWS (Zhang et al. 2019, https://arxiv.org/abs/1904.01130), both classes share
nearly all words: the second text lacks one word of the first, and in the pairs that are
not alike two other words have changed places. What is in a text does not tell.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from expkit import data
from expkit.datasets.texts import mixing_key

NUM_WORDS = 14
SPLITS = ("train", "validation", "test")


def write(folder: Path, source: str = "api_docs") -> str:
    """Writes the pairs of all splits.

    Args:
        folder: where to.
        source: of `expkit.data`, with a `text`.

    Returns:
        The name of the data set: columns `text_1`, `text_2` and `label`, 1 where the
        order is the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        pairs = swapped_pairs(data.load(source, split)["text"])
        lines = [
            json.dumps({"text_1": first, "text_2": second, "label": label})
            for first, second, label in pairs
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return f"file:{folder}/{{split}}.jsonl"


def swapped_pairs(texts: Iterable[str]) -> list[tuple[str, str, int]]:
    """Pairs of the first words of each text: one in order, one not.

    Args:
        texts: those with fewer than `NUM_WORDS` words are left out, and pairs whose
            two words that change places are the same.

    Returns:
        (first, second, label), mixed; label 1 is in order. The draws depend on the text
        alone.
    """
    pairs = []
    for text in texts:
        words = re.findall(r"\S+", text)[:NUM_WORDS]
        if len(words) < NUM_WORDS:
            continue
        seed = int.from_bytes(mixing_key(text)[:8], "big")
        for label in (0, 1):
            drawn = np.random.default_rng([seed, label])
            out, first, second = drawn.choice(NUM_WORDS, 3, replace=False)
            other = list(words)
            if words[first].lower() == words[second].lower():
                continue
            if label == 0:
                other[first], other[second] = other[second], other[first]
            del other[out]
            pairs.append((" ".join(words), " ".join(other), label))
    return sorted(pairs, key=lambda pair: mixing_key(*pair))
