"""What is known of a person at the start, and what it is worth: the answers of the form, and the first weeks.

Both are ablations with everything else held fixed: the same fitted models, the same people, the same later adoptions.
Only what the models are told of these people changes, so that each difference is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.dataset.registration import Registration
from habitlab.evaluation import leaderboard, metrics, splits
from habitlab.evaluation.estimates import Estimate, Floats, estimate_of
from habitlab.evaluation.model_tables import chosen
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tables import exact
from habitlab.features.as_of import end_of, event_days
from habitlab.models.baselines import Popularity
from habitlab.models.interactions import Interactions, positions
from habitlab.models.pairs import History, read_profiles
from habitlab.models.ranking import top_k
from habitlab.models.success import SuccessModel
from habitlab.recommender import context
from habitlab.recommender.blend import overlap, total
from habitlab.recommender.candidates import with_catalogue
from habitlab.recommender.recommend import Recommender

ANSWERS = tuple(name for name in Registration.model_fields if name not in ("zone", "consents"))
"""What the registration form asks about a person and their wishes, as columns of the table `users`."""

WHOLE, NONE, WITHOUT, ONLY = "whole form", "no answers", "without ", "only "

Score = Callable[[pd.DataFrame], Floats]
"""Scores of every habit for profiles, (users, habits)."""


def newcomers(dataset: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out a share of the people, of whom nothing but the form is known; `splits.hold_out_users`, with a word.

    Raises `MissingColumn` where too few people would be left for an interval, or none took up a habit.
    """
    people = round(share * len(dataset.users))
    if people < FEWEST:
        raise MissingColumn(
            f"needs people to hold out: {share:.0%} of {len(dataset.users)} users are {people}, "
            f"at least {FEWEST} are needed"
        )
    split = splits.hold_out_users(dataset, share, seed)
    if not split.relevant.nnz:
        raise MissingColumn("needs habits that people took up after they registered; there are none")
    return split


def answered(users: pd.DataFrame) -> list[str]:
    """Columns of the form that somebody answered; raises `MissingColumn` where there is none."""
    found = [name for name in ANSWERS if name in users and users[name].notna().any()]
    if not found:
        raise MissingColumn("needs an answer of a registration form; this dataset has none")
    return found


def form_variants(fields: Sequence[str]) -> dict[str, list[str]]:
    """Every variant of the form by name, and what it asks: whole, empty, without each field, with that field only."""
    without = {WITHOUT + name: [other for other in fields if other != name] for name in fields}
    return {WHOLE: list(fields), NONE: []} | without | {ONLY + name: [name] for name in fields}


def per_newcomer(
    score: Score,
    habit_ids: Iterable[str],
    users: pd.DataFrame,
    split: Split,
    *,
    k: int = 5,
    others: Mapping[str, Score] | None = None,
    chances: Mapping[str, Floats] | None = None,
) -> pd.DataFrame:
    """Worth of each newcomer's list by what the form asked: index user_id, columns (model, metric).

    Parameters
    ----------
    score, habit_ids
        Scores for profiles, and the ids of their columns.
    users
        The table `users`; the answers that it holds of the split's people make the forms.
    split
        Of `newcomers`; nobody in it may have been learnt from.
    k
        Length of the lists. A habit held before registration is never offered, but only the whole form, or one that
        asks for `existing_habits`, tells which those are.
    others
        More models to set beside, by name; they see the whole form.
    chances
        Name -> true chances (split's users, split's habits), of which each list gets its mean; for simulated data.

    Returns
    -------
    Models are the variants of `form_variants` and `others`; metrics are `ndcg@k` and the names of `chances`.
    """
    people = users.set_index("user_id", drop=False).loc[split.user_ids].reset_index(drop=True)
    fields = answered(people)
    place = pd.Index(list(habit_ids)).get_indexer(pd.Index(split.habit_ids))
    columns: dict[tuple[str, str], Floats] = {}

    def judge(name: str, model: Score, asked: list[str]) -> None:
        scores = np.asarray(model(people[["user_id", *asked]]), dtype=float)
        scores = np.where(place >= 0, scores[:, place], -np.inf)
        listed = top_k(scores, k, split.seen if "existing_habits" in asked else None)[0]
        columns[name, f"ndcg@{k}"] = metrics.ndcg_at_k(listed, split.relevant, k)
        for chance, true in (chances or {}).items():
            found = np.take_along_axis(true, np.maximum(listed, 0), axis=1)
            # Rounded, so that one list in another order is worth exactly the same.
            columns[name, chance] = np.round(np.where(listed >= 0, found, 0.0).sum(axis=1) / k, 12)

    # Held before is never offered to those of whom it is known, and never counts as found.
    for name, asked in form_variants(fields).items():
        judge(name, score, asked)
    for name, model in (others or {}).items():
        judge(name, model, fields)
    frame = pd.DataFrame(columns, index=pd.Index(split.user_ids, name="user_id"))
    return frame.rename_axis(columns=["model", "metric"])


def worth_of_answers(values: pd.DataFrame, *, level: float, resamples: int, seed: int) -> pd.DataFrame:
    """What each answer adds, from `per_newcomer`: a row for each answer, metric and comparison.

    Columns: answer (or `whole form`), metric, added ("to all others", "to nothing"), estimate, ci_low, ci_high,
    p_value, n, level. An answer that changes no list adds exactly 0 and has no interval.
    """
    draw: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    names = values.columns.get_level_values(0)
    left_out = names.str.startswith(WITHOUT) | (names == NONE) | (names == WHOLE)
    alone = names.str.startswith(ONLY) | (names == NONE) | (names == WHOLE)
    minus = leaderboard.differences(values.loc[:, left_out], WHOLE, **draw)
    plus = leaderboard.differences(values.loc[:, alone], NONE, **draw)
    low, high = -minus["ci_high"], -minus["ci_low"]
    minus = minus.assign(estimate=0 - minus["estimate"], ci_low=low, ci_high=high)
    both = pd.concat([minus.assign(added="to all others"), plus.assign(added="to nothing")], ignore_index=True)
    both = both[both["model"] != NONE]  # less the whole form, with the sign turned: the whole form less nothing
    answer = both["model"].str.removeprefix(WITHOUT).str.removeprefix(ONLY)
    columns = ["answer", "metric", "added", "estimate", "ci_low", "ci_high", "p_value", "n", "level"]
    return both.assign(answer=answer, level=level)[columns].reset_index(drop=True)


def by_answer(worth: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric of `worth_of_answers`, a row for each answer: what it adds to all others, and `alone` to nothing.

    Columns: answer, estimate, ci_low, ci_high, alone, n; most valuable first. Raises `MissingColumn` where the metric
    is not known.
    """
    rows = worth[(worth["metric"] == metric) & (worth["answer"] != WHOLE)]
    if rows.empty:
        raise MissingColumn(f"needs chances of being {metric}, which only simulated data know")
    alone = rows[rows["added"] == "to nothing"].set_index("answer")["estimate"]
    table = rows[rows["added"] == "to all others"].sort_values("estimate", ascending=False, kind="stable")
    table = table.assign(alone=table["answer"].map(alone), answer=table["answer"].str.replace("_", " "))
    return table[["answer", "estimate", "ci_low", "ci_high", "alone", "p_value", "n"]].reset_index(drop=True)


def form_found(worth: pd.DataFrame, *, level: float) -> Estimate:
    """Finding: what the whole form adds to no answer, in NDCG."""
    label, where = "NDCG@5 of newcomers' lists with the form less without", {"answer": WHOLE, "metric": "ndcg@5"}
    return chosen(worth, key="form", label=label, unit="", method=_NEWCOMERS, level=level, **where)


_NEWCOMERS = "people held out whole, scored by their form; paired by user"
_KEPT = "taken up and kept"


def against_popularity(values: pd.DataFrame, **draw: Any) -> list[Estimate]:
    """Findings: lists made from the form less the most popular habits, in NDCG and, where it is known, in truth."""
    names = values.columns.get_level_values(0)
    paired = leaderboard.differences(values.loc[:, names.isin([WHOLE, NONE, "popularity"])], "popularity", **draw)
    of_form = leaderboard.differences(values.loc[:, names.isin([WHOLE, NONE])], NONE, **draw)
    wanted = [
        (paired, "form_popularity", "ndcg@5", "NDCG@5 of newcomers' lists less that of the most popular habits"),
        (paired, "truth_popularity", _KEPT, "True chance of being taken up and kept, less that of the most popular"),
        (of_form, "form_truth", _KEPT, "True chance of being taken up and kept, with the form less without"),
    ]
    return [
        chosen(
            table, key=key, label=label, unit="share difference" if metric == _KEPT else "", method=_NEWCOMERS,
            level=draw["level"], model=WHOLE, metric=metric,
        )
        for table, key, metric, label in wanted
        if metric in set(table["metric"])
    ]  # fmt: skip


def best_answers(worth: pd.DataFrame, *, level: float) -> list[Any]:
    """Findings: the two answers that add most to all others, and how many add nothing that can be told from none."""
    table = by_answer(worth, "ndcg@5")
    found: list[Any] = [
        chosen(
            table[place : place + 1], key=key, label=f"The answer worth {rank}: {table['answer'].iloc[place]}", unit="",
            method=f"NDCG@5; {_NEWCOMERS}", level=level,
        )
        for place, (key, rank) in enumerate((("best_answer", "most"), ("second_answer", "second most"))[: len(table)])
    ]  # fmt: skip
    idle = int((~(table["ci_low"] > 0)).sum())
    label = "Answers that add nothing that can be told from none"
    return [*found, exact("idle_answers", label, idle, n=len(table), method=_NEWCOMERS)]


def side_by_side(values: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Means of `per_newcomer` in words, with their intervals: a row for each list, a column for each metric.

    The forms that lack one answer are left out.
    """
    names = values.columns.get_level_values(0)
    kept = ~(names.str.startswith(WITHOUT) | names.str.startswith(ONLY))
    table = leaderboard.summarise(values.loc[:, kept], **draw)
    text = [
        f"{row.estimate:.3f} ({row.ci_low:.3f} to {row.ci_high:.3f})"
        if np.isfinite(row.ci_low)
        else f"{row.estimate:.3f}"
        for row in table.itertuples()
    ]
    wide = table.assign(text=text).pivot_table(
        index="model", columns="metric", values="text", aggfunc="first", sort=False
    )
    wide = wide.reindex(index=table["model"].unique(), columns=table["metric"].unique())
    return wide.rename_axis(index=None, columns=None).reset_index(names="list")


def true_chances(dataset: Dataset, user_ids: Sequence[str]) -> dict[str, Floats]:
    """Chances that are known in a simulated world, each (users, habits); empty for real data.

    `taken up` if offered and looked at on the day of registration, `kept` (the label of success) if taken up, and
    `taken up and kept`, their product.
    """
    if not dataset.simulated or "simulation" not in dataset.metadata:
        return {}
    from habitlab.simulation import world_of
    from habitlab.simulation.adoption import adopt, adoption_probability, log_odds
    from habitlab.simulation.truth import held_at_registration, success_probability

    world = world_of(dataset)
    place = pd.Index(world.user_ids).get_indexer(pd.Index(list(user_ids)))
    user, habit = np.repeat(place, len(world.habits)), np.tile(np.arange(len(world.habits)), len(place))
    load = held_at_registration(world, adopt(world)[0])
    kept = success_probability(world, user, habit, world.people.registered[user], load[user])
    taken_up = np.asarray(adoption_probability(world, place, log_odds(world, place)), dtype=float)
    kept = kept.reshape(taken_up.shape)
    return {"taken up": taken_up, "kept": kept, "taken up and kept": taken_up * kept}


# The learning curve: the first weeks of each person


def known_for(dataset: Dataset, weeks: int) -> Dataset:
    """What is known of everybody when their first `weeks` weeks since registration are over; later rows are gone.

    Raises `MissingColumn` without `users.registered_at`.
    """
    dataset.require("users.registered_at")
    begun = dataset.users.set_index("user_id")["registered_at"] + pd.Timedelta(days=7 * weeks)
    day = event_days(dataset, "users", "registered_at") + 7 * weeks
    days = pd.Series(pd.to_datetime(day.clip(0, 60_000), unit="D"), index=begun.index).where(begun.notna())
    return splits._keep(dataset, splits._known(dataset, begun, days))


def learning_curve(
    recommender: Recommender,
    dataset: Dataset,
    split: Split,
    weeks: Sequence[int] = (0, 1, 2, 4, 8),
    *,
    k: int = 10,
) -> pd.DataFrame:
    """NDCG@k of each person's list by how many of their weeks are known: index user_id, columns (model, weeks).

    Parameters
    ----------
    recommender
        Fitted on `split.train` until `split.until`: what is known of everybody together does not change.
    dataset, split
        The dataset that the temporal split was made from. People and their later adoptions are the same throughout;
        only the history that the models are shown of them grows. Those without a later adoption, or registered for
        less than the longest of the `weeks`, are left out.
    weeks
        Weeks since registration; all that is known before the split comes on top, as the median number of weeks.
    k
        Length of the lists; what a person ever had before the split is never offered.

    Returns
    -------
    Models are content, collaborative, success, blend and popularity. The last column of each is the recommender's own.
    """
    dataset.require("users.registered_at")
    train, until = split.train, split.until
    if until is None:
        raise MissingColumn("needs a history that goes on after the day until which models learn")
    registered = event_days(train, "users", "registered_at")
    end = end_of(train, until)
    followed = end - registered[positions(split.user_ids, train.users["user_id"].to_numpy(dtype=object))]
    longest = max(weeks)
    chosen = (followed >= 7 * longest) & (np.diff(split.relevant.indptr) > 0)
    if chosen.sum() < FEWEST:
        raise MissingColumn(
            f"needs people registered for {longest} weeks who took up another habit later: {chosen.sum()} are, "
            f"at least {FEWEST} are needed"
        )
    ids = split.user_ids[chosen].tolist()
    relevant, seen = split.relevant[chosen], split.seen[chosen]
    steps = {week: (known_for(train, week), registered + 7 * week) for week in weeks}
    everything = round(float(np.median(followed[chosen])) / 7)
    steps[max(everything, longest + 1)] = train, np.full(len(registered), end)
    place = pd.Index(recommender.habit_ids_).get_indexer(pd.Index(split.habit_ids))
    popularity = Popularity().fit(with_catalogue(train), until).score(ids)
    columns = {}
    for week, (known, day) in steps.items():
        told = _scores(recommender, with_catalogue(known), np.minimum(day, end), until, ids)
        for name, scores in (told | {"popularity": popularity}).items():
            listed = top_k(np.where(place >= 0, scores[:, place], -np.inf), k, seen)[0]
            columns[name, week] = metrics.ndcg_at_k(listed, relevant, k)
    frame = pd.DataFrame(columns, index=pd.Index(ids, name="user_id"))
    return frame.rename_axis(columns=["model", "weeks"])


def gains(values: pd.DataFrame, **draw: Any) -> list[Estimate]:
    """Findings of a `learning_curve`: what history adds to the blend and to the collaborative model, by the end."""
    parts = {
        "gain_blend": ("blend", -1, "NDCG@10 of the blend, all history known less none"),
        "gain_collaborative": ("collaborative", -1, "NDCG@10 of the collaborative model, all history known less none"),
        "first_week_collaborative": (
            "collaborative",
            1,
            "NDCG@10 of the collaborative model, the first week known less none",
        ),
    }
    minus = np.column_stack(
        [values[model].iloc[:, step] - values[model].iloc[:, 0] for model, step, _ in parts.values()]
    )
    level = draw.pop("level")
    found = leaderboard.means(minus, **draw)
    method = "the same people and later adoptions, paired by user"
    return [
        estimate_of(resampled, key=key, label=label, level=level, unit="", method=method)
        for (key, (_, _, label)), resampled in zip(parts.items(), found, strict=True)
    ]


def _scores(
    recommender: Recommender, known: Dataset, day: np.ndarray, until: pd.Timestamp, ids: list[str]
) -> dict[str, Floats]:
    """Score people as of a day each, from what is `known` of them, with the models as they are (users, habits)."""
    models, people = recommender.models_, recommender.people_
    past = Interactions.read(known, until)
    rows, own = positions(ids, past.user_ids), recommender.rows(ids)
    near = known.users.iloc[rows]
    content, success = models.content, _as_of(models.success, known, day)
    found = {
        "content": content.score(ids),
        "collaborative": models.similar_people.fold_in(past.matrix[rows], near, models.similar_people.consent_[rows]),
        "success": success.score(ids),
    }
    parts = recommender.blend.contributions(
        content.similarities(ids),
        content.weights_,
        similar_people=found["collaborative"],
        success=found["success"],
        preference=overlap(people.liked[own], recommender.candidates_.activities),
        misfit=context.misfit(people.age[own], recommender.candidates_),
        evidence=past.evidence[rows],
    )
    return found | {"blend": total(parts)}


def _as_of(model: SuccessModel, known: Dataset, day: np.ndarray) -> SuccessModel:
    """The model as fitted, but with its users as they stood on a day each (users,)."""
    then = copy(model)
    everybody = np.arange(len(known.users))
    then._people = read_profiles(known.users) | History(known).of_users(everybody, day)
    return then
