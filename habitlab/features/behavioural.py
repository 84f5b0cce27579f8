"""How a person goes about habits: completion, taste for categories, growing difficulty; and all features of a user.

Formulas are in `docs/features.md`, names and sources in `feature_catalogue`. Everything is as of the morning of a local
day `until` (None: after everything): only what happened on earlier days of a user's own calendar counts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import AdoptionSource, Category, Response
from habitlab.features.as_of import NEVER, Floats, Ints, Tally, codes, end_of, event_days
from habitlab.features.days import DONE, MISSED, Day, read_days, rows_before
from habitlab.features.profiles import completion_hours, time_of_day
from habitlab.features.rates import RatePrior
from habitlab.features.temporal import summary

CATEGORIES = [category.value for category in Category]
RECENT = 28
"""Days that count as recent."""


def user_features(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Every feature of every user of the dataset, known or new, as of `until`: index user_id, float64 columns.

    A count is 0 for who did nothing, and NaN where no such event of anybody is known by then (trackers that record no
    sessions, say). What each column means is in `feature_catalogue`.
    """
    end = end_of(dataset, until)
    as_day = np.datetime64(end, "D")
    index = pd.Index(dataset.users["user_id"], name="user_id")
    history = UserHistory(dataset, end)
    parts = [
        history.at(np.arange(len(index)), np.full(len(index), end)).set_axis(index),
        completion_rates(dataset, as_day).drop(columns=["done", "counted"]),
        _strength(dataset, as_day, index),
        _held_habits(dataset, end, index),
        difficulty_gradient(dataset, as_day)["slope"].rename("difficulty_gradient").to_frame(),
        category_affinity(dataset, as_day).add_prefix("affinity_"),
        _hours(dataset, as_day, index),
    ]
    return pd.concat(parts, axis=1).astype(float)


class UserHistory:
    """Counts of what users did, ready to be read as of many days at once.

    `end` (days since 1970-01-01) bounds what may be read: nothing on or after it is even looked at.
    """

    def __init__(self, dataset: Dataset, end: int) -> None:
        self._end, users = end, dataset.users["user_id"]
        self.habits = dataset.habits["habit_id"]
        self.registered = event_days(dataset, "users", "registered_at")

        days = read_days(rows_before(dataset.habit_tracking, end))
        user, habit = codes(days.pairs["user_id"], users), codes(days.pairs["habit_id"], self.habits)
        done, counted = days.status == DONE, (days.status == DONE) | (days.status == MISSED)
        of_user, of_pair = days.repeat(user), days.repeat(self._pair(user, habit))
        self._tracked = Tally(of_user, days.day, done=done, counted=counted)
        self._done = Tally(of_user[done], days.day[done])
        self._of_pair = Tally(of_pair, days.day, done=done, counted=counted)

        frame = dataset.adoptions
        user, habit = codes(frame["user_id"], users), codes(frame["habit_id"], self.habits)
        adopted = self._known(event_days(dataset, "adoptions", "adopted_at"))
        abandoned = np.where(adopted < NEVER, self._known(event_days(dataset, "adoptions", "abandoned_at")), NEVER)
        self._adopted, self._abandoned = Tally(user, adopted), Tally(user, abandoned)
        self._pair_adopted = Tally(self._pair(user, habit), adopted)

        frame = dataset.recommendations
        shown = self._known(event_days(dataset, "recommendations", "shown_at"))
        user = codes(frame["user_id"], users)
        self._exposed = Tally(user, shown)
        answered = np.where(shown < NEVER, self._known(event_days(dataset, "recommendations", "responded_at")), NEVER)
        answer = frame["response"] if "response" in frame else pd.Series(index=frame.index, dtype=object)
        said_yes = (answer == Response.ACCEPTED).to_numpy(dtype=bool)
        self._accepted = Tally(user[said_yes], answered[said_yes])
        said_no = (answer == Response.REJECTED).to_numpy(dtype=bool)
        self._rejected = Tally(user[said_no], answered[said_no])

        self._sessions, self._changes, self._ratings = (
            Tally(codes(dataset.table(table)["user_id"], users), self._known(event_days(dataset, table, column)))
            for table, column in (("sessions", "started_at"), ("modifications", "at"), ("feedback", "at"))
        )

    def at(self, user: Ints, day: Ints) -> pd.DataFrame:
        """Features of these users (n, positions in `dataset.users`) as of these days (n,): a row each."""
        registered = self.registered[user]
        counted = self._tracked.sum("counted", user, day)
        recent = self._tracked.sum("counted", user, day, RECENT)
        columns = {
            "days_since_registration": np.where(registered < day, day - registered, np.nan),
            "adopted": _counts(self._adopted, user, day),
            "abandoned": _counts(self._abandoned, user, day, self._adopted),
            "held": _counts(self._adopted, user, day) - self._abandoned.count(user, day),
            "counted_days": np.where(self._tracked.size, counted, np.nan),
            "completion_rate": _ratio(self._tracked.sum("done", user, day), counted),
            "completion_rate_recent": _ratio(self._tracked.sum("done", user, day, RECENT), recent),
            "days_since_done": day - self._done.latest(user, day),
            "exposed": _counts(self._exposed, user, day),
            "accepted": _counts(self._accepted, user, day, self._exposed),
            "rejected": _counts(self._rejected, user, day, self._exposed),
            "acceptance_rate": _ratio(self._accepted.count(user, day), self._exposed.count(user, day)),
            "sessions": _counts(self._sessions, user, day),
            "sessions_recent": _counts(self._sessions, user, day, window=RECENT),
            "days_since_session": day - self._sessions.latest(user, day),
            "modifications": _counts(self._changes, user, day),
            "ratings": _counts(self._ratings, user, day),
        }
        return pd.DataFrame(columns)

    def _pair(self, user: Ints, habit: Ints) -> Ints:
        return np.where((user >= 0) & (habit >= 0), user * len(self.habits) + habit, -1)

    def _known(self, day: Ints) -> Ints:
        return np.where(day < self._end, day, NEVER)


def completion_rates(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Completion of each user over all habits: index user_id (all users), days done and counted (done or missed).

    `completion_rate_shrunk` with `completion_low` and `completion_high` at `level`.
    """
    end = end_of(dataset, until)
    days = read_days(rows_before(dataset.habit_tracking, end))
    users = dataset.users["user_id"]
    user = days.repeat(codes(days.pairs["user_id"], users))
    done = np.bincount(user, days.status == DONE, len(users))
    counted = done + np.bincount(user, days.status == MISSED, len(users))
    prior = RatePrior.fit(done, counted)
    low, high = prior.interval(done, counted, level)
    return pd.DataFrame(
        {
            "done": done,
            "counted": counted,
            "completion_rate_shrunk": prior.shrink(done, counted),
            "completion_low": low,
            "completion_high": high,
        },
        index=pd.Index(users, name="user_id"),
    )


def category_affinity(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Taste of each user for each category, shrunk log-odds against all users (users, categories)."""
    users = dataset.users["user_id"]
    return pd.DataFrame(np.nan, index=pd.Index(users, name="user_id"), columns=CATEGORIES)


def difficulty_gradient(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Slope of the difficulty of habits (1-5) over the order of adoption, by user."""
    users = dataset.users["user_id"]
    return pd.DataFrame({"slope": np.nan}, index=pd.Index(users, name="user_id"))


def _strength(dataset: Dataset, day: Day, index: pd.Index) -> pd.DataFrame:
    """Mean strength and streaks over a user's tracked habits."""
    pairs = summary(dataset.habit_tracking, dataset.habits, day)
    groups = pairs.groupby(pairs["user_id"].astype(object))
    table = pd.DataFrame(
        {
            "habits_tracked": groups.size(),
            "strength": groups["strength"].mean(),
            "streak": groups["streak"].max(),
            "longest_streak": groups["longest_streak"].max(),
        }
    )
    table = table.reindex(index.astype(object)).set_axis(index)
    return table.fillna({"habits_tracked": 0}) if len(pairs) else table


def _held_habits(dataset: Dataset, end: int, index: pd.Index) -> pd.DataFrame:
    """What the habits held on day `end` ask for."""
    adopted, abandoned = (event_days(dataset, "adoptions", c) for c in ("adopted_at", "abandoned_at"))
    held = dataset.adoptions.loc[(adopted < end) & ~(abandoned < end), ["user_id", "habit_id"]]
    user, habit = codes(held["user_id"], index.to_series()), codes(held["habit_id"], dataset.habits["habit_id"])
    columns = {}
    for name in ("difficulty", "minutes"):
        value = dataset.habits[name].to_numpy(float)[habit] if name in dataset.habits else np.full(len(habit), np.nan)
        known = np.isfinite(value)
        total, count = (
            np.bincount(user[known], weights, len(index)) for weights in (value[known], np.ones(known.sum()))
        )
        columns[f"{name}_held"] = _ratio(total, count)
    return pd.DataFrame(columns, index=index)


def _hours(dataset: Dataset, day: Day, index: pd.Index) -> pd.DataFrame:
    """When in the day a user does habits, and how fixed that is."""
    names = {"preferred_hour": "preferred_hour", "resultant_length": "hour_concentration"}
    if not {"at"} <= set(dataset.habit_tracking) or "zone" not in dataset.users:
        return pd.DataFrame(np.nan, index=index, columns=list(names.values()))
    hours = time_of_day(completion_hours(dataset.habit_tracking, dataset.users, day))
    return hours.set_index("user_id")[list(names)].rename(columns=names).reindex(index)


def _counts(tally: Tally, user: Ints, day: Ints, recorded: Tally | None = None, window: int | None = None) -> Floats:
    """Events of users before days, NaN where none of this kind (or of that which makes them possible) is known."""
    count = tally.count(user, day, window).astype(float)
    return count if (recorded or tally).size else np.full(len(count), np.nan)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
