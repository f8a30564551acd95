"""Verdicts of the comparisons on pairs from planted figures, and a tiny lab."""

import jax
import numpy as np
import pytest
import scipy.stats
import tiny_texts
from matplotlib.figure import Figure

from cosent import checks_runs, checks_texts
from cosent import claims as cosent_claims
from expkit import claims

SPREAD = np.array([-0.01, 0.01, 0.0, 0.005, -0.005])


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path, full=True)


@pytest.fixture
def plant(monkeypatch):
    """Sets the level of each arm; the middle rate is the best in validation."""
    drawn = []

    def call(levels, baseline=0.3, course=(0.5, 0.4, 0.6)):
        def figures(study, arm, seed, settings):
            level = levels.get(arm, 0.5) + SPREAD[seed] * (2 if arm == "cosent" else 1)
            is_best = settings["learning_rate"] == checks_runs.RATES[1]
            names = ("spearman", "accuracy", "f1")
            return {
                **{f"validation_{name}": 0.8 if is_best else 0.7 for name in names},
                **{f"test_{name}": level + 0.3 * (not is_best) for name in names},
                "course": [course[0], *(c + level for c in course[1:])],
            }

        monkeypatch.setattr(checks_runs.Study, "figures", figures)
        monkeypatch.setattr(
            checks_runs.Study, "baseline", lambda self, figure: ("TF-IDF", baseline)
        )
        monkeypatch.setattr(
            claims.Context, "figure", lambda self, *args: drawn.append(args)
        )
        return drawn

    return call


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({"cosent": 0.8, "sentence_bert": 0.6}, claims.HOLDS),
        ({"cosent": 0.6, "sentence_bert": 0.8}, claims.DOES_NOT_HOLD),
    ],
)
def test_the_correlations_are_compared_in_the_right_direction(
    context, plant, levels, verdict
):
    drawn = plant(levels)
    check = cosent_claims.better(
        "pairs", "cosent", "sentence_bert", "spearman", at_least=0.0
    )
    finding = check(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(levels["cosent"] - levels["sentence_bert"])
    assert "CoSENT {cosent:.3f}".format(**levels) in finding.details
    assert drawn[-1][0] == "pairs-cosent-sentence_bert"


def test_where_tf_idf_wins_nothing_is_decided(context, plant):
    plant({"cosent": 0.8, "sentence_bert": 0.6}, baseline=0.9)
    finding = checks_texts.check_better(
        context, "pairs", "cosent", "sentence_bert", "spearman", at_least=0.0
    )
    assert finding.verdict == claims.NOT_DECIDED
    assert "which is more" in finding.details


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0.0, claims.HOLDS), (0.3, claims.DOES_NOT_HOLD)]
)
def test_the_gap_is_claimed_to_be_small_in_both_directions(
    context, plant, gap, verdict
):
    (check,) = (c.check for c in cosent_claims.CLAIMS if c.id == "gap")
    for sign in (1, -1):
        plant({"interaction": 0.6 + sign * gap, "cosent": 0.6})
        assert check(context).verdict == verdict


@pytest.mark.parametrize(
    ("interaction", "verdict"),
    [
        (0.95, claims.HOLDS),
        (0.7, claims.DOES_NOT_HOLD),
        (0.6, claims.NOT_DECIDED),  # nearer to 0.5 than to 0.8
    ],
)
def test_an_arm_that_guesses_decides_nothing_about_the_order_of_words(
    context, plant, monkeypatch, interaction, verdict
):
    monkeypatch.setattr(checks_runs.word_order, "write", lambda folder: "planted")
    (check,) = (c.check for c in cosent_claims.CLAIMS if c.id == "word-order")
    plant({"interaction": interaction, "cosent": 0.85}, baseline=0.8)
    finding = check(context)
    assert finding.verdict == verdict
    assert finding.measured == pytest.approx(interaction - 0.85)
    is_told = "interaction-based stayed nearer to a guess" in finding.details
    assert is_told == (verdict == claims.NOT_DECIDED)


def test_early_is_the_first_record_of_the_course(context, plant):
    drawn = plant({"cosent": 0.2, "sentence_bert": 0.0}, course=(0.5, 0.2, 0.9))
    finding = checks_texts.check_early(context)
    assert finding.verdict == claims.HOLDS
    assert finding.measured == pytest.approx(0.2)
    assert "Sentence-BERT 0.300" in finding.details  # from 0.5 to 0.2
    assert "CoSENT at learning rate 3e-05, Sentence-BERT at" in finding.details
    (name, draw, _, alt) = drawn[-1]
    assert name == "course"
    assert "CoSENT 0.400, Sentence-BERT 0.200" in alt
    figure = Figure()
    draw(figure)
    assert len(figure.axes[0].lines) == 2


def test_quick_mode_leaves_out_what_takes_long(tmp_path, plant):
    plant({})
    context = claims.Context(tmp_path, full=False)
    for arm in ("interaction", "scale_1", "cosine_mse"):
        finding = checks_texts.check_better(
            context, "pairs", arm, "cosent", "accuracy", at_least=0.0
        )
        assert finding.verdict == claims.NOT_DECIDED
        assert "--full" in finding.details


@pytest.mark.slow
def test_a_lab_trains_measures_and_has_a_baseline(tmp_path, pytestconfig):
    pytest.importorskip("tokenizers")
    folder = tiny_texts.write(tmp_path, num_token_types=2)
    path = f"{pytestconfig.rootpath}/configs/cosent/api_docs_pairs.py:smoke"
    config = tiny_texts.load(path, folder)
    config.update({"text_columns": ("text", "other"), "label_column": "label"})
    config.update({"positive_at": 1.0, "num_steps": 2 * checks_runs.NUM_BLOCKS})
    lab = checks_runs.Lab(config)
    figures = lab.measure(0, {"learning_rate": 1e-3})
    assert figures == lab.measure(0, {"learning_rate": 1e-3})
    assert len(figures["course"]) == 1 + checks_runs.NUM_BLOCKS
    start = lab.scores(lab.pairs.net.init(jax.random.key(0)), "validation")
    labels = lab.pairs.splits["validation"]["label"]
    expected = scipy.stats.spearmanr(start, labels)[0]
    np.testing.assert_allclose(figures["course"][0], expected, atol=1e-6)
    assert 0.5 <= figures["validation_accuracy"] <= 1
    assert -1 <= lab.ngram_figures()["test_spearman"] <= 1
