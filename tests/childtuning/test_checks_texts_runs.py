"""Every arm of the comparisons trains, with the mask of its own labelled rows."""

import jax
import numpy as np
import pytest
import tiny_texts

from childtuning import checks_texts
from expkit import finetuning_runs

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, pytestconfig):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"))
    reference = f"{pytestconfig.rootpath}/configs/childtuning/reviews.py:smoke"
    return finetuning_runs.Lab(tiny_texts.load(reference, folder))


@pytest.mark.slow
def test_the_mask_is_that_of_the_labelled_rows_of_the_seed(lab):
    config = checks_texts.arm_config(lab, "d_paper")
    masks = [checks_texts.make_mask(lab, config, seed) for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, masks[0], masks[1])
    layers = [jax.tree.leaves(mask["encoder"]["layer"]) for mask in masks]
    assert any((a != b).any() for a, b in zip(layers[0], layers[2], strict=True))
    size = sum(leaf.size for leaf in layers[0])
    kept = sum(int(leaf.sum()) for leaf in layers[0])
    assert kept == round(config.reserve_p * size)


@pytest.mark.slow
@pytest.mark.parametrize("arm", checks_texts.ARMS)
def test_an_arm_trains(lab, arm):
    run = checks_texts.compile_arm(lab, arm)
    first, again, other = (run({"learning_rate": 0.01}, seed=s) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [params["head"]["kernel"] for params in (first, other)]
    assert np.isfinite(kernels).all()
    assert (kernels[0] != kernels[1]).any()
    if arm.startswith("d_"):  # biases have no decay: masked, they stay
        config = checks_texts.arm_config(lab, arm)
        mask = checks_texts.make_mask(lab, config, 0)["encoder"]["layer"]
        before, after = (p["encoder"]["layer"] for p in (lab.initial(0), first))
        for keep, a, b in zip(
            *map(jax.tree.leaves, (mask, before, after)), strict=True
        ):
            if keep.ndim == 1:
                assert not ((a != b) & ~keep).any()
