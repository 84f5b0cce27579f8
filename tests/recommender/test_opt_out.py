"""Requirement 9.2.d, opt-out of personalisation: it holds wherever a list is asked for, as in the service."""

import pandas as pd
import pytest
from typer.testing import CliRunner

import habitlab
from habitlab.cli import app
from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Purpose
from habitlab.models.interactions import refused
from habitlab.recommender.people import may_be_profiled
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.since import Since
from habitlab.simulation import simulate

REFUSED, CHANGED_MIND, USUAL = "u0000001", "u0000002", "u0000003"
AT = "2025-06-01T07:30"


@pytest.fixture(scope="module")
def data() -> Dataset:
    world = simulate(users=40, days=40, seed=6)
    told = [(REFUSED, 1, False), (CHANGED_MIND, 1, False), (CHANGED_MIND, 2, True)]
    rows = [(user, "personalisation", granted, f"2025-01-0{day}T00:00Z") for user, day, granted in told]
    return world.replace(consents=pd.DataFrame(rows, columns=["user_id", "purpose", "granted", "at"]))


@pytest.fixture(scope="module")
def recommender(data: Dataset) -> Recommender:
    return Recommender().fit(data)


def habits(found) -> list[str]:
    return [item.habit_id for item in found.items]


def test_9_2_d_the_last_word_counts(data: Dataset, recommender: Recommender) -> None:
    assert refused(data, Purpose.PERSONALISATION) == {REFUSED}
    assert recommender.people_.ids[recommender.people_.opted_out].tolist() == [REFUSED]


def test_9_2_d_who_opted_out_gets_the_list_of_anybody_and_is_told(data: Dataset, recommender: Recommender) -> None:
    found = recommender.recommend_as_allowed(REFUSED, 5, AT)
    assert found.user_id == REFUSED
    assert habits(found) == habits(recommender.recommend({}, 5, AT))
    assert found.person == {}
    assert [note.key for note in found.notes if note.key in ("opted_out", "impersonal")] == ["opted_out"]
    for user in (CHANGED_MIND, USUAL):
        assert recommender.recommend_as_allowed(user, 5, AT) == recommender.recommend(user, 5, AT)


def test_9_2_d_somebody_new_can_refuse_as_well(recommender: Recommender) -> None:
    told = {"improvement_areas": ["diet"], "consents": {"personalisation": False}}
    assert habits(recommender.recommend_as_allowed(told, 5, AT)) == habits(recommender.recommend({}, 5, AT))
    with pytest.raises(ValueError, match="unknown answer"):
        recommender.recommend_as_allowed(told | {"shoe_size": 43}, 5, AT)


def test_9_2_d_a_saved_recommender_remembers_who_opted_out(tmp_path, recommender: Recommender) -> None:
    recommender.save(tmp_path / "recommender.model")
    kept = Recommender.load(tmp_path / "recommender.model")
    assert kept.recommend_as_allowed(REFUSED, 5, AT) == recommender.recommend_as_allowed(REFUSED, 5, AT)


def test_9_2_d_the_command_and_the_function_honour_it(tmp_path, monkeypatch, data: Dataset) -> None:
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    data.save(tmp_path / "study.db")
    run = CliRunner().invoke(app, ["recommend", REFUSED, "--data", str(tmp_path / "study.db"), "--at", AT])
    assert "You asked for no personal list" in run.output
    found = habitlab.recommend(tmp_path / "study.db", REFUSED, 5, AT, "ru")
    assert found.warnings[0].startswith("Вы отказались")
    assert found.items[0].name in habitlab.recommend(tmp_path / "study.db", {}, 5, AT, "ru").items[0].name


# Profiling (pitfall D9): nothing is concluded from what minors do, nor from what those do who refused


NO_PROFILE, ALLOWED = "u0000004", "u0000005"
MINOR, ALLOWED_MINOR = "u0000006", "u0000007"


@pytest.fixture(scope="module")
def asked(data: Dataset) -> Dataset:
    users = data.users.copy()
    users.loc[users["user_id"].isin([MINOR, ALLOWED_MINOR]), "age"] = 15
    users.loc[users["user_id"].isin([NO_PROFILE, ALLOWED, USUAL]), "age"] = 40
    told = [(NO_PROFILE, False), (ALLOWED, True), (ALLOWED_MINOR, True)]
    rows = [(user, "profiling", granted, "2025-01-01T00:00Z") for user, granted in told]
    return data.replace(users=users, consents=pd.DataFrame(rows, columns=["user_id", "purpose", "granted", "at"]))


@pytest.fixture(scope="module")
def profiler(asked: Dataset) -> Recommender:
    return Recommender().fit(asked)


@pytest.mark.parametrize(
    ("told", "age", "expected"),
    [
        (None, 17, False),
        (None, 18, True),
        (None, float("nan"), True),
        (True, 13, True),
        (False, 40, False),
        (False, float("nan"), False),
    ],
)
def test_d9_minors_are_not_profiled_until_it_is_allowed_in_so_many_words(told, age, expected) -> None:
    assert may_be_profiled(told, age) is expected


def test_d9_who_may_not_be_profiled_gets_the_scores_of_somebody_new_with_the_same_answers(profiler) -> None:
    profiled = dict(zip(profiler.people_.ids.tolist(), profiler.people_.profiled.tolist(), strict=True))
    assert [profiled[user] for user in (NO_PROFILE, MINOR, ALLOWED, ALLOWED_MINOR, USUAL)] == [0, 0, 1, 1, 1]
    for user in (NO_PROFILE, MINOR):
        found = profiler.recommend_as_allowed(user, 60, AT)
        answers = profiler.people_.profile(int(profiler.rows([user])[0]))
        new = {item.habit_id: item for item in profiler.recommend(answers, 171, AT).items}
        assert found.notes[0].key == "unprofiled"
        assert not found.has_history
        assert len(found.items) > 3
        for item in found.items:
            assert item.score == pytest.approx(new[item.habit_id].score, abs=1e-6)
            assert item.weekday == new[item.habit_id].weekday
    for user in (ALLOWED, ALLOWED_MINOR, USUAL):
        assert profiler.recommend_as_allowed(user, 5, AT) == profiler.recommend(user, 5, AT)


def test_d9_what_they_hold_is_left_out_all_the_same(profiler: Recommender) -> None:
    """A wish, not a conclusion: nobody wants what they have, or what they refused yesterday."""
    for user in (NO_PROFILE, MINOR):
        usual, careful = profiler.recommend(user, 171, AT), profiler.recommend_as_allowed(user, 171, AT)
        assert set(habits(usual)) == set(habits(careful))
        assert careful.filtered == usual.filtered


def test_d9_what_they_did_since_the_fit_does_not_move_their_scores(profiler: Recommender) -> None:
    since = Since(success=2.0, opinions={"h1": 3.0})
    for user in (NO_PROFILE, MINOR):
        before, after = (
            profiler.recommend(user, 20, AT, since=happened, profiled=False) for happened in (Since(), since)
        )
        assert before == after
        assert profiler.recommend(user, 20, AT, since=since) != profiler.recommend(user, 20, AT)


def test_d9_many_at_once_get_the_lists_that_each_gets_alone(profiler: Recommender) -> None:
    users, careful = profiler.user_ids_.tolist(), {NO_PROFILE, MINOR, ALLOWED}
    since = {MINOR: Since(held=frozenset({"h1"}), success=1.0), USUAL: Since(success=-1.0)}
    many = profiler.recommend_many(users, 5, [AT], since=since, unprofiled=careful)
    for user, (found,) in zip(users, many, strict=True):
        assert found == profiler.recommend(user, 5, AT, since=since.get(user), profiled=user not in careful)


def test_d9_kept_or_asked_the_scores_are_the_same(profiler: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many people to keep scores, the models are asked for each list."""
    kept = [profiler.recommend(user, 20, AT, profiled=False) for user in (NO_PROFILE, MINOR)]
    monkeypatch.setattr(profiler, "_kept_answers", None)
    assert [profiler.recommend(user, 20, AT, profiled=False) for user in (NO_PROFILE, MINOR)] == kept


def test_d9_the_command_says_so(tmp_path, monkeypatch, asked: Dataset) -> None:
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "cache"))
    asked.save(tmp_path / "study.db")
    run = CliRunner().invoke(app, ["recommend", MINOR, "--data", str(tmp_path / "study.db"), "--at", AT])
    assert "Nothing is concluded from what you do" in run.output
    assert habitlab.recommend(tmp_path / "study.db", MINOR, 5, AT, "ru").warnings[0].startswith("Вы не разрешили")
