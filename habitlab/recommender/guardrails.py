"""Habits that nobody should be talked into, or nobody but adults: rules on what a habit asks for and on its words.

A rule says from which age a habit may be recommended: `NOBODY` is never. It errs on the side of silence: a habit that
is left out costs one suggestion. The rules read names and descriptions in English and Russian, those of imported habits
too, by the stems of words; numbers count in digits and in words. They are about recommending only: what a person
already does is neither hidden nor judged. The rules on words stand in `guardrails.toml`, the cases that they are tested
on in `red_team.csv`.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

ADULT = 18
NOBODY = 999
EVERYONE = 0

MOST_MINUTES = {"physical": (120, 180), "health": (120, 240), "diet": (120, 240), "mindfulness": (120, 240)}
"""Minutes a day from which a habit of a category is for adults only, and from which it is for nobody, both excluded."""
MOST_MINUTES_ELSEWHERE = (240, 600)


BEFORE, AFTER = 3, 2
"""How many words before and after a match can make it harmless: `wine vinegar`."""

_CLAUSE = re.compile(r"(?!(?<=\d)[.,:](?=\d))[.,:;!?()\n—–]|\s-\s")
_WITHOUT = re.compile(r"\b(?:without|без)\b")
_AND = re.compile(r"\b(?:and|or|nor|и|или)\b")


@dataclass(frozen=True)
class Rule:
    """Words that make a habit unfit below an age, and what excuses them.

    `unless`: words near a match that make it harmless; `negation` (None: nothing negates it), `through` and `after` as
    `guardrails.toml` describes them.
    """

    name: str
    age: int
    words: re.Pattern[str]
    unless: re.Pattern[str] | None = None
    negation: re.Pattern[str] | None = None
    chain: re.Pattern[str] | None = None
    after: re.Pattern[str] | None = None

    def breaks(self, clauses: Sequence[str]) -> bool:
        """Whether a text, as `clauses_of` makes it, falls under this rule: one match that nothing near it excuses."""
        text = " ".join(clauses)
        ends = [0, *accumulate(len(clause) + 1 for clause in clauses)]
        return any(
            not self._excused(
                text[ends[bisect_right(ends, match.start()) - 1] : match.start()],
                match[0],
                text[match.end() : ends[bisect_left(ends, match.end())] - 1],
            )
            for match in self.words.finditer(text)
        )

    def _excused(self, before: str, match: str, after: str) -> bool:
        """Whether the rest of its clause excuses a match."""
        words, rest = before.split(), after.split(" ")  # the first piece of the rest ends the matched word
        near = " ".join([*words[-BEFORE:], match]) + " ".join(rest[: AFTER + 1])
        if self.unless is not None and self.unless.search(near):
            return True
        if self.negation is None or self.chain is None or self.after is None:
            return False
        governing = self.chain.search(before)
        # `never smoke and never vape` is no double negation: of things side by side the last negated one counts.
        beside = [len(self.negation.findall(part)) for part in _AND.split(governing[0])] if governing else []
        negations = next(filter(None, reversed(beside)), 0)
        if governing and _WITHOUT.search(governing[0]) and self.negation.search(before[: governing.start()]):
            negations += 1  # do not leave home without it
        return negations % 2 == 1 or (not negations and bool(self.after.match(" ".join(rest[1:]))))


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules on words, read from `guardrails.toml`."""
    told = tomllib.loads((files("habitlab.recommender") / "guardrails.toml").read_text(encoding="utf-8"))
    ages, pieces = {"nobody": NOBODY, "adult": ADULT}, told["pieces"]

    def either(patterns: list[str]) -> str:
        whole = "|".join(patterns)
        for name, piece in pieces.items():
            whole = whole.replace(f"<{name}>", piece)
        return whole

    def read(rule: dict[str, Any]) -> Rule:
        words, excuses = either(rule["words"]), {}
        if "unless" in rule:
            excuses["unless"] = either(rule["unless"])
        if rule.get("negatable"):
            # A negation reaches over another thing that the rule is about: do not smoke or vape.
            links = rf"{pieces['negation']}|{pieces['through']}|(?:{words})\w*(?: (?:and|or|nor|и|или)\b)?"
            excuses |= {"negation": pieces["negation"], "chain": rf"(?:(?:{links}) )+$", "after": pieces["after"]}
        patterns = {name: re.compile(rf"\b(?:{pattern})") for name, pattern in excuses.items()}
        return Rule(rule["name"], ages[rule["age"]], re.compile(rf"\b(?:{words})"), **patterns)

    return tuple(read(rule) for rule in told["rules"])


_NUMBERS = {
    r"zero": 0, r"one": 1, r"two": 2, r"three": 3, r"four": 4, r"five": 5, r"six": 6, r"seven": 7, r"eight": 8,
    r"nine": 9, r"ten": 10, r"eleven": 11, r"twelve": 12, r"fourteen": 14, r"sixteen": 16, r"eighteen": 18,
    r"twenty": 20, r"thirty": 30, r"forty": 40, r"fifty": 50, r"sixty": 60, r"ninety": 90,
    r"од(?:ин|на|но|ну|ной|ного)": 1, r"дв(?:а|е|ух)": 2, r"тр(?:и|ех)": 3, r"четыр(?:е|ех)": 4,
    r"пят(?:ь|и)": 5, r"шест(?:ь|и)": 6, r"сем(?:ь|и)": 7, r"вос(?:емь|ьми)": 8, r"девят(?:ь|и)": 9,
    r"десят(?:ь|и)": 10, r"двенадцат(?:ь|и)": 12, r"четырнадцат(?:ь|и)": 14, r"шестнадцат(?:ь|и)": 16,
    r"двадцат(?:ь|и)": 20, r"тридцат(?:ь|и)": 30, r"сорок(?:а)?": 40, r"сто": 100, r"тысяч(?:у|а)": 1000,
}  # fmt: skip


def _replace_numbers() -> Callable[[str], str]:
    pattern = re.compile(r"\b(?:" + "|".join(f"({word})" for word in _NUMBERS) + r")\b")
    values = [str(value) for value in _NUMBERS.values()]
    return lambda text: pattern.sub(lambda found: values[(found.lastindex or 1) - 1], text)


_digits = _replace_numbers()


def plain(text: str) -> str:
    """Return a text as the rules read it: folded, without punctuation, `ё` as `е`, numbers in digits.

    >>> plain("Fast for Seven days — 1,000 kcal!")
    'fast for 7 days 1000 kcal'
    """
    folded = text.casefold().replace("ё", "е")
    folded = re.sub(r"(?<=\d)[ ,. ](?=\d{3}\b)", "", folded)
    folded = re.sub(r"(?<=\d)[,.](?=\d)", ".", folded)
    folded = re.sub(r"(?<=\d)\s*(?=(?:h|hrs?|km|kg|kcal|l|min|ч|км|кг|ккал|л|мин)\b)", " ", folded)
    folded = re.sub(r"(?!(?<=\d)[:/.](?=\d))[\W_]+", " ", folded).strip()
    return _digits(folded)


def clauses_of(text: str) -> list[str]:
    """Return the clauses of a text, each as `plain` makes it: no negation reaches out of its own.

    >>> clauses_of("No pain, no gain: 1,000 squats")
    ['no pain', 'no gain', '1000 squats']
    """
    return [read for clause in _CLAUSE.split(text) if (read := plain(clause))]


def broken_rules(text: str) -> dict[str, int]:
    """Return the rules that a text breaks, and from which age each allows it (`NOBODY`: never)."""
    clauses = clauses_of(text)
    read = " ".join(clauses)
    broken: dict[str, int] = {}
    for rule in rules():
        if rule.breaks(clauses):
            broken[rule.name] = max(rule.age, broken.get(rule.name, 0))
    number = re.search(r"(?:^| )(\d+(?:\.\d+)?) ?(?:k?cal|calorie|ккал|калори)", read)
    if "calories" in broken and number and float(number[1]) < 1400:
        broken["calories"] = NOBODY
    return broken


def safe_from(habits: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Age from which each habit may be recommended (habits,): 0 to everybody, 18 to adults, `NOBODY` never.

    Names, descriptions and measured targets count as words, each alone; category and minutes as structure. Columns may
    be absent. The habit's own age limits are another matter: see `habitlab.recommender.context`.
    """
    ages = np.zeros(len(habits), dtype=np.int64)
    for column in ("name_en", "name_ru", "description_en", "description_ru"):
        if column in habits:
            for row, text in enumerate(habits[column]):
                if isinstance(text, str):
                    ages[row] = max(ages[row], *broken_rules(text).values(), 0)
    if {"unit", "target_value"} <= set(habits.columns):
        named = habits["name_en"].fillna("") if "name_en" in habits else [""] * len(habits)
        for row, (name, unit, value) in enumerate(zip(named, habits["unit"], habits["target_value"], strict=True)):
            if isinstance(unit, str) and value == value:
                texts = (f"{name} {value:.0f} {unit}", f"{value:.0f} {unit} {name}")
                ages[row] = max(ages[row], *(age for text in texts for age in broken_rules(text).values()), 0)
                if plain(unit) in ("kg", "lb", "lbs", "кг", "pounds") and "weight" in plain(f"{name}"):
                    ages[row] = max(ages[row], ADULT)
    if "minutes" in habits:
        minutes = habits["minutes"].to_numpy(dtype=float, na_value=np.nan)
        category = habits["category"].astype(object) if "category" in habits else [None] * len(habits)
        limits = np.array([MOST_MINUTES.get(str(name), MOST_MINUTES_ELSEWHERE) for name in category]).reshape(-1, 2)
        ages[minutes > limits[:, 0]] = np.maximum(ages[minutes > limits[:, 0]], ADULT)
        ages[minutes > limits[:, 1]] = NOBODY
    return ages
