"""Every config has the agreed fields and runs two steps in smoke form."""

import json
from pathlib import Path

import checkout
import jax
import jax.numpy as jnp
import ml_collections
import pytest
import smoke

# CI trains one of each package, and makes the step of the others. Those of `ALIKE` it
# loads: what they run is what another config runs, and what they read other tests read.
UNTRAINED = (
    "configs/igr/mnist.py",
    "configs/lion/imagenet.py",
    "configs/lion/mnist.py",
    "configs/lion/quadratic.py",
    "configs/lion/zh_char.py",
    "configs/rdrop/api_docs_pairs.py",
    "configs/vmf_vae/reviews.py",
)
ALIKE = (
    "configs/childtuning/api_docs.py",
    "configs/childtuning/glue.py",
    "configs/gp_kl/code_spans.py",
    "configs/rdrop/api_docs.py",
    "configs/rdrop/glue.py",
    "configs/vmf_vae/mnist.py",
)
# Saving what four devices hold takes seconds where there is an encoder. That is done by
# those of digits, which are small, and by one with an encoder.
ON_ONE_DEVICE = (
    "configs/childtuning/reviews.py",
    "configs/cosent/api_docs_pairs.py",
    "configs/gp_kl/code_spans.py",
    "configs/gp_kl/news_entities.py",
    "configs/rdrop/api_docs.py",
    "configs/rdrop/api_docs_pairs.py",
)


def pytest_generate_tests(metafunc):
    if "config_file" in metafunc.fixturenames:
        root = metafunc.config.rootpath
        found = sorted((root / "configs").rglob("*.py"))
        names = [file.relative_to(root).as_posix() for file in found]
        marks = {True: pytest.mark.slow, False: ()}
        slow = UNTRAINED + ALIKE
        metafunc.parametrize(
            "config_file", [pytest.param(n, marks=marks[n in slow]) for n in names]
        )


def strays(root: Path) -> list[str]:
    """Config files that belong to no package."""
    papers = checkout.paper_packages(root)
    return [
        file.relative_to(root).as_posix()
        for file in sorted((root / "configs").rglob("*.py"))
        if file.parent.parent != root / "configs" or file.parent.name not in papers
    ]


def test_configs_lie_in_the_folder_of_their_package(repository_root):
    assert strays(repository_root) == []


def test_config_runs_two_steps(repository_root, config_file):
    package = Path(config_file).parent.name
    arg = ":mesh=data:1" if config_file in ON_ONE_DEVICE else ""
    assert smoke.problems_of(repository_root, package, config_file + arg) == []


@pytest.mark.parametrize("name", UNTRAINED + ALIKE)
def test_a_config_that_is_not_run_in_ci_has_the_agreed_fields(repository_root, name):
    config = smoke.load(repository_root, name)
    assert smoke.missing_fields(config) == []
    assert config.num_steps == smoke.STEPS


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_config_that_is_not_run_in_ci_has_a_step(repository_root, name, tmp_path):
    package = Path(name).parent.name
    step, state, batch = smoke.captured_step(repository_root, package, name, tmp_path)
    after, metrics = jax.eval_shape(step, state, batch)
    assert metrics["loss"].shape == ()
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def make_config(**changes) -> ml_collections.ConfigDict:
    """A config with the agreed fields; a change to None removes one."""
    values = {
        "dataset": "digits",
        "seed": 0,
        "num_steps": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "checkpoint_every": 0,
    }
    kept = {k: v for k, v in (values | changes).items() if v is not None}
    return ml_collections.ConfigDict(kept)


def make_run(rows=({"step": 1, "loss": 0.0}, {"step": 2, "loss": 1.0}), **changes):
    """A training function that writes these rows, and a config with changes."""

    def run(config, workdir):
        folder = Path(workdir)
        values = config.to_dict() | changes
        (folder / "config.json").write_text(json.dumps(values))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
        return {"loss": rows[-1].get("loss", 0.0)} if rows else {}

    return run


def test_a_good_run_passes(tmp_path):
    assert smoke.problems(make_run(), make_config(), tmp_path) == []


def test_a_config_without_training_needs_no_weight_decay():
    config = make_config(learning_rate=None, weight_decay=None, checkpoint_every=None)
    assert smoke.missing_fields(config) == []


@pytest.mark.parametrize("field", [*smoke.FIELDS, *smoke.TRAINING_FIELDS])
def test_a_missing_field_is_found(tmp_path, field):
    found = smoke.problems(make_run(), make_config(**{field: None}), tmp_path)
    assert found == [f"config has no field {field!r}"]


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (make_run(seed=1), "config.json is not the config"),
        (make_run([{"step": 2, "loss": 1.0}]), "metrics.jsonl has the steps [2]"),
        (make_run([{"step": 1}, {"step": 2, "loss": 1.0}]), "loss of step 1 is None"),
        (
            make_run([{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("inf")}]),
            "loss of step 2 is inf",
        ),
        (make_run([]), "the result is {}"),
        (lambda config, workdir: config.absent, "stops with AttributeError"),
    ],
)
def test_a_broken_run_is_found(tmp_path, run, problem):
    assert problem in " ".join(smoke.problems(run, make_config(), tmp_path))


def test_a_config_that_trains_for_more_than_two_steps_is_found(
    repository_root, tmp_path
):
    source = (repository_root / "configs/lion/digits.py").read_text()
    assert '"num_steps": 2' in source
    changed = source.replace('"num_steps": 2', '"num_steps": 3')
    checkout.plant(tmp_path, {"digits.py": changed})
    (problem,) = smoke.problems_of(tmp_path, "lion", "digits.py")
    assert "has the steps [1, 2, 3]" in problem


def test_a_stray_config_is_found(tmp_path):
    tree = ("configs/sam/digits.py", "sam/claims.py", "sam/main.py", "configs/old/x.py")
    checkout.plant(tmp_path, dict.fromkeys(tree, ""))
    assert strays(tmp_path) == ["configs/old/x.py"]
