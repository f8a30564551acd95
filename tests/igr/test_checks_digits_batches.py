"""The checks of mini-batches and flood levels say what they should."""

import numpy as np
import pytest

from expkit import claims
from igr import checks_flood_levels, checks_minibatches

JITTER = np.array([0.0, 0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.15, 0.05])
JITTER = JITTER - JITTER.mean()


@pytest.fixture
def context(tmp_path):
    """All ten seeds."""
    return claims.Context(tmp_path, full=True)


def arms(fraction, fall=1.0, noise=0.05, gain=0.0):
    """Figures that fall by a factor, and by a part of it under the penalty."""

    def figures(context, arm):
        part = {"small": 0.0, "large": 1.0, "penalised": fraction}[arm]
        shift = {"small": 0, "large": 3, "penalised": 5}[arm]
        values = 3.0 * np.exp(-fall * part + noise * np.roll(JITTER, shift))
        accuracy = 0.9 + (arm == "penalised") * (gain + 0.01 * JITTER)
        return {"sharpness": values, "batch_squares": values, "test_accuracy": accuracy}

    return figures


RECOVERED = [
    checks_minibatches.check_sharpness_recovered,
    checks_minibatches.check_batch_squares_recovered,
]


@pytest.mark.parametrize("check", RECOVERED, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("fraction", "verdict"),
    [
        (1.0, claims.HOLDS),
        (0.6, claims.HOLDS),
        (0.3, claims.DOES_NOT_HOLD),
        (0.0, claims.DOES_NOT_HOLD),
        (-1.0, claims.DOES_NOT_HOLD),  # a rise
        (1.7, claims.DOES_NOT_HOLD),
        (0.5, claims.NOT_DECIDED),
    ],
)
def test_the_part_of_a_fall_that_a_penalty_brings_is_found(
    context, monkeypatch, check, fraction, verdict
):
    monkeypatch.setattr(checks_minibatches, "_figures", arms(fraction))
    finding = check(context)
    assert finding.measured == pytest.approx(fraction, abs=1e-9)
    assert finding.verdict == verdict
    low, high = finding.interval
    assert low < fraction < high


@pytest.mark.parametrize(
    ("fraction", "verdict"), [(1.0, claims.HOLDS), (-0.5, claims.DOES_NOT_HOLD)]
)
def test_a_rise_is_recovered_by_a_rise(context, monkeypatch, fraction, verdict):
    monkeypatch.setattr(checks_minibatches, "_figures", arms(fraction, fall=-1.0))
    finding = checks_minibatches.check_batch_squares_recovered(context)
    assert finding.measured == pytest.approx(fraction)
    assert finding.verdict == verdict


@pytest.mark.parametrize(("fall", "noise"), [(0.0, 0.1), (0.02, 0.5), (1.0, 20.0)])
@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_without_a_change_there_is_nothing_to_recover(
    context, monkeypatch, fraction, fall, noise
):
    figures = arms(fraction, fall, noise)
    monkeypatch.setattr(checks_minibatches, "_figures", figures)
    finding = checks_minibatches.check_sharpness_recovered(context)
    assert finding.verdict == claims.NOT_DECIDED


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says(context, monkeypatch):
    rng, covered = np.random.default_rng(0), []

    def figures(context, arm):
        part = {"small": 0.0, "large": 1.0, "penalised": 0.8}[arm]
        return {"sharpness": np.exp(-part + 0.3 * rng.normal(size=10))}

    monkeypatch.setattr(checks_minibatches, "_figures", figures)
    for _ in range(400):
        low, high = checks_minibatches.check_sharpness_recovered(context).interval
        covered.append(low < 0.8 < high)
    assert 0.91 < np.mean(covered) < 0.99


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.02, claims.HOLDS),
        (-0.02, claims.DOES_NOT_HOLD),
        (0.0005, claims.NOT_DECIDED),
    ],
)
def test_accuracies_are_compared_in_the_right_direction(
    context, monkeypatch, gain, verdict
):
    monkeypatch.setattr(checks_minibatches, "_figures", arms(1.0, gain=gain))
    finding = checks_minibatches.check_accuracy_recovered(context)
    assert finding.measured == pytest.approx(gain)
    assert finding.verdict == verdict
    assert f"penalised {0.9 + gain:.4f}" in finding.details


LEVELS, STOPS = checks_flood_levels.LEVELS, checks_flood_levels.STOPS
STEPS = np.linspace(0.0, 1.0, 1 + checks_flood_levels.NUM_RECORDS)


def flooded(best=0.1, **ends):
    """Figures of ten runs: least validation loss at `best`, and how they end.

    Plain training is best in validation in the middle of its stops.

    Args:
        best: a level.
        **ends: the last values above the level 0, without those at it.
    """

    def figures(context, noise, level):
        noise = 0.01 * JITTER[:, None] * (level > 0)
        splits = ("validation", "test")
        names = [
            f"{split}_{figure}" for split in splits for figure in ("loss", "accuracy")
        ]
        rows = dict.fromkeys(names, 0.5 + noise + 0.0 * STEPS)
        rows["validation_loss"] = rows["validation_loss"] + abs(level - best)
        rows["validation_accuracy"] = rows["validation_accuracy"] - abs(level - best)
        if level == 0.0:
            dip = 1e-3 * (STEPS[STOPS[len(STOPS) // 2]] == STEPS)
            rows["validation_loss"] = rows["validation_loss"] - dip
            rows["validation_accuracy"] = rows["validation_accuracy"] + dip
        for name, end in ends.items():
            rows[name] = rows[name] + end * (level == best)
        return by_image(rows, level)

    return figures


def by_image(rows, level, count=3):
    """The same for test images of which none is harder than another."""
    kept = slice(-1 if level else 0, None)
    names = [name for name in rows if name in ("test_loss", "test_accuracy")]
    return rows | {
        f"{name}_rows": np.repeat(rows[name][:, kept, None], count, axis=-1)
        for name in names
    }


@pytest.mark.parametrize("noise", ["clean", "noisy"])
@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        (-0.1, (claims.HOLDS, claims.DOES_NOT_HOLD)),
        (0.1, (claims.DOES_NOT_HOLD, claims.HOLDS)),
        (0.0, (claims.NOT_DECIDED, claims.NOT_DECIDED)),
    ],
)
def test_flooding_is_compared_in_the_right_direction(
    context, monkeypatch, noise, change, verdicts
):
    figures = flooded(test_loss=change, test_accuracy=change)
    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    for rival in ("end", "stopped"):
        loss = checks_flood_levels.check_test_loss(noise, rival, context)
        accuracy = checks_flood_levels.check_test_accuracy(noise, rival, context)
        assert (loss.verdict, accuracy.verdict) == verdicts
        assert loss.measured == pytest.approx(change, abs=1e-12)
        assert "level 0.1," in loss.details


def test_flooding_is_not_decided_by_two_images(context, monkeypatch):
    def figures(context, noise, level):
        rows = flooded()(context, noise, level)
        hits = np.ones((10, 1 if level else 1 + checks_flood_levels.NUM_RECORDS, 270))
        if level:
            hits[..., :2] = 0.0
            hits[np.arange(5), :, 100 + np.arange(5)] = 0.0
        return rows | {"test_accuracy_rows": hits}

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    finding = checks_flood_levels.check_test_accuracy("clean", "end", context)
    assert finding.measured == pytest.approx(-2.5 / 270)
    assert finding.verdict == claims.NOT_DECIDED
    assert "the 270 test images" in finding.details


def test_plain_training_may_stop_where_its_validation_loss_is_least(
    context, monkeypatch
):
    stop = checks_flood_levels.STOPS[1]
    records = np.arange(1 + checks_flood_levels.NUM_RECORDS)

    def figures(context, noise, level):
        rows = flooded(test_loss=-0.1)(context, noise, level)
        if level == 0.0:
            dip = 0.3 * (records == stop)
            names = [name for name in rows if not name.endswith("_rows")]
            rows = by_image({name: rows[name] - dip for name in names}, level)
        return rows

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    finding = checks_flood_levels.check_test_loss("noisy", "end", context)
    assert finding.measured == pytest.approx(-0.1)
    assert finding.verdict == claims.HOLDS
    finding = checks_flood_levels.check_test_loss("noisy", "stopped", context)
    assert finding.measured == pytest.approx(0.2)  # 0.4 against 0.2, not 0.5
    assert finding.verdict == claims.DOES_NOT_HOLD
    assert f"stopped at {stop / records[-1]:g} of the steps" in finding.details


def test_accuracies_are_compared_at_the_level_of_the_highest_validation_accuracy(
    context, monkeypatch
):
    """The loss prefers another level and another stop, with an accuracy of 0.5."""
    records = np.arange(1 + checks_flood_levels.NUM_RECORDS)

    def figures(context, noise, level):
        rows = flooded(0.1)(context, noise, level)
        better = 0.3 * (level == 0.4) * (records == records[-1])
        if level == 0.0:
            better = 0.2 * (records == checks_flood_levels.STOPS[2])
        names = ("validation_accuracy", "test_accuracy")
        changed = {name: 0.5 + better + 0.0 * rows[name] for name in names}
        return by_image(rows | changed, level)

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    for rival, expected in (("end", 0.3), ("stopped", 0.1)):
        finding = checks_flood_levels.check_test_accuracy("noisy", rival, context)
        assert finding.measured == pytest.approx(expected)
        assert "level 0.4," in finding.details
        assert "by validation accuracy" in finding.details
    finding = checks_flood_levels.check_test_loss("noisy", "end", context)
    assert "level 0.1," in finding.details
    assert "by validation loss" in finding.details


@pytest.mark.parametrize(("index", "end"), [(1, "lowest"), (-1, "highest")])
def test_beyond_a_level_at_an_end_a_better_one_may_lie(
    context, monkeypatch, index, end
):
    """So that flooding is worse is not decided; that it is better holds."""
    for change, verdict in ((0.1, claims.NOT_DECIDED), (-0.1, claims.HOLDS)):
        figures = flooded(LEVELS[index], test_loss=change, test_accuracy=-change)
        monkeypatch.setattr(checks_flood_levels, "_figures", figures)
        for check in (
            checks_flood_levels.check_test_loss,
            checks_flood_levels.check_test_accuracy,
        ):
            finding = check("noisy", "end", context)
            assert abs(finding.measured) == pytest.approx(0.1)
            assert finding.verdict == verdict
            assert f"The {end} level is the best of those tried." in finding.details


@pytest.mark.parametrize("stop", [STOPS[0], STOPS[-1]])
@pytest.mark.parametrize(
    ("change", "verdict"), [(-0.1, claims.NOT_DECIDED), (0.1, claims.DOES_NOT_HOLD)]
)
def test_at_an_end_of_the_stops_plain_training_may_be_better(
    context, monkeypatch, stop, change, verdict
):
    def figures(context, noise, level):
        rows = flooded(0.1, test_loss=change)(context, noise, level)
        if level == 0.0:
            dip = 0.01 * (STEPS[stop] == STEPS)
            rows["validation_loss"] = rows["validation_loss"] - dip
        return rows

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    finding = checks_flood_levels.check_test_loss("noisy", "stopped", context)
    assert finding.verdict == verdict
    assert f"stopped at {STEPS[stop]:g} of the steps" in finding.details


def test_plain_training_has_as_many_stops_as_there_are_levels():
    stops = checks_flood_levels.STOPS
    assert len(set(stops)) == len(LEVELS) - 1
    assert stops[-1] == checks_flood_levels.NUM_RECORDS


@pytest.mark.parametrize("best", LEVELS[1:])
def test_the_level_is_that_of_the_least_validation_loss(context, monkeypatch, best):
    def figures(context, noise, level):
        rows = flooded(best)(context, noise, level)
        if level == LEVELS[3] != best:
            rows["validation_loss"][4] = np.nan  # a run that diverged is no minimum
        return rows

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    assert checks_flood_levels._best_level(context, "clean") == best


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.7, claims.HOLDS),
        (1.4, claims.DOES_NOT_HOLD),
        (1.0, claims.NOT_DECIDED),
    ],
)
def test_gradients_are_compared_at_the_same_training_loss(
    context, monkeypatch, ratio, verdict
):
    """Norms that are a power of the loss, and a flooded run between two records."""

    def figures(context, noise, level):
        assert noise == "clean"
        losses = 2.5 * np.exp(-6.0 * STEPS) * np.ones((10, 1))
        if level:
            losses = np.maximum(losses, 0.11 * np.exp(JITTER)[:, None])
        factor = ratio * np.exp(0.1 * np.roll(JITTER, 2)[:, None]) if level else 1.0
        return {"train_loss": losses, "gradient_norm": factor * 3.0 * losses**0.8}

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    finding = checks_flood_levels.check_gradient_norm(context)
    assert finding.measured == pytest.approx(ratio)
    assert finding.verdict == verdict


def curve(peak, end, jitter=0.0, first=0.45):
    """A test loss: down to `first`, up to a plateau at `peak`, down to one at `end`."""
    knots = [0, 4, 15, 25, 33, 40]
    rng = np.random.default_rng(0)
    values = np.interp(np.arange(41), knots, [2.5, first, peak, peak, end, end])
    noise = rng.normal(size=(10, 41)) * (np.arange(41) > 15)
    return values + jitter * noise + 0.01 * JITTER[:, None] * (np.arange(41) > 33)


@pytest.mark.parametrize(
    ("curves", "fraction", "verdict"),
    [
        (curve(0.85, 0.5), 0.875, claims.HOLDS),
        (curve(0.85, 0.4), 1.125, claims.HOLDS),
        (curve(0.85, 0.75), 0.25, claims.HOLDS),
        (curve(0.85, 0.85), 0.0, claims.DOES_NOT_HOLD),
        (curve(0.85, 0.85, jitter=0.2), None, claims.NOT_DECIDED),  # a plateau
        (curve(0.85, 0.5, jitter=0.02), None, claims.HOLDS),
        (curve(0.35, 0.3, first=1.0), 0.0, claims.NOT_DECIDED),  # falls throughout
        (curve(np.nan, np.nan), np.nan, claims.NOT_DECIDED),
    ],
)
def test_a_second_descent_is_told_from_a_plateau(
    context, monkeypatch, curves, fraction, verdict
):
    rows = flooded()(context, "noisy", 0.1) | {"test_loss": curves}
    monkeypatch.setattr(checks_flood_levels, "_figures", lambda *_: rows)
    monkeypatch.setattr(checks_flood_levels, "_draw", lambda context: None)
    finding = checks_flood_levels.check_double_descent(context)
    if fraction is not None:
        assert finding.measured == pytest.approx(fraction, abs=0.01, nan_ok=True)
    assert finding.verdict == verdict


def test_the_figure_of_flood_levels_survives_runs_that_diverged(context, monkeypatch):
    def figures(context, noise, level):
        rows = flooded()(context, noise, level)
        rows["test_loss"] = rows["test_loss"] * (np.nan if level == 0.2 else 1.0)
        return rows

    monkeypatch.setattr(checks_flood_levels, "_figures", figures)
    checks_flood_levels._draw(context)
    assert (context.out / "figures" / "flooding-dark.svg").is_file()
