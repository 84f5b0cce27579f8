"""Is this hour, or this day, unlike its kind? A robust seasonal detector, a cumulative sum, and the overview's rule.

Each value is held against the median of earlier values of its own kind (the same hour of the week, or day of the
week), on the scale of how far earlier values were off (1.4826 times the median absolute deviation, with a floor).
Medians take no notice of an outage of a day, so that it does not hide the next one. A cumulative sum (Page 1954,
Biometrika 41:100) of the same scores finds what creeps: a shift too small to stand out in any single hour.

The rate of false alarms is asked for, not the number of sigmas: `false_alarms` per value that is looked at. It holds
for values that are normal around their season, roughly so for others; so take logarithms of times (`scale="log"`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]
Season = Literal["hour of week", "hour of day", "day of week", "none"]

_MAD = 1.482602218505602  # the median absolute deviation of a normal distribution times this is its standard deviation
_EFFICIENCY = (
    0.37  # of the median absolute deviation beside the standard deviation: so many degrees of freedom are left
)
CUSUM_SLACK = 0.5
"""Half of the shift, in standard deviations, that the cumulative sum finds soonest."""
_CLIPPED = 4.0  # what one value adds to the cumulative sum, at most
# Of the false alarms asked for: the sum's own law knows nothing of seasons that are estimated, which make it pass its
# limit about twice as often.
_SHARE_OF_OUTLIERS, _SHARE_OF_SHIFTS = 0.5, 0.2


def seasonal(
    values: pd.Series,
    *,
    season: Season = "hour of week",
    scale: Literal["as it is", "log"] = "as it is",
    false_alarms: float = 0.001,
    weeks: int = 8,
    least: int = 3,
    floor: float = 0.0,
    relative_floor: float = 0.01,
    noise: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Score each value by those before it; nothing later is looked at, so a replay alarms as the day itself did.

    Parameters
    ----------
    values
        Indexed by instants; in any order, the first of several at one instant counts. NaN is not looked at.
    scale
        "log" for what is positive and skewed, such as times.
    weeks, least
        History that counts, and values of the same season in it, and as many others again, that are needed.
    floor, relative_floor
        Least standard deviation that is believed: in units of the values, and as a share of what is expected (on a log
        scale the two are one: `relative_floor`). So a constant series never alarms, nor does a change of a 10,000th.
    noise
        Standard deviation of each value by sampling alone (n,), such as sqrt(p (1 - p) / n) of a share: a floor, too.

    Returns
    -------
    DataFrame
        Index sorted by time. value, expected, low, high (bounds of an outlier), score (in standard deviations), outlier
        (beyond low or high), cusum (the larger of the two sums), shift (the sum passed its limit, and starts anew),
        alarm (either), direction (1 up, -1 down, 0). NaN and False where history is too short.

    Raises
    ------
    ValueError
        The index holds no instants, the values on a log scale are not positive, or a parameter is out of range.
    """
    if not 0 < false_alarms < 0.5 or weeks < 1 or least < 2 or min(floor, relative_floor) < 0:
        raise ValueError("false_alarms lies between 0 and 0.5, weeks from 1, least from 2, floors are not negative")
    if not isinstance(values.index, pd.DatetimeIndex):
        raise ValueError("`values` are indexed by instants")
    extra = pd.Series(0.0 if noise is None else np.asarray(noise, dtype=float), values.index)
    order = np.argsort(values.index.to_numpy(), kind="stable")
    kept = order[~values.index[order].duplicated()]
    series, extra = values.iloc[kept].astype(float), extra.iloc[kept].fillna(0.0)
    y = series.to_numpy()
    if scale == "log":
        if (y <= 0).any():
            raise ValueError("values on a log scale are positive; leave out or raise those of 0")
        extra, y = extra / np.where(np.isfinite(y), y, 1.0), np.log(y)
        floors = np.full(len(y), np.log1p(relative_floor))
    else:
        floors = np.full(len(y), floor)
    past = f"{7 * weeks}D"
    looked = pd.DataFrame({"y": y, "slot": _slots(series.index, season)}, index=series.index)
    of_slot = looked.groupby("slot")["y"].rolling(past, closed="left", min_periods=least).median()
    expected = of_slot.droplevel(0).reindex(series.index).to_numpy()  # of those before, never of the value itself
    residual = y - expected
    off = pd.Series(np.abs(residual), series.index).rolling(past, closed="left", min_periods=2 * least)
    spread = np.maximum.reduce([_MAD * off.median().to_numpy(), floors, extra.to_numpy()])
    if scale != "log":
        spread = np.maximum(spread, relative_floor * np.abs(expected))
    width = spread * stats.t.isf(_SHARE_OF_OUTLIERS * false_alarms / 2, np.maximum(_EFFICIENCY * off.count(), 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(residual == 0, np.where(np.isnan(spread), np.nan, 0.0), residual / spread)
    total, shift, direction = _cusum(score, cusum_limit(1 / (_SHARE_OF_SHIFTS * false_alarms)))
    outlier = np.abs(residual) > width
    direction = np.where(outlier, np.sign(residual), direction).astype(np.int64)
    back: Callable[[Floats], Floats] = np.exp if scale == "log" else lambda x: x
    return pd.DataFrame(
        {
            "value": series.to_numpy(),
            "expected": back(expected),
            "low": back(expected - width),
            "high": back(expected + width),
            "score": score,
            "outlier": outlier,
            "cusum": np.where(np.isnan(score), np.nan, total),
            "shift": shift,
            "alarm": outlier | shift,
            "direction": direction,
        },
        index=series.index,
    )


def _cusum(score: Floats, limit: float) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """The larger of the sums up and down after each value, where one passes the limit and starts anew, and which."""
    total, shift, direction = np.zeros(len(score)), np.zeros(len(score), dtype=bool), np.zeros(len(score), np.int64)
    up = down = 0.0
    for i, step in enumerate(np.clip(np.nan_to_num(score, nan=0.0), -_CLIPPED, _CLIPPED).tolist()):
        if np.isnan(score[i]):
            continue
        up, down = max(0.0, up + step - CUSUM_SLACK), max(0.0, down - step - CUSUM_SLACK)
        total[i] = max(up, down)
        if total[i] > limit:
            shift[i], direction[i] = True, 1 if up >= down else -1
            up = down = 0.0
    return total, shift, direction


def cusum_limit(mean_run: float, slack: float = CUSUM_SLACK) -> float:
    """Limit of a two-sided cumulative sum that without a shift passes it once in `mean_run` values on average.

    Siegmund's approximation (1985, Sequential Analysis, 2.5): one side runs (exp(2 k b) - 2 k b - 1) / (2 k^2) values,
    b = limit + 1.166; two sides half as long.

    >>> round(cusum_limit(465), 1)
    5.0
    """
    if mean_run <= 10:
        raise ValueError(f"a mean run of {mean_run:g} values without a shift is too short for a limit")

    def run(limit: float) -> float:
        b = limit + 1.166
        return float((np.exp(2 * slack * b) - 2 * slack * b - 1) / (4 * slack**2)) - mean_run

    return float(optimize.brentq(run, 0.0, 100.0))


def three_sigma(values: pd.Series) -> pd.DataFrame:
    """The overview's rule, kept as a baseline: more than three standard deviations from the mean of all before.

    Columns as `seasonal` has them: value, expected, score, alarm. Where all before are equal the overview divides by
    zero and is silent or alarms at random; here that is no alarm, and fewer than two values before are none either.
    """
    series = values.sort_index(kind="stable").astype(float)
    before = series.expanding(min_periods=1)
    count, mean, deviation = (x.shift().to_numpy() for x in (before.count(), before.mean(), before.std(ddof=0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (series.to_numpy() - mean) / deviation
    usable = (count >= 2) & (deviation > 1e-9 * np.abs(mean)) & np.isfinite(score)
    return pd.DataFrame(
        {
            "value": series.to_numpy(),
            "expected": mean,
            "score": np.where(usable, score, np.nan),
            "alarm": usable & (np.abs(np.where(usable, score, 0.0)) > 3),
        },
        index=series.index,
    )


def _slots(index: pd.DatetimeIndex, season: Season) -> npt.NDArray[np.int64]:
    of: dict[str, Callable[[], npt.ArrayLike]] = {
        "hour of week": lambda: index.day_of_week * 24 + index.hour,
        "hour of day": lambda: index.hour,
        "day of week": lambda: index.day_of_week,
        "none": lambda: np.zeros(len(index)),
    }
    if season not in of:
        raise ValueError(f"season is one of {', '.join(of)}; got {season!r}")
    return np.asarray(of[season](), dtype=np.int64)


# How well they work, in simulated series


def simulated_series(
    days: int = 70, *, step: float = 0.0, slope: float = 0.0, at: int | None = None, seed: int = 0
) -> pd.Series:
    """Return a made-up latency by hour: a daily and weekly season, skewed noise, and what begins on day `at`.

    Seconds; noise is normal on the log scale with a standard deviation of 0.15. From `at` on (None: never) `step`
    standard deviations are added, and `slope` more every day.
    """
    generator = np.random.default_rng(seed)
    index = pd.date_range("2026-01-05", periods=24 * days, freq="h", tz="UTC")
    hour, weekday = index.hour.to_numpy(), index.day_of_week.to_numpy()
    season = 0.5 * np.sin((hour - 6) / 24 * 2 * np.pi) - 0.3 * (weekday >= 5)
    since = np.maximum(np.arange(len(index)) / 24 - (days if at is None else at), 0)
    planted = np.where(since > 0, step + slope * since, 0.0)
    return pd.Series(0.02 * np.exp(season + 0.15 * (generator.standard_normal(len(index)) + planted)), index)


def compare_detectors(
    steps: Sequence[float] = (0.0, 1.0, 2.0, 4.0),
    *,
    days: int = 70,
    at: int = 56,
    trials: int = 20,
    false_alarms: float = 0.001,
    seed: int = 0,
) -> pd.DataFrame:
    """Both detectors on simulated hourly series where a step of so many standard deviations comes on day `at`.

    Columns: detector, step, trials, false_per_1000 (alarms per 1,000 values looked at, before the step) with ci_low and
    ci_high (95 % by series: they are drawn again), caught (share of series with an alarm within `days - at` days after;
    without a step: of no use), median_hours (to the first alarm after the step, of those that caught it).
    """
    rows = []
    for step in steps:
        found: dict[str, list[tuple[float, float, float]]] = {"seasonal": [], "three sigma": []}
        for trial in range(trials):
            series = simulated_series(days, step=step, at=at if step else None, seed=int(1000 * seed + trial))
            for name, result in (
                ("seasonal", seasonal(series, scale="log", false_alarms=false_alarms)),
                ("three sigma", three_sigma(series)),
            ):
                alarm, seen = result["alarm"].to_numpy(), result["score"].notna().to_numpy()
                after = np.flatnonzero(alarm[24 * at :])
                quiet = slice(0, 24 * at)
                first = float(after[0] + 1) if len(after) else np.nan
                found[name].append((float(alarm[quiet].sum()), float(seen[quiet].sum()), first))
        for name, each in found.items():
            alarms, seen_of, first_of = map(np.asarray, zip(*each, strict=True))
            drawn = np.random.default_rng(seed).integers(0, trials, size=(1000, trials))
            rates = 1000 * alarms[drawn].sum(axis=1) / seen_of[drawn].sum(axis=1)
            low, high = np.quantile(rates, [0.025, 0.975])
            caught = np.isfinite(first_of)
            hours = float(np.median(first_of[caught])) if caught.any() else np.nan
            rate = 1000 * alarms.sum() / seen_of.sum()
            rows.append((name, step, trials, float(rate), float(low), float(high), float(caught.mean()), hours))
    columns = ["detector", "step", "trials", "false_per_1000", "ci_low", "ci_high", "caught", "median_hours"]
    return pd.DataFrame(rows, columns=columns)
