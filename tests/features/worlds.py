"""The same people living the same days again: what they would have done by other luck."""

from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.simulation.noise import Noise
from habitlab.simulation.people import FIRST_DAY

EVENTS = {
    "adoptions": "adopted_at",
    "modifications": "at",
    "recommendations": "shown_at",
    "sessions": "started_at",
    "feedback": "at",
    "surveys": "sent_at",
}


@dataclass(frozen=True)
class Luck(Noise):
    """Noise in which only what is done on a day differs from turn to turn."""

    turn: int = 0

    def keys(self, stream, *counters):
        return super().keys(f"{stream} {self.turn}" if stream == "done" else stream, *counters)


def again(world, turn, replay):
    """Replay with the luck of another turn."""
    world.__dict__["noise"] = Luck(world.seed, turn)
    try:
        return replay()
    finally:
        world.__dict__["noise"] = Noise(world.seed)


def tracked(world, course, generator):
    """Dataset of users, habits and tracking of a course; now and then a day is skipped or unknown."""
    rows = len(course.pair)
    status = np.where(course.done, "done", "missed")
    status = np.where(generator.random(rows) < 0.04, generator.choice(["skipped", "unknown"], rows), status)
    return Dataset(
        users=pd.DataFrame({"user_id": world.user_ids}),
        habits=world.catalogue,
        habit_tracking=pd.DataFrame(
            {
                "user_id": world.user_ids.take(course.user[course.pair]),
                "habit_id": world.habit_ids.take(course.habit[course.pair]),
                "date": (FIRST_DAY + course.start[course.pair] + course.day).astype("datetime64[s]"),
                "status": status,
            }
        ),
    )


def is_late(dataset, table, column, until):
    """Whether each instant falls on `until` or later on its user's own calendar; one after the other."""
    users = dataset.users.set_index("user_id")
    frame = dataset.table(table)
    zones, starts = frame["user_id"].map(users["zone"]), frame["user_id"].map(users["day_start"])
    local = [
        (at.to_pydatetime().astimezone(ZoneInfo(zone)).replace(tzinfo=None) - timedelta(hours=start)).date()
        if pd.notna(at)
        else None
        for at, zone, start in zip(frame[column], zones, starts, strict=True)
    ]
    return np.array([day is not None and day >= until for day in local], dtype=bool)


def without_future(dataset, until, change):
    """The dataset with all that happens on `until` or later deleted, shifted or shuffled (`change`)."""
    generator, tables = np.random.default_rng(0), {}

    def changed(frame, late, columns):
        if change == "delete":
            return frame[~late]
        frame = frame.copy()
        for column in columns:
            values = frame.loc[late, column]
            if change == "shift":
                frame.loc[late, column] = values + pd.Timedelta(days=9)
            else:
                frame.loc[late, column] = values.array.take(generator.permutation(len(values)))
        return frame

    shuffled = change == "shuffle"
    tracking = dataset.habit_tracking
    late = (tracking["date"].dt.date >= until).to_numpy()
    tables["habit_tracking"] = changed(tracking, late, ["status", "at", "minutes"] if shuffled else ["date"])
    for table, column in EVENTS.items():
        frame, late = dataset.table(table), is_late(dataset, table, column, until)
        # Users and instants stay: with another zone an event may belong to another day.
        others = [c for c in frame.columns if not c.endswith(("_at", "_id")) and c != "at"]
        others += ["habit_id"] if "habit_id" in frame and table == "recommendations" else []
        tables[table] = changed(frame, late, others if shuffled else [column])
    halfway = dataset.replace(**tables)
    for table, column, told in (
        ("adoptions", "abandoned_at", None),
        ("recommendations", "responded_at", "response"),
        ("surveys", "answered_at", "answer"),
    ):
        frame, late = halfway.table(table).copy(), is_late(halfway, table, column, until)
        if change == "shift":
            frame.loc[late, column] += pd.Timedelta(days=9)
        else:
            frame.loc[late, column] = pd.NaT
            if told:
                frame.loc[late, told] = None
        tables[table] = frame
    late = is_late(dataset, "users", "registered_at", until)
    users = dataset.users.copy()
    users.loc[late, "registered_at"] = users.loc[late, "registered_at"] + pd.Timedelta(days=3)
    return dataset.replace(**tables, users=users)
