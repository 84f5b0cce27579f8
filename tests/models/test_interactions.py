"""3.2.1.a: the sparse matrix of users and habits, what its weights mean, and that nothing later leaks into it."""

import numpy as np
import pandas as pd
import pytest

from habitlab.dataset import Dataset, DatasetError
from habitlab.dataset.vocabulary import Purpose
from habitlab.features.behavioural import user_features
from habitlab.models.interactions import EXISTING_WEIGHT, LIVED, Interactions, consenting, positions
from habitlab.models.success import SuccessModel
from tests.models.worlds import UNTIL, imported_tracker, population


@pytest.fixture
def diary() -> Dataset:
    """Ann adopted two habits and gave one up; Bob rejected one, looked at another, and held a third before."""
    days = [f"2026-01-{day:02}" for day in range(1, 9)]
    return Dataset(
        users=pd.DataFrame(
            {
                "user_id": ["ann", "bob", "eve"],
                "existing_habits": [None, ["Call a FRIEND!", "something else"], []],
                "zone": ["Pacific/Auckland", None, "UTC"],
            }
        ),
        habits=pd.DataFrame({"habit_id": ["h1", "h2", "h3"], "name_en": ["Drink water", "Read", "Call a friend"]}),
        habit_tracking=pd.DataFrame(
            {
                "user_id": "ann",
                "habit_id": "h1",
                "date": days,
                "status": ["done", "done", "done", "missed", "skipped", "unknown", "missed", "missed"],
            }
        ),
        adoptions=pd.DataFrame(
            {
                "user_id": ["ann", "ann", "bob"],
                "habit_id": ["h1", "h2", "h2"],
                "adopted_at": ["2026-01-01T00:00Z", "2026-01-04T12:30Z", "2026-01-20T09:00Z"],
                "abandoned_at": ["2026-01-10T00:00Z", None, None],
            }
        ),
        recommendations=pd.DataFrame(
            {
                "event_id": ["r1", "r2", "r3", "r4"],
                "user_id": ["bob", "bob", "ann", "bob"],
                "habit_id": ["h1", "h2", "h2", "h3"],
                "shown_at": ["2026-01-02T10:00Z"] * 4,
                "response": ["rejected", "viewed", "accepted", None],
            }
        ),
        consents=pd.DataFrame(
            {
                "user_id": ["ann", "ann", "bob"],
                "purpose": "similar users",
                "at": ["2026-01-01T00:00Z", "2026-01-05T00:00Z", "2026-01-01T00:00Z"],
                "granted": [True, False, True],
            }
        ),
    )


def cells(data: Interactions, name: str) -> dict[tuple[str, str], float]:
    matrix = getattr(data, name)
    return {
        (data.user_ids[row], data.habit_ids[column]): matrix[row, column]
        for row, column in zip(*matrix.nonzero(), strict=True)
    }


def test_3_2_1_a_weights_are_adoption_and_shrunk_completion_and_unobserved_is_no_preference(diary):
    data = Interactions.read(diary, "2026-01-07")
    assert cells(data, "matrix") == pytest.approx(
        {("ann", "h1"): 0.5 + (1 + 3) / (2 + 4), ("ann", "h2"): 1.0, ("bob", "h3"): EXISTING_WEIGHT}
    )
    assert data.matrix.format == "csr"
    assert data.matrix.nnz == 3  # what nobody tried is not stored as zero
    assert EXISTING_WEIGHT < LIVED


def test_what_was_looked_at_and_not_taken_is_kept_apart(diary):
    data = Interactions.read(diary, "2026-01-07")
    assert set(cells(data, "refused")) == {("bob", "h1"), ("bob", "h2")}
    assert set(cells(data, "accepted")) == {("ann", "h2")}
    assert set(cells(Interactions.read(diary), "refused")) == {("bob", "h1")}, "h2 was adopted after all"


def test_held_is_the_state_on_the_day_and_ever_never_forgets(diary):
    assert set(cells(Interactions.read(diary, "2026-01-07"), "held")) == {("ann", "h1"), ("ann", "h2"), ("bob", "h3")}
    data = Interactions.read(diary)
    assert set(cells(data, "held")) == {("ann", "h2"), ("bob", "h2"), ("bob", "h3")}
    assert set(cells(data, "ever")) == {("ann", "h1"), ("ann", "h2"), ("bob", "h2"), ("bob", "h3")}


def test_a_habit_held_before_and_given_up_with_the_app_is_not_held():
    people = Dataset(
        users=pd.DataFrame({"user_id": ["ann"], "existing_habits": [["h1"]]}),
        habits=pd.DataFrame({"habit_id": ["h1"]}),
        adoptions=pd.DataFrame(
            {
                "user_id": ["ann"],
                "habit_id": ["h1"],
                "adopted_at": ["2026-01-02T00:00Z"],
                "abandoned_at": ["2026-01-05T00:00Z"],
            }
        ),
    )
    held = [Interactions.read(people, f"2026-01-{day:02}").held.nnz for day in (1, 4, 8)]
    assert held == [1, 1, 0]


def test_evidence_counts_habits_acted_on_not_looks_nor_profiles(diary):
    assert Interactions.read(diary, "2026-01-07").evidence.tolist() == [2, 1, 0]


def test_a_day_is_the_users_own(diary):
    # Half past noon of the 4th in UTC is the 5th in Auckland.
    assert ("ann", "h2") not in cells(Interactions.read(diary, "2026-01-05"), "ever")
    assert ("ann", "h2") in cells(Interactions.read(diary, "2026-01-06"), "ever")


def test_consent_is_the_last_word_and_silence_is_no(diary):
    assert consenting(diary, Purpose.SIMILAR_USERS).tolist() == [False, True, False]
    assert consenting(diary, Purpose.SIMILAR_USERS, "2026-01-04").tolist() == [True, True, False]
    assert consenting(imported_tracker(), Purpose.SIMILAR_USERS).tolist() == [False]


def test_nothing_from_the_day_on_changes_anything():
    people = population()
    day = pd.Timestamp(UNTIL, tz="UTC")
    late = pd.Timedelta(days=400)  # moved further away, still after the day
    adoptions, shown, tracking = people.adoptions, people.recommendations, people.habit_tracking
    shifted = people.replace(
        adoptions=adoptions.assign(
            adopted_at=adoptions["adopted_at"].where(adoptions["adopted_at"] < day + pd.Timedelta(days=2)),
            abandoned_at=adoptions["abandoned_at"].where(adoptions["abandoned_at"] < day + pd.Timedelta(days=2)),
        ).dropna(subset="adopted_at"),
        recommendations=shown.assign(
            shown_at=shown["shown_at"].where(shown["shown_at"] < day + pd.Timedelta(days=2), shown["shown_at"] + late),
            responded_at=shown["responded_at"].where(
                shown["responded_at"] < day + pd.Timedelta(days=2), shown["responded_at"] + late
            ),
        ),
        habit_tracking=tracking[tracking["date"] < UNTIL],
    )
    before, after = Interactions.read(people, UNTIL), Interactions.read(shifted, UNTIL)
    for name in ("matrix", "held", "ever", "refused", "accepted", "adopted_day"):
        assert (getattr(before, name) != getattr(after, name)).nnz == 0, name
    assert np.array_equal(before.evidence, after.evidence)
    assert Interactions.read(people).matrix.nnz > before.matrix.nnz


def test_tracked_habits_without_adoptions_count(diary):
    data = Interactions.read(imported_tracker())
    assert cells(data, "matrix") == pytest.approx({("me", "run"): 1.0})
    assert set(cells(data, "held")) == {("me", "run")}
    assert set(cells(Interactions.read(imported_tracker(), "2026-06-01"), "held")) == set()


@pytest.mark.parametrize(
    ("table", "twice"), [("users", "user_id: 1 ids .* 'ann'"), ("habits", "habit_id: 1 ids .* 'h1'")]
)
def test_an_id_that_stands_twice_is_named(diary, table, twice):
    frame = diary.table(table)
    again = diary.replace(**{table: pd.concat([frame, frame.iloc[:1]])})
    for read in (Interactions.read, lambda data: SuccessModel().fit(data), user_features):
        with pytest.raises(DatasetError, match=twice):
            read(again)


def test_ids_may_come_in_a_column_of_any_index():
    known = np.array(["u1", "u2", "u3"], dtype=object)
    assert positions(pd.Series(["u3"], index=[7]), known).tolist() == [2]
    assert positions(pd.Series(["u3", "u1"], index=[7, 0]), known).tolist() == [2, 0]


def test_an_unknown_user_is_told_the_nearest():
    known = Interactions.read(population()).user_ids
    with pytest.raises(ValueError, match=r"no user 'u000001' in this dataset; nearest: u0000\d+"):
        positions(["u0000001", "u000001"], known)
    with pytest.raises(ValueError, match="give a list"):
        positions("u0000001", known)
    assert positions(["u0000002", "u0000001"], known).tolist() == [1, 0]
