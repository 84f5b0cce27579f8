"""Figures are the same bytes each time, carry caption, alternative text and data, and never rest on colour alone."""

import io
import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from habitlab.report import figures, findings
from habitlab.report.palette import COLOURS

DATA = pd.DataFrame({"day": [1, 2, 3], "share": [0.1, 0.25, 1 / 3]})


@pytest.fixture(autouse=True)
def _house_style() -> Any:
    with figures.style():
        yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    payloads: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: payloads.append(data[findings.MIME]))
    return payloads


def lines(count: int = 2, **options: Any) -> mpl.figure.Figure:
    figure, axes = plt.subplots(**options)
    for line in range(count):
        np.ravel(axes)[0].plot([1, 2, 3], [line, line + 1, line])
    return figure


def show(figure: mpl.figure.Figure, **changes: Any) -> None:
    figures.show(figure, **({"caption": "It rises.", "alt": "A rising line.", "data": DATA} | changes))


def test_the_same_figure_is_the_same_bytes(shown: list[dict[str, Any]]) -> None:
    show(lines())
    show(lines())
    assert shown[0] == shown[1]


def test_an_svg_holds_no_date_no_prologue_and_letters_as_outlines(shown: list[dict[str, Any]]) -> None:
    show(lines())
    svg = shown[0]["svg"]
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert not re.search(r"<metadata|<!--|<text|\b20\d\d-\d\d", svg)


def test_coordinates_keep_two_decimals_and_glyph_scales_all_of_theirs() -> None:
    svg = figures._svg(lines())
    assert not re.search(r'\bd="[^"]*\.\d{3}', svg)
    assert "scale(0.015625)" in svg


def test_the_figure_is_closed_and_drawn_anew_for_a_phone(shown: list[dict[str, Any]]) -> None:
    before = plt.get_fignums()
    show(lines())
    assert plt.get_fignums() == before
    wide, narrow = (float(re.search(r'width="([\d.]+)pt"', shown[0][kind])[1]) for kind in ("svg", "narrow"))
    assert (wide, narrow) == (figures.WIDE * 72, pytest.approx(figures.NARROW * 72))


@pytest.mark.parametrize("fit", [figures._break_titles, figures._fit_phone], ids=["desk", "phone"])
def test_no_title_leaves_the_figure_whatever_stands_left_of_it(fit: Any) -> None:
    figure, axes = plt.subplots()
    axes.barh(["a label of some length", "b"], [1, 2])
    axes.set_title("A title that says at some length what this figure answers, as titles should", loc="left")
    fit(figure)
    figure.draw_without_rendering()
    assert axes._left_title.get_window_extent().x1 <= figure.bbox.x1
    assert "\n" in axes.get_title(loc="left")


def test_panels_side_by_side_scroll_instead(shown: list[dict[str, Any]]) -> None:
    show(lines(ncols=2))
    show(lines(nrows=2))
    assert shown[0]["narrow"] == ""
    assert shown[1]["narrow"] != ""


def test_the_plotted_data_go_along_as_csv(shown: list[dict[str, Any]]) -> None:
    show(lines())
    assert shown[0]["csv"] == "day,share\n1,0.1\n2,0.25\n3,0.333333\n"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(shown[0]["csv"])), DATA, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alt": ""}, "`alt` is empty"),
        ({"caption": " "}, "`caption` is empty"),
        ({"data": pd.DataFrame()}, "`data` is empty"),
    ],
)
def test_caption_alternative_text_and_data_are_needed(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        show(lines(), **change)


def test_lines_differ_by_dash_and_marker_as_well_as_colour() -> None:
    axes = lines(7).axes[0]
    looks = [(line.get_linestyle(), str(line._dash_pattern), line.get_marker()) for line in axes.lines]
    colours = {line.get_color() for line in axes.lines}
    assert len({marker for *_, marker in looks}) == 7
    assert len({dash for _, dash, _ in looks}) >= 6
    assert len(colours) == 7


def _luminance(colour: str) -> float:
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_letters_and_marks_stand_out_in_both_schemes(scheme: int) -> None:
    paper = COLOURS["paper"][scheme]
    for name in ("ink", "muted"):
        assert _contrast(COLOURS[name][scheme], paper) >= 4.5
    for name in ("blue", "vermillion", "green"):  # the first of the cycle carry the marks
        assert _contrast(COLOURS[name][scheme], paper) >= 3
    steps = [_contrast(COLOURS[f"ramp-{step}"][scheme], paper) for step in range(1, 8)]
    assert steps == sorted(steps)


def test_labels_in_pale_colours_turn_to_ink() -> None:
    for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "yellow"):
        assert _contrast(figures._readable(COLOURS[name][0]), COLOURS["paper"][0]) >= 4.5


# ------------------------------------------------------------------------------------------ plots of this field


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_at_risk_counts_stand_below_a_survival_curve() -> None:
    curve = pd.DataFrame({"time": [0, 3, 8], "survival": [1, 0.7, 0.5], "at_risk": [10, 7, 2]})
    curve = curve.assign(ci_low=curve["survival"] - 0.1, ci_high=curve["survival"] + 0.1)
    _, axes = plt.subplots()
    figures.survival(axes, {"daily": curve}, at=[0, 2, 8, 9])
    # at time 2 the next event is that of time 3; after the last event nobody is left to lose
    assert texts(axes) == ["10", "7", "2", "0", "daily", "still at risk", "daily"]


def test_labels_at_line_ends_do_not_overlap() -> None:
    _, axes = plt.subplots()
    axes.set_ylim(0, 1)
    figures.label_ends(axes, [(1, 0.50, "a", "#000000"), (1, 0.51, "b", "#000000"), (1, 0.9, "c", "#000000")])
    heights = [text.xy[1] for text in axes.texts]
    points = axes.get_window_extent().height / axes.figure.dpi * 72
    assert np.diff(sorted(heights)).min() * points >= 12.9
    assert heights[2] == 0.9


def test_clock_bars_in_a_band_are_hatched() -> None:
    _, axes = plt.subplots()
    figures.clock_histogram(axes, np.full(24, 1 / 24), bands=[(6, 8), (19, 21)])
    hatched = [round(bar.get_x()) for bar in axes.patches if bar.get_hatch()]
    assert hatched == [6, 7, 19, 20]


def test_intervals_put_the_first_label_on_top() -> None:
    _, axes = plt.subplots()
    figures.intervals(axes, ["a", "b"], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3], n=[5, 1200], reference=[0.1, np.nan])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a\nn = 5", "b\nn = 1,200"]
    assert axes.yaxis_inverted()


@pytest.mark.parametrize("fill", [0.5, 1.0, 0.0])
def test_a_calendar_leaves_missing_days_empty(fill: float) -> None:
    days = pd.date_range("2025-01-06", periods=10, freq="7D")
    values = pd.DataFrame(fill, index=["diet", "sleep"], columns=days)
    values.iloc[0, 2] = np.nan
    _, axes = plt.subplots()
    figures.calendar(axes, values, label="recorded")
    (mesh,) = axes.collections
    assert mesh.get_array().mask.sum() == 1
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Jan\n2025", "Feb", "Mar"]


def test_a_table_shows_rounded_numbers_and_hands_out_exact_ones(shown: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame({"band": ["5-15"], "rows": [391022], "share": [0.123456789], "left": [np.nan]})
    figures.show_table(frame, caption="By band")
    assert re.findall(r"<td>(.*?)</td>", shown[0]["html"]) == ["5-15", "391,022", "0.123", "–"]
    assert "0.123456789" in shown[0]["csv"]
    with pytest.raises(ValueError, match="`caption` is empty"):
        figures.show_table(frame, caption="")
