"""Settings that every test runs under: see the comments for what each one catches."""

import os

# Before jax starts: sharding bugs need more than one device to show.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

# A silent broadcast of [n] against [n, 1] is a wrong loss, not a convenience.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Grain reads absl flags, which pytest never parses.
flags.FLAGS.mark_as_parsed()

OUR_PACKAGES = (
    "childtuning",
    "cosent",
    "expkit",
    "gp_kl",
    "igr",
    "lion",
    "rdrop",
    "vmf_vae",
)


def pytest_configure(config):
    for package in OUR_PACKAGES:
        config.addinivalue_line("filterwarnings", rf"error:::{package}(\.|$)")


@pytest.fixture(scope="session", autouse=True)
def prepared_data(tmp_path_factory):
    """Prepares data sets in a folder of this run, not in the home folder."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # one folder for all workers: preparing takes long
    folder = base / "prepared"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def repository_root(pytestconfig):
    """The checkout the tests run in."""
    return pytestconfig.rootpath
