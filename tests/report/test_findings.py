"""What a notebook may say, how its numbers read, and how the records are gathered."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from habitlab.report import findings
from tests.report import demonstration

DIP = {
    "key": "dip",
    "label": "Dip in the second week",
    "estimate": -4.12,
    "ci_low": -5.18,
    "ci_high": -3.04,
    "level": 0.95,
    "n": 1842,
    "unit": "points",
    "method": "bootstrap by user",
}
CLAIM = {
    "key": "midway_dip",
    "statement": "Completion dips in days 7 to 14",
    "reported": None,
    "estimate": -4.1,
    "ci_low": -5.2,
    "ci_high": -3.0,
    "n": 1842,
    "verdict": "reproduced",
    "figure": None,
}


@dataclass(frozen=True)
class Estimate:
    key: str
    label: str
    estimate: float
    ci_low: float
    ci_high: float
    level: float
    n: int
    unit: str
    method: str
    reason: str = ""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is displayed, bundle by bundle."""
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: bundles.append(data))
    return bundles


def as_notebook(bundles: list[dict[str, Any]]) -> dict[str, Any]:
    """A notebook with one cell for each bundle, through JSON as on disk."""
    outputs = [[{"output_type": "display_data", "data": bundle, "metadata": {}}] for bundle in bundles]
    cells = [{"cell_type": "code", "source": "", "outputs": output} for output in outputs]
    return json.loads(json.dumps({"cells": cells}, allow_nan=False))


# ---------------------------------------------------------------------------------------------- publishing


def test_a_mapping_and_a_dataclass_publish_alike(shown: list[dict[str, Any]]) -> None:
    findings.publish(DIP)
    findings.publish(Estimate(**DIP))
    assert shown[0] == shown[1]


def test_numpy_numbers_become_plain_ones(shown: list[dict[str, Any]]) -> None:
    findings.publish(DIP | {"estimate": np.float64(-4.12), "n": np.int64(1842)})
    (finding,) = findings.collect(as_notebook(shown)).as_json()["findings"]
    assert finding == DIP


def test_the_json_has_the_fields_of_the_contract_in_their_order(shown: list[dict[str, Any]]) -> None:
    findings.publish(DIP, CLAIM, headline=True)
    record = findings.collect(as_notebook(shown)).as_json()
    assert tuple(record["findings"][0]) == findings.FINDING_FIELDS
    assert tuple(record["claims"][0]) == findings.CLAIM_FIELDS
    assert list(record) == ["question", "answer", "findings", "claims", "skipped"]


def test_headlines_come_first(shown: list[dict[str, Any]]) -> None:
    findings.publish(DIP, DIP | {"key": "other"})
    findings.publish(DIP | {"key": "main"}, headline=True)
    record = findings.collect(as_notebook(shown)).as_json()
    assert [finding["key"] for finding in record["findings"]] == ["main", "dip", "other"]


def test_what_is_not_known_is_null_and_listed_as_skipped(shown: list[dict[str, Any]]) -> None:
    nothing = {"estimate": math.nan, "ci_low": math.nan, "ci_high": math.nan, "reason": "fewer than 10 users"}
    findings.publish(DIP | nothing)
    record = findings.collect(as_notebook(shown)).as_json()
    assert record["findings"][0]["estimate"] is None
    assert record["skipped"] == [{"what": "Dip in the second week", "why": "fewer than 10 users"}]


def test_an_exact_count_has_neither_interval_nor_level(shown: list[dict[str, Any]]) -> None:
    findings.publish(DIP | {"estimate": 984211, "ci_low": None, "ci_high": None, "level": None, "unit": "rows"})
    assert "984,211 rows, n = 1,842" in shown[0]["text/plain"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"estimate": math.nan}, "`dip` has no estimate; give the `reason`"),
        ({"estimate": "many"}, "`estimate` must be a number, not 'many'"),
        ({"estimate": True}, "`estimate` must be a number"),
        ({"estimate": 41.2}, r"the interval \[-5.18, -3.04\] does not belong to the estimate 41.2"),
        ({"ci_low": -3.0, "ci_high": -5.0}, "does not belong"),
        ({"ci_low": None}, "one end of the interval is missing"),
        ({"ci_low": None, "ci_high": None}, "a `level` but no interval"),
        ({"level": None}, "an interval needs its `level`"),
        ({"level": 95}, "must lie between 0 and 1"),
        ({"n": None}, "`n` must be a whole number"),
        ({"n": 3.5}, "`n` must be a whole number"),
        ({"n": -1}, "`n` must be a whole number"),
        ({"method": " "}, "`method` must be a non-empty text"),
        ({"label": ""}, "`label` must be a non-empty text"),
        ({"key": "second week"}, "`key` must be a word"),
    ],
)
def test_a_wrong_finding_is_refused_with_its_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        findings.publish(DIP | change)


@pytest.mark.parametrize("field", findings.FINDING_FIELDS)
def test_each_field_of_a_finding_is_needed(field: str) -> None:
    with pytest.raises(ValueError, match=f"lacks `{field}`"):
        findings.publish({name: value for name, value in DIP.items() if name != field})


def test_a_verdict_is_one_of_four_words() -> None:
    with pytest.raises(ValueError, match="one of reproduced, differs, inconclusive, not testable"):
        findings.publish(CLAIM | {"verdict": "true"})


def test_only_dataclasses_and_mappings_are_items() -> None:
    with pytest.raises(ValueError, match="takes dataclasses or mappings, not float"):
        findings.publish(0.5)


def test_a_key_is_used_once_in_a_call_and_in_a_notebook(shown: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="finding `dip` is published twice"):
        findings.publish(DIP, DIP)
    findings.publish(DIP)
    findings.publish(DIP)
    with pytest.raises(ValueError, match=r"finding `dip` is published twice \(cell 1 and cell 2\)"):
        findings.collect(as_notebook(shown))


# ---------------------------------------------------------------------------------------------- prose


@pytest.mark.parametrize(
    ("slot", "text"),
    [
        ("{dip}", "−4.1 points"),
        ("{dip:size}", "4.1 points"),
        ("{dip:range}", "−5.2 to −3.0 points"),
        ("{dip:interval}", "−4.1 points (95% interval −5.2 to −3.0)"),
        ("{dip:n}", "1,842"),
    ],
)
def test_numbers_enter_prose_through_findings(slot: str, text: str) -> None:
    assert findings.fill(slot, {"dip": DIP})["text"] == text


def test_in_the_page_a_number_links_to_its_finding() -> None:
    markdown = findings.fill("It is {dip}.", {"dip": DIP | {"label": "A < B"}})["markdown"]
    assert '<a class="number" href="#finding-dip" title="A &lt; B:' in markdown


def test_an_unknown_slot_suggests_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"names \{dipp\}.*did you mean \{dip\}"):
        findings.fill("It is {dipp}", {"dip": DIP})
    with pytest.raises(ValueError, match="comes size, range, interval, n or label"):
        findings.answer("It is {dip:.2f}", dip=DIP)


def test_sentences_about_what_the_data_cannot_say_are_left_out(shown: list[dict[str, Any]]) -> None:
    unknown = DIP | {"estimate": None, "ci_low": None, "ci_high": None, "reason": "needs `at`"}
    findings.answer("It falls by {dip:size}.", "It peaks at {peak}.", dip=DIP, peak=unknown)
    findings.answer("It peaks at {peak}.", peak=unknown)
    findings.answer("It peaks at {peak}.", otherwise="Nobody knows.")
    findings.prose("It peaks at {peak}.", peak=unknown)
    said = [bundle["text/plain"] for bundle in shown]
    assert said == ["It falls by 4.1 points.", "These data cannot answer it.", "Nobody knows."]


def test_a_part_that_lacks_a_column_is_skipped_and_all_else_is_raised(shown: list[dict[str, Any]]) -> None:
    from habitlab.dataset import Dataset

    with findings.part("Gender gaps"):
        Dataset().require("users.gender")
    assert findings.collect(as_notebook(shown)).skipped[0]["what"] == "Gender gaps"
    with pytest.raises(ZeroDivisionError), findings.part("Gender gaps"):
        raise ZeroDivisionError


def test_prose_may_only_use_what_is_published(shown: list[dict[str, Any]]) -> None:
    findings.answer("It falls by {dip:size}.", dip=DIP)
    with pytest.raises(ValueError, match="takes a number from `dip`, which no publish"):
        findings.collect(as_notebook(shown))
    findings.publish(DIP)
    assert findings.collect(as_notebook(shown)).answer["text"] == "It falls by 4.1 points."


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"estimate": 0.5713, "ci_low": 0.562, "ci_high": 0.5804, "unit": "share"}, "57.1%"),
        ({"estimate": 0.0412, "ci_low": 0.0304, "ci_high": 0.0518, "unit": "share difference"}, "4.1 points"),
        ({"estimate": 0.7214, "ci_low": 0.69, "ci_high": 0.75, "unit": "r"}, "0.721"),
        ({"estimate": 1234.5, "ci_low": 1100.0, "ci_high": 1370.0, "unit": "users"}, "1,234 users"),
        ({"estimate": 7.26, "ci_low": 7.0, "ci_high": 7.5, "unit": "clock hour"}, "07:16"),
        ({"estimate": 1, "ci_low": None, "ci_high": None, "level": None, "unit": "days"}, "1 day"),
        ({"estimate": -0.001, "ci_low": -0.4, "ci_high": 0.4, "unit": ""}, "0.0"),
        ({"estimate": 0.0, "ci_low": 0.0, "ci_high": 0.0, "unit": "share"}, "0%"),
        ({"estimate": 2.34567, "ci_low": None, "ci_high": None, "level": None, "unit": "ratio"}, "2.35"),
    ],
)
def test_numbers_are_rounded_as_their_interval_asks(change: dict[str, Any], text: str) -> None:
    assert findings.fill("{x}", {"x": DIP | change})["text"] == text


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_rounding_moves_a_number_by_less_than_a_tenth_of_its_interval(estimate: float, half: float) -> None:
    record = DIP | {"estimate": estimate, "ci_low": estimate - half, "ci_high": estimate + half, "unit": ""}
    text = findings.fill("{x}", {"x": record})["text"]
    assert abs(float(text.replace("−", "-").replace(",", "")) - estimate) <= 0.15 * half + 1e-9 * abs(estimate)


# ---------------------------------------------------------------------------------------------- the rest


def test_9_2_d_about_says_how_many_refused_research(shown: list[dict[str, Any]]) -> None:
    nothing = pd.DataFrame({"date": pd.to_datetime([])})
    few = SimpleNamespace(
        users=range(3), habits=range(2), habit_tracking=nothing, metadata={"refused_research": "fewer than 10"}
    )
    findings.about(few)
    assert "without fewer than 10 who refused research" in str(shown)


def test_about_reads_source_counts_and_days_from_the_dataset(shown: list[dict[str, Any]]) -> None:
    dates = pd.DataFrame({"date": pd.to_datetime(["2025-01-01", "2025-03-02"]).astype("datetime64[s]")})
    metadata = {"simulated": True, "source": "simulation"}
    findings.about(SimpleNamespace(users=range(3), habits=range(2), habit_tracking=dates, metadata=metadata))
    assert findings.collect(as_notebook(shown)).about == {
        "simulated": True,
        "source": "simulation",
        "users": 3,
        "habits": 2,
        "rows": 2,
        "first_day": "2025-01-01",
        "last_day": "2025-03-02",
    }


def test_about_takes_an_empty_dataset(shown: list[dict[str, Any]]) -> None:
    from habitlab.dataset import Dataset

    findings.about(Dataset())
    assert findings.collect(as_notebook(shown)).about["rows"] == 0


def test_every_record_reads_as_plain_text_too(shown: list[dict[str, Any]]) -> None:
    findings.question("When?")
    findings.skip("gaps", "needs `gender`; this dataset has none")
    findings.publish(DIP)
    assert [bundle["text/plain"] for bundle in shown] == [
        "When?",
        "Skipped: gaps: needs `gender`; this dataset has none",
        "Dip in the second week: −4.1 points, 95% interval −5.2 to −3.0, n = 1,842",
    ]


def test_a_notebook_without_records_collects_to_nothing() -> None:
    found = findings.collect({"cells": [{"cell_type": "markdown", "source": "# Title"}]})
    assert found.as_json() == {"question": "", "answer": "", "findings": [], "claims": [], "skipped": []}


def test_the_demonstration_collects() -> None:
    found = findings.collect(demonstration.notebook())
    assert [len(part) for part in (found.findings, found.headlines, found.claims, found.figures)] == [5, 4, 6, 5]
    assert found.figures[0]["key"] == "adoption-cycle"
    assert found.figures[1]["key"] == "figure-2"
