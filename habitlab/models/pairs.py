"""Pairs of a user and a habit: whether one that was adopted succeeded, and what was known on the day it was adopted.

Success (3.3.2.b, registered before any model was fitted): once adopted, done on at least 60 % of what was scheduled on
the days 22-49 since adoption; from giving up on, what would have been scheduled counts as not done.

Censoring: a pair counts once the 50 days since its adoption lie before `until`, whatever became of it by then. Early
failures of younger pairs are known sooner than their successes, so taking them in would lower the base rate.

Age, gender and barriers are no features: age acts in the safety filter only, and for the others nobody has shown that
they help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Activity, Category, Level, TimeOfDay
from habitlab.features.as_of import NEVER, Ints, Tally, codes, end_of, event_days
from habitlab.features.days import DONE, MISSED, Day, Days, read_days, rows_before
from habitlab.models import Floats

WINDOW = (22, 50)
"""Days since adoption on which success is decided, the last one excluded."""

SUCCESS = 0.6
"""Share of what is scheduled in the window that has to be done."""

FEATURES = {
    "time_commitment": "minutes a day that the user has for habits",
    "goal_set": "whether the user has set a goal",
    "experience_level": "experience with habits, 0 beginner to 2 advanced",
    "difficulty_preference": "difficulty the user asks for, 0 beginner to 2 advanced",
    "areas": "number of areas to improve",
    "activities": "number of kinds of activity liked",
    "existing_habits": "number of habits held before registration",
    "unanswered": "questions of the form left open",
    "days_since_registration": "days since registration",
    "adopted": "habits adopted so far",
    "held": "habits held",
    "held_minutes": "minutes a day that the held habits take",
    "completion_rate": "share of days done so far, shrunk to that of all users",
    "completion_rate_recent": "share of days done in the last 28 days",
    "counted_days": "days done or missed so far",
    "minutes": "minutes the habit takes",
    "difficulty": "difficulty of the habit, 1 to 5",
    "frequency": "scheduled days a day: 1 daily, 1/7 weekly",
    "category": "area of the habit, in the order of the vocabulary",
    "habit_completion": "share of days all users did this habit so far, shrunk to that of its category",
    "habit_success": "share of other users' adoptions of the habit that succeeded, shrunk to that of its category",
    "category_match": "whether the habit's area is one the user wants to improve",
    "activity_match": "share of the habit's kinds of activity that the user likes",
    "time_match": "whether the habit's part of the day is the one the user prefers",
    "budget_left": "minutes a day left with this habit",
    "difficulty_gap": "difficulty of the habit above the one the user asks for",
    "category_completion": "share of days the user did habits of this area so far, shrunk to their own rate",
}
"""Name and meaning of each feature of a pair, in the order of the columns; NaN is not known."""

NAMES = tuple(FEATURES)

_CATEGORIES, _ACTIVITIES = [c.value for c in Category], [a.value for a in Activity]
_LEVELS, _TIMES = [level.value for level in Level], [t.value for t in TimeOfDay]
_FORM = ("preferred_time", "improvement_areas", "activity_preferences", "learning_style", "difficulty_preference",
         "chronotype")  # fmt: skip
_LEVEL_DIFFICULTY = np.array([1.5, 3.0, 4.5, np.nan])  # the last one is for a level that is not known
# Days, days and pairs that a prior weighs. Days of one pair, and pairs of one user, are much alike: a hundred days of a
# habit may come from two people. With a tenth of these weights held-out log loss was 0.001 worse.
_WEIGHT_OF_USER, _WEIGHT_OF_HABIT, _WEIGHT_OF_LABELS = 10.0, 300.0, 60.0

RECENT = 28
"""Days that count as recent."""

Arrays = dict[str, Any]


def success_labels(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Return every adoption whose window lies wholly before the local day `until`, and whether it succeeded.

    Columns: user_id, habit_id, user, habit (positions in the dataset's tables), day (of adoption, days since
    1970-01-01), scheduled (days of the window that count), done, success (bool).

    Days that count are those done or missed while the pair was held, and from giving up on those that the habit's
    target would have scheduled. Skipped and unknown days do not count, nor do days without a row; where fewer than half
    of what the target asks for is left, nobody can tell, and the pair is left out.

    Where nobody records giving up (imported logs), a pair ends with its last row, and it is followed to the last
    tracked day of its user only, for silence may be the end of the whole log: what is learnt holds for who keeps one.
    `attrs` counts the pairs left out: too_recent, undecided.
    """
    end = end_of(dataset, until)
    users, habits = dataset.users["user_id"], dataset.habits["habit_id"]
    user, habit = codes(dataset.adoptions["user_id"], users), codes(dataset.adoptions["habit_id"], habits)
    day = event_days(dataset, "adoptions", "adopted_at")
    ended = event_days(dataset, "adoptions", "abandoned_at")
    known = np.flatnonzero((user >= 0) & (habit >= 0) & (day < end))
    known = known[np.lexsort((day[known], (user * len(habits) + habit)[known]))]
    user, habit, day, ended = user[known], habit[known], day[known], ended[known]
    pair = user * len(habits) + habit
    again = np.append(np.where(pair[1:] == pair[:-1], day[1:], NEVER), NEVER)[: len(pair)]  # adopted once more

    days = read_days(rows_before(dataset.habit_tracking, end))
    done, missed = days.status == DONE, days.status == MISSED
    tracked = _pair_of_days(days, users, habits)
    tally = Tally(tracked, days.day, done=done, counted=done | missed)
    observed = np.full(len(pair), end)
    if not (event_days(dataset, "adoptions", "abandoned_at") < end).any():
        last = Tally(tracked, days.day).latest(pair, np.minimum(again, end))
        ended = np.where(np.isnan(last), day, last + 1).astype(np.int64)
        observed = _last_day(days, users)[user] + 1
    begin, close = day + WINDOW[0], day + WINDOW[1]
    stop = np.clip(np.minimum(ended, again), begin, close)  # held up to here

    rows, counted, kept = (
        measure(pair, stop) - measure(pair, begin)
        for measure in (tally.count, lambda *at: tally.sum("counted", *at), lambda *at: tally.sum("done", *at))
    )
    planned, lost = _planned(dataset, habit, begin - day), _planned(dataset, habit, stop - day)
    scheduled = (counted + lost) * np.minimum(1, planned / np.maximum(rows + lost, 1))  # some logs hold more days
    seen, decided = close <= observed, 2 * scheduled >= planned
    frame = pd.DataFrame(
        {
            "user_id": users.to_numpy(dtype=object)[user],
            "habit_id": habits.to_numpy(dtype=object)[habit],
            "user": user,
            "habit": habit,
            "day": day,
            "scheduled": scheduled,
            "done": kept,
            "success": kept >= np.maximum(1, np.ceil(SUCCESS * scheduled - 1e-9)),
        }
    )[seen & decided].reset_index(drop=True)
    frame.attrs = {"too_recent": int((~seen).sum()), "undecided": int((seen & ~decided).sum())}
    return frame


def _planned(dataset: Dataset, habit: Ints, since: Ints) -> Floats:
    """Days that targets schedule from day `since` of a pair to the end of the window (n,).

    Occasion j of k per n days falls on day floor(j n / k).
    """
    times, per_days = (of[habit] for of in _schedule(dataset))
    return np.ceil(WINDOW[1] * times / per_days - 1e-9) - np.ceil(since * times / per_days - 1e-9)


def _schedule(dataset: Dataset) -> tuple[Floats, Floats]:
    """Times and days of each habit's target (habits,); daily where it has none, and at most once a day."""
    if "target" not in dataset.habits:
        return np.ones(len(dataset.habits)), np.ones(len(dataset.habits))
    parts = dataset.habits["target"].astype("str").str.extract(r"^(\d+)/(\d+)$").astype(float).fillna(1.0)
    times, per_days = parts.to_numpy().T
    return np.minimum(times, per_days), per_days


def _pair_of_days(days: Days, users: pd.Series, habits: pd.Series) -> Ints:
    user, habit = codes(days.pairs["user_id"], users), codes(days.pairs["habit_id"], habits)
    return days.repeat(np.where((user >= 0) & (habit >= 0), user * len(habits) + habit, -1))


def _last_day(days: Days, users: pd.Series) -> Ints:
    """Last tracked day of each user (users,); 0 without one."""
    last = np.zeros(len(users), dtype=np.int64)
    if len(days.pairs):
        np.maximum.at(last, codes(days.pairs["user_id"], users), days.day[days.starts + days.lengths - 1])
    return last


def read_profiles(users: pd.DataFrame) -> Arrays:
    """Arrays (users, ...) of what people say of themselves, from columns of the table `users`; all may be absent."""
    size = len(users)

    def numbers(column: str) -> Floats:
        if column not in users:
            return np.full(size, np.nan)
        return pd.to_numeric(users[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)

    def position(column: str, words: list[str]) -> Ints:
        values = users[column] if column in users else pd.Series([None] * size, dtype=object)
        return pd.Categorical(values, categories=words).codes.astype(np.int64)

    def lists(column: str) -> list[list[str] | None]:
        values = users[column].tolist() if column in users else [None] * size
        return [list(value) if isinstance(value, (list, tuple, np.ndarray)) else None for value in values]

    areas, activities = lists("improvement_areas"), lists("activity_preferences")
    time_commitment = _finite(numbers("time_commitment"))
    level, existing = position("difficulty_preference", _LEVELS), lists("existing_habits")
    absent = sum((users[column].isna().to_numpy() if column in users else np.ones(size)) for column in _FORM)
    return {
        "time_commitment": time_commitment,
        "goal_set": numbers("goal_set"),
        "experience_level": _or_nan(position("experience_level", _LEVELS)),
        "difficulty_preference": _or_nan(level),
        "areas": np.array([np.nan if chosen is None else len(chosen) for chosen in areas], dtype=float),
        "activities": np.array([np.nan if chosen is None else len(chosen) for chosen in activities], dtype=float),
        "existing_habits": np.array([np.nan if held is None else len(held) for held in existing], dtype=float),
        "unanswered": absent + np.isnan(time_commitment),
        "wanted_difficulty": _LEVEL_DIFFICULTY[level],
        "by_area": _ticked(areas, _CATEGORIES),
        "by_activity": _ticked(activities, _ACTIVITIES)[:, :-1],
        "by_time": _TIME_MATCH[position("preferred_time", _TIMES)],
    }


# Rows: what the user prefers, columns: what the habit asks for; morning, afternoon, evening, any, not known.
_TIME_MATCH = np.full((5, 5), np.nan)
_TIME_MATCH[:4, :4] = np.eye(4)
_TIME_MATCH[3, :4] = _TIME_MATCH[:4, 3] = 1.0


def no_history(size: int) -> Arrays:
    """History (users, ...) of people who have just registered."""
    zeros, unknown = np.zeros(size), np.full(size, np.nan)
    return {
        "days_since_registration": zeros,
        "adopted": zeros,
        "held": zeros,
        "held_minutes": zeros,
        "completion_rate": unknown,
        "completion_rate_recent": unknown,
        "counted_days": zeros,
        "by_category": np.full((size, len(_CATEGORIES) + 1), np.nan),
    }


def read_habits(dataset: Dataset) -> Arrays:
    """Arrays (habits, ...) of what is known of the habits themselves."""
    habits = dataset.habits

    def numbers(column: str) -> Floats:
        return _finite(habits[column].to_numpy(dtype=float)) if column in habits else np.full(len(habits), np.nan)

    def position(column: str, words: list[str]) -> Ints:
        values = habits[column] if column in habits else pd.Series([None] * len(habits), dtype=object)
        return pd.Categorical(values, categories=words).codes.astype(np.int64)

    times, per_days = _schedule(dataset)
    kinds = habits["activity_type"].tolist() if "activity_type" in habits else [None] * len(habits)
    ticked = _ticked([k if isinstance(k, list) and k else None for k in kinds], _ACTIVITIES)[:, :-1]
    return {
        "minutes": numbers("minutes"),
        "difficulty": numbers("difficulty"),
        "frequency": times / per_days,
        "category": position("category", _CATEGORIES),
        "time": position("time_of_day", _TIMES),
        "kinds": ticked / ticked.sum(axis=1, keepdims=True),
    }


class History:
    """What users did, to be read as of any day up to `until`: only earlier local days count."""

    def __init__(self, dataset: Dataset, until: Day | None = None) -> None:
        """Read what happened before `until`; None is everything."""
        self.end = end_of(dataset, until)
        self._registered = event_days(dataset, "users", "registered_at")
        users, habits = dataset.users["user_id"], dataset.habits["habit_id"]
        attributes = read_habits(dataset)
        self._category = attributes["category"]
        self._wide = len(_CATEGORIES) + 1
        days = read_days(rows_before(dataset.habit_tracking, self.end))
        pair = _pair_of_days(days, users, habits)
        user, habit = np.where(pair < 0, -1, pair // max(len(habits), 1)), pair % max(len(habits), 1)
        counted = ((days.status == DONE) | (days.status == MISSED)) & (pair >= 0)
        user, habit, day, done = user[counted], habit[counted], days.day[counted], days.status[counted] == DONE
        category = self._category[habit] % self._wide
        self._of_all = Tally(np.zeros(len(day), dtype=np.int64), day, done=done)
        self._of_habit = Tally(habit, day, done=done)
        self._of_category = Tally(category, day, done=done)
        self._of_user = Tally(user, day, done=done)
        self._of_user_category = Tally(user * self._wide + category, day, done=done)
        # Whole thousandths of a minute a day: their sums are exact, whoever else is summed before.
        minutes = np.rint(1000 * np.nan_to_num(attributes["minutes"]) * attributes["frequency"])
        place, owner = codes(dataset.adoptions["habit_id"], habits), codes(dataset.adoptions["user_id"], users)
        owner, taken = np.where(place < 0, -1, owner), minutes[place]
        begun = event_days(dataset, "adoptions", "adopted_at")
        ended = event_days(dataset, "adoptions", "abandoned_at")
        self._begun, self._ended = Tally(owner, begun, minutes=taken), Tally(owner, ended, minutes=taken)

    def of_users(self, user: Ints, day: Ints) -> Arrays:
        """Arrays (n, ...) of these users (positions) as of these days (n,)."""
        whole = self._rate_of_all(day)
        done, counted = self._of_user.sum("done", user, day), self._of_user.count(user, day)
        rate = np.where(counted > 0, _shrunk(done, counted, whole, _WEIGHT_OF_USER), np.nan)
        recent = self._of_user.sum("done", user, day, RECENT), self._of_user.count(user, day, RECENT)
        by_category = np.full((len(user), self._wide), np.nan)
        for category in range(self._wide - 1):
            key = user * self._wide + category
            done, of = self._of_user_category.sum("done", key, day), self._of_user_category.count(key, day)
            by_category[:, category] = np.where(of > 0, _shrunk(done, of, rate, _WEIGHT_OF_USER), np.nan)
        registered, adopted = self._registered[user], self._begun.count(user, day)
        taken = self._begun.sum("minutes", user, day) - self._ended.sum("minutes", user, day)
        return {
            "days_since_registration": np.where(registered < NEVER, np.maximum(day - registered, 0), np.nan),
            "adopted": adopted.astype(float),
            "held": (adopted - self._ended.count(user, day)).astype(float),
            "held_minutes": taken / 1000,
            "completion_rate": rate,
            "completion_rate_recent": np.where(recent[1] > 0, recent[0] / np.maximum(recent[1], 1), np.nan),
            "counted_days": counted.astype(float),
            "by_category": by_category,
        }

    def of_habits(self, habit: Ints, day: Ints) -> Floats:
        """`habit_completion` (n,) of these habits (positions) as of these days (n,)."""
        whole = self._rate_of_all(day)
        category = self._category[habit] % self._wide
        area = _shrunk(
            self._of_category.sum("done", category, day),
            self._of_category.count(category, day),
            whole,
            _WEIGHT_OF_HABIT,
        )
        return _shrunk(self._of_habit.sum("done", habit, day), self._of_habit.count(habit, day), area, _WEIGHT_OF_HABIT)

    def _rate_of_all(self, day: Ints) -> Floats:
        everybody = np.zeros(len(day), dtype=np.int64)
        return _shrunk(self._of_all.sum("done", everybody, day), self._of_all.count(everybody, day), 0.5, 2.0)


def success_rates(habit: Ints, success: Ints, category: Ints) -> Floats:
    """`habit_success` of every habit (habits,) from labelled pairs (n,); `category` (habits,), -1 where not known."""
    wide = len(_CATEGORIES) + 1
    whole = (success.sum() + 1) / (len(success) + 2)
    area = category % wide
    by_area = _shrunk(
        np.bincount(area[habit], success, wide), np.bincount(area[habit], minlength=wide), whole, _WEIGHT_OF_LABELS
    )
    count = np.bincount(habit, minlength=len(category))
    return _shrunk(np.bincount(habit, success, len(category)), count, by_area[area], _WEIGHT_OF_LABELS)


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Adopted pairs with their label and what was known on the morning of the day they were adopted.

    columns (features, pairs) in the order of `NAMES`, `habit_success` still NaN: it depends on who is learnt from.
    table: the rows of `success_labels`. category (habits,): position in the vocabulary, -1 not known.
    """

    columns: Floats
    table: pd.DataFrame
    category: Ints

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.table)

    @property
    def user(self) -> Ints:
        """Position of each pair's user (pairs,)."""
        return self.table["user"].to_numpy()

    @property
    def success(self) -> Ints:
        """1 where a pair succeeded, else 0 (pairs,)."""
        return self.table["success"].to_numpy(dtype=np.int64)


def label_pairs(dataset: Dataset, until: Day | None = None, history: History | None = None) -> LabelledPairs:
    """Read labels and features of all pairs that can be judged before `until`; `history` as of the same day."""
    table = success_labels(dataset, until)
    columns = adoption_columns(dataset, history or History(dataset, until), table)
    return LabelledPairs(columns, table, read_habits(dataset)["category"])


def adoption_columns(dataset: Dataset, history: History, table: pd.DataFrame) -> Floats:
    """Features (features, pairs) of pairs on the morning of their adoption; `table` has user, habit and day of each."""
    user, habit, day = (table[name].to_numpy() for name in ("user", "habit", "day"))
    person = take(read_profiles(dataset.users), user) | history.of_users(user, day)
    there = take(read_habits(dataset), habit) | {
        "habit_completion": history.of_habits(habit, day),
        "habit_success": np.full(len(table), np.nan),
    }
    return pair_columns(person, there)


def pair_columns(person: Arrays, habit: Arrays) -> Floats:
    """Features of pairs, row i of `person` with row i of `habit`: (features, n), in the order of `NAMES`."""
    rows = np.arange(len(person["held"]))
    liked = np.einsum("ij,ij->i", person["by_activity"], habit["kinds"])
    return _columns(person, habit, np.empty((len(NAMES), len(rows))), rows, slice(None), liked)


def grid_columns(person: Arrays, habit: Arrays) -> Floats:
    """Features of every person with every habit: (features, people, habits), in the order of `NAMES`."""
    rows = np.arange(len(person["held"]))[:, None]
    liked = person["by_activity"] @ habit["kinds"].T
    out = np.empty((len(NAMES), len(rows), len(habit["minutes"])))
    return _columns(person, habit, out, rows, (slice(None), None), liked)


def _columns(person: Arrays, habit: Arrays, out: Floats, rows: Ints, own: Any, liked: Floats) -> Floats:
    """Fill `out`; `rows` picks a person's row in tables, `own` lays a person's values out beside habits."""
    category = habit["category"]
    of_both = {
        "category": np.where(category < 0, np.nan, category),
        "category_match": person["by_area"][rows, category],
        "activity_match": liked,
        "time_match": person["by_time"][rows, habit["time"]],
        "budget_left": (person["time_commitment"] - person["held_minutes"])[own]
        - habit["minutes"] * habit["frequency"],
        "difficulty_gap": habit["difficulty"] - person["wanted_difficulty"][own],
        "category_completion": person["by_category"][rows, category],
    }
    for column, name in enumerate(NAMES):
        if name in of_both:
            out[column] = of_both[name]
        else:
            out[column] = person[name][own] if name in person else habit[name]
    return out


def take(arrays: Arrays, rows: npt.ArrayLike) -> Arrays:
    """These rows of each array."""
    return {name: values[rows] for name, values in arrays.items()}


def _ticked(chosen: list[list[str] | None], words: list[str]) -> Floats:
    """1 for each word that is chosen (rows, words + 1), NaN in rows without an answer and in the last column."""
    place = {word: position for position, word in enumerate(words)}
    ticks = np.zeros((len(chosen), len(words) + 1))
    ticks[:, -1] = np.nan
    for row, answer in enumerate(chosen):
        if answer is None:
            ticks[row] = np.nan
        else:
            ticks[row, [place[word] for word in answer if word in place]] = 1.0
    return ticks


def _shrunk(done: npt.ArrayLike, counted: npt.ArrayLike, prior: npt.ArrayLike, weight: float) -> Floats:
    return (np.asarray(done) + weight * np.asarray(prior)) / (np.asarray(counted) + weight)


def _or_nan(position: Ints) -> Floats:
    return np.where(position < 0, np.nan, position)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
