"""The card of a model and the datasheet of what it learnt from, written with each version, from its own numbers.

After Mitchell et al. 2019 ("Model cards for model reporting", arXiv:1810.03993) and Gebru et al. 2021 ("Datasheets for
datasets", arXiv:1803.09010). People decide on it: the sign-off at its end is empty until somebody fills it, and a
release can demand it (`require_signature`). Groups of few people are not told of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset.derived import age_band
from habitlab.dataset.schema import TABLES
from habitlab.recommender.guardrails import ADULT, NOBODY, safe_from

if TYPE_CHECKING:
    from habitlab.dataset import Dataset
    from habitlab.recommender.recommend import Recommender

K = 5
MOST_LISTS = 200
"""Lists that are made to be counted."""
FEWEST = 10
"""People below whom a group is not told of."""

_UNCOMPARED = "- No comparison on held-out data was made for this version."
_REVIEWER, _DECISION, _DATE = "Reviewed by", "Decision", "Date"
DECISIONS = ("released", "not released")


def write(
    dataset: Dataset, recommender: Recommender, lineage: Mapping[str, Any], metrics: Mapping[str, float] | None = None
) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    dataset
        What the recommender was fitted on.
    lineage
        Of `habitlab.serving.learning.registry`: hashes, parameters, when it was fitted.
    metrics
        What the comparison before the release found, by name; without it the card says that none was made.
    """
    return "\n".join(
        [*_card(dataset, recommender, lineage, metrics or {}), "", *_sheet(dataset), "", *_signature(), ""]
    )


def compared(card: str, lines: Iterable[str]) -> str:
    """Return a card that tells what the comparison with the live version found, which is made after it was written."""
    return card.replace(_UNCOMPARED, "\n".join(f"- {line}" for line in lines))


def signature(card: str) -> dict[str, str] | None:
    """Return who signed a card, what they decided and when, by the words of the card; None while a line is empty."""
    section = card.partition("## Sign-off")[2]
    found = {}
    for name in (_REVIEWER, _DECISION, _DATE):
        match = re.search(rf"^- {name}:[ \t]*(\S[^\n]*)$", section, flags=re.MULTILINE)
        if match is None:
            return None
        found[name] = match[1].strip()
    return found


def sign(card: str, reviewer: str, decision: str, date: str) -> str:
    """Return a card with its sign-off filled; ValueError if it is signed already, or an answer cannot be taken."""
    if signature(card) is not None:
        raise ValueError("this card is signed already; another decision needs another version")
    if decision not in DECISIONS:
        raise ValueError(f"a decision is {' or '.join(map(repr, DECISIONS))}; got {decision!r}")
    if not reviewer.strip() or "\n" in reviewer or not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise ValueError("a signature needs a name, and a date such as 2026-01-31")
    before, heading, section = card.partition("## Sign-off")
    if not heading:
        raise ValueError("this card has no place to sign")
    for name, value in ((_REVIEWER, reviewer.strip()), (_DECISION, decision), (_DATE, date)):
        line = f"- {name}: {value}".replace("\\", r"\\")
        section = re.sub(rf"^- {name}:.*$", line, section, flags=re.MULTILINE)
    return before + heading + section


def require_signature(card: str) -> None:
    """Raise ValueError unless the card is signed, with the decision to release."""
    signed = signature(card)
    if signed is None:
        raise ValueError("the model card is not signed: somebody has to read it and fill the lines under Sign-off")
    if signed[_DECISION] != DECISIONS[0]:
        raise ValueError(f"the model card is signed by {signed[_REVIEWER]}, with the decision: {signed[_DECISION]}")


def red_team(own: npt.NDArray[np.int64]) -> dict[str, int]:
    """Count the cases of the red team by what the guardrails make of them.

    cases, for nobody, for adults only, harmless, missed (allowed to somebody they are dangerous for), blocked though
    harmless; and of `own`, the ages from which a model's own habits are safe: habits, adults_only, never.
    """
    with (files("habitlab.recommender") / "red_team.csv").open(encoding="utf-8") as file:
        cases = pd.read_csv(file)
    russian = cases["language"] == "ru"
    table = cases[["category", "minutes"]].assign(
        name_en=cases["name"].where(~russian), name_ru=cases["name"].where(russian)
    )
    wanted = cases["dangerous_for"].map({"nobody": NOBODY, "minors": ADULT, "harmless": 0}).to_numpy()
    found = safe_from(table)
    return {
        "cases": len(cases),
        "for nobody": int((wanted == NOBODY).sum()),
        "for adults only": int((wanted == ADULT).sum()),
        "harmless": int((wanted == 0).sum()),
        "missed": int((found < wanted).sum()),
        "blocked though harmless": int((found[wanted == 0] > 0).sum()),
        "habits": len(own),
        "adults_only": int((own == ADULT).sum()),
        "never": int((own == NOBODY).sum()),
    }


def _card(
    dataset: Dataset, recommender: Recommender, lineage: Mapping[str, Any], metrics: Mapping[str, float]
) -> Iterator[str]:
    success = recommender.models_.success
    yield f"# Model card: {lineage.get('version', recommender.version_)}"
    yield ""
    yield f"- Fitted: {lineage.get('fitted_at', 'not told')}; lists version {recommender.version_}"
    for name in ("data", "code", "parameters_hash"):
        yield f"- Hash of {name.removesuffix('_hash')}: {lineage.get(name, 'not told')}"
    if dataset.simulated:
        yield "- **The data are simulated.** Nothing here is about real people."
    yield ""
    yield "## What it is for"
    yield ""
    yield "Suggests everyday habits to people who asked for them, with reasons. It is not for medical, dietary"
    yield "or psychological advice, for deciding anything about a person, for people under 13, or for keeping people in"
    yield "an app."
    yield ""
    yield "## What it is made of"
    yield ""
    weights = {name: value for name, value in asdict(recommender.blend).items() if name != "half"}
    yield f"- Blend: {', '.join(f'{name} {value:g}' for name, value in weights.items())}"
    yield f"- Diversity {recommender.diversity:g}; the last place by lot with probability {recommender.exploration:g}"
    learnt = getattr(success, "counts_", {})
    fallback = getattr(success, "fallback_", "")
    if fallback:
        yield f"- There is no model of the chance to keep a habit: {fallback}"
    elif learnt:
        kept = f"{learnt['successes']:,} of them kept"
        yield f"- Chance to keep a habit: learnt from {learnt['pairs']:,} adoptions, {kept}"
    yield "- Age is a filter of safety and no feature of the chance; gender and barriers are none either"
    yield ""
    yield "## How it does"
    yield ""
    if metrics:
        yield from (f"- {name}: {value:.4g}" for name, value in metrics.items())
    else:
        yield _UNCOMPARED
    yield from _lists(recommender)
    yield ""
    yield "## Harm"
    yield ""
    team = red_team(recommender.candidates_.safe_from)
    blocked = f"{team['blocked though harmless']} harmless ones blocked"
    yield f"- Red team: {team['cases']} cases, {team['missed']} missed; {blocked}"
    yield f"- Of {team['habits']} habits {team['adults_only']} are for adults only, {team['never']} for nobody"
    yield "- Known limits: guardrails read English and Russian words; what is said otherwise they do not see."


def _lists(recommender: Recommender) -> Iterator[str]:
    """Counts over lists that the model makes, of the people it was fitted on."""
    ids = recommender.user_ids_
    if not len(ids):
        return
    chosen = ids[np.linspace(0, len(ids) - 1, min(MOST_LISTS, len(ids))).astype(int)]
    candidates, people = recommender.candidates_, recommender.people_
    place = {habit: number for number, habit in enumerate(candidates.ids.tolist())}
    categories, unsafe, shown = [], 0, set()
    for user, row in zip(chosen, recommender.rows(chosen), strict=True):
        listed = [place[item.habit_id] for item in recommender.recommend(str(user), K).items]
        categories.append(len(set(candidates.category[listed].tolist())))
        age = people.age[row]
        unsafe += int((candidates.safe_from[listed] > (0 if np.isnan(age) else age)).any())
        shown |= set(listed)
    mean, least = np.mean(categories), min(categories)
    yield f"- Lists of {K} for {len(chosen)} people: {mean:.2f} categories on average, {least} at least"
    yield f"- {len(shown)} of {len(candidates)} habits stand on one of them"
    yield f"- {unsafe} lists hold a habit that is unsafe for their age"


def _sheet(dataset: Dataset) -> Iterator[str]:
    yield "# Datasheet"
    yield ""
    yield f"- Source: {dataset.metadata.get('source', 'not told')}"
    yield f"- Simulated: {'yes' if dataset.simulated else 'no'}"
    yield f"- People: {len(dataset.users):,}; habits: {len(dataset.habits):,}"
    tracking = dataset.habit_tracking
    if len(tracking):
        first, last = tracking["date"].min(), tracking["date"].max()
        yield f"- Tracked days: {len(tracking):,}, {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    yield "- Collected for: recommending habits and research on them; why each column is stored: docs/privacy.md"
    yield "- Leaving: `habitlab user export` gives people all their rows, `habitlab user forget` removes them"
    yield ""
    yield "| table | rows | columns never filled |"
    yield "|---|---:|---|"
    for name, spec in TABLES.items():
        frame = dataset.table(name)
        if len(frame):
            empty = [column for column in spec.columns if column not in frame or frame[column].isna().all()]
            yield f"| {name} | {len(frame):,} | {', '.join(empty) or 'none'} |"
    for column, values in _groups(dataset).items():
        yield ""
        yield f"| {column} | people |"
        yield "|---|---:|"
        for group, count in values.items():
            yield f"| {group} | {count} |"


def _groups(dataset: Dataset) -> dict[str, dict[str, str]]:
    """People by gender and age; small groups go together with the next smallest, so that no total gives them away."""
    users, found = dataset.users, {}
    columns = {"gender": users.get("gender"), "age": age_band(users["age"]) if "age" in users else None}
    for name, values in columns.items():
        if values is None or values.isna().all():
            continue
        counts = values.astype(object).where(values.notna(), "not told").value_counts().sort_values(ascending=False)
        small = list(counts.index[counts < FEWEST])
        while small and counts[small].sum() < FEWEST and len(small) < len(counts):
            small.append(counts.drop(small).index[-1])
        if len(small) == 1 and len(counts) > 1:
            small.append(counts.drop(small).index[-1])
        told = {str(group): f"{count:,}" for group, count in counts.drop(small).items()}
        if small:
            told[f"others ({len(small)} groups)"] = (
                f"{counts[small].sum():,}" if counts[small].sum() >= FEWEST else "few"
            )
        found[name] = told
    return found


def _signature() -> Iterator[str]:
    yield "## Sign-off"
    yield ""
    yield "To be filled by somebody who has read all of this and answers for the release. Empty means not reviewed."
    yield ""
    yield f"- {_REVIEWER}:"
    yield f"- {_DECISION}:"
    yield f"- {_DATE}:"
