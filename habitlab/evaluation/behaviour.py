"""What users do (overview 2.1) and which habits last (2.2): tidy frames of estimates with intervals by user.

Definitions, the same in every analysis (requirements D39):

- completion: days done over days done or missed, while the habit is held; skipped and unknown days are left out. Of a
  pair (one habit as one user adopted it) it is one number, and groups of pairs are compared by the mean over pairs.
- day since adoption: 0 is the local day of the adoption.
- retention: the share of pairs still held so many days after adoption, by Kaplan-Meier; pairs held when the data end
  are censored there.

Every frame has `estimate`, `ci_low`, `ci_high`, `level`, `users`, `pairs`, `method` and `reason` (why there is no
interval); intervals are pointwise and by user. What the data lack raises `MissingColumn`, so that a report can go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn, small_groups
from habitlab.dataset.derived import age_band, minutes_band
from habitlab.dataset.vocabulary import WEEKDAYS, AdoptionSource
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Floats, Resampled
from habitlab.features import temporal
from habitlab.features.days import DONE, KEY, MISSED, read_days

HORIZON = 90
"""Days after adoption at which retention is read."""

SUCCESS_DAYS, SUCCESS_SHARE = (22, 49), 0.6
"""A start is a success when this share of what was scheduled on these days since adoption is done."""

PEAKS = ((6, 8), (19, 21))
"""Local hours that the overview names as those of most completions."""

_BOOTSTRAP = "cluster bootstrap by user (BCa)"


@dataclass(frozen=True)
class Holdings:
    """Habits as users held them.

    pairs: a row for each adoption (each tracked pair where there are no adoptions) with user_id, habit_id, `user`
    (code), adopted (day since 1970, NaN if not known), exit_day (days from adoption to giving up or the end of the
    data), ended (given up), followup (days from adoption to the end of the data), imported (not where there are no
    adoptions), done, counted, completion, category, minutes, difficulty and target of the habit, minutes_band,
    frequency (daily, weekly, other) and occasions_a_day.
    pair, day, done: the days done or missed while held (days,): row of `pairs`, days since adoption, whether done.
    """

    pairs: pd.DataFrame
    pair: npt.NDArray[np.int64]
    day: npt.NDArray[np.int64]
    done: npt.NDArray[np.bool_]

    @property
    def user(self) -> npt.NDArray[np.int64]:
        """User code of each day (days,)."""
        return self.pairs["user"].to_numpy()[self.pair]


def holdings(dataset: Dataset) -> Holdings:
    """Join adoptions, the days while they were held, and what is known of the habits."""
    dataset.require("habit_tracking")
    days = read_days(dataset.habit_tracking)
    end = int(days.day.max())
    tracked = days.pairs.assign(tracked=np.arange(len(days.pairs)))
    if dataset.adoptions.empty:
        pairs = tracked.assign(adopted=np.nan, exit_day=np.nan, ended=False, followup=np.nan)
        last_held = np.full(len(pairs), end)
        from_day = np.full(len(pairs), np.iinfo(np.int32).min)
    else:
        pairs = _adoptions(dataset, end).merge(tracked, on=KEY, how="left")
        if pairs.empty:
            raise MissingColumn("needs adoptions at or before the last day of `habit_tracking`; this dataset has none")
        pairs = pairs.sort_values(["tracked", "adopted", *KEY], ignore_index=True)
        from_day = pairs["adopted"].to_numpy(dtype=np.int64)
        last_held = from_day + pairs["exit_day"].to_numpy(dtype=np.int64)
    # A day belongs to the latest adoption of its pair at or before it.
    numbers = pairs["tracked"].fillna(len(tracked)).to_numpy(dtype=np.int64)
    counted = np.flatnonzero((days.status == DONE) | (days.status == MISSED))
    tracked_pair, day = days.repeat(np.arange(len(tracked)))[counted], days.day[counted]
    pair = np.searchsorted(numbers * _FAR + from_day, tracked_pair * _FAR + day, side="right") - 1
    held = (pair >= 0) & (numbers[pair] == tracked_pair) & (day <= last_held[pair])
    pair, day, done = pair[held], day[held], (days.status[counted] == DONE)[held]
    since = day - from_day[pair] if not dataset.adoptions.empty else day
    totals = {
        "done": np.bincount(pair, done, len(pairs)),
        "counted": np.bincount(pair, minlength=len(pairs)).astype(float),
    }
    with np.errstate(invalid="ignore"):
        completion = totals["done"] / totals["counted"]
    pairs = pairs.drop(columns="tracked").assign(
        user=pd.factorize(pairs["user_id"])[0], **totals, completion=completion
    )
    return Holdings(pairs.merge(_habits(dataset), on="habit_id", how="left"), pair, since, done)


_FAR = 1 << 32  # beyond any day number: pair and day in one sortable number


def _adoptions(dataset: Dataset, end: int) -> pd.DataFrame:
    """Adoptions with local days; those after the last day of the data are left out."""
    adoptions, users = dataset.adoptions, dataset.users
    asked = adoptions["user_id"]
    known = users.drop_duplicates("user_id").set_index("user_id")
    nothing = pd.Series(np.nan, index=known.index)
    zone = known["zone"] if "zone" in known else nothing.astype("str")
    zone = asked.map(zone).astype("str").fillna("UTC")
    start = asked.map(known.get("day_start", nothing)).astype(float)

    def local_day(column: str) -> Floats:
        if column not in adoptions or adoptions[column].isna().all():
            return np.full(len(adoptions), np.nan)
        date = temporal.local_date(adoptions[column], zone, start)
        return np.where(date.isna(), np.nan, date.to_numpy().astype("datetime64[D]").astype(float))

    adopted, abandoned = local_day("adopted_at"), local_day("abandoned_at")
    ended = abandoned <= end
    table = adoptions[KEY].assign(
        adopted=adopted,
        exit_day=np.maximum(np.where(ended, abandoned, end) - adopted, 0),
        ended=ended,
        followup=end - adopted,
        imported=(adoptions["source"] == AdoptionSource.IMPORTED).fillna(False).astype(bool)
        if "source" in adoptions
        else False,
    )
    return table[adopted <= end].drop_duplicates([*KEY, "adopted"])


def _habits(dataset: Dataset) -> pd.DataFrame:
    habits = dataset.habits.drop_duplicates("habit_id")
    wanted = [c for c in ("habit_id", "category", "minutes", "difficulty", "target") if c in habits]
    habits = habits[wanted].reset_index(drop=True)
    if "minutes" in habits:
        habits = habits.assign(minutes_band=minutes_band(habits["minutes"]))
    if "target" in habits:
        parts = habits["target"].astype("str").str.extract(r"^(\d+)/(\d+)$").astype(float)
        words = np.select([parts[0] >= parts[1], parts[0] * 7 == parts[1]], ["daily", "weekly"], "other")
        habits = habits.assign(
            occasions_a_day=np.minimum(parts[0] / parts[1], 1),
            frequency=pd.Series(words, index=habits.index, dtype="str").where(parts[0].notna()),
        )
    return habits


def _frame(
    index: dict[str, Any], resampled: Resampled, level: float, users: npt.ArrayLike, pairs: npt.ArrayLike, method: str
) -> pd.DataFrame:
    low, high = resampled.interval(level)
    return pd.DataFrame(
        {
            **index,
            "estimate": resampled.estimate,
            "ci_low": low,
            "ci_high": high,
            "level": level,
            "users": users,
            "pairs": pairs,
            "method": method,
            "reason": [resampled.reason(column) for column in range(len(resampled.estimate))],
        }
    )


def _distinct(codes: npt.ArrayLike, users: npt.ArrayLike, groups: int) -> npt.NDArray[np.int64]:
    """Users in each group."""
    seen = pd.DataFrame({"group": np.asarray(codes), "user": np.asarray(users)}).drop_duplicates()["group"]
    return np.bincount(seen[seen >= 0], minlength=groups)


# 2.1 User behaviour


def adoption_cycle(
    dataset: Dataset, *, days: int = 60, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Completion by day since adoption of daily habits, among the still active and among all adopters.

    The unconditional curve counts the days from giving up on as missed, as long as the data go on (the day of giving up
    by its row where it has one); the conditional one has survivors only, who are better at it. Without
    `adoptions.abandoned_at` only the conditional one is there: nobody is known to have given up. Day 0 of imported
    adoptions is in neither, since such an adoption is inferred from the first day done. Columns: curve ("still active",
    "all adopters"), day.
    """
    held = cycle_data(dataset)
    pairs = held.pairs
    end = np.minimum(pairs["followup"], days - 1).to_numpy(dtype=np.int64)
    after = np.flatnonzero(pairs["ended"].to_numpy() & (pairs["exit_day"].to_numpy() <= end))
    first = pairs["exit_day"].to_numpy(dtype=np.int64)[after] + _has_exit_row(dataset, pairs.iloc[after])
    length = end[after] + 1 - first
    missed_pair = np.repeat(after, length)
    missed_day = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - first, length)
    curves = {"still active": (held.pair, held.day, held.done)}
    if "abandoned_at" in dataset.adoptions and dataset.adoptions["abandoned_at"].notna().any():
        curves["all adopters"] = (
            np.concatenate([held.pair, missed_pair]),
            np.concatenate([held.day, missed_day]),
            np.concatenate([held.done, np.zeros(len(missed_pair), dtype=bool)]),
        )
    frames = []
    for curve, (pair, day, done) in curves.items():
        users = pairs["user"].to_numpy()[pair]
        by_construction = pairs["imported"].to_numpy()[pair] & (day == 0)
        day = np.where((day < days) & ~by_construction, day, -1)
        resampled = estimates.ratio(done, 1.0, users, group=day, groups=days, resamples=resamples, seed=seed)
        counts = np.bincount(day[day >= 0], minlength=days)
        index = {"curve": curve, "day": np.arange(days)}
        frames.append(_frame(index, resampled, level, _distinct(day, users, days), counts, f"share done; {_BOOTSTRAP}"))
    return pd.concat(frames, ignore_index=True)


def _has_exit_row(dataset: Dataset, pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each of `pairs` (rows,) has a row, of whatever status, on the day it was given up."""
    date = (pairs["adopted"] + pairs["exit_day"]).to_numpy(dtype=np.int64).astype("datetime64[D]")
    exits = pairs[KEY].assign(date=date.astype("datetime64[s]"), row=np.arange(len(pairs)))
    return np.isin(exits["row"], exits.merge(dataset.habit_tracking[[*KEY, "date"]], on=[*KEY, "date"])["row"])


def cycle_data(dataset: Dataset) -> Holdings:
    """Holdings of daily habits with a known adoption: weekly ones fall on some days since adoption only.

    A habit without a target is daily, as in `habitlab.features.temporal`.
    """
    dataset.require("adoptions.adopted_at")
    held = holdings(dataset)
    if "frequency" not in held.pairs:
        return held
    daily = held.pairs["frequency"].fillna("daily").eq("daily").to_numpy()
    if not daily.any():
        raise MissingColumn("needs daily habits (`target` 1/1); this dataset has none")
    kept = daily[held.pair]
    number = np.cumsum(daily) - 1
    return Holdings(held.pairs[daily].reset_index(drop=True), number[held.pair[kept]], held.day[kept], held.done[kept])


DIP = ((7, 14), (1, 3), (22, 35))
"""Days since adoption of the dip, and of what lies before and after it; both ends belong to each."""


def dip(
    held: Holdings, *, survivors: bool = False, weighted: bool = False, resamples: int = 1000, seed: int = 0
) -> Resampled:
    """How much less is done on days 7-14 than on days 1-3, and than on days 22-35: two values, above 0 for a dip.

    Each is the difference of means over days of the share done by those still active, of pairs that the data follow to
    the last of these days. With `survivors` only pairs held so long count, so that both sides are the same people. With
    `weighted` the active stand for those like them who gave up (`staying_weights`; the bootstrap takes the weights as
    known). `held` is that of `cycle_data`.
    """
    last = DIP[2][1]
    keep = dip_days(held, survivors=survivors)
    if not keep.any() or held.day[keep].max() < last:
        raise MissingColumn(f"needs habits followed for {last} days from adoption; this dataset has none")
    size = last + 1
    users, uniques = pd.factorize(held.user[keep])
    place = users * size + held.day[keep]
    weight = staying_weights(held, last)[held.pair[keep], held.day[keep]] if weighted else np.ones(len(place))
    sums = np.hstack(
        [np.bincount(place, part, len(uniques) * size).reshape(-1, size) for part in (held.done[keep] * weight, weight)]
    )

    def statistic(sums: Floats) -> Floats:
        share = estimates.ratios(sums)
        means = [share[:, first : last + 1].mean(axis=1) for first, last in DIP]
        return np.column_stack([means[1] - means[0], means[2] - means[0]])

    return estimates.resample(sums, statistic, resamples=resamples, seed=seed)


def staying_weights(held: Holdings, last: int) -> Floats:
    """One over the chance that a pair is still held on days 0 ... last, given how it went so far: (pairs, last + 1).

    The chance is the product, over the days before, of 1 - given up / held that day, among pairs with a like share of
    earlier days done (below a third, above two thirds, or between or unknown). Among pairs followed to `last`. Inverse
    probability of censoring weights: Robins & Finkelstein 2000, doi:10.1111/j.0006-341X.2000.00779.x.
    """
    days, shape = np.arange(last + 1), (len(held.pairs), last + 1)
    early = held.day <= last
    place = held.pair[early] * (last + 1) + held.day[early]
    done, counted = (
        np.bincount(place, part, shape[0] * shape[1]).reshape(shape) for part in (held.done[early], np.ones(len(place)))
    )
    done, counted = np.cumsum(done, axis=1) - done, np.cumsum(counted, axis=1) - counted
    like = np.digitize(np.divide(done, counted, out=np.full(shape, 0.5), where=counted > 0), (1 / 3, 2 / 3))
    exit_day = held.pairs["exit_day"].to_numpy()[:, None]
    followed = (held.pairs["followup"] >= last).to_numpy()[:, None]
    at_risk = followed & (exit_day >= days)
    leaves = at_risk & (exit_day == days) & held.pairs["ended"].to_numpy()[:, None]
    stay = np.ones((shape[0], last + 2))  # to each day from the one before
    for group in range(3):
        here = at_risk & (like == group)
        hazard = (leaves & here).sum(axis=0) / np.maximum(here.sum(axis=0), 1)
        stay[:, 1:] -= here * hazard
    chance = np.cumprod(stay[:, :-1], axis=1)
    return np.divide(1.0, chance, out=np.zeros(shape), where=at_risk)


def dip_days(held: Holdings, *, survivors: bool = False) -> npt.NDArray[np.bool_]:
    """Which days of `held` (days,) `dip` is made of."""
    reached = held.pairs["exit_day" if survivors else "followup"].to_numpy()
    inside = np.logical_or.reduce([(first <= held.day) & (held.day <= last) for first, last in DIP])
    return inside & (reached[held.pair] >= DIP[2][1])


def time_of_day(dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Share of completions in each local hour: hour 0 to 23, `peak` whether the overview names it."""
    hours = local_hours(dataset)
    hour = hours["hour"].to_numpy().astype(np.int64)
    users, uniques = pd.factorize(hours["user_id"])
    counts = np.bincount(users * 24 + hour, minlength=len(uniques) * 24).reshape(-1, 24).astype(float)

    def statistic(sums: Floats) -> Floats:
        return sums / sums.sum(axis=1, keepdims=True)

    resampled = estimates.resample(counts, statistic, resamples=resamples, seed=seed)
    peak = np.zeros(24, dtype=bool)
    for low, high in PEAKS:
        peak[low:high] = True
    pairs = len(hours[KEY].drop_duplicates())
    index = {"hour": np.arange(24), "peak": peak, "completions": counts.sum(axis=0).astype(int)}
    return _frame(index, resampled, level, len(uniques), pairs, f"share of completions; {_BOOTSTRAP}")


def peak_share(dataset: Dataset, *, resamples: int = 1000, seed: int = 0) -> Resampled:
    """Share of completions whose local hour lies in one of the `PEAKS`."""
    hours = local_hours(dataset)
    hour = hours["hour"].to_numpy()
    inside = np.logical_or.reduce([(low <= hour) & (hour < high) for low, high in PEAKS])
    return estimates.ratio(inside, 1.0, pd.factorize(hours["user_id"])[0], resamples=resamples, seed=seed)


def local_hours(dataset: Dataset) -> pd.DataFrame:
    """Completions whose local hour is known: user_id, habit_id, date, hour."""
    dataset.require("habit_tracking.at", "users.zone")
    hours = temporal.completion_hours(dataset.habit_tracking, dataset.users)
    if hours.empty:
        raise MissingColumn("needs completions with `at` in `habit_tracking` and a `zone`; this dataset has none")
    return hours


def weekday(dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Completion on each day of the week, 0 Monday to 6 Sunday, of all days done or missed."""
    dataset.require("habit_tracking")
    days = read_days(dataset.habit_tracking)
    counted = (days.status == DONE) | (days.status == MISSED)
    if not counted.any():
        raise MissingColumn("needs days done or missed in `habit_tracking`; this dataset has none")
    users = days.repeat(pd.factorize(days.pairs["user_id"])[0])[counted]
    pair = days.repeat(np.arange(len(days.pairs)))[counted]
    of_week = (days.day[counted] + 3) % 7  # 1 January 1970 was a Thursday
    done = days.status[counted] == DONE
    resampled = estimates.ratio(done, 1.0, users, group=of_week, groups=7, resamples=resamples, seed=seed)
    index = {"weekday": np.arange(7), "name": WEEKDAYS}
    return _frame(
        index, resampled, level, _distinct(of_week, users, 7), _distinct(of_week, pair, 7), f"share done; {_BOOTSTRAP}"
    )


def retention(
    dataset: Dataset,
    *,
    by: str | None = None,
    days: int = HORIZON,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Kaplan-Meier share of pairs still held, for each day since adoption; `by` a column of `Holdings.pairs`, or all.

    Columns: group, day, at_risk (pairs still followed on that day). Ends of the data censor; giving up ends.
    """
    dataset.require("adoptions.adopted_at", "adoptions.abandoned_at")
    pairs, groups = grouped(holdings(dataset).pairs, by)
    days = min(days, int(pairs["followup"].max()) + 1)
    codes = pairs["code"].to_numpy()
    resampled = estimates.kaplan_meier(
        pairs["exit_day"],
        pairs["ended"],
        codes,
        pairs["user"],
        groups=len(groups),
        days=days,
        resamples=resamples,
        seed=seed,
    )
    exits = np.minimum(pairs["exit_day"].to_numpy(dtype=np.int64), days)
    left = np.bincount(codes * (days + 1) + exits, minlength=len(groups) * (days + 1)).reshape(-1, days + 1)
    at_risk = left[:, ::-1].cumsum(axis=1)[:, ::-1][:, :days]
    index = {"group": np.repeat(groups, days), "day": np.tile(np.arange(days), len(groups)), "at_risk": at_risk.ravel()}
    users = np.repeat(_distinct(codes, pairs["user"], len(groups)), days)
    number = np.repeat(np.bincount(codes, minlength=len(groups)), days)
    return _frame(index, resampled, level, users, number, f"Kaplan-Meier; {_BOOTSTRAP}")


_MADE_OF = {"minutes_band": "minutes", "frequency": "target", "occasions_a_day": "target"}
"""Columns of `habits` from which those of `Holdings.pairs` come."""


def grouped(pairs: pd.DataFrame, by: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Pairs whose group is known, with `code`, and the names of the groups in their order."""
    if by is None:
        return pairs.assign(code=0), ["all"]
    if by not in pairs or pairs[by].isna().all():
        raise MissingColumn(f"needs `{_MADE_OF.get(by, by)}` in `habits`; this dataset has none")
    pairs = pairs[pairs[by].notna()]
    names = [str(name) for name in pd.Categorical(pairs[by]).remove_unused_categories().categories]
    return pairs.assign(code=pd.Categorical(pairs[by].astype(str), categories=names).codes.astype(np.int64)), names


def concurrent(pairs: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Habits a user held when each pair was adopted, that pair and others of the day included (pairs,)."""
    spans = pd.DataFrame(
        {
            "user": pairs["user"].to_numpy(),
            "row": np.arange(len(pairs)),
            "start": pairs["adopted"].to_numpy(),
            "end": np.where(pairs["ended"], pairs["adopted"] + pairs["exit_day"], np.inf),
        }
    )
    both = spans.merge(spans[["user", "start", "end"]], on="user", suffixes=("", "_other"))
    held = (both["start_other"] <= both["start"]) & (
        (both["end_other"] > both["start"]) | (both["start_other"] == both["start"])
    )
    return np.bincount(both["row"][held], minlength=len(pairs)).astype(float)


def starts(held: Holdings) -> pd.DataFrame:
    """First difficulty and success of each user whose start can be judged: user_id, difficulty, success.

    difficulty: mean over the habits adopted on the first day. success: whether at least `SUCCESS_SHARE` of what these
    habits had scheduled on the `SUCCESS_DAYS` since adoption was done; from giving up on, what would have been
    scheduled counts as missed. Users whose start the data follow for fewer days are left out, whatever they did.
    """
    first_day, last_day = SUCCESS_DAYS
    pairs = held.pairs
    first = pairs["adopted"] == pairs.groupby("user")["adopted"].transform("min")
    judged = first & (pairs["followup"] >= last_day) & pairs["difficulty"].notna()
    inside = (held.day >= first_day) & (held.day <= last_day)
    counted = np.bincount(held.pair[inside], minlength=len(pairs))
    done = np.bincount(held.pair[inside], held.done[inside], minlength=len(pairs))
    lost = np.where(pairs["ended"], last_day - np.maximum(pairs["exit_day"], first_day - 1), 0).clip(min=0)
    a_day = pairs["occasions_a_day"].fillna(1.0) if "occasions_a_day" in pairs else 1.0
    by_user = (
        pairs.assign(done=done, scheduled=counted + lost * a_day)[judged]
        .groupby("user_id", sort=True)
        .agg(difficulty=("difficulty", "mean"), done=("done", "sum"), scheduled=("scheduled", "sum"))
        .query("scheduled > 0")
        .reset_index()
    )
    return by_user.assign(success=by_user["done"] >= SUCCESS_SHARE * by_user["scheduled"])[
        ["user_id", "difficulty", "success"]
    ]


def difficulty_progression(
    dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean difficulty of the first habits of successful and of other users, and of their later adoptions.

    Columns: users_are ("successful", "other"), adoption ("first" or "later"); groups of few people are empty. Those who
    start with hard habits may fail because these are hard, or choose them because of who they are: the difference is no
    effect of starting easy.
    """
    dataset.require("adoptions.adopted_at", "habits.difficulty")
    held = holdings(dataset)
    begun = starts(held)
    if begun.empty:
        raise MissingColumn(f"needs habits followed for {SUCCESS_DAYS[1]} days from adoption; this dataset has none")
    pairs = held.pairs.merge(begun[["user_id", "success"]], on="user_id")
    pairs = pairs[pairs["difficulty"].notna()]
    later = pairs["adopted"] > pairs.groupby("user")["adopted"].transform("min")
    group = 2 * (~pairs["success"]).to_numpy(dtype=int) + later.to_numpy(dtype=int)
    # Of users, not of pairs: each user's own mean counts once.
    of_user = pairs.assign(group=group).groupby(["user", "group"])["difficulty"].mean().reset_index()
    resampled = estimates.ratio(
        of_user["difficulty"], 1.0, of_user["user"], group=of_user["group"], groups=4, resamples=resamples, seed=seed
    )
    index = {
        "users_are": ["successful", "successful", "other", "other"],
        "adoption": ["first", "later", "first", "later"],
    }
    users = np.bincount(of_user["group"], minlength=4)
    method = f"mean of user means; {_BOOTSTRAP}"
    table = _frame(index, resampled, level, users, np.bincount(group, minlength=4), method)
    table["reason"] = table["reason"].mask(users < small_groups.FEWEST, "withheld: few people")
    numbers = ["estimate", "ci_low", "ci_high", "pairs"]
    return small_groups.suppress(table, "users", numbers, totals=False).drop(columns="suppressed")


# 2.2 Habits


def rated(held: Holdings, by: str) -> tuple[pd.DataFrame, list[str]]:
    """Pairs with a completion and a known group of `by`, as `code`, and the names of the groups."""
    return grouped(held.pairs[held.pairs["completion"].notna()], by)


def completion_by(
    dataset: Dataset, by: str, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean completion of pairs in each group of `by`, a column of `Holdings.pairs`. Column: group."""
    pairs, groups = rated(holdings(dataset), by)
    codes, size = pairs["code"].to_numpy(), len(groups)
    resampled = estimates.ratio(
        pairs["completion"], 1.0, pairs["user"], group=codes, groups=size, resamples=resamples, seed=seed
    )
    return _frame(
        {"group": groups},
        resampled,
        level,
        _distinct(codes, pairs["user"], size),
        np.bincount(codes, minlength=size),
        f"mean over pairs; {_BOOTSTRAP}",
    )


def retention_by(
    dataset: Dataset, by: str, *, day: int = HORIZON, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Share of pairs of each group of `by` still held `day` days after adoption. Columns: group, day, at_risk."""
    curve = retention(dataset, by=by, days=day, level=level, resamples=resamples, seed=seed)
    if curve["day"].max() < day - 1:
        raise MissingColumn(f"needs {day} days from adoption to the end of the data; this dataset has fewer")
    return curve[curve["day"] == day - 1].assign(day=day).reset_index(drop=True)


def duration(dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean completion by minutes band, raw and standardised over category and difficulty. Columns: kind, group."""
    raw = completion_by(dataset, "minutes_band", level=level, resamples=resamples, seed=seed)
    pairs, groups, nuisance = duration_data(holdings(dataset))
    resampled = estimates.adjusted_means(
        pairs["completion"],
        pairs["code"],
        pairs[nuisance],
        pairs["user"],
        groups=len(groups),
        resamples=resamples,
        seed=seed,
    )
    standardised = _frame(
        {"group": groups},
        resampled,
        level,
        _distinct(pairs["code"], pairs["user"], len(groups)),
        np.bincount(pairs["code"], minlength=len(groups)),
        f"least squares, standardised over {' and '.join(nuisance)}; {_BOOTSTRAP}",
    )
    return pd.concat([raw.assign(kind="raw"), standardised.assign(kind="standardised")], ignore_index=True)


def duration_data(held: Holdings) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Pairs with minutes band, the bands, and the columns to standardise over (category and difficulty)."""
    nuisance = ["category", "difficulty"]
    for column in nuisance:
        if column not in held.pairs or held.pairs[column].isna().all():
            raise MissingColumn(f"needs `{column}` in `habits` to standardise over; this dataset has none")
    pairs, groups = rated(held, "minutes_band")
    pairs = pairs[pairs[nuisance].notna().all(axis=1)]
    return pairs, groups, nuisance


RANDOMISED = "random"
"""Policy under which the wording of a recommendation is drawn by lot."""


def description(dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How much more often a recommendation is accepted in clear words than in vague ones, relative risk minus 1.

    Column: comparison: "randomised" (wording drawn by lot), "all" (every recommendation, the naive reading: editors
    polish what sells anyway) and "not randomised". `pairs` counts recommendations.
    """
    shown = description_data(dataset)
    frames = []
    for comparison, rows in (
        ("randomised", shown["randomised"]),
        ("all", shown["randomised"].notna()),
        ("not randomised", ~shown["randomised"]),
    ):
        part = shown[rows]
        if part["clear"].nunique() < 2:
            continue
        resampled = estimates.relative_change(
            part["accepted"], part["clear"], part["user_id"], resamples=resamples, seed=seed
        )
        users = part["user_id"].nunique()
        frames.append(
            _frame({"comparison": [comparison]}, resampled, level, users, len(part), f"relative risk - 1; {_BOOTSTRAP}")
        )
    if not frames:
        raise MissingColumn("needs recommendations in clear and in vague words; this dataset has one of them only")
    return pd.concat(frames, ignore_index=True)


def description_data(dataset: Dataset) -> pd.DataFrame:
    """Recommendations with a known wording: user_id, clear, accepted, randomised."""
    dataset.require("recommendations.description_variant", "recommendations.response")
    shown = dataset.recommendations
    shown = shown[shown["description_variant"].notna()]
    return pd.DataFrame(
        {
            "user_id": shown["user_id"],
            "clear": shown["description_variant"] == "clear",
            "accepted": (shown["response"] == "accepted").fillna(False).astype(bool),
            "randomised": (shown["policy"] == RANDOMISED).fillna(False).astype(bool)
            if "policy" in shown
            else np.zeros(len(shown), dtype=bool),
        }
    )


def demographics(
    dataset: Dataset, *, level: float = 0.95, resamples: int = 1000, seed: int = 0, permutations: int = 500
) -> pd.DataFrame:
    """Bias-corrected Cramer V of gender and of age band with the category of adopted habits.

    Columns: attribute; p_value (attribute dealt out to users anew) and q_value (Benjamini-Hochberg over attributes).
    """
    pairs = demographics_data(dataset)
    rows = []
    for attribute in attributes(pairs):
        part = pairs[pairs[attribute].notna()]
        found = estimates.association(
            part[attribute],
            part["category"],
            part["user_id"],
            resamples=resamples,
            seed=seed,
            permutations=permutations,
        )
        v, low, high = found.cramers_v(level)
        rows.append(
            {
                "attribute": attribute,
                "estimate": v,
                "ci_low": low,
                "ci_high": high,
                "level": level,
                "users": found.phi2.n,
                "pairs": len(part),
                "p_value": found.p_value,
                "method": f"Cramer V, bias taken off by permutation; {_BOOTSTRAP}",
                "reason": found.phi2.reason(),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(q_value=stats.false_discovery_control(table["p_value"]))


def demographics_data(dataset: Dataset) -> pd.DataFrame:
    """Pairs with category, and gender and age band of their users as far as the data hold them.

    Bands are those of `dataset.derived.AGE_BANDS`, or `users.age_band` as it is where nobody's `age` is known.
    """
    dataset.require("habits.category")
    pairs = holdings(dataset).pairs
    pairs = pairs[pairs["category"].notna()]
    users = dataset.users
    frame = users[["user_id"]]
    if "gender" in users and users["gender"].notna().any():
        frame = frame.assign(gender=users["gender"].astype("str"))
    if "age" in users and users["age"].notna().any():
        frame = frame.assign(age_band=age_band(users["age"]).astype("str"))
    elif "age_band" in users and users["age_band"].notna().any():  # of sources that tell no years
        frame = frame.assign(age_band=users["age_band"].astype("str"))
    if frame.shape[1] == 1:
        raise MissingColumn("needs `gender` or `age` in `users`; this dataset has neither")
    return pairs[["user_id", "category"]].assign(category=pairs["category"].astype("str")).merge(frame, on="user_id")


def attributes(pairs: pd.DataFrame) -> list[str]:
    """Demographic columns of `demographics_data` that can be associated with categories."""
    if pairs["category"].nunique() < 2:
        raise MissingColumn("needs habits of two categories or more in `habits`; this dataset has one")
    people = pairs.drop_duplicates("user_id")
    groups = {name: people[name].value_counts() for name in ("gender", "age_band") if name in people}
    found = [name for name, counts in groups.items() if (counts >= small_groups.FEWEST).sum() > 1]
    if not found:
        raise MissingColumn(
            f"needs two groups by `gender` or `age` of {small_groups.FEWEST} users or more; this dataset has none"
        )
    return found
