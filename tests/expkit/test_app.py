"""The command line: one line on stderr and status 2 for whatever cannot be used."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from unittest import mock

import jax
import pytest
import tensorstore
from absl.testing import flagsaver

from expkit import app
from expkit.checkpoint import CheckpointError
from expkit.loop import Interrupted, NonFiniteError
from expkit.signals import STOPPING
from lion import train

CONFIG = "configs/lion/digits.py"
TINY = f"--config={CONFIG}:smoke,dataset=synthetic:8x8x1:10"


@pytest.fixture
def command(monkeypatch, capsys, repository_root):
    """Runs the command in this process: `(*argv, run=...) -> (status, out, err)`."""
    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {s: signal.getsignal(s) for s in STOPPING}

    def call(*argv, run=train.run):
        monkeypatch.setattr(sys, "argv", ["lion.main", *map(str, argv)])
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as stop:
            app.main(run, name="lion.main", default_config=CONFIG)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    yield call
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def assert_refused(outcome, *parts):
    status, out, err = outcome
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("lion.main: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--bogus=1"], ["bogus"]),
        (["--wrkdir=x"], ["wrkdir"]),
        (["extra"], ["unexpected argument 'extra'"]),
        (["--config.lerning_rate=1"], ["lerning_rate", "'learning_rate'"]),
        (["--config.num_steps=1.5"], ["num_steps='1.5'", "int"]),
        (["--config.num_steps", "many"], ["num_steps='many'", "int"]),
        (["--config.seed"], ["--config.seed has no value"]),
        (["--config.data_dir"], ["--config.data_dir has no value"]),
        (["--config.=1"], ["no field ''"]),
        (["--config.num_steps=-1"], ["num_steps=-1", "1.."]),
        (["--config.num_steps=0"], ["num_steps=0", "1.."]),
        (["--config.batch_size=0"], ["batch_size=0", "1.."]),
        (["--config.seed=-1"], ["seed=-1", "0.."]),
        (["--config.seed=99999999999999999999"], ["seed=99999999999999999999"]),
        (["--config.dataset=digit"], ["'digit'", "did you mean 'digits'"]),
        (["--config.dataset="], ["''", "digits"]),
        (["--config.train_split=trian"], ["'trian'", "did you mean 'train'"]),
        (["--config.model=mpl"], ["model='mpl'", "did you mean 'mlp'"]),
        (["--config.optimizer=adam"], ["optimizer='adam'", "'adamw'"]),
        (["--config.b1=2"], ["b1", "[0, 1)", "2.0"]),
        (["--config.learning_rate=-1"], ["learning_rate", "-1.0"]),
        (["--config.hidden=(0,)"], ["hidden", "(0,)"]),
        (["--config.hidden=(-1,)"], ["hidden", "(-1,)"]),
        (["--config.hidden=(1.5,)"], ["hidden", "tuple"]),
        (["--config.dropout=1.0"], ["dropout", "[0, 1)", "1.0"]),
        (["--config.model=vit", "--config.patch_size=3"], ["patch_size=3", "8x8"]),
        (["--config.model=vit", "--config.patch_size=0"], ["patch_size", "0"]),
        (["--config.model=vit", "--config.width=7"], ["width=7"]),
        (["--config.mesh=model"], ["mesh='model'", "'data:N'"]),
        (["--config.mesh=data:99"], ["mesh='data:99'", "99"]),
    ],
)
def test_wrong_input_costs_one_line_before_anything_is_written(
    command, tmp_path, argv, parts
):
    workdir = tmp_path / "run"
    assert_refused(command(TINY, f"--workdir={workdir}", *argv), *parts)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([TINY], ["--workdir is missing"]),
        ([TINY, "--workdir="], ["--workdir is missing"]),
        ([TINY, "--workdir"], ["workdir"]),
        (["--config=nowhere.py", "--workdir=out"], ["'nowhere.py' not found"]),
        (["--config=LICENSE", "--workdir=out"], ["'LICENSE'"]),
        ([f"--config={CONFIG}:smok", "--workdir=out"], ["'smok'", "smoke"]),
        (["--workdir=out", "--config"], ["Missing value", "config"]),
    ],
)
def test_missing_or_wrong_flags_cost_one_line(command, argv, parts):
    def run(config, workdir):
        raise AssertionError("started")

    assert_refused(command(*argv, run=run), *parts)


@pytest.mark.parametrize("path", ["igr/digits", "rdrop/reviews"])
def test_a_config_without_a_field_is_refused(command, tmp_path, path):
    config = f"configs/{path}.py"
    argv = [f"--config={config}:smoke,dataset=synthetic:8x8x1:10"]
    field = {"igr/digits": "b1", "rdrop/reviews": "model"}[path]
    outcome = command(*argv, f"--workdir={tmp_path / 'run'}")
    assert_refused(outcome, f"{config!r} defines no field {field!r}; add it")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [KeyError("b1"), AttributeError("'x'"), KeyError()])
def test_another_missing_name_keeps_its_traceback(command, tmp_path, error):
    def run(config, workdir):
        raise error

    with pytest.raises(type(error)):
        command(TINY, f"--workdir={tmp_path}", run=run)


def test_an_unwritable_workdir_is_refused_before_training(command, tmp_path):
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / "run"
    assert_refused(command(TINY, f"--workdir={workdir}"), str(workdir), "written")


@pytest.mark.parametrize(
    "argv",
    [
        ["--config.num_steps=7", "--config.hidden=(3,3)"],
        ["-config.num_steps=7", "-config.hidden=(3,3)"],
        ["--config.num_steps", "7", "--config.hidden", "(3,3)"],
        ["--config.num_steps=5", "--config.hidden=3,3", "--config.num_steps=7"],
    ],
)
def test_overrides_reach_the_run_and_its_figures_are_printed_and_written(
    command, tmp_path, monkeypatch, argv
):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []

    def run(config, workdir):
        seen.append((config.num_steps, config.hidden, config.dataset, workdir))
        return {"loss": 0.123456789, "accuracy": 1.0, "gap": float("nan")}

    status, out, err = command(TINY, *argv, "--workdir=~", run=run)
    assert (status, out, err) == (0, "loss=0.123457 accuracy=1 gap=nan\n", "")
    assert seen == [(7, (3, 3), "synthetic:8x8x1:10", str(tmp_path))]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"loss": 0.123456789, "accuracy": 1.0, "gap": None}


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NonFiniteError("loss is nan at step 3"), 1, "loss is nan at step 3"),
        (CheckpointError("none\n  is intact"), 2, "none is intact"),
        (Interrupted(signal.SIGTERM, 7), 143, "stopped at step 7; rerun to resume."),
        (Interrupted(signal.SIGINT, 7), 130, "stopped at step 7; rerun to resume."),
        (Interrupted(signal.SIGHUP, 7), 129, "stopped at step 7; rerun to resume."),
    ],
)
def test_an_ending_has_its_own_status_and_one_line(
    command, tmp_path, error, status, line
):
    def run(config, workdir):
        raise error

    outcome = command(TINY, f"--workdir={tmp_path}", run=run)
    assert outcome == (status, "", f"lion.main: {line}\n")
    assert not (tmp_path / "result.json").exists()


def answer_in_a_closed_loop(error=None):
    """A future of TensorStore is ready when the loop that waits for it is gone."""
    promise, future = tensorstore.Promise.new()

    async def wait():
        with contextlib.suppress(GeneratorExit):
            await future

    loop = asyncio.new_event_loop()
    task = loop.create_task(wait())
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    if error:
        loop.call_soon_threadsafe = mock.Mock(side_effect=error)
    promise.set_result(0)


@pytest.mark.parametrize(
    ("error", "is_shown"), [(None, False), (RuntimeError("other"), True)]
)
def test_a_save_that_failed_leaves_no_traceback_from_its_threads(
    command, tmp_path, monkeypatch, error, is_shown
):
    def run(config, workdir):
        answer_in_a_closed_loop(error)
        return {}

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found))
    answer_in_a_closed_loop()  # outside of a command it is shown
    assert str(shown.pop().exc_value) == "Event loop is closed"
    assert command(TINY, f"--workdir={tmp_path}", run=run)[0] == 0
    assert len(shown) == is_shown


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nmore"),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching: Out of memory."),
        MemoryError("Out of memory"),
    ],
)
def test_too_little_memory_is_one_line(command, tmp_path, error):
    def run(config, workdir):
        raise error

    status, _, err = command(TINY, f"--workdir={tmp_path}", run=run)
    assert status == 1
    assert err.count("\n") == 1
    assert "Out of memory; rerun with a smaller model or batch_size" in err


@pytest.mark.parametrize(
    ("variables", "error", "parts"),
    [
        (
            {"JAX_PLATFORMS": "cuda"},
            AssertionError(),  # what JAX raises where there is no CUDA
            ["with JAX_PLATFORMS='cuda': AssertionError; unset", "such as cpu"],
        ),
        (
            {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "0"},
            RuntimeError("Unable to\nstart."),
            ["JAX_PLATFORMS='cpu' and JAX_NUM_CPU_DEVICES='0': Unable to start; unset"],
        ),
        ({}, RuntimeError("none"), ["with JAX_PLATFORMS not set: none; unset"]),
    ],
)
def test_a_platform_that_is_not_there_is_refused_before_the_run(
    command, tmp_path, monkeypatch, variables, error, parts
):
    def run(config, workdir):
        raise AssertionError("started")

    for name in app.DEVICE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, "devices", mock.Mock(side_effect=error))
    argv = [TINY, f"--workdir={tmp_path}"]
    assert_refused(command(*argv, run=run), *parts)
    # A wrong field is found before.
    argv.append("--config.lerning_rate=1")
    assert_refused(command(*argv, run=run), "did you mean 'learning_rate'?")


def test_a_bug_keeps_its_traceback(command, tmp_path, monkeypatch):
    def run(config, workdir):
        raise ValueError("a bug")

    monkeypatch.setattr(sys, "argv", ["lion.main", TINY, f"--workdir={tmp_path}"])
    with flagsaver.flagsaver(), pytest.raises(ValueError, match="a bug"):
        app.main(run, name="lion.main", default_config=CONFIG)


def test_a_rerun_with_another_config_is_refused_and_leaves_the_run_alone(
    command, tmp_path
):
    argv = [TINY, f"--workdir={tmp_path}", "--config.mesh=data:1"]
    assert command(*argv)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert_refused(command(*argv, "--config.weight_decay=0.5"), "weight_decay=10.0")
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.fixture(scope="module")
def processes(tmp_path_factory, repository_root):
    """Real commands, run side by side: `name -> (status, out, err, workdir)`."""
    commands = {
        "smoke": [TINY],
        "help": ["--help"],
        "no platform": [TINY],
    }
    started = {}
    for name, argv in commands.items():
        workdir = tmp_path_factory.mktemp("process") / "run"
        argv = [sys.executable, "-m", "lion.main", f"--workdir={workdir}", *argv]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        is_bogus = name == "no platform"
        env = os.environ | ({"JAX_PLATFORMS": "bogus"} if is_bogus else {})
        process = subprocess.Popen(argv, cwd=repository_root, env=env, **pipes)
        started[name] = process, workdir
    return {
        name: (process.communicate(timeout=100), process.returncode, workdir)
        for name, (process, workdir) in started.items()
    }


def test_the_command_trains_and_says_what_came_out(processes):
    (out, err), status, workdir = processes["smoke"]
    assert status == 0, err
    result = json.loads((workdir / "result.json").read_text())
    assert out == " ".join(f"{k}={v:.6g}" for k, v in result.items()) + "\n"
    assert {"config.json", "metrics.jsonl", "result.json"} < {
        path.name for path in workdir.iterdir()
    }
    assert "Traceback" not in err


def test_the_command_refuses_a_platform_that_nobody_knows(processes):
    (out, err), status, workdir = processes["no platform"]
    part = "JAX finds no devices with JAX_PLATFORMS='bogus': "
    assert_refused((status, out, err), part)
    assert not workdir.exists()


def test_help_documents_both_flags(processes):
    (out, err), status, workdir = processes["help"]
    assert status in (0, 1)
    text = out + err
    for part in ("--config:", "--workdir:", "smoke", "field=value", "resumes"):
        assert part in text
    assert "Traceback" not in text
    assert not workdir.exists()


def test_the_command_says_how_to_install_the_experiments(repository_root):
    code = "import sys; sys.modules['ml_collections'] = None; import lion.main"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository_root)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "'ml_collections' is not installed" in done.stderr
    assert "pip install '.[experiments]'" in done.stderr
