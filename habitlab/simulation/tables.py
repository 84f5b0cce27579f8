"""From what happened in the world to the tables of a dataset; `tracking` makes the largest."""

from __future__ import annotations

import numpy as np
import pandas as pd

from habitlab.dataset.vocabulary import AdoptionSource, DescriptionVariant, HabitField, Purpose, Response, Status
from habitlab.simulation import people as population
from habitlab.simulation.adoption import SLATE_DAYS, Adoptions, Offers
from habitlab.simulation.people import Floats, Ints, numbered
from habitlab.simulation.tracking import Moments, hours_of, instants, minutes_changed, texts, tracking, utc
from habitlab.simulation.world import Bools, Course, World

REGISTERING = 0.05  # hours before the first slate
RANDOM_POLICY, POPULAR_POLICY = "random", "popular"
CONSENTS = {Purpose.RESEARCH: 1.0, Purpose.PERSONALISATION: 0.93, Purpose.PROFILING: 0.8, Purpose.SIMILAR_USERS: 0.85}

COMMENTS = (
    "Works well for me", "Too long for a weekday", "I like the reminder", "Easy to forget", "Feels natural by now",
    "Мне подходит", "В будни долго", "Напоминание помогает", "Легко забыть", "Уже вошло в привычку",
)  # fmt: skip


def make_tables(
    world: World, adoptions: Adoptions, offers: Offers, existing: list[list[str]], course: Course
) -> dict[str, pd.DataFrame]:
    """Make every table of the dataset from the choices and what came of them; `course` holds the adopted pairs."""
    people = world.people
    tracked = tracking(world, course)
    slate = (adoptions.start - people.registered[adoptions.user]) // SLATE_DAYS
    opened = _slate_hours(world, adoptions.user, slate, course, tracked["status"])
    begun = opened[adoptions.user, slate] + _delay(world, adoptions.user, adoptions.habit)
    adopted_at = instants(world, adoptions.user, adoptions.start, begun)
    registered_at = instants(world, people.index, people.registered, opened[:, 0] - REGISTERING)
    return {
        "users": population.profile(world.noise, people, world.knobs, existing, utc(registered_at)),
        "habits": world.catalogue,
        "habit_tracking": tracked,
        "adoptions": _adoptions(world, adoptions, course, adopted_at),
        "modifications": _modifications(world, course, adopted_at),
        "recommendations": _recommendations(world, offers, opened),
        "sessions": _sessions(world, opened),
        "feedback": _feedback(world, course),
        "surveys": _surveys(world),
        "consents": _consents(world, registered_at),
    }


def _slate_hours(world: World, user: Ints, slate: Ints, course: Course, status: pd.Series) -> Floats:
    """Local hour at which each slate is opened (users, slates): before anything adopted from it is done."""
    slates = 1 + max(0, world.days - 1) // SLATE_DAYS
    opened = 7 + 14 * world.noise.uniform("slate hour", np.arange(world.users)[:, None], np.arange(slates))
    first = course.first[course.occasions > 0]
    first = first[(status.iloc[first] == Status.DONE).to_numpy()]
    pair = course.pair[first]
    np.minimum.at(opened, (user[pair], slate[pair]), hours_of(world, course, first) - 0.5)
    return opened


def _delay(world: World, user: Ints, habit: Ints) -> Floats:
    """Hours from the opening of a slate to the answer, below those that `_slate_hours` leaves."""
    return 0.01 + 0.3 * world.noise.uniform("answer", user, habit)


def _adoptions(world: World, adoptions: Adoptions, course: Course, adopted_at: Moments) -> pd.DataFrame:
    user, habit, end = course.user, course.habit, course.start + course.length
    ended = end < world.days
    abandoned_at = np.full(len(user), np.datetime64("NaT", "us"))
    # The user gives up on a day of which nothing is logged any more.
    hour = 8 + 13 * world.noise.uniform("given up at", user, habit)
    abandoned_at[ended] = instants(world, user, end, hour)[ended]
    source = np.where(adoptions.recommended, AdoptionSource.RECOMMENDED, AdoptionSource.CHOSEN)
    return pd.DataFrame(
        {
            "user_id": texts(world.user_ids, user),
            "habit_id": texts(world.habit_ids, habit),
            "adopted_at": utc(adopted_at),
            "abandoned_at": utc(abandoned_at),
            "source": pd.Categorical(source, categories=[s.value for s in AdoptionSource]),
        }
    )


def _modifications(world: World, course: Course, adopted_at: Moments) -> pd.DataFrame:
    user, habit, start = course.user, course.habit, course.start
    last = np.minimum(start + course.length, world.days)
    ids, names = world.user_ids, world.habit_ids

    def change(rows: Bools, at: Moments, field: HabitField, old: list[str], new: list[str]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "user_id": texts(ids, user[rows]),
                "habit_id": texts(names, habit[rows]),
                "at": utc(at[rows]),
                "field": field.value,
                "old": old,
                "new": new,
            }
        )

    reminded = world.reminded(user, habit)
    yes = int(reminded.sum())
    day, factor = minutes_changed(world, user, habit)
    shorter = start + day < last
    minutes = world.habits.minutes[habit]
    on_day = instants(world, user, np.minimum(start + day, world.days), 5.0 + np.zeros(len(user)))
    moved_day = 3 + (40 * world.noise.uniform("moved on", user, habit)).astype(np.int64)
    part = np.array(["morning", "afternoon", "evening"], dtype=object)[world.part_of_day(user, habit)]
    planned = world.habits.time_of_day[habit]
    moved = (part != planned) & (planned != "any") & (start + moved_day < last)
    moved &= world.noise.uniform("moved", user, habit) < 0.3
    moved_at = instants(world, user, np.minimum(start + moved_day, world.days), 4.9 + np.zeros(len(user)))
    changes = pd.concat(
        [
            change(reminded, adopted_at, HabitField.REMINDER, ["off"] * yes, ["on"] * yes),
            change(
                shorter,
                on_day,
                HabitField.MINUTES,
                [f"{m:g}" for m in minutes[shorter]],
                [f"{m:g}" for m in (minutes * factor)[shorter]],
            ),
            change(moved, moved_at, HabitField.TIME_OF_DAY, planned[moved].tolist(), part[moved].tolist()),
        ]
    )
    return changes.sort_values(["user_id", "habit_id", "at", "field"], kind="stable", ignore_index=True)


def _recommendations(world: World, offers: Offers, opened: Floats) -> pd.DataFrame:
    user, noise = offers.user, world.noise
    day = world.people.registered[user] + SLATE_DAYS * offers.slate
    shown = opened[user, offers.slate]
    rejected = offers.seen & ~offers.accepted & (noise.uniform("rejected", user, offers.habit) < 0.2)
    response = np.select([offers.accepted, rejected, offers.seen], [1, 2, 0], default=-1)
    responded = instants(world, user, day, shown + _delay(world, user, offers.habit)).astype("datetime64[us]")
    responded[~offers.seen] = np.datetime64("NaT")
    return pd.DataFrame(
        {
            "event_id": numbered("r", np.arange(len(user)), 8),
            "user_id": texts(world.user_ids, user),
            "habit_id": texts(world.habit_ids, offers.habit),
            "shown_at": utc(instants(world, user, day, shown)),
            "position": offers.position.astype(float),
            "policy": texts(pd.array([RANDOM_POLICY, POPULAR_POLICY], dtype="str"), offers.popular.astype(np.int64)),
            "propensity": offers.propensity,
            "description_variant": pd.Categorical.from_codes(
                np.where(offers.clear, 0, 1), categories=[v.value for v in DescriptionVariant]
            ),
            "response": pd.Categorical.from_codes(response, categories=[r.value for r in Response]),
            "responded_at": utc(responded),
        }
    )


def _sessions(world: World, opened: Floats) -> pd.DataFrame:
    """Openings of the app: reminders and novelty bring more of them at first (G6)."""
    people, noise, days = world.people, world.noise, np.arange(world.days)
    user = people.index[:, None]
    age = days - people.registered[:, None]
    reminders = noise.uniform("reminders", people.index) < 0.6
    by_age = 0.25 + 0.3 * np.exp(-days / 10) + 0.15 * np.array([[0], [1]]) * np.exp(-days / 21)
    chance = by_age[reminders.astype(np.int64)[:, None], np.maximum(age, 0)]
    here = (age > 0) & (age < people.lifetime[:, None])
    first = np.nonzero(here & (noise.uniform("opened", user, days) < chance))
    again = np.nonzero(here & (noise.uniform("opened again", user, days) < 0.4 * chance))
    who, day = (
        np.concatenate([a, b, c]) for a, b, c in zip(first, again, (people.index, people.registered), strict=True)
    )
    kind = np.repeat([0, 1, 2], [len(first[0]), len(again[0]), world.users])  # the last is the registration
    # One session before 13:00 and one after 14:00, half an hour at most: they cannot overlap.
    hour = 6.5 + 7.5 * kind + 6.5 * noise.uniform("opened at", who, day, kind)
    hour[kind == 2] = opened[:, 0] - REGISTERING
    seconds = np.exp(np.log(75) + 0.9 * noise.normal("seconds", who, day, kind)) * np.where(kind == 2, 4, 1)
    order = np.argsort((who * world.days + day) * 3 + kind)
    return pd.DataFrame(
        {
            "session_id": numbered("s", np.arange(len(who)), 8),
            "user_id": texts(world.user_ids, who[order]),
            "started_at": utc(instants(world, who, day, hour)[order]),
            "seconds": np.round(np.clip(seconds, 5, 1800))[order],
        }
    )


def _feedback(world: World, course: Course) -> pd.DataFrame:
    """Ratings after a week and after four, of pairs still held: liking, and how it has gone."""
    noise = world.noise
    user, habit = course.user, course.habit
    done_before = np.append(0, np.cumsum(course.done))
    frames = []
    for number, day in enumerate((7, 28)):
        asked = (course.length > day) & (course.start + day < world.days)
        asked &= noise.uniform("rated", user, habit, number) < 0.12
        pairs = np.flatnonzero(asked)
        planned = -((-day * world.habits.times) // world.habits.per_days)[habit[pairs]]
        begin = course.first[pairs]
        going = done_before[begin + planned] - done_before[begin]
        opinion = world.affinity(user[pairs], habit[pairs]) + 3 * (going / planned - 0.5)
        rating = 3.4 + 0.7 * opinion + 0.7 * noise.normal("rating", user[pairs], habit[pairs], number)
        at = instants(
            world, user[pairs], course.start[pairs] + day, 12 + 9 * noise.uniform("rated at", user[pairs], number)
        )
        text = (len(COMMENTS) // 2 * noise.uniform("comment", user[pairs], habit[pairs], number)).astype(np.int64)
        text += len(COMMENTS) // 2 * population.russian(world.people)[user[pairs]]
        silent = noise.uniform("silent", user[pairs], habit[pairs], number) < 0.7
        frames.append(
            pd.DataFrame(
                {
                    "user_id": texts(world.user_ids, user[pairs]),
                    "habit_id": texts(world.habit_ids, habit[pairs]),
                    "at": utc(at),
                    "rating": np.clip(np.round(rating), 1, 5),
                    "comment": pd.array(
                        np.array([*COMMENTS, None], dtype=object)[np.where(silent, -1, text)], dtype="str"
                    ),
                }
            )
        )
    return pd.concat(frames).sort_values(["user_id", "habit_id", "at"], kind="stable", ignore_index=True)


def _surveys(world: World) -> pd.DataFrame:
    """One question after two weeks: how satisfied, 1-5. Those who do well answer more often."""
    people, noise = world.people, world.noise
    day = people.registered + 14
    asked = np.flatnonzero((people.lifetime > 14) & (day < world.days))
    able = people.ability[asked]
    answers = noise.uniform("survey", asked) < 1 / (1 + np.exp(-(0.7 * able - 0.4)))
    sent = instants(world, asked, day[asked], np.full(len(asked), 18.0))
    answered = sent + (4 * 3600 * noise.uniform("survey at", asked)).astype("timedelta64[s]")
    answered[~answers] = np.datetime64("NaT")
    answer = np.clip(np.round(3.3 + 0.6 * able + 0.8 * noise.normal("satisfaction", asked)), 1, 5)
    return pd.DataFrame(
        {
            "user_id": texts(world.user_ids, asked),
            "survey": "two weeks",
            "question": "satisfaction",
            "sent_at": utc(sent),
            "answered_at": utc(answered),
            "answer": np.where(answers, answer, np.nan),
        }
    )


def _consents(world: World, registered_at: Moments) -> pd.DataFrame:
    """What users allow when they register; minors' data are used neither for profiling nor for likeness."""
    index, purposes = world.people.index, np.array(list(CONSENTS))
    granted = world.noise.uniform("consent", index[:, None], np.arange(len(purposes))) < list(CONSENTS.values())
    grown_up = world.people.age[:, None] >= 18
    granted &= grown_up | ~np.isin(purposes, [Purpose.PROFILING, Purpose.SIMILAR_USERS])
    order = np.argsort(purposes)
    return pd.DataFrame(
        {
            "user_id": texts(world.user_ids, np.repeat(index, len(order))),
            "purpose": np.tile(purposes[order], len(index)),
            "at": utc(np.repeat(registered_at, len(order))),
            "granted": granted[:, order].ravel(),
        }
    )
