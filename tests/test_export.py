"""Every public function and every training step is exported ahead of time.

From a machine with a CPU alone, for all platforms at once: `jax.export` lowers, checks
that what it calls is stable, and does not compile. A serialised function needs nothing
of this repository where it runs.
"""

import subprocess
import sys
import types

import export_cases
import exports
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import smoke

import lion
import vmf_vae
from childtuning import train as childtuning_train
from cosent import train as cosent_train
from gp_kl import train as gp_kl_train
from igr import train as igr_train
from lion import train as lion_train
from rdrop import train as rdrop_train
from vmf_vae import train as vmf_vae_train

PACKAGES = ("childtuning", "cosent", "gp_kl", "igr", "lion", "rdrop", "vmf_vae")
STEPS = (
    "igr/digits.py:",
    "lion/digits.py:",
    "vmf_vae/digits.py:",
)


def other_steps(root) -> list[str]:
    """All configs, and what may be chosen in them, as far as it makes another step."""
    names = sorted((root / "configs").rglob("*.py"))
    configs = [f"{file.relative_to(root / 'configs').as_posix()}:" for file in names]
    choices = {
        "childtuning/reviews.py:method=": childtuning_train.METHODS,
        "childtuning/reviews.py:method=d,optimizer=": ("lion", "child_adamw"),
        "childtuning/reviews.py:regularizer=": childtuning_train.REGULARIZERS,
        "cosent/api_docs_pairs.py:loss=": cosent_train.LOSSES["feature"],
        "cosent/api_docs_pairs.py:model=interaction,loss=": cosent_train.LOSSES[
            "interaction"
        ],
        "gp_kl/news_entities.py:head=": gp_kl_train.HEADS,
        "gp_kl/news_entities.py:regularizer=": gp_kl_train.OBJECTIVES,
        "igr/digits.py:regularizer=": igr_train.objectives.OBJECTIVES,
        "igr/digits.py:optimizer=": igr_train.OPTIMIZERS,
        "lion/digits.py:optimizer=": lion_train.OPTIMIZERS,
        "lion/digits.py:model=": ("mlp", "cnn", "vit", "linear"),
        "lion/zh_char.py:model=": lion_train.LANGUAGE_MODELS,
        "rdrop/reviews.py:regularizer=": rdrop_train.OBJECTIVES,
        "rdrop/reviews.py:unlabelled=": rdrop_train.UNLABELLED,
        "vmf_vae/digits.py:model=": vmf_vae_train.IMAGE_MODELS,
        "vmf_vae/reviews.py:model=": vmf_vae_train.LATENTS,
    }
    chosen = [name + value for name, values in choices.items() for value in values]
    return [name for name in configs + chosen if name not in STEPS]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = [
            pytest.param(
                name, marks=pytest.mark.slow if name in export_cases.ALIKE else ()
            )
            for name in export_cases.CASES
        ]
        metafunc.parametrize("case", cases)
    if "config" in metafunc.fixturenames:
        slow = [
            pytest.param(name, marks=pytest.mark.slow)
            for name in other_steps(metafunc.config.rootpath)
        ]
        metafunc.parametrize("config", [*STEPS, *slow])


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_is_exported_or_says_why_not(package):
    named = {name.partition(" ")[0] for name in export_cases.CASES}
    of_package = {name for name in named if name.startswith(f"{package}.")}
    excused = {n for n in exports.NOT_EXPORTED if n.startswith(f"{package}.")}
    assert of_package | excused == exports.public_members(package)
    assert not of_package & excused


def test_a_new_public_function_or_method_is_found(monkeypatch):
    class Law:
        size = 3

        def sample(self):
            return self._draw()

        def _draw(self):
            return self.size

    Law.__module__ = "swa.law"
    module = types.ModuleType("swa")
    vars(module).update(Law=Law, average=len, __all__=["Law", "average"])
    monkeypatch.setitem(sys.modules, "swa", module)
    assert exports.public_members("swa") == {"swa.Law.sample", "swa.average"}


def test_a_public_function_lowers_for_every_platform(case):
    fn, args = export_cases.CASES[case]()
    fn = jax.jit(fn)  # is traced once
    # Strictly, so that `test_strict_promotion.py` need not trace it once more in CI.
    with jax.numpy_dtype_promotion("strict"):
        artifact = exports.export(fn, args)
        out = jax.eval_shape(fn, *args)
    assert artifact.platforms == ("cpu", "cuda", "rocm", "tpu")
    assert [x.shape for x in artifact.in_avals] == shapes(args)
    assert [x.shape for x in artifact.out_avals] == shapes(out)


def shapes(tree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_training_step_lowers_for_every_platform(repository_root, config, tmp_path):
    package, _, _ = config.partition("/")
    step, state, batch = smoke.captured_step(
        repository_root, package, f"configs/{config}", tmp_path
    )
    step = jax.jit(step)  # is traced once
    artifact = exports.export(step, (state, batch))
    assert artifact.platforms == ("cpu", "cuda", "rocm", "tpu")
    after, metrics = jax.eval_shape(step, state, batch)
    assert metrics["loss"].shape == ()
    assert shapes(after) == shapes(state)
    assert [x.shape for x in artifact.out_avals] == shapes((after, metrics))


def test_what_only_some_platforms_can_do_is_refused():
    matrix = export_cases.normal(3, 3)
    with pytest.raises(NotImplementedError, match="platform"):
        exports.export(jnp.linalg.eigvals, (matrix,))


def test_what_calls_this_process_is_refused():
    def on_host(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), x)

    with pytest.raises((NotImplementedError, ValueError), match="callback"):
        exports.export(on_host, (jnp.float32(1.0),))


IN_ANOTHER_PROCESS = """
import sys
import jax, jax.export
import numpy as np

folder, times = sys.argv[1], int(sys.argv[2])
with open(f"{folder}/artifact", "rb") as file:
    artifact = jax.export.deserialize(file.read())
given = np.load(f"{folder}/given.npz")
leaves = [given[f"arr_{i}"] for i in range(len(artifact.in_avals))]
for _ in range(times):
    out = artifact.call(*leaves)
    leaves = [*out, *leaves[len(out):]]
assert not {"lion", "vmf_vae", "optax"} & set(sys.modules)
np.savez(f"{folder}/got.npz", *out)
"""


def in_another_process(fn, args, folder, times=1) -> list[np.ndarray]:
    """Results of the artifact there; each call gets those of the one before first."""
    (folder / "artifact").write_bytes(exports.export(fn, args).serialize())
    np.savez(folder / "given.npz", *jax.tree.leaves(args))
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(folder), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return list(np.load(folder / "got.npz").values())


@pytest.mark.parametrize(
    "mu_dtype", [pytest.param(None, marks=pytest.mark.slow), "int8"]
)
def test_the_artifact_of_lion_takes_the_steps_of_jit(tmp_path, mu_dtype):
    optimizer = lion.lion(1e-3, weight_decay=0.1, mu_dtype=mu_dtype)
    params = {"w": export_cases.normal(40, 16), "b": export_cases.normal(3)}
    gradient = jax.tree.map(np.sin, params)

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    expected = params, optimizer.init(jax.tree.map(jnp.asarray, params))
    got = in_another_process(step, (*expected, gradient), tmp_path, times=3)
    for _ in range(3):
        expected = jax.jit(step)(*expected, gradient)
    for here, there in zip(jax.tree.leaves(expected), got, strict=True):
        np.testing.assert_array_equal(there, here)
    assert not np.array_equal(got[1], params["w"])


def test_the_artifact_of_the_sampler_draws_what_jit_draws(tmp_path):
    def draw(seed, mean_direction, concentration):
        key = jax.random.key(seed)
        return vmf_vae.sample_vmf(key, mean_direction, concentration, (50,))

    args = np.uint32(7), export_cases.DIRECTION, np.float32([3.0, 500.0])
    (got,) = in_another_process(draw, args, tmp_path)
    np.testing.assert_array_equal(got, jax.jit(draw)(*args))
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1.0, rtol=1e-6)
    # At 500 one minus the cosine is chi-square of 7 degrees / 1000, about.
    cosines = np.sum(got * export_cases.DIRECTION, axis=-1)
    assert cosines[:, 1].min() > 0.95 > cosines[:, 0].min()
