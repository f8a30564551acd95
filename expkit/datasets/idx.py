"""The IDX format of MNIST, and the four files that MNIST comes in."""

import gzip
import hashlib
import math
import os
import struct
import threading
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from expkit.datasets.errors import DataError
from expkit.datasets.lines import largest_content

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
PREFIXES = {"train": "train", "test": "t10k"}
# From the checksum file of MNIST in TFDS.
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
MAX_BYTES = 2**31
CONNECT_SECONDS = 3.0
READ_SECONDS = 30.0
_UNSIGNED_BYTE = 0x08


def pair_names(split: str) -> tuple[str, str]:
    """Returns the names of the files of a split.

    Args:
        split: `"train"` or `"test"`.

    Returns:
        The names of the image file and of the label file.
    """
    prefix = PREFIXES[split]
    return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes.

    Args:
        path: the file.
        ndim: number of dimensions it must have.

    Returns:
        An array uint8 of the shape that the file declares.

    Raises:
        DataError: if the file is damaged, has another type or number of dimensions, or
            holds more or fewer values than it declares.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * ndim)
            shape = _check_header(path, header, ndim)
            if math.prod(shape) > largest_content(path):
                raise DataError(
                    f"{path}: declares {math.prod(shape):,} values, but its "
                    f"{path.stat().st_size:,} bytes may unpack to "
                    f"{largest_content(path):,} only; fetch it again."
                )
            # One byte more than declared, to notice what is left over.
            data = file.read(math.prod(shape) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); fetch it again.") from (
            error
        )
    if len(data) != math.prod(shape):
        held = "more" if len(data) > math.prod(shape) else f"{len(data):,}"
        raise DataError(
            f"{path}: declares {math.prod(shape):,} values of shape {list(shape)} but "
            f"holds {held}; fetch it again."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _check_header(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if len(header) < 4 + 4 * ndim or header[:4] != magic:
        raise DataError(
            f"{path}: starts with bytes {header[:4].hex(' ')!r} where an IDX file of "
            f"unsigned bytes with {ndim} dimension(s) has {magic.hex(' ')!r} and "
            f"{4 * ndim} bytes of sizes; fetch it again."
        )
    shape = struct.unpack(f">{ndim}I", header[4:])
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise DataError(
            f"{path}: declares the shape {list(shape)}, outside 1 to {MAX_BYTES:,} "
            "values; fetch it again."
        )
    return shape


def read_pair(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images and labels of a split and checks that they fit together.

    Args:
        folder: where the files are.
        split: `"train"` or `"test"`.

    Returns:
        Images [n, 28, 28, 1] uint8 and labels [n] int64 in 0..9, in file order.

    Raises:
        DataError: if a file is damaged or the two disagree.
    """
    image_path, label_path = (folder / name for name in pair_names(split))
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (28, 28):
        raise DataError(
            f"{image_path}: holds images of {images.shape[1]}x{images.shape[2]} pixels "
            "where 28x28 is wanted; put the files of MNIST there."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{image_path}: holds {len(images):,} images but {label_path.name} holds "
            f"{len(labels):,} labels; use files of the same set."
        )
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise DataError(
            f"{label_path}: label {row} is {labels[row]}, outside 0 to 9; fetch it "
            "again."
        )
    return images[..., None], labels.astype(np.int64)


def present_splits(folder: Path) -> list[str]:
    """Finds the splits whose pair of files is in a folder.

    Args:
        folder: where the raw files are.

    Returns:
        `"train"`, `"test"` or both.

    Raises:
        DataError: if there is no such folder, no pair, or half of a pair.
    """
    splits = []
    for split in PREFIXES:
        missing = [name for name in pair_names(split) if not (folder / name).is_file()]
        if not missing:
            splits.append(split)
        elif len(missing) == 1:
            raise DataError(
                f"{folder / missing[0]} is missing although its pair is there; put it "
                "there or remove the pair."
            )
    if not splits:
        what = "no MNIST file in it" if folder.is_dir() else "is not a folder"
        raise DataError(
            f"data_dir {str(folder)!r}: {what}; it must hold "
            + ", or ".join(" and ".join(pair_names(split)) for split in PREFIXES)
        )
    return splits


def fetch(folder: Path) -> None:
    """Downloads the files that are not yet there, and checks every one.

    Args:
        folder: created when it is missing.

    Raises:
        DataError: if the network cannot be reached within seconds, or if a file is not
            the one that is expected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, expected in SHA256.items():
        path = folder / name
        if path.is_file() and digest(path) == expected:
            continue
        content = _download(URL + name)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise DataError(
                f"{URL + name} answered with other content than MNIST (sha256 {found}, "
                f"expected {expected}); fetch the files elsewhere and pass data_dir."
            )
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(path)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, which is never in memory as a whole.

    Args:
        path: the file.

    Returns:
        Hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str) -> bytes:
    """Opens in a thread: a name server that does not answer ignores every timeout."""
    outcome = []

    def connect():
        try:
            outcome.append(urllib.request.urlopen(url, timeout=READ_SECONDS))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    reply = outcome[0] if outcome else TimeoutError("no answer")
    try:
        if isinstance(reply, Exception):
            raise reply
        with reply:
            return reply.read(MAX_BYTES)
    except Exception as error:
        raise DataError(
            f"MNIST is not prepared and {URL} cannot be read ({error}): pass "
            "config.data_dir=FOLDER (data_dir=FOLDER in Python) with its four .gz "
            "files, which a machine with a network gets by: curl -f --create-dirs "
            f"--output-dir FOLDER -O '{URL}{{train,t10k}}-{{images-idx3,labels-idx1}}"
            "-ubyte.gz'"
        ) from error
