"""What the recommender keeps of all users, as plain arrays: enough to serve any of them in a few milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from habitlab.recommender.candidates import Candidates, ticks
from habitlab.recommender.context import LONG_AGO, Group
from habitlab.recommender.guardrails import ADULT

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.dataset import Dataset
    from habitlab.features.days import Day
    from habitlab.models.interactions import Interactions

HELD, REJECTED, GIVEN_UP, SHOWN = range(4)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pairs = tuple[Ints, Ints, Ints, int]  # user, habit, day and kind of events

SHARED = (
    "age", "preferred_time", "improvement_areas", "activity_preferences", "learning_style", "difficulty_preference",
    "chronotype", "time_commitment", "goal_set", "experience_level",
)  # fmt: skip
"""Answers that explanations may speak of: neither barriers nor gender."""


@dataclass(frozen=True, eq=False)
class People:
    """Users as arrays (users,); events of all users one after the other, those of user i from `first[i]` on.

    An event is that a habit is held, was rejected, was given up, or was shown and not taken, on a day since 1970-01-01.
    """

    ids: npt.NDArray[np.str_]
    age: Floats  # of a band its lower end
    budget: Floats
    liked: npt.NDArray[np.bool_]  # (users, 5)
    evidence: Floats
    weekdays: Floats  # (users, 7)
    zone: npt.NDArray[np.str_]  # "" where unknown
    profiles: npt.NDArray[np.bytes_]  # JSON of the `SHARED` answers given
    first: Ints  # (users + 1,)
    event_habit: npt.NDArray[np.int32]
    event_day: Ints
    event_kind: npt.NDArray[np.int8]
    opted_out: npt.NDArray[np.bool_]  # refused to be recommended to personally
    profiled: npt.NDArray[np.bool_]  # may be concluded upon from what they do: see `may_be_profiled`

    @classmethod
    def read(cls, dataset: Dataset, candidates: Candidates, interactions: Interactions, until: Day | None) -> People:
        """Read all users of a dataset, and what happened before the local day `until`."""
        import pandas as pd

        from habitlab.dataset.vocabulary import Purpose
        from habitlab.models.interactions import last_words, refused

        weekdays = _weekdays(dataset, until)
        people = cls._of(dataset.users, interactions.evidence, weekdays, _events(dataset, interactions, until))
        told = last_words(dataset, Purpose.PROFILING).reindex(people.ids)
        profiled = [
            may_be_profiled(None if pd.isna(word) else bool(word), age)
            for word, age in zip(told.tolist(), people.age.tolist(), strict=True)
        ]
        return replace(
            people,
            opted_out=np.isin(people.ids, sorted(refused(dataset, Purpose.PERSONALISATION))),
            profiled=np.array(profiled, dtype=bool),
        )

    @classmethod
    def strangers(cls, users: pd.DataFrame, candidates: Candidates, weekdays: Floats) -> People:
        """People without any history, from columns of the table `users`; habits they hold are known by id or name."""
        from habitlab.dataset.catalogue import normalise_name

        number = {
            normalise_name(str(name)): habit
            for names in (candidates.name_ru, candidates.name_en)
            for habit, name in enumerate(names)
            if name
        } | {normalise_name(str(name)): habit for habit, name in enumerate(candidates.ids)}
        lists = users["existing_habits"] if "existing_habits" in users else [None] * len(users)
        held = [
            (row, number[normalise_name(name)])
            for row, names in enumerate(lists)
            for name in (names if isinstance(names, list) else [])
            if normalise_name(name) in number
        ]
        user, habit = np.array(held, dtype=np.int64).reshape(-1, 2).T
        nobody = np.zeros(len(users))
        return cls._of(
            users, nobody, np.tile(weekdays, (len(users), 1)), [(user, habit, np.full(len(user), LONG_AGO), HELD)]
        )

    @classmethod
    def _of(cls, users: pd.DataFrame, evidence: Floats, weekdays: Floats, events: list[Pairs]) -> People:
        import pandas as pd

        from habitlab.dataset.vocabulary import Activity

        nothing = pd.Series([None] * len(users), index=users.index, dtype=object)
        user, habit, day = (np.concatenate([event[i] for event in events]) for i in range(3))
        kind = np.repeat([event[3] for event in events], [len(event[0]) for event in events])
        order = np.argsort(user, kind="stable")
        zone = users.get("zone", nothing)
        return cls(
            ids=users["user_id"].to_numpy(dtype=np.str_),
            age=_ages(users.get("age", nothing), users.get("age_band", nothing)),
            budget=pd.to_numeric(users.get("time_commitment", nothing)).to_numpy(dtype=np.float64, na_value=np.nan),
            liked=ticks(users.get("activity_preferences", nothing), [a.value for a in Activity]),
            evidence=evidence,
            weekdays=weekdays,
            zone=zone.astype(object).where(zone.notna(), "").to_numpy(dtype=np.str_),
            profiles=np.array(_profiles(users), dtype=np.bytes_),
            first=np.searchsorted(user[order], np.arange(len(users) + 1)),
            event_habit=habit[order].astype(np.int32),
            event_day=day[order].astype(np.int64),
            event_kind=kind[order].astype(np.int8),
            opted_out=np.zeros(len(users), dtype=bool),
            profiled=np.ones(len(users), dtype=bool),
        )

    def unprofiled(self, weekdays: Floats) -> People:
        """Return them with nothing concluded from what they do: no evidence, and everybody's weekdays (7,)."""
        return replace(self, evidence=np.zeros(len(self.ids)), weekdays=np.broadcast_to(weekdays, self.weekdays.shape))

    def group(self, rows: Ints, habits: int) -> Group:
        """Some users, as filters see them; `habits` is the number of all habits."""
        count = self.first[rows + 1] - self.first[rows]
        by = np.repeat(np.arange(len(rows)), count)
        mine = np.arange(len(by)) + np.repeat(self.first[rows] - (np.cumsum(count) - count), count)
        habit, day, kind = self.event_habit[mine].astype(np.int64), self.event_day[mine], self.event_kind[mine]
        held = np.zeros((len(rows), habits), dtype=bool)
        held[by[kind == HELD], habit[kind == HELD]] = True
        last = np.full((2, len(rows), habits), LONG_AGO)
        for number, what in enumerate((REJECTED, GIVEN_UP)):
            np.maximum.at(last[number], (by[kind == what], habit[kind == what]), day[kind == what])
        shown = kind == SHOWN
        return Group(
            age=self.age[rows],
            budget=self.budget[rows],
            held=held,
            rejected=last[0],
            given_up=last[1],
            shown_to=by[shown],
            shown=habit[shown],
            shown_day=day[shown],
            weekdays=self.weekdays[rows],
        )

    @classmethod
    def joined(cls, groups: Sequence[People]) -> People:
        """Return all these people, one group after the other."""
        ends = np.cumsum([0, *(len(people.event_kind) for people in groups)])
        first = [people.first[:-1] + begin for people, begin in zip(groups, ends[:-1], strict=True)]
        arrays = {
            name: np.concatenate([getattr(people, name) for people in groups])
            for name in vars(groups[0])
            if name != "first"
        }
        return cls(first=np.append(np.concatenate(first), ends[-1]), **arrays)

    def profile(self, user: int) -> dict[str, Any]:
        """Return the `SHARED` answers that a user gave."""
        return answers_of(bytes(self.profiles[user]))


def answers_of(profile: bytes) -> dict[str, Any]:
    """Return the answers given in one of `People.profiles`; ValueError for what is no JSON object."""
    told = json.loads(profile)
    if not isinstance(told, dict):
        raise ValueError(f"answers are a JSON object; got {told!r}")
    return {name: answer for name, answer in told.items() if answer is not None}


def may_be_profiled(told: bool | None, age: float) -> bool:
    """Whether to conclude anything from what somebody does.

    `told`: what they said of the purpose `profiling`, None for nothing; `age` in years. Minors are not unless it was
    allowed in so many words (GDPR, recital 71); everybody else, those of unknown age included, unless they refused.
    """
    return not age < ADULT if told is None else told


def _ages(years: pd.Series, bands: pd.Series) -> Floats:
    """Years, or the lower end of a band (`>=30`, `30-39`), so that nobody counts as older than they surely are."""
    import pandas as pd

    least = bands.astype("str").str.extract(r"^\s*(?:>=\s*)?(\d+)", expand=False)
    return pd.to_numeric(years).fillna(pd.to_numeric(least)).to_numpy(dtype=np.float64, na_value=np.nan)


def _weekdays(dataset: Dataset, until: Day | None) -> Floats:
    """Log-odds of completion by weekday of every user (users, 7); those without a day tracked have everybody's."""
    from habitlab.features.profiles import weekday_effects, weekday_profile

    everybody = np.zeros(7)
    by_user = np.zeros((len(dataset.users), 7))
    if not dataset.habit_tracking.empty:
        everybody = np.nan_to_num(weekday_effects(dataset.habit_tracking, until)["effect"].to_numpy(dtype=float))
        own = weekday_profile(dataset.habit_tracking, until).set_index(["user_id", "weekday"])["effect"].unstack()  # noqa: PD010
        by_user = own.reindex(dataset.users["user_id"]).to_numpy(dtype=float)
    return np.where(np.isnan(by_user), everybody, by_user)


def _events(dataset: Dataset, interactions: Interactions, until: Day | None) -> list[Pairs]:
    import pandas as pd

    from habitlab.features.days import rows_before, until_day
    from habitlab.models.interactions import before, days_of

    users, habits = pd.Index(interactions.user_ids), pd.Index(interactions.habit_ids)

    def pairs(frame: pd.DataFrame, days: npt.NDArray, kind: int) -> Pairs:
        known = ~np.isnat(days)
        day = np.where(known, days.astype("datetime64[D]").astype(np.int64), LONG_AGO)
        return users.get_indexer(frame["user_id"]), habits.get_indexer(frame["habit_id"]), day, kind

    held_user, held_habit = interactions.held.nonzero()
    events: list[Pairs] = [(held_user, held_habit, np.full(len(held_user), LONG_AGO), HELD)]
    left = interactions.ever.toarray() & ~interactions.held.toarray()

    def not_held(event: Pairs) -> Pairs:
        gone = left[event[0], event[1]]
        return event[0][gone], event[1][gone], event[2][gone], event[3]

    ended = days_of(dataset, "adoptions", "abandoned_at")
    over = ~np.isnat(ended) & before(ended, until)
    events.append(not_held(pairs(dataset.adoptions[over], ended[over], GIVEN_UP)))
    tracking = rows_before(dataset.habit_tracking, until_day(until, dataset.habit_tracking))
    if not tracking.empty:
        last = tracking.groupby(["user_id", "habit_id"], as_index=False, sort=False, observed=True)["date"].max()
        events.append(not_held(pairs(last, last["date"].to_numpy(), GIVEN_UP)))

    shown = dataset.recommendations
    if not shown.empty and "response" in shown:
        day = days_of(dataset, "recommendations", "shown_at")
        answered = days_of(dataset, "recommendations", "responded_at")
        told = np.where(np.isnat(answered), day, answered)
        response = np.where(before(told, until), shown["response"].astype(object), None)
        rejected = response == "rejected"
        events.append(pairs(shown[rejected], told[rejected], REJECTED))
        passed = (response != "accepted") & before(day, until)
        events.append(pairs(shown[passed], day[passed], SHOWN))
    return events


def _profiles(users: pd.DataFrame) -> list[str]:
    known = [column for column in SHARED if column in users]
    if not known:
        return ["{}"] * len(users)
    return users[known].to_json(orient="records", lines=True).splitlines()
