"""When to leave people alone: quiet hours, caps on messages and on streak pressure, and a pause that is good for them.

Pure functions over frames: nothing here sends anything. `plan` says of each proposed message whether it may go out, why
not, and when its quiet hours end. Every rule is stricter for minors, and whoever does not tell their age counts as one.

What decides which messages take the few places is `Objective`, in which engagement can only be one part among others: a
message that is opened and does no good is not worth sending.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.recommender.guardrails import ADULT

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

QUIET = (22.0, 8.0)
"""Local hours between which nobody is written to: from, until; the night wraps around midnight."""
QUIET_OF_MINORS = (20.5, 8.0)

DAILY, WEEKLY = 3, 12
"""Most messages in a local day, and in any seven of them."""
DAILY_OF_MINORS, WEEKLY_OF_MINORS = 2, 8

STREAK, STREAK_LOST = "streak", "streak lost"
"""Kinds of messages that press: one that a run is at stake, and one that it is lost. The latter is never sent."""
STREAKS_A_WEEK, LONGEST_PRESSED = 1, 30
"""Most messages in seven days that a run is at stake, and the run in days beyond which there are none at all."""

DAYS_WITHOUT_REST, LONG_DAY, NIGHTS = 21, 120.0, 3
"""A pause is offered after so many days on end with the app, so many minutes a day over a week, or so many nights."""
PAUSE = 2
"""Days without messages that a pause lasts."""

_WEEK = 7


@dataclass(frozen=True)
class Objective:
    """What messages and lists are chosen for: weights of the outcomes, which add up to 1.

    `success`: the habit is kept; `wellbeing`: the person is glad of it (ratings, surveys); `variety`: something new;
    `engagement`: it is opened and clicked. ValueError unless engagement has less than half of the weight.
    """

    success: float = 0.5
    wellbeing: float = 0.25
    variety: float = 0.1
    engagement: float = 0.15

    def __post_init__(self) -> None:
        """Refuse weights that make engagement the objective."""
        weights = [self.success, self.wellbeing, self.variety, self.engagement]
        if min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"weights of an objective are 0 or more and add up to 1; got {weights}")
        if self.engagement >= 0.5:
            raise ValueError(
                f"engagement is never the sole objective: its weight must stay below 0.5; got {self.engagement:g}"
            )

    def worth(self, expected: pd.DataFrame) -> Floats:
        """Return what each row is worth (rows,): columns as the weights, each in [0, 1]; an absent one counts 0.

        What is only engaging, with nothing expected of success or wellbeing, is worth 0.
        """
        parts = {name: expected[name].fillna(0).to_numpy(dtype=float) for name in vars(self) if name in expected}
        total = sum((vars(self)[name] * part for name, part in parts.items()), np.zeros(len(expected)))
        good = sum((parts[name] for name in ("success", "wellbeing") if name in parts), np.zeros(len(expected)))
        return np.where(good > 0, total, 0.0)


def local_clock(at: pd.Series, zone: pd.Series) -> pd.Series:
    """Return instants on their people's own clocks, naive; NaT where the zone is missing or unknown. Index of `at`."""
    local = pd.Series(pd.NaT, index=at.index, dtype="datetime64[us]")
    for name, rows in at.groupby(zone.to_numpy(dtype=object), sort=False):
        try:
            local.loc[rows.index] = rows.dt.tz_convert(str(name)).dt.tz_localize(None).dt.as_unit("us")
        except (KeyError, ValueError, OSError):  # an unknown zone: nobody knows what time it is there
            continue
    return local


def is_quiet(local: pd.Series, start: npt.ArrayLike, end: npt.ArrayLike) -> Bools:
    """Say which moments of a clock lie in quiet hours (rows,), from `start` until `end`, which is no longer quiet.

    A night may wrap around midnight; equal hours are none. An unknown moment is quiet: who knows how late it is.
    """
    start, end = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    hour = _hour(local)
    inside = np.where(start <= end, (hour >= start) & (hour < end), (hour >= start) | (hour < end))
    return np.asarray((inside & (start != end)) | np.isnan(hour))


def quiet_until(at: pd.Series, zone: pd.Series, end: npt.ArrayLike) -> pd.Series:
    """Return the next instant at which the clock shows `end` (hours); NaT where the zone is unknown.

    In spring an hour is left out: what would fall into it is put to its end. In autumn one comes twice: the second time
    counts, so that nobody is woken in the first.
    """
    local = local_clock(at, zone)
    hours = pd.to_timedelta(np.broadcast_to(np.asarray(end, dtype=float), len(at)) * 3600, unit="s").as_unit("us")
    morning = local.dt.normalize() + pd.Series(hours, index=at.index)
    after = pd.Series(pd.NaT, index=at.index, dtype="datetime64[us, UTC]")
    for days in (0, 1, 2):
        for name, rows in morning.groupby(zone.to_numpy(dtype=object), sort=False):
            if rows.notna().all():
                moved = (rows + pd.Timedelta(days=days)).dt.tz_localize(
                    str(name), nonexistent="shift_forward", ambiguous=np.zeros(len(rows), dtype=bool)
                )
                then = moved.dt.tz_convert("UTC").dt.as_unit("us")
                wanted = after.loc[rows.index].isna() & (then >= at.loc[rows.index])
                after.loc[rows.index[wanted]] = then[wanted]
    return after


def plan(
    proposed: pd.DataFrame,
    users: pd.DataFrame,
    sent: pd.DataFrame | None = None,
    pauses: pd.DataFrame | None = None,
    objective: Objective | None = None,
) -> pd.DataFrame:
    """Say which messages may go out.

    Parameters
    ----------
    proposed
        A row a message: user_id, at (UTC instant), kind; perhaps `streak` (days of the run it speaks of) and the
        expected outcomes of `Objective`: of equal days the worthiest go first, then the earliest.
    users
        The table `users`, of which zone and age count; perhaps `quiet_from` and `quiet_until` (hours) and `opted_out`.
        A minor's own quiet hours come on top of those of all minors.
    sent
        user_id, at, kind of the messages that went out before.
    pauses
        user_id, from_day, until_day (local days, the last one excluded) in which nothing is sent, as of
        `healthy_pauses`.

    Returns
    -------
    `proposed` with the columns allowed, reason (why not, empty if allowed) and wait_until (the end of quiet hours where
    these are the reason). The index and order stay.
    """
    objective = objective or Objective()
    people = users.drop_duplicates("user_id").set_index("user_id").reindex(proposed["user_id"]).set_axis(proposed.index)
    at = pd.to_datetime(proposed["at"], utc=True).dt.as_unit("us")
    zone = _column(people, "zone", None)
    local = local_clock(at, zone)
    minor = ~(pd.to_numeric(_column(people, "age", np.nan)).to_numpy(dtype=float) >= ADULT)
    start, end = (
        pd.to_numeric(_column(people, name, hour)).fillna(hour).to_numpy(dtype=float)
        for name, hour in zip(("quiet_from", "quiet_until"), QUIET, strict=True)
    )
    of_minors = minor & is_quiet(local, *QUIET_OF_MINORS)
    wait = quiet_until(at, zone, np.where(of_minors, QUIET_OF_MINORS[1], end))
    day = local.dt.normalize()
    worth = objective.worth(proposed)
    reason = np.select(
        [
            _column(people, "opted_out", False).fillna(False).to_numpy(dtype=bool),
            local.isna().to_numpy(),
            _paused(proposed["user_id"], day, pauses),
            is_quiet(local, start, end) | of_minors,
            (proposed["kind"] == STREAK_LOST).to_numpy(),
            _presses_too_hard(proposed, minor),
        ],
        ["opted out", "time zone unknown", "paused", "quiet hours", "streak pressure", "streak pressure"],
        default="",
    ).astype(object)
    before = pd.DataFrame({"user_id": [], "at": [], "kind": []}) if sent is None else sent
    _cap(reason, proposed, day, at, worth, minor, _days_sent(before, users))
    return proposed.assign(
        allowed=reason == "", reason=reason, wait_until=wait.where(pd.Series(reason == "quiet hours", index=wait.index))
    )


def _presses_too_hard(proposed: pd.DataFrame, minor: Bools) -> Bools:
    """Messages of a run at stake to minors, and of a run so long that losing it would hurt."""
    streak = proposed["streak"].fillna(0).to_numpy(dtype=float) if "streak" in proposed else np.zeros(len(proposed))
    return (proposed["kind"] == STREAK).to_numpy() & (minor | (streak > LONGEST_PRESSED))


def _cap(
    reason: npt.NDArray[np.object_], proposed: pd.DataFrame, day: pd.Series, at: pd.Series, worth: Floats, minor: Bools,
    sent: pd.DataFrame,
) -> None:  # fmt: skip
    """Write the reason of what is over a cap into `reason`, a day after the other: each sees what went out before."""
    user, names = pd.factorize(np.concatenate([proposed["user_id"].to_numpy(), sent["user_id"].to_numpy()]))
    mine, theirs = user[: len(proposed)], user[len(proposed) :]
    day_number = _numbers(day)
    gone = {"who": theirs, "day": _numbers(sent["day"]), "press": (sent["kind"] == STREAK).to_numpy()}
    press = (proposed["kind"] == STREAK).to_numpy()
    daily, weekly = np.where(minor, DAILY_OF_MINORS, DAILY), np.where(minor, WEEKLY_OF_MINORS, WEEKLY)
    instant = at.astype("int64").to_numpy()
    for today in np.unique(day_number[reason == ""]):
        recent = gone["day"] > today - _WEEK
        week = np.bincount(gone["who"][recent], minlength=len(names))
        pressed = np.bincount(gone["who"][recent & gone["press"]], minlength=len(names))
        since = np.bincount(gone["who"][gone["day"] == today], minlength=len(names))
        rows = np.flatnonzero((day_number == today) & (reason == ""))
        rows = rows[np.lexsort((instant[rows], -worth[rows], mine[rows]))]
        over = press[rows] & (pressed[mine[rows]] + _place(mine[rows], press[rows]) >= STREAKS_A_WEEK)
        reason[rows[over]] = "streak pressure"
        rows = rows[~over]
        place = _place(mine[rows], np.ones(len(rows), dtype=bool))
        reason[rows[week[mine[rows]] + place >= weekly[rows]]] = "weekly cap"
        reason[rows[since[mine[rows]] + place >= daily[rows]]] = "daily cap"
        went = rows[reason[rows] == ""]
        gone = {
            "who": np.concatenate([gone["who"], mine[went]]),
            "day": np.concatenate([gone["day"], np.full(len(went), today)]),
            "press": np.concatenate([gone["press"], press[went]]),
        }


def _place(user: npt.NDArray[np.int64], counts: Bools) -> npt.NDArray[np.int64]:
    """How many rows before each one, of the same user, count (rows,)."""
    counted = pd.Series(counts.astype(np.int64))
    return (counted.groupby(user).cumsum() - counted).to_numpy()


def _days_sent(sent: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    """What went out with its local day, by the day in UTC where the zone is unknown."""
    at = pd.to_datetime(sent["at"], utc=True).dt.as_unit("us")
    zone = sent["user_id"].map(_column(users, "zone", None).set_axis(users["user_id"]).to_dict())
    local = local_clock(at, zone).fillna(at.dt.tz_localize(None))
    return pd.DataFrame({"user_id": sent["user_id"], "kind": sent["kind"], "day": local.dt.normalize()})


def _paused(user: pd.Series, day: pd.Series, pauses: pd.DataFrame | None) -> Bools:
    if pauses is None or pauses.empty:
        return np.zeros(len(user), dtype=bool)
    asked = pd.DataFrame({"row": np.arange(len(user)), "user_id": user.to_numpy(), "day": day.to_numpy()})
    met = asked.merge(pauses[["user_id", "from_day", "until_day"]], on="user_id")
    inside = (met["day"] >= pd.to_datetime(met["from_day"])) & (met["day"] < pd.to_datetime(met["until_day"]))
    return np.isin(asked["row"], met.loc[inside, "row"])


def healthy_pauses(sessions: pd.DataFrame, users: pd.DataFrame, today: date) -> pd.DataFrame:
    """Say who should be offered a pause from the local day `today` on: user_id, reason, from_day, until_day.

    By the table `sessions` before `today`: who opened the app on every one of the last 21 days ("no day off"), who
    spent 120 minutes a day with it over the last week ("long days"), who opened it on three nights of the last week, in
    quiet hours ("at night"). The first of these that holds is the reason; nobody is listed twice.
    """
    zones = _column(users, "zone", None).set_axis(users["user_id"]).to_dict()
    local = local_clock(sessions["started_at"], sessions["user_id"].map(zones)).fillna(
        sessions["started_at"].dt.tz_localize(None)
    )
    ago = (pd.Timestamp(today) - local.dt.normalize()).dt.days
    seen = sessions.assign(ago=ago, night=is_quiet(local, *QUIET))[(ago >= 1) & (ago <= DAYS_WITHOUT_REST)]
    week = seen[seen["ago"] <= _WEEK]
    days = seen.groupby("user_id")["ago"].nunique()
    minutes = week.groupby("user_id")["seconds"].sum() / 60 / _WEEK
    nights = week[week["night"]].groupby("user_id")["ago"].nunique()
    reasons = [
        ("no day off", days.index[days >= DAYS_WITHOUT_REST]),
        ("long days", minutes.index[minutes >= LONG_DAY]),
        ("at night", nights.index[nights >= NIGHTS]),
    ]
    found = pd.DataFrame(
        [(user, reason) for reason, people in reasons for user in people], columns=["user_id", "reason"]
    )
    start = pd.Timestamp(today)
    return (
        found.drop_duplicates("user_id")
        .assign(from_day=start, until_day=start + pd.Timedelta(days=PAUSE))
        .sort_values("user_id", ignore_index=True)
    )


def _column(frame: pd.DataFrame, name: str, otherwise: object) -> pd.Series:
    return frame[name] if name in frame else pd.Series([otherwise] * len(frame), index=frame.index, dtype=object)


def _hour(local: pd.Series) -> Floats:
    midnight = local.dt.normalize()
    return ((local - midnight).dt.total_seconds() / 3600).to_numpy(dtype=float)


def _numbers(day: pd.Series) -> npt.NDArray[np.int64]:
    """Days since 1970-01-01; -1 for an unknown one."""
    return day.fillna(pd.Timestamp("1969-12-31")).to_numpy(dtype="datetime64[D]").astype(np.int64)
