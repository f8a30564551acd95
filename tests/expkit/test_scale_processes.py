"""Eight devices, or two processes of four: the losses of one device, in every package.

The processes talk over the loopback interface, as they would over a network.
"""

import json
import signal

import numpy as np
import pytest
import two_processes
from two_processes import CHEAP, finish, start, start_two

from expkit import metrics

RTOL = 1e-5
RESULTS = ("test_", "validation_")
COMMON = "checkpoint_every=0,evaluate_every=0,batch_size=8"
NUM_STEPS = 50
CONFIGS = {
    "childtuning": "configs/childtuning/reviews.py:smoke",
    "cosent": "configs/cosent/api_docs_pairs.py:smoke",
    "gp_kl": "configs/gp_kl/news_entities.py:smoke",
    "igr": "configs/igr/digits.py:smoke",
    "lion": "configs/lion/digits.py:smoke",
    "rdrop": "configs/rdrop/reviews.py:smoke",
    "vmf_vae": "configs/vmf_vae/digits.py:smoke",
}


def run(root, workdir, package, config, mesh, devices, processes, num_steps=NUM_STEPS):
    config = f"{config},{COMMON},num_steps={num_steps},mesh={mesh}"
    if processes == 1:
        started = [start(root, workdir, package, config, devices)]
    else:
        started = start_two(root, workdir, package, [config] * 2, devices)
    ends = finish(started)
    assert [end[0] for end in ends] == [0] * processes, ends
    # The first process prints the result; gloo prints in all of them.
    told = [any(line.startswith(RESULTS) for line in end[1].split()) for end in ends]
    assert told == [True, False][:processes]
    rows = metrics.read(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, num_steps + 1))
    result = json.loads((workdir / "result.json").read_text())
    return [row["loss"] for row in rows], result


def require_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=RTOL)
    assert found[0] != expected[0]  # or both ran on the same devices
    assert len(set(expected[0])) == len(expected[0])
    assert found[1].keys() == expected[1].keys()


@pytest.fixture(scope="module")
def one_device(repository_root, tmp_path_factory):
    """Losses and result of a package on one device; each is run once."""
    found = {}

    def of(package, config, num_steps=NUM_STEPS):
        case = package, config, num_steps
        if case not in found:
            workdir = tmp_path_factory.mktemp("one")
            found[case] = run(
                repository_root, workdir, package, config, "data", 1, 1, num_steps
            )
        return found[case]

    return of


@pytest.mark.parametrize(
    ("devices", "processes", "num_steps"),
    [
        pytest.param(8, 1, NUM_STEPS, marks=pytest.mark.slow),
        pytest.param(4, 2, NUM_STEPS, marks=pytest.mark.slow),
        (2, 2, 10),
    ],
)
def test_a_fully_sharded_run_has_the_losses_of_one_device(
    repository_root, tmp_path, one_device, devices, processes, num_steps
):
    expected = one_device("lion", CHEAP, num_steps)
    layout = "fsdp", devices, processes
    found = run(repository_root, tmp_path, "lion", CHEAP, *layout, num_steps)
    require_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("package", CONFIGS)
@pytest.mark.parametrize("mesh", ["data", "fsdp"])
@pytest.mark.parametrize(("devices", "processes"), [(8, 1), (4, 2)])
def test_every_package_has_the_losses_of_one_device(
    repository_root, tmp_path, one_device, package, mesh, devices, processes
):
    config = CONFIGS[package]
    expected = one_device(package, config)
    found = run(repository_root, tmp_path, package, config, mesh, devices, processes)
    require_same(found, expected)


@pytest.mark.slow
def test_processes_with_different_configs_are_all_refused(repository_root, tmp_path):
    configs = [f"{CHEAP},{COMMON},seed={seed}" for seed in (0, 1)]
    ends = finish(start_two(repository_root, tmp_path, "lion", configs), timeout=100)
    for status, _, err in ends:
        assert status == 2
        assert "the 2 processes have different configs" in err
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_by_both_processes(
    repository_root, tmp_path
):
    (tmp_path / "config.json").write_text('{"seed": 7}')
    config = f"{CHEAP},{COMMON}"
    ends = finish(start_two(repository_root, tmp_path, "lion", [config] * 2), 100)
    for status, _, err in ends:
        assert status == 2
        assert "holds a run with" in err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_both_resume(
    repository_root, tmp_path, victim
):
    pair = two_processes.Pair(repository_root, tmp_path)
    row = pair.meet(signal.SIGKILL, victim)
    assert row["seconds"] < 60
    if row["status"] == -signal.SIGABRT:
        assert two_processes.BY_JAX in row["line"]
    else:
        assert row["status"] == 1
        assert row["line"].endswith("if a process was lost, rerun all to resume.")
    assert not row["traceback"]
    assert not row["finished"]
    assert row["exact"]


@pytest.mark.slow
def test_one_process_goes_on_with_the_run_of_two(repository_root, tmp_path):
    pair = two_processes.Pair(repository_root, tmp_path)
    row = pair.meet(signal.SIGKILL, 1, processes_after=1)
    assert row["largest_relative_error"] < RTOL


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_signal_to_one_process_stops_both_at_the_same_step(
    repository_root, tmp_path, process
):
    pair = two_processes.Pair(repository_root, tmp_path)
    row = pair.meet(signal.SIGTERM, process)
    assert row["status"] == 128 + signal.SIGTERM
    assert "stopped at step" in row["line"]
    assert row["seconds"] < 60
    assert row["exact"]
