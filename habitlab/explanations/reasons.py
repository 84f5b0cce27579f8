"""From factors to sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from babel.numbers import get_decimal_symbol

from habitlab.dataset.vocabulary import WEEKDAYS, TimeOfDay
from habitlab.explanations.factors import Factor, Outlook, factors, item_effects
from habitlab.explanations.wording import FALLBACK, Language, Word, language, unknown_language

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.models.success import SuccessModel
    from habitlab.recommender.recommendations import Item, Note, Recommendations

RARE, COMMON = 0.05, 0.95


def explain(factors: Sequence[Factor], code: str = FALLBACK) -> list[str]:
    """Return a sentence for each factor, in their order; without any, the one that says so.

    A language without texts gives English ones and a warning.
    """
    return _sentences(factors, language(code))


def _sentences(factors: Sequence[Factor], words: Language) -> list[str]:
    return [_sentence(factor, words) for factor in factors] or [words.say("reason.none")]


def explain_list(recommendations: Recommendations, code: str | None = None) -> Recommendations:
    """Return the list with reasons, names, warnings and headings in a language, by default in its own.

    A place drawn by lot says so before all other reasons. A language without texts gives English ones, and a warning in
    the list as well.
    """
    code = code or recommendations.language
    problem = unknown_language(code)
    words = language(FALLBACK if problem else code)
    items = []
    for item in recommendations.items:
        reasons = _sentences(item_factors(recommendations, item), words)
        name = habit_name(item.habit, words.code) if item.habit else item.name
        by_lot = [words.say("reason.by_lot")] if item.by_lot else []
        items.append(replace(item, name=name, reasons=[*by_lot, *reasons]))
    told = [_say_note(note, recommendations.filtered, words) for note in recommendations.notes]
    told += [problem] if problem else []
    return replace(
        recommendations, items=tuple(items), language=words.code, warnings=tuple(told), words=_headings(words.code)
    )


def _say_note(note: Note, filtered: Mapping[str, int], words: Language) -> str:
    values = dict(note.values)
    if "last" in values:
        values["last"] = words.say(f"filtered.{values['last']}")
    return words.say(f"warning.{note.key}", **values, filtered=say_filtered(filtered, words))


def say_filtered(filtered: Mapping[str, int], words: Language) -> str:
    """Return what each filter left out, in one line; empty where none did."""
    return "; ".join(f"{words.say(f'filtered.{reason}')}: {count}" for reason, count in filtered.items())


@cache
def _headings(code: str) -> dict[str, str]:
    """Headings of a list and names of the parts of a score, by key, and what stands before decimals."""
    words = language(code)
    said = {key: words.say(key) for key in words.messages if key.startswith(("table.", "part."))}
    return said | {"decimal": get_decimal_symbol(words.locale)}


def item_factors(recommendations: Recommendations, item: Item) -> list[Factor]:
    """Return the factors of one item of a list; see `habitlab.explanations.factors`."""
    effect = item_effects(item.contributions, recommendations.neutral)
    if any(note.key == "alone" for note in recommendations.notes):
        effect.pop("similar_people", None)  # there are no other people of whom to say anything
    return factors(
        effect,
        recommendations.person,
        item.habit,
        outlook_of(item),
        has_history=recommendations.has_history,
        compared=recommendations.compared,
    )


def outlook_of(item: Item) -> Outlook | None:
    """Return how likely an item's habit is kept, with its interval; None where the data cannot tell."""
    chance, interval = item.success_probability, item.success_interval
    if chance is None:
        return None
    if interval is not None:
        interval = min(interval[0], chance), max(interval[1], chance)  # equal but for the last bit
    return Outlook(chance, interval)


def as_table(recommendations: Recommendations) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a list that `explain_list` has worded, as texts for a terminal.

    A row holds rank, habit, reasons (a line each), chance to keep it up, and score in points of 100.
    """
    words = language(recommendations.language)
    headings = [words.say(key) for key in ("table.rank", "table.habit", "table.reasons", "table.chance", "table.score")]
    rows = []
    for item in recommendations.items:
        outlook = outlook_of(item)
        said = "" if outlook is None else say_outlook(outlook, words)
        rows.append([str(item.rank), item.name, "\n".join(item.reasons), said, f"{100 * item.score:.0f}"])
    return headings, rows


def success_factors(
    model: SuccessModel, user_id: str, habit_id: str, code: str = FALLBACK, *, most: int = 5
) -> pd.DataFrame:
    """Return what moved the estimate of the success model for one pair, in words, from its SHAP values.

    Columns: `feature` (its name in the model), `meaning` (in words), `log_odds`; the weightiest `most` features by
    falling size, then the rest of them together, then where an average pair stands. They add up to the log-odds that
    the boosted trees give the pair, before calibration. Raises as `SuccessModel.explain` does.
    """
    import pandas as pd

    values = model.explain(user_id, [habit_id])
    words, shown = language(code), values.iloc[0].sort_values(key=lambda v: -v.abs(), kind="stable")
    parts = [*shown[:most].items(), ("rest", shown[most:].sum()), ("base", values.attrs["base"])]
    return pd.DataFrame(
        [(name, words.say(f"feature.{name}"), float(value)) for name, value in parts],
        columns=["feature", "meaning", "log_odds"],
    )


def say_slot(item: Item, code: str = FALLBACK) -> str:
    """Return on which day of the week, and in which part of the day, a habit is best begun."""
    words = language(code)
    weekday = Word("weekday", WEEKDAYS[item.weekday].lower())
    if item.part_of_day in (None, TimeOfDay.ANY):
        return words.say("slot.day", weekday=weekday)
    return words.say("slot.day_and_time", weekday=weekday, time=TimeOfDay(item.part_of_day))


def summarise(habit: str, factors: Sequence[Factor], code: str = FALLBACK) -> str:
    """Return one paragraph on a habit, built by what there is to say: for it, against it, both, or nothing."""
    words = language(code)
    reasons = " ".join(_sentence(factor, words) for factor in factors if factor.effect > 0)
    objections = " ".join(_sentence(factor, words) for factor in factors if factor.effect < 0)
    if reasons and objections:
        return words.say("summary.both", habit=habit, reasons=reasons, objections=objections)
    if objections:
        return words.say("summary.against", habit=habit, reasons=objections)
    return words.say("summary.for", habit=habit, reasons=reasons or words.say("reason.none"))


def say_probability(probability: float, words: Language) -> str:
    """Return a probability as a natural frequency: tenths, and its own words below 0.05 and above 0.95.

    People read "7 in 10" more reliably than "70 %" (Gigerenzer & Hoffrage 1995, doi:10.1037/0033-295X.102.4.684).
    """
    if probability < RARE:
        return _said(words.code, "probability.few")
    if probability > COMMON:
        return _said(words.code, "probability.most")
    tenths = math.floor(10 * probability + 0.5 + 1e-9)
    return _said(words.code, "probability.about", ("n", min(9, max(1, tenths))))


def say_outlook(outlook: Outlook, words: Language) -> str:
    """Return a probability with its interval, which is rounded outwards, to whole tenths."""
    said = say_probability(outlook.probability, words)
    if outlook.interval is None:
        return said
    low, high = math.floor(10 * outlook.interval[0] + 1e-9), math.ceil(10 * outlook.interval[1] - 1e-9)
    return f"{said} ({_said(words.code, 'probability.range', ('low', low), ('high', high))})"


def habit_name(habit: Mapping[str, Any], code: str) -> str:
    """Return a habit's name in this language; one that has none keeps its own, in quotes; at last its id."""
    names = {lang: habit.get(f"name_{lang}") for lang in ("en", "ru")}
    known = {lang: name for lang, name in names.items() if isinstance(name, str) and name}
    if code in known:
        return known[code]
    own = next(iter(known.values()), str(habit["habit_id"]))
    return f"«{own}»" if code == "ru" else f"“{own}”"


def _sentence(factor: Factor, words: Language) -> str:
    facts = factor.facts.items()
    values = ((name, say_outlook(value, words) if isinstance(value, Outlook) else value) for name, value in facts)
    return _said(words.code, factor.message, *((name, tuple(v) if isinstance(v, list) else v) for name, v in values))


@lru_cache(maxsize=8192)
def _said(code: str, message: str, *values: tuple[str, Any]) -> str:
    """Say a message; few of them are different, and most lists say the same."""
    return language(code).say(message, **dict(values))
