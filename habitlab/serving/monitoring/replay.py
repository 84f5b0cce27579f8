"""A log to watch: read from a service's own database, or made up with a change planted on a day that is known.

In a made-up log everything is simulated: who asks when, how fast the answer is, where it comes from, and who adopts
what was shown. Only the people, their profiles and the habits are those of the dataset.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.serving import state
from habitlab.serving.monitoring import Log

SHIFTS = {
    "slow": "answers that have to be computed take longer: strength 0.5 is half as long again",
    "cache": "the first level holds less: strength 0.2 takes 20 points off its hits",
    "adoption": "fewer of the habits shown are adopted: strength 0.3 is 30 % fewer",
    "people": "younger people come: strength 0.5 makes somebody a standard deviation younger e^0.5 times as frequent",
    "missing": "minutes a day are no longer known: strength 0.3 loses 30 % of them",
}
"""What may be planted, and what its strength means."""

LIST_LENGTH = 3
_LEVELS = ("memory", "database", "computed")
_SHARE = (0.80, 0.12, 0.08)
_SECONDS, _SPREAD = (0.002, 0.006, 0.045), (0.35, 0.45, 0.40)  # medians, and standard deviations of the logarithm
_BY_WEEKDAY = np.array([1.1, 1.05, 1.0, 1.0, 0.95, 0.9, 1.0])
_ADOPTED, _DELAY_HOURS = 0.09, 6.0
FEATURES = ("age", "time_commitment", "preferred_time", "difficulty_preference", "chronotype", "goal_set",
            "experience_level", "improvement_areas", "activity_preferences")  # fmt: skip
"""What is known of people and watched for drift; of lists the number of entries."""


@dataclass(frozen=True)
class Planted:
    """A change of a `kind` of `SHIFTS` from `day` of the log on (from 0), so `strong`."""

    kind: str
    day: int
    strength: float


def replay(
    dataset: Dataset,
    planted: tuple[Planted, ...] = (),
    *,
    days: int = 120,
    per_day: float = 300.0,
    start: str = "2026-01-05",
    seed: int = 0,
) -> Log:
    """Make a log of `days` from `start` on with so many requests a day on average; it is read when its last day ends.

    Some people ask more often than others; every request shows three habits. What is shown is adopted with a chance of
    about 9 % that differs by person and place, most within hours, some later than a day. Reports of adoptions arrive
    minutes late, and none that would arrive after the log was read is in it. The same seed without and with `planted`
    gives logs that differ by what was planted only.

    Raises
    ------
    ValueError
        An unknown kind, a strength below 0 or a share above 1, or a dataset without users or habits.
    """
    _check(planted, days)
    if dataset.users.empty or dataset.habits.empty:
        raise ValueError("a log needs users and habits")
    people = dataset.users.reset_index(drop=True)
    begin, end = pd.Timestamp(start, tz="UTC"), pd.Timestamp(start, tz="UTC") + pd.Timedelta(days=days)
    draw = {name: np.random.default_rng([seed, place]) for place, name in enumerate(("when", "who", "how", "what"))}

    expected = per_day * _BY_WEEKDAY[(begin.day_of_week + np.arange(days)) % 7]
    day = np.repeat(np.arange(days), draw["when"].poisson(expected))
    hour = _hours(dataset, draw["when"], len(day))
    order = np.lexsort((hour, day))
    day, hour = day[order], hour[order]
    at = begin + pd.to_timedelta((24 * day + hour) * 3600, unit="s").round("us")

    user = _who(people, planted, day, draw["who"])
    requests = _answers(planted, day, at, draw["how"])
    exposures, adoptions = _shown(dataset, planted, day, at, user, end, draw["what"])
    features = _features(people, planted, day, at, user, seed)
    return Log(requests, exposures, adoptions, features, end, simulated=True)


def read_log(folder: str | Path, dataset: Dataset, now: pd.Timestamp) -> Log:
    """Read the log of a service: what it counted, what it showed, and what people said they adopted, up to `now`.

    Times of answers are the upper bounds of its histogram. An adoption is one that was reported, or an accepted
    recommendation. What is known of people is their profile in the dataset, or of the newly registered their record.

    Raises
    ------
    FileNotFoundError
        There is no service in the folder.
    """
    path = Path(folder) / state.DATABASE
    if not path.exists():
        raise FileNotFoundError(f"no service has run here yet: {path} is not there; `habitlab serve` starts one")
    with closing(state.connect(folder)) as connection:
        traffic = pd.read_sql("SELECT started_at AS at, served_from, answers, latencies FROM traffic", connection)
        exposures = pd.read_sql("SELECT event_id, user_id, habit_id, shown_at, position FROM exposures", connection)
        told = pd.read_sql(
            "SELECT event_id, user_id, json_extract(payload, '$.habit_id') AS habit_id, happened_at AS adopted_at, "
            "received_at FROM events WHERE kind = 'adoption' "
            "OR (kind = 'response' AND json_extract(payload, '$.response') = 'accepted') ORDER BY sequence",
            connection,
        )
        new = pd.read_sql("SELECT user_id, registration FROM profiles WHERE registration IS NOT NULL", connection)
    requests = traffic.assign(bins=[_bins(text) for text in traffic.pop("latencies")])
    requests = requests.explode("bins").dropna(subset=["bins"]).reset_index(drop=True)
    parts = pd.DataFrame(requests.pop("bins").tolist(), columns=["lower", "seconds", "answers"])
    requests[["lower", "seconds", "answers"]] = parts.astype({"lower": float, "seconds": float, "answers": "int64"})
    for table, columns in ((requests, ["at"]), (exposures, ["shown_at"]), (told, ["adopted_at", "received_at"])):
        for column in columns:
            table[column] = pd.to_datetime(table[column], utc=True, format="ISO8601")
    days = exposures.assign(day=exposures["shown_at"].dt.floor("D")).drop_duplicates(["user_id", "day"])
    people = dataset.users[~dataset.users["user_id"].isin(new["user_id"])]
    registered = [{**json.loads(text), "user_id": user} for user, text in zip(*map(new.get, new), strict=True)]
    everybody = pd.concat([_profiles(people), _profiles(pd.DataFrame(registered))], ignore_index=True)
    features = days[["user_id", "shown_at"]].rename(columns={"shown_at": "at"})
    features = features.merge(everybody, on="user_id", how="left") if len(everybody) else features
    return Log(requests, exposures, told, features, now, simulated=False)


def _bins(latencies: str) -> list[tuple[float, float, int]]:
    """Lower bound, upper bound and answers of each bin that has some."""
    counts = sorted((float(bound), int(answers)) for bound, answers in json.loads(latencies).items())
    bounds = [0.0, *(bound for bound, _ in counts)]
    return [(low, high, n) for low, (high, n) in zip(bounds, counts, strict=False) if n]


def _profiles(people: pd.DataFrame) -> pd.DataFrame:
    """user_id and `FEATURES` of rows of the table `users`, as far as they are there."""
    known = [name for name in FEATURES if name in people]
    table = people[["user_id", *known]] if len(people) else pd.DataFrame(columns=["user_id"])
    lists = [name for name in ("improvement_areas", "activity_preferences") if name in table]
    return table.assign(**{name: table[name].map(len, na_action="ignore").astype(float) for name in lists})


def _check(planted: tuple[Planted, ...], days: int) -> None:
    for each in planted:
        if each.kind not in SHIFTS:
            raise ValueError(f"no shift is called {each.kind!r}; there are {', '.join(SHIFTS)}")
        most = 1.0 if each.kind in ("cache", "adoption", "missing") else 10.0
        if not 0 <= each.strength <= most or not 0 <= each.day < days:
            raise ValueError(f"{each.kind}: strength from 0 to {most:g} and day from 0 to {days - 1}; got {each}")


def _strength(planted: tuple[Planted, ...], kind: str, day: np.ndarray) -> np.ndarray:
    """How strong a kind of shift is on each of these days (n,)."""
    mine = [np.where(day >= each.day, each.strength, 0.0) for each in planted if each.kind == kind]
    return np.sum([np.zeros(len(day)), *mine], axis=0)


def _hours(dataset: Dataset, generator: np.random.Generator, size: int) -> np.ndarray:
    """Hours of the day in UTC (size,), as those of the sessions where there are any."""
    started = dataset.sessions["started_at"].dropna() if "started_at" in dataset.sessions else pd.Series(dtype=object)
    if len(started) < 100:
        return (generator.normal(17, 4, size)) % 24
    seconds = (started.dt.hour * 3600 + started.dt.minute * 60 + started.dt.second).to_numpy()
    return (generator.choice(seconds, size) + generator.random(size)) / 3600 % 24


def _who(
    people: pd.DataFrame, planted: tuple[Planted, ...], day: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Position of the user of each request."""
    often = np.exp(0.7 * generator.standard_normal(len(people)))
    age = people["age"].to_numpy(dtype=float) if "age" in people else np.full(len(people), np.nan)
    spread = np.nanstd(age) if np.isfinite(age).sum() > 1 else 1.0
    away = np.nan_to_num((age - (np.nanmean(age) if np.isfinite(age).any() else 0.0)) / max(float(spread), 1e-9))
    strength, lot = _strength(planted, "people", day), generator.random(len(day))
    user = np.empty(len(day), dtype=np.int64)
    for each in np.unique(strength):
        weight = np.cumsum(often * np.exp(-each * away))
        here = strength == each
        user[here] = np.searchsorted(weight, lot[here] * weight[-1], side="right").clip(max=len(people) - 1)
    return user


def _answers(
    planted: tuple[Planted, ...], day: np.ndarray, at: pd.DatetimeIndex, generator: np.random.Generator
) -> pd.DataFrame:
    lot, noise = generator.random(len(day)), generator.standard_normal(len(day))
    memory = np.clip(_SHARE[0] - _strength(planted, "cache", day), 0.0, 1.0)
    rest = 1 - memory
    database = memory + rest * _SHARE[1] / (_SHARE[1] + _SHARE[2])
    level = np.where(lot < memory, 0, np.where(lot < database, 1, 2))
    slower = np.where(level == 2, 1 + _strength(planted, "slow", day), 1.0)
    seconds = np.array(_SECONDS)[level] * np.exp(np.array(_SPREAD)[level] * noise) * slower
    return pd.DataFrame({"at": at, "seconds": seconds, "served_from": np.array(_LEVELS)[level], "answers": 1})


def _shown(
    dataset: Dataset,
    planted: tuple[Planted, ...],
    day: np.ndarray,
    at: pd.DatetimeIndex,
    user: np.ndarray,
    end: pd.Timestamp,
    generator: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    requests, k = len(day), min(LIST_LENGTH, len(dataset.habits))
    users, habits = dataset.users["user_id"].to_numpy(object), dataset.habits["habit_id"].to_numpy(object)
    first = generator.integers(len(habits), size=requests)
    habit = (first[:, None] + np.arange(k)) % len(habits)  # three that are not the same
    inclined = 0.5 * generator.standard_normal(len(users))
    odds = _ADOPTED / (1 - _ADOPTED) * np.exp(inclined[user][:, None] - 0.15 * np.arange(k))
    chance = odds / (1 + odds) * (1 - _strength(planted, "adoption", day))[:, None]
    taken = generator.random((requests, k)) < chance
    delay = pd.to_timedelta(generator.exponential(_DELAY_HOURS, (requests, k)).ravel() * 3600, unit="s").round("us")
    late = pd.to_timedelta(generator.exponential(600, requests * k), unit="s").round("us")
    shown = pd.DatetimeIndex(np.repeat(at.to_numpy(), k), tz="UTC")
    numbers = np.arange(requests * k)
    exposures = pd.DataFrame(
        {
            "event_id": [f"x{number:07d}" for number in numbers],
            "user_id": np.repeat(users[user], k),
            "habit_id": habits[habit.ravel()],
            "shown_at": shown,
            "position": np.tile(np.arange(1, k + 1), requests),
        }
    )
    adopted = exposures.loc[taken.ravel(), ["event_id", "user_id", "habit_id"]].reset_index(drop=True)
    adopted = adopted.assign(event_id="a" + adopted["event_id"], adopted_at=(shown + delay)[taken.ravel()])
    adopted = adopted.assign(received_at=adopted["adopted_at"] + late[taken.ravel()])
    return exposures, adopted[adopted["received_at"] <= end].reset_index(drop=True)


def _features(
    people: pd.DataFrame,
    planted: tuple[Planted, ...],
    day: np.ndarray,
    at: pd.DatetimeIndex,
    user: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """What was known of each person at their first request of each day."""
    firsts = pd.DataFrame({"day": day, "user": user}).drop_duplicates().index.to_numpy()
    rows, when = user[firsts], day[firsts]
    table = _profiles(people.iloc[rows].reset_index(drop=True)).assign(at=at[firsts])
    if "time_commitment" in table:
        # The same people lose theirs on every day after: drawn by person.
        digests = [hashlib.sha256(f"{seed} {user}".encode()).digest()[:4] for user in people["user_id"]]
        lot = np.array([int.from_bytes(digest, "big") / 2**32 for digest in digests])
        lost = lot[rows] < _strength(planted, "missing", when)
        table["time_commitment"] = table["time_commitment"].mask(lost)
    return table
