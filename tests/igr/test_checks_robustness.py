"""The comparison of regularisers: closed forms of what it measures, known verdicts."""

import jax
import numpy as np
import pytest

from expkit import claims
from expkit import config as config_lib
from igr import checks_attack, checks_robustness, objectives, train

LEVELS = {"none": 0.5, "longer": 0.55, "input_penalty": 0.6, "noise": 0.7, "vat": 0.4}


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


def test_attack_and_gradient_of_two_linear_classes_have_closed_forms():
    """The attack moves straight at the boundary, the margin shrinks by its length."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 5)).astype(np.float32)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    labels = rng.integers(0, 2, 200)
    problem = objectives.Problem(lambda params, x, key: x @ params.T, lambda x: x)
    split = {"image": x, "label": labels}
    got = jax.jit(lambda w: checks_attack.measure(problem, w, split, split))(weight)
    across = weight[labels] - weight[1 - labels]
    margins, length = np.sum(across * x, axis=1), np.linalg.norm(across, axis=1)
    expected = np.array([margins > r * length for r in checks_attack.RADII])
    np.testing.assert_array_equal(got["attacked"], expected)
    np.testing.assert_allclose(got["validation_attacked"], expected.mean(axis=1))
    np.testing.assert_array_equal(got["clean"], margins > 0)
    assert got["validation_accuracy"] == pytest.approx(np.mean(margins > 0))
    errors = 1 / (1 + np.exp(margins))
    np.testing.assert_allclose(
        got["squared_gradient"], np.mean((errors * length) ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        got["validation_loss"], np.mean(np.log1p(np.exp(-margins))), rtol=1e-5
    )
    noise = np.random.default_rng(1).normal(size=(1000, *x.shape))
    moved = np.einsum("bi,nbi->nb", across, x + checks_attack.STDDEV * noise) > 0
    spread = moved.mean(axis=0) * (1 - moved.mean(axis=0))
    error = np.sqrt(spread.sum() / checks_attack.NUM_DRAWS) / len(x)
    assert np.mean(got["noisy"]) == pytest.approx(moved.mean(), abs=4 * error)


@pytest.fixture
def trained(monkeypatch):
    """Runs with accuracies of `LEVELS`, best in validation at the second strength."""
    order = np.random.default_rng(0).permutation(1000)  # of images by difficulty

    def hits(level):
        return (order < round(1000 * level)).astype(float)

    def compiled(regularizer):
        def figures(strength, seed, num_steps):
            name = "longer" if num_steps == 1500 else regularizer
            place = checks_robustness.STRENGTHS[name].index(strength)
            level = (
                LEVELS.get(name, 0.45)
                + 0.01 * place
                + 1e-3 * seed * (name in ("noise", "vat"))
            )
            return {
                "validation_accuracy": 0.9 - 0.1 * (place != 1),
                "validation_attacked": [0.5 + 0.1 * (place == 3)] * 6,
                "validation_loss": 1.0,
                "clean": hits(level),
                "noisy": hits(level),
                "attacked": [hits(level - 0.1 * r) for r in range(6)],
                "squared_gradient": np.exp(-10.0 * level),
            }

        return figures

    monkeypatch.setattr(checks_robustness, "_compiled", compiled)


@pytest.mark.parametrize(
    ("regularizer", "verdict"),
    [("noise", claims.HOLDS), ("vat", claims.DOES_NOT_HOLD)],
)
def test_accuracies_are_compared_in_the_right_direction(
    regularizer, verdict, context, trained
):
    for check in (
        checks_robustness.check_clean_accuracy,
        checks_robustness.check_clean_accuracy_at_equal_cost,
        checks_robustness.check_noisy_accuracy,
        checks_robustness.check_attacked_accuracy,
        checks_robustness.check_input_gradient,
    ):
        assert check(regularizer, context).verdict == verdict
    finding = checks_robustness.check_clean_accuracy(regularizer, context)
    gain = LEVELS[regularizer] + 1e-3 - LEVELS["none"]
    assert finding.measured == pytest.approx(gain)
    assert f"at strength {checks_robustness.STRENGTHS[regularizer][1]:g}" in (
        finding.details
    )
    assert "plain 0.5100 (sd 0.0000) at learning rate 0.2" in finding.details
    longer = checks_robustness.check_clean_accuracy_at_equal_cost(regularizer, context)
    assert longer.measured == pytest.approx(gain - 0.05)
    finding = checks_robustness.check_input_gradient(regularizer, context)
    # At the same rate, which is the first and not the second of plain training.
    assert finding.measured == pytest.approx(np.exp(-10.0 * (gain + 0.01)))


def test_a_handful_of_images_decides_nothing(context, monkeypatch):
    """Seeds that agree on two images of 270 say nothing of other images."""
    rng = np.random.default_rng(0)

    def compiled(regularizer):
        def figures(value, seed, num_steps):
            hits = np.ones((1, 270))
            hits[:, :5] = 0.0
            if regularizer == "vat":
                hits[:, :3] = 1.0  # three more are right, one is not
                hits[:, 9] = 0.0
            hits[:, 20] = rng.integers(2)
            names = ("validation_accuracy", "validation_loss", "squared_gradient")
            return dict.fromkeys(names, 1.0) | {"clean": hits[0]}

        return figures

    monkeypatch.setattr(checks_robustness, "_compiled", compiled)
    finding = checks_robustness.check_clean_accuracy("vat", context)
    assert finding.measured == pytest.approx(2 / 270, abs=0.005)
    assert finding.verdict == claims.NOT_DECIDED
    assert "of the 270 test images" in finding.details


def test_robustness_follows_the_gradient_where_it_does(context, trained):
    finding = checks_robustness.check_gradient_tells_robustness(context)
    assert finding.measured == pytest.approx(-1.0)
    against = checks_robustness.check_virtual_against_random(context)
    assert against.measured == pytest.approx(LEVELS["vat"] - LEVELS["noise"])
    strength = checks_robustness.STRENGTHS["vat"][3]  # tuned under attack
    assert f"at strength {strength:g}" in against.details


@pytest.mark.slow
def test_a_few_steps_of_every_regulariser_give_figures(context, monkeypatch):
    monkeypatch.setattr(checks_robustness, "NUM_STEPS", {"quick": 2})
    for name, strengths in checks_robustness.STRENGTHS.items():
        figures = checks_robustness._figures(context, name)
        assert figures["clean"].shape == (3, len(strengths), 270)
        assert figures["attacked"].shape == (3, len(strengths), 6, 270)
        assert all(np.isfinite(values).all() for values in figures.values())


@pytest.mark.optimized
@pytest.mark.slow
def test_no_step_costs_more_than_three_plain_ones():
    def operations(regularizer):
        config = config_lib.load(f"configs/igr/digits.py:regularizer={regularizer}")
        task = train.make_task(config)
        loss_fn = train.make_loss(config, task)
        batch = {name: rows[:64] for name, rows in task.splits["train"].items()}
        key = jax.random.key(0)
        gradient = jax.jit(jax.grad(lambda *args: loss_fn(*args)[0]))
        lowered = gradient.lower(task.net.init(key), batch, key)
        return lowered.compile().cost_analysis()["flops"]

    plain = operations("none")
    for name in ("input_penalty", "fgm", "noise", "vat"):
        assert operations(name) <= 3.0 * plain
