"""The playground: requirements 1.1.1.a and 1.1.1.g; pitfalls D6 and D8."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habitlab.dataset.catalogue import load_catalogue
from habitlab.dataset.registration import Registration, RegistrationError, choices
from habitlab.explanations.wording import label, languages
from habitlab.playground import ORDER, Playground, playground
from habitlab.recommender.recommendations import Item, Note, Recommendations
from habitlab.simulation import simulate
from tests.conftest import ROOT

HABITS = load_catalogue()
ROWS = HABITS.astype(object).where(HABITS.notna(), None).to_dict("records")
PARTS = {"category": 0.2, "time": 0.1, "age": -0.01, "success": 0.2}
AVERAGE = {"category": 0.1, "time": 0.1, "age": 0.0, "success": 0.25}


def recommend(record: Registration) -> Recommendations:
    """In place of the recommender: the first two habits of the areas named, and nothing for whom has no minutes."""
    areas = record.improvement_areas or ["health"]
    chosen = [row for row in ROWS if row["category"] in areas][:2] if record.time_commitment != 0 else []
    items = tuple(
        Item(rank, row["habit_id"], row["name_en"], 0.5, 0.7, PARTS, habit=row, by_lot=rank == 2)
        for rank, row in enumerate(chosen, start=1)
    )
    person = record.model_dump(mode="json", exclude={"barriers", "gender", "consents"})
    notes = () if record.age else (Note("impersonal"),)
    return Recommendations("new", items, {"time_budget": 3}, "v1", person=person, neutral=AVERAGE, notes=notes)


def shown(**more: Any) -> Playground:
    return Playground(HABITS, recommend, **more)


def press(form: Playground, field: str, choice: str) -> None:
    form.fields[field].controls[choices(field).index(choice)].value = True


def type_in(form: Playground, field: str, text: str) -> None:
    form.fields[field].controls[0].value = text


def test_every_question_of_the_record_is_asked_once() -> None:
    assert sorted(ORDER) == sorted(Registration.model_fields)


def test_1_1_1_a_nothing_is_answered_beforehand() -> None:
    form = shown()
    assert form.answers() == {}
    assert form.record == Registration()
    for field in form.fields.values():
        for control in field.controls:
            assert control.value in ("", False, [])


def test_every_control_has_a_label_in_words() -> None:
    for code in languages():
        form = shown(code=code)
        for name, field in form.fields.items():
            inside = field.box.children[1].children
            said = field.label.value + "".join(getattr(control, "description", "") for control in inside)
            assert label(f"form.{name}", code) in said
            assert label(f"help.{name}", code) in said


def test_1_1_1_a_answers_change_the_record_and_the_list_at_once() -> None:
    form = shown()
    before = form.shown.value
    type_in(form, "age", "34")
    press(form, "improvement_areas", "diet")
    assert form.record == Registration.of({"age": 34, "improvement_areas": ["diet"]})
    assert form.shown.value != before
    assert "Add vegetables to lunch" in form.shown.value
    assert "You want to improve your diet." in form.shown.value
    press(form, "improvement_areas", "finance")
    form.fields["improvement_areas"].controls[choices("improvement_areas").index("diet")].value = False
    assert form.record.improvement_areas == ["finance"]


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("age", "7", "this is below 13"),
        ("age", "121", "this is above 120"),
        ("age", "30.5", "this is not a whole number"),
        ("age", "old", "this is not a whole number"),
        ("time_commitment", "-1", "this is below 0"),
        ("time_commitment", "High (30+ min)", "this is not a number"),
        ("zone", "Europe/Berlim", "there is no such time zone; one is Europe/Berlin"),
        ("barriers", "ask ann@example.org", "this holds an e-mail address; leave out what could name you"),
        ("barriers", "x" * 2001, "this is longer than 2,000 characters"),
    ],
)
def test_what_cannot_be_taken_is_said_beside_its_field_and_the_list_stays(field: str, typed: str, said: str) -> None:
    form = shown()
    press(form, "improvement_areas", "diet")
    record = form.record
    type_in(form, field, typed)
    assert said in form.fields[field].problem.value
    assert [name for name, one in form.fields.items() if one.problem.value] == [field]
    assert form.record == record
    assert "Add vegetables to lunch" in form.shown.value
    assert label("playground.correct") in form.shown.value
    type_in(form, field, "")
    assert form.fields[field].problem.value == ""
    assert label("playground.correct") not in form.shown.value


def test_a_comma_makes_a_number_too() -> None:
    form = shown()
    type_in(form, "time_commitment", " 7,5 ")
    assert form.record.time_commitment == 7.5


def test_1_1_c_a_habit_one_has_is_picked_by_name_or_typed() -> None:
    form = shown()
    field = form.fields["existing_habits"]
    assert set(field.adder.options) == set(HABITS["name_en"])
    for named in (HABITS["name_en"][3], "walk the dog", HABITS["name_en"][3]):
        field.adder.value = named
        assert field.adder.value == ""
    assert form.record.existing_habits == [HABITS["habit_id"][3], "walk the dog"]
    field.controls[0].value = ["walk the dog"]
    assert form.record.existing_habits == ["walk the dog"]


def test_1_1_1_g_the_language_is_switched_and_the_answers_stay() -> None:
    form = shown()
    type_in(form, "age", "34")
    press(form, "improvement_areas", "diet")
    form.fields["gender"].controls[0].value = "other"
    form.fields["existing_habits"].controls[0].value = [HABITS["name_en"][0]]
    form.fields["goal_set"].controls[0].value = False
    record = form.record
    assert record.existing_habits == [HABITS["habit_id"][0]]
    form.switch.value = "ru"
    assert form.record == record
    assert form.fields["existing_habits"].controls[0].value == [HABITS["name_ru"][0]]
    texts = form.shown.value + "".join(f.label.value for f in form.fields.values())
    visible = re.sub(r"<[^>]*>", " ", re.sub(r"aria-label='[^']*'", "", texts))
    assert not re.search(r"[A-Za-z]{2,}", visible.replace("Europe/Moscow", "")), visible
    assert "Вы хотите заняться питанием." in visible
    type_in(form, "age", "7")
    assert "это меньше 13" in form.fields["age"].problem.value
    form.switch.value = "en"
    assert "this is below 13" in form.fields["age"].problem.value
    assert "You want to improve your diet." in form.shown.value


names = st.sampled_from(list(HABITS["habit_id"])) | st.sampled_from(["walk the dog", "Гулять"])
texts = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=9).filter(lambda t: t == t.strip() != "")
answered = st.fixed_dictionaries(
    {},
    optional={
        "age": st.integers(13, 120),
        "zone": st.sampled_from(["Europe/Berlin", "UTC"]),
        "existing_habits": st.lists(names, min_size=1, max_size=3, unique=True),
        "time_commitment": st.integers(0, 1440) | st.sampled_from([0.5, 7.25]),
        "barriers": texts.filter(lambda text: "@" not in text),
        "goal_set": st.booleans(),
        "consents": st.dictionaries(st.sampled_from(choices("consents")), st.booleans(), min_size=1),
    }
    | {
        name: st.lists(st.sampled_from(choices(name)), min_size=1, unique=True)
        for name in ("improvement_areas", "activity_preferences")
    }
    | {
        name: st.sampled_from(choices(name))
        for name in ("gender", "preferred_time", "learning_style", "difficulty_preference", "chronotype")
    },
)
FORMS: dict[str, Playground] = {}


@settings(max_examples=40, deadline=None)
@given(answered, st.sampled_from(["en", "ru"]))
def test_1_1_1_a_the_form_and_a_json_file_give_the_same_record(answers: dict, code: str) -> None:
    form = FORMS.setdefault(code, shown(code=code))
    from_file = Registration.from_json(json.dumps(answers))
    form.fill(answers)
    assert form.record == from_file
    form.fill(from_file)
    assert Registration.of(form.answers()) == from_file


def test_answers_that_cannot_be_taken_are_refused_at_the_start() -> None:
    with pytest.raises(RegistrationError, match="age: 7 is below 13"):
        shown(answers={"age": 7})
    with pytest.raises(RegistrationError, match="did you mean age"):
        shown(answers={"aeg": 30})


def test_the_list_shows_reasons_bars_and_what_was_left_out() -> None:
    form = shown(answers={"improvement_areas": ["diet"], "time_commitment": 5})
    text = form.shown.value
    assert text.count("<svg role='img' aria-label='Parts of the score of ") == 2
    assert "area 20.0, minutes 10.0, age -1.0, chance to keep it up 20.0" in text
    assert text.count("drawn by lot") == 1
    assert "aria-label='for'" in text
    assert "aria-label='against'" in text
    assert "longer than the time you have: 3" in text
    form = shown(answers={"time_commitment": 0})
    assert label("playground.empty") in form.shown.value


def test_what_the_list_cannot_give_is_said_in_the_language_of_the_form() -> None:
    form = shown()
    assert "hardly personal" in form.shown.value
    form.switch.value = "ru"
    assert "почти не учитывает" in form.shown.value
    type_in(form, "age", "34")
    assert "почти не учитывает" not in form.shown.value


def test_names_of_habits_are_text_and_not_markup() -> None:
    named = ROWS[0] | {"name_en": "<script>alert(1)</script>"}
    item = Item(1, "h001", "", 0.5, 0.7, PARTS, habit=named)
    form = Playground(HABITS, lambda record: Recommendations("new", (item,), {}, "v1", neutral=AVERAGE))
    assert "<script" not in form.shown.value
    assert "&lt;script&gt;" in form.shown.value


def test_the_record_is_shown_as_the_json_file_it_would_be() -> None:
    form = shown(answers={"age": 34})
    assert "&quot;age&quot;: 34" in form.json.value


def test_an_unknown_language_is_english_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="these are English"):
        form = shown(code="fr")
    assert form.switch.value == "en"


def test_1_1_1_a_with_the_real_recommender_without_a_screen() -> None:
    form = playground(simulate(users=60, days=60, seed=0), answers={"age": 34}, k=3)
    assert isinstance(form, ipywidgets.VBox)
    assert len(form.recommendations.items) == 3
    before = [item.habit_id for item in form.recommendations.items]
    press(form, "improvement_areas", "finance")
    type_in(form, "time_commitment", "10")
    assert [item.habit_id for item in form.recommendations.items] != before
    assert all(item.habit["minutes"] <= 10 for item in form.recommendations.items)
    assert all(len(item.reasons) in (1, 2, 3) for item in form.recommendations.items)
    held = form.recommendations.items[0]
    form.fields["existing_habits"].controls[0].value = [held.name]
    assert held.habit_id not in [item.habit_id for item in form.recommendations.items]


# In JupyterLab itself


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Address of the playground in a JupyterLab of its own."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "playground.ipynb", tmp_path / "notebooks")
    call = [sys.executable, "-m", "jupyterlab", "notebooks", "--no-browser", "--port=0", "--allow-root"]
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    log = tmp_path / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(call, cwd=tmp_path, env=os.environ | folders, stdout=said, stderr=said)
    try:
        address = r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab\?token=(\w+)"
        for _ in range(240):
            if found := re.search(address, log.read_text("utf-8")):
                break
            assert server.poll() is None, log.read_text("utf-8")
            time.sleep(0.25)
        assert found, log.read_text("utf-8")
        yield f"http://127.0.0.1:{found[1]}/lab/tree/playground.ipynb?token={found[2]}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.long
@pytest.mark.browser
def test_1_1_1_a_in_jupyterlab_the_list_changes_as_one_types(lab: str, browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": 1500, "height": 1500})
    page.set_default_timeout(60_000)
    page.goto(lab)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells")
    page.wait_for_selector(".habitlab-card", timeout=180_000)
    names = page.locator(".habitlab-name")
    first = names.all_inner_texts()
    assert len(first) == 5

    age = page.get_by_label("Age 13 to 120")
    age.press_sequentially("7")
    page.wait_for_selector("text=this is below 13")
    assert names.all_inner_texts() == first
    age.fill("")
    age.press_sequentially("34")
    page.wait_for_selector("text=this is below 13", state="detached")
    page.get_by_role("button", name="diet").click()
    page.get_by_role("button", name="finances").click()
    page.locator(".habitlab-list").get_by_text("You want to improve your finances.").first.wait_for()
    assert names.all_inner_texts() != first
    serious = Axe().run(page, context=".habitlab-playground").response["violations"]
    assert [item["id"] for item in serious if item["impact"] in ("serious", "critical")] == []

    page.get_by_role("button", name="Русский").click()
    page.locator(".habitlab-list").get_by_text("Вы хотите заняться финансами.").first.wait_for()
    assert page.get_by_label("Возраст").input_value() == "34"
    page.close()
