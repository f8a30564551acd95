"""Files that a run reads start no code, and name no file that is then opened.

Configs are Python, and the one exception.
"""

import ast
import json
import struct
from pathlib import Path

import fuzz_encoders
import fuzz_folders
import pytest
from fuzz_check import check_message, snapshot
from training_runs import bits

from expkit import config as config_lib
from expkit import text
from expkit.checkpoint import SEAL, CheckpointError

PACKAGES = (
    *("childtuning", "cosent", "expkit", "gp_kl"),
    *("igr", "lion", "rdrop", "vmf_vae"),
)
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch"}
CALLS = {"eval", "exec", "__import__", "run_path", "run_module", "read_pickle"}
TRUSTED = {("expkit/config.py", "run_path")}
"""The reader of configs."""


def code_from_data(source: str) -> set[str]:
    """Names of what turns bytes or strings into code in a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        found |= {name.partition(".")[0] for name in names} & MODULES
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            found |= {name} & CALLS
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found |= {"allow_pickle"} if ast.unparse(node.value) != "False" else set()
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "compile":
            found.add("compile")
    return found


def test_only_configs_are_code(repository_root):
    found = set()
    for package in PACKAGES:
        files = list((repository_root / package).rglob("*.py"))
        assert files
        for path in files:
            name = path.relative_to(repository_root).as_posix()
            found |= {(name, what) for what in code_from_data(path.read_text())}
    assert found == TRUSTED


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("import pickle as p", "pickle"),
        ("def f():\n    from pickle import loads", "pickle"),
        ("from torch import load", "torch"),
        ("import shelve, json", "shelve"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("np.load(path, allow_pickle=flag)", "allow_pickle"),
        ("x = eval(text)", "eval"),
        ("builtins.exec(text)", "exec"),
        ("run = eval", "eval"),
        ("runpy.run_path(path)", "run_path"),
        ("compile(text, '', 'exec')", "compile"),
        ("pandas.read_pickle(path)", "read_pickle"),
    ],
)
def test_code_from_data_is_found(source, what):
    assert code_from_data(source) == {what}


@pytest.mark.parametrize(
    "source",
    [
        "ast.literal_eval(text)",
        "np.load(path, allow_pickle=False)",
        "re.compile(text)",
        "model.eval_rows",
    ],
)
def test_what_reads_data_only_is_no_code(source):
    assert code_from_data(source) == set()


@pytest.fixture
def encoders(tmp_path):
    """Two encoders with other weights and words, one beside the other."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for path in (inside, outside):
        path.mkdir()
        fuzz_encoders.put(path, tokenizer=None)
    weights = (outside / fuzz_encoders.WEIGHTS).read_bytes()
    (outside / fuzz_encoders.WEIGHTS).write_bytes(weights[:-64] + b"\0" * 64)
    words = "\n".join(reversed(fuzz_encoders.WORDS))
    (outside / "vocab.txt").write_text(words + "\n", encoding="utf-8")
    return inside, outside


def contents(folder: Path) -> tuple[bytes, list]:
    """The weights and some ids of tokens."""
    tensors = text.encoder_tensors(*text.load_encoder(folder)).values()
    tokenizer = text.load_tokenizer(folder)
    rows = tokenizer.token_ids(fuzz_encoders.SENTENCES, max_length=9)
    return b"".join(tensor.tobytes() for tensor in tensors), rows


def test_an_index_of_shards_leads_nowhere(encoders):
    inside, outside = encoders
    weights = (inside / fuzz_encoders.WEIGHTS).read_bytes()
    (inside / fuzz_encoders.WEIGHTS).unlink()
    size = struct.unpack("<Q", weights[:8])[0]
    names = json.loads(weights[8 : 8 + size])
    shards = dict.fromkeys(names, str(outside / fuzz_encoders.WEIGHTS))
    index = inside / f"{fuzz_encoders.WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    with pytest.raises(ValueError, match=f"safetensors is missing in {inside}"):
        text.load_encoder(inside)


def test_paths_in_the_files_of_an_encoder_are_not_followed(encoders):
    inside, outside = encoders
    expected = contents(inside)
    for name in ("config.json", "tokenizer_config.json"):
        fields = json.loads((inside / name).read_text()) | {
            "_name_or_path": str(outside),
            "auto_map": {"AutoModel": "../outside/model.Model"},
            "tokenizer_file": "../outside/tokenizer.json",
            "vocab_file": str(outside / "vocab.txt"),
        }
        (inside / name).write_text(json.dumps(fields))
    assert contents(inside) == expected
    other = contents(outside)
    assert other[0] != expected[0]
    assert other[1] != expected[1]


def test_a_seal_that_names_files_elsewhere_matches_nothing(tmp_path):
    run = fuzz_folders.copy(tmp_path)
    (tmp_path / "beside").write_text("kept")
    seal = run / "checkpoints" / "6" / SEAL
    digests = json.loads(seal.read_text())
    seal.write_text(json.dumps(digests | {"../../../beside": "0" * 64}))
    fuzz_folders.fit(run)
    assert (run / "checkpoints" / "6.damaged").is_dir()
    assert (tmp_path / "beside").read_text() == "kept"


@pytest.mark.parametrize("content", ["", "[" * 20_000, "[]", '{"params/w": 5}'])
def test_a_foreign_checkpoint_with_a_right_seal_is_refused(tmp_path, content):
    run = fuzz_folders.copy(tmp_path)
    newest = run / "checkpoints" / "6"
    (newest / "manifest" / "metadata").write_text(content)
    fuzz_folders.seal(newest)
    with pytest.raises(CheckpointError, match="/checkpoints/6") as error:
        fuzz_folders.fit(run)
    check_message(str(error.value))


@pytest.mark.parametrize(
    "name", [".lock", "config.json", "metrics.jsonl", "checkpoints", "checkpoints/6/x"]
)
def test_a_link_out_of_the_folder_of_a_run_is_refused(tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / name).parent.mkdir(parents=True)
    outside.mkdir()
    (run / name).symlink_to(outside)
    before = snapshot(tmp_path)
    with pytest.raises(config_lib.ConfigError, match=f"{name} is a link out of it"):
        fuzz_folders.fit(run)
    assert snapshot(tmp_path) == before


def test_links_that_stay_inside_are_followed(tmp_path):
    run, link = fuzz_folders.copy(tmp_path), tmp_path / "link"
    link.symlink_to(run)
    assert bits(fuzz_folders.fit(link)) == fuzz_folders.finished()[1]


@pytest.mark.parametrize("name", [".", "checkpoints"])
def test_links_in_a_circle_are_refused(tmp_path, name):
    place = tmp_path / "run" / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place.name)
    with pytest.raises(config_lib.ConfigError, match="cannot be written"):
        fuzz_folders.fit(tmp_path / "run")
