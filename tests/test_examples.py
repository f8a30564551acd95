"""Every file in `examples/` runs, is short, and does what it says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LINES = 80


@pytest.fixture(scope="module")
def run(repository_root):
    """`name -> what main() returns`."""

    def run(name):
        found = runpy.run_path(str(repository_root / f"examples/{name}.py"))
        return found["main"]()

    return run


def test_every_example_has_a_test_and_is_short(repository_root):
    tested = Path(__file__).read_text(encoding="utf-8")
    files = sorted((repository_root / "examples").glob("*.py"))
    assert len(files) >= 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert file.stem in tested, file
        assert len(text.splitlines()) < LINES, file
        assert f"python examples/{file.name}" in text, file


def test_fine_tuning_in_bfloat16_learns_within_the_mask(run, capsys):
    before, after, share, strayed = run("finetune_bfloat16")
    assert after < 0.5 * before
    assert 0.25 < share <= 0.3
    assert not strayed
    assert "bfloat16 weights moved" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["penalty_plain_jax", "penalty_nnx", "penalty_linen"])
def test_a_flooded_loss_falls_to_its_level_and_stays_above(run, name, capsys):
    values, level = run(name)
    assert values[0] > 2.0
    assert np.mean(values[-20:]) < 3 * level
    assert min(values) >= level
    assert f"level {level}" in capsys.readouterr().out


# What the next two call, the READMEs call too, and pyrefly checks the calls.
@pytest.mark.slow
def test_rdrop_on_spans_brings_the_passes_together(run, capsys):
    found = run("rdrop_on_spans")
    for losses, f1, _ in found.values():
        assert losses[-1] < 0.1 * losses[0]
        assert f1 > 0.9
    assert found[1.0][2] < 0.5 * found[0.0][2]
    assert capsys.readouterr().out.count("F1") == 2


@pytest.mark.slow
def test_the_spherical_prior_restores_better_than_the_mean_image(run, capsys):
    losses, (of_mean, of_sphere) = run("spherical_prior")
    assert np.mean(losses[-50:]) < 0.7 * losses[0]
    assert of_sphere < 0.8 * of_mean
    assert "from the sphere" in capsys.readouterr().out


def test_two_methods_work_without_expkit(repository_root):
    code = (
        "import json, runpy, sys\n"
        "found = runpy.run_path(sys.argv[1])['main']()\n"
        "houses = [name for name in sys.modules if name.startswith('expkit')]\n"
        "print(json.dumps([*found, houses]))"
    )
    file = repository_root / "examples" / "without_expkit.py"
    command = [sys.executable, "-c", code, str(file)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    losses, found, true, houses = json.loads(output.splitlines()[-1])
    assert losses[-1] < losses[0] - 5
    np.testing.assert_allclose(found, true, rtol=0.25)
    assert houses == []
