import importlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from expkit import environment


@pytest.fixture
def checkout(tmp_path):
    for name, text in {
        "lion/transform.py": "x = 1\n",
        "lion/train.py": "import numpy\nfrom childtuning import masks\n",
        "childtuning/masks.py": "import rdrop.losses\n",
        "rdrop/losses.py": "y = 2\n",
        "igr/penalty.py": "z = 3\n",
        "configs/lion/digits.py": "rate = 1e-4\n",
        "configs/igr/digits.py": "rate = 1e-3\n",
        "lion/README.md": "text\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("lion/transform.py", True),
        ("childtuning/masks.py", True),  # imported
        ("rdrop/losses.py", True),  # imported by what is imported
        ("configs/lion/digits.py", True),
        ("igr/penalty.py", False),
        ("configs/igr/digits.py", False),
        ("lion/README.md", False),
    ],
)
def test_digest_changes_with_the_code_behind_the_numbers(checkout, file, counts):
    before = environment.source_digest(checkout, "lion")
    assert before == environment.source_digest(checkout, "lion")
    (checkout / file).write_text("w = 4\n" if file.endswith("py") else "other\n")
    assert (environment.source_digest(checkout, "lion") != before) is counts


def test_digest_survives_a_file_that_does_not_parse(checkout):
    (checkout / "lion" / "transform.py").write_text("def (:\n")
    assert len(environment.source_digest(checkout, "lion")) == 16


def test_presentation_modules_exist_and_can_be_left_out(checkout):
    folder = importlib.import_module("expkit").__path__[0]
    for name in environment.PRESENTATION:
        assert (type(checkout)(folder) / name).is_file()
    with_them = environment.source_digest(checkout, "lion")
    assert with_them != environment.source_digest(checkout, "lion", presentation=False)


def test_versions_are_those_of_the_modules():
    found = environment.versions(["jax", "numpy", "no-such-distribution"])
    assert found == {"jax": jax.__version__, "numpy": np.__version__}


def test_device_is_that_of_jax_and_none_without_it(monkeypatch):
    found = environment.device()
    assert found["count"] == jax.device_count()
    assert found["platform"] == jax.default_backend()
    monkeypatch.delitem(sys.modules, "jax")
    assert environment.device() is None


def test_commit_says_when_tracked_files_differ(tmp_path):
    def git(*words):
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True)

    assert environment.commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-q", "-m", "m")
    (tmp_path / "untracked.txt").write_text("1")
    clean = environment.commit(tmp_path)
    assert clean
    assert clean.isalnum()
    (tmp_path / "a.txt").write_text("2")
    assert environment.commit(tmp_path) == f"{clean} (modified)"


def test_description_names_mode_command_and_machine_but_no_path(tmp_path):
    found = environment.describe(tmp_path, full=True, command="./reproduce.sh --full")
    assert found["mode"] == "full"
    assert found["command"] == "./reproduce.sh --full"
    assert found["cores"] >= 1
    assert found["cpu"]
    assert str(tmp_path) not in str(found)


def test_fingerprint_differs_between_quick_and_full(checkout):
    quick = environment.fingerprint(checkout, "lion", full=False)
    assert quick != environment.fingerprint(checkout, "lion", full=True)
    assert quick["versions"]["jax"] == jax.__version__
