"""Encoders on disk: read, written, refused; against transformers where it is."""

import builtins
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_encoder import random_params

from expkit import text
from expkit.testing.comparison import assert_trees_equal

safetensors_numpy = pytest.importorskip("safetensors.numpy")

CONFIG = text.EncoderConfig(
    vocab_size=20,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    intermediate_size=12,
    max_positions=10,
    hidden_dropout=0.2,
    layer_norm_eps=1e-6,
    activation="relu",
)


@pytest.fixture(scope="module")
def params():
    # Sixteenths are exact in every dtype.
    return random_params(CONFIG, draw=lambda rng, n: rng.integers(-16, 16, n) / 16)


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    text.save_encoder(folder, CONFIG, params)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path, dirs_exist_ok=True)


def rewrite(folder, change, **fields):
    """Passes the tensors through `change` and sets fields; None removes one."""
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    safetensors_numpy.save_file(change(tensors), folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text()) | fields
    content = {k: v for k, v in content.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_written_is_read_back(params, tmp_path, dtype):
    text.save_encoder(tmp_path / "new" / "folder", CONFIG, params, dtype=dtype)
    config, read = text.load_encoder(tmp_path / "new" / "folder")
    assert config == CONFIG
    assert_trees_equal(read, params, "parameters")
    assert {leaf.dtype for leaf in jax.tree.leaves(read)} == {jnp.float32.dtype}


def test_published_kernels_are_transposed(params, folder):
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    name = "encoder.layer.1.intermediate.dense.weight"
    expected = np.asarray(params["layer"][1]["expand"]["kernel"]).T
    assert expected.shape == (12, 8)
    np.testing.assert_array_equal(tensors[name], expected)
    assert len(tensors) == len(jax.tree.leaves(params))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {f"bert.{k}": v for k, v in t.items()},
        lambda t: t | {"pooler.dense.weight": np.ones((3, 3), np.float32)},
        lambda t: t | {"embeddings.position_ids": np.arange(10)[None]},
        lambda t: (
            {f"bert.{k}": v for k, v in t.items()}
            | {"cls.predictions.bias": np.ones(20, np.float32)}
        ),
        lambda t: {
            k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): v
            for k, v in t.items()
        },
    ],
    ids=["prefix", "pooler", "positions", "heads", "old-names"],
)
def test_prefix_old_names_and_other_tensors_change_nothing(params, folder, change):
    rewrite(folder, change)
    assert_trees_equal(text.load_encoder(folder)[1], params, "parameters")


def test_fields_with_a_default_may_be_missing(folder):
    missing = ("type_vocab_size", "hidden_dropout_prob", "model_type")
    rewrite(folder, dict, **dict.fromkeys(missing))
    assert text.load_encoder(folder)[0].hidden_dropout == 0.1


def test_tokenizers_are_written_beside_the_weights(params, tmp_path):
    vocabulary = text.CharVocabulary(tuple("abc"))
    text.save_encoder(tmp_path, CONFIG, params, tokenizer=vocabulary)
    tokenizer = text.load_tokenizer(tmp_path)
    assert tokenizer.token_ids(["cab?"], max_length=9) == [[5, 3, 4, 2]]
    text.save_encoder(tmp_path / "copy", CONFIG, params, tokenizer=tokenizer)
    copy = text.load_tokenizer(tmp_path / "copy")
    assert copy.token_ids(["cab?"], max_length=9) == [[5, 3, 4, 2]]


def test_extra_tensors_are_stored_in_the_dtype(params, tmp_path):
    extra = {"head.bias": np.ones(3, np.float32), "steps": np.array([7])}
    text.save_encoder(tmp_path, CONFIG, params, extra_tensors=extra)
    tensors = safetensors_numpy.load_file(tmp_path / "model.safetensors")
    assert tensors["head.bias"].dtype == np.float16
    assert tensors["steps"].tolist() == [7]
    text.load_encoder(tmp_path)


def test_transformers_reads_what_is_written(params, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    text.save_encoder(tmp_path, CONFIG, params, dtype="float32")
    model, report = transformers.BertModel.from_pretrained(
        tmp_path, add_pooling_layer=False, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = np.random.default_rng(0).integers(0, 20, (3, 10))
    mask = np.arange(10) < np.array([[10], [4], [1]])
    with torch.no_grad():
        expected = model.eval()(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state.numpy()
    got = text.apply_encoder(CONFIG, params, ids, mask)
    np.testing.assert_allclose(got[mask], expected[mask], atol=2e-6)


def drop(name):
    return lambda t: {k: v for k, v in t.items() if k != name}


def cut(name):
    return lambda t: t | {name: np.ascontiguousarray(t[name][:-1])}


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        (
            drop("encoder.layer.1.output.dense.bias"),
            {},
            r"'encoder\.layer\.1\.output\.dense\.bias' is missing in .*num_hidden",
        ),
        (
            dict,
            {"num_hidden_layers": 10**9},
            "1,000,000,000, but model.safetensors has",
        ),
        (dict, {"num_hidden_layers": 3}, r"'encoder\.layer\.2\..*' is missing"),
        (
            cut("encoder.layer.0.intermediate.dense.weight"),
            {},
            r"'encoder\.layer\.0\.intermediate\.dense\.weight'.*has shape "
            r"\[11, 8\], expected \[12, 8\] from config\.json",
        ),
        (dict, {"vocab_size": 21}, r"\[20, 8\], expected \[21, 8\]"),
        (
            lambda t: {k: v.astype(np.int8) for k, v in t.items()},
            {},
            "is int8; expected one of float16",
        ),
        (lambda t: {"a": t["embeddings.LayerNorm.bias"]}, {}, r"1 tensors \(a, \.\.\."),
        (dict, {"model_type": "roberta"}, "model_type .* 'roberta'; only 'bert'"),
        (dict, {"position_embedding_type": "relative_key"}, "only 'absolute'"),
        (dict, {"is_decoder": True}, "is_decoder .* only False"),
        (dict, {"hidden_act": "mish"}, "hidden_act .* 'mish'; supported are gelu"),
        (dict, {"hidden_size": None}, "hidden_size is missing in "),
        (dict, {"hidden_size": "8"}, "hidden_size in .* must be int, got '8'"),
        (dict, {"num_attention_heads": 3}, "hidden_size=8 does not divide .*heads=3"),
        (dict, {"hidden_dropout_prob": 1}, r"hidden_dropout must be in \[0, 1\)"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, change, fields, message):
    rewrite(folder, change, **fields)
    with pytest.raises(ValueError, match=message):
        text.load_encoder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_and_damaged_files_are_named(folder, name):
    (folder / name).write_text("{ not this")
    with pytest.raises(ValueError, match=rf"{name} (cannot be read|is damaged)"):
        text.load_encoder(folder)
    (folder / name).unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=f"{name} is missing in "):
        text.load_encoder(folder)


def test_weights_in_another_format_are_named(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"there is pytorch_model\.bin.*save_pretr"):
        text.load_encoder(folder)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda p: p["embeddings"], {}, "params does not fit config"),
        (lambda p: jax.tree.map(jnp.ravel, p), {}, "params does not fit config"),
        (lambda p: jax.tree.map(lambda x: 1e5 + x, p), {}, "too large for float16"),
        (lambda p: p, {"dtype": "int8"}, "dtype must be one of .*'int8'"),
        (
            lambda p: p,
            {"extra_tensors": {"embeddings.LayerNorm.bias": np.ones(1)}},
            "extra_tensors holds 'embeddings.LayerNorm.bias'",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    params, tmp_path, change, arguments, message
):
    with pytest.raises(ValueError, match=message):
        text.save_encoder(tmp_path / "x", CONFIG, change(params), **arguments)
    assert not (tmp_path / "x").exists()


def test_a_missing_library_is_named(monkeypatch, params, folder):
    original = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    for call in (
        lambda: text.load_encoder(folder),
        lambda: text.save_encoder(folder, CONFIG, params),
    ):
        with pytest.raises(ValueError, match="pip install safetensors"):
            call()
