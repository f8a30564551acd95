"""The inequality along training: verdicts of planted figures, and the real record."""

import jax
import numpy as np
import pytest

from expkit import claims, data
from expkit import config as config_lib
from igr import checks_smoothness, train

JITTER = np.array([0.0, 0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.25, -0.15, 0.05])
RATES = checks_smoothness.RATES


@pytest.fixture
def context(tmp_path):
    """All ten seeds."""
    return claims.Context(tmp_path, full=True)


@pytest.fixture
def plant(monkeypatch):
    """`(figures) -> None`: what every run is, as a function of seed and rate."""

    def planted(figures):
        monkeypatch.setattr(
            checks_smoothness, "_figures", lambda context, *args: figures(*args)
        )
        monkeypatch.setattr(checks_smoothness, "_draw", lambda context: None)

    return planted


def along(drift=0.5, slopes=(-1.0, -1.0), slack=2.0, holes=()):
    """Figures of a run; the holes are `(record, image, slack there)`."""

    def figures(seed, rate):
        time = np.linspace(0.0, 1.0, 17)[:, None]
        gradient = np.exp(-3.0 * time) * (1.0 + np.arange(16) / 16)
        factor = 0.1 * np.exp((drift + 0.1 * JITTER[seed]) * time)
        ratio = np.full((17, 16), slack)
        for record, image, value in holes:
            ratio[record, image] = value
        place = np.log2(rate / RATES[0])
        if seed % 2:
            place = {1.0: 2.0, 2.0: 1.0}.get(place, place)
        ends = [np.exp(slope * place) for slope in slopes]
        left = factor * gradient
        return {
            "squared_input_gradient": gradient,
            "input_side": left,
            "parameter_side": ratio * left,
            "bound": ratio * gradient,
            "input_energy": np.linspace(5.0, ends[0], 17),
            "parameter_energy": np.linspace(5.0, ends[1], 17),
        }

    return figures


BOUNDS = [
    checks_smoothness.check_inequality,
    checks_smoothness.check_first_layer_bound,
]


@pytest.mark.parametrize("check", BOUNDS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("holes", "violations"),
    [
        ((), 0),
        (((3, 5, 1.0 - 1e-6),), 0),  # rounding
        (((3, 5, 0.99),), 10),
        (((0, 0, 0.5), (16, 15, 0.2)), 20),
        (((3, 5, np.nan),), 10),
    ],
)
def test_violations_are_counted(context, plant, check, holes, violations):
    plant(along(holes=holes))
    finding = check(context)
    assert finding.measured == violations
    expected = claims.DOES_NOT_HOLD if violations else claims.HOLDS
    assert finding.verdict == expected
    assert "Of 2720 " in finding.details
    assert "2.0" in finding.details


def test_gradients_that_vanish_are_no_violation(context, plant):
    plant(lambda seed, rate: {k: 0.0 * v for k, v in along()(seed, rate).items()})
    for check in BOUNDS:
        assert check(context).verdict == claims.HOLDS


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (0.4, claims.HOLDS),
        (-0.4, claims.HOLDS),
        (np.log(2.0), claims.NOT_DECIDED),
        (1.2, claims.DOES_NOT_HOLD),
        (-1.2, claims.DOES_NOT_HOLD),
        (np.nan, claims.NOT_DECIDED),
    ],
)
def test_a_steady_factor_is_told_from_one_that_drifts(context, plant, drift, verdict):
    plant(along(drift=drift))
    finding = checks_smoothness.check_bracket_is_steady(context)
    assert finding.verdict == verdict
    if np.isfinite(drift):
        assert finding.measured == pytest.approx(np.exp(abs(drift)), rel=0.01)


@pytest.mark.parametrize(
    ("slopes", "correlate", "falls"),
    [
        ((-1.0, -1.0), claims.HOLDS, claims.HOLDS),
        ((1.0, 1.0), claims.HOLDS, claims.DOES_NOT_HOLD),
        ((-1.0, 1.0), claims.DOES_NOT_HOLD, claims.HOLDS),
        ((1.0, -1.0), claims.DOES_NOT_HOLD, claims.DOES_NOT_HOLD),
        ((0.0, 1.0), claims.NOT_DECIDED, claims.NOT_DECIDED),
        ((np.nan, 1.0), claims.NOT_DECIDED, claims.NOT_DECIDED),
    ],
)
def test_trends_over_learning_rates_have_the_right_direction(
    context, plant, slopes, correlate, falls
):
    plant(along(slopes=slopes))
    together = checks_smoothness.check_penalties_correlate(context)
    fall = checks_smoothness.check_energy_falls(context)
    assert (together.verdict, fall.verdict) == (correlate, falls)
    if np.prod(slopes) ** 2 == 1.0:
        assert together.measured == pytest.approx(np.prod(slopes))
        # Of 5 ranks, two neighbours in the wrong order in half of the seeds.
        assert fall.measured == pytest.approx(slopes[0] * (1 - 0.5 * 6 * 2 / (5 * 24)))


def noise_images(name, split, *, data_dir=None):
    """Twenty pictures of noise."""
    del name, split, data_dir
    image = np.random.default_rng(0).integers(0, 255, (20, 3, 3, 1)).astype(np.uint8)
    return {"image": image, "label": np.arange(20, dtype=np.int32) % 3}


def test_the_record_is_that_of_the_network_that_is_trained(
    repository_root, monkeypatch
):
    """Energies and sides against gradients of the task's own loss, image by image."""
    monkeypatch.setattr(data, "load", noise_images)
    config = config_lib.load(
        f"{repository_root}/configs/igr/digits.py:hidden=(5,4),activation=tanh"
    )
    task = train.make_task(config)
    params, arrays = task.net.init(jax.random.key(0)), task.splits["train"]
    images = arrays["image"].astype(np.float32)
    scale = images.std()
    x = ((images - images.mean()) / scale).reshape(20, -1)
    got = jax.jit(checks_smoothness._record)(params, x, arrays["label"])

    @jax.jit
    @jax.vmap
    def gradients(image, label):
        def loss_fn(params, image):
            batch = {"image": image[None], "label": label[None]}
            return task.loss_fn(params, batch, None)[0]

        return jax.grad(loss_fn, (0, 1))(params, image)

    of_params, of_images = gradients(images, arrays["label"])
    squares = scale**2 * np.square(of_images).reshape(20, -1).sum(axis=-1)

    def norms(tree):
        leaves = jax.tree.leaves(tree)
        return sum(np.square(leaf).reshape(20, -1).sum(axis=-1) for leaf in leaves)

    close = {"rtol": 5e-6, "atol": 0.0}
    np.testing.assert_allclose(got["input_energy"], squares.mean(), **close)
    np.testing.assert_allclose(got["squared_input_gradient"], squares[:16], **close)
    np.testing.assert_allclose(
        got["parameter_energy"], norms(of_params).mean(), **close
    )
    hidden = norms(of_params["hidden"])[:16]
    np.testing.assert_allclose(got["parameter_side"], hidden, **close)
    assert got["layer_terms"].shape == (16, 2)
    first = norms(of_params["hidden"][0])[:16]
    size = np.linalg.norm(params["hidden"][0]["kernel"], ord=2) ** 2
    bound = size / (1.0 + np.square(x[:16]).sum(axis=-1)) * first
    np.testing.assert_allclose(got["bound"], bound, **close)
