"""Every arm of the comparisons trains, and a gap and a cost are measured."""

import jax
import numpy as np
import pytest
import tiny_texts

from expkit import claims, finetuning_runs
from expkit import study as study_lib
from rdrop import checks_cost, checks_runs, checks_texts

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, pytestconfig):
    folder = tiny_texts.write(tmp_path_factory.mktemp("texts"))
    reference = f"{pytestconfig.rootpath}/configs/rdrop/reviews.py:smoke"
    return finetuning_runs.Lab(tiny_texts.load(reference, folder))


@pytest.mark.slow
@pytest.mark.parametrize("arm", checks_runs.NAMES)
def test_an_arm_trains_and_its_strength_matters(lab, arm):
    run = checks_runs.compile_arm(lab, arm)
    settings = {"learning_rate": 0.01}
    if arm == "none":
        assert np.isfinite(lab.evaluate(run(settings, seed=0), "test")["test_loss"])
        return
    weak, strong = (run(settings | {"strength": s}, seed=0) for s in (0.0, 5.0))
    kernels = [params["head"]["kernel"] for params in (weak, strong)]
    assert np.isfinite(kernels).all()
    assert (kernels[0] != kernels[1]).any()


@pytest.mark.slow
def test_strength_0_of_an_unlabelled_arm_is_no_regulariser(lab):
    plain = checks_runs.compile_arm(lab, "none")({"learning_rate": 0.01}, seed=0)
    for arm, name in (("semi_rdrop", "unlabelled_strength"), ("semi_vat", "radius")):
        settings = {"learning_rate": 0.01, name: 0.0}
        params = checks_runs.compile_arm(lab, arm)(settings, seed=0)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, plain
        )


@pytest.mark.slow
def test_gap_and_cost_of_a_tiny_model_are_numbers(lab, tmp_path, monkeypatch):
    context = claims.Context(tmp_path)
    study = study_lib.Study(
        context,
        lab.config,
        checks_runs.compile_arm,
        {"none": {"learning_rate": (0.01,)}, "rdrop": {"learning_rate": (0.01,)}},
        range(2),
    )
    study.lab = lab
    monkeypatch.setattr(checks_runs, "study", lambda context, setting: study)
    assert checks_cost.check_cost(context).measured > 0.5
    assert np.isfinite(checks_texts.check_gap(context).measured)
    full = claims.Context(tmp_path, full=True)
    for check in (checks_texts.check_epochs, checks_texts.check_alpha):
        finding = check(full)
        assert np.isfinite(finding.measured)
        assert "logistic regression" in finding.details
    assert 0 < checks_texts.model_gap(lab, lab.initial(0)) < 1
