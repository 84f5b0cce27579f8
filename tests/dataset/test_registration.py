"""Registration: requirements 1.1.a-1.1.h and 1.1.1.a, e, f; pitfalls D2 to D7 and D9."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import habitlab
from habitlab.dataset import Dataset, check
from habitlab.dataset.registration import NOT_ASKED, Registration, RegistrationError, choices, pseudonym
from habitlab.dataset.schema import TABLES
from habitlab.dataset.vocabulary import Category, LearningStyle, Level, Purpose

USERS = TABLES["users"].columns
ANSWERS = {
    "age": 34,
    "gender": "prefer not to say",
    "zone": "Europe/Berlin",
    "preferred_time": "morning",
    "existing_habits": ["Drink a glass of water", "walk the dog"],
    "improvement_areas": ["health", "diet"],
    "activity_preferences": ["creative"],
    "learning_style": "reading/writing",
    "difficulty_preference": "beginner",
    "chronotype": "evening",
    "time_commitment": 12.5,
    "barriers": "Мало времени",
    "goal_set": False,
    "consents": {"research": True},
}


def refusal(**answers: object) -> str:
    with pytest.raises(RegistrationError) as refused:
        Registration.of(answers)
    assert len(refused.value.problems) == len(str(refused.value).splitlines()) - 1
    return str(refused.value).splitlines()[1].strip()


def one_user(record: Registration, habits: pd.DataFrame | None = None) -> Dataset:
    return Dataset(users=record.to_row("p1", habits=habits))


def test_1_1_1_a_every_field_can_be_answered_and_comes_back_from_json_and_from_storage(tmp_path: Path) -> None:
    record = Registration.of(ANSWERS)
    assert set(ANSWERS) == set(Registration.model_fields)
    assert json.loads(record.to_json()) == ANSWERS
    (tmp_path / "me.json").write_text(json.dumps(ANSWERS), "utf-8")
    assert Registration.from_json(tmp_path / "me.json") == Registration.from_json(json.dumps(ANSWERS)) == record
    check(one_user(record))
    one_user(record).save(tmp_path / "me.db")
    row = Dataset.load(tmp_path / "me.db").users.iloc[0]
    for name in set(ANSWERS) - {"consents"}:
        assert row[name] == ANSWERS[name], name


def test_form_and_contract_hold_the_same_fields() -> None:
    """A column that is neither asked nor explained fails here, and so does a question without a column."""
    asked = set(Registration.model_fields) - {"consents"}
    assert asked | set(NOT_ASKED) == set(USERS)
    assert not asked & set(NOT_ASKED)


@pytest.mark.parametrize("name", Registration.model_fields)
def test_1_1_e_a_field_takes_every_value_of_the_vocabulary_and_no_other(name: str) -> None:
    for choice in choices(name):
        answer = [choice] if name in USERS and USERS[name].kind == "list" else choice
        record = Registration.of({name: {choice: True} if name == "consents" else answer})
        check(one_user(record))


@pytest.mark.parametrize(
    "answers", [{"improvement_areas": ["Health"]}, {"gender": "Female"}, {"consents": {"ads": True}}]
)
def test_1_1_d_a_word_outside_the_vocabulary_is_refused_case_included(answers: dict) -> None:
    assert "is not one of" in refusal(**answers)


def test_nothing_answered_is_a_record_in_which_everything_is_missing() -> None:
    row = Registration().to_row()
    assert row.drop(columns="user_id").isna().all(axis=None)
    assert all(field.default is None for field in Registration.model_fields.values())
    check(one_user(Registration()))


def test_no_area_is_an_answer_and_not_a_missing_one() -> None:
    assert one_user(Registration(improvement_areas=[])).users["improvement_areas"].iloc[0] == []
    assert one_user(Registration()).users["improvement_areas"].iloc[0] is None


@pytest.mark.parametrize("age", [13, 90, 120, 30.0])
def test_1_1_a_ages_that_are_taken(age: float) -> None:
    assert Registration.of({"age": age}).age == age


@pytest.mark.parametrize("age", [12, 0, -5, 121, 30.5, "30", True, [30]])
def test_1_1_a_ages_that_are_refused(age: object) -> None:
    assert refusal(age=age).startswith("age: ")


def test_1_1_b_gender_is_optional_and_may_be_kept_back() -> None:
    assert Registration().gender is None
    assert Registration.of({"gender": "prefer not to say"}).gender == "prefer not to say"


def test_1_1_c_existing_habits_are_known_by_id_or_by_name_in_either_language(tiny: Dataset) -> None:
    named = ["h001", "Позвонить  ДРУГУ!", "call a friend", "walk the dog"]
    row = Registration(existing_habits=named).to_row(habits=tiny.habits)
    assert row["existing_habits"].iloc[0] == ["h001", "h002", "walk the dog"]


@given(st.lists(st.sampled_from(list(Category))))
def test_1_1_d_one_set_of_areas_has_one_encoding(areas: list[Category]) -> None:
    assert Registration(improvement_areas=areas).improvement_areas == [area for area in Category if area in areas]


def test_1_1_e_the_words_of_learning_styles_and_levels_are_those_of_the_vocabulary() -> None:
    assert choices("learning_style") == list(LearningStyle)
    assert choices("difficulty_preference") == list(Level)


@pytest.mark.parametrize("minutes", [0, 5, 7.5, 11, 25, 1440])
def test_1_1_f_time_is_a_number_of_minutes_without_gaps(minutes: float) -> None:
    assert Registration.of({"time_commitment": minutes}).to_row()["time_commitment"].iloc[0] == minutes


@pytest.mark.parametrize("minutes", ["High (30+ min)", -1, 1441, float("nan"), float("inf")])
def test_1_1_f_a_label_or_an_impossible_time_is_refused(minutes: object) -> None:
    assert refusal(time_commitment=minutes).startswith("time_commitment: ")


def test_1_1_h_barriers_are_limited_in_length_and_blank_ones_are_missing() -> None:
    assert Registration(barriers="x" * 2000).barriers
    assert refusal(barriers="x" * 2001) == "barriers: longer than 2000 characters"
    assert Registration(barriers=" \n ").barriers is None


@pytest.mark.parametrize("name", ["username", "email", "e-mail", "password", "E_mail", "Name"])
def test_1_1_1_f_credentials_are_refused_and_never_repeated(name: str) -> None:
    said = refusal(**{name: "hunter2"})
    assert "never kept" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("text", ["write to ann.lee@example.org", "ann@почта.рф", "<ann+habits@mail.co.uk>, daily"])
@pytest.mark.parametrize("field", ["barriers", "existing_habits"])
def test_1_1_1_f_an_address_is_refused_wherever_a_text_is_asked(field: str, text: str) -> None:
    said = refusal(**{field: [text] if field == "existing_habits" else text})
    assert "leave out" in said
    assert "ann" not in said


@pytest.mark.parametrize("text", ["meet @ the gym", "a@b", "5 km @ 6.30 min"])
def test_an_at_sign_alone_is_no_address(text: str) -> None:
    assert Registration(barriers=text).barriers == text


def test_1_1_1_f_the_database_holds_no_address(tmp_path: Path) -> None:
    people = habitlab.open_dataset()
    new = Registration.of(ANSWERS).to_row("p1", habits=people.habits)
    people.replace(users=pd.concat([people.users, new])).save(tmp_path / "data.db")
    assert not re.search(rb"[\w.+-]+@[\w-]+\.[\w.-]+", (tmp_path / "data.db").read_bytes())


def test_1_1_1_f_a_pseudonym_is_drawn_and_tells_nothing() -> None:
    generator = np.random.default_rng(0)
    ids = {pseudonym(generator) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"p[0-9a-f]{16}", user_id) for user_id in ids)


@pytest.mark.parametrize("age", [15, 40, None])
def test_d9_not_answering_is_not_consent(age: int | None) -> None:
    at = pd.Timestamp("2026-01-05T07:30Z")
    rows = Registration(age=age).to_consents("p1", at)
    assert set(rows["purpose"]) == set(Purpose)
    assert not rows["granted"].any()
    rows = Registration(age=age, consents={Purpose.RESEARCH: True}).to_consents("p1", at)
    assert list(rows.loc[rows["granted"], "purpose"]) == ["research"]
    check(Dataset(users=Registration(age=age).to_row("p1"), consents=rows))


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(RegistrationError) as refused:
        Registration.of({"age": 12, "gender": "x", "zone": "Europe/Berlim", "ages": 3})
    assert str(refused.value).splitlines() == [
        "the registration cannot be taken:",
        "  age: 12 is below 13",
        '  gender: "x" is not one of female, male, other, prefer not to say',
        '  zone: "Europe/Berlim" is no time zone, such as Europe/Berlin; did you mean Europe/Berlin?',
        "  ages: there is no such question; did you mean age?",
    ]


def test_of_very_many_mistakes_the_first_are_named() -> None:
    begin = time.process_time()
    with pytest.raises(RegistrationError) as refused:
        Registration.of({f"field {number}": 1 for number in range(50_000)})
    assert len(refused.value.problems) == 30
    with pytest.raises(RegistrationError, match=r"^the registration cannot be taken:\n  improvement_areas: "):
        Registration.of({"improvement_areas": ["nope"] * 50_000})
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("text", "said"), [("{age: 3", "is not JSON"), ("[1]", "is not a JSON object"), ("null", "is not a JSON object")]
)
def test_what_is_not_a_record_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Registration.from_json(text)


@pytest.mark.parametrize("answer", ["\ud800", {1, 2}, pd.Timestamp("2026-01-01")])
def test_answers_that_no_file_could_hold_are_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="plain values"):
        Registration.of({"barriers": answer})


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, 7, None])
def test_1_1_c_a_habit_has_a_name(name: object) -> None:
    assert refusal(existing_habits=["Run", name]).startswith("existing_habits: ")
    assert Registration(existing_habits=[" Run "]).existing_habits == ["Run"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"me\.json"):
        Registration.from_json(tmp_path / "me.json")


ODD = [
    None,
    True,
    -1,
    7,
    10**30,
    0.5,
    float("nan"),
    "",
    "x",
    "morning",
    [],
    [None],
    ["x", "health"],
    [[]],
    {},
    {"research": 1},
]


@settings(deadline=None)  # a first call reads all time zones
@given(st.dictionaries(st.sampled_from([*Registration.model_fields, "x"]), st.sampled_from(ODD)))
def test_any_answers_are_taken_or_refused_in_words(answers: dict) -> None:
    try:
        record = Registration.of(answers)
    except RegistrationError as error:
        named = {problem.field for problem in error.problems}
    else:
        named = set()
        check(one_user(record))
    assert named <= set(answers)
