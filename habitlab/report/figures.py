"""Figures in the house style: matplotlib drawn for a page that is read by anyone, anywhere.

`show(figure, caption=..., alt=..., data=...)` puts a figure, its caption, its alternative text and the plotted data
into the report. Inside `style()` lines differ by colour, marker and dash, so that nothing rests on colour alone.
"""

import contextlib
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from habitlab.report import findings
from habitlab.report.palette import DATA, LIGHT, RAMP

WIDE, NARROW = 7.2, 3.9  # inches: a column of text, and a phone

_LINES = ["-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), "-"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
_COLOURS = [LIGHT[name] for name in DATA if name != "yellow"] + [LIGHT["ink"]]

HOUSE: Any = {  # matplotlib types its settings by name, one by one
    "figure.figsize": (WIDE, 3.6),
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.prop_cycle": cycler(color=_COLOURS) + cycler(linestyle=_LINES) + cycler(marker=_MARKERS),
    "axes.edgecolor": LIGHT["rule"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["rule"],
    "ytick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
    "text.color": LIGHT["ink"],
    "font.family": ["DejaVu Sans"],  # matplotlib brings it along: the same outlines everywhere
    "font.size": 9.5,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "habitlab",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """House style for what is drawn inside: `with style(): figure, axes = plt.subplots()`."""
    with mpl.rc_context(HOUSE):
        yield


def use_style() -> None:
    """House style for the rest of the notebook."""
    mpl.rcParams.update(HOUSE)


def show(
    figure: Figure,
    *,
    caption: str | Sequence[str],
    alt: str,
    data: pd.DataFrame,
    key: str = "",
    reflow: bool | None = None,
    **numbers: findings.Item,
) -> None:
    """Put a figure into the report and close it.

    `caption` states the answer the figure gives, `alt` describes it to who cannot see it; both may hold `{name}` slots
    for findings handed in as `numbers`. Of a caption of several sentences those are left out whose findings are absent.
    `data` are the plotted values, offered as CSV (its index is left out). `key` names the figure for a claim's `figure`
    field. On a phone the figure is drawn anew at that width; with `reflow=False` (the default for panels side by side)
    it scrolls within its box.

    Raises ValueError when caption, alt text or data are empty.
    """
    if not isinstance(caption, str):
        caption = findings.known_sentences(caption, numbers)
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"show(): `{name}` is empty; every figure needs one")
    if data.empty or not len(data.columns):
        raise ValueError("show(): `data` is empty; hand in the plotted values")
    if reflow is None:
        reflow = all(_columns(axes) == 1 for axes in figure.axes)
    filled = findings.fill(caption, numbers)
    _break_titles(figure)
    wide = _svg(figure)
    narrow = ""
    if reflow and figure.get_figwidth() > NARROW:
        _fit_phone(figure)
        narrow = _svg(figure)
    plt.close(figure)
    payload = filled | {
        "kind": "figure",
        "key": key,
        "alt": findings.fill(alt, numbers)["text"],
        "svg": wide,
        "narrow": narrow,
        "csv": data.to_csv(index=False, lineterminator="\n", float_format="%.6g"),
    }
    findings._emit(payload, filled["text"], f"<figure>{wide}<figcaption>{filled['text']}</figcaption></figure>")


def _fit_phone(figure: Figure) -> None:
    """Narrow the figure, letters as large as before: fewer ticks, titles broken into lines."""
    figure.set_size_inches(NARROW, max(figure.get_figheight() * 0.9, 2.6))
    for axes in figure.axes:
        if isinstance(axes.xaxis.get_major_locator(), mpl.ticker.MaxNLocator):
            axes.locator_params(axis="x", nbins=4)
    _break_titles(figure)


def _break_titles(figure: Figure) -> None:
    """Break titles into lines where they would leave the figure: long tick labels push their start to the right."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for place in ("left", "center", "right"):
            text = axes.get_title(loc=place)
            title = {"left": axes._left_title, "center": axes.title, "right": axes._right_title}[place]  # type: ignore[attr-defined]
            box, edge = title.get_window_extent(), figure.bbox
            room = min(1.0, (edge.x1 - max(box.x0, edge.x0)) / box.width) if text and box.width else 1.0
            if room < 1:
                letters = max(map(len, text.splitlines()))
                axes.set_title(textwrap.fill(" ".join(text.split()), max(12, int(letters * room) - 1)), loc=place)


def _columns(axes: Axes) -> int:
    """How many panels stand side by side in the grid of these axes (colour bars do not count)."""
    spec = axes.get_subplotspec()
    if spec is None or axes.get_label() == "<colorbar>":
        return 1
    return spec.get_gridspec().ncols


def _svg(figure: Figure) -> str:
    """The figure as an SVG element: no date, no prologue, the same bytes each time."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": HOUSE["svg.hashsalt"], "svg.fonttype": HOUSE["svg.fonttype"]}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    # a hundredth of a point is enough, and halves the file; elsewhere (glyph scales) all digits count
    text = re.sub(r'\b(?:d|x|y)="[^"]*"', lambda part: re.sub(r"-?\d+\.\d{3,}", _hundredths, part[0]), text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


# ------------------------------------------------------------------------------------------ plots of this field


def line_with_band(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    label: str = "",
    every: int | None = None,
    **line: Any,
) -> None:
    """A line with its interval as a band, and its label at the line's end instead of a legend.

    `x, y, low, high`: (n,). `every` thins the markers (default: about twelve of them).
    """
    x, y, low, high = (np.asarray(values) for values in (x, y, low, high))
    line = {"markevery": every or max(1, len(x) // 12)} | line
    (drawn,) = axes.plot(x, y, **line)
    axes.fill_between(x, low.astype(float), high.astype(float), color=drawn.get_color(), alpha=0.16, linewidth=0)
    if label:
        label_end(axes, x[-1], float(y[-1]), label, drawn.get_color())


def label_end(axes: Axes, x: Any, y: float, label: str, colour: Any) -> None:
    """Write a label just right of the point (x, y); `axes.margins(x=...)` is not needed, the layout makes room."""
    axes.annotate(
        label,
        (x, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=_readable(colour),
        fontweight="bold",
        annotation_clip=False,
    )


def label_ends(axes: Axes, ends: Sequence[tuple[Any, float, str, Any]]) -> None:
    """`label_end` for several lines, (x, y, label, colour) each, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    points = axes.get_window_extent().height / axes.figure.dpi * 72
    gap = 13 / points * (high - low)
    last = -np.inf
    for x, y, label, colour in sorted(ends, key=lambda end: end[1]):
        last = max(y, last + gap)
        label_end(axes, x, last, label, colour)


def _readable(colour: Any) -> Any:
    """Text in pale data colours falls below 4.5:1 on paper: ink serves there, the label stands beside its line."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return colour if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18 else LIGHT["ink"]


def intervals(
    axes: Axes,
    labels: Sequence[str],
    estimate: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    zero: float | None = 0.0,
    n: Sequence[int] | None = None,
) -> None:
    """Forest plot: a row for each label, first on top; `reference` values (reported, true) as open diamonds."""
    estimate, low, high = (np.asarray(values, dtype=float) for values in (estimate, low, high))
    rows = np.arange(len(labels))
    if zero is not None:
        axes.axvline(zero, color=LIGHT["muted"], linewidth=1, linestyle="-", zorder=1)
    axes.hlines(rows, low, high, color=LIGHT["blue"], linewidth=2.4, zorder=2)
    axes.plot(estimate, rows, linestyle="none", marker="o", color=LIGHT["blue"], markersize=6.5, zorder=3)
    if reference is not None:
        axes.plot(
            np.asarray(reference, dtype=float),
            rows,
            linestyle="none",
            marker="D",
            markersize=6,
            zorder=4,
            markerfacecolor="none",
            markeredgewidth=1.6,
            markeredgecolor=LIGHT["vermillion"],
        )
    shown = labels if n is None else [f"{label}\nn = {count:,}" for label, count in zip(labels, n, strict=True)]
    axes.set_yticks(rows, shown)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def survival(axes: Axes, curves: Mapping[str, pd.DataFrame], *, at: Sequence[float], unit: str = "days") -> None:
    """Survival curves with bands, and the counts at risk below.

    `curves`: label -> frame with `time` (rising), `survival`, `ci_low`, `ci_high`, `at_risk`; `at`: the times at which
    the number still at risk is written.
    """
    below: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "va": "center",
        "fontsize": 8.5,
    }
    ends = []
    for row, (label, curve) in enumerate(curves.items()):
        (line,) = axes.plot(curve["time"], curve["survival"], drawstyle="steps-post", marker="none")
        axes.fill_between(
            curve["time"],
            curve["ci_low"],
            curve["ci_high"],
            step="post",
            color=line.get_color(),
            alpha=0.14,
            linewidth=0,
        )
        ends.append((curve["time"].iloc[-1], float(curve["survival"].iloc[-1]), label, line.get_color()))
        # at risk at a time: counted at the first event at or after it
        place = np.searchsorted(curve["time"], list(at), side="left")
        counts = np.append(curve["at_risk"].to_numpy(), 0)[np.minimum(place, len(curve))]
        for moment, count in zip(at, counts, strict=True):
            axes.annotate(f"{count:,.0f}", (moment, 0), (0, -58 - 14 * row), ha="center", color=LIGHT["muted"], **below)
        axes.annotate(label, (min(at), 0), (-26, -58 - 14 * row), ha="right", color=LIGHT["ink"], **below)
    axes.annotate("still at risk", (min(at), 0), (-26, -44), ha="right", color=LIGHT["muted"], style="italic", **below)
    axes.set_xticks(list(at))
    axes.set_xlabel(unit)
    axes.set_xlim(min(at), max(at))
    axes.set_ylim(0, 1)
    label_ends(axes, ends)  # pushes labels apart on the scale that is shown
    percent_axis(axes.yaxis)


def clock_histogram(axes: Axes, share: ArrayLike, *, bands: Sequence[tuple[float, float]] = ()) -> None:
    """Bars over the 24 hours of the local clock; `share`: (24 * m,) shares, `bands`: hours (from, to) set off.

    The bars of a band are hatched as well as coloured.
    """
    share = np.asarray(share, dtype=float)
    width = 24 / len(share)
    starts = np.arange(len(share)) * width
    inside = np.zeros(len(share), dtype=bool)
    for start, end in bands:
        inside |= (starts >= start) & (starts < end)
    gap = width * 0.86
    axes.bar(starts[~inside], share[~inside], width=gap, align="edge", color=LIGHT["sky"])
    axes.bar(
        starts[inside],
        share[inside],
        width=gap,
        align="edge",
        color=LIGHT["blue"],
        edgecolor=LIGHT["paper"],
        hatch="///",
        linewidth=0,
    )
    axes.set_xlim(0, 24)
    axes.set_xticks([0, 6, 12, 18, 24], ["midnight", "06:00", "noon", "18:00", "midnight"])
    axes.set_xlabel("local time")
    percent_axis(axes.yaxis)


def calendar(
    axes: Axes,
    values: pd.DataFrame,
    *,
    label: str,
    share: bool = True,
    vmin: float | None = None,
    vmax: float | None = None,
) -> None:
    """Heat map over days: `values` has a row for each group and a column for each day (or week), dates as columns.

    Missing cells stay empty. Six or so steps of one colour, ordered by lightness, so it reads without hue. `share`: the
    values are shares, from 0 to 1 unless `vmin` and `vmax` say otherwise, and the scale is in per cent.
    """
    if share:
        vmin, vmax = 0.0 if vmin is None else vmin, 1.0 if vmax is None else vmax
    grid = np.ma.masked_invalid(values.to_numpy(dtype=float))
    days = pd.DatetimeIndex(values.columns)
    steps = mpl.ticker.MaxNLocator(nbins=6).tick_values(
        grid.min() if vmin is None else vmin, grid.max() if vmax is None else vmax
    )
    ramp = [LIGHT[name] for name in RAMP]
    colours = [ramp[i] for i in np.linspace(0, len(ramp) - 1, len(steps) - 1).round().astype(int)]
    mesh = axes.pcolormesh(
        np.arange(grid.shape[1] + 1),
        np.arange(grid.shape[0] + 1),
        grid,
        cmap=mpl.colors.ListedColormap(colours),
        norm=mpl.colors.BoundaryNorm(steps, len(colours)),
        edgecolor=LIGHT["paper"],
        linewidth=0.6,
        rasterized=grid.size > 2000,
    )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_yticks(np.arange(grid.shape[0]) + 0.5, [str(name) for name in values.index])
    axes.tick_params(axis="y", labelcolor=LIGHT["ink"])
    firsts = np.flatnonzero(np.r_[True, np.diff(days.year * 12 + days.month) != 0])
    firsts = firsts[:: max(1, len(firsts) // 6)]
    axes.set_xticks(
        firsts,
        [
            f"{days[i]:%b}\n{days[i]:%Y}" if k == 0 or days[i].month == 1 else f"{days[i]:%b}"
            for k, i in enumerate(firsts)
        ],
    )
    axes.tick_params(axis="x", length=0)
    bar = axes.figure.colorbar(
        mesh, ax=axes, orientation="horizontal", location="top", shrink=0.7, aspect=36, anchor=(1, 0), drawedges=True
    )
    bar.set_label(label)
    bar.ax.tick_params(length=0, labelsize=8.5)
    bar.outline.set_visible(False)
    bar.dividers.set_color(LIGHT["paper"])
    if share:
        bar.ax.xaxis.set_major_formatter(_percent)


def percent_axis(axis: Any) -> None:
    """Show shares of 0 to 1 on this axis in per cent."""
    axis.set_major_locator(mpl.ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_percent)


def _percent(value: float, _: float) -> str:
    return f"{round(100 * value, 6):g}%".replace("-", "−")


def show_table(frame: pd.DataFrame, *, caption: str, empty: str = "none", **numbers: findings.Item) -> None:
    """Put a table into the report: numbers right-aligned to three significant digits, with a CSV of the exact values.

    An index without a name counts as row numbers and is left out. A table without rows is said to be `empty`, in words.
    Raises ValueError for an empty caption or a table without columns.
    """
    if not caption.strip():
        raise ValueError("show_table(): `caption` is empty; every table needs one")
    if not len(frame.columns):
        raise ValueError("show_table(): the table has no columns")
    if frame.empty:
        findings.prose(f"{caption}: {empty}.", **numbers)
        return
    filled = findings.fill(caption, numbers)
    named = any(name is not None for name in frame.index.names)
    text = frame.rename(columns=lambda name: str(name).replace("_", " ")).to_html(
        index=named,
        border=0,
        float_format=findings.rounded,
        formatters={str(name).replace("_", " "): _as_text(frame[name]) for name in frame.columns},
        na_rep="–",
        index_names=named,
    )
    payload = filled | {"kind": "table", "html": text, "csv": frame.to_csv(index=named, lineterminator="\n")}
    findings._emit(payload, f"{filled['text']}\n{frame}", text)


def _as_text(values: pd.Series) -> Callable[[Any], str] | None:
    """How the cells of a column are written; None leaves it to pandas."""
    if pd.api.types.is_bool_dtype(values):
        return lambda value: "yes" if value else "no"
    if pd.api.types.is_integer_dtype(values):
        return lambda value: "–" if pd.isna(value) else f"{value:,}"
    if pd.api.types.is_datetime64_any_dtype(values):
        return lambda value: "–" if pd.isna(value) else f"{value:%Y-%m-%d}"
    if isinstance(values.dtype, pd.CategoricalDtype):
        return None
    if values.dtype == object:
        return lambda value: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return None
