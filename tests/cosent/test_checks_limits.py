"""What vectors can express: the counterexample, its repair, and dimensions."""

import numpy as np
import pytest
from scipy import stats

from cosent import checks_limits as checks
from expkit import claims


@pytest.fixture
def context(tmp_path):
    return claims.Context(tmp_path)


def test_some_tables_of_similarities_are_no_cosines(context):
    finding = checks.check_counterexample(context)
    assert finding.verdict == claims.DOES_NOT_HOLD
    assert finding.measured == pytest.approx(1 - 0.9 * np.sqrt(2), abs=1e-12)
    assert "control" in finding.details


def test_every_order_is_that_of_some_cosines(context):
    finding = checks.check_repair(context)
    assert (finding.verdict, finding.measured) == (claims.HOLDS, 1.0)
    assert "control" in finding.details


def test_an_order_that_is_lost_is_found(context, monkeypatch):
    monkeypatch.setattr(checks, "_same_order", lambda a, b: bool(np.allclose(a, b)))
    assert checks.check_repair(context).verdict == claims.DOES_NOT_HOLD


@pytest.mark.slow
def test_the_lemma_holds(context):
    finding = checks.check_projection_lemma(context)
    assert finding.verdict == claims.HOLDS
    assert 0.5 < finding.measured <= 1.0


def test_a_projection_onto_coordinates_loses_distances():
    """The control of the lemma: not every map to so many dimensions keeps them."""
    x = np.zeros((10, 100))
    x[np.arange(10), np.arange(10)] = 1.0
    rng = np.random.default_rng(0)
    assert checks._distortion(x, 90, rng) < 0.9
    first = x[:, 50:]
    assert np.all(checks._squared_distances(first) == 0.0)


def planted(monkeypatch, size=60):
    """Vectors in all directions, in place of sentences."""
    vectors = np.random.default_rng(0).normal(size=(size, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(checks, "_sentence_vectors", lambda: vectors)
    return vectors


def test_maps_that_lose_the_order_do_not_refute_all_vectors(context, monkeypatch):
    planted(monkeypatch)
    monkeypatch.setattr(checks, "_in_order", lambda start, cosines: start)
    finding = checks.check_dimensions(context)
    assert finding.verdict == claims.NOT_DECIDED
    assert 0.5 < finding.measured < 0.99
    assert "other vectors may keep more" in finding.details
    assert (context.out / "figures/dimensions-light.svg").is_file()


def test_moved_vectors_keep_more_of_the_order_than_those_of_maps(context, monkeypatch):
    vectors = planted(monkeypatch)
    cosines = checks._cosines(vectors)
    start = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:33].T
    moved = checks._in_order(start, cosines)
    assert moved.shape == (60, 33)
    before, after = (
        stats.spearmanr(cosines, checks._cosines(x))[0] for x in (start, moved)
    )
    assert before + 0.01 < after
    finding = checks.check_dimensions(context)
    assert finding.measured == pytest.approx(after, abs=1e-6)


def test_flat_vectors_keep_their_order(tmp_path, monkeypatch):
    flat = np.random.default_rng(0).normal(size=(60, 384))
    flat[:, 3:] = 0.0
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    monkeypatch.setattr(checks, "_sentence_vectors", lambda: flat)
    finding = checks.check_dimensions(claims.Context(tmp_path))
    assert finding.verdict == claims.HOLDS
