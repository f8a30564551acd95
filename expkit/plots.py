"""Figures of the report: SVG for a light and a dark page, safe for the colour-blind.

    def draw(fig):
        curves(fig.subplots(), {"Lion": (steps, loss, low, high)}, xlabel="step")

    light, dark = render(draw)

Lines differ in dash and marker as well as in colour. One panel a figure: `SIZE` is what
stays readable on a phone.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

SIZE = (4.6, 3.1)
"""Width and height in inches."""

# Okabe & Ito, Color Universal Design, https://jfly.uni-koeln.de/color/; ordered so that
# the first ones stand out from the page.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
DASHES = ("-", (0, (5, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1)), "-", "-", "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

Draw = Callable[[Any], None]
Bounds = ArrayLike | None


def _style(colours: Sequence[str], ink: str, faint: str) -> dict[str, Any]:
    from cycler import cycler

    inked = ("text.color", "axes.labelcolor", "axes.titlecolor")
    return dict.fromkeys((*inked, "xtick.color", "ytick.color"), ink) | {
        "axes.edgecolor": faint,
        "grid.color": faint,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=colours) + cycler(linestyle=DASHES),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
        "font.size": 11.0,
        "axes.titlesize": 11.0,
        "xtick.labelsize": 10.0,
        "ytick.labelsize": 10.0,
        "legend.fontsize": 10.5,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.0,
        "svg.fonttype": "path",
        "svg.hashsalt": "expkit",
    }


def render(draw: Draw, size: tuple[float, float] = SIZE) -> tuple[str, str]:
    """Draws a figure twice.

    Args:
        draw: draws on an empty `matplotlib.figure.Figure`.
        size: width and height in inches.

    Returns:
        `(light, dark)`: two SVG documents on a transparent ground; the same drawing
        gives the same bytes.

    Raises:
        ValueError: if a side of `size` is not positive.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    if min(size) <= 0:
        raise ValueError(f"size must be two positive lengths, got {size!r}.")
    pages = []
    for theme in (LIGHT, "#1f2328", "#c9ced6"), (DARK, "#e6e8eb", "#444b55"):
        with mpl.rc_context():
            mpl.rcdefaults()  # not what the reader's own matplotlibrc says
            mpl.rcParams.update(_style(*theme))
            figure = Figure(figsize=size)
            FigureCanvasSVG(figure)
            draw(figure)
            page = io.StringIO()
            figure.savefig(page, format="svg", metadata={"Date": None, "Creator": None})
            pages.append(page.getvalue())
    return pages[0], pages[1]


def _array(values: ArrayLike) -> np.ndarray:
    """Values as floats; None, which stands for "not finite" in JSON, becomes nan."""
    return np.asarray(values, dtype=float)


def _legend(ax: Any, labels: Sequence[str]) -> None:
    """Puts the legend above the axes, where it covers no data."""
    longest = max(len(label) for label in labels)
    columns = max(1, min(len(labels), 42 // (longest + 6)))
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.2,
        columnspacing=1.2,
    )


def curves(
    ax: Any,
    series: Mapping[str, tuple[ArrayLike, ArrayLike, Bounds, Bounds]],
    *,
    xlabel: str = "step",
    ylabel: str = "",
    log_y: bool = False,
) -> None:
    """Lines over steps, each with a band.

    Args:
        ax: matplotlib axes.
        series: `{label: (x [n], y [n], low [n], high [n])}`; low and high may be None.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        log_y: whether the vertical axis is logarithmic.

    Raises:
        ValueError: if there is no series.
    """
    if not series:
        raise ValueError("curves needs at least one series.")
    for label, (x, y, low, high) in series.items():
        is_one = np.isfinite(_array(y)).sum() == 1  # of which a line shows nothing
        marker = "o" if is_one else None
        (line,) = ax.plot(_array(x), _array(y), label=label, marker=marker)
        if low is not None and high is not None:
            band = (_array(x), _array(low), _array(high))
            ax.fill_between(*band, color=line.get_color(), alpha=0.22, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if log_y:
        ax.set_yscale("log")
        readable_log_ticks(ax.yaxis)
    _legend(ax, list(series))


def readable_log_ticks(axis: Any) -> None:
    """Labels 1, 2 and 5 of every decade where there are less than two, else decades.

    matplotlib labels every minor tick of a short axis, one over the other.

    Args:
        axis: `ax.xaxis` or `ax.yaxis`, logarithmic, with its data drawn.
    """
    from matplotlib import ticker

    low, high = axis.get_view_interval()
    if not 0.0 < low < high < 100.0 * low:
        axis.set_minor_formatter(ticker.NullFormatter())
        return
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_locator(ticker.NullLocator())


def sweep(
    ax: Any,
    series: Mapping[str, tuple[ArrayLike, ArrayLike, Bounds, Bounds]],
    *,
    xlabel: str = "learning rate",
    ylabel: str = "",
    best: str = "max",
) -> None:
    """Result against a logarithmic setting, with intervals and a ring at each best.

    Args:
        ax: matplotlib axes.
        series: `{label: (x [n], y [n], low [n], high [n])}`, x positive; low and high
            may be None; nan (a run that diverged) leaves a gap.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        best: "max" or "min": which y is good.

    Raises:
        ValueError: if there is no series or `best` is neither.
    """
    pick = _picker(best)
    if not series:
        raise ValueError("sweep needs at least one series.")
    for index, (label, (x, y, low, high)) in enumerate(series.items()):
        x, y, bars = _array(x), _array(y), None
        if low is not None and high is not None:
            bars = np.maximum([y - _array(low), _array(high) - y], 0.0)
        marker = MARKERS[index % len(MARKERS)]
        drawn = ax.errorbar(x, y, yerr=bars, marker=marker, capsize=3, label=label)
        if np.isfinite(y).any():
            place, colour = pick(y), drawn.lines[0].get_color()
            ring = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.6}
            ax.scatter(x[place], y[place], s=130, zorder=3, **ring)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
    readable_log_ticks(ax.xaxis)
    _legend(ax, list(series))


def _picker(best: str) -> Callable[[np.ndarray], int]:
    if best not in ("max", "min"):
        raise ValueError(f'best must be "max" or "min", got {best!r}.')
    return np.nanargmax if best == "max" else np.nanargmin


def heat_map(
    ax: Any,
    values: ArrayLike,
    rows: Sequence[object],
    columns: Sequence[object],
    *,
    row_label: str = "weight decay",
    form: str = ".2f",
    best: str = "max",
) -> None:
    """Grid of results with the number in each cell and a frame around the best.

    Args:
        ax: matplotlib axes.
        values: results `[rows, columns]`; nan (a run that diverged) is hatched.
        rows: settings down the vertical axis.
        columns: learning rates along the horizontal axis.
        row_label: label of the vertical axis.
        form: how a number is written, as in `format(value, form)`.
        best: "max" or "min": which value is good.

    Raises:
        ValueError: if the shape of `values` does not fit, or `best` is neither.
    """
    from matplotlib.patches import Rectangle

    pick, grid = _picker(best), _array(values)
    if grid.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values has shape {grid.shape}, expected {(len(rows), len(columns))}."
        )
    ax.grid(visible=False)
    ax.patch.set(hatch="////", edgecolor=ax.spines["left"].get_edgecolor(), linewidth=0)
    mesh = ax.pcolormesh(np.ma.masked_invalid(grid), cmap="cividis")
    for (row, column), value in np.ndenumerate(grid):
        text, ink = "-", None
        if math.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            is_bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45
            text, ink = format(value, form), "black" if is_bright else "white"
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink)
    if np.isfinite(grid).any():
        row, column = divmod(int(pick(grid)), len(columns))
        frame = {
            "fill": False,
            "edgecolor": "#D55E00",
            "linewidth": 3,
            "clip_on": False,
        }
        ax.add_patch(Rectangle((column, row), 1, 1, **frame))
    ax.set_xticks(np.arange(len(columns)) + 0.5, [str(c) for c in columns])
    ax.set_yticks(np.arange(len(rows)) + 0.5, [str(r) for r in rows])
    ax.tick_params(length=0)
    ax.set(xlabel="learning rate", ylabel=row_label)
