"""Data minimisation: why each column is stored, and what the models lose without it.

Purposes stand in `purposes.toml`, one for each column of the contract. A column that a served model learns from needs
more than a purpose: an ablation, on people that were held out, of what is lost without it:

- lists: NDCG@5 of newcomers' lists when the form does not ask for it (answers only; nothing is fitted anew);
- chance: log loss of the chance to keep a habit when the model in its simple form is fitted without what it gives.

A loss that cannot be told from none is the case for storing the column no longer; the report says so, people decide.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.schema import TABLES, Table
from habitlab.evaluation import cold_start, estimates
from habitlab.evaluation.tables import exact
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import ContentModel
from habitlab.models.pairs import label_pairs
from habitlab.privacy import federated
from habitlab.recommender.candidates import with_catalogue

KINDS = ("key", "model", "filter", "audit", "analysis", "words", "consent", "operation")

BY_ANSWERS = (
    "users.preferred_time", "users.improvement_areas", "users.activity_preferences", "users.learning_style",
    "users.difficulty_preference", "users.chronotype", "users.time_commitment", "users.barriers",
    "users.existing_habits", "users.goal_set",
)  # fmt: skip
"""Model inputs whose ablation is that of the form."""

FOLLOWS = {
    "users.preferred_time": ("time_match",),
    "users.improvement_areas": ("areas", "category_match"),
    "users.activity_preferences": ("activities", "activity_match"),
    "users.difficulty_preference": ("difficulty_preference", "difficulty_gap"),
    "users.time_commitment": ("time_commitment", "budget_left"),
    "users.existing_habits": ("existing_habits",),
    "users.goal_set": ("goal_set",),
    "users.registered_at": ("days_since_registration",),
    "users.experience_level": ("experience_level",),
    "habits.category": ("category", "category_match", "category_completion"),
    "habits.activity_type": ("activity_match",),
    "habits.minutes": ("minutes", "held_minutes", "budget_left"),
    "habits.difficulty": ("difficulty", "difficulty_gap"),
    "habits.target": ("frequency", "held_minutes", "budget_left"),
    "habits.time_of_day": ("time_match",),
    "habit_tracking.date": ("completion_rate", "completion_rate_recent", "counted_days", "category_completion"),
    "habit_tracking.status": ("completion_rate", "completion_rate_recent", "counted_days", "category_completion"),
    "adoptions.adopted_at": ("adopted", "held", "held_minutes", "budget_left"),
    "adoptions.abandoned_at": ("held", "held_minutes", "budget_left"),
}
"""Column -> features of the chance to keep a habit (`habitlab.privacy.federated`) that cannot be made without it."""

NEEDED, NO_LOSS, WORSE, UNKNOWN = "needed", "no loss to be told", "better without", "not measured"


@dataclass(frozen=True)
class Purpose:
    """Why a column is stored: its kind (`KINDS`), the reason in words, and the sources that use it."""

    kind: str
    why: str
    where: tuple[str, ...]


@cache
def purposes() -> dict[str, Purpose]:
    """Return the purpose of each column, by `table.column`, as `purposes.toml` states them."""
    told = tomllib.loads((files("habitlab.privacy") / "purposes.toml").read_text("utf-8"))
    return {
        f"{table}.{column}": Purpose(entry["kind"], entry["why"], tuple(entry["where"]))
        for table, columns in told.items()
        for column, entry in columns.items()
    }


def problems(tables: Mapping[str, Table] = TABLES, stated: Mapping[str, Purpose] | None = None) -> list[str]:
    """Say what is stored without need, a line each; none is how it should be.

    A column without a purpose, a purpose without a column, a kind that is none, a source that does not name the column,
    and a model input without an ablation.
    """
    stated = purposes() if stated is None else stated
    columns = {f"{table}.{column}" for table, spec in tables.items() for column in spec.columns}
    found = [f"{name}: stored without a purpose; state one in purposes.toml" for name in sorted(columns - set(stated))]
    found += [f"{name}: a purpose for a column that is not stored" for name in sorted(set(stated) - columns)]
    package = files("habitlab")
    for name in sorted(columns & set(stated)):
        purpose, column = stated[name], name.partition(".")[2]
        if purpose.kind not in KINDS or not purpose.why.strip() or not purpose.where:
            found.append(f"{name}: needs a kind of {', '.join(KINDS)}, a reason, and a source that uses it")
        for source in purpose.where:
            path = package.joinpath(*source.split("/"))
            if not path.is_file() or not re.search(rf"\b{re.escape(column)}\b", _code(path.read_text("utf-8"))):
                found.append(f"{name}: unused: {source} does not name it")
        if purpose.kind == "model" and name not in BY_ANSWERS and name not in FOLLOWS:
            found.append(f"{name}: a model input without an ablation")
    return found


@cache
def _code(source: str) -> str:
    """A source without its comments and docstrings: to speak of a column is not to use it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [one for one in body if not _is_text(one)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def ablate_chance(
    dataset: Dataset, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:  # fmt: skip
    """Say how much log loss of the chance to keep a habit rises without each column: a row for each of `FOLLOWS`.

    Columns: column, loss (nats, paired, of users held out), ci_low, ci_high, n (users). MissingColumn where too few
    adoptions can be judged.
    """
    from habitlab.models.success import too_few

    pairs = label_pairs(dataset)
    if why := too_few(pairs):
        raise MissingColumn(f"needs adoptions that can be judged: {why}")
    success, user = pairs.success.astype(np.float64), pairs.user
    held = federated.split_users(user, seed=seed)
    fitted: dict[tuple[str, ...], Any] = {}

    def losses(without: tuple[str, ...]) -> Any:
        if without not in fitted:
            columns = federated.features(pairs, without)
            model = federated.central(columns[~held], success[~held])
            fitted[without] = federated.log_loss(model.probability(columns[held]), success[held])
        return fitted[without]

    lines = []
    for column, without in FOLLOWS.items():
        more = losses(without) - losses(())
        sums = estimates.cluster_sums(user[held], more, np.ones(held.sum()))
        drawn = estimates.resample(sums, lambda s: s[:, :1] / s[:, 1:], resamples=resamples, seed=seed)
        (low,), (high,) = drawn.interval(level)
        lines.append((column, float(drawn.estimate[0]), low, high, drawn.n))
    return pd.DataFrame(lines, columns=["column", "loss", "ci_low", "ci_high", "n"])


def ablate_lists(
    dataset: Dataset, *, users: int = 2000, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Say how much NDCG@5 of newcomers' lists falls when the form does not ask for an answer: a row for each answer.

    Columns as `ablate_chance`. Lists are those of content and similar people, half and half; the chance to keep a habit
    has its own ablation. Of a large dataset `users` people are drawn by lot; a fifth of them are held out.
    """
    dataset = with_catalogue(dataset)
    if len(dataset.users) > users:
        known = dataset.users["user_id"].to_numpy(dtype=object)
        drawn = np.random.default_rng(seed).choice(known, users, replace=False)
        frames = {name: dataset.table(name) for name in TABLES}
        kept = {name: frame[frame["user_id"].isin(drawn)] for name, frame in frames.items() if "user_id" in frame}
        dataset = dataset.replace(**kept)
    split = cold_start.newcomers(dataset, seed=seed)
    content, similar = ContentModel().fit(split.train), CollaborativeModel(seed=seed).fit(split.train)

    def score(people: pd.DataFrame) -> Any:
        blocks = content.similarities(people)
        said = sum(float(weight) * blocks[name] for name, weight in content.weights_.items())
        return (said + similar.score_profiles(people)) / 2

    values = cold_start.per_newcomer(score, content.habit_ids_, dataset.users, split)
    worth = cold_start.worth_of_answers(values, level=level, resamples=resamples, seed=seed)
    rows = worth[(worth["metric"] == "ndcg@5") & (worth["added"] == "to all others")]
    rows = rows[rows["answer"] != cold_start.WHOLE]
    return pd.DataFrame(
        {
            "column": "users." + rows["answer"],
            "loss": rows["estimate"],
            "ci_low": rows["ci_low"],
            "ci_high": rows["ci_high"],
            "n": rows["n"],
        }
    ).reset_index(drop=True)


def table(lists: pd.DataFrame, chance: pd.DataFrame) -> pd.DataFrame:
    """Set both ablations beside the purposes: a row for each model input.

    Columns: column, why, lists, lists_low, lists_high, chance, chance_low, chance_high (losses and their intervals, NaN
    where there is none), verdict: "needed" where one of them is surely lost, "better without" where one is surely
    gained and none lost, else "no loss to be told".
    """
    inputs = [name for name, purpose in purposes().items() if purpose.kind == "model"]
    found = pd.DataFrame({"column": inputs, "why": [purposes()[name].why for name in inputs]})
    for kind, frame in (("lists", lists), ("chance", chance)):
        known = frame.set_index("column").reindex(inputs)
        for name, source in ((kind, "loss"), (f"{kind}_low", "ci_low"), (f"{kind}_high", "ci_high")):
            found[name] = known[source].to_numpy(dtype=float)
    needed = (found["lists_low"] > 0) | (found["chance_low"] > 0)
    gained = (found["lists_high"] < 0) | (found["chance_high"] < 0)
    measured = found["lists"].notna() | found["chance"].notna()
    verdict = np.select([~measured, needed, gained], [UNKNOWN, NEEDED, WORSE], default=NO_LOSS)
    return found.assign(verdict=verdict)


def found(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Counts for the report: minimal_columns, minimal_inputs, minimal_needed, minimal_idle."""
    stored, inputs = purposes(), len(table)
    unexplained = len(problems())
    method = "purposes of the contract; ablations on people held out"
    counts = [
        ("minimal_columns", "Columns stored, each with a purpose and a use", len(stored) - unexplained, len(stored)),
        ("minimal_inputs", "Columns that a served model learns from", inputs, len(stored)),
        ("minimal_needed", "Of them, a loss without", int((table["verdict"] == NEEDED).sum()), inputs),
        ("minimal_idle", "Of them, no loss to be told", int(table["verdict"].isin([NO_LOSS, WORSE]).sum()), inputs),
    ]
    return [exact(key, label, count, n=n, method=method) for key, label, count, n in counts]
