"""Mutated encoders: weights, `config.json`, tokenizers; and other readings of them."""

import functools
import json
import struct
import tempfile
from pathlib import Path

import jax
import numpy as np
import tokenizers
from fuzz_bytes import mutate, mutate_text, pick
from fuzz_check import attempt
from random_encoder import random_params

from expkit import text
from expkit.text.config_file import read_config

CONFIG = text.EncoderConfig(
    vocab_size=20,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    intermediate_size=12,
    max_positions=10,
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "met", "日", ".")
SENTENCES = ("a met ab.", "", "日本 [SEP] é", "a" * 40)
WEIGHTS = "model.safetensors"
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 10**30, 1.5, 1e300),
    *(float("nan"), float("inf"), "", "gelu", "bert", "8", [], [8], {}, {"content": 5}),
)
DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2")


@functools.cache
def files() -> dict[str, bytes]:
    """The files of a valid encoder with both kinds of tokenizers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = random_params(CONFIG)
        characters = text.CharVocabulary(tuple("abmet 日."))
        text.save_encoder(folder, CONFIG, params, tokenizer=characters)
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, **changed: bytes | None) -> None:
    """Writes the files, with those changed or left out whose first word is given."""
    for name, content in files().items():
        content = changed.get(name.partition(".")[0], content)
        if content is not None:
            (folder / name).write_bytes(content)


def weights(rng, folder):
    """Bytes of the header or of the tensors, and headers that declare other things."""
    content = files()[WEIGHTS]
    size = struct.unpack("<Q", content[:8])[0]
    how = rng.integers(5)
    if how == 0:
        content = mutate(rng, content)
    elif how == 4:
        data = bytearray(content[8 + size :])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        content = content[: 8 + size] + bytes(data)
    elif how == 1:
        declared = pick(rng, [0, 1, size - 1, size + 1, 2**31, 2**40, 2**63, 2**64 - 1])
        content = struct.pack("<Q", declared) + content[8:]
    elif how == 2:
        content = _with_header(mutate(rng, content[8 : 8 + size]), content[8 + size :])
    else:
        header = json.loads(content[8 : 8 + size])
        _change_entry(rng, header)
        content = _with_header(json.dumps(header).encode(), content[8 + size :])
    put(folder, model=content)
    outcome = attempt(lambda: text.load_encoder(folder)[1], folder, WEIGHTS)
    if outcome.message is None:
        assert_same_weights(content, outcome.value)


def _with_header(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


def _change_entry(rng, header) -> None:
    name = pick(rng, [k for k in header if k != "__metadata__"])
    entry = header[name]
    how = rng.integers(5)
    if how == 0:
        entry["dtype"] = pick(rng, DTYPES)
    elif how == 1:
        entry["shape"] = pick(
            rng, [[], [0], [2**40, 2**40], [-1, 8], entry["shape"][::-1], [10**30], "x"]
        )
    elif how == 2:
        entry["data_offsets"] = pick(rng, [[0, 2**62], [5, 1], [0, 0], [-8, 8], [0]])
    elif how == 3:
        header[mutate_text(rng, name)] = header.pop(name)
    else:
        header["../" + name] = header.pop(name)


def assert_same_weights(content: bytes, params) -> None:
    """Compares with the tensors as the format describes them."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    data = content[8 + size :]
    found = text.encoder_tensors(CONFIG, params)
    for name, tensor in found.items():
        entry = header[name if name in header else f"bert.{name}"]
        start, stop = entry["data_offsets"]
        dtype = {"F16": np.float16, "F32": np.float32, "F64": np.float64}.get(
            entry["dtype"]
        )
        if dtype:
            stored = np.frombuffer(data[start:stop], dtype).reshape(entry["shape"])
            np.testing.assert_array_equal(tensor, stored.astype(np.float32))


def config_file(rng, folder):
    """Bytes, fields and sizes of `config.json`."""
    content = files()["config.json"]
    how = rng.integers(3)
    if how == 0:
        content = mutate(rng, content)
    else:
        fields = json.loads(content)
        name = pick(rng, fields)
        fields[name] = pick(rng, VALUES)
        if how == 2:
            fields = {k: v for k, v in fields.items() if k != pick(rng, fields)}
        content = json.dumps(fields).encode()
    put(folder, config=content)
    outcome = attempt(lambda: text.load_encoder(folder), folder, "config.json")
    if outcome.message is not None:
        return
    config, params = outcome.value
    fields = json.loads(content)
    assert config.vocab_size == fields["vocab_size"] == 20
    assert config.num_layers == fields["num_hidden_layers"] == len(params["layer"])
    assert 0 < config.layer_norm_eps < np.inf
    shapes = jax.tree.map(np.shape, random_params(read_config(folder / "config.json")))
    assert jax.tree.map(np.shape, params) == shapes


def tokenizer_files(rng, folder):
    """Bytes and fields of the three files of a tokenizer."""
    changed = {"tokenizer_config": files()["tokenizer_config.json"]}
    name = pick(rng, ["tokenizer", "vocab", "tokenizer_config"])
    if name != "tokenizer":
        changed["tokenizer"] = None if rng.random() < 0.8 else files()["tokenizer.json"]
    full = "vocab.txt" if name == "vocab" else f"{name}.json"
    if name == "vocab" or rng.random() < 0.5:
        changed[name] = mutate(rng, files()[full])
    else:
        fields = json.loads(files()[full])
        keys = ["pad_token", "unk_token", "do_lower_case", "strip_accents", *fields]
        where, key = fields, pick(rng, keys)
        if isinstance(fields.get("model"), dict) and rng.random() < 0.5:
            where = fields["model"]
            key = pick(rng, where)
            if key == "vocab" and rng.random() < 0.7:
                where, key = where["vocab"], pick(rng, where["vocab"])
        where[key] = pick(rng, VALUES)
        changed[name] = json.dumps(fields).encode()
    put(folder, **changed)

    def read():
        tokenizer = text.load_tokenizer(folder)
        return tokenizer, tokenizer.token_ids(SENTENCES, max_length=12)

    outcome = attempt(read, folder, str(folder))
    if outcome.message is not None:
        return
    tokenizer, rows = outcome.value
    assert all(len(row) <= 12 for row in rows)
    file = folder / "tokenizer.json"
    if file.exists():
        other = tokenizers.Tokenizer.from_file(str(file))
        other.no_padding()
        other.no_truncation()
        other.enable_truncation(12)
        assert rows == [encoding.ids for encoding in other.encode_batch(SENTENCES)]
    assert tokenizer.backend.id_to_token(tokenizer.pad_id) is not None


CASES = {
    "weights": weights,
    "encoder config": config_file,
    "tokenizers": tokenizer_files,
}
