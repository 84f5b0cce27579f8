"""8.3 Feedback: ratings and rejections, days done, surveys with their silent people, cases of support as tests."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from habitlab.dataset import Dataset, MissingColumn
from habitlab.recommender.recommend import Recommender
from habitlab.recommender.recommendations import Item
from habitlab.recommender.since import BY_REJECTION, BY_STAR, Since, changes_of
from habitlab.serving.learning import feedback
from habitlab.serving.learning.feedback import HALF_LIFE_DAYS, adjusted, check_case, load_cases, opinions
from habitlab.simulation import simulate

NOW = pd.Timestamp("2026-03-01", tz="UTC")


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender(exploration=0.0).fit(simulate(users=40, days=40, seed=2))


def told(*rows: tuple) -> Dataset:
    """Rejections (user, habit, days ago) and ratings (user, habit, days ago, stars)."""
    no = [row for row in rows if len(row) == 3]
    stars = [row for row in rows if len(row) == 4]
    return Dataset(
        recommendations=pd.DataFrame(
            {
                "event_id": [f"r{i}" for i in range(len(no))],
                "user_id": [row[0] for row in no],
                "habit_id": [row[1] for row in no],
                "shown_at": [NOW - pd.Timedelta(days=row[2]) for row in no],
                "response": "rejected",
            }
        ),
        feedback=pd.DataFrame(
            {
                "user_id": [row[0] for row in stars],
                "habit_id": [row[1] for row in stars],
                "at": [NOW - pd.Timedelta(days=row[2]) for row in stars],
                "rating": [row[3] for row in stars],
            }
        ),
    )


def moved(dataset: Dataset) -> np.ndarray:
    return adjusted(np.full((2, 3), 0.4), ["ann", "bob"], ["h1", "h2", "h3"], opinions(dataset, NOW))


def test_8_3_a_a_rejection_lowers_that_habits_next_score_and_no_other() -> None:
    score = moved(told(("ann", "h2", 0)))
    assert score[0, 1] == pytest.approx(special.expit(special.logit(0.4) - BY_REJECTION))
    rest = np.delete(score.ravel(), 1)
    assert (rest == 0.4).all()


@given(st.integers(1, 5), st.floats(0, 1000))
@settings(max_examples=50, deadline=None)
def test_8_3_a_ratings_move_the_score_their_way_and_fade(stars: int, ago: float) -> None:
    score = moved(told(("bob", "h3", ago, stars)))[1, 2]
    faded = 0.5 ** (ago / HALF_LIFE_DAYS)
    assert score == pytest.approx(special.expit(special.logit(0.4) + BY_STAR * (stars - 3) * faded), abs=1e-6)
    assert np.sign(round(score - 0.4, 6)) == np.sign(round((stars - 3) * faded * BY_STAR * 0.24, 6))


def test_of_ratings_the_last_counts_and_every_rejection() -> None:
    assert moved(told(("ann", "h1", 9, 5), ("ann", "h1", 1, 1)))[0, 0] < 0.4
    once, twice = moved(told(("ann", "h1", 5))), moved(told(("ann", "h1", 5), ("ann", "h1", 2)))
    assert twice[0, 0] < once[0, 0] < 0.4


def test_what_is_said_later_or_by_strangers_changes_nothing() -> None:
    assert (moved(told(("ann", "h1", -3), ("eve", "h1", 1), ("ann", "h9", 1, 1), ("bob", "h1", -1, 1))) == 0.4).all()
    assert opinions(Dataset(), NOW).empty


def test_scores_stay_between_0_and_1() -> None:
    table = pd.DataFrame({"user_id": ["ann"] * 3, "habit_id": ["h1", "h2", "h3"], "change": [-50.0, 50.0, 1.0]})
    score = adjusted(np.array([[0.0, 1.0, 0.5]]), ["ann"], ["h1", "h2", "h3"], table)
    assert score[0, 0] == 0.0
    assert score[0, 1] == 1.0
    assert 0.5 < score[0, 2] < 1


def test_8_3_a_the_next_list_of_a_service_leaves_a_rejected_habit_out(recommender: Recommender) -> None:
    user = str(recommender.user_ids_[0])
    first = recommender.recommend(user, 3, "2026-03-01T08:00").items[0].habit_id
    today = (NOW.tz_localize(None) - pd.Timestamp("1970-01-01")).days
    again = recommender.recommend(user, 3, "2026-03-01T08:00", since=Since(rejected={first: today}))
    assert first not in [item.habit_id for item in again.items]


def test_8_3_a_a_rejection_or_a_bad_rating_lowers_the_score_of_that_habit_in_the_next_list(
    recommender: Recommender,
) -> None:
    """Beside the cool-down: what is rated stays on offer, lower; contributions still add up."""
    user = str(recommender.user_ids_[0])

    def scores(changes: dict[str, float]) -> dict[str, Item]:
        return {item.habit_id: item for item in recommender.recommend(user, 200, since=Since(opinions=changes)).items}

    before = scores({})
    first, *others = before
    for said in (changes_of([first], {}), changes_of([], {first: 1})):
        after = scores(said)
        assert after[first].score < before[first].score
        assert sum(after[first].contributions.values()) == pytest.approx(after[first].score)
        assert all(after[habit].score == pytest.approx(before[habit].score, abs=1e-9) for habit in others)
    assert scores(changes_of([], {others[-1]: 5}))[others[-1]].score > before[others[-1]].score


def test_8_3_a_the_last_rating_of_events_reaches_the_next_list() -> None:
    from habitlab.serving.events import Stored
    from habitlab.serving.history import Base, features, fold, since

    at = NOW.to_pydatetime()
    hour = timedelta(hours=1)
    told = [
        Stored(i, str(i), "ann", "rating", at + i * hour, at, {"habit_id": "h1", "rating": stars})
        for i, stars in ((2, 1), (1, 5))
    ]
    told.append(Stored(3, "3", "ann", "response", at, at, {"habit_id": "h2", "response": "rejected"}))
    priors = {"user": [1.0, 1.0], "habit": [1.0, 1.0]}
    now, fitted = features(fold(Base(), told), priors), features(fold(Base(), []), priors)
    assert since(now, fitted).opinions == {"h1": 2 * -BY_STAR, "h2": -BY_REJECTION}


@given(st.floats(0.01, 0.99), st.lists(st.booleans(), max_size=40), st.floats(1, 100))
@settings(max_examples=60, deadline=None)
def test_8_3_b_posterior_update_equals_an_oracle(chance: float, days: list[bool], weight: float) -> None:
    """The oracle: Bayes' rule on a fine grid, a day at a time; order and portions do not matter."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    density = np.exp((chance * weight - 1) * np.log(grid) + ((1 - chance) * weight - 1) * np.log1p(-grid))
    for done in days:
        density = density * (grid if done else 1 - grid)
        density /= density.sum()
    expected = (grid * density).sum() / density.sum()
    found = feedback.success_after(chance, sum(days), len(days) - sum(days), weight)
    if min(chance, 1 - chance) * weight >= 1:  # else the grid is too coarse near its ends
        assert found == pytest.approx(expected, abs=1e-3)
    half = len(days) // 2
    first = feedback.success_after(chance, sum(days[:half]), half - sum(days[:half]), weight)
    rest = len(days) - half - sum(days[half:])
    assert feedback.success_after(first, sum(days[half:]), rest, weight + half) == pytest.approx(float(found))


def test_8_3_b_days_done_raise_and_missed_lower_and_nonsense_is_refused() -> None:
    before = feedback.success_after(0.3, 0, 0)
    assert before == pytest.approx(0.3)
    assert feedback.success_after(0.3, 1, 0) > before > feedback.success_after(0.3, 0, 1)
    for wrong in ((1.2, 0, 0, 20), (0.5, -1, 0, 20), (0.5, 0, 0, 0)):
        with pytest.raises(ValueError, match="probabilities"):
            feedback.success_after(*wrong)


def surveyed(seed: int, n: int = 1500, silent_by_answer: bool = False) -> tuple[Dataset, float]:
    """Older people are happier and answer more often; or the happier answer for being happy."""
    generator = np.random.default_rng(seed)
    age = generator.normal(45, 15, n).clip(13, 90).round()
    answer = np.clip(np.round(3 + (age - 45) / 15 + generator.normal(0, 0.7, n)), 1, 5)
    why = answer - 3 if silent_by_answer else (age - 45) / 15
    replied = generator.random(n) < special.expit(-0.5 + 1.2 * why)
    users = [f"u{i}" for i in range(n)]
    dataset = Dataset(
        users=pd.DataFrame({"user_id": users, "age": age}),
        surveys=pd.DataFrame(
            {"user_id": users, "survey": "s", "question": "q", "answer": np.where(replied, answer, np.nan)}
        ),
    )
    return dataset, float(answer.mean())


def test_8_3_c_weights_make_up_for_who_does_not_answer() -> None:
    inside = 0
    for seed in range(20):
        dataset, truth = surveyed(seed)
        found = feedback.survey_mean(dataset, "s", "q", resamples=200)
        assert found.naive - truth > 0.3
        assert abs(found.estimate - truth) < 0.5 * (found.naive - truth)
        assert found.lowest <= truth <= found.highest
        assert found.effective_n < found.answered < found.sent
        inside += found.ci_low <= truth <= found.ci_high
    assert inside >= 16


def test_8_3_c_silence_for_the_answer_itself_is_not_made_up_for_but_bounded() -> None:
    dataset, truth = surveyed(0, silent_by_answer=True)
    found = feedback.survey_mean(dataset, "s", "q", resamples=200)
    assert found.ci_low > truth  # weights do not know; the bounds do
    assert found.lowest <= truth <= found.highest


def test_8_3_c_few_answers_and_no_covariates_are_told() -> None:
    dataset, _ = surveyed(1)
    few = dataset.replace(surveys=dataset.surveys.head(30))
    assert "fewer than 20" in feedback.survey_mean(few, "s", "q", resamples=100).note
    bare = feedback.survey_mean(dataset, "s", "q", covariates=("gender",), resamples=100)
    assert bare.estimate == pytest.approx(bare.naive)
    assert "not weighted" in bare.note
    with pytest.raises(MissingColumn, match="needs answers"):
        feedback.survey_mean(dataset, "s", "other")
    with pytest.raises(ValueError, match="scale"):
        feedback.survey_mean(dataset, "s", "q", scale=(1, 3))


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: f"{case.id} [{', '.join(case.tags)}]")
def test_8_3_d_a_case_of_support_does_not_come_back(case: feedback.Case, recommender: Recommender) -> None:
    assert check_case(case, recommender) == []


def test_8_3_d_a_case_can_fail(recommender: Recommender, tmp_path: Path) -> None:
    """Each expectation, broken on purpose; and an unknown user is told, not raised."""
    first = recommender.recommend({}, 5)
    (tmp_path / "cases.toml").write_text(
        f"""
        [[case]]
        id = "own"
        tags = ["test"]
        story = "What cannot be met."
        person = {{}}
        [case.expect]
        never = ["{first.items[0].habit_id}"]
        never_words = ["{first.items[1].name.split()[0].casefold()}"]
        most_minutes = 0
        at_least = 50
        distinct_categories = 20
        [[case]]
        id = "gone"
        tags = ["test"]
        story = "Nobody."
        user = "nobody"
        expect = {{ at_least = 1 }}
        """
    )
    own, gone = load_cases(tmp_path)[-2:]
    told = " ".join(check_case(own, recommender))
    for part in ("at least 50", f"{first.items[0].habit_id} is on", "is on the list", "at most 0", "at least 20"):
        assert part in told
    assert "ValueError: no user 'nobody'" in check_case(gone, recommender)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id = "a"\ntags = []\nstory = ""\nexpect = { luck = 1 }', "unknown"),
        ('id = "a"\ntags = []\nstory = ""\nexpect = {}', "nothing is expected"),
        ('id = "empty-form-gets-a-list"\ntags = []\nstory = ""\nexpect = { at_least = 1 }', "twice"),
        ('id = "a"\nstory = ""\nexpect = { at_least = 1 }', "is none"),
    ],
)
def test_8_3_d_what_is_no_case_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cases.toml").write_text(f"[[case]]\n{text}")
    with pytest.raises(ValueError, match=message):
        load_cases(tmp_path)
