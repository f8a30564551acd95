"""Commands with input that cannot be used, each wrong by how it is made."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import fuzz_encoders
import numpy as np
from fuzz_bytes import pick
from fuzz_check import check_message, snapshot
from fuzz_tables import IMAGES, LABELS, idx_bytes

from expkit.datasets import idx

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation", "test")
CONFIGS = {
    "childtuning": "reviews",
    "cosent": "api_docs_pairs",
    "gp_kl": "news_entities",
    "igr": "digits",
    "lion": "quadratic",
    "rdrop": "reviews",
    "vmf_vae": "digits",
}
BAD_FLAGS = (
    *("--bogus=1", "--config.nothing=1", "--config.seed", "extra", "--config.=1"),
    *("--config=nowhere.py", "--config=configs", "--config=" + "n" * 5000 + ".py"),
    *("--flagfile=/nowhere", "--config.lerning_rate=1", "--workdir="),
)
NO_INTEGERS = (
    *("", "1.5", "nan", "1e999", "True", "(1,)", "a\nb", "\x1b[2J", "日本", "0x"),
    *("9" * 5000, "(" * 5000, "-" * 5000 + "1", "__import__('os').getcwd()"),
)
ROWS = 'text,label\none,0\n"two, three",1\nfour,0\n'
TAGGED = "Ada B-PER\nmet O\n\nIn O\nParis B-LOC\n"


class Command(NamedTuple):
    """Attributes: package; words: arguments of it; named: what the message says."""

    package: str
    words: list[str]
    named: str


def flags(rng: np.random.Generator, folder: Path) -> Command:
    """Flags that there are not, or that have no value."""
    return Command(pick(rng, CONFIGS), [pick(rng, BAD_FLAGS)], "")


def values(rng: np.random.Generator, folder: Path) -> Command:
    """Values of integers that are none."""
    field = pick(rng, ["seed", "num_steps", "batch_size"])
    words = [f"--config.{field}={pick(rng, NO_INTEGERS)}"]
    return Command(pick(rng, CONFIGS), words, field)


def tables(rng: np.random.Generator, folder: Path) -> Command:
    """Rows that are cut, of another length, or not text."""
    rows = ROWS.encode()
    at = int(rng.integers(len(rows)))
    content = {
        ".csv": [
            rows[:11],
            rows[:at] + b"\xff" + rows[at:],
            rows + b"five\n",
            b"",
            b"\0",
        ],
        ".tsv": [rows.replace(b",", b"\t") + b"five\n", b"text\ttext\n1\t2\n"],
        ".jsonl": [b"[" * 20_000, b'{"text": ', b"[1]\n", b'{"a": 1}\n{"b": 1}\n'],
    }
    suffix = pick(rng, content)
    return _texts(rng, folder, suffix, pick(rng, content[suffix]))


def archives(rng: np.random.Generator, folder: Path) -> Command:
    """What is cut, no archive, or a bomb."""
    packed = gzip.compress(ROWS.encode(), mtime=0)
    content = [
        packed[: rng.integers(1, len(packed) - 8)],
        ROWS.encode(),
        gzip.compress(b"\0" * 2**25),
        gzip.compress((b"a" * 2**16 + b"\n") * 2**9),
    ]
    return _texts(rng, folder, ".csv.gz", pick(rng, content))


def _texts(rng, folder, suffix, content) -> Command:
    for split in SPLITS:
        (folder / f"{split}{suffix}").write_bytes(content)
    words = [f"--config.dataset=file:{folder}/{{split}}{suffix}"]
    return Command(pick(rng, ["childtuning", "rdrop"]), words, f"train{suffix}")


def spans(rng: np.random.Generator, folder: Path) -> Command:
    """Tags that continue nothing, and mentions that are elsewhere."""
    content = {
        ".conll": [TAGGED + "x I-PER\n", TAGGED + "alone\n", "", "\0", "x B-\n"],
        ".jsonl": [
            f'{{"text": "Ada", "label": {{"name": {{"Ada": [[0, {place}]]}}}}}}\n'
            for place in (-1, 1, 3, 10**30)
        ],
    }
    suffix = pick(rng, content)
    for split in SPLITS:
        (folder / f"{split}{suffix}").write_text(pick(rng, content[suffix]))
    words = [f"--config.dataset=file:{folder}/{{split}}{suffix}", *_whole_splits()]
    return Command("gp_kl", words, f"train{suffix}")


def _whole_splits() -> list[str]:
    return [f"--config.{split}_split={split}" for split in SPLITS]


def images(rng: np.random.Generator, folder: Path) -> Command:
    """IDX files whose header is cut, or declares what is not there."""
    image_name, label_name = idx.pair_names("train")
    size = pick(rng, [0, 4, 2**21, 2**31, 2**32 - 1])
    content = {
        image_name: [
            idx_bytes(IMAGES)[: rng.integers(16)],
            idx_bytes(IMAGES)[: rng.integers(16, 2000)],
            idx_bytes(IMAGES, (size, 28, 28)),
            idx_bytes(IMAGES, (3, size, size)),
        ],
        label_name: [idx_bytes(LABELS, (size,)), idx_bytes(LABELS + 10), b""],
    }
    name = pick(rng, content)
    whole = {image_name: idx_bytes(IMAGES), label_name: idx_bytes(LABELS)}
    for file, raw in (whole | {name: pick(rng, content[name])}).items():
        (folder / file).write_bytes(gzip.compress(raw))
    words = ["--config.dataset=mnist", f"--config.data_dir={folder}"]
    return Command(pick(rng, ["igr", "lion"]), words, "-ubyte.gz")


def encoders(rng: np.random.Generator, folder: Path) -> Command:
    """Encoders of which a file is cut, or declares what is not there."""
    weights = fuzz_encoders.files()[fuzz_encoders.WEIGHTS]
    size = struct.unpack("<Q", weights[:8])[0]
    content = {
        "model": [
            weights[: rng.integers(len(weights))],
            struct.pack("<Q", pick(rng, [0, 2**31, 2**63, 2**64 - 1])) + weights[8:],
            weights[:8] + b"[" * size + weights[8 + size :],
        ],
        "config": [b"{}", b"[" * 20_000, b"\xff", b'{"vocab_size": 1e999}', b""],
        "tokenizer": [b"{}", b"[" * 20_000, b"\xff", b""],
    }
    name = pick(rng, content)
    fuzz_encoders.put(folder, **{name: pick(rng, content[name])})
    for split in SPLITS:
        (folder / f"{split}.conll").write_text(TAGGED)
    words = [f"--config.dataset=file:{folder}/{{split}}.conll", *_whole_splits()]
    return Command("gp_kl", [*words, f"--config.encoder={folder}"], name)


def run_folders(rng: np.random.Generator, folder: Path) -> Command:
    """Folders of other runs, and such that lead elsewhere."""
    run = folder / "run"
    run.mkdir()
    name = pick(rng, ["config.json", "checkpoints", "metrics.jsonl", ".lock"])
    if name == "config.json":
        content = pick(rng, ["", "[1]", "[" * 20_000, '{"seed": "x"}', "\0"])
        (run / name).write_text(content)
        return Command("lion", [], "run")
    (folder / "outside").mkdir()
    (run / name).symlink_to(folder / "outside" / name)
    return Command("lion", [], f"{name} is a link out of it")


KINDS = (flags, values, tables, archives, spans, images, encoders, run_folders)


def make(number: int, folder: Path) -> Command:
    """The command of a number, with its files in a folder."""
    kind = KINDS[number % len(KINDS)]
    command = kind(np.random.default_rng([8, number]), folder)
    config = f"configs/{command.package}/{CONFIGS[command.package]}.py:smoke"
    start = [f"--config={config}", f"--workdir={folder / 'run'}"]
    return command._replace(words=start + command.words)


def check_refused(command: Command, folder: Path) -> None:
    """Runs a command, which has to say what is wrong in one line and do no more."""
    prepared, home = folder / "prepared", folder / "home"
    for path in (prepared, home):
        path.mkdir(exist_ok=True)
    before = _outside(folder)
    done = subprocess.run(
        [sys.executable, "-m", f"{command.package}.main", *command.words],
        cwd=ROOT,
        env=os.environ | {"TFDS_DATA_DIR": str(prepared), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    check_answer(command, done)
    assert _outside(folder) == before, "changed a file outside of the workdir"


def check_answer(command: Command, done: subprocess.CompletedProcess) -> None:
    """Checks status 2 and one line on stderr, which says what it has to."""
    assert done.returncode == 2, f"status {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    assert done.stderr.startswith(f"{command.package}.main: ")
    check_message(done.stderr.removesuffix("\n"), command.named)


def _outside(folder: Path) -> dict[str, str]:
    found = snapshot(folder).items()
    mine = ("run", "prepared")  # the second is where data sets are prepared
    return {k: v for k, v in found if k.partition("/")[0] not in mine}
