"""Writes encoder_references.json with PyTorch and transformers, for the tests.

    python tests/expkit/make_encoder_references.py FOLDER_OF_MINILM

Needs torch, transformers and numpy only. Reference ids come from
`transformers.AutoTokenizer` (from tokenizer.json and from vocab.txt alone),
embeddings from `transformers.BertModel` in float64, mean-pooled and normalised; they
are stored as float32 [texts, 384] in base64.
"""

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

TEXTS = [
    "A sentence.",
    "",
    "   ",
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Crème brûlée, naïve façade — Ångström! ÀÉÎ",
    "中文句子和 English 混排",
    "日本語 テスト 한국어 кириллица العربية עברית",
    "emoji 😀👩‍👩‍👧 🇩🇪 ✈️",
    "control \u0000\u0007\u200b\u200d\ufeff\u00ad\ufffd characters\r\n\ttabs",
    "special [CLS] [SEP] [MASK] [PAD] [UNK] tokens",
    "e\u0301 \u1e9b\u0323 ﬁ ㎏ ① ½",
    "supercalifragilisticexpialidocious " + "x" * 120,
    "1,234.56 + foo_bar(baz)->qux::quux != 0x7f",
    "over-long " * 150,
    "中" * 200,
]
LENGTHS = (2, 3, 8, 128)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as copy:
        for name in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(folder / name, copy)
        from_vocabulary = transformers.BertTokenizer.from_pretrained(copy)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def encode(tokenizer, length):
        return [
            tokenizer(text, truncation=True, max_length=length)["input_ids"]
            for text in TEXTS
        ]

    model = transformers.BertModel.from_pretrained(folder).double().eval()
    embeddings = []
    with torch.no_grad():
        for ids in encode(tokenizer, 128):
            hidden = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
            embeddings.append((hidden / hidden.norm()).numpy())
    embeddings = np.stack(embeddings)
    content = {
        "made_with": f"torch {torch.__version__}, transformers "
        f"{transformers.__version__}",
        "texts": TEXTS,
        "ids": {str(n): encode(tokenizer, n) for n in LENGTHS},
        "ids_from_vocabulary": {str(n): encode(from_vocabulary, n) for n in LENGTHS},
        "embeddings": base64.b64encode(embeddings.astype("<f4").tobytes()).decode(),
    }
    if content["ids"] == content["ids_from_vocabulary"]:
        content["ids_from_vocabulary"] = None  # the same
    out = Path(__file__).with_name("encoder_references.json")
    out.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
