"""The `config.json` of an encoder, with the field names of Hugging Face.

What is no BERT, since it has rotary positions or norms in front of its layers, has a
`model_type` of its own, so that no other library takes it for one.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from expkit.text import folders
from expkit.text.encoder import ACTIVATIONS, EncoderConfig

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_token_types": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation": "hidden_act",
}
_OWN_FIELDS = {"is_rotary": "is_rotary", "norm_first": "norm_first"}
_OWN_TYPE = "expkit_encoder"
_REQUIRED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}


def read_config(file: Path) -> EncoderConfig:
    """Reads the sizes of an encoder.

    Args:
        file: path of a `config.json`.

    Returns:
        The sizes. What BERT has a default for may be missing.

    Raises:
        ValueError: if the file or a size is missing or wrong, or the network is none
            that `apply_encoder` computes.
    """
    fields = folders.read_json(file)
    is_own = fields.get("model_type") == _OWN_TYPE
    for name, value in ({} if is_own else _REQUIRED).items():
        if fields.get(name, value) != value:
            raise ValueError(
                f"{name} in {file} is {fields[name]!r:.60}; only {value!r} is "
                "supported."
            )
    if fields.get("hidden_act", "gelu") not in list(ACTIVATIONS):
        raise ValueError(
            f"hidden_act in {file} is {fields['hidden_act']!r:.60}; supported are "
            f"{', '.join(ACTIVATIONS)}."
        )
    values: dict[str, Any] = {}
    names = FIELDS | _OWN_FIELDS
    for field in dataclasses.fields(EncoderConfig):
        name = names[field.name]
        if name in fields and (is_own or name not in _OWN_FIELDS):
            values[field.name] = _checked(file, name, fields[name], field.type)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{name} is missing in {file}; every BERT has it.")
    try:
        return EncoderConfig(**values)
    except ValueError as error:
        raise ValueError(f"{file} holds sizes that no encoder has: {error}") from error


def write_config(file: Path, config: EncoderConfig, *, pad_id: int) -> None:
    """Writes the sizes of an encoder.

    Args:
        file: path of the `config.json`.
        config: the sizes.
        pad_id: id of padding.
    """
    values = dataclasses.asdict(config)
    fields = {name: values[ours] for ours, name in FIELDS.items()}
    if config.is_rotary or config.norm_first:
        fields |= {name: values[ours] for ours, name in _OWN_FIELDS.items()}
        fields |= {"model_type": _OWN_TYPE}
    else:
        fields |= {"architectures": ["BertModel"], "model_type": "bert"}
        fields |= {"position_embedding_type": "absolute"}
    fields |= {"pad_token_id": pad_id}
    text = json.dumps(dict(sorted(fields.items())), indent=2) + "\n"
    file.write_text(text, encoding="utf-8")


def _checked(file: Path, name: str, value: Any, kind: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(
            f"{name} in {file} must be {kind.__name__}, got {value!r:.60}."
        )
    return value
