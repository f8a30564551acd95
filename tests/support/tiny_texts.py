"""A tiny character encoder and short labelled texts, for tests of fine-tuning."""

from pathlib import Path

import numpy as np
from random_encoder import random_params

from expkit import config as config_lib
from expkit import text

GOOD, BAD, OTHER = "好美甜", "坏丑苦", "这家书店的房间和早餐"
SIZES = {"train": 80, "validation": 24, "test": 30}
CHARACTERS = text.CharVocabulary(tuple(GOOD + BAD + OTHER))


def write(folder: Path, num_token_types: int = 1) -> Path:
    """Writes an encoder, and texts with label, score and a second text.

    A text has two to five characters, one of which tells its label.
    """
    sizes = text.EncoderConfig(
        CHARACTERS.size,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        intermediate_size=16,
        max_positions=16,
        num_token_types=num_token_types,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        is_rotary=True,
        norm_first=True,
    )
    params = random_params(sizes)
    text.save_encoder(folder / "encoder", sizes, params, tokenizer=CHARACTERS)
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        lines = ["text,other,label,score"]
        for i in range(count):
            label = i % 2
            characters = [*rng.choice(list(OTHER), rng.integers(1, 5))]
            characters.append(rng.choice(list((BAD, GOOD)[label])))
            first, second = "".join(rng.permutation(characters)), rng.choice([*OTHER])
            lines.append(f"{first},{second},{label},{label + len(first) / 10}")
        write_lines(folder, split, lines)
    return folder


def write_lines(folder: Path, split: str, lines: list[str]) -> None:
    """Writes the file of a split, of which the first line is the names of columns."""
    (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(reference: str, folder: Path, data: Path | None = None):
    """Loads a config that trains the encoder of `write` on its texts."""
    config = config_lib.load(reference)
    config.dataset = f"file:{data or folder}/{{split}}.csv"
    config.encoder = str(folder / "encoder")
    return config
