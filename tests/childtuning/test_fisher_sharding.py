"""Fisher information of batches whose leaves lie over the devices in several ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import childtuning

ROWS, ALL = PartitionSpec("data"), PartitionSpec(("data", "model"))
NOWHERE = PartitionSpec(None)


@pytest.mark.parametrize("specs", [(ROWS, ALL), (ROWS, ROWS), (ROWS, NOWHERE)])
def test_how_the_leaves_lie_changes_nothing(specs):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(8, 3)), rng.normal(size=8), rng.normal(size=3)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    batch = tuple(
        jax.device_put(jnp.asarray(leaf, jnp.float32), NamedSharding(mesh, spec))
        for leaf, spec in zip((x, y), specs, strict=True)
    )
    params = jax.device_put(jnp.asarray(w, jnp.float32), NamedSharding(mesh, NOWHERE))
    got = childtuning.fisher_information(
        lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2), params, [batch]
    )
    gradients = 2 * (x @ w - y)[:, None] * x
    np.testing.assert_allclose(got, np.mean(gradients**2, axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [("data", "model"), (None, "data"), (None, "model")])
def test_parameters_may_lie_over_the_devices_too(kind, spec):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(8, 4)), rng.normal(size=(4, 4))
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    placed = NamedSharding(mesh, PartitionSpec(*spec))
    batch = jax.device_put(jnp.asarray(x, jnp.float32), NamedSharding(mesh, ROWS))
    params = jax.device_put(jnp.asarray(w, jnp.float32), placed)
    got = childtuning.fisher_information(
        lambda w, x: jnp.mean(jnp.einsum("ij,bi->b", w, x) ** 2), params, [batch]
    )
    gradients = 2 * np.einsum("ij,bi->b", w, x)[:, None, None] * x[:, :, None]
    expected = np.broadcast_to(np.mean(gradients**2, axis=0), w.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if kind == AxisType.Explicit:
        assert got.sharding.spec == placed.spec
