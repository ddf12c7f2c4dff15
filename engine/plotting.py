"""Draws figures without a screen: PNG or SVG by matplotlib's Agg, CSV as their table.

As in the window: the original grey, the quantized in the accent, others in Okabe and Ito's colors, each with
a line of its own. A heat map is pooled to the picture's pixels here: matplotlib would average single spikes
away or skip them.
"""

import io
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.api.errors import OutputError
from engine.api.figures import Axis, Figure, HeatMap, Mark, Series
from engine.api.wording import printable
from engine.figures.pooling import pooled, starts
from engine.jobs.partial import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ENDINGS = (".png", ".svg", ".csv")

WIDTH, HEIGHT, DPI = 1600, 1000, 160
"""Of a picture, in pixels; `DPI` makes its letters 9 points high."""

PLOT = (150, 110, 1390, 820)
"""Left, bottom, width and height of the plot within it; above it is room for a title of two lines."""

MAP = (150, 110, 1240, 820)
BAR = (1420, 110, 30, 820)

TEXT, MUTED, GROUND = "#1B1F23", "#545C64", "#FFFFFF"
COLORS = ("#737B83", "#0F766E", "#E69F00", "#56B4E9", "#D55E00", "#CC79A7")
"""Grey for the original, the accent for the quantized, Okabe and Ito's for others."""

LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), "-")
MARKS = {"percentile": "percentiles", "clip": "clip range", "level": "levels of the grid"}
SIGNED = ("#08335F", "#3F8FC8", "#F3F3F2", "#DD8A36", "#6E2D00")
"""From the most negative over zero to the most positive; reads without seeing red from green."""

LABEL_SPACE = 0.014
"""Of the plot's width: marks closer than this share one name, the first one's."""

MOST_NAMES = 48
"""Of rows that an axis names; of more every second is named, or fewer."""

FEW_COUNTS = 500
"""Up to here a logarithmic axis of counts names 2 and 5, too."""

FEW_LEVELS = 32
"""So many levels of a grid are drawn as lines over the whole height."""

DECADES = 6
"""A logarithmic color bar shows no more than these below the highest value."""


def check_ending(out: Path) -> None:
    """Raise an `OutputError` where the name does not say what kind of file it is to be."""
    if out.suffix.lower() not in ENDINGS:
        raise OutputError(f"{out}: the name of a plot ends with .png, .svg or .csv.")


def write_plot(
    out: Path, figure: Figure | HeatMap, values: np.ndarray | None = None, *, logarithmic: bool = False
) -> None:
    """Write `figure` as `out`, whose ending says how. `values`, `logarithmic`: see `render`.

    Under a partial name, then renamed. Raises `OutputError`.
    """
    ending = out.suffix.lower()
    if ending == ".csv":
        content = (figure.to_csv() if isinstance(figure, Figure) else figure.to_csv(_given(values))).encode()
    else:
        content = render(figure, values, ending[1:], logarithmic=logarithmic)
    with whole_file(out) as partial:
        partial.write_bytes(content)


def render(
    figure: Figure | HeatMap, values: np.ndarray | None, kind: str, *, logarithmic: bool = False
) -> bytes:
    """A picture of `WIDTH` x `HEIGHT` pixels, as a "png" or "svg" file.

    `values`: those of a heat map, float32 [height, width]. `logarithmic`: the axis of counts, or the colors
    of magnitudes.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    options: Any = {
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "bitwright",
        "axes.edgecolor": MUTED,
        "axes.labelcolor": TEXT,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "text.color": TEXT,
    }
    file = io.BytesIO()
    with matplotlib.rc_context(options):
        canvas = Canvas(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=GROUND)
        if isinstance(figure, Figure):
            _draw_bins(canvas, figure, logarithmic)
        else:
            _draw_map(canvas, figure, _given(values), logarithmic and figure.takes_log)
        canvas.savefig(file, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _given(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("a heat map is drawn with its values")
    return values


def _place(canvas: "Canvas", box: Sequence[int]) -> "Axes":
    """Axes at exactly these pixels: left, bottom, width, height."""
    left, bottom, width, height = box
    return canvas.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def _name(axes: "Axes", title: str, x: Axis, y: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    for axis, said in ((axes.xaxis, x), (axes.yaxis, y)):
        if not said.counts:
            continue
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(integer=True))
        else:
            few = max(axis.get_view_interval()) < FEW_COUNTS
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(_whole))


def _whole(place: float, _: int | None = None) -> str:
    """What stands at a place of an axis of whole numbers; there is none between 0 and 1."""
    return f"{place:,.0f}" if isclose(place, round(place)) else ""


# ------------------------------------------------------------------------------------------ series


def _draw_bins(canvas: "Canvas", figure: Figure, logarithmic: bool) -> None:
    axes = _place(canvas, PLOT)
    axes.grid(alpha=0.15)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    if logarithmic:
        axes.set_yscale("log")
    half = 0.5 if figure.x.counts else 0.0  # bins of whole numbers stand over their numbers
    least = min((y for series in figure.series for y in series.y if y > 0), default=1.0)
    ground = least / 2 if logarithmic else 0.0
    for place, series in enumerate(figure.series):
        if series.x:
            _draw_series(axes, series, place, half, ground, alone=len(figure.series) == 1)
    top = max((y for series in figure.series for y in series.y), default=1.0) or 1.0
    axes.set_ylim(ground, (top / ground) ** 1.04 * ground if logarithmic else 1.04 * top)
    _name(axes, figure.title, figure.x, figure.y)
    _draw_marks(axes, figure.marks)
    if len(figure.series) > 1 or figure.marks:
        axes.legend(facecolor=GROUND, edgecolor="none", loc="upper right", bbox_to_anchor=(1, 0.93))


def _draw_series(
    axes: "Axes", series: Series, place: int, half: float, ground: float, *, alone: bool
) -> None:
    """Steps on the ground; gaps between bins are on the ground, too."""
    low = np.array(series.x)
    high = low + series.width
    gaps = np.flatnonzero(low[1:] - high[:-1] > 0.01 * series.width)
    edges = np.append(np.insert(low, gaps + 1, high[gaps]), high[-1]) - half
    heights = np.insert(np.maximum(np.array(series.y), ground), gaps + 1, ground)
    color, line = COLORS[place % len(COLORS)], LINES[place % len(LINES)]
    axes.stairs(heights, edges, baseline=ground, fill=True, color=color, alpha=0.35 if alone else 0.15)
    axes.stairs(heights, edges, baseline=ground, color=color, linestyle=line, label=series.name)


def _draw_marks(axes: "Axes", marks: Sequence[Mark]) -> None:
    """Percentiles as dotted lines and names, the clip range dashed; levels as lines where they are few, else
    as strokes on the ground."""
    left, right = axes.get_xlim()
    ends = [mark.x for mark in marks if mark.kind == "clip"]
    margin = 0.01 * (right - left)
    left = min([left, *(end - margin for end in ends)])
    right = max([right, *(end + margin for end in ends)])
    axes.set_xlim(left, right)
    many = sum(mark.kind == "level" for mark in marks) > FEW_LEVELS
    across = axes.get_xaxis_transform()
    named = -np.inf
    for kind, label in MARKS.items():
        places = sorted((mark.x, mark.name) for mark in marks if mark.kind == kind)
        for number, (x, name) in enumerate(places):
            style: dict[str, Any] = {
                "percentile": {"color": MUTED, "linestyle": ":", "linewidth": 0.8},
                "clip": {"color": COLORS[4], "linestyle": "--", "linewidth": 1.4, "zorder": 3},
                "level": {"color": COLORS[1], "linewidth": 0.5, "ymax": 0.025 if many else 1.0},
            }[kind]
            axes.axvline(x, label=label if number == 0 else None, **style)
            if kind == "percentile" and x - named > LABEL_SPACE * (right - left):
                named = x
                axes.text(
                    x, 0.995, f" {name}", transform=across, rotation=90, va="top", ha="right", fontsize=7
                )


# ---------------------------------------------------------------------------------------- heat maps


def _draw_map(canvas: "Canvas", figure: HeatMap, values: np.ndarray, logarithmic: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap

    axes = _place(canvas, MAP)
    norm = _scale(values, signed=figure.signed, logarithmic=logarithmic)
    colors: Any = LinearSegmentedColormap.from_list("signed", SIGNED) if figure.signed else "cividis"
    paint = ScalarMappable(norm, colors)
    pixels = paint.to_rgba(_to_pixels(values, MAP[3], MAP[2]), bytes=True)
    stop_row = figure.first_row + figure.height * figure.row_step
    stop_column = figure.first_column + figure.width * figure.column_step
    extent = (figure.first_column - 0.5, stop_column - 0.5, stop_row - 0.5, figure.first_row - 0.5)
    axes.spines[:].set_visible(False)  # they would cover half of the outermost pixels
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest")
    _name(axes, figure.title, figure.x, figure.y)
    if figure.rows:
        step = -(-len(figure.rows) // MOST_NAMES)
        axes.set_yticks(range(figure.first_row, stop_row, step), [*map(printable, figure.rows[::step])])
    bar = canvas.colorbar(paint, cax=_place(canvas, BAR))
    bar.set_label(figure.z.label)
    bar.outline.set_visible(False)


def _scale(values: np.ndarray, *, signed: bool, logarithmic: bool) -> Any:
    """From values to places between the ends of the color bar."""
    from matplotlib.colors import LogNorm, Normalize

    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if signed:
        most = max(abs(low), abs(high)) or 1.0
        return Normalize(-most, most)
    if logarithmic and high > 0:
        least = float(known[known > 0].min())
        bottom = max(least, high / 10**DECADES)
        return LogNorm(bottom if bottom < high else high / 10, high, clip=True)
    return Normalize(min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1.0)


def _to_pixels(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [height, width]: what each pixel shows, the value farthest from zero of the cells in it.

    NaN where nothing is; masked, so that it is drawn as nothing.
    """
    cells = pooled(values, starts(values.shape[0], height), starts(values.shape[1], width))
    rows = np.arange(height) * len(cells) // height
    columns = np.arange(width) * cells.shape[1] // width
    return np.ma.masked_invalid(cells[rows][:, columns])
