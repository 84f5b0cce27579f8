"""Findings and tables for reports: nothing is estimated anew, nothing is lost."""

import numpy as np
import pandas as pd
import pytest

from habitlab import open_dataset, open_truth
from habitlab.dataset import Dataset, MissingColumn, quality
from habitlab.evaluation import behaviour, claims, tables

DRAW = {"level": 0.95, "resamples": 200, "seed": 0}


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return open_dataset()


@pytest.fixture(scope="module")
def results(sample: Dataset) -> list[claims.ClaimResult]:
    return claims.evaluate(sample, **DRAW)


def test_a_verdict_follows_from_the_published_interval(results: list[claims.ClaimResult]) -> None:
    sides = {claim.key: claim.side for claim in claims.REGISTER}
    for result in results:
        again = claims.verdict(result.ci_low, result.ci_high, reported=result.reported, side=sides[result.key])
        assert again == result.verdict, result.key


def test_the_tally_counts_each_claim_once(results: list[claims.ClaimResult]) -> None:
    assert sum(finding["estimate"] for finding in tables.tally(results)) == len(claims.REGISTER) == 12


def test_the_register_is_shown_whole(results: list[claims.ClaimResult], sample: Dataset) -> None:
    register = tables.register(results)
    assert list(register["key"]) == [claim.key for claim in claims.REGISTER]
    assert set(tables.numbered(results)["reported"]) == {0.72, -0.58, 0.81, 0.43, 0.27}
    levels = tables.levels(results)
    assert len(levels) == 12
    assert levels.groupby("id")["judged"].sum().eq(1).all()
    assert len(tables.naive(results)) >= 4


def test_pick_takes_one_row_and_says_so_when_there_is_none_or_several() -> None:
    row = {"estimate": 0.5, "ci_low": 0.4, "ci_high": 0.6, "level": 0.95, "users": 12, "pairs": 30}
    table = pd.DataFrame([row | {"day": day, "method": "mean", "reason": ""} for day in (1, 2, 2)])
    picked = tables.pick(table, key="first", label="First day", day=1)
    assert (picked.estimate, picked.n, picked.unit) == (0.5, 12, "share")
    assert "30 pairs of 12 users" in picked.method
    with pytest.raises(ValueError, match="2 rows"):
        tables.pick(table, key="second", label="Second day", day=2)
    with pytest.raises(MissingColumn, match="needs data on 3"):
        tables.pick(table, key="third", label="Third day", day=3)


def test_the_dip_is_that_of_the_register(sample: Dataset, results: list[claims.ClaimResult]) -> None:
    dip = {one.key: one.estimate for one in tables.dip(sample, **DRAW)}
    assert min(dip.values()) == pytest.approx(results[0].estimate)


def test_the_calendar_has_a_cell_a_day(tiny: Dataset, sample: Dataset) -> None:
    grid = tables.calendar(quality.coverage(sample))
    assert grid.shape[0] == 7
    assert grid.max().max() == 1
    assert grid.notna().sum().sum() == 150
    small = tables.calendar(quality.coverage(tiny))  # Thursday 1 to Saturday 3 January 2026
    assert small.loc["Thursday"].item() == 0.5  # one day done, of the two of the busiest day
    assert small.loc["Friday"].item() == 1.0
    assert small.loc["Saturday"].item() == 0.0


def test_what_is_not_there_is_said(tiny: Dataset) -> None:
    with pytest.raises(MissingColumn):
        tables.calendar(quality.coverage(Dataset()))
    assert tables.imports(tiny).empty
    assert tables.oddities(tiny).empty
    assert tables.coverage(Dataset(), level=0.95) == []
    nothing = claims.evaluate(tiny, **DRAW)
    with pytest.raises(MissingColumn):
        tables.numbered(nothing)
    assert {finding["key"]: finding["estimate"] for finding in tables.tally(nothing)}["not_testable"] == 12


def test_coverage_counts_known_days(tiny: Dataset) -> None:
    (share,) = tables.coverage(tiny, level=0.95)
    assert share.estimate == pytest.approx(3 / 5)
    assert np.isnan(share.ci_low)
    assert "too few users" in share.reason


def test_survival_curves_fall(sample: Dataset) -> None:
    curves = tables.survival_curves(behaviour.retention(sample, by="frequency", days=30, **DRAW))
    assert {"daily", "weekly"} <= set(curves)
    for curve in curves.values():
        assert (curve["survival"].diff().dropna() <= 0).all()


def test_the_truth_is_known_of_simulated_data_only(tmp_path) -> None:
    tiny = Dataset()
    tiny.save(tmp_path / "real.db")
    assert open_truth(tmp_path / "real.db") == {}
