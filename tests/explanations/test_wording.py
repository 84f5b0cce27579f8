"""What people read: requirements 5.2.a, 5.2.c, 5.2.d and 1.1.1.g; pitfalls D77, D81, D82."""

import re
import string
import tomllib
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habitlab.dataset.registration import _SAYS, Registration, choices
from habitlab.dataset.schema import TABLES
from habitlab.dataset.vocabulary import (
    WEEKDAYS,
    Activity,
    Category,
    Chronotype,
    Gender,
    LearningStyle,
    Level,
    Purpose,
    TimeOfDay,
)
from habitlab.explanations import wording
from habitlab.explanations.factors import STATEMENTS, Factor, Outlook
from habitlab.explanations.reasons import explain, habit_name, say_outlook, say_probability, say_slot, summarise
from habitlab.explanations.wording import LOCALES, Language, Quantity, Word, label, language, languages, word
from habitlab.models.pairs import FEATURES
from habitlab.recommender.context import REASONS
from habitlab.recommender.recommendations import Item
from tests.conftest import ROOT

EN, RU = language("en"), language("ru")
VOCABULARY = (Category, Activity, Gender, TimeOfDay, Chronotype, LearningStyle, Level, Purpose)


def factor(message: str, **values: object) -> Factor:
    part, _, statement = message.rpartition("_")
    return Factor(part, 0.1, statement, values)


def reason(code: str, part: str, statement: str, **values: object) -> str:
    return explain([Factor(part, 0.1, statement, values)], code)[0]


# Golden texts


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (1, "Занимает 1 минуту, а у вас есть 1 минута в день."),
        (2, "Занимает 2 минуты, а у вас есть 2 минуты в день."),
        (5, "Занимает 5 минут, а у вас есть 5 минут в день."),
        (7.5, "Занимает 7,5 минуты, а у вас есть 7,5 минуты в день."),
        (11, "Занимает 11 минут, а у вас есть 11 минут в день."),
        (21, "Занимает 21 минуту, а у вас есть 21 минута в день."),
        (22, "Занимает 22 минуты, а у вас есть 22 минуты в день."),
        (111, "Занимает 111 минут, а у вас есть 111 минут в день."),
        (1440, "Занимает 1\xa0440 минут, а у вас есть 1\xa0440 минут в день."),
    ],
)
def test_5_2_a_russian_minutes_have_the_number_and_case_of_their_place(minutes: float, said: str) -> None:
    amount = Quantity("minutes", minutes)
    assert reason("ru", "time", "fits", minutes=amount, budget=amount) == said


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (1, "из ваших 1 минуты в день"),
        (2, "из ваших 2 минут в день"),
        (5, "из ваших 5 минут в день"),
        (21, "из ваших 21 минуты в день"),
        (22, "из ваших 22 минут в день"),
    ],
)
def test_5_2_a_russian_minutes_in_the_genitive(minutes: int, said: str) -> None:
    values = {"minutes": Quantity("minutes", 1), "budget": Quantity("minutes", minutes)}
    assert said in reason("ru", "time", "short", **values)


@pytest.mark.parametrize(("minutes", "said"), [(1, "1 minute;"), (2, "2 minutes;"), (21, "21 minutes;"), (7.5, "7.5")])
def test_5_2_a_english_minutes(minutes: float, said: str) -> None:
    amount = Quantity("minutes", minutes)
    assert f"It takes {said}" in reason("en", "time", "fits", minutes=amount, budget=amount)


def test_5_2_a_every_category_in_the_case_of_its_place() -> None:
    said = [reason("ru", "category", "match", category=category) for category in Category]
    assert said == [
        f"Вы хотите заняться {name}."
        for name in (
            "здоровьем",
            "питанием",
            "физической формой",
            "осознанностью",
            "продуктивностью",
            "учёбой",
            "отношениями",
            "карьерой",
            "финансами",
        )
    ]
    genitive = [reason("ru", "category", "mismatch", category=category) for category in Category]
    assert genitive[:3] == [
        f"Среди того, что вы хотите улучшить, нет {name}." for name in ("здоровья", "питания", "физической формы")
    ]


@pytest.mark.parametrize(
    ("code", "part", "statement", "values", "said"),
    [
        ("en", "category", "match", {"category": Category.DIET}, "You want to improve your diet."),
        ("en", "time_of_day", "match", {"time": TimeOfDay.EVENING, "preferred": TimeOfDay.EVENING},
         "It fits the evening, the time you prefer."),
        ("ru", "time_of_day", "mismatch", {"time": TimeOfDay.MORNING, "preferred": TimeOfDay.EVENING},
         "Её делают утром, а вам удобнее вечером."),
        ("en", "difficulty", "harder", {"difficulty": 4, "level": Level.BEGINNER},
         "Its difficulty, 4 of 5, is above what you asked for: habits for a beginner."),
        ("ru", "difficulty", "harder", {"difficulty": 4, "level": Level.BEGINNER},
         "Сложность 4 из 5 выше той, о которой вы просили: начальная."),
        ("en", "preference", "match", {"activities": [Activity.PHYSICAL, Activity.SOCIAL]},
         "You like physical and social activities, and this is one."),
        ("ru", "preference", "match", {"activities": [Activity.PHYSICAL, Activity.MENTAL, Activity.SOCIAL]},
         "Вам нравятся физические, умственные и социальные занятия, а это одно из них."),
        ("en", "success", "higher", {"outlook": Outlook(0.7, (0.62, 0.77))},
         "Chance that you keep it up: about 7 in 10 (between 6 and 8 in 10), better than for other habits on average."),
        ("ru", "success", "lower", {"outlook": Outlook(0.04, (0.01, 0.1))},
         "Вероятность, что она у вас закрепится: меньше 1 из 20 (от 0 до 1 из 10) — ниже, чем у других привычек в "
         "среднем."),
        ("en", "age", "old", {"limit": Quantity("years", 65)}, "It is mostly for people up to 65 years of age."),
        ("ru", "age", "young", {"limit": Quantity("years", 21)}, "Обычно она подходит людям от 21 года."),
        ("ru", "age", "old", {"limit": Quantity("years", 65)}, "Обычно она подходит людям до 65 лет."),
    ],
)  # fmt: skip
def test_5_2_a_golden_texts(code: str, part: str, statement: str, values: dict, said: str) -> None:
    assert reason(code, part, statement, **values) == said


# The wording of probabilities


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "fewer than 1 in 20"),
        (0.049, "fewer than 1 in 20"),
        (0.05, "about 1 in 10"),
        (0.149, "about 1 in 10"),
        (0.15, "about 2 in 10"),
        (0.649, "about 6 in 10"),
        (0.65, "about 7 in 10"),
        (0.7, "about 7 in 10"),
        (0.749, "about 7 in 10"),
        (0.75, "about 8 in 10"),
        (0.85, "about 9 in 10"),
        (0.95, "about 9 in 10"),
        (0.951, "more than 19 in 20"),
        (1.0, "more than 19 in 20"),
    ],
)
def test_5_2_c_a_probability_is_said_in_tenths(probability: float, said: str) -> None:
    assert say_probability(probability, EN) == said


@given(st.floats(0, 1))
def test_5_2_c_what_is_said_of_a_probability_is_near_it(probability: float) -> None:
    said = say_probability(probability, EN)
    assert said == say_probability(probability, RU).replace("примерно", "about").replace(" из ", " in ").replace(
        "меньше", "fewer than"
    ).replace("больше", "more than")
    number, of = (int(n) for n in re.findall(r"\d+", said))
    close = probability < 1 / 20 if "fewer" in said else probability > 19 / 20
    assert close if of == 20 else abs(number / of - probability) <= 0.05 + 1e-9


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted))
def test_5_2_c_the_interval_said_holds_the_interval(ends: list[float]) -> None:
    low, probability, high = ends
    said = say_outlook(Outlook(probability, (low, high)), EN)
    first, last = (int(n) / 10 for n in re.findall(r"between (\d+) and (\d+) in 10", said)[0])
    assert first <= low + 1e-9
    assert high <= last + 1e-9
    assert 0 <= first <= last <= 1


@pytest.mark.parametrize("ends", [(0.6, 0.5, 0.4), (0.3, 0.2, 1.2), (0.5, float("nan"), 0.6)])
def test_5_2_c_an_impossible_interval_is_refused(ends: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low <= probability <= high"):
        Outlook(ends[1], (ends[0], ends[2]))


# The structure follows what there is to say


def test_5_2_d_a_summary_is_built_by_what_there_is_to_say() -> None:
    good = Factor("category", 0.2, "match", {"category": Category.DIET})
    bad = Factor("text", -0.1, "farther", {})
    assert summarise("Eat fruit", [good]) == "Why Eat fruit: You want to improve your diet."
    assert summarise("Eat fruit", [bad]).startswith("Eat fruit is here although some things speak against it: ")
    both = summarise("Eat fruit", [bad, good])
    assert both.index("You want") < both.index("What speaks against it: Its description")
    assert "Nothing sets it apart" in summarise("Eat fruit", [])
    assert explain([]) == ["Nothing sets it apart: for you it is much like an average habit."]


# Languages


def keys(code: str, folder: Path = LOCALES) -> set[str]:
    return set(language(code, folder).messages)


def test_there_are_english_and_russian() -> None:
    assert {"en", "ru"} <= set(languages())


@pytest.mark.parametrize("code", languages())
def test_1_1_1_g_every_language_has_the_same_keys_and_places(code: str) -> None:
    assert keys(code) == keys("en")
    for key, forms in language(code).messages.items():
        english = EN.messages[key]
        if isinstance(english, str) and isinstance(forms, str):
            assert places(forms) == places(english), key


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def words_of_the_vocabulary() -> set[str]:
    named = {f"{w.section}.{w.key}" for kind in VOCABULARY for w in map(word, kind)}
    return named | {f"weekday.{day.lower()}" for day in WEEKDAYS}


def keys_in_use() -> set[str]:
    """Every key that the package asks for: those written out in its code, and those it builds from a vocabulary."""
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "habitlab").rglob("*.py"))
    sections = {key.split(".")[0] for key in keys("en")}
    written = set(re.findall(rf"""["']((?:{"|".join(sections)})\.[a-z_]+)["']""", source)) | {"language.name"}
    built = {f"{section}.{name}" for section in ("form", "help") for name in Registration.model_fields}
    built |= {f"problem.{kind}" for kind in _SAYS}
    built |= {f"reason.{part}_{statement}" for part in STATEMENTS for statement in STATEMENTS[part]}
    built |= {f"part.{part}" for part in [*STATEMENTS, "learning_style"]}
    built |= {f"feature.{name}" for name in [*FEATURES, "rest", "base"]}
    built |= {f"playground.{side}" for side in ("for", "against")}
    built |= {f"filtered.{name}" for name in REASONS}
    built |= {f"warning.{key}" for key in re.findall(r'Note\("(\w+)"', source)}
    built |= {f"quantity.{unit}" for unit in re.findall(r'Quantity\("(\w+)"', source)}
    return written | built | words_of_the_vocabulary()


def test_1_1_1_g_every_key_in_use_has_a_text_and_every_text_is_in_use() -> None:
    assert keys_in_use() - keys("en") == set()
    assert keys("en") - keys_in_use() == set()


def test_1_1_1_g_every_label_and_choice_of_the_form_has_a_text_in_every_language() -> None:
    for code in languages():
        for name in Registration.model_fields:
            assert label(f"form.{name}", code)
            assert label(f"help.{name}", code)
            enumeration = Purpose if name == "consents" else TABLES["users"].columns[name].choices
            assert [label(f"{word(c).section}.{word(c).key}", code) for c in enumeration or ()].count("") == 0
            assert len(choices(name)) == len(list(enumeration or ()))


def every_sentence(code: str) -> list[str]:
    """Each message of reasons and probabilities, said with each value of the vocabulary that can fill its places."""
    minutes = [Quantity("minutes", n) for n in (1, 2, 5, 21, 22, 7.5)]
    examples = {
        "category": list(Category),
        "time": list(TimeOfDay),
        "preferred": list(TimeOfDay),
        "best": [TimeOfDay.MORNING, TimeOfDay.EVENING],
        "minutes": minutes,
        "budget": minutes,
        "activities": [[a] for a in Activity] + [list(Activity)],
        "difficulty": [1, 5],
        "level": list(Level),
        "limit": [Quantity("years", n) for n in (13, 16, 21, 65, 120)],
        "outlook": [Outlook(p, (max(0, p - 0.1), min(1, p + 0.1))) for p in (0.01, 0.5, 0.99)],
    }
    said = []
    for part, statements in STATEMENTS.items():
        for statement in statements:
            needed = sorted(places(language(code).messages[f"reason.{part}_{statement}"]))
            for turn in range(max((len(examples[name]) for name in needed), default=1)):
                values = {name: examples[name][turn % len(examples[name])] for name in needed}
                said.append(reason(code, part, statement, **values))
    return said


def test_5_2_a_no_english_word_in_russian() -> None:
    for sentence in every_sentence("ru"):
        assert not re.search("[A-Za-z]", sentence), sentence
    for key, forms in RU.messages.items():
        flat = re.sub(r"\{[a-z_:]*\}", "", str(forms if isinstance(forms, str) else forms.values()))
        if isinstance(forms, str):
            assert not re.search("[A-Za-z]", re.sub("Europe/[A-Z][a-z]+", "", flat)), key
        assert re.search("[А-яё№]", flat), key


@pytest.mark.parametrize("code", languages())
def test_every_sentence_reads_like_one(code: str) -> None:
    for sentence in every_sentence(code):
        assert re.fullmatch(r"[A-ZА-ЯЁ][^{}]*[^ ]\.", sentence), sentence
        assert "  " not in sentence
        assert "None" not in sentence


@pytest.mark.parametrize(("asked", "got"), [("ru-RU", "ru"), ("ru_RU", "ru"), ("EN", "en"), ("en-GB", "en")])
def test_5_2_d_a_region_does_not_matter(asked: str, got: str) -> None:
    assert language(asked).code == got


@pytest.mark.parametrize("asked", ["fr", "", "../en", "x" * 50])
def test_5_2_d_an_unknown_language_is_english_with_a_warning(asked: str) -> None:
    with pytest.warns(UserWarning, match="only in en, ru; these are English"):
        assert explain([], asked) == explain([], "en")


def test_5_2_d_another_language_is_one_more_file(tmp_path: Path) -> None:
    """Polish, with words that do not decline: what a translator begins with."""
    text = (LOCALES / "en.toml").read_text("utf-8")
    text = text.replace('[quantity]\nminutes = { one = "{n} minute", other = "{n} minutes" }',
                        '[quantity]\nminutes = { one = "{n} minuta", few = "{n} minuty", many = "{n} minut", '
                        'other = "{n} minuty" }').replace('"It takes {minutes};', '"To {minutes};')  # fmt: skip
    (tmp_path / "pl.toml").write_text(text, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        polish = language("pl", tmp_path)
    values = [Quantity("minutes", n) for n in (1, 3, 25)]
    said = [polish.say("reason.time_fits", minutes=value, budget=value) for value in values]
    assert [text.split(";")[0] for text in said] == ["To 1 minuta", "To 3 minuty", "To 25 minut"]
    assert keys("pl", tmp_path) == keys("en")


def test_a_file_that_is_named_after_no_language_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zzz.toml").write_text("", "utf-8")
    with pytest.raises(ValueError, match="no language code"):
        language("zzz", tmp_path)


@pytest.mark.parametrize(
    ("messages", "value", "said"),
    [
        ({}, None, "has no `reason.x`"),
        ({"reason.x": "{a:dative}", "category.diet": {"name": "d"}}, Category.DIET, "no form `dative`"),
        ({"reason.x": "{a}", "quantity.minutes": {"one": "m"}}, Quantity("minutes", 2), "no form"),
        ({"reason.x": "{a}"}, Word("weekday", "monday"), "has no `weekday.monday`"),
    ],
)
def test_a_missing_text_or_form_is_named(messages: dict, value: object, said: str) -> None:
    with pytest.raises(LookupError, match=said):
        Language("ru", RU.locale, messages).say("reason.x", a=value)


@pytest.mark.parametrize(
    ("code", "habit", "said"),
    [
        ("en", {"name_en": "Run", "name_ru": "Бег"}, "Run"),
        ("ru", {"name_en": "Run", "name_ru": "Бег"}, "Бег"),
        ("ru", {"name_en": "Run", "name_ru": None}, "«Run»"),
        ("ru", {"name_en": "Run"}, "«Run»"),
        ("en", {"name_en": float("nan"), "name_ru": "Бег"}, "“Бег”"),
        ("en", {}, "“h1”"),
    ],
)
def test_a_habit_without_a_name_in_the_language_keeps_its_own_in_quotes(code: str, habit: dict, said: str) -> None:
    assert habit_name({"habit_id": "h1"} | habit, code) == said


def test_the_files_are_read_in_one_place_only() -> None:
    assert {path.suffix for path in LOCALES.iterdir()} == {".toml"}
    for path in LOCALES.iterdir():
        sections = tomllib.loads(path.read_text("utf-8"))
        assert all(forms for section in sections.values() for forms in section.values()), path
    assert wording.FALLBACK in languages()


@pytest.mark.parametrize(
    ("code", "part", "said"),
    [
        ("en", "evening", "Best begun on Wednesday, in the evening."),
        ("en", None, "Best begun on Wednesday."),
        ("ru", "evening", "Лучше начать в среду, вечером."),
        ("ru", "any", "Лучше начать в среду."),
    ],
)
def test_5_2_a_when_to_begin(code: str, part: str | None, said: str) -> None:
    item = Item(1, "h1", "Run", 0.5, 0.7, {}, weekday=2, part_of_day=part)
    assert say_slot(item, code) == said
