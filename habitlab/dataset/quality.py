"""Data quality: what is in a dataset, what is missing and whether that matters, what is odd, what can be analysed.

Tables in, tables out: every function takes a `Dataset` and returns a DataFrame, empty when there is nothing to say, so
that a report goes on whatever the data lack. Intervals are by user: the rows of a person are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset import small_groups
from habitlab.dataset.analyses import FEWEST
from habitlab.dataset.catalogue import normalise_name
from habitlab.dataset.dataset import Dataset
from habitlab.dataset.schema import TABLES, WHEN, violations
from habitlab.dataset.vocabulary import WEEKDAYS, Status

__all__ = [
    "contract",
    "coverage",
    "duplicates",
    "inventory",
    "missingness",
    "overlapping_sessions",
    "suspicious",
    "unknown_days",
]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ABSENCE_MEANS = {
    ("habits", "unit"): "not a measured habit",
    ("adoptions", "abandoned_at"): "still held",
    ("modifications", "old"): "nothing set before",
    ("modifications", "new"): "set to nothing",
    ("recommendations", "response"): "not looked at",
    ("surveys", "answered_at"): "not answered",
    ("experiments", "exposed_at"): "never exposed",
}
"""Columns in which an empty cell is an answer and not a gap."""


# What is in the data


def inventory(dataset: Dataset) -> pd.DataFrame:
    """Return one row a table: rows, users, habits, first and last day (UTC), and its columns by how they are filled.

    `filled`, `empty` and `absent` are lists of column names: with a value, without any, and not in the table at all.
    """
    lines = []
    for name, table in TABLES.items():
        frame = dataset.table(name)
        present = [column for column in table.columns if column in frame.columns]
        filled = [column for column in present if frame[column].notna().any()]
        times = _times(frame, WHEN.get(name))
        lines.append(
            {
                "table": name,
                "rows": len(frame),
                "users": frame["user_id"].nunique() if "user_id" in present else 0,
                "habits": frame["habit_id"].nunique() if "habit_id" in present else 0,
                "first": times.min(),
                "last": times.max(),
                "filled": filled,
                "empty": [column for column in present if column not in filled],
                "absent": [column for column in table.columns if column not in present],
            }
        )
    return pd.DataFrame(lines).astype({"first": "datetime64[s]", "last": "datetime64[s]"})


def contract(dataset: Dataset) -> pd.DataFrame:
    """Return one row for each broken rule: table, column, rule, bad rows, the first cases; empty when all hold."""
    found = [(v.table, v.column, v.rule, v.count, "; ".join(v.examples)) for v in violations(dataset)]
    return pd.DataFrame(found, columns=["table", "column", "rule", "rows", "first"])


def coverage(dataset: Dataset) -> pd.DataFrame:
    """Return one row for each calendar day from the first to the last, also for days without a row.

    Columns: `scheduled` (all rows), `done`, `missed`, `skipped`, `unknown`, `users` (with a row that day) and
    `users_done` (with a habit done that day); the index is the `date`.
    """
    rows = _tracked(dataset)
    if not len(rows.day):
        return pd.DataFrame(
            columns=["scheduled", *_STATUSES, "users", "users_done"], index=pd.DatetimeIndex([], name="date"), dtype=int
        )
    first = rows.day.min()
    days = int(rows.day.max() - first) + 1
    day = rows.day - first
    counts = {"scheduled": np.bincount(day, minlength=days)}
    counts |= {status: np.bincount(day[rows.status == code], minlength=days) for code, status in enumerate(_STATUSES)}
    users = len(rows.users)
    for column, at in (("users", slice(None)), ("users_done", rows.status == _DONE)):
        counts[column] = np.bincount(pd.unique(day[at] * users + rows.user[at]) // users, minlength=days)
    dates = pd.date_range(_date(first), periods=days, unit="s", name="date")
    return pd.DataFrame(counts, index=dates)


# What is missing


def missingness(dataset: Dataset, *, level: float = 0.95, false_discoveries: float = 0.05) -> pd.DataFrame:
    """Return one row a column that may be missing: how much is, and whether that goes with the completion rate.

    A cell counts as `expected` where it could be filled: the time of a habit is expected on days it was done. The
    `difference` is the mean completion rate (done / (done + missed)) of the users behind the missing cells minus that
    behind the filled ones, for `habits` of the habits; Welch's interval, generalised to several rows a user by errors
    clustered on the user. q-values hold the false discoveries among the judged columns (Benjamini & Hochberg 1995).

    Columns: table, column, rows, expected, missing, share, unit, n_missing, n_filled (users or habits on each side),
    rate_missing, rate_filled, difference, ci_low, ci_high, p_value, q_value, verdict. The verdict is `complete`,
    `absent`, `empty`, `not expected`, `informative`, `no difference seen`, or says what an empty cell means or why it
    cannot be told. Empty tables and required columns are left out.
    """
    rows = _tracked(dataset)
    rate = {"user_id": rows.rate(rows.user, len(rows.users)), "habit_id": rows.rate(rows.habit, len(rows.habits))}
    known = {"user_id": rows.users, "habit_id": rows.habits}
    lines = []
    for name, table in TABLES.items():
        frame = dataset.table(name)
        by = "habit_id" if name == "habits" else "user_id"
        unit = by.removesuffix("_id")
        if frame.empty or by not in table.columns:
            continue
        if name == "habit_tracking":
            cluster = rows.user
            frame = frame.iloc[rows.position]
        else:
            cluster = known[by].get_indexer(frame[by]) if by in frame.columns else np.full(len(frame), -1)
        for column, spec in table.columns.items():
            if spec.required or column in table.key:
                continue
            line: dict[str, object] = {"table": name, "column": column, "rows": len(frame), "unit": unit}
            if column not in frame.columns:
                lines.append(line | {"expected": 0, "missing": 0, "verdict": "absent"})
                continue
            gap = frame[column].isna().to_numpy()
            expected = _expected(name, column, frame, rows)
            line |= {"expected": int(expected.sum()), "missing": int((gap & expected).sum())}
            meaning = _ABSENCE_MEANS.get((name, column))
            if line["missing"] == 0:
                line["verdict"] = "complete" if line["expected"] else "not expected"
            elif meaning:
                line["verdict"] = f"empty means: {meaning}"
            elif line["missing"] == line["expected"]:
                line["verdict"] = "empty"
            else:
                held = expected & (cluster >= 0)
                held[held] = np.isfinite(rate[by][cluster[held]])
                who, away, size = cluster[held], gap[held], len(rate[by])
                absent, filled = np.bincount(who[away], minlength=size), np.bincount(who[~away], minlength=size)
                outcome = np.nan_to_num(rate[by])
                line |= _difference(absent * outcome, absent, filled * outcome, filled, level, unit)
                if name == "users" and min(absent.astype(bool).sum(), filled.astype(bool).sum()) < small_groups.FEWEST:
                    line |= dict.fromkeys(("rate_1", "rate_0", "difference"))  # what few people do is theirs
            lines.append(line)
    columns = ["table", "column", "rows", "expected", "missing", "share", "unit", *_DIFFERENCE]
    found = pd.DataFrame(lines, columns=columns)
    share = found["missing"].div(found["expected"].where(found["expected"] > 0)).astype(float)
    found = _judge(found.assign(share=share), false_discoveries, "informative")
    names = {"n_1": "n_missing", "n_0": "n_filled", "rate_1": "rate_missing", "rate_0": "rate_filled"}
    return found.rename(columns=names)


def unknown_days(dataset: Dataset, *, level: float = 0.95, false_discoveries: float = 0.05) -> pd.DataFrame:
    """Return what unknown days (status `unknown`) go with, one row a question.

    Each `difference` is between shares of rows that are unknown (`rate_1 - rate_0`): on a weekday against the other
    six; in the second half of a user's days against the first; and, named `completion`, the mean completion rate of the
    users behind unknown rows minus that behind known rows. Intervals are clustered on the user, q-values as in
    `missingness`; `n_1` and `n_0` count the users on each side.

    Columns: about, n_1, n_0, rate_1, rate_0, difference, ci_low, ci_high, p_value, q_value, verdict (`associated`,
    `no difference seen`, or why it cannot be told). Empty when there is no row, or none is unknown.
    """
    rows = _tracked(dataset)
    unknown = rows.status == _UNKNOWN
    columns = ["about", *_DIFFERENCE]
    if not unknown.any():
        return pd.DataFrame(columns=columns)
    size = len(rows.users)
    weekday = (rows.day + 3) % 7  # 1 January 1970 was a Thursday
    counted = rows.user * 7 + weekday
    shape = (size, 7)
    total = np.bincount(counted, minlength=size * 7).reshape(shape)
    lost = np.bincount(counted[unknown], minlength=size * 7).reshape(shape)
    all_total, all_lost = total.sum(1), lost.sum(1)
    lines = [
        {"about": name} | _shares(lost[:, d], total[:, d], all_lost - lost[:, d], all_total - total[:, d], level)
        for d, name in enumerate(WEEKDAYS)
    ]
    first, last = np.full(size, np.iinfo(np.int64).max), np.full(size, np.iinfo(np.int64).min)
    np.minimum.at(first, rows.user, rows.day)
    np.maximum.at(last, rows.user, rows.day)
    late = 2 * rows.day > (first + last)[rows.user]
    late_total, late_lost = (np.bincount(rows.user[held], minlength=size) for held in (late, late & unknown))
    line = _shares(late_lost, late_total, all_lost - late_lost, all_total - late_total, level)
    lines.append({"about": "second half of a user's days"} | line)
    rate = rows.rate(rows.user, size)
    held, outcome = np.isfinite(rate), np.nan_to_num(rate)
    behind_unknown, behind_known = all_lost * held, (all_total - all_lost) * held
    line = _difference(behind_unknown * outcome, behind_unknown, behind_known * outcome, behind_known, level, "user")
    lines.append({"about": "completion"} | line)
    return _judge(pd.DataFrame(lines, columns=columns), false_discoveries, "associated")


# What is odd


def duplicates(dataset: Dataset) -> pd.DataFrame:
    """Return what stands more than once: table, kind, rows, first cases; empty when nothing does.

    Kinds: `repeated` rows have the key of an earlier row and agree with it; `conflicting` rows share a key but not the
    rest (in `habit_tracking`: not the status); `same name` are habits whose normalised names are equal.
    """
    lines = []
    for name, table in TABLES.items():
        frame = dataset.table(name)
        key = [column for column in table.key if column in frame.columns]
        if frame.empty or len(key) < len(table.key):
            continue
        twice = frame[_repeated(frame, key)]
        if twice.empty:
            continue
        rest = ["status"] if name == "habit_tracking" else [c for c in frame.columns if c not in key]
        texts = twice[[*key, *(c for c in rest if c in twice.columns)]].astype("str").fillna("")
        variants = texts.drop_duplicates().groupby(key, sort=False).size()
        conflicting = texts.set_index(key).index.isin(variants.index[variants > 1])
        repeated = texts[~conflicting].duplicated(key).to_numpy()
        for kind, bad in (("conflicting", twice[conflicting]), ("repeated", twice[~conflicting][repeated])):
            lines.append((name, kind, len(bad), _cases(bad, key)))
    for column in ("name_en", "name_ru"):
        if column in dataset.habits.columns:
            names = dataset.habits[column].dropna().map(normalise_name)
            bad = dataset.habits.loc[names.index[names.duplicated(keep=False)]]
            lines.append(("habits", "same name", len(bad), _cases(bad, ["habit_id", column])))
    found = pd.DataFrame(lines, columns=["table", "kind", "rows", "first"])
    return found[found["rows"] > 0].reset_index(drop=True)


def suspicious(dataset: Dataset, *, today: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return values that can hardly be true: table, column, what, rows, first cases; empty when there are none.

    Without `today`, times count as in the future from the second day after the last tracked day on (in some zones a
    day ends later); days that stand years apart from the rest are told, and do not count as the last. Also told are
    ages outside 13-120, minutes of 0 or less, more minutes than a day has, sessions longer than a day, rows done more
    than two days from their date, and tracking before registration.
    """
    lines: list[tuple[str, str, str, pd.DataFrame]] = []
    date = _times(dataset.habit_tracking, "date")
    stray = _stray(date)
    lines.append(("habit_tracking", "date", "years apart from the other days", dataset.habit_tracking[stray]))
    if today is None:
        today = date[~stray].max() + pd.Timedelta(days=1)
    for name, table in TABLES.items():
        frame = dataset.table(name)
        for column, spec in table.columns.items():
            if spec.kind in ("date", "instant") and column in frame.columns:
                times = _times(frame, column)
                lines.append((name, column, "before 1970", frame[(times < pd.Timestamp(0)).to_numpy()]))
                if pd.notna(today):
                    future = times >= today.tz_localize(None).normalize() + pd.Timedelta(days=1)
                    lines.append((name, column, "in the future", frame[future.to_numpy()]))
    users, habits, tracking = dataset.users, dataset.habits, dataset.habit_tracking
    age, minutes, took = _numbers(users, "age"), _numbers(habits, "minutes"), _numbers(tracking, "minutes")
    seconds = _numbers(dataset.sessions, "seconds")
    lines += [
        ("users", "age", "outside 13-120", users[((age < 13) | (age > 120)).to_numpy()]),
        ("habits", "minutes", "0 or less", habits[(minutes <= 0).to_numpy()]),
        ("habits", "minutes", "more than a day", habits[(minutes > 1440).to_numpy()]),
        ("habit_tracking", "minutes", "below 0", tracking[(took < 0).to_numpy()]),
        ("habit_tracking", "minutes", "more than a day", tracking[(took > 1440).to_numpy()]),
        ("sessions", "seconds", "below 0", dataset.sessions[(seconds < 0).to_numpy()]),
        ("sessions", "seconds", "more than a day", dataset.sessions[(seconds > 86_400).to_numpy()]),
    ]
    at = _times(tracking, "at")
    away = (at - date.astype("datetime64[us]")).to_numpy() / np.timedelta64(1, "D")
    lines.append(("habit_tracking", "at", "more than two days from its date", tracking[(away < -2) | (away > 3)]))
    early = _before_registration(users, tracking, date)
    lines.append(("habit_tracking", "date", "before registration", tracking[early]))
    found = [
        (name, column, what, len(bad), _cases(bad, list(dict.fromkeys([*TABLES[name].key, column]))))
        for name, column, what, bad in lines
        if len(bad)
    ]
    return pd.DataFrame(found, columns=["table", "column", "what", "rows", "first"])


def overlapping_sessions(dataset: Dataset) -> pd.DataFrame:
    """Return the sessions that begin before an earlier one of the same user has ended.

    Columns: user_id, session_id, started_at, seconds, overlap (seconds shared with the sessions before it).
    """
    columns = ["user_id", "session_id", "started_at", "seconds", "overlap"]
    if not set(columns[:-1]) <= set(dataset.sessions.columns):
        return pd.DataFrame(columns=columns)
    sessions = dataset.sessions[columns[:-1]].assign(
        start=_times(dataset.sessions, "started_at"), seconds=_numbers(dataset.sessions, "seconds")
    )
    sessions = sessions.dropna(subset=["user_id", "start", "seconds"]).sort_values(["user_id", "start", "session_id"])
    end = sessions["start"] + pd.to_timedelta(sessions["seconds"], unit="s")
    before = end.groupby(sessions["user_id"]).cummax().groupby(sessions["user_id"]).shift()
    shared = np.minimum(before, end) - sessions["start"]
    overlap = (shared.to_numpy() / np.timedelta64(1, "s")).astype(float)
    found = sessions.assign(overlap=overlap)[overlap > 0]
    return found[columns].reset_index(drop=True)


# Helpers

_STATUSES = tuple(status.value for status in Status)
_DONE, _MISSED, _UNKNOWN = (_STATUSES.index(status) for status in (Status.DONE, Status.MISSED, Status.UNKNOWN))
_DIFFERENCE = ["n_1", "n_0", "rate_1", "rate_0", "difference", "ci_low", "ci_high", "p_value", "q_value", "verdict"]


@dataclass(frozen=True)
class _Tracked:
    """Tracking rows as whole numbers, each (rows,): codes into `users` and `habits`, day since 1970, status code.

    `position` says where the row stands in the table; rows without a user, habit or day are left out.
    """

    position: Whole
    user: Whole
    habit: Whole
    day: Whole
    status: Whole
    users: pd.Index
    habits: pd.Index

    def rate(self, codes: Whole, size: int) -> Floats:
        """Done / (done + missed) of each code 0 ... size - 1, NaN without such a row."""
        done = np.bincount(codes[self.status == _DONE], minlength=size)
        missed = np.bincount(codes[self.status == _MISSED], minlength=size)
        return np.divide(done, done + missed, out=np.full(size, np.nan), where=done + missed > 0)


def _tracked(dataset: Dataset) -> _Tracked:
    tracking = dataset.habit_tracking
    if not {"user_id", "habit_id", "date", "status"} <= set(tracking.columns):
        tracking = pd.DataFrame({"user_id": [], "habit_id": [], "date": [], "status": []}, dtype="str")
    user, users = pd.factorize(tracking["user_id"])
    habit, habits = pd.factorize(tracking["habit_id"])
    date = _times(tracking, "date")
    code, values = pd.factorize(tracking["status"])
    # The last place is what the code -1, a missing status, picks.
    status = np.append(pd.Index(_STATUSES).get_indexer(pd.Index(values).astype("str")), -1)[code]
    held = (user >= 0) & (habit >= 0) & date.notna().to_numpy()
    position = np.flatnonzero(held)
    day = date.to_numpy()[position].astype("datetime64[D]").astype(np.int64)
    return _Tracked(
        position,
        user[position],
        habit[position],
        day,
        status[position],
        pd.Index(users),
        pd.Index(habits),
    )


def _date(day: int) -> pd.Timestamp:
    return pd.Timestamp(np.datetime64(int(day), "D"))


def _times(frame: pd.DataFrame, column: str | None) -> pd.Series:
    """Times of a column without zone (UTC), NaT where there is none or it cannot be read."""
    if column is None or column not in frame.columns:
        return pd.Series(pd.NaT, index=frame.index, dtype="datetime64[us]")
    values = frame[column]
    if not pd.api.types.is_datetime64_any_dtype(values):
        values = pd.to_datetime(values.astype("str"), utc=True, errors="coerce", format="ISO8601")
    return values.dt.tz_localize(None) if values.dt.tz is not None else values


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series:
    if column not in frame.columns:
        return pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(frame[column], errors="coerce").astype(float)


def _cases(bad: pd.DataFrame, columns: list[str]) -> str:
    """Name the first five rows for people."""
    shown = bad.head(5)[[column for column in columns if column in bad.columns]]
    return "; ".join(", ".join(f"{c}={v}" for c, v in row.items()) for row in shown.to_dict("records"))


def _repeated(frame: pd.DataFrame, key: list[str]) -> Mask:
    """Rows whose key stands elsewhere too; on whole numbers, as hashing a million texts thrice is slow."""
    codes = np.zeros(len(frame), dtype=np.int64)
    for column in key:
        code, values = pd.factorize(frame[column], use_na_sentinel=False)
        codes = pd.factorize(codes * max(len(values), 1) + code)[0]
    return np.asarray(np.bincount(codes)[codes] > 1)


def _stray(dates: pd.Series, *, years: float = 5, share: float = 0.01) -> Mask:
    """Dates before or after a gap of `years` that hold at most a `share` of the rows on that side of it."""
    day = dates.to_numpy().astype("datetime64[D]").astype(np.int64)
    held = dates.notna().to_numpy()
    days, counts = np.unique(day[held], return_counts=True)
    if len(days) < 2:
        return np.zeros(len(day), dtype=bool)
    gap = np.diff(days) > 365 * years
    before = np.cumsum(counts)[:-1] / counts.sum()
    low = days[1:][gap & (before <= share)].max(initial=days[0])
    high = days[:-1][gap & (before >= 1 - share)].min(initial=days[-1])
    return held & ((day < low) | (day > high))


def _before_registration(users: pd.DataFrame, tracking: pd.DataFrame, date: pd.Series) -> Mask:
    """Rows two days or more before their user registered: a local day ends up to 36 hours after it begins in UTC."""
    if not {"user_id", "registered_at"} <= set(users.columns) or "user_id" not in tracking.columns:
        return np.zeros(len(tracking), dtype=bool)
    registered = _times(users, "registered_at").set_axis(users["user_id"]).groupby(level=0).min()
    code, names = pd.factorize(tracking["user_id"])
    # The last place is what the code -1, a missing user, picks.
    start = np.append(registered.reindex(names).to_numpy(), np.datetime64("NaT"))[code]
    return np.asarray(date.to_numpy() <= start - np.timedelta64(2, "D"))


def _expected(name: str, column: str, frame: pd.DataFrame, rows: _Tracked) -> Mask:
    """Cells that could be filled, (rows,)."""
    match name, column:
        case "habit_tracking", "at" | "minutes":
            return rows.status == _DONE
        case "habit_tracking", "value":
            measured = np.zeros(len(rows.habits), dtype=bool)
            measured[rows.habit[frame["value"].notna().to_numpy()]] = True
            return measured[rows.habit] & np.isin(rows.status, (_DONE, _MISSED))
        case "habits", "target_value" | "target_direction" if "unit" in frame.columns:
            return frame["unit"].notna().to_numpy()
        case "recommendations", "responded_at" if "response" in frame.columns:
            return frame["response"].notna().to_numpy()
    return np.ones(len(frame), dtype=bool)


def _difference(
    top_1: npt.NDArray,
    bottom_1: npt.NDArray,
    top_0: npt.NDArray,
    bottom_0: npt.NDArray,
    level: float,
    unit: str,
) -> dict[str, object]:
    """Difference of two ratios of sums over clusters, each (clusters,), with the clustered jackknife's errors.

    With one row a cluster and each cluster on one side this is Welch's t-test (1947, doi:10.1093/biomet/34.1-2.28).
    Clusters of unequal size leave fewer degrees of freedom: they count as (sum of sizes)^2 / sum of squared sizes.
    """
    n_1, n_0 = int((bottom_1 > 0).sum()), int((bottom_0 > 0).sum())
    found: dict[str, object] = {"n_1": n_1, "n_0": n_0}
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_1, rate_0 = top_1.sum() / bottom_1.sum(), top_0.sum() / bottom_0.sum()
    found |= {"rate_1": rate_1, "rate_0": rate_0, "difference": rate_1 - rate_0}
    if min(n_1, n_0) < FEWEST:
        return found | {"verdict": f"cannot tell: {unit}s on the two sides: {n_1} and {n_0}, {FEWEST} needed on each"}
    pull_1, pull_0 = _pull(top_1, bottom_1, rate_1), _pull(top_0, bottom_0, rate_0)
    error = float(np.sqrt(((pull_1 - pull_0) ** 2).sum()))
    if error < 1e-12:
        return found | {"verdict": f"cannot tell: nothing varies between {unit}s"}
    square_1, square_0 = (pull_1**2).sum(), (pull_0**2).sum()
    spread = square_1**2 / (_alike(bottom_1) - 1) + square_0**2 / (_alike(bottom_0) - 1)
    freedom = min((square_1 + square_0) ** 2 / spread, _alike(bottom_1 + bottom_0) - 1)
    reach = stats.t.ppf((1 + level) / 2, freedom) * error
    difference = rate_1 - rate_0
    p_value = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return found | {"ci_low": difference - reach, "ci_high": difference + reach, "p_value": p_value}


def _shares(lost_1: Whole, total_1: Whole, lost_0: Whole, total_0: Whole, level: float) -> dict[str, object]:
    """Difference of two shares of rows; with fewer than `FEWEST` unknown days expected on a side it is not judged."""
    share = (lost_1.sum() + lost_0.sum()) / (total_1.sum() + total_0.sum())
    expected = share * min(total_1.sum(), total_0.sum())
    found = _difference(lost_1, total_1, lost_0, total_0, level, "user")
    if "verdict" in found or expected >= FEWEST:
        return found
    found = {key: value for key, value in found.items() if key not in ("ci_low", "ci_high", "p_value")}
    return found | {"verdict": f"cannot tell: {expected:.1f} unknown days expected on a side, {FEWEST} needed"}


def _pull(top: npt.NDArray, bottom: npt.NDArray, rate: float) -> Floats:
    """How far the ratio moves without each cluster, (clusters,), scaled so that squares add up to its variance."""
    held = bottom > 0
    clusters = held.sum()
    moved = np.divide(top - rate * bottom, bottom.sum() - bottom, out=np.zeros(len(bottom)), where=held)
    return moved * np.sqrt((clusters - 1) / clusters)


def _alike(size: npt.NDArray) -> float:
    """Number of clusters of one size that would weigh as much as these (Kish 1965)."""
    return float(size.sum(dtype=float) ** 2 / (size.astype(float) ** 2).sum())


def _judge(found: pd.DataFrame, false_discoveries: float, yes: str) -> pd.DataFrame:
    """Fill q-values and the verdict of the rows that have a p-value."""
    found = found.astype(
        dict.fromkeys(("rate_1", "rate_0", "difference", "ci_low", "ci_high", "p_value", "q_value"), float)
    )
    found = found.assign(verdict=found["verdict"].astype("str"))
    tested = found["p_value"].notna().to_numpy()
    if tested.any():
        q_values = stats.false_discovery_control(found["p_value"].to_numpy()[tested])
        found.loc[tested, "q_value"] = q_values
        found.loc[tested, "verdict"] = np.where(q_values <= false_discoveries, yes, "no difference seen")
    return found.assign(**{c: found[c].fillna(0).astype(int) for c in ("n_1", "n_0")})
