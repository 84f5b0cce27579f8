"""Every text for people, from one file a language (`locales/en.toml`, `locales/ru.toml`).

A message is a text with places: `"It takes {minutes:accusative}"`. What fills a place brings its own forms from the
same file, so that each language declines as it must: a word is one text, or a table of forms (`name` is the one used
where no form is asked for); a quantity is a table by plural category (Unicode CLDR, through Babel), or such a table for
each form. Another language is another file.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from babel import Locale, UnknownLocaleError
from babel.lists import format_list
from babel.numbers import format_decimal

LOCALES = Path(__file__).parent / "locales"
FALLBACK = "en"

Forms: TypeAlias = str | dict[str, Any]


@dataclass(frozen=True)
class Word:
    """A word of the vocabulary, as `section.key` of the locale files."""

    section: str
    key: str


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, as `quantity.<unit>` of the locale files."""

    unit: str
    amount: float


def word(choice: StrEnum) -> Word:
    """Return the word for a value of the vocabulary: section and key are the names of its class and member."""
    section = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(choice).__name__).lstrip("_")
    return Word(section, choice.name.lower())


@dataclass(frozen=True)
class Language:
    """The messages of one language, by `section.key`."""

    code: str
    locale: Locale
    messages: Mapping[str, Forms]

    def say(self, key: str, **values: Any) -> str:
        """Return the message with its places filled; a message, word or form that is not there is a LookupError."""
        forms = self._forms(key)
        if not isinstance(forms, str):
            return format(_Inflected(f"{self.code}: {key}", forms), "")
        return forms.format_map({name: self._fill(value) for name, value in values.items()})

    def _forms(self, key: str) -> Forms:
        try:
            return self.messages[key]
        except KeyError:
            raise LookupError(f"locales/{self.code}.toml has no `{key}`") from None

    def _fill(self, value: Any) -> Any:
        match value:
            case Word(section, key):
                return _Inflected(f"{self.code}: {section}.{key}", self._forms(f"{section}.{key}"))
            case StrEnum():
                return self._fill(word(value))
            case Quantity(unit, amount):
                plural = self.locale.plural_form(amount)
                number = _number(amount, "#,##0.#", self.locale)
                return _Inflected(f"{self.code}: quantity.{unit}", self._forms(f"quantity.{unit}"), plural, number)
            case str():
                return value
            case int() | float():
                return _number(value, "#,##0.##", self.locale)
            case Sequence():
                return _Several([self._fill(item) for item in value], self.locale)
        raise TypeError(f"no way to say {value!r}")


@lru_cache(maxsize=4096)
def _number(value: float, pattern: str, locale: Locale) -> str:
    return format_decimal(value, pattern, locale=locale)


class _Inflected:
    """Forms of one word or quantity; `{word:form}` in a message asks for one."""

    def __init__(self, name: str, forms: Forms, plural: str = "", number: str = "") -> None:
        self.name, self.forms, self.plural, self.number = name, forms, plural, number

    def __format__(self, form: str) -> str:
        forms = self.forms
        if isinstance(forms, dict) and self.plural not in forms:
            forms = self._pick(forms, form or "name")
        if isinstance(forms, dict):
            forms = self._pick(forms, self.plural)
        return str(forms).format(n=self.number)

    def _pick(self, forms: dict[str, Any], key: str) -> Forms:
        try:
            return forms[key]
        except KeyError:
            raise LookupError(f"{self.name} has no form `{key}`, only {', '.join(forms)}") from None


class _Several:
    def __init__(self, items: list[Any], locale: Locale) -> None:
        self.items, self.locale = items, locale

    def __format__(self, form: str) -> str:
        return format_list([format(item, form) for item in self.items], locale=self.locale)


@cache
def languages(folder: Path = LOCALES) -> tuple[str, ...]:
    """Return the codes of all languages with a file."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def language(code: str, folder: Path = LOCALES) -> Language:
    """Return the messages of a language (`ru`, `ru-RU`); where there are none, the English ones, with a warning."""
    if problem := unknown_language(code, folder):
        warnings.warn(problem, stacklevel=2)
        return _load(FALLBACK, folder)
    return _load(_base(code), folder)


def unknown_language(code: str, folder: Path = LOCALES) -> str:
    """Return the warning about a language without a file; empty where there is one."""
    if _base(code) in languages(folder):
        return ""
    return f"there are no texts in `{code}`, only in {', '.join(languages(folder))}; these are English"


def _base(code: str) -> str:
    return code.replace("_", "-").split("-")[0].lower()


@cache
def _load(code: str, folder: Path) -> Language:
    with (folder / f"{code}.toml").open("rb") as file:
        sections = tomllib.load(file)
    messages = {f"{section}.{key}": forms for section, keys in sections.items() for key, forms in keys.items()}
    try:
        locale = Locale.parse(code)
    except (UnknownLocaleError, ValueError):
        raise ValueError(f"locales/{code}.toml: {code} is no language code with known plural rules") from None
    return Language(code, locale, messages)


def label(key: str, code: str = FALLBACK, **values: Any) -> str:
    """Return one message; see `Language.say`."""
    return language(code).say(key, **values)
