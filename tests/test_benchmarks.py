"""The tables of the benchmarks are those of their files, and add up."""

import ast
import functools
import importlib.util
import json
import math
import sys

import numpy as np
import pytest
from scipy import stats


def load(root, name):
    """A script of `benchmarks/`, as a module."""
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", root / f"benchmarks/{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # scripts import their neighbours
        patch.setattr(sys, "path", [*sys.path, str(root / "benchmarks")])
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scale(repository_root):
    return load(repository_root, "scale")


def results_of(root, name):
    """What a benchmark measured on a CPU."""
    path = root / f"benchmarks/results/{name}-cpu.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(repository_root):
    return results_of(repository_root, "scale")


def test_the_readme_is_what_the_files_render_to(repository_root):
    text = (repository_root / "benchmarks/README.md").read_text(encoding="utf-8")
    assert text == load(repository_root, "render").render()


def test_eight_devices_share_the_state_that_one_holds(results):
    rows = {row["variant"]: row for row in results["tables"]["Bytes a parameter"]}
    fishers = {name for name in rows if name.startswith("Fisher")}
    assert len(fishers) == 2
    for name in rows.keys() - fishers:
        row = rows[name]
        for figure in ("state_1", "times_8"):
            assert row[figure] == pytest.approx(row["expected"], abs=1e-3), name
    in_place = [row for name, row in rows.items() if "in_place" in name]
    assert in_place
    assert all(row["beside_1"] == row["beside_8"] == 0 for row in in_place)


def test_bytes_are_those_of_the_step_that_is_compiled(scale):
    devices = scale.jax.device_count()
    make, expected = scale.OPTIMIZERS["child_tuning_d, lion bfloat16"]
    row = scale.of_optimizer(make)
    assert row["state"] == pytest.approx(expected / devices, abs=1e-3)
    assert row["beside"] < 0.01


def test_exponents_are_those_of_the_measurements(repository_root):
    results = results_of(repository_root, "growth")
    rows = results["tables"]["Growth"]
    assert len(rows) == 2 * len(results["measurements"])
    for row in rows:
        measured = results["measurements"][row["variant"]]
        values = measured["milliseconds" if row["figure"] == "time" else "bytes"]
        x, y = np.log(measured["sizes"]), np.log(values)
        fit = stats.linregress(x, y)
        assert row["exponent"] == pytest.approx(fit.slope, abs=1e-9)
        off = np.abs(y - fit.intercept - fit.slope * x).max()
        assert row["factor"] == pytest.approx(math.exp(off), rel=1e-9)


def test_the_fit_of_a_power_is_its_exponent(repository_root):
    slope = load(repository_root, "growth").slope
    sizes = np.array([1.0, 2.0, 8.0])
    assert slope(sizes, 3.0 * sizes**1.5) == pytest.approx((1.5, 1.0))
    assert slope(sizes, 3.0 + sizes**1.5)[1] > 1.1


def test_the_plan_takes_each_number_from_those_above(results):
    above: set[str] = set()
    for row in results["tables"]["1B parameters on 64 chips"]:
        nodes = ast.walk(ast.parse(row["from"].strip("`")))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert names - {"max"} <= above, row
        above.add(row["symbol"].strip("`"))


def test_the_plan_adds_up(results):
    """The same by hand: powers of two where there are some."""
    rows = results["tables"]["1B parameters on 64 chips"]
    value = {row["symbol"].strip("`"): row["value"] for row in rows}
    parameters = 240 * 2**22
    assert value["P"] == parameters
    assert value["a"] == 4 + 4 + 2 + 1 / 8
    close = pytest.approx
    assert value["A_c"] == close(81 / 8 * 240 * 2**16 / 1e9)
    assert value["M"] == close((81 / 8 * 240 * 2**16 + 48 * 2**22 + 320 * 2**20) / 1e9)
    # 63 of 64 parts, twice in bfloat16 and once in float32, at 1e8 bytes a ms.
    assert value["t_N"] == close(8 * 63 * 240 * 2**16 / 1e8)
    assert value["t_F"] == close(8 * parameters * 2**12 / 8e10)
    assert value["t"] == close(value["t_F"] + 16.25 * 240 * 2**16 / 1e9)
    assert value["S"] == close(49 / 8 * parameters / 1e9)
    shown = {row["symbol"].strip("`"): row["shown"] for row in rows}
    assert shown["P"] == "1,006,632,960"
    assert shown["S"] == f"{value['S']:.5g} GB"


FAKE = """
import json, pathlib, sys
calls = pathlib.Path(__file__).parent / "calls.txt"
calls.write_text((calls.read_text() if calls.exists() else "") + "{name} ")
{end}
pathlib.Path(sys.argv[2]).write_text(json.dumps("{name}"))
"""


@pytest.fixture
def run_all(repository_root, tmp_path, monkeypatch):
    """The command, on a folder with three benchmarks, the second of which breaks."""
    module = load(repository_root, "run_all")
    monkeypatch.setattr(module.environment, "commit", lambda root: "abc1234")
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    for name, end in {"a": "", "b": "raise ValueError('no b')", "zh_char": ""}.items():
        (folder / f"{name}.py").write_text(FAKE.format(name=name, end=end))
    (folder / "render.py").write_text("")

    def run(*names):
        status = module.main(names, root=tmp_path)
        results = sorted(path.name for path in (folder / "results").iterdir())
        return status, results, (folder / "calls.txt").read_text().split()

    return run


def test_benchmarks_go_on_where_they_stopped(run_all, capfd, tmp_path):
    assert run_all() == (1, ["a-cpu.json"], ["a", "b"])
    assert capfd.readouterr().err == "b: exit status 1: ValueError: no b\n"
    broken = tmp_path / "benchmarks/b.py"
    broken.write_text(FAKE.format(name="b", end=""))
    assert run_all() == (0, ["a-cpu.json", "b-cpu.json"], ["a", "b", "b"])
    assert "a: measured at this commit already" in capfd.readouterr().out
    status, results, calls = run_all("zh_char")
    assert (status, calls[3:]) == (0, ["zh_char"])
    assert "zh_char-cpu.json" in results


@pytest.mark.parametrize(
    ("commit", "names", "message"),
    [
        ("abc (modified)", (), "this is abc (modified); commit first"),
        (None, (), "this is None; commit first"),
        ("abc", ("c",), "no benchmark c; there are a, b, zh_char"),
    ],
)
def test_benchmarks_refuse_before_they_measure(
    run_all, monkeypatch, capsys, commit, names, message
):
    monkeypatch.setattr("expkit.environment.commit", lambda root: commit)
    with pytest.raises(SystemExit, match="2"):
        run_all(*names)
    assert message in capsys.readouterr().err


def test_rounds_go_through_all_variants_and_the_least_time_counts(
    repository_root, monkeypatch
):
    measuring = load(repository_root, "measuring")
    now, calls = [0.0], []
    spent = {"a": iter([9.0, 3.0, 2.0, 5.0]), "b": iter([0.25, 4.0, 4.5, 6.0])}

    def run(name):
        calls.append(name)
        now[0] += next(spent[name])

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    runs = {name: functools.partial(run, name) for name in spent}
    # What the first call takes (9 and 0.25) is not measured.
    assert measuring.least_seconds(runs, 3) == {"a": 2.0, "b": 4.0}
    assert calls == ["a", "b"] * 4


def test_a_file_says_how_and_where_it_was_measured(repository_root, tmp_path, capsys):
    measuring = load(repository_root, "measuring")
    out = tmp_path / "deep/x-cpu.json"
    for rounds, options in ((7, ["--rounds", "5"]), (None, [])):
        parser = measuring.parser("Speed.\n\nMore.", rounds=rounds)
        assert parser.description == "Speed."
        measuring.save(
            "elsewhere/x.py",
            parser.parse_args([*options, "--out", str(out)]),
            question="How fast?",
            notes="n",
            tables={"t": [{"variant": "v"}]},
            columns={"t": {"variant": "variant"}},
        )
        assert capsys.readouterr().out == f"{out}\n"
        content = json.loads(out.read_text(encoding="utf-8"))
        assert content.get("rounds") == (5 if rounds else None)
        described = content["environment"]
        assert described["command"] == "python benchmarks/x.py"
        assert described["device"]["platform"] == measuring.jax.default_backend()
        section = load(repository_root, "render").section(out)
        assert "## How fast?" in section
        assert "| v |" in section
