"""Encoders on disk: `config.json` and `model.safetensors` as Hugging Face writes them.

>>> config, params = load_encoder()
>>> config.num_layers, params["layer"][5]["expand"]["kernel"].shape
(6, (384, 1536))

Published dense weights are [out, in] and kernels here [in, out], so they are
transposed on the way. Tensors of a BERT that the encoder has not (pooler, heads of the
pre-training, stored positions) are ignored.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expkit import nets
from expkit.text import config_file, folders
from expkit.text.characters import CharVocabulary
from expkit.text.encoder import EncoderConfig, init_encoder
from expkit.text.tokenizer import Tokenizer
from expkit.text.tokenizer_files import save_char_tokenizer

WEIGHTS = "model.safetensors"
_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "output_norm": "output.LayerNorm",
}
_EMBEDDINGS = {
    "word": "word_embeddings.weight",
    "position": "position_embeddings.weight",
    "token_type": "token_type_embeddings.weight",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_OLD_LEAVES = {
    "LayerNorm.weight": "LayerNorm.gamma",
    "LayerNorm.bias": "LayerNorm.beta",
}
_FLOAT_KINDS = ("float16", "bfloat16", "float32", "float64")


def load_encoder(
    path: str | os.PathLike | None = None,
) -> tuple[EncoderConfig, nets.Params]:
    """Reads a BERT.

    Args:
        path: a folder in the format of Hugging Face, with `config.json` and
            `model.safetensors`; None or `"minilm"` is the packaged MiniLM, `"zh_char"`
            the packaged Chinese character encoder.

    Returns:
        The sizes, and the parameters in the structure of `init_encoder`, float32
        whatever the file holds.

    Raises:
        ValueError: if the folder, a file, a field, a tensor or the library
            `safetensors` is missing, a tensor has the wrong shape or kind, or the
            network is none that `apply_encoder` computes.
    """
    folder = folders.find_folder(path)
    config = config_file.read_config(folder / "config.json")
    with _open(folder / WEIGHTS) as file:
        available = set(file.keys())
        if config.num_layers > max(100, len(available)):  # before each is named
            raise ValueError(
                f"num_hidden_layers in {folder / 'config.json'} is "
                f"{config.num_layers:,}, but {WEIGHTS} has {len(available)} tensors: "
                "take both files from one model."
            )
        names = _tensor_names(config)
        prefix = "bert." if names["embeddings", "word"] not in available else ""

        def read(path, leaf):
            name = _find(names[_keys(path)], prefix, available, folder)
            tensor = _tensor(file, name, folder)
            return jnp.asarray(_checked(name, tensor, path, leaf.shape, folder))

        return config, jax.tree_util.tree_map_with_path(read, _shapes(config))


def save_encoder(
    folder: str | os.PathLike,
    config: EncoderConfig,
    params: nets.Params,
    *,
    dtype: str = "float16",
    extra_tensors: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | CharVocabulary | None = None,
) -> None:
    """Writes a BERT so that `load_encoder` and `transformers` read it.

    Args:
        folder: where; made if it is missing. Its files of these names are replaced.
        config: the sizes.
        params: in the structure of `init_encoder`.
        dtype: of the stored tensors: float16, bfloat16, float32 or float64.
        extra_tensors: more tensors by name, such as an output layer; of the same dtype
            if they are floating-point.
        tokenizer: the tokenizer to write beside it; None writes none.

    Raises:
        ValueError: if `params` does not fit `config`, a value is too large for `dtype`,
            an extra tensor has the name of one of the encoder, or the library
            `safetensors` is missing.
    """
    if dtype not in _FLOAT_KINDS:
        raise ValueError(f"dtype must be one of {', '.join(_FLOAT_KINDS)}: {dtype!r}.")
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise folders.missing_library("safetensors") from error
    tensors = encoder_tensors(config, params)
    for name, tensor in (extra_tensors or {}).items():
        if name in tensors:
            raise ValueError(f"extra_tensors holds {name!r}, a tensor of the encoder.")
        tensors[name] = np.asarray(tensor)
    tensors = {name: _cast(name, x, dtype) for name, x in tensors.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{WEIGHTS}.partial", metadata={"format": "pt"})
    (folder / f"{WEIGHTS}.partial").replace(folder / WEIGHTS)
    pad_id = tokenizer.pad_id if isinstance(tokenizer, Tokenizer) else 0
    config_file.write_config(folder / "config.json", config, pad_id=pad_id)
    if isinstance(tokenizer, Tokenizer):
        text = tokenizer.backend.to_str(pretty=False)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        settings = {"pad_token": tokenizer.backend.id_to_token(pad_id)}
        text = json.dumps(settings, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    elif tokenizer is not None:
        save_char_tokenizer(folder, tokenizer)


def encoder_tensors(
    config: EncoderConfig, params: nets.Params
) -> dict[str, np.ndarray]:
    """The parameters under the names, and in the layout, of Hugging Face.

    Args:
        config: the sizes.
        params: in the structure of `init_encoder`.

    Returns:
        Arrays by name, in the dtypes of the parameters.

    Raises:
        ValueError: if `params` does not fit `config`.
    """
    expected = jax.tree.map(lambda leaf: leaf.shape, _shapes(config))
    found = jax.tree.map(jnp.shape, params)
    if found != expected:
        raise ValueError(
            "params does not fit config: its structure or a shape differs from "
            f"init_encoder(config, key). Expected {expected}, got {found}."
        )
    names = _tensor_names(config)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        names[_keys(path)]: np.ascontiguousarray(_transposed(path, np.asarray(leaf)))
        for path, leaf in leaves
    }


def _shapes(config: EncoderConfig) -> Any:
    return jax.eval_shape(lambda key: init_encoder(config, key), jax.random.key(0))


def _keys(path: Any) -> tuple:
    return tuple(entry.key for entry in path)


def _transposed(path: Any, tensor: np.ndarray) -> np.ndarray:
    return tensor.T if path[-1].key == "kernel" else tensor


def _tensor_names(config: EncoderConfig) -> dict[tuple, str]:
    """The published name of each parameter, by the keys that lead to it."""
    names: dict[tuple, str] = {
        ("embeddings", k): f"embeddings.{v}"
        for k, v in _EMBEDDINGS.items()
        if not (config.is_rotary and k == "position")
    }
    modules: dict[tuple, str] = {("embeddings", "norm"): "embeddings.LayerNorm"}
    if config.norm_first:
        modules["norm",] = "encoder.LayerNorm"
    for i in range(config.num_layers):
        for key, module in _MODULES.items():
            modules["layer", i, key] = f"encoder.layer.{i}.{module}"
    for keys, module in modules.items():
        for leaf, published in _LEAVES.items():
            names[*keys, leaf] = f"{module}.{published}"
    return names


def _find(name: str, prefix: str, available: set[str], folder: Path) -> str:
    """The name a tensor has in the file: norms had other names once."""
    wanted = prefix + name
    for new, old in _OLD_LEAVES.items():
        if wanted not in available and name.endswith(new):
            wanted = prefix + name.removesuffix(new) + old
    if wanted in available:
        return wanted
    start = ", ".join(sorted(available)[:3])
    raise ValueError(
        f"tensor {prefix + name!r} is missing in {folder / WEIGHTS}, which has "
        f"{len(available)} tensors ({start}, ...). Is num_hidden_layers in config.json "
        "right, and is it the file of a BERT?"
    )


def _tensor(file: Any, name: str, folder: Path) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except Exception as error:  # of a dtype that numpy has not, or out of the file
        raise ValueError(
            f"tensor {name!r} in {folder / WEIGHTS} cannot be read: {error}."
        ) from error


def _checked(
    name: str, tensor: np.ndarray, path: Any, shape: tuple[int, ...], folder: Path
) -> np.ndarray:
    """A tensor as float32 in our layout, or an error that names it."""
    if tensor.dtype.name not in _FLOAT_KINDS:
        raise ValueError(
            f"tensor {name!r} in {folder / WEIGHTS} is {tensor.dtype}; expected one of "
            f"{', '.join(_FLOAT_KINDS)}. Quantised weights must be expanded first."
        )
    expected = shape[::-1] if path[-1].key == "kernel" else shape
    if tensor.shape != expected:
        raise ValueError(
            f"tensor {name!r} in {folder / WEIGHTS} has shape {list(tensor.shape)}, "
            f"expected {list(expected)} from config.json: correct the sizes there, or "
            "take both files from one model."
        )
    return _transposed(path, tensor.astype(np.float32))


def _cast(name: str, tensor: np.ndarray, dtype: str) -> np.ndarray:
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return np.ascontiguousarray(tensor)
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(tensor, dtype=jnp.dtype(dtype))
    if not np.array_equal(np.isfinite(cast), np.isfinite(tensor)):
        raise ValueError(
            f"tensor {name!r} has values too large for {dtype}; store it in float32."
        )
    return cast


def _open(file: Path) -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise folders.missing_library("safetensors") from error
    if not file.exists():
        others = [f.name for f in file.parent.glob("*model*") if f.is_file()]
        raise ValueError(
            f"{WEIGHTS} is missing in {file.parent}"
            f"{' (there is ' + ', '.join(sorted(others)) + ')' if others else ''}. "
            "Weights in another format or in several files: load them with "
            "transformers and save_pretrained(folder, max_shard_size='100GB')."
        )
    try:
        return safetensors.safe_open(file, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is damaged or no safetensors file: {error}. Copy it again."
        ) from error
