"""Both laws around a direction are built, refused and taken apart alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmf_vae import PowerSpherical, VonMisesFisher

LAWS = pytest.mark.parametrize("law", [VonMisesFisher, PowerSpherical])


@LAWS
def test_the_leaves_are_the_two_fields_by_name(law):
    mu, kappa = np.eye(3, dtype=np.float32)[:2], np.float32([1.0, 2.0])
    leaves, structure = jax.tree.flatten_with_path(law(mu, kappa))
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert names == [".mean_direction", ".concentration"]
    np.testing.assert_array_equal(leaves[0][1], mu)
    np.testing.assert_array_equal(leaves[1][1], kappa)
    again = structure.unflatten(["no", "array"])
    assert type(again) is law
    assert (again.mean_direction, again.concentration) == ("no", "array")


@LAWS
@pytest.mark.parametrize(
    ("mu", "kappa", "message"),
    [
        ([0.0, 2.0], 1.0, "mean_direction must have unit norm, got norm 2"),
        ([0.0, 1.0], -1.0, "concentration must be at least 0, got -1"),
        (np.eye(3), np.ones(2), r"must broadcast, got shapes \(3, 3\) and \(2,\)"),
    ],
)
def test_what_is_no_law_is_refused(law, mu, kappa, message):
    with pytest.raises(ValueError, match=message):
        law(jnp.asarray(mu), kappa)
