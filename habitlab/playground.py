"""A registration form beside the list of habits it leads to, for JupyterLab: answers change, the list changes.

The form is made from the contract and the locale files; nothing in it is answered beforehand. What it collects goes
through the same `Registration` as a JSON file does.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from babel.numbers import format_decimal

from habitlab.dataset.registration import Registration, RegistrationError
from habitlab.dataset.schema import TABLES
from habitlab.dataset.vocabulary import Purpose
from habitlab.explanations.reasons import explain_list, habit_name, item_factors, outlook_of, say_filtered, say_outlook
from habitlab.explanations.wording import FALLBACK, Language, Quantity, language, languages, word

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.dataset import Dataset
    from habitlab.recommender.recommendations import Item, Recommendations

ORDER = (
    "age",
    "improvement_areas",
    "activity_preferences",
    "time_commitment",
    "preferred_time",
    "difficulty_preference",
    "existing_habits",
    "chronotype",
    "goal_set",
    "learning_style",
    "gender",
    "zone",
    "barriers",
    "consents",
)
"""The questions in the order of the form: those that change the list most come first."""


def playground(
    dataset: Dataset, *, answers: Mapping[str, Any] | Registration | None = None, code: str = FALLBACK, k: int = 5
) -> Playground:
    """Return the form and its live list for the habits of a dataset; the last line of a notebook cell shows it.

    `answers` fills the form at the start, as `Registration.from_json(path)` reads them; `code` is the language.
    """
    from habitlab.recommender.candidates import with_catalogue
    from habitlab.recommender.fitted import fitted

    recommend = partial(fitted(dataset).recommend, k=k)
    return Playground(with_catalogue(dataset).habits, recommend, answers=answers, code=code)


class Playground(widgets.VBox):
    """The form and the list; `record` and `recommendations` are those of the last answers that could be taken."""

    def __init__(
        self,
        habits: pd.DataFrame,
        recommend: Callable[[Registration], Recommendations],
        *,
        answers: Mapping[str, Any] | Registration | None = None,
        code: str = FALLBACK,
    ) -> None:
        """`habits` can be named as habits one has; `recommend` turns a record into a list."""
        rows = habits.to_dict("records")
        self._recommend = recommend
        self._quiet = True
        self.words = language(code)
        self.record = Registration()
        self.recommendations: Recommendations | None = None
        self.fields = {name: _Field(name, rows) for name in ORDER}
        self.switch = widgets.ToggleButtons(
            options=[(language(one).say("language.name"), one) for one in languages()],
            value=self.words.code,
            style={"button_width": "8em"},
        )
        self.shown, self.json = widgets.HTML(), widgets.HTML()
        for field in self.fields.values():
            for control in field.controls:
                control.observe(self._answered, names="value")
        self.switch.observe(self._switched, names="value")
        self.title = widgets.HTML()
        form = widgets.VBox([self.title, *(field.box for field in self.fields.values())])
        form.add_class("habitlab-form")
        shown = widgets.VBox([self.shown, self.json])
        shown.add_class("habitlab-shown")
        both = widgets.Box([form, shown])
        both.add_class("habitlab-both")
        super().__init__([widgets.HTML(_STYLE), self.switch, both])
        self.add_class("habitlab-playground")
        self._relabel()
        self.fill(answers or {})

    def fill(self, answers: Mapping[str, Any] | Registration) -> None:
        """Put answers in place of those in the form; what is not named is not answered. Raises RegistrationError."""
        record = answers if isinstance(answers, Registration) else Registration.of(answers)
        told = record.model_dump(mode="json")
        self._quiet = True
        for name, field in self.fields.items():
            field.write(told[name], self.words)
        self._quiet = False
        self._answered()

    def answers(self) -> dict[str, Any]:
        """Return what is answered, as a JSON file would hold it."""
        told = {name: field.read() for name, field in self.fields.items()}
        return {name: answer for name, answer in told.items() if answer is not None}

    def _switched(self, change: Any) -> None:
        self.words = language(change["new"])
        self._relabel()
        self._answered()

    def _relabel(self) -> None:
        self._quiet = True
        self.title.value = f"<h2>{html.escape(self.words.say('form.title'))}</h2>"
        for field in self.fields.values():
            field.relabel(self.words)
        self._quiet = False

    def _answered(self, _: Any = None) -> None:
        if self._quiet:
            return
        problems: dict[str, str] = {}
        try:
            self.record = Registration.of(self.answers())
            self.recommendations = self._recommend(self.record)
        except RegistrationError as error:
            problems = {p.field: self.words.say(f"problem.{p.kind}", **p.values) for p in error.problems}
        if self.recommendations is not None:
            self.recommendations = explain_list(self.recommendations, self.words.code)
        for name, field in self.fields.items():
            field.complain(problems.get(name, ""))
        self.shown.value = list_html(self.recommendations, self.words, stale=bool(problems))
        title, text = self.words.say("playground.record"), html.escape(self.record.to_json())
        self.json.value = f"<details><summary>{title}</summary><pre>{text}</pre></details>"


_UNANSWERED = ""  # a choice of its own: a Dropdown shows nothing at all for None


class _Field:
    """One question: what shows it, and the way between what is shown and the plain answer, None where there is none."""

    def __init__(self, name: str, habits: Sequence[Mapping[str, Any]]) -> None:
        self.name, self._habits = name, habits
        self.choices = _choices(name)
        self.label, self.problem = widgets.HTML(), widgets.HTML()
        self.controls: list[Any]
        match self.kind:
            case "many":
                self.controls = [widgets.ToggleButton() for _ in self.choices]
            case "consents":
                self.controls = [widgets.Dropdown() for _ in self.choices]
            case "one" | "truth":
                self.controls = [widgets.Dropdown(description_allow_html=True)]
            case "habits":
                # Those that the data know are suggested, any other can be typed.
                self.controls = [widgets.TagsInput(allow_duplicates=False)]
                self.adder = widgets.Combobox(ensure_option=False, continuous_update=False, description_allow_html=True)
                self.adder.observe(self._add, names="value")
            case "long":
                self.controls = [widgets.Textarea(rows=2, description_allow_html=True)]
            case _:
                self.controls = [widgets.Text(description_allow_html=True)]
        held = widgets.Box([self.adder, *self.controls] if self.kind == "habits" else self.controls)
        held.add_class(f"habitlab-{self.kind}")
        self.box = widgets.VBox([self.label, held, self.problem])
        self.box.add_class("habitlab-field")

    @property
    def kind(self) -> str:
        if self.name == "consents":
            return "consents"
        column = TABLES["users"].columns[self.name]
        match column.kind:
            case "list":
                return "many" if self.choices else "habits"
            case "choice":
                return "one"
            case "whole" | "number":
                return "number"
            case "text" if column.longest:
                return "long"
        return column.kind

    def relabel(self, words: Language) -> None:
        """Say label, help and choices in a language; the answer stays."""
        answer = self.read()
        label, hint = words.say(f"form.{self.name}"), words.say(f"help.{self.name}")
        heading = f"<b>{html.escape(label)}</b> <span class='habitlab-hint'>{html.escape(hint)}</span>"
        if self.kind in ("many", "consents"):
            self.label.value = heading
        elif self.kind != "habits":
            self.controls[0].description = heading  # a label that screen readers know to belong to the control
        unanswered = (words.say("choice.unanswered"), _UNANSWERED)
        yes_no = [unanswered, (words.say("choice.yes"), True), (words.say("choice.no"), False)]
        said = [words.say(f"{word(choice).section}.{word(choice).key}") for choice in self.choices]
        for number, control in enumerate(self.controls):
            control.tooltip = label
            match self.kind:
                case "many":
                    control.description = said[number]
                case "consents":
                    control.options, control.description = yes_no, said[number]
                case "one":
                    control.options = [unanswered, *zip(said, [c.value for c in self.choices], strict=True)]
                case "truth":
                    control.options = yes_no
                case "habits":
                    self.adder.options = sorted(self._names(words).values())
                    self.adder.description, self.adder.placeholder = heading, unanswered[0]
                case _:
                    control.placeholder = unanswered[0]
        self.write(answer, words)

    def read(self) -> Any:
        first = self.controls[0].value
        match self.kind:
            case "many":
                pressed = zip(self.choices, self.controls, strict=True)
                return [choice.value for choice, control in pressed if control.value] or None
            case "consents":
                chosen = {p.value: c.value for p, c in zip(self.choices, self.controls, strict=True)}
                return {purpose: answer for purpose, answer in chosen.items() if answer != _UNANSWERED} or None
            case "habits":
                return [self._ids.get(name, name) for name in first] or None
            case "number":
                return _number(first)
            case "one" | "truth":
                return None if first == _UNANSWERED else first
        return first.strip() or None

    def write(self, answer: Any, words: Language) -> None:
        """Show an answer, or none."""
        match self.kind:
            case "many":
                for choice, control in zip(self.choices, self.controls, strict=True):
                    control.value = choice.value in (answer or [])
            case "consents":
                for purpose, control in zip(self.choices, self.controls, strict=True):
                    control.value = (answer or {}).get(purpose.value, _UNANSWERED)
            case "habits":
                names = self._names(words)
                self._ids = {name: habit_id for habit_id, name in names.items()}
                self.controls[0].value = [names.get(one, one) for one in answer or []]
            case "one" | "truth":
                self.controls[0].value = _UNANSWERED if answer is None else answer
            case "number" if isinstance(answer, float) and answer.is_integer():
                self.controls[0].value = str(int(answer))
            case _:
                self.controls[0].value = "" if answer is None else str(answer)

    def _add(self, change: Any) -> None:
        tags, named = self.controls[0], change["new"].strip()
        if named:
            self.adder.value = ""
            tags.value = [*tags.value, *([named] if named not in tags.value else [])]

    def complain(self, problem: str) -> None:
        """Say beside the field what is wrong with its answer, or nothing."""
        self.problem.value = f"<span role='alert' class='habitlab-problem'>⚠ {html.escape(problem)}</span>" * bool(
            problem
        )

    def _names(self, words: Language) -> dict[str, str]:
        return {habit["habit_id"]: habit_name(habit, words.code) for habit in self._habits}


def _choices(name: str) -> list[StrEnum]:
    return list(Purpose if name == "consents" else TABLES["users"].columns[name].choices or [])


def _number(text: str) -> int | float | str | None:
    """Return the number that is typed, with a point or a comma; what is none stays a text, for the record to refuse."""
    text = text.strip().replace(",", ".")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def list_html(recommendations: Recommendations | None, words: Language, *, stale: bool = False) -> str:
    """Return the list as HTML: name, chance, reasons for and against, and what the score is made of."""
    title = f"<h2>{html.escape(words.say('playground.list'))}</h2>"
    if stale:
        title += f"<p class='habitlab-stale'>{html.escape(words.say('playground.correct'))}</p>"
    if recommendations is None:
        return title
    cards = "".join(_card(recommendations, item, words) for item in recommendations.items)
    if not cards:
        cards = f"<p>{html.escape(words.say('playground.empty'))}</p>"
    left_out = html.escape(say_filtered(recommendations.filtered, words))
    told = "".join(f"<p class='habitlab-hint'>{html.escape(warning)}</p>" for warning in recommendations.warnings)
    notes = f"<p class='habitlab-hint'>{html.escape(words.say('playground.left_out'))} {left_out}</p>" * bool(left_out)
    legend = f"<p class='habitlab-hint'>{html.escape(words.say('playground.legend'))}</p>" * bool(recommendations.items)
    return f"<div class='habitlab-list' aria-live='polite'>{title}{told}<ol>{cards}</ol>{legend}{notes}</div>"


def _card(recommendations: Recommendations, item: Item, words: Language) -> str:
    facts = []
    if (minutes := item.habit.get("minutes")) is not None:
        facts.append(words.say("playground.takes", minutes=Quantity("minutes", minutes)))
    factors = item_factors(recommendations, item)
    outlook = outlook_of(item)
    if outlook is not None and all(factor.part != "success" for factor in factors):
        facts.append(words.say("playground.chance", outlook=say_outlook(outlook, words)))
    signs = [("▲", "for") if factor.effect > 0 else ("▼", "against") for factor in factors] or [("•", "for")]
    signs = [("•", "for")] * item.by_lot + signs
    reasons = "".join(
        f"<li class='habitlab-{side}'><span aria-label='{html.escape(words.say(f'playground.{side}'))}'>{sign}</span>"
        f"<div>{html.escape(reason)}</div></li>"
        for (sign, side), reason in zip(signs, item.reasons, strict=True)
    )
    return (
        f"<li class='habitlab-card'><div><div class='habitlab-name'>{item.rank}. {html.escape(item.name)}</div>"
        f"<div class='habitlab-facts'>{html.escape(' · '.join(facts))}</div><ul>{reasons}</ul></div>"
        f"{_bars(recommendations, item, words)}</li>"
    )


_LABEL, _WIDTH, _ROW, _NUMBER = 140, 110, 15, 40  # pixels


def _bars(recommendations: Recommendations, item: Item, words: Language) -> str:
    """Bars of the parts of a score, in one order for all habits, with a mark where an average habit stands."""
    parts = [part for part, average in recommendations.neutral.items() if average or item.contributions[part]]
    every = [recommendations.neutral, *(one.contributions for one in recommendations.items)]
    longest = max((abs(value) for values in every for value in values.values()), default=0.0) or 1.0
    rows = []
    for number, part in enumerate(parts):
        value, average = item.contributions[part], recommendations.neutral[part]
        top, length = number * _ROW, abs(value) / longest * _WIDTH
        mark = _LABEL + abs(average) / longest * _WIDTH
        rows.append(
            f"<text x='{_LABEL - 6}' y='{top + 11}' text-anchor='end'>{html.escape(words.say(f'part.{part}'))}</text>"
            f"<rect x='{_LABEL}' y='{top + 3}' width='{length:.1f}' height='9' "
            f"class='habitlab-{'less' if value < 0 else 'more'}'/>"
            f"<path d='M{mark:.1f} {top + 1}v13' class='habitlab-mark'/>"
            f"<text x='{_LABEL + _WIDTH + _NUMBER}' y='{top + 11}' text-anchor='end'>"
            f"{html.escape(_points(value, words))}</text>"
        )
    bottom = len(parts) * _ROW
    rows.append(
        f"<text x='{_LABEL - 6}' y='{bottom + 13}' text-anchor='end' class='habitlab-sum'>"
        f"{html.escape(words.say('table.score'))}</text>"
        f"<text x='{_LABEL + _WIDTH + _NUMBER}' y='{bottom + 13}' text-anchor='end' class='habitlab-sum'>"
        f"{html.escape(_points(item.score, words))}</text>"
    )
    told = ", ".join(f"{words.say(f'part.{part}')} {_points(item.contributions[part], words)}" for part in parts)
    said = words.say("playground.bars", habit=item.name, parts=told)
    width, height = _LABEL + _WIDTH + _NUMBER, bottom + 18
    return f"<svg role='img' aria-label='{html.escape(said)}' width='{width}' height='{height}'>{''.join(rows)}</svg>"


def _points(value: float, words: Language) -> str:
    """Return a part of a score in hundredths of the scale."""
    return format_decimal(round(100 * value, 1) + 0.0, "0.0", locale=words.locale)


_STYLE = """<style>
.habitlab-playground { color: var(--jp-ui-font-color1, #1b2229); }
.habitlab-both { display: flex; flex-flow: row wrap; gap: 24px; align-items: flex-start; }
.habitlab-form { flex: 1 1 300px; max-width: 380px; overflow: visible; }
.habitlab-shown { flex: 3 1 420px; overflow: visible; }
.habitlab-playground .widget-html-content { line-height: 1.4; white-space: normal; }
.habitlab-field { margin: 0 0 8px; overflow: visible; }
.habitlab-field .widget-html { margin: 0; }
.habitlab-field > .widget-box { flex-flow: row wrap; overflow: visible; }
.habitlab-many .widget-toggle-button { width: auto; padding: 0 10px; margin: 2px 4px 2px 0; border-radius: 14px; }
.habitlab-many .widget-toggle-button.mod-active { background: #0072b2; color: #fff; }
.habitlab-one > *, .habitlab-truth > *, .habitlab-text > *, .habitlab-long > *, .habitlab-number > *,
.habitlab-habits > :first-child { flex-direction: column; align-items: stretch; width: 100%; height: auto; }
.habitlab-playground .habitlab-field .widget-label { width: auto; height: auto; text-align: left; white-space: normal;
  line-height: 1.4; }
.habitlab-one select, .habitlab-truth select, .habitlab-text input, .habitlab-number input,
.habitlab-habits input { flex: none; height: 28px; }
.habitlab-number input { max-width: 8em; }
.habitlab-habits .jupyter-widget-taginput { display: none; }
.habitlab-consents > .widget-dropdown { width: 100%; height: auto; align-items: center; }
.habitlab-consents .widget-dropdown .widget-label { flex: 1; }
.habitlab-consents select { flex: none; width: 9em; }
.habitlab-hint { color: var(--jp-ui-font-color2, #57616b); font-size: 12px; font-weight: normal; }
.habitlab-problem, .habitlab-stale { color: #b04a00; font-weight: 600; }
[data-jp-theme-light=false] .habitlab-problem,
[data-jp-theme-light=false] .habitlab-stale { color: #f08747; }
.habitlab-playground h2 { margin: 0 0 8px; font-size: 18px; }
.habitlab-list ol { list-style: none; margin: 0; padding: 0; }
.habitlab-list ul { list-style: none; margin: 6px 0 0; padding: 0; }
.habitlab-list ul li { display: flex; margin: 2px 0; }
.habitlab-list ul li span { flex: none; width: 1.4em; }
.habitlab-for span { color: #0072b2; } .habitlab-against span { color: #d55e00; }
.habitlab-card { display: flex; flex-wrap: wrap; gap: 8px 20px; justify-content: space-between; padding: 10px 12px;
  margin: 0 0 10px; border: 1px solid var(--jp-border-color2, #d9dee3); border-radius: 8px; }
.habitlab-card > div { flex: 1 1 300px; }
.habitlab-name { font-size: 15px; font-weight: 600; }
.habitlab-facts { color: var(--jp-ui-font-color2, #57616b); }
.habitlab-card svg { flex: none; font-size: 11px; }
.habitlab-card svg text { fill: var(--jp-ui-font-color1, #1b2229); }
.habitlab-card svg .habitlab-sum { font-weight: 600; }
.habitlab-more { fill: #0072b2; } .habitlab-less { fill: #d55e00; }
[data-jp-theme-light=false] .habitlab-more { fill: #56a8dc; }
[data-jp-theme-light=false] .habitlab-less { fill: #f08747; }
[data-jp-theme-light=false] .habitlab-for span { color: #56a8dc; }
[data-jp-theme-light=false] .habitlab-against span { color: #f08747; }
.habitlab-mark { stroke: var(--jp-ui-font-color1, #1b2229); stroke-width: 1.5; }
</style>"""
