"""Small tracking tables for the tests of habit time."""

import numpy as np
import pandas as pd

STATUSES = ["done", "missed", "skipped", "unknown"]
LETTERS = {"1": "done", "0": "missed", "s": "skipped", "?": "unknown"}


def track(letters, start="2024-01-01", habit="h", user="u"):
    """One row a day from `start`, a Monday: 1 done, 0 missed, s skipped, ? unknown, space no row (not scheduled)."""
    days = pd.date_range(start, periods=len(letters), freq="D", unit="s")
    rows = [(user, habit, day, LETTERS[letter]) for day, letter in zip(days, letters, strict=True) if letter != " "]
    return table(rows)


def table(rows):
    """Tracking table of (user, habit, date, status) in the contract's dtypes."""
    frame = pd.DataFrame(rows, columns=["user_id", "habit_id", "date", "status"])
    return frame.astype(
        {"user_id": "str", "habit_id": "str", "date": "datetime64[s]", "status": pd.CategoricalDtype(STATUSES)}
    )


def habits(target="1/1", habit="h"):
    return pd.DataFrame({"habit_id": [habit], "target": [target]}).astype("str")


def grid(probability, start="2024-01-01", generator=None):
    """Tracking of one habit a user: one row a day, done with `probability` (users, days)."""
    users, days = probability.shape
    done = generator.random(probability.shape) < probability
    day = np.datetime64(start) + np.arange(days)
    return pd.DataFrame(
        {
            "user_id": pd.Series(np.repeat(np.arange(users), days)).map("u{:05d}".format).astype("str"),
            "habit_id": pd.Series("h", index=range(users * days), dtype="str"),
            "date": np.tile(day, users).astype("datetime64[s]"),
            "status": pd.Categorical(np.where(done.ravel(), "done", "missed"), categories=STATUSES),
        }
    )
