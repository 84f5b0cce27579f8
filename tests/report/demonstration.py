# ruff: noqa: E501  (cells keep the long lines a notebook has)
"""A notebook like a real report, executed here in plain Python, so that pages can be tested without a kernel."""

import copy
import functools
import json
from typing import Any
from unittest import mock

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PARAMETERS = {"data": "sample", "level": 0.95, "resamples": 500, "seed": 0}
PROVENANCE = {
    "data": "sha256 5f0c1e8a7d2b",
    "code": "sha256 a81f22c09b6e",
    "lock": "sha256 0de4417fc3aa",
    "seed": 0,
    "command": "habitlab report 02-user-behaviour --data data/habittrack.db --set seed=0",
}

CELLS = [
    "# When habits hold, and when they give way",
    """\
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from types import SimpleNamespace
from habitlab.report import figures, findings
figures.use_style()
data: str = "sample"
seed: int = 0""",
    """\
dataset = SimpleNamespace(
    users=range(2000), habits=range(165), metadata={"simulated": True, "source": "simulation, seed 0"},
    habit_tracking=pd.DataFrame({"date": pd.date_range("2025-01-06", periods=180)}),
)
findings.about(dataset)
findings.question("How does completing a habit change over its first weeks, and over the day?")""",
    """\
common = {"level": 0.95, "n": 1842}
dip = common | {"key": "midway_dip", "label": "Dip in days 7 to 14, those still active", "estimate": -4.12,
    "ci_low": -5.18, "ci_high": -3.04, "unit": "points",
    "method": "mean of days 7–14 less mean of days 1–3; bootstrap by user, 500 resamples"}
peaks = common | {"key": "peak_share", "label": "Completions at 6–8 or 19–21, local time", "estimate": 0.5713,
    "ci_low": 0.562, "ci_high": 0.5804, "unit": "share", "method": "share of completions by user, averaged"}
retention = common | {"key": "retention_90", "label": "Habits still alive on day 90", "estimate": 0.571, "ci_low": 0.549,
    "ci_high": 0.593, "unit": "share", "n": 9034, "method": "Kaplan-Meier, clustered by user"}
strength = common | {"key": "consistency_streak", "label": "Consistent hour and streak", "estimate": 0.7921,
    "ci_low": 0.771, "ci_high": 0.8122, "unit": "r", "method": "Pearson, pairs with 30 completions or more"}
minutes = common | {"key": "best_minutes", "label": "Gain of 5-15 minutes over 20-30", "estimate": 6.38, "ci_low": 4.1,
    "ci_high": 8.71, "unit": "points", "method": "standardised for category and difficulty"}
findings.publish(dip, peaks, retention, strength, headline=True)
findings.publish(minutes)
findings.answer("Completion sags by {dip:size} in the second week and then recovers; {peaks} of it happens in two "
    "windows, early morning and evening.", dip=dip, peaks=peaks)""",
    """\
claim = {"n": 1842, "level": 0.95}
findings.publish(
    claim | {"key": "complexity_time_commitment", "statement": "Complex habits go with a large time commitment (r = 0.72)",
        "reported": 0.72, "estimate": 0.721, "ci_low": 0.69, "ci_high": 0.75, "verdict": "reproduced", "figure": None},
    claim | {"key": "concurrent_habits_completion", "statement": "More habits at once, lower completion (r = -0.58)",
        "reported": -0.58, "estimate": -0.562, "ci_low": -0.6, "ci_high": -0.524, "verdict": "reproduced", "figure": None},
    claim | {"key": "clear_description_adoption", "statement": "Clear descriptions raise adoption by 27 %",
        "estimand": "Relative risk of accepting a recommendation in clear words, drawn by lot, less 1",
        "units": "recommendations", "unit": "share", "reported": 0.27, "estimate": 0.081, "ci_low": 0.03, "ci_high": 0.14, "verdict": "differs", "figure": None},
    claim | {"key": "midway_dip", "statement": "Completion dips in days 7 to 14", "reported": "below days 1–3 and 22–35",
        "estimate": -4.12, "ci_low": -5.18, "ci_high": -3.04, "unit": "points", "verdict": "reproduced",
        "figure": "adoption-cycle"},
    claim | {"key": "goal_setting_completion", "statement": "Goal setting goes with completion (r = 0.43)",
        "reported": 0.43, "estimate": 0.22, "ci_low": -0.04, "ci_high": 0.47, "n": 61, "verdict": "inconclusive",
        "figure": None},
    claim | {"key": "demographics_category", "statement": "Demography goes with the category chosen", "reported": "strong",
        "estimate": None, "ci_low": None, "ci_high": None, "n": 0, "verdict": "not testable", "figure": None,
        "reason": "needs `gender`; this dataset has none"},
)""",
    "## The first five weeks\n\nA habit's days are counted from its **adoption**. Who gives up leaves the count, so the curve "
    "of those *still active* and the curve of *all who began* part ways.",
    """\
rng = np.random.default_rng(seed)
day = np.arange(1, 36)
active = 0.66 - 0.05 * np.exp(-(((day - 10.5) / 3.2) ** 2)) + rng.normal(0, 0.004, day.size)
everyone = active * np.exp(-0.011 * day)
cycle = pd.DataFrame({"day": day, "active": active, "everyone": everyone, "low": active - 0.012, "high": active + 0.012})
figure, axes = plt.subplots()
axes.axvspan(7, 14, color="#56b4e9", alpha=0.12, linewidth=0)
figures.line_with_band(axes, day, active, active - 0.012, active + 0.012, label="still active")
figures.line_with_band(axes, day, everyone, everyone - 0.014, everyone + 0.014, label="all who began")
axes.set(xlabel="day since adoption", xlim=(1, 35), ylim=(0.3, 0.75))
axes.set_title("Scheduled days done")
figures.percent_axis(axes.yaxis)
figures.show(figure, key="adoption-cycle", data=cycle,
    caption="Those still active do {dip:size} less in the second week, and are back by the fourth.",
    alt="Two lines over 35 days. Those still active fall from 66 to 61 per cent about day 10 and recover by day 20; all who "
    "began fall steadily to 45 per cent.", dip=dip)""",
    """\
findings.prose("The dip is {dip:interval}; it rests on {dip:n} users. Shorter habits fare better: {minutes} between the bands.",
    dip=dip, minutes=minutes)""",
    "## The clock\n\nHours are local to each user, in the time zone that `users.zone` names.",
    """\
hours = np.arange(48) / 2
share = 0.4 + 3 * np.exp(-((hours - 7) / 0.9) ** 2) + 3.1 * np.exp(-((hours - 20) / 1.0) ** 2) + rng.uniform(0, 0.2, 48)
share = share / share.sum()
figure, axes = plt.subplots(figsize=(figures.WIDE, 3))
figures.clock_histogram(axes, share, bands=[(6, 8), (19, 21)])
axes.set_title("Share of completions in each half hour")
figures.show(figure, data=pd.DataFrame({"hour": hours, "share": share}),
    caption="{peaks} of completions fall into the two hatched windows, 6–8 and 19–21.",
    alt="Bars over 24 hours with two peaks, about 7 in the morning and 8 in the evening.", peaks=peaks)""",
    "## Who stays\n\nA habit ends when it is abandoned; habits still running at the end of the data are censored.",
    """\
time = np.arange(0, 181)
curves = {}
for name, scale in (("weekly", 190.0), ("daily", 260.0)):
    alive = np.exp(-((time / scale) ** 0.6))
    curves[name] = pd.DataFrame({"time": time, "survival": alive, "ci_low": alive - 0.01 - time / 9000,
        "ci_high": alive + 0.01 + time / 9000, "at_risk": (3000 * alive * (1 - time / 200)).astype(int)})
figure, axes = plt.subplots(figsize=(figures.WIDE, 4.2))
figures.survival(axes, curves, at=[0, 45, 90, 135, 180], unit="days since adoption")
axes.set_title("Habits not yet abandoned")
figures.show(figure, data=pd.concat(curves, names=["target"]).reset_index(level=0),
    caption="Daily habits outlive weekly ones: {retention} of all are alive on day 90.",
    alt="Two falling curves over 180 days with bands; daily stays above weekly throughout.", retention=retention)""",
    """\
bands = ["under 5 min", "5–15 min", "15–20 min", "20–30 min", "over 30 min"]
rate = np.array([0.492, 0.568, 0.533, 0.504, 0.461])
figure, axes = plt.subplots(figsize=(figures.WIDE, 3))
figures.intervals(axes, bands, rate - 0.51, rate - 0.525, rate - 0.495, n=[812, 3044, 2201, 1790, 1187],
    reference=[np.nan, 0.06, np.nan, np.nan, np.nan])
axes.set_title("Completion against the average habit, standardised")
figures.show(figure, data=pd.DataFrame({"band": bands, "rate": rate}),
    caption="Habits of five to fifteen minutes are completed most.",
    alt="Five intervals; the one for 5 to 15 minutes is highest at plus 6 points.")
figures.show_table(pd.DataFrame({"minutes": bands, "habits": [12, 61, 40, 31, 21], "rows": [48211, 391022, 240551, 180442, 91007],
    "completion": rate, "retained on day 90": rate - 0.03}), caption="Completion and retention by minutes, not standardised")""",
    """\
weeks = pd.date_range("2025-01-06", periods=26, freq="7D")
grid = pd.DataFrame(rng.uniform(0.5, 1, (6, 26)).round(3), columns=weeks,
    index=["mindfulness", "physical", "learning", "social", "diet", "sleep"])
grid.iloc[4, 5:9] = np.nan
figure, axes = plt.subplots(figsize=(figures.WIDE, 3))
figures.calendar(axes, grid, label="share of scheduled days recorded")
figures.show(figure, data=grid.T.reset_index(names="week"), caption="Diet has no records for four weeks of February.",
    alt="Heat map of six categories by 26 weeks; one gap in diet.")
print("checked 6 categories")""",
    """\
pd.DataFrame({"table": ["users", "habit_tracking"], "rows": [2000, 984211], "broken": [0, 3]})""",
    """\
findings.skip("Gaps between genders", "needs `gender`; this dataset has none")
findings.skip("Effect of reminders", "needs table `sessions`; this dataset has none")
findings.limits("- The people are **simulated**: the size of the dip is a parameter, not a discovery.\\n"
    "- Completion is what users *recorded*; a habit done and not recorded counts as missed.\\n"
    "- Those still active are a selection: people who leave after a bad week raise the average of those who stay.")
findings.methods("Each number is a mean over users, so that no one counts more for having more habits. Intervals are "
    "percentile intervals of a bootstrap by user.\\n\\nSee [Davison and Hinkley (1997)](#methods) for the theory.")""",
]


def notebook() -> nbformat.NotebookNode:
    """The demonstration, executed: outputs are what its cells really emit."""
    return copy.deepcopy(_executed())


@functools.cache
def _executed() -> nbformat.NotebookNode:
    outputs: list[nbformat.NotebookNode] = []

    def display(data: dict[str, Any], *, raw: bool) -> None:
        assert raw
        outputs.append(new_output("display_data", data=json.loads(json.dumps(data, allow_nan=False))))

    space: dict[str, Any] = {}
    cells = []
    with mock.patch("IPython.display.display", display):
        for number, source in enumerate(CELLS):
            if not _is_code(source):
                cells.append(new_markdown_cell(source, id=f"cell-{number:03d}"))
                continue
            outputs.clear()
            body, _, last = source.rpartition("\n")
            if source.startswith("pd.DataFrame"):
                frame = eval(source, space)
                outputs.append(
                    new_output(
                        "execute_result",
                        execution_count=number,
                        data={"text/html": frame._repr_html_(), "text/plain": str(frame)},
                    )
                )
            elif last.startswith("print("):
                exec(body, space)
                outputs.append(new_output("stream", name="stdout", text="checked 6 categories\n"))
            else:
                exec(source, space)
            cells.append(new_code_cell(source, id=f"cell-{number:03d}", execution_count=number, outputs=list(outputs)))
    return new_notebook(cells=cells)


def failed_notebook() -> nbformat.NotebookNode:
    """A notebook whose third cell raises."""
    trace = [
        "\x1b[31m------------\x1b[39m",
        "\x1b[31mMissingColumn\x1b[39m Traceback (most recent call last)",
        "Cell In[2], line 1\n----> 1 dataset.require('users.gender')",
        "MissingColumn: needs `gender`; this dataset has none",
    ]
    error = new_output("error", ename="MissingColumn", evalue="needs `gender`; this dataset has none", traceback=trace)
    return new_notebook(
        cells=[
            new_markdown_cell("# Fairness\n\n## By gender", id="cell-000"),
            new_code_cell("import habitlab", id="cell-001", execution_count=1),
            new_code_cell("dataset.require('users.gender')", id="cell-002", execution_count=2, outputs=[error]),
            new_code_cell("print('never')", id="cell-003"),
        ]
    )


def _is_code(source: str) -> bool:
    return not source.startswith("#")
