"""Who the people are: hidden traits that drive behaviour, and the profile that they fill in."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
from scipy.special import betaln

from habitlab.dataset.vocabulary import Activity, Category, Chronotype, Gender, LearningStyle, Level, TimeOfDay
from habitlab.simulation.effects import Knobs
from habitlab.simulation.noise import Noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST_DAY = np.datetime64("2024-01-01", "D")  # a Monday
CATEGORIES = [category.value for category in Category]
ACTIVITIES = [activity.value for activity in Activity]
GENDERS = [gender.value for gender in Gender]
ZONES = {
    "Europe/Moscow": 0.22, "Europe/Berlin": 0.14, "Europe/London": 0.12, "America/New_York": 0.16,
    "America/Chicago": 0.07, "America/Los_Angeles": 0.09, "Asia/Yekaterinburg": 0.05, "Asia/Novosibirsk": 0.04,
    "Asia/Kolkata": 0.05, "America/Sao_Paulo": 0.04, "Australia/Sydney": 0.02,
}  # fmt: skip
RUSSIAN_SPEAKING = ("Europe/Moscow", "Asia/Yekaterinburg", "Asia/Novosibirsk")

MEAN_HABITS = 6.0
GOAL_SHARE = 0.45
GOAL_BENEFIT = 0.636  # logits of completion, at five habits held
GOAL_SELECTION = 1.13  # log-odds of setting a goal for each standard deviation of conscientiousness
CONSCIENTIOUS = 0.42  # logits of completion for each standard deviation
USER_VARIANCE = 0.95  # of the logit of completion between users, all parts together
HABITS_VARIANCE = 6.0  # of the number of habits held at adoption
COMMITMENT_SHARES = (0.2, 0.3, 0.3, 0.2)
COMMITMENT_MINUTES = ((3, 5), (10, 10), (15, 20), (30, 60))
TASTES = 3
TRIAL_SHAPE, TRIAL_SCALE = 0.6, 240.0  # Weibull; with habits given up besides, 57 % still hold one at day 90
WILD = (0.237, 0.0207)

# Log-odds of choosing a category, planted by demographics_category, in the order of `Category`:
# health, diet, physical, mindfulness, productivity, learning, relationships, career, finance.
BY_GENDER = np.array(
    [
        [0.2, 0.6, -0.3, 0.7, -0.3, 0.0, 0.5, -0.5, -0.6],
        [-0.2, -0.6, 0.3, -0.7, 0.3, 0.0, -0.5, 0.5, 0.6],
        [0.0, 0.0, 0.0, 0.3, 0.0, 0.3, 0.0, 0.0, 0.0],
        [0.0] * 9,
    ]
)
AGE_EDGES = (18, 25, 40, 60)
BY_AGE = np.array(
    [
        [-0.9, -0.3, 0.5, -0.4, 0.3, 1.4, 0.3, -0.8, -1.2],
        [-0.8, -0.2, 0.5, 0.0, 0.5, 0.9, 0.0, 0.7, -0.2],
        [-0.2, 0.0, 0.2, 0.0, 0.5, 0.1, 0.0, 0.7, 0.5],
        [0.5, 0.2, -0.2, 0.2, -0.1, -0.4, 0.2, -0.3, 0.4],
        [1.3, 0.3, -0.4, 0.6, -0.9, -0.3, 0.6, -2.2, -0.1],
    ]
)

BARRIERS = (
    "Not enough time in the evening", "I forget about it after a few days", "Too tired after work",
    "I start too many things at once", "Travelling breaks my routine", "I lose interest quickly",
    "Small children, no quiet hour", "I give up after the first missed day",
    "Не хватает времени по вечерам", "Забываю через пару дней", "Слишком устаю после работы",
    "Берусь за всё сразу", "Командировки сбивают режим", "Быстро теряю интерес",
    "Не вижу результата", "Бросаю после первого пропуска",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class People:
    """Hidden traits, an array (users,) each unless said otherwise; `index` is the user's number in the world."""

    index: Ints
    age: Ints
    gender: Ints
    zone: Ints
    day_start: Ints
    mid_sleep: Floats  # local hour
    morning: Floats  # leaning to the morning, log-odds
    commitment: Ints  # 0-3, the bands of `habitlab.dataset.derived.COMMITMENT_BANDS`
    conscientiousness: Floats  # standard normal
    ability: Floats  # logits of completion, without load and goal
    goal: npt.NDArray[np.bool_]
    category_taste: Floats  # (users, 9)
    activity_taste: Floats  # (users, 5)
    taste: Floats  # (users, TASTES)
    weekday: Floats  # (users, 7) logits, Monday first
    consistency: Floats  # standard normal; of the hour of the day
    appetite: Floats  # for what is recommended, 1 on average
    registered: Ints  # day of the world
    lifetime: Ints  # days with the app; at least 1

    def __len__(self) -> int:
        """Number of users."""
        return len(self.index)


def make(noise: Noise, index: Ints, knobs: Knobs, *, entry_days: int, retention: str) -> People:
    """Draw the traits of the users with these numbers; `entry_days` is the time over which they register."""
    age = _ages(noise, index)
    gender = noise.pick((0.52, 0.43, 0.03, 0.02), "gender", index)
    conscientiousness = noise.normal("conscientiousness", index)
    selection = knobs.goal * GOAL_SELECTION
    goal = noise.uniform("goal", index) < 1 / (
        1 + np.exp(-(_goal_intercept(selection) + selection * conscientiousness))
    )
    late = np.interp(age, (13, 18, 60, 90), (4.0, 4.5, 3.0, 2.8)) + np.where((gender == 1) & (age < 40), 0.2, 0.0)
    mid_sleep = late + np.interp(age, (18, 60), (1.5, 1.0)) * noise.normal("mid-sleep", index)
    areas, weekdays = np.arange(len(CATEGORIES)), np.arange(7)
    return People(
        index=index,
        age=age,
        gender=gender,
        zone=noise.pick(list(ZONES.values()), "zone", index),
        day_start=np.array([0, 3, 4])[noise.pick((0.3, 0.3, 0.4), "day start", index)],
        mid_sleep=mid_sleep,
        morning=-0.6 * (mid_sleep - 3.7) + 0.6 * noise.normal("leaning", index),
        commitment=noise.pick(COMMITMENT_SHARES, "commitment", index),
        conscientiousness=conscientiousness,
        ability=CONSCIENTIOUS * conscientiousness + sqrt(_rest(knobs)) * noise.normal("ability", index),
        goal=goal,
        category_taste=noise.normal("category taste", index[:, None], areas),
        activity_taste=noise.normal("activity taste", index[:, None], np.arange(len(ACTIVITIES))),
        taste=noise.normal("taste", index[:, None], np.arange(TASTES)),
        weekday=0.3 * noise.normal("weekday", index[:, None], weekdays),
        consistency=noise.normal("consistency", index),
        appetite=np.exp(0.4 * noise.normal("appetite", index) - 0.08),
        registered=(noise.uniform("registered", index) * entry_days).astype(np.int64),
        lifetime=_lifetimes(noise, index, retention),
    )


def _ages(noise: Noise, index: Ints) -> Ints:
    adult = 18 + 55 * noise.uniform("age", index) ** 1.6
    minor = 13 + 5 * noise.uniform("age of minor", index)
    return np.where(noise.uniform("minor", index) < 0.05, minor, adult).astype(np.int64)


def _goal_intercept(selection: float) -> float:
    # The share of users with a goal stays the same whatever the selection (logistic-normal, probit approximation).
    return float(np.log(GOAL_SHARE / (1 - GOAL_SHARE)) * np.sqrt(1 + np.pi * selection**2 / 8))


def _rest(knobs: Knobs) -> float:
    """Variance of ability left when load, goal and conscientiousness have theirs.

    The variance between users stays the same when an effect is switched off: else the other correlations would move.
    """
    benefit, selection = knobs.goal * GOAL_BENEFIT, knobs.goal * GOAL_SELECTION
    share = GOAL_SHARE * (1 - GOAL_SHARE)
    covariance = share * selection / sqrt(1 + np.pi * selection**2 / 8)  # of goal and conscientiousness
    goal = benefit**2 * share + 2 * benefit * CONSCIENTIOUS * covariance
    return max(0.0, USER_VARIANCE - CONSCIENTIOUS**2 - goal - knobs.load**2 * HABITS_VARIANCE)


def stays(days: Floats, retention: str) -> Floats:
    """Chance that a user is still there `days` after registration (G9), interpolated between whole days in the wild."""
    days = np.maximum(days, 0.0)
    if retention == "wild":
        # Shifted beta-geometric, S(t) = B(alpha, beta + t) / B(alpha, beta): 8 % after a day, 4.7 % after a week.
        return np.exp(betaln(WILD[0], WILD[1] + days) - betaln(*WILD))
    return np.exp(-((days / TRIAL_SCALE) ** TRIAL_SHAPE))


def _lifetimes(noise: Noise, index: Ints, retention: str) -> Ints:
    """Days until a user leaves the app (G9), at least 1."""
    uniform = noise.uniform("lifetime", index)
    if retention == "wild":
        return np.searchsorted(-stays(np.arange(1.0, 4000.0), retention), -uniform, side="left") + 1
    return np.ceil(TRIAL_SCALE * (-np.log(uniform)) ** (1 / TRIAL_SHAPE)).astype(np.int64)


def numbered(letter: str, index: Ints, digits: int) -> pd.api.extensions.ExtensionArray:
    """Ids (n,) such as u0000001, counted from 1, in the order of `index`."""
    text = compute.cast(pa.array(10**digits + 1 + index), pa.large_string())
    return pd.array(compute.binary_replace_slice(text, 0, 1, letter), dtype="str")


def profile(
    noise: Noise, people: People, knobs: Knobs, existing: list[list[str]], registered_at: pd.Series
) -> pd.DataFrame:
    """Make the table `users`: what people say of themselves, with the gaps that they leave."""
    index = people.index
    like = people.category_taste + demography(people, knobs)
    wanted = like + 0.8 * noise.normal("areas", index[:, None], np.arange(len(CATEGORIES)))
    doing = people.activity_taste + 0.5 * noise.normal("activities", index[:, None], np.arange(len(ACTIVITIES)))
    low, high = np.array(COMMITMENT_MINUTES)[people.commitment].T
    minutes = np.where(noise.uniform("minutes", index) < 0.5, low, high)
    leaning = people.morning + 0.5 * noise.normal("preferred time", index)
    # Those who struggle leave more of the form empty: missing values carry information.
    gap = 0.8 * np.exp(-0.5 * people.ability)
    frame = {
        "user_id": numbered("u", index, 7),
        "age": np.where(noise.uniform("no age", index) < 0.04, np.nan, people.age),
        "gender": _words(GENDERS, np.where(noise.uniform("no gender", index) < 0.05, -1, people.gender)),
        "zone": pd.array(np.array(list(ZONES), dtype=object)[people.zone], dtype="str"),
        "day_start": people.day_start.astype(float),
        "preferred_time": _words(
            [t.value for t in TimeOfDay],
            np.where(noise.uniform("no time", index) < 0.1 * gap, -1, np.digitize(-leaning, (-0.5, -0.1, 1.2))),
        ),
        "improvement_areas": _chosen(CATEGORIES, wanted, 0.9, noise.uniform("no areas", index) < 0.05),
        "activity_preferences": _chosen(ACTIVITIES, doing, 0.7, noise.uniform("no activities", index) < 0.06),
        "learning_style": _words(
            [s.value for s in LearningStyle],
            np.where(
                noise.uniform("no style", index) < 0.15 * gap,
                -1,
                noise.pick((0.4, 0.15, 0.25, 0.2), "style", index),
            ),
        ),
        "difficulty_preference": _words(
            [level.value for level in Level],
            np.where(
                noise.uniform("no level", index) < 0.08 * gap,
                -1,
                np.digitize(0.7 * people.ability + noise.normal("level", index), (-0.2, 1.1)),
            ),
        ),
        "chronotype": _words(
            [c.value for c in Chronotype],
            np.where(noise.uniform("no chronotype", index) < 0.08, -1, np.digitize(people.mid_sleep, (3.0, 4.4))),
        ),
        "time_commitment": np.where(noise.uniform("no minutes", index) < 0.03, np.nan, minutes),
        "barriers": _barriers(noise, people, gap),
        "existing_habits": existing,
        "goal_set": people.goal,
        "registered_at": registered_at,
        "experience_level": _words(
            [level.value for level in Level],
            np.digitize(0.5 * people.conscientiousness + noise.normal("experience", index), (0.2, 1.3)),
        ),
    }
    return pd.DataFrame(frame)


def demography(people: People, knobs: Knobs) -> Floats:
    """Log-odds of choosing a habit of each category (users, 9) that come from gender and age."""
    return 1.6 * knobs.demographics * (BY_GENDER[people.gender] + BY_AGE[np.digitize(people.age, AGE_EDGES)])


def _words(words: list[str], codes: Ints) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=words)


def _chosen(words: list[str], liking: Floats, threshold: float, empty: npt.NDArray[np.bool_]) -> list[list[str] | None]:
    """Tick the words liked above the threshold, at least the one liked best; None where nothing was answered."""
    lists = ticked(words, liking >= np.minimum(threshold, liking.max(axis=1, keepdims=True)))
    return [None if gap else chosen for gap, chosen in zip(empty.tolist(), lists, strict=True)]


def ticked(words: npt.ArrayLike, ticks: npt.NDArray[np.bool_]) -> list[list[str]]:
    """List the words (n,) that each row of `ticks` (rows, n) has ticked."""
    chosen = np.asarray(words, dtype=object)[np.nonzero(ticks)[1]].tolist()
    ends = np.cumsum(ticks.sum(axis=1)).tolist()
    return [chosen[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def russian(people: People) -> npt.NDArray[np.bool_]:
    """Whether users write in Russian (users,)."""
    return np.array([zone in RUSSIAN_SPEAKING for zone in ZONES])[people.zone]


def _barriers(noise: Noise, people: People, gap: Floats) -> pd.array:
    half = len(BARRIERS) // 2
    which = (noise.uniform("barrier", people.index) * half).astype(np.int64) + half * russian(people)
    texts = np.array(BARRIERS, dtype=object)[which]
    texts[noise.uniform("no barrier", people.index) < 0.35 * gap] = None
    return pd.array(texts, dtype="str")
