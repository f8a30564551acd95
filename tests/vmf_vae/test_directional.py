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


@LAWS
def test_a_batch_has_the_figures_of_its_elements(law):
    """Where no two axes have one length, and the axes of a matrix are not the batch."""
    mu = np.random.default_rng(0).standard_normal((2, 5))
    mu = np.float32(mu / np.linalg.norm(mu, axis=-1, keepdims=True))
    kappa = np.float32([[0.0], [2.0], [50.0]])

    @jax.jit
    def figures(law, x):
        methods = law.entropy, law.kl_to_uniform, law.mean, law.mode, law.covariance
        return [law.log_prob(x), *(method() for method in methods)]

    batch = figures(law(mu, kappa), mu[0])
    for i, j in np.ndindex(3, 2):
        one = figures(law(mu[j], kappa[i, 0]), mu[0])
        for whole, part in zip(batch, one, strict=True):
            np.testing.assert_allclose(whole[i, j], part, rtol=3e-7, atol=1e-7)
