"""The commands and the Python code of the Markdown files work as they are printed."""

import functools
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import checkout
import pytest
import smoke
from snippets import blocks, execute

from expkit import config as config_lib

SHELLS = ("bash", "sh", "shell", "console")
# Commands that are not ours, and need a network or change the reader's shell.
FOREIGN = ("git", "cd", "source", "export", "pip", "uv")
FOREIGN_MODULES = ("venv", "pip", "mkdocs")
PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")
# The runs that take longest, of methods that CI trains. Of these it loads the config.
LONG = (
    "--config=configs/gp_kl/code_spans.py:head=efficient",
    "--config=configs/lion/digits.py:model=vit",
    "--config=configs/lion/zh_char.py:",
    "--config=configs/rdrop/reviews.py:regularizer=none",
    "--config=configs/vmf_vae/digits.py:model=gaussian",
    "--config=configs/vmf_vae/mnist.py",
)


def commands(block: str) -> Iterator[list[str]]:
    """The commands of a shell block as words, without prompts and variables."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&;|"):
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"\$|[A-Z_]+=.*", word):
                words.append(word)


def problems(root: Path, words: list[str]) -> list[str]:
    """What is wrong with a command of the documentation; ours run in smoke form."""
    program, *rest = words
    if PYTHON.fullmatch(program) and rest[:1] == ["-m"]:
        return _module_problems(root, rest[1], rest[2:])
    if program == "./reproduce.sh":
        packages = checkout.paper_packages(root)
        rest = [word for word in rest if word != "--setup"]
        return _flag_problems(_help("expkit.reproduce"), rest, packages)
    if program == "./test.sh":
        return _flag_problems(_help("pytest"), rest, checkout.files(root))
    if program in FOREIGN:
        return _extra_problems(root, rest) if "install" in rest else []
    return [] if (root / program).is_file() else [f"unknown command {program!r}"]


def _module_problems(root: Path, module: str, words: list[str]) -> list[str]:
    package, _, name = module.rpartition(".")
    if package in checkout.paper_packages(root) and name == "main":
        return _run_problems(root, package, words)
    if (root / f"{module.replace('.', '/')}.py").is_file():
        return _flag_problems(_help(module), words, None)
    return [] if module in FOREIGN_MODULES else [f"unknown module {module!r}"]


def _run_problems(root: Path, package: str, words: list[str]) -> list[str]:
    """Runs `python -m package.main` with these words for two steps."""
    text = "\n".join(words)
    flags = dict(re.findall(r"^--([\w.]+)[=\n](.*)$", text, flags=re.MULTILINE))
    rest = re.sub(r"^--[\w.]+[=\n].*$", "", text, flags=re.MULTILINE).split()
    unknown = [f for f in flags if not re.fullmatch(r"config(\.\w+)?|workdir", f)]
    found = [f"unknown argument {word!r}" for word in rest + unknown]
    if "workdir" not in flags:
        found.append("no --workdir")
    reference = flags.get("config") or main_arguments(package)["default_config"]
    fields = [f"{f[7:]}={v}" for f, v in flags.items() if f.startswith("config.")]
    if fields:
        path, _, arg = reference.partition(":")
        reference = f"{path}:{','.join([*filter(None, [arg]), *fields])}"
    if reference.startswith("configs/") and (root / reference).is_file():
        return found  # runs in tests/test_repository_configs.py, as every config does
    try:
        return found + smoke.problems_of(root, package, reference)
    except config_lib.ConfigError as error:
        return [*found, str(error)]


def _flag_problems(text: str, words: list[str], known) -> list[str]:
    """Flags that a help text does not have, and other words that are not known."""
    found, is_value = [], False
    for word in words:
        flag, has_value, _ = word.partition("=")
        pattern = rf"(?<![\w-]){re.escape(flag)}"
        if word.startswith("-"):
            if not re.search(rf"{pattern}(?![\w-])", text):
                found.append(f"unknown flag {flag!r}")
            is_value = not has_value and bool(re.search(rf"{pattern}[ =][A-Z]", text))
        elif is_value:
            is_value = False
        elif known is not None and word not in map(str, known):
            found.append(f"unknown argument {word!r}")
    return found


def _extra_problems(root: Path, words: list[str]) -> list[str]:
    """Extras of a local install that setup.cfg does not have."""
    extras = checkout.setup_cfg(root)["options.extras_require"]
    named = re.findall(r"\[([\w,-]+)\]", " ".join(words))
    return [
        f"unknown extra {name!r}"
        for names in named
        for name in names.split(",")
        if name not in extras
    ]


@functools.cache
def _help(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main_arguments(package: str) -> dict:
    """How `python -m package.main` calls `expkit.app.main`."""
    with mock.patch("expkit.app.main") as main:
        runpy.run_module(f"{package}.main", run_name="__main__")
    (run,) = main.call_args.args
    return {"run": run, **main.call_args.kwargs}


def main_problems(root: Path, package: str) -> Iterator[str]:
    """What is wrong with what `main.py` tells the command line."""
    arguments = main_arguments(package)
    if arguments["run"].__module__ != f"{package}.train":
        yield f"{package}.main runs {arguments['run'].__module__}"
    if arguments["name"] != f"{package}.main":
        yield f"{package}.main calls itself {arguments['name']}"
    if not (root / arguments["default_config"]).is_file():
        yield f"{package}.main has no default config {arguments['default_config']}"


def documented_commands(root: Path) -> dict[str, list[str]]:
    """The different commands in the Markdown files, by the first place they have."""
    found = {}
    for file in checkout.files(root):
        if file.suffix == ".md":
            text = (root / file).read_text(encoding="utf-8")
            listed = [w for block in blocks(text, *SHELLS) for w in commands(block)]
            for number, words in enumerate(listed, start=1):
                if words not in found.values():
                    found[f"{file}-{number}"] = words
    return found


def is_long(words: list[str]) -> bool:
    """Whether a command is left to the slow tests."""
    return any(word.startswith(LONG) for word in words)


def pytest_generate_tests(metafunc):
    if "readme" in metafunc.fixturenames:
        files = checkout.files(metafunc.config.rootpath)
        readmes = [f for f in files if f.name == "README.md"]
        metafunc.parametrize("readme", readmes, ids=map(str, readmes))
    if not {"words", "long_words"} & set(metafunc.fixturenames):
        return
    found = documented_commands(metafunc.config.rootpath)
    if "words" in metafunc.fixturenames:
        slow = {True: pytest.mark.slow, False: ()}
        cases = [pytest.param(w, marks=slow[is_long(w)]) for w in found.values()]
        metafunc.parametrize("words", cases, ids=found.keys())
    if "long_words" in metafunc.fixturenames:
        kept = {name: words for name, words in found.items() if is_long(words)}
        assert len(kept) == len(LONG)
        metafunc.parametrize("long_words", kept.values(), ids=kept.keys())


def test_command_works_as_printed(repository_root, words, monkeypatch):
    monkeypatch.chdir(repository_root)
    assert problems(repository_root, words) == [], shlex.join(words)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ([], None),
        (["--config.sed=1"], "no field 'sed'"),
        (["--config.num_steps=x"], "num_steps"),
    ],
)
def test_a_long_command_has_a_config_that_loads(
    repository_root, long_words, monkeypatch, change, problem
):
    def load(root, package, reference):
        config = smoke.load(root, reference)
        return [] if config.num_steps == smoke.STEPS else ["trains for longer"]

    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(smoke, "problems_of", load)
    found = problems(repository_root, long_words + change)
    assert problem in " ".join(found) if problem else found == []


def test_python_blocks_of_a_readme_run(repository_root, readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute((repository_root / readme).read_text(encoding="utf-8"))


def test_mains_hand_over_to_their_train_module(repository_root):
    papers = checkout.paper_packages(repository_root)
    assert [p for paper in papers for p in main_problems(repository_root, paper)] == []


def test_blocks_and_commands_are_extracted():
    text = (
        "`x`\n```\na\n```\n ```bash\n b c\n ```\n```python\nd = 1\n```\n```sh\ne\n```"
    )
    assert blocks(text, *SHELLS) == [" b c\n", "e\n"]
    assert blocks(text, "python") == ["d = 1\n"]
    block = "$ cd x && A=1 B=c python -m d \\\n  --e='f g'  # h\n\n# i\nj; k | l\n"
    assert list(commands(block)) == [
        ["cd", "x"],
        ["python", "-m", "d", "--e=f g"],
        ["j"],
        ["k"],
        ["l"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        "git clone https://example.org/x",
        "pip install -e '.[experiments,test]'",
        ".venv/bin/python -m pip install .",
        "./test.sh -m slow -x tests/conftest.py --durations=3",
        "./reproduce.sh lion --full --out DIR --out=DIR",
        "./reproduce.sh --setup",
        "python -m expkit.reproduce --only lion.memory",
        "python3 -m lion.main --workdir out/x --config.learning_rate 0.1",
        "python -m lion.main --config=configs/lion/digits.py:seed=1 --workdir=W",
    ],
)
def test_a_good_command_passes(repository_root, monkeypatch, command):
    monkeypatch.chdir(repository_root)
    assert problems(repository_root, shlex.split(command)) == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("rm -rf out", "unknown command 'rm'"),
        ("./absent.sh", "unknown command './absent.sh'"),
        ("pip install '.[experimental]'", "unknown extra 'experimental'"),
        ("python -m lion.absent", "unknown module 'lion.absent'"),
        ("./reproduce.sh loin", "unknown argument 'loin'"),
        ("./reproduce.sh --ful", "unknown flag '--ful'"),
        ("./reproduce.sh --full lion.memory", "unknown argument 'lion.memory'"),
        ("./test.sh --no-such-flag", "unknown flag '--no-such-flag'"),
        ("./test.sh tests/absent.py", "unknown argument 'tests/absent.py'"),
        ("python -m expkit.reproduce --fast", "unknown flag '--fast'"),
        ("python -m lion.main", "no --workdir"),
        ("python -m lion.main --workdir=W --sed=1", "unknown argument 'sed'"),
        ("python -m lion.main --workdir=W now", "unknown argument 'now'"),
        ("python -m lion.main --workdir=W --config=no.py", "not found"),
        ("python -m lion.main --workdir=W --config.sed=1", "no field 'sed'"),
        ("python -m lion.main --workdir=W --config.optimizer=x", "ConfigError"),
    ],
)
def test_a_broken_command_is_found(repository_root, monkeypatch, command, problem):
    monkeypatch.chdir(repository_root)
    found = problems(repository_root, shlex.split(command))
    assert len(found) == 1
    assert problem in found[0]


def test_a_broken_python_block_is_found():
    execute("```python\nx = 1\n```\n```python\nassert x == 1\n```")
    with pytest.raises(NameError):
        execute("```python\ny\n```")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        ("train.run", "train.other", "planted.main runs json"),
        ("'planted.main'", "'lion.main'", "planted.main calls itself lion.main"),
        ("c.py", "d.py", "planted.main has no default config d.py"),
    ],
)
def test_a_wrong_main_is_found(tmp_path, monkeypatch, old, new, problem):
    call = "app.main(train.run, name='planted.main', default_config='c.py')"
    main = f"from expkit import app\nfrom planted import train\n{call}\n"
    tree = {
        "planted/train.py": "from json import dump as other\ndef run(): ...",
        "c.py": "",
    }
    checkout.plant(tmp_path, tree | {"planted/main.py": main.replace(old, new)})
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("planted", "planted.train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = list(main_problems(tmp_path, "planted"))
    assert len(found) == bool(problem)
    assert (problem or "") in " ".join(found)
