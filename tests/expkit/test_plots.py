import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from expkit import dot_plots, plots

X = np.arange(4.0)
SERIES = {
    "Lion": (X, X**2, X**2 - 1, X**2 + 1),
    "AdamW": (X, -X, None, None),
}


def draw(figure):
    plots.curves(figure.subplots(), SERIES, ylabel="loss")


def axes():
    return Figure().subplots()


def luminance(colour):
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_both_pages_are_svg_of_the_asked_size_in_different_ink():
    light, dark = plots.render(draw, size=(4.0, 2.0))
    for page in (light, dark):
        root = ET.fromstring(page)
        assert root.get("viewBox") == "0 0 288 144"
        # A transparent ground: no white sheet behind the axes.
        assert not re.search(r"fill: *#fff", page)
        assert "<text" not in page  # letters are paths: the same in every browser
    assert "#1f2328" in light
    assert "#1f2328" not in dark


def test_the_same_drawing_gives_the_same_bytes():
    assert plots.render(draw) == plots.render(draw)
    assert "<dc:date>" not in plots.render(draw)[0]


def test_the_settings_of_the_reader_neither_matter_nor_change():
    ours = plots.render(draw)
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert plots.render(draw) == ours
        assert dict(mpl.rcParams) == before


def test_drawing_never_loads_the_global_state_of_pyplot():
    program = (
        "import sys; from expkit import plots; "
        "assert 'matplotlib' not in sys.modules; "
        "plots.render(lambda fig: plots.heat_map(fig.subplots(), [[1]], [1], [1])); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("palette", "page"), [("LIGHT", "#ffffff"), ("DARK", "#14181d")]
)
def test_the_first_colours_stand_out_from_their_page(palette, page):
    # WCAG 2.2, 1.4.11: graphical objects need a contrast of 3 to 1.
    for colour in getattr(plots, palette)[:4]:
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.0


def test_lines_differ_without_colour():
    assert len({str(dash) for dash in plots.DASHES[:4]}) == 4
    assert len(set(plots.MARKERS)) == len(plots.LIGHT) == len(plots.DARK)


def test_curves_show_the_given_points_and_bands():
    ax = axes()
    plots.curves(ax, SERIES, ylabel="loss", log_y=True)
    for line, (x, y, _, _) in zip(ax.lines, SERIES.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([x, y], axis=1))
    (band,) = ax.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert {(2.0, 3.0), (2.0, 5.0)} <= corners
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(SERIES)
    assert (ax.get_ylabel(), ax.get_yscale()) == ("loss", "log")


@pytest.mark.parametrize(("best", "x_best"), [("max", 1e-3), ("min", 1e-5)])
def test_sweep_rings_the_best_and_skips_what_diverged(best, x_best):
    ax = axes()
    x = [1e-5, 1e-4, 1e-3, 1e-2]
    y = [0.5, 0.7, 0.9, None]
    plots.sweep(ax, {"Lion": (x, y, y, y)}, best=best, ylabel="accuracy")
    ring = ax.collections[-1]
    assert ring.get_offsets().tolist() == [
        [x_best, dict(zip(x, y, strict=True))[x_best]]
    ]
    assert ax.get_xscale() == "log"


def test_sweep_intervals_reach_from_low_to_high():
    ax = axes()
    plots.sweep(ax, {"Lion": ([1.0, 10.0], [2.0, 3.0], [1.5, 2.0], [4.0, 3.5])})
    bars = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert bars == [[[1.0, 1.5], [1.0, 4.0]], [[10.0, 2.0], [10.0, 3.5]]]


def test_a_sweep_in_which_everything_diverged_is_drawn_without_a_ring():
    ax = axes()
    plots.sweep(ax, {"SGD": ([1.0, 2.0], [None, None], None, None)})
    assert len(ax.collections) == 0


def test_heat_map_writes_every_value_where_it_belongs():
    ax = axes()
    values = [[0.1, 0.2, 0.3], [0.6, None, 0.4]]
    plots.heat_map(ax, values, ["0", "0.1"], ["1e-4", "1e-3", "1e-2"], form=".1f")
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts[0.5, 0.5] == "0.1"
    assert texts[2.5, 1.5] == "0.4"
    assert texts[1.5, 1.5] == "-"
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "1e-4",
        "1e-3",
        "1e-2",
    ]
    (frame,) = ax.patches
    assert frame.get_xy() == (0, 1)


def test_numbers_in_a_heat_map_can_be_read_on_their_cell():
    ax = axes()
    values = np.linspace(0, 1, 16).reshape(4, 4)
    plots.heat_map(ax, values, range(4), range(4), best="min")
    (mesh,) = ax.collections
    for text, cell in zip(
        ax.texts, mesh.cmap(mesh.norm(values)).reshape(16, 4), strict=True
    ):
        inks = {"black": 0.0, "white": 1.0}
        contrast = {
            ink: (max(level, luminance(to_hex(cell))) + 0.05)
            / (min(level, luminance(to_hex(cell))) + 0.05)
            for ink, level in inks.items()
        }
        assert contrast[text.get_color()] >= 4.0
    assert ax.patches[0].get_xy() == (0, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.render(draw, size=(0.0, 1.0)), "two positive lengths"),
        (lambda: plots.curves(axes(), {}), "at least one series"),
        (lambda: plots.sweep(axes(), {}), "at least one series"),
        (lambda: dot_plots.arms(axes(), {}), "at least one arm"),
        (lambda: plots.sweep(axes(), SERIES, best="low"), "got 'low'"),
        (lambda: plots.heat_map(axes(), [[1]], [1], [1, 2]), r"\(1, 1\).*\(1, 2\)"),
        (lambda: plots.heat_map(axes(), [[1]], [1], [1], best=""), "got ''"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.02, 0.64, ["0.02", "0.05", "0.1", "0.2", "0.5"]),
        (2.0, 9.0, ["2", "5"]),
        (3e-8, 4.1e-7, ["5e-08", "1e-07", "2e-07"]),
    ],
)
def test_a_short_logarithmic_axis_is_labelled_at_1_2_and_5(low, high, labels):
    ax = axes()
    plots.sweep(ax, {"Lion": (np.array([low, high]), np.ones(2), None, None)})
    ax.set_xlim(low, high)
    ax.figure.canvas.draw()
    shown = [
        text.get_text()
        for text, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
        if low <= place <= high
    ]
    assert shown == labels
    assert len(ax.xaxis.get_minorticklocs()) == 0


def test_a_long_logarithmic_axis_is_labelled_at_its_decades_alone():
    ax = axes()
    series = {"Lion": (X, 10.0**X, None, None)}
    plots.curves(ax, series, log_y=True)
    ax.figure.canvas.draw()
    assert not any(text.get_text() for text in ax.get_yticklabels(minor=True))
    assert any("10^" in text.get_text() for text in ax.get_yticklabels())


def test_arms_have_a_dot_for_every_seed_and_the_interval_of_their_mean():
    ax = axes()
    values = {"plain": [0.5, 0.6, 0.7], "R-Drop": [0.8, 0.8, 0.8]}
    dot_plots.arms(ax, values, xlabel="accuracy", reference=("n-grams", 0.9))
    for row, numbers in enumerate(values.values()):
        drawn = [line.get_xydata() for line in ax.lines[:-1]]
        drawn = [points for points in drawn if (points[:, 1] == row).all()]
        half = stats.t.ppf(0.975, 2) * np.std(numbers, ddof=1) / np.sqrt(3)
        bar = np.mean(numbers) + np.array([-half, half])
        expected = [numbers, [np.mean(numbers)], bar, bar[:1], bar[1:]]
        for points, places in zip(drawn, expected, strict=True):
            np.testing.assert_allclose(points[:, 0], places, rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(values)
    first, last = (ax.transData.transform((0, row))[1] for row in (0, 1))
    assert first > last  # the first arm is on top
    assert ax.lines[-1].get_xdata() == [0.9, 0.9]
    assert ax.get_xlabel() == "accuracy"
    (label,) = ax.get_legend().get_texts()
    assert label.get_text() == "n-grams"
    low, high = ax.get_xlim()
    assert low < 0.5 < 0.9 < high < 1.0


@pytest.mark.parametrize("num_seeds", [2, 10])
def test_intervals_that_leave_the_axes_end_in_arrows(num_seeds):
    """Of two seeds the interval is 12.7 times as wide as they are apart, or more."""
    rng = np.random.default_rng(0)
    values = {f"arm {i}": rng.normal(0.7, 0.02, num_seeds) for i in range(6)}
    ax = axes()
    dot_plots.arms(ax, values)
    low, high = ax.get_xlim()
    every = np.concatenate([line.get_xdata() for line in ax.lines])
    assert low < every.min()
    assert every.max() < high
    numbers = np.concatenate(list(values.values()))
    assert high - low < 3 * np.ptp(numbers)  # the dots are apart
    arrows = [line for line in ax.lines if line.get_marker() in ("<", ">")]
    assert bool(arrows) == (num_seeds == 2)
    for arrow in arrows:
        end, row = arrow.get_xydata()[0]
        own = values[f"arm {int(row)}"]
        half = stats.t.ppf(0.975, 1) * np.std(own, ddof=1) / np.sqrt(2)
        assert abs(end - own.mean()) < half  # the interval goes on


@pytest.mark.parametrize("numbers", [[0.5], [0.5, 0.5], [0.5, None, 0.6], [None, None]])
def test_arms_of_few_or_diverged_seeds_are_drawn(numbers):
    light, _ = plots.render(
        lambda fig: dot_plots.arms(fig.subplots(), {"a": numbers, "b": numbers})
    )
    assert light.startswith("<?xml")


def test_long_names_beside_arms_and_above_them_stay_on_the_figure():
    figures = []

    def draw(figure):
        values = {"a": [0.1, 0.2], "without the rotary positions": [0.3, 0.4]}
        reference = (
            "looking up all the mentions of the training texts, word by word",
            1,
        )
        dot_plots.arms(figure.subplots(), values, reference=reference)
        figures.append(figure)

    plots.render(draw)
    for figure in figures:
        (ax,), page = figure.axes, figure.bbox
        for drawn in (ax.get_legend(), *ax.get_yticklabels()):
            box = drawn.get_window_extent()
            assert page.x0 <= box.x0
            assert box.x1 <= page.x1
            assert box.y1 <= page.y1
        assert ax.get_position().width > 0.6


def test_a_curve_of_one_point_has_a_dot():
    ax = axes()
    one = np.array([np.nan, 2.0, np.nan, np.nan])
    plots.curves(ax, {"one": (X, one, None, None), "all": (X, X, None, None)})
    assert [line.get_marker() for line in ax.lines] == ["o", "None"]
