"""Are the reasons that people read true of the score, and do they cover what decided it?

What is judged are the reasons of finished lists, as they are shown. A part of a score is taken out by giving the models
an average habit in its place and blending again (`deletion`), which uses nothing that the explanations are made from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.schema import TABLES
from habitlab.dataset.small_groups import may_show_one, suppress
from habitlab.evaluation import estimates
from habitlab.evaluation.estimates import Estimate, Floats
from habitlab.evaluation.tables import exact, several
from habitlab.explanations import explain_list, item_factors, label
from habitlab.explanations.factors import SMALLEST, item_effects
from habitlab.explanations.faithfulness import deletion_curves, random_importances
from habitlab.explanations.importances import IMPORTANCES, constant_importances
from habitlab.explanations.reasons import say_probability
from habitlab.explanations.wording import FALLBACK, language
from habitlab.recommender.blend import overlap, total
from habitlab.recommender.candidates import with_catalogue
from habitlab.recommender.context import misfit

if TYPE_CHECKING:
    from habitlab.models.success import SuccessModel
    from habitlab.recommender.recommend import Recommender
    from habitlab.recommender.recommendations import Recommendations

POINTS = 100.0
"""Scores are told in points of 100."""

STATED = 1e-6
"""A stated amount is right when it is measured to a millionth of the scale: models are kept in single precision."""

OURS, CONSTANTS, BY_LOT = "reasons as read", "constant importances", "by lot"


# Lists and what stands on them


def drawn(recommender: Recommender, most: int, seed: int = 0) -> list[str]:
    """Draw at most so many users by lot, in the order of the dataset."""
    users = recommender.user_ids_
    if len(users) <= most:
        return users.tolist()
    chosen = np.random.default_rng(seed).choice(len(users), most, replace=False)
    return users[np.sort(chosen)].tolist()


def as_newcomers(dataset: Dataset, user_ids: Sequence[str]) -> list[pd.DataFrame]:
    """Return the answers of users without anything they did: a record for somebody new each (one row)."""
    asked = [name for name in dataset.users.columns if name in TABLES["users"].columns]  # sources bring others along
    users = dataset.users[asked].set_index("user_id", drop=False).loc[list(user_ids)].reset_index(drop=True)
    return [users.iloc[[row]].reset_index(drop=True) for row in range(len(users))]


def parts_of(lists: Sequence[Recommendations]) -> pd.DataFrame:
    """Return every part of the score of every listed habit.

    Columns: user_id, rank, habit_id, part, effect (on the score against an average habit, in [-1, 1]), place (from 1
    among the reasons that are read, 0 where it is not one), statement (what is said; "" where nothing is).
    """
    columns = ["user_id", "rank", "habit_id", "part", "effect", "place", "statement"]
    return pd.DataFrame(list(_parts(lists)), columns=columns).astype({"effect": float, "place": int})


def _parts(lists: Sequence[Recommendations]) -> Iterator[tuple[Any, ...]]:
    for one in lists:
        for item in one.items:
            read = {factor.part: (place, factor) for place, factor in enumerate(item_factors(one, item), start=1)}
            for part, effect in item_effects(item.contributions, one.neutral).items():
                place, factor = read.get(part, (0, None))
                stated = (effect, 0, "") if factor is None else (factor.effect, place, factor.statement)
                yield one.user_id, item.rank, item.habit_id, part, *stated


# Are they true?


def deletion(recommender: Recommender, named: pd.DataFrame) -> pd.DataFrame:
    """Take each named part out of its score: the rows of `parts_of` given, with the `fall` of the score.

    The models are asked anew, this part of what they say about this habit is replaced by the mean over all habits (age:
    by no loss), and all of it is blended again. Stated truly, `fall` equals `effect`.
    """
    users = list(dict.fromkeys(named["user_id"]))
    row = pd.Index(users).get_indexer(pd.Index(named["user_id"]))
    habit = pd.Index(recommender.habit_ids_).get_indexer(pd.Index(named["habit_id"]))
    models, people, place = recommender.models_, recommender.people_, recommender.rows(users)
    said: dict[str, Floats] = dict(models.content.similarities(users)) | {
        "similar_people": models.similar_people.score(users),
        "success": models.success.score(users),
        "preference": overlap(people.liked[place], recommender.candidates_.activities),
        "age": misfit(people.age[place], recommender.candidates_),
    }

    def scores(replaced: str = "") -> Floats:
        given = dict(said)
        if replaced:
            average = said[replaced].mean(axis=1, keepdims=True) * (replaced != "age")
            given[replaced] = np.broadcast_to(average, said[replaced].shape)
        age = given.pop("age")
        rest = {name: given.pop(name) for name in ("similar_people", "success", "preference")}
        weights = models.content.weights_
        return total(
            recommender.blend.contributions(given, weights, **rest, misfit=age, evidence=people.evidence[place])
        )

    fall = scores()[row, habit]
    for part in named["part"].unique():
        here = (named["part"] == part).to_numpy()
        fall[here] -= scores(part)[row[here], habit[here]]
    return named.assign(fall=fall)


def said_of_tables(parts: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Return the reasons that speak of columns of the tables, with `true`: whether the tables say so, too."""
    named = parts[parts["place"] > 0]
    users = dataset.users.set_index("user_id").reindex(columns=[*_ANSWERS])
    habits = with_catalogue(dataset).habits.set_index("habit_id").reindex(columns=[*_ATTRIBUTES])
    rows = named.join(users, on="user_id").join(habits, on="habit_id")
    in_area = _among(rows, "category", users["improvement_areas"])
    activities = rows["activity_type"].explode()
    liked = _among(rows.loc[activities.index, ["user_id"]].assign(one=activities), "one", users["activity_preferences"])
    shared, strange = (pd.Series(flag, activities.index).groupby(level=0).any() for flag in (liked, ~liked))
    minutes, budget, age = (rows[name].astype(float) for name in ("minutes", "time_commitment", "age"))
    same_time = rows["time_of_day"].astype(object) == rows["preferred_time"].astype(object)
    holds = {
        ("category", "match"): in_area,
        ("category", "mismatch"): ~in_area,
        ("time", "fits"): minutes <= budget,
        ("time", "short"): minutes <= budget,
        ("time", "longer"): minutes > budget,
        ("time_of_day", "match"): same_time,
        ("time_of_day", "mismatch"): ~same_time,
        ("preference", "match"): shared,
        ("preference", "mismatch"): strange,
        ("age", "young"): age < rows["min_age"].astype(float),
        ("age", "old"): age > rows["max_age"].astype(float),
    }
    truth = pd.Series(pd.NA, rows.index, dtype="boolean")
    for (part, statement), true in holds.items():
        here = (named["part"] == part) & (named["statement"] == statement)
        truth[here] = pd.Series(true, rows.index)[here].astype(bool)
    return named.assign(true=truth)[truth.notna()]


_ANSWERS = ("improvement_areas", "activity_preferences", "time_commitment", "preferred_time", "age")
_ATTRIBUTES = ("category", "activity_type", "minutes", "time_of_day", "min_age", "max_age")


def _among(rows: pd.DataFrame, column: str, lists: pd.Series) -> npt.NDArray[np.bool_]:
    """Whether the value of each row is in the list of its user."""
    known = pd.MultiIndex.from_frame(lists.explode().dropna().astype(object).reset_index())
    return np.asarray(pd.MultiIndex.from_frame(rows[["user_id", column]].astype(object)).isin(known))


def truth(deleted: pd.DataFrame, checked: pd.DataFrame, **draw: Any) -> list[Estimate | dict[str, Any]]:
    """Return how true the reasons are, as findings; from `deletion` and `said_of_tables`."""
    if deleted.empty:
        raise MissingColumn("needs reasons; no listed habit stands out from an average one")
    error = (deleted["fall"] - deleted["effect"]).abs()
    first = deleted[deleted["effect"] > 0].sort_values("place", kind="stable").drop_duplicates(["user_id", "rank"])
    return [
        exact(
            "stated_right",
            "Reasons whose removal moves the score by just the amount stated",
            float((error <= STATED).mean()),
            n=len(deleted),
            unit="share",
            method=f"models asked and blended again without the part; right to {STATED:g} of the scale",
        ),
        exact(
            "largest_error",
            "Largest error of a stated amount, rounded up to a power of ten",
            1e6 * power_of_ten(float(error.max())),
            n=len(deleted),
            unit="millionths of the scale",
            method="stated less measured; rounding in single precision",
        ),
        _mean(
            first["user_id"],
            POINTS * first["fall"],
            "first_fall",
            "Fall of the score without its first reason in favour",
            unit="points",
            **draw,
        ),
        exact(
            "false_sentences",
            "Reasons about area, minutes, time, activities or age that the tables contradict",
            int((~checked["true"]).sum()) if len(checked) else None,
            n=len(checked),
            method="each sentence held against the rows of `users` and `habits`",
        )
        | {"reason": "" if len(checked) else "no reason speaks of them"},
    ]


def power_of_ten(value: float) -> float:
    """Round up to a power of ten, so that rounding errors of different machines read alike; 0 stays 0."""
    return 10.0 ** math.ceil(math.log10(value)) if value > 0 else 0.0


# Do they cover what decided?


def covered(parts: pd.DataFrame, **draw: Any) -> list[Estimate]:
    """Return what share of all that moved the scores the reasons name, and constants cannot; and reasons against."""
    if not (parts["effect"].abs() >= SMALLEST).any():
        raise MissingColumn("needs habits that stand out; all of these are like an average one")
    size, named = parts["effect"].abs(), parts["place"] > 0
    beyond = size * ~parts["part"].isin(list(IMPORTANCES))
    against, user = named & (parts["effect"] < 0), parts["user_id"]
    given = {
        "covered": ("What moved the score that its reasons name", size * named, size),
        "first_covers": ("What moved the score that its first reason names", size * (parts["place"] == 1), size),
        "against": ("Reasons that speak against the habit they stand by", against, named),
        "beyond_constants": ("What moved the score that constant importances have no name for", beyond, size),
    }
    return [_ratio(user, top, bottom, key, words, unit="share", **draw) for key, (words, top, bottom) in given.items()]


def named(parts: pd.DataFrame, newcomers: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Return how often each part is a reason for, and against, a listed habit; parts that never are one are left out.

    Columns: direction (`for`, `against`), part, words, estimate, ci_low, ci_high, users; and the same of `newcomers`:
    newcomers, newcomers_low, newcomers_high. Shares of listed habits, the part named most often first.
    """
    if not (parts["place"] > 0).any():
        raise MissingColumn("needs a reason; no listed habit stands out from an average one")
    both = [_named(rows, **draw).set_index(["direction", "part"]) for rows in (parts, newcomers)]
    others = both[1].rename(columns={"estimate": "newcomers", "ci_low": "newcomers_low", "ci_high": "newcomers_high"})
    table = both[0].join(others.drop(columns="users"), how="left").reset_index()
    table["words"] = table["part"].map(lambda part: label(f"part.{part}"))
    often = table.groupby("part")[["estimate", "newcomers"]].sum()
    table["often"] = table["part"].map(often["estimate"])
    table = table[table["part"].map((often > 0).any(axis=1))]
    table = table.sort_values(["direction", "often", "part"], ascending=[False, False, True], ignore_index=True)
    columns = ["direction", "part", "words", "estimate", "ci_low", "ci_high", "users"]
    return table[[*columns, "newcomers", "newcomers_low", "newcomers_high"]]


def _named(parts: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    names = sorted(parts["part"].unique())
    code = pd.Index(names).get_indexer(pd.Index(parts["part"]))
    frames = []
    for direction, sign in (("for", 1), ("against", -1)):
        flag = (parts["place"] > 0) & (sign * parts["effect"] > 0)
        level, found = _resampled(parts["user_id"], flag, 1.0, code, len(names), **draw)
        low, high = found.interval(level)
        table = {"direction": direction, "part": names, "estimate": found.estimate, "ci_low": low, "ci_high": high}
        frames.append(pd.DataFrame(table).assign(users=found.n))
    return pd.concat(frames, ignore_index=True)


def usual(
    parts: pd.DataFrame, newcomers: pd.DataFrame, table: pd.DataFrame, **draw: Any
) -> list[Estimate | dict[str, Any]]:
    """Return what reasons are about, as findings: the part most often, those never, and answers more for newcomers.

    `table` is that of `named`. The last is paired: newcomers are compared with themselves in `parts`.
    """
    first = table.iloc[0]
    rows = parts[parts["part"] == first["part"]]
    never = sorted(set(parts["part"]) - set(table["part"]))
    words = f"Part most often a reason for a listed habit: {first['words']}"
    often = (rows["place"] > 0) & (rows["effect"] > 0)
    names = ", ".join(label(f"part.{part}") for part in never) or "none"
    same = parts[parts["user_id"].isin(newcomers["user_id"])]
    both = pd.concat([newcomers, same]).query("place > 0")
    answers = ~both["part"].isin(["similar_people", "success"])
    first_day = np.repeat([0, 1], [(newcomers["place"] > 0).sum(), (same["place"] > 0).sum()])
    level, difference = _resampled(both["user_id"], answers, 1.0, first_day, 2, contrasts=[(0, 1)], **draw)
    parted = {"newcomers_more": "Reasons that speak of answers: to newcomers, less to the same people later"}
    return [
        _ratio(rows["user_id"], often, 1.0, "most_usual", words, unit="share", **draw),
        exact(
            "never_named",
            f"Parts of the score that are never a reason: {names}",
            len(never),
            n=parts["part"].nunique(),
            method="parts among the reasons of no listed habit",
        ),
        *several(difference, parted, level=level, method="paired; bootstrap by user", unit="share difference"),
    ]


# Against other explainers


def explainers(
    recommender: Recommender, dataset: Dataset, parts: pd.DataFrame, seed: int = 0
) -> dict[str, dict[str, Floats]]:
    """Return what three explainers state: the reasons as read, the overview's constants, and parts drawn by lot.

    Name -> part -> importance (users, habits), users in the order of `parts`. Raises `MissingColumn` where the data
    lack what the constants ask for.
    """
    dataset.require(*(f"users.{name}" for name in _ANSWERS if name != "preferred_time"))
    users, row, habit = _grid(recommender, parts)
    contributions = recommender.contributions(users)
    read = {part: np.zeros(values.shape) for part, values in contributions.items()}
    for part, importance in read.items():
        here = ((parts["part"] == part) & (parts["place"] > 0) & (parts["effect"] > 0)).to_numpy()
        importance[row[here], habit[here]] = parts["effect"].to_numpy()[here]
    habits = with_catalogue(dataset).habits.set_index("habit_id").loc[recommender.habit_ids_].reset_index()
    answers = dataset.users.set_index("user_id").loc[users].reset_index()
    chance = recommender.models_.success.score(users)
    return {
        OURS: read,
        CONSTANTS: constant_importances(answers, habits, chance),
        BY_LOT: random_importances(contributions, np.random.default_rng(seed)),
    }


def falls(
    recommender: Recommender, parts: pd.DataFrame, stated: Mapping[str, Mapping[str, Floats]], most: int = 3
) -> pd.DataFrame:
    """Return how far each score falls as its stated reasons go, in points of 100; columns as of `deletion_curves`."""
    users, row, habit = _grid(recommender, parts)
    items = np.full((len(users), int(parts["rank"].max())), -1)
    items[row, parts["rank"].to_numpy() - 1] = habit
    found = deletion_curves(recommender.contributions(users), items, stated, most=most)
    return found.assign(user_id=np.asarray(users, dtype=object)[found["user"]], fall=POINTS * found["fall"])


def _grid(
    recommender: Recommender, parts: pd.DataFrame
) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    if parts.empty:
        raise MissingColumn("needs lists with a habit; there are none")
    users = list(dict.fromkeys(parts["user_id"]))
    row = pd.Index(users).get_indexer(pd.Index(parts["user_id"]))
    return users, row, pd.Index(recommender.habit_ids_).get_indexer(pd.Index(parts["habit_id"]))


def curves(falls: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Return the mean fall by explainer and number of reasons deleted: estimate, ci_low, ci_high and users of each."""
    names = list(dict.fromkeys(falls["explainer"]))
    steps = int(falls["deleted"].max()) + 1
    code = pd.Index(names).get_indexer(pd.Index(falls["explainer"])) * steps + falls["deleted"].to_numpy()
    level, found = _resampled(falls["user_id"], falls["fall"], 1.0, code, len(names) * steps, **draw)
    low, high = found.interval(level)
    table = pd.DataFrame(
        {
            "explainer": np.repeat(names, steps),
            "deleted": np.tile(np.arange(steps), len(names)),
            "estimate": found.estimate,
            "ci_low": low,
            "ci_high": high,
            "users": found.n,
        }
    )
    start = table["deleted"] == 0  # nothing is gone yet: exactly 0
    return table.assign(ci_low=table["ci_low"].mask(start, 0.0), ci_high=table["ci_high"].mask(start, 0.0))


def compared(falls: pd.DataFrame, **draw: Any) -> list[Estimate]:
    """Return how far the first reason of each explainer moves the score, and the paired differences, as findings."""
    first = falls[falls["deleted"] == 1]
    names = [OURS, CONSTANTS, BY_LOT]
    code = pd.Index(names).get_indexer(pd.Index(first["explainer"]))
    words = {
        "fall_constants": "Fall of the score without the first reason of constant importances",
        "fall_by_lot": "Fall of the score without a part drawn by lot",
    }
    method = "mean over listed habits; bootstrap by user"
    level, found = _resampled(first["user_id"], first["fall"], 1.0, code - 1, 2, **draw)
    out = several(found, words, level=level, method=method, unit="points")
    level, gaps = _resampled(first["user_id"], first["fall"], 1.0, code, 3, contrasts=[(0, 1), (1, 2)], **draw)
    words = {
        "ours_less_constants": "First reason that is read, less that of constant importances: fall of the score",
        "constants_less_lot": "First reason of constant importances, less a part drawn by lot: fall of the score",
    }
    out += several(gaps, words, level=level, method=f"paired, {method}", unit="points")
    void = {"void_ours": (OURS, "that are read"), "void_constants": (CONSTANTS, "of constant importances")}
    for key, (name, which) in void.items():
        mine = first[first["explainer"] == name]
        idle = mine["fall"] <= POINTS * STATED
        text = f"First reasons {which} whose removal does not lower the score"
        out.append(_ratio(mine["user_id"], idle, 1.0, key, text, unit="share", **draw))
    return out


# Examples


def three_people(dataset: Dataset, lists: Sequence[Recommendations], evidence: npt.ArrayLike) -> pd.DataFrame:
    """Pick who acted on fewest habits, on a middle number and on most (the first of equals): the top of their lists.

    `evidence` (lists,). Returns user_id, rank and about (in words), a row for each of them. Raises `MissingColumn`
    where single people must not be shown.
    """
    may_show_one(dataset)
    filled = np.array([row for row, one in enumerate(lists) if one.items], dtype=int)
    if not len(filled):
        raise MissingColumn("needs lists with a habit; there are none")
    amount = np.asarray(evidence, dtype=float)[filled]
    order = np.argsort(amount, kind="stable")
    most = order[np.flatnonzero(amount[order] == amount[order[-1]])[0]]
    picked = dict.fromkeys([int(order[0]), int(order[(len(order) - 1) // 2]), int(most)])
    rows = [(lists[filled[i]].user_id, 1, f"habits acted on: {amount[i]:g}") for i in picked]
    return pd.DataFrame(rows, columns=["user_id", "rank", "about"])


def objections(dataset: Dataset, parts: pd.DataFrame, most: int = 3) -> pd.DataFrame:
    """Pick the listed habits with the heaviest reasons against them, no two about one part: user_id, rank, about.

    Raises `MissingColumn` as `three_people` does.
    """
    may_show_one(dataset)
    against = parts[(parts["place"] > 0) & (parts["effect"] < 0)]
    picked = against.sort_values(["effect", "user_id", "rank"]).drop_duplicates("part")
    picked = picked.drop_duplicates(["user_id", "rank"]).head(most)
    if picked.empty:
        raise MissingColumn("needs a reason against a listed habit; there is none")
    return picked.assign(about=picked["part"].map(lambda part: label(f"part.{part}")))[["user_id", "rank", "about"]]


def side_by_side(
    lists: Sequence[Recommendations], picked: pd.DataFrame, languages: Sequence[str] = ("en", "ru")
) -> pd.DataFrame:
    """Return the picked habits (user_id, rank, about), and below each its reasons, in each language.

    Columns: what (person and about, then `reason 1`, ...), one for each language, and points: of 100, the score of the
    habit and the amounts that the reasons state.
    """
    by_user = {one.user_id: one for one in lists}
    rows = []
    for pick in picked.itertuples():
        one = by_user[pick.user_id]
        item = one.items[pick.rank - 1]
        told = [explain_list(one, code).items[pick.rank - 1] for code in languages]
        stated = [factor.effect for factor in item_factors(one, item)] or [0.0]
        stated = [0.0] * item.by_lot + stated  # that a place was drawn by lot says nothing of its score
        lot = ", drawn by lot" if item.by_lot else ""
        rows.append((f"{pick.user_id}, {pick.about}{lot}", *(words.name for words in told), POINTS * item.score))
        sentences = zip(*(words.reasons for words in told), strict=True)
        rows += [
            (f"reason {place}", *said, POINTS * effect)
            for place, (said, effect) in enumerate(zip(sentences, stated, strict=True), start=1)
        ]
    return pd.DataFrame(rows, columns=["what", *(language(code).say("language.name") for code in languages), "points"])


# Probability words and the success model


def held_out(dataset: Dataset, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """Predict pairs that the success model never saw, and say which; see `habitlab.models.reliability.evaluate`.

    Raises `MissingColumn` where there are too few adoptions to tell.
    """
    from habitlab.models.reliability import MODEL, TRUTH, evaluate

    try:
        found = evaluate(dataset, resamples=2, seed=seed)
    except ValueError as reason:
        raise MissingColumn(str(reason)) from reason
    which = f"adopted from {found.cut:%Y-%m-%d} on, by users" if found.split == "temporal" else "of users"
    names = {MODEL: "chance", TRUTH: "truth"}
    columns = [name for name in ("user_id", "success", MODEL, TRUTH) if name in found.predictions]
    return found.predictions[columns].rename(columns=names), f"{which} whom the model has not learnt from"


def wording(predicted: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Return what happened where each wording of a probability stands, lowest first.

    `predicted`: user_id, success, chance and, if known, truth. Columns: words, Russian, chance (mean), estimate (share
    that succeeded), ci_low, ci_high, truth (mean), pairs, users; of fewer than ten users only the words.
    """
    english, russian = language(FALLBACK), language("ru")
    rows = predicted.sort_values("chance", kind="stable").reset_index(drop=True)
    words = rows["chance"].map(lambda chance: say_probability(chance, english))
    names = list(dict.fromkeys(words))
    code = pd.Index(names).get_indexer(pd.Index(words))
    groups = rows.groupby(code)
    means = groups["chance"].mean()
    table = []
    for number, name in enumerate(names):
        here = code == number
        level, found = _resampled(rows["user_id"][here], rows["success"][here], 1.0, **draw)
        (low,), (high,) = found.interval(level)
        table.append((name, say_probability(means[number], russian), means[number], found.estimate[0], low, high))
    columns = ["words", "Russian", "chance", "estimate", "ci_low", "ci_high"]
    out = pd.DataFrame(table, columns=columns)
    if "truth" in rows:
        out["truth"] = groups["truth"].mean().to_numpy()
    out = out.assign(pairs=groups.size().to_numpy(), users=groups["user_id"].nunique().to_numpy())
    numbers = [name for name in out.columns if name not in ("words", "Russian", "users")]
    return suppress(out, "users", numbers, totals=False).drop(columns="suppressed")


def believed(predicted: pd.DataFrame, bands: pd.DataFrame, **draw: Any) -> list[Estimate | dict[str, Any]]:
    """Return how far what is said is from what happened and, where it is known, from the truth, as findings."""
    user = predicted["user_id"]
    judged = bands.dropna(subset=["ci_low"])
    held = (judged["ci_low"] <= judged["chance"]) & (judged["chance"] <= judged["ci_high"])
    unit = "share difference"
    out: list[Estimate | dict[str, Any]] = [
        exact(
            "wordings_held",
            "Wordings of a chance whose interval of what happened holds what is said",
            int(held.sum()),
            n=len(judged),
            method="interval of the share kept, by user, against the mean probability said",
        ),
        _ratio(
            user,
            predicted["success"] - predicted["chance"],
            1.0,
            "kept_less_said",
            "Habits kept, less the chance that is said",
            unit=unit,
            **draw,
        ),
    ]
    if "truth" in predicted:
        known = predicted[np.isfinite(predicted["truth"])]
        gap = known["truth"] - known["chance"]
        words = "True chance to keep a habit, less the chance that is said"
        out.append(_ratio(known["user_id"], gap, 1.0, "truth_less_said", words, unit=unit, **draw))
    return out


def shap_values(model: SuccessModel, lists: Sequence[Recommendations], most: int = 100) -> pd.DataFrame:
    """Return the SHAP values of the success model for the habits of the first `most` lists.

    Columns: user_id, habit_id, feature, log_odds, error (of the pair: values and base less what the trees say). Raises
    `MissingColumn` where there is no such model, or the package shap is not installed.
    """
    if model.fallback_:
        raise MissingColumn(f"needs a success model; here is only the base rate: {model.fallback_}")
    frames = []
    for one in lists[:most]:
        habits = [item.habit_id for item in one.items]
        if not habits:
            continue
        try:
            values = model.explain(one.user_id, habits)
        except ImportError as error:
            raise MissingColumn(str(error)) from error
        place = pd.Index(model.habit_ids_).get_indexer(pd.Index(habits))
        log_odds = model.log_odds([one.user_id])[0, place]
        errors = values.sum(axis=1).to_numpy() + values.attrs["base"] - log_odds
        long = values.melt(ignore_index=False, var_name="feature", value_name="log_odds").reset_index()
        frames.append(long.assign(user_id=one.user_id, error=np.tile(errors, values.shape[1])))
    return pd.concat(frames, ignore_index=True)[["user_id", "habit_id", "feature", "log_odds", "error"]]


def shap_sizes(values: pd.DataFrame, **draw: Any) -> pd.DataFrame:
    """Return how much each feature moves the estimate, the weightiest first.

    Columns: feature, words, estimate (mean |SHAP|, in log-odds), ci_low, ci_high, users.
    """
    names = sorted(values["feature"].unique())
    code = pd.Index(names).get_indexer(pd.Index(values["feature"]))
    level, found = _resampled(values["user_id"], values["log_odds"].abs(), 1.0, code, len(names), **draw)
    low, high = found.interval(level)
    words = [label(f"feature.{name}") for name in names]
    table = {"feature": names, "words": words, "estimate": found.estimate, "ci_low": low, "ci_high": high}
    out = pd.DataFrame(table).assign(users=found.n)
    return out.sort_values("estimate", ascending=False, kind="stable").reset_index(drop=True)


def shap_findings(values: pd.DataFrame, sizes: pd.DataFrame, **draw: Any) -> list[Estimate | dict[str, Any]]:
    """Return whether the values add up, and the feature that moves most, as findings."""
    first = sizes.iloc[0]
    mine = values[values["feature"] == first["feature"]]
    error = values.drop_duplicates(["user_id", "habit_id"])["error"].abs()
    return [
        exact(
            "shap_right",
            "Chances of listed habits whose SHAP values add up to what the trees say",
            float((error <= STATED).mean()),
            n=len(error),
            unit="share",
            method=f"base and values of all features, less the log-odds of the trees; right to {STATED:g}",
        ),
        _mean(
            mine["user_id"],
            mine["log_odds"].abs(),
            "shap_first",
            f"Weightiest feature: {first['words']}",
            unit="log-odds",
            **draw,
        ),
    ]


# Estimates


def _resampled(
    user: npt.ArrayLike,
    top: npt.ArrayLike,
    bottom: npt.ArrayLike,
    group: npt.ArrayLike = 0,
    groups: int = 1,
    *,
    level: float = 0.95,
    contrasts: Sequence[tuple[int, int]] | None = None,
    **draw: Any,
) -> tuple[float, estimates.Resampled]:
    found = estimates.ratio(top, bottom, user, group=group, groups=groups, contrasts=contrasts, **draw)
    return level, found


def _ratio(
    user: npt.ArrayLike, top: npt.ArrayLike, bottom: npt.ArrayLike, key: str, words: str, *, unit: str, **draw: Any
) -> Estimate:
    level, found = _resampled(user, top, bottom, **draw)
    return several(found, {key: words}, level=level, method="share or mean; bootstrap by user", unit=unit)[0]


def _mean(user: pd.Series, values: pd.Series, key: str, words: str, *, unit: str, **draw: Any) -> Estimate:
    return _ratio(user, values, 1.0, key, words, unit=unit, **draw)
