"""What people tell: ratings and rejections, days done and missed, surveys, and cases of support.

Explicit feedback moves the score of the habit it is about, on the scale of log-odds, and fades. Days done and missed
update the chance of success as a Beta prior is updated. Answers to a survey are weighted for who does not answer. A
case of support becomes a test that every model has to pass.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.vocabulary import Response
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Floats
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.since import BY_REJECTION, BY_STAR

HALF_LIFE_DAYS = 90.0
"""After so many days a rejection or rating counts half."""

PRIOR_DAYS = 20.0
"""Days of its own that a predicted chance of success weighs as much as."""

FEWEST_ANSWERS = 20
LEAST_CHANCE = 0.05
"""Chance of an answer below which weights grow no more."""


# Explicit: 8.3.a


def opinions(dataset: Dataset, now: pd.Timestamp) -> pd.DataFrame:
    """Return what users said of habits up to an instant: user_id, habit_id, change (of the log-odds of its score).

    Every rejection of a recommendation counts, of ratings the last one; both fade with their age.
    """
    parts = []
    shown = dataset.recommendations
    if len(shown) and "response" in shown:
        no = shown[shown["response"].eq(Response.REJECTED).fillna(False).to_numpy(dtype=bool)]
        when = no["responded_at"].fillna(no["shown_at"]) if "responded_at" in no else no["shown_at"]
        parts.append(no[["user_id", "habit_id"]].assign(at=when, change=-BY_REJECTION))
    rated = dataset.feedback.dropna(subset=["rating"]) if "rating" in dataset.feedback else dataset.feedback.iloc[:0]
    if len(rated):
        last = rated[rated["at"] <= now].sort_values("at", kind="stable")
        last = last.drop_duplicates(["user_id", "habit_id"], keep="last")
        parts.append(last[["user_id", "habit_id", "at"]].assign(change=BY_STAR * (last["rating"] - 3)))
    if not parts:
        return pd.DataFrame({"user_id": [], "habit_id": [], "change": []})
    told = pd.concat(parts, ignore_index=True).dropna(subset=["at"])
    told = told[told["at"] <= now]
    age = (now - told["at"]).dt.total_seconds() / 86_400
    told = told.assign(change=told["change"] * 0.5 ** (age / HALF_LIFE_DAYS))
    return told.groupby(["user_id", "habit_id"], as_index=False, observed=True)["change"].sum()


def adjusted(scores: Floats, user_ids: Sequence[str], habit_ids: Sequence[str], told: pd.DataFrame) -> Floats:
    """Return scores (users, habits) in [0, 1] moved by `opinions`: 1 / (1 + exp(-(logit s + change))).

    A rejection or a rating below three lowers that habit's score and no other's; 0 and 1 stay, they are no matter of
    taste.
    """
    change = np.zeros(scores.shape)
    row, column = pd.Index(user_ids).get_indexer(told["user_id"]), pd.Index(habit_ids).get_indexer(told["habit_id"])
    known = (row >= 0) & (column >= 0)
    change[row[known], column[known]] = told["change"].to_numpy()[known]
    with np.errstate(divide="ignore"):
        moved = special.expit(special.logit(scores) + change)
    return np.where(change == 0, scores, moved)


# Implicit: 8.3.b


def success_after(
    probability: npt.ArrayLike, done: npt.ArrayLike, missed: npt.ArrayLike, weight: float = PRIOR_DAYS
) -> Floats:
    """Return the chance of success after days done and missed: the mean of Beta(p w + done, (1 - p) w + missed).

    `probability` p is what the model predicted, as sure as `weight` w days would make it; the update is exact, in any
    order and in any portions (conjugacy of the Beta and the binomial distribution). ValueError out of range.
    """
    p, d, m = (np.asarray(values, dtype=float) for values in (probability, done, missed))
    if weight <= 0 or (p < 0).any() or (p > 1).any() or (d < 0).any() or (m < 0).any():
        raise ValueError("probabilities lie between 0 and 1, days are not negative, and the weight is above 0")
    return (p * weight + d) / (weight + d + m)


# Surveys: 8.3.c


@dataclass(frozen=True)
class SurveyResult:
    """Mean answer to a question: of who answered (`naive`), and weighted for who did not.

    The weights make up for what the covariates tell; who keeps silent for reasons of the answer itself is not made up
    for. `lowest` and `highest`: the mean if all the silent had given the least or the greatest answer of the scale,
    between which nothing is assumed. `effective_n` is Kish's (1965): a small one says that few stand for many.
    """

    sent: int
    answered: int
    naive: float
    estimate: float
    ci_low: float
    ci_high: float
    lowest: float
    highest: float
    effective_n: float
    covariates: tuple[str, ...]
    note: str = ""


def survey_mean(
    dataset: Dataset,
    survey: str,
    question: str,
    *,
    scale: tuple[float, float] = (1, 5),
    covariates: Sequence[str] = ("age", "gender", "experience_level", "goal_set", "time_commitment"),
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> SurveyResult:
    """Estimate the mean answer of all who were asked, each answer weighted by one over its chance (by person).

    The chance comes from a logistic regression of answering on the covariates (columns of `users`; those that are
    absent are left out), with what is missing as a category of its own. The interval takes the weights as known.

    Raises
    ------
    MissingColumn
        Nobody was sent this question.
    ValueError
        An answer lies outside of the scale.
    """
    asked = dataset.surveys
    asked = asked[(asked["survey"] == survey) & (asked["question"] == question)]
    if asked.empty:
        raise MissingColumn(f"needs answers to {question!r} of the survey {survey!r}; this dataset has none")
    answer = asked["answer"].to_numpy(dtype=float, na_value=np.nan)
    if (answer < scale[0]).any() or (answer > scale[1]).any():
        raise ValueError(f"answers to {question!r} lie outside of the scale from {scale[0]:g} to {scale[1]:g}")
    replied = np.isfinite(answer)
    sent, answered = len(answer), int(replied.sum())
    naive = float(answer[replied].mean()) if answered else np.nan
    silent = 1 - answered / sent
    bounds = [(1 - silent) * (naive if answered else 0.0) + silent * end for end in scale]
    used, design = _design(dataset, asked["user_id"], covariates)
    weights, note = np.ones(sent), ""
    if min(answered, sent - answered) < FEWEST_ANSWERS:
        note = f"fewer than {FEWEST_ANSWERS} answered, or did not: answers are not weighted"
    elif not used:
        note = "nothing is known of those who were asked: answers are not weighted"
    else:
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=1.0, max_iter=1000).fit(design, replied)
        weights = 1 / np.clip(fitted.predict_proba(design)[:, 1], LEAST_CHANCE, 1)
    w = weights[replied]
    sums = estimates.cluster_sums(asked["user_id"].to_numpy()[replied], w * answer[replied], w)
    drawn = estimates.resample(sums, estimates.ratios, resamples=resamples, seed=seed)
    (low,), (high,) = drawn.interval(level)
    effective = float(w.sum() ** 2 / (w**2).sum()) if answered else 0.0
    estimate = float(drawn.estimate[0]) if answered else np.nan
    return SurveyResult(
        sent=sent,
        answered=answered,
        naive=naive,
        estimate=estimate,
        ci_low=float(low),
        ci_high=float(high),
        lowest=float(bounds[0]),
        highest=float(bounds[1]),
        effective_n=effective,
        covariates=tuple(used),
        note=note,
    )


def _design(dataset: Dataset, users: pd.Series, covariates: Sequence[str]) -> tuple[list[str], Floats]:
    people = dataset.users.set_index("user_id").reindex(users)
    used, columns = [], []
    for name in covariates:
        if name not in people or people[name].isna().all():
            continue
        values = people[name]
        used.append(name)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            number = values.to_numpy(dtype=float, na_value=np.nan)
            spread = np.nanstd(number) or 1.0
            columns.append(np.nan_to_num((number - np.nanmean(number)) / spread)[:, None])
            columns.append(np.isnan(number).astype(float)[:, None])
        else:
            words = values.astype(object).map(str, na_action="ignore")
            columns.append(pd.get_dummies(words, dummy_na=True).to_numpy(float))
    return used, np.hstack(columns) if columns else np.zeros((len(people), 0))


# Support: 8.3.d


@dataclass(frozen=True)
class Case:
    """A complaint as a test: who it was about (`person`, answers of the form; or `user`, an id), what is expected."""

    id: str
    tags: tuple[str, ...]
    story: str
    expect: Mapping[str, Any]
    person: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None
    at: str | None = None


EXPECTATIONS = ("never", "never_words", "never_part_of_day", "most_minutes", "at_least", "distinct_categories")


def load_cases(folder: str | Path | None = None) -> list[Case]:
    """Read the cases that come with HabitLab, and those in `cases.toml` of a service's folder.

    Raises ValueError naming the case for what is no case, and for an id that stands twice.
    """
    own = Path(folder) / "cases.toml" if folder is not None else None
    texts = [(files("habitlab.serving") / "support_cases.toml").read_text(encoding="utf-8")]
    if own is not None and own.exists():
        texts.append(own.read_text(encoding="utf-8"))
    found: dict[str, Case] = {}
    for text in texts:
        for told in tomllib.loads(text).get("case", []):
            try:
                case = Case(**{**told, "tags": tuple(told["tags"])})
            except (TypeError, KeyError) as error:
                raise ValueError(f"case {told.get('id', '?')!r} is none: {error}") from error
            unknown = set(case.expect) - set(EXPECTATIONS)
            if unknown or not case.expect or case.id in found:
                why = f"unknown: {sorted(unknown)}" if unknown else "nothing is expected, or the id stands twice"
                raise ValueError(f"case {case.id!r}: {why}; known are {', '.join(EXPECTATIONS)}")
            found[case.id] = case
    return list(found.values())


def check_case(case: Case, recommender: Recommender, k: int = 5) -> list[str]:
    """Return what is wrong with the list in a case, in words; nothing if all is as expected. An error is wrong, too."""
    try:
        found = recommender.recommend(case.user if case.user is not None else dict(case.person), k, case.at)
    except Exception as error:  # whatever a model may raise, the case failed
        return [f"{case.id}: {type(error).__name__}: {error}"]
    items, expect, problems = found.items, case.expect, []
    if len(items) < expect.get("at_least", 0):
        problems.append(f"{len(items)} habits, at least {expect['at_least']} expected")
    for item in items:
        names = " ".join(str(item.habit.get(f"name_{lang}", "")) for lang in ("en", "ru")).casefold().split()
        if item.habit_id in expect.get("never", ()):
            problems.append(f"{item.habit_id} is on the list")
        stems = tuple(expect.get("never_words", ()))
        if stems and any(word.startswith(stems) for word in names):
            problems.append(f"{item.name!r} is on the list")
        if float(item.habit.get("minutes", 0)) > expect.get("most_minutes", np.inf):
            problems.append(f"{item.name!r} takes {item.habit['minutes']:g} minutes, at most {expect['most_minutes']}")
        if item.part_of_day in expect.get("never_part_of_day", ()):
            problems.append(f"{item.name!r} is for the {item.part_of_day}")
    categories = len({item.habit.get("category") for item in items})
    if categories < expect.get("distinct_categories", 0):
        problems.append(f"{categories} categories, at least {expect['distinct_categories']} expected")
    return [f"{case.id}: {problem}" for problem in problems]
