"""Writes pair_references.json with transformers, for the tests of pairs of texts.

    python tests/expkit/make_pair_references.py FOLDER_OF_MINILM

Needs transformers only. Ids and token types are those of its BERT tokenizer with
`truncation="longest_first"`.
"""

import json
import sys
from pathlib import Path

import transformers

TEXTS = [
    "",
    "one",
    "a b c d",
    "a b c d e",
    "The quick brown fox jumps over it",
    "unbelievably supercalifragilistic",
    "word " * 20,
    "中文句子 and English, mixed: 😀 é",
]
LENGTHS = (5, 6, 7, 8, 11, 12, 13, 64)


def main(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [[a, b] for a in TEXTS for b in TEXTS]
    expected = {}
    for length in LENGTHS:
        encoded = tokenizer(
            *map(list, zip(*pairs, strict=True)),
            truncation="longest_first",
            max_length=length,
            padding=False,
            return_token_type_ids=True,
        )
        # The kinds of the tokens are 0, then 1: where they change says it all.
        firsts = [types.count(0) for types in encoded["token_type_ids"]]
        for types, first in zip(encoded["token_type_ids"], firsts, strict=True):
            assert types == [0] * first + [1] * (len(types) - first)
        expected[str(length)] = {"ids": encoded["input_ids"], "firsts": firsts}
    content = {
        "made_with": f"{type(tokenizer).__name__} of transformers "
        f"{transformers.__version__}",
        "texts": TEXTS,
        "expected": expected,
    }
    out = Path(__file__).with_name("pair_references.json")
    out.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
