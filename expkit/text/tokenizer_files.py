"""Tokenizers on disk: `tokenizer.json`, or the `vocab.txt` of a BERT.

>>> tokenizer = load_tokenizer()
>>> tokenizer.vocab_size
30522
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from expkit import jsonfile
from expkit.messages import one_line
from expkit.text import folders
from expkit.text.characters import MASK, PAD, UNKNOWN, CharVocabulary
from expkit.text.tokenizer import Tokenizer

MAX_BYTES = 12 * 2**20
"""Of a `tokenizer.json` or `vocab.txt`, up to 75 times of which it takes in memory."""

_SPECIAL_CHARACTERS = {"[PAD]": PAD, "[MASK]": MASK, "[UNK]": UNKNOWN}


def load_tokenizer(path: str | os.PathLike | None = None) -> Tokenizer:
    """Reads the tokenizer of an encoder.

    Args:
        path: a folder in the format of Hugging Face, with `tokenizer.json`, or with the
            `vocab.txt` of a BERT, which is lower-cased and stripped of accents as
            `tokenizer_config.json` says (by default it is); None or `"minilm"` is the
            packaged MiniLM, `"zh_char"` the packaged Chinese character encoder.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if the folder, its files or the library `tokenizers` is missing, a
            file is damaged or too large, or there is no padding token.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise folders.missing_library("tokenizers") from error
    folder = folders.find_folder(path)
    settings = folders.read_json(folder / "tokenizer_config.json", default={})
    special = folders.read_json(folder / "special_tokens_map.json", default={})
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if file.exists():
        with _naming(f"{file} is not a tokenizer"):
            text = jsonfile.read_text(file, MAX_BYTES)
            backend = tokenizers.Tokenizer.from_str(text)
    elif vocabulary.exists():
        backend = _word_pieces(vocabulary, settings)
    else:
        raise ValueError(
            f"there is neither tokenizer.json nor vocab.txt in {folder}: copy one from "
            "where the encoder was published."
        )
    with _naming(f"the tokenizer in {folder} cannot read texts"):
        backend.encode_batch(["a", "\U0010ffff"])  # the second is likely unknown
    stored = (backend.padding or {}).get("pad_token")
    names = (settings.get("pad_token"), special.get("pad_token"), stored, "[PAD]")
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, _pad_id(backend, names, folder))


def save_char_tokenizer(folder: str | os.PathLike, vocabulary: CharVocabulary) -> None:
    """Writes the `tokenizer.json` of a character encoder.

    Its ids are those of `expkit.text.encode`: form NFKC, one id a character, spaces and
    line ends included, no special token in front or behind, and `[PAD]`, `[MASK]` and
    `[UNK]` are five or six characters where they stand in a text.

    Args:
        folder: an existing folder.
        vocabulary: the characters.
    """
    (Path(folder) / "tokenizer.json").write_text(
        char_backend(vocabulary).to_str(pretty=False), encoding="utf-8"
    )
    settings = {
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        "unk_token": "[UNK]",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(settings, indent=2) + "\n"
    (Path(folder) / "tokenizer_config.json").write_text(text, encoding="utf-8")


def char_backend(vocabulary: CharVocabulary) -> Any:
    """The rules of a character encoder, for the library `tokenizers`.

    Args:
        vocabulary: the characters.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        ValueError: if the library is missing.
    """
    try:
        from tokenizers import Regex, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise folders.missing_library("tokenizers") from error
    backend = Backend(
        models.WordLevel({**_SPECIAL_CHARACTERS, **vocabulary.ids}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.NFKC()
    # A dot would leave line ends together with what follows.
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return backend


def _word_pieces(file: Path, settings: dict[str, Any]) -> Any:
    """BERT's tokenizer, from its vocabulary."""
    from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    with _naming(f"{file} is not a vocabulary"):
        text = jsonfile.read_text(file, MAX_BYTES).removesuffix("\n")
    ids = {line: i for i, line in enumerate(text.split("\n"))}
    kinds = ("unk", "cls", "sep", "pad", "mask")
    with _naming(f"{file.parent / 'tokenizer_config.json'} has a wrong value"):
        special = {
            kind: _content(settings.get(f"{kind}_token")) or f"[{kind.upper()}]"
            for kind in kinds
        }
    for kind in ("unk", "cls", "sep"):
        if special[kind] not in ids:
            raise ValueError(
                f"{file} lacks the token {special[kind]!r:.60}, which every BERT has; "
                "it is no vocabulary of one, or tokenizer_config.json names another."
            )
    backend = Backend(models.WordPiece(ids, unk_token=special["unk"]))
    with _naming(f"{file.parent / 'tokenizer_config.json'} has a wrong value"):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            strip_accents=settings.get("strip_accents"),
            lowercase=settings.get("do_lower_case", True),
        )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = ((special[kind], ids[special[kind]]) for kind in ("cls", "sep"))
    backend.post_processor = processors.BertProcessing(last, first)
    known = [token for token in special.values() if token in ids]
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in known])
    return backend


def _content(token: Any) -> str | None:
    """The text of a token, which files hold as a string or with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise ValueError(f"a token must be a text, got {token!r:.60}")
    return text


@contextlib.contextmanager
def _naming(problem: str) -> Iterator[None]:
    """Says what cannot be used when the library does not, in any of its errors."""
    try:
        yield
    except jsonfile.TooLargeError:
        raise
    except Exception as error:  # the library raises nothing narrower
        reason = one_line(error, 300)
        raise ValueError(f"{problem}: {reason}.") from error


def _pad_id(backend: Any, names: Sequence[Any], folder: Path) -> int:
    with _naming(f"the settings of the tokenizer in {folder} have a wrong value"):
        name = next(filter(None, map(_content, names)))
    pad_id = backend.token_to_id(name)
    if pad_id is None:
        raise ValueError(
            f"the tokenizer in {folder} has no padding token: {name!r:.60} is not in "
            "its vocabulary. Name one of its tokens as pad_token in "
            "tokenizer_config.json."
        )
    return pad_id
