"""Tables and findings of the report on privacy and safety; what is measured stands in the modules beside."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.derived import age_band
from habitlab.dataset.small_groups import FEWEST, hidden, recoverable
from habitlab.dataset.vocabulary import Category
from habitlab.evaluation.estimates import Estimate
from habitlab.evaluation.tables import exact
from habitlab.privacy import aggregates
from habitlab.privacy.empirical import audit
from habitlab.privacy.ledger import Ledger, rho_of
from habitlab.recommender import notifications
from habitlab.recommender.guardrails import ADULT, NOBODY, safe_from

EPSILONS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
GOOD = "clear"


def errors(table: pd.DataFrame, *, level: float) -> list[Any]:
    """Findings of `aggregates.accuracy`: dp_error (epsilon 1), dp_error_strict (0.25), dp_bound (the bound alone)."""
    found: list[Any] = []
    for key, epsilon in (("dp_error", 1.0), ("dp_error_strict", 0.25)):
        row = table[table["epsilon"] == epsilon].iloc[0]
        label = f"Mean error of a published mean completion, epsilon {epsilon:g}"
        method = "Gaussian noise by user, over draws of the noise; against the exact means of all rows"
        found.append(
            Estimate(
                key, label, float(row["error"]), float(row["ci_low"]), float(row["ci_high"]), level, int(row["n"]),
                "share difference", method,
                "" if np.isfinite(row["error"]) else "too few people for the noise: no category has an estimate",
            )
        )  # fmt: skip
    bound = table[np.isinf(table["epsilon"])].iloc[0]
    label = "Error by counting each person in three categories at most, without noise"
    found.append(
        exact(
            "dp_bound", label, float(bound["error"]), n=len(Category), method="without noise", unit="share difference"
        )
    )
    return found


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `aggregates.accuracy` worth a curve: where nearly every category has an estimate.

    Raises `MissingColumn` where there are fewer than two.
    """
    rows = table[(table["told"] > 0.9) & np.isfinite(table["epsilon"])]
    if len(rows) < 2:
        raise MissingColumn(
            f"needs more people: with epsilon up to {EPSILONS[-1]:g} noise leaves too few in a category"
        )
    return rows


def refusal(budget: float, asked: float) -> tuple[list[Any], str]:
    """Ask a ledger until it refuses: findings ledger_answered and ledger_adding (by adding epsilons), and its words."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.json", epsilon=budget)
        answered, words = aggregates.until_refused(ledger, asked, lambda number: [number])
    label = f"Questions of epsilon {asked:g} answered within epsilon {budget:g}, before the ledger refuses"
    method = "zero-concentrated accounting at delta 1e-6"
    return [
        exact("ledger_answered", label, answered, n=answered + 1, method=method),
        exact("ledger_adding", "As many by adding epsilons", int(budget / asked + 1e-9), n=answered + 1, method="sum"),
    ], words


def tried(dataset: Dataset, *, epsilon: float, runs: int, seed: int) -> list[Any]:
    """Try to tell neighbouring datasets apart: findings audit_kept, and audit_broken for a bound that is not kept.

    The neighbour has one person more, the one that is easiest to see: all done, in every category. Noise is drawn from
    a seed here.
    """
    values, cells = aggregates.completion(dataset), [category.value for category in Category]
    person = pd.DataFrame({"user_id": "one person more", "cell": cells, "value": 1.0, "weight": 1})
    more = pd.concat([values, person], ignore_index=True)
    generator = np.random.default_rng(seed)
    found = []
    for key, kept, words in (
        ("audit_kept", 3, "as published"),
        ("audit_broken", len(cells), "with noise for one category a person, while people count in all"),
    ):
        sums = [aggregates.summed(aggregates.bound(v, cells, kept), cells, kept).sums for v in (values, more)]
        reach = aggregates.summed(values.iloc[:0], cells, 3 if kept == 3 else 1).reach
        scale = aggregates.scale_for(reach, rho_of(epsilon, 1e-6))
        one, other = (partial(_with_noise, one, scale, generator) for one in sums)
        judged = audit(one, other, epsilon=epsilon, delta=1e-6, runs=runs)
        label = f"Epsilon that an attacker surely shows, promised {epsilon:g}: {words}"
        method = f"{runs} runs on either side of one person, Clopper-Pearson at {judged.level:g}"
        found.append(exact(key, label, max(0.0, judged.epsilon_low), n=runs, method=method))
    return found


def _with_noise(sums: Any, scale: float, generator: np.random.Generator, runs: int) -> Any:
    return sums + np.rint(generator.normal(0, scale, (runs, len(sums))))


def small_groups(dataset: Dataset, fewest: int = FEWEST) -> tuple[pd.DataFrame, list[Any]]:
    """People by age and gender, small groups hidden; findings groups_small, groups_beside, groups_recovered."""
    dataset.require("users.age", "users.gender")
    users = dataset.users.assign(age=age_band(dataset.users["age"]).astype(object))
    table = pd.crosstab(users["age"], users["gender"].astype(object))
    order = [band for band in age_band(pd.Series([20.0])).cat.categories if band in table.index]
    table = table.loc[order]
    counts = table.to_numpy()
    hide = hidden(counts, fewest)
    small = (counts > 0) & (counts < fewest)
    shown = table.astype(object).mask(hide, "hidden").reset_index().rename_axis(columns=None)
    back = recoverable(counts, hide) & (counts > 0)
    method = f"fewer than {fewest} people; complementary suppression"
    return shown, [
        exact("groups_small", "Cells with few people, hidden", int(small.sum()), n=counts.size, method=method),
        exact("groups_beside", "Cells hidden beside them", int((hide & ~small).sum()), n=counts.size, method=method),
        exact(
            "groups_recovered",
            "Hidden cells that follow from all totals",
            int(back.sum()),
            n=counts.size,
            method=method,
        ),
    ]


def red_team() -> tuple[pd.DataFrame, list[Any]]:
    """Cases of the red team by theme, and findings: red_cases, red_missed, red_blocked."""
    with (files("habitlab.recommender") / "red_team.csv").open(encoding="utf-8") as file:
        cases = pd.read_csv(file)
    russian = cases["language"] == "ru"
    names = {"name_en": cases["name"].where(~russian), "name_ru": cases["name"].where(russian)}
    found = safe_from(cases.assign(**names))
    wanted = cases["dangerous_for"].map({"nobody": NOBODY, "minors": ADULT, "harmless": 0}).to_numpy()
    cases = cases.assign(missed=found < wanted, blocked=(wanted == 0) & (found > 0))
    table = (
        cases.assign(
            english=~russian, russian=russian, nobody=wanted == NOBODY, minors=wanted == ADULT,
        )
        .groupby("theme", sort=False)[["english", "russian", "nobody", "minors", "missed", "blocked"]]
        .sum()
        .reset_index()
        .rename(columns={"nobody": "for nobody", "minors": "not for minors", "blocked": "blocked in vain"})
    )  # fmt: skip
    dangerous = int((wanted > 0).sum())
    method = "cases in English and Russian; the rules were extended by some of them"
    return table, [
        exact("red_cases", "Dangerous habits of the red team", dangerous, n=len(cases), method=method),
        exact("red_missed", "Of them, allowed to somebody they are dangerous for", int(cases["missed"].sum()),
              n=dangerous, method=method),
        exact("red_blocked", "Harmless look-alikes that are blocked", int(cases["blocked"].sum()),
              n=len(cases) - dangerous, method=method),
    ]  # fmt: skip


def proposed(dataset: Dataset, *, days: int, seed: int) -> pd.DataFrame:
    """Messages that a careless app would send: six a day to everybody, at any hour, a third of them about streaks."""
    dataset.require("users.zone")
    users = dataset.users["user_id"].to_numpy(dtype=object)
    generator = np.random.default_rng(seed)
    rows = np.repeat(users, 6 * days)
    start = pd.Timestamp("2026-03-20", tz="UTC")  # clocks are put forward within
    second = generator.integers(0, days * 86_400, len(rows))
    kinds = generator.choice(
        ["reminder", "recommendation", "streak", "streak lost"], len(rows), p=[0.4, 0.26, 0.2, 0.14]
    )
    return pd.DataFrame(
        {
            "user_id": rows,
            "at": start + pd.to_timedelta(second, unit="s"),
            "kind": kinds,
            "streak": np.where(kinds == "streak", generator.integers(2, 60, len(rows)), 0),
            "success": generator.random(len(rows)),
            "engagement": generator.random(len(rows)),
        }
    )


def capped(dataset: Dataset, *, days: int = 28, most: int = 300, seed: int = 0) -> tuple[pd.DataFrame, list[Any]]:
    """What becomes of careless messages: a row a reason, and findings: sent_share, sent_most, sent_at_night, pauses.

    `sent_most`: most messages that anybody gets in a local day; `pauses`: people of the dataset who would be offered
    one on the last day of their sessions.
    """
    people = dataset.replace(users=dataset.users.iloc[:most])
    messages = proposed(people, days=days, seed=seed)
    planned = notifications.plan(messages, people.users)
    sent = planned[planned["allowed"]].merge(people.users[["user_id", "zone"]], on="user_id")
    local = notifications.local_clock(sent["at"], sent["zone"])
    a_day = sent.groupby(["user_id", local.dt.date]).size()
    night = notifications.is_quiet(local, *notifications.QUIET)
    table = planned["reason"].replace("", "sent").value_counts().rename_axis("outcome").reset_index(name="messages")
    table = table.assign(share=table["messages"] / len(planned))
    method = f"{len(people.users)} people, six messages a day for {days} days at any hour; simulated proposals"
    found = [
        exact(
            "sent_share",
            "Of careless messages, sent",
            float(planned["allowed"].mean()),
            n=len(planned),
            method=method,
            unit="share",
        ),
        exact("sent_most", "Most messages to anybody in a day", int(a_day.max()), n=len(sent), method=method),
        exact("sent_at_night", "Sent in quiet hours", int(night.sum()), n=len(sent), method=method),
    ]
    if not dataset.sessions.empty:
        last = dataset.sessions["started_at"].max().date()
        offered = notifications.healthy_pauses(dataset.sessions, dataset.users, last)
        label = "People who would be offered a pause on the last day"
        found.append(
            exact("pauses", label, len(offered), n=len(dataset.users), method="rules on days, minutes and nights")
        )
    return table, found


def verdict(found: Mapping[str, Any]) -> str:
    """Say in one sentence which safeguards held, by the findings that are there; in words for the answer."""

    def value(key: str) -> float:
        item = found[key]
        return float(item["estimate"] if isinstance(item, Mapping) else item.estimate)

    def low(key: str) -> float:
        return float(found[key].ci_low)

    checks = {
        "the privacy promise": ("audit_kept", lambda: value("audit_kept") <= 1.0),
        "the test that catches a broken one": ("audit_broken", lambda: value("audit_broken") > 1.0),
        "hidden groups": ("groups_recovered", lambda: value("groups_recovered") == 0),
        "the floor of variety": ("bubble_below", lambda: value("bubble_below") == 0),
        "the red team's cases": ("red_missed", lambda: value("red_missed") == 0),
        "quiet hours": ("sent_at_night", lambda: value("sent_at_night") == 0),
        "the cap on messages": ("sent_most", lambda: value("sent_most") <= notifications.DAILY),
    }
    held = {name: holds() for name, (key, holds) in checks.items() if key in found}
    failed = [name for name, good in held.items() if not good]
    if not held:
        raise MissingColumn("nothing could be checked")
    if not failed:
        return f"All {len(held)} safeguards that these data can test held."
    return f"Of {len(held)} safeguards {len(failed)} did not hold: {', '.join(failed)}."
