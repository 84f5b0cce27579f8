"""A small population in which nothing is planted: everybody does every habit with a chance of their own."""

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Category

FIRST_DAY = np.datetime64("2024-01-01", "D")
MINUTES = (3.0, 10.0, 18.0, 25.0, 45.0)


def ordinary_people(
    users: int = 60, days: int = 120, seed: int = 0, *, habits_each: tuple[int, int] = (2, 6), spread: float = 1.0
) -> Dataset:
    """Users whose logits of completion differ (standard deviation `spread`) for no reason that is in the data."""
    draw = np.random.default_rng(seed)
    habits = _catalogue()
    number = draw.integers(*habits_each, size=users)
    user = np.repeat(np.arange(users), number)
    habit = np.concatenate([draw.choice(len(habits), size=n, replace=False) for n in number])
    adopted = draw.integers(0, 15, size=len(user))
    length = np.ceil(draw.exponential(150, size=len(user))).astype(int)
    per_days = np.where(habits["target"] == "1/1", 1, 7)[habit]
    last = np.minimum(adopted + length, days)
    tracking = pd.DataFrame({"pair": np.arange(len(user)), "occasions": -(-(last - adopted) // per_days)})
    tracking = tracking.loc[tracking.index.repeat(tracking["occasions"])]
    pair = tracking["pair"].to_numpy()
    day = adopted[pair] + tracking.groupby("pair").cumcount().to_numpy() * per_days[pair]
    chance = 1 / (1 + np.exp(-draw.normal(0, spread, users)))
    done = draw.random(len(pair)) < chance[user][pair]
    date = FIRST_DAY + day
    at = date.astype("datetime64[s]") + (draw.random(len(pair)) * 86400).astype("timedelta64[s]")
    ids = np.array([f"u{i:05d}" for i in range(users)])
    status = np.where(done, "done", np.where(draw.random(len(pair)) < 0.03, "skipped", "missed"))
    start = (FIRST_DAY + adopted).astype("datetime64[s]") + np.timedelta64(12, "h")
    gone = adopted + length < days
    end = (FIRST_DAY + adopted + length).astype("datetime64[s]") + np.timedelta64(12, "h")
    return Dataset(
        users=pd.DataFrame(
            {
                "user_id": ids,
                "age": draw.integers(18, 80, users).astype(float),
                "gender": draw.choice(["female", "male"], users),
                "zone": "UTC",
                "goal_set": draw.random(users) < 0.5,
                "time_commitment": draw.choice([5.0, 10.0, 20.0, 60.0], users),
            }
        ),
        habits=habits,
        habit_tracking=pd.DataFrame(
            {
                "user_id": ids[user][pair],
                "habit_id": habits["habit_id"].to_numpy()[habit][pair],
                "date": date,
                "status": status,
                "at": pd.Series(np.where(done, at, np.datetime64("NaT"))).dt.tz_localize("UTC"),
            }
        ).sort_values(["user_id", "habit_id", "date"], ignore_index=True),
        adoptions=pd.DataFrame(
            {
                "user_id": ids[user],
                "habit_id": habits["habit_id"].to_numpy()[habit],
                "adopted_at": pd.Series(start).dt.tz_localize("UTC"),
                "abandoned_at": pd.Series(np.where(gone, end, np.datetime64("NaT"))).dt.tz_localize("UTC"),
            }
        ),
        recommendations=_recommendations(draw, ids, habits),
    )


def _catalogue() -> pd.DataFrame:
    """Every category with every band of minutes; difficulty and target are spread over both."""
    categories = [category.value for category in Category]
    number = np.arange(len(categories) * len(MINUTES))
    category, band = number % len(categories), number // len(categories)
    return pd.DataFrame(
        {
            "habit_id": [f"h{i:03d}" for i in number],
            "name_en": [f"habit {i}" for i in number],
            "category": np.array(categories)[category],
            "minutes": np.array(MINUTES)[band],
            "difficulty": 1.0 + (category + 2 * band) % 5,
            "target": np.where(number % 4 == 0, "1/7", "1/1"),
        }
    )


def _recommendations(draw: np.random.Generator, ids: np.ndarray, habits: pd.DataFrame) -> pd.DataFrame:
    size = 10 * len(ids)
    return pd.DataFrame(
        {
            "event_id": [f"e{i}" for i in range(size)],
            "user_id": np.repeat(ids, 10),
            "habit_id": draw.choice(habits["habit_id"], size),
            "policy": draw.choice(["random", "popular"], size),
            "description_variant": draw.choice(["clear", "vague"], size),
            "response": draw.choice(["accepted", "rejected", "viewed"], size, p=[0.3, 0.3, 0.4]),
        }
    )
