"""6.1.f Fair offline protocols: nothing of the future is learnt from, and a feature that is the future is caught."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from habitlab import open_dataset
from habitlab.dataset import Dataset, DatasetError, check
from habitlab.evaluation import splits
from habitlab.evaluation.movielens import load_movielens
from habitlab.evaluation.splits import FILLED_IN_LATER, WHEN, Split, before, hold_out_users, leaks, leave_last_out
from habitlab.features.behavioural import user_features
from habitlab.features.days import Day
from habitlab.models.baselines import AsWritten, Popularity
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import ContentModel
from habitlab.models.interactions import Interactions, days_of
from habitlab.models.success import SuccessModel

UNTIL = "2026-01-10"


@pytest.fixture
def told() -> Dataset:
    """Ann lives in New York, Bob in Tokyo with days that begin at 4; Cem registers later."""
    return Dataset(
        users=pd.DataFrame(
            {
                "user_id": ["ann", "bob", "cem"],
                "zone": ["America/New_York", "Asia/Tokyo", None],
                "day_start": [0, 4, None],
                "existing_habits": [["h4"], [], []],
                "registered_at": ["2026-01-01T12:00Z", "2026-01-09T18:59Z", "2026-01-10T00:00Z"],
            }
        ),
        habits=pd.DataFrame({"habit_id": ["h1", "h2", "h3", "h4"]}),
        habit_tracking=pd.DataFrame(
            {
                "user_id": ["ann", "ann"],
                "habit_id": ["h1", "h1"],
                "date": ["2026-01-09", "2026-01-10"],
                "status": ["done", "missed"],
                "at": ["2026-01-10T12:00Z", None],
            }
        ),
        adoptions=pd.DataFrame(
            {
                "user_id": ["ann", "ann", "ann", "ann", "ann", "bob", "bob"],
                "habit_id": ["h1", "h2", "h1", "h3", "h4", "h1", "h2"],
                "adopted_at": [
                    "2026-01-02T12:00Z",
                    "2026-01-10T04:59Z",  # a minute before midnight in New York
                    "2026-01-12T12:00Z",  # once more
                    "2026-01-10T05:00Z",
                    "2026-01-11T05:00Z",  # held before registration
                    "2026-01-09T18:59Z",  # 03:59 in Tokyo
                    "2026-01-09T19:00Z",
                ],
                "abandoned_at": ["2026-01-10T06:00Z", "2026-01-10T04:59:59Z", None, None, None, None, None],
            }
        ),
        recommendations=pd.DataFrame(
            {
                "event_id": ["r1", "r2", "r3"],
                "user_id": ["ann", "ann", "ann"],
                "habit_id": ["h1", "h2", "h3"],
                "shown_at": ["2026-01-02T12:00Z", "2026-01-09T12:00Z", None],
                "response": ["accepted", "rejected", "viewed"],
                "responded_at": ["2026-01-02T12:01Z", "2026-01-10T12:00Z", None],
            }
        ),
        surveys=pd.DataFrame(
            {
                "user_id": ["ann"],
                "survey": ["s"],
                "question": ["q"],
                "sent_at": ["2026-01-09T12:00Z"],
                "answered_at": ["2026-01-11T12:00Z"],
                "answer": [4],
            }
        ),
    )


def test_6_1_f_until_is_the_local_day_of_each_user(told: Dataset) -> None:
    split = splits.temporal(told, UNTIL)
    assert list(split.user_ids) == ["ann", "bob"]
    assert split.train.adoptions[["user_id", "habit_id"]].to_numpy().tolist() == [
        ["ann", "h1"],
        ["ann", "h2"],
        ["bob", "h1"],
    ]
    assert split.habit_ids.tolist() == ["h1", "h2", "h3", "h4"]
    assert split.until == pd.Timestamp(UNTIL)
    assert split.train.users["user_id"].tolist() == ["ann", "bob", "cem"], "profiles are those of all users"


@pytest.mark.parametrize("until", ["2026-10-25", "2026-03-29"])
def test_6_1_f_a_day_begins_once_also_when_clocks_change(until: str) -> None:
    """Days begin at 2 in Berlin, an hour that stands twice in October and not at all in March."""
    at = pd.date_range(pd.Timestamp(until) - pd.Timedelta(hours=4), periods=60, freq="10min", tz="UTC")
    habits = [f"h{number:02d}" for number in range(len(at))]
    dataset = Dataset(
        users=pd.DataFrame({"user_id": ["ann"], "zone": ["Europe/Berlin"], "day_start": [2]}),
        habits=pd.DataFrame({"habit_id": habits}),
        adoptions=pd.DataFrame({"user_id": "ann", "habit_id": habits, "adopted_at": at}),
    )
    earlier = days_of(dataset, "adoptions", "adopted_at") < np.datetime64(until)
    assert 0 < earlier.sum() < len(at)
    assert splits.temporal(dataset, until).train.adoptions["habit_id"].tolist() == list(np.array(habits)[earlier])


def test_6_1_f_relevant_is_what_was_taken_up_later_and_never_had_before(told: Dataset) -> None:
    split = splits.temporal(told, UNTIL)
    assert split.relevant.toarray().tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert split.seen.toarray().tolist() == [[True, True, False, True], [True, False, False, False]]
    assert split.relevant.dtype == np.float64


def test_6_1_f_what_was_filled_in_later_is_hidden(told: Dataset) -> None:
    train = splits.temporal(told, UNTIL).train
    assert train.adoptions["abandoned_at"].notna().tolist() == [False, True, False]
    assert train.recommendations["event_id"].tolist() == ["r1", "r2"]
    assert train.recommendations["response"].isna().tolist() == [False, True]
    assert train.recommendations["responded_at"].isna().tolist() == [False, True]
    assert train.surveys["answer"].isna().all()
    assert train.habit_tracking["at"].isna().all(), "entered on the day after"
    check(train)
    assert told.adoptions["abandoned_at"].notna().sum() == 2, "the dataset stays as it was"


def test_6_1_f_habits_without_adoptions_are_taken_up_when_they_are_first_tracked() -> None:
    dataset = Dataset(
        users=pd.DataFrame({"user_id": ["ann", "bob"]}),
        habits=pd.DataFrame({"habit_id": ["h1", "h2"]}),
        habit_tracking=pd.DataFrame(
            {
                "user_id": ["ann", "ann", "ann", "bob"],
                "habit_id": ["h1", "h1", "h2", "h2"],
                "date": ["2026-01-01", "2026-01-11", "2026-01-12", "2026-01-13"],
                "status": "done",
            }
        ),
    )
    split = splits.temporal(dataset, UNTIL)
    assert split.user_ids.tolist() == ["ann"], "nobody knows that Bob was there before"
    assert split.relevant.toarray().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("until", "message"), [("2025-01-01", "nobody registered before 2025-01-01"), ("soon", "soon"), (None, "got None")]
)
def test_a_day_that_splits_nothing_is_an_error(told: Dataset, until: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splits.temporal(told, until)


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return open_dataset()


@pytest.mark.parametrize("until", ["2024-01-15", "2024-02-01"])
def test_6_1_f_nothing_of_the_sample_is_known_too_early(sample: Dataset, until: str) -> None:
    train = splits.temporal(sample, until).train
    day = np.datetime64(until)
    for name, when in WHEN.items():
        for column in {when, FILLED_IN_LATER.get(name, (when,))[0]}:
            days = train.table(name)[column] if column == "date" else days_of(train, name, column)
            days = np.asarray(days, dtype="datetime64[D]")
            assert not (days >= day).any(), (name, column)
            kept = days_of(sample, name, column) < day if column == when != "date" else None
            assert kept is None or len(train.table(name)) == kept.sum(), name


def test_6_1_f_the_split_says_what_the_slow_definition_says(sample: Dataset) -> None:
    split = splits.temporal(sample, "2024-01-18")
    day = np.datetime64("2024-01-18")
    when = days_of(sample, "adoptions", "adopted_at")
    pairs = list(zip(sample.adoptions["user_id"], sample.adoptions["habit_id"], when, strict=True))
    habits = dict(sample.users[["user_id", "existing_habits"]].itertuples(index=False))
    registered = dict(zip(sample.users["user_id"], days_of(sample, "users", "registered_at"), strict=True))
    assert set(split.user_ids) == {user for user, date in registered.items() if date < day}
    for row, user in enumerate(split.user_ids[:60]):
        past = {h for u, h, d in pairs if u == user and d < day} | set(habits[user])
        later = {h for u, h, d in pairs if u == user and d >= day} - past
        assert set(split.habit_ids[split.relevant[[row]].indices]) == later
        assert set(split.habit_ids[split.seen[[row]].indices]) == past


def test_6_1_f_models_and_splits_agree_on_what_is_past(sample: Dataset) -> None:
    """Cutting the events twice changes nothing: `until` means the same to both."""
    day = "2024-01-18"
    once, twice = Interactions.read(sample, day), Interactions.read(before(sample, day), day)
    for field in ("matrix", "ever", "held", "refused"):
        assert (getattr(once, field) != getattr(twice, field)).nnz == 0, field


def test_leave_last_out_holds_out_the_last_habit_of_each_user(told: Dataset) -> None:
    split = leave_last_out(told)
    assert split.relevant.toarray().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], "Ann had h1 before"
    train = split.train
    assert ((train.adoptions["user_id"] == "ann").sum(), (train.adoptions["user_id"] == "bob").sum()) == (4, 1)
    assert len(train.habit_tracking) == 2, "both lie before Ann's last adoption"
    assert split.until is None


@pytest.mark.parametrize("rows", [0, 1])
def test_leave_last_out_of_one_adoption_or_none_holds_out_nothing(told: Dataset, rows: int) -> None:
    split = leave_last_out(
        told.replace(adoptions=told.adoptions.iloc[2:][:rows], habit_tracking=told.habit_tracking[:0])
    )
    assert split.relevant.nnz == 0
    assert len(split.train.adoptions) == rows


def test_leave_last_out_learns_nothing_of_a_user_from_that_moment_on(sample: Dataset) -> None:
    split = leave_last_out(sample)
    last = sample.adoptions.groupby("user_id")["adopted_at"].max()
    first = sample.adoptions.groupby("user_id")["adopted_at"].min()
    several = last[last > first].index
    for name, when in WHEN.items():
        frame = split.train.table(name)
        frame = frame[frame["user_id"].isin(several)]
        if when != "date":
            assert (frame[when] < frame["user_id"].map(last)).all(), name
    assert set(np.diff(split.relevant[pd.Index(split.user_ids).isin(several)].indptr)) <= {0, 1, 2}
    assert (split.relevant.multiply(split.seen)).nnz == 0


def test_bands_of_evidence_count_what_was_acted_on_before_the_split(sample: Dataset) -> None:
    split = splits.temporal(sample, "2024-01-12")
    bands = splits.evidence_bands(split)
    assert bands.index.tolist() == split.user_ids.tolist()
    assert bands.cat.categories.tolist() == ["cold", "warm", "hot"]
    train = split.train
    rejected = train.recommendations[train.recommendations["response"] == "rejected"]
    rows = pd.concat([frame[["user_id", "habit_id"]] for frame in (train.adoptions, train.habit_tracking, rejected)])
    acted = rows.drop_duplicates().groupby("user_id").size().reindex(split.user_ids, fill_value=0)
    assert (bands == pd.cut(acted, [-1, 0, 9, np.inf], labels=["cold", "warm", "hot"])).all()
    assert bands.nunique() == 2, "warm and hot: on the day of registration everybody answers something"
    assert set(splits.evidence_bands(hold_out_users(sample, 0.2))) == {"cold"}, "nothing is known of held-out users"


def test_users_who_are_held_out_have_their_profile_only(sample: Dataset) -> None:
    split = hold_out_users(sample, 0.25, seed=3)
    assert len(split.user_ids) == 50
    for name in WHEN:
        assert not split.train.table(name)["user_id"].isin(split.user_ids).any(), name
    assert len(split.train.users) == 200
    assert split.relevant.sum() == sample.adoptions["user_id"].isin(split.user_ids).sum()
    assert split.seen.sum() == sample.users.set_index("user_id").loc[split.user_ids, "existing_habits"].map(len).sum()
    again = hold_out_users(sample, 0.25, seed=3)
    assert (again.user_ids == split.user_ids).all()
    assert (hold_out_users(sample, 0.25, seed=4).user_ids != split.user_ids).any()
    with pytest.raises(ValueError, match="leaves 0 to hold out"):
        hold_out_users(sample, 0.001)
    with pytest.raises(ValueError, match="between 0 and 1"):
        hold_out_users(sample, float("nan"))


def _completed_before(dataset: Dataset, until: Day) -> pd.DataFrame:
    rows = dataset.habit_tracking
    rows = rows[(rows["status"] == "done") & (rows["date"] < pd.Timestamp(until))]
    return rows.groupby("user_id").size().reindex(dataset.users["user_id"], fill_value=0).to_frame("completed")


def _given_up(dataset: Dataset, until: Day) -> pd.DataFrame:
    """Looks honest: only adoptions before the day. But whether they end is not known yet."""
    rows = dataset.adoptions
    rows = rows[rows["adopted_at"] < pd.Timestamp(until, tz="UTC")]
    ended = rows["abandoned_at"].notna().groupby(rows["user_id"]).sum()
    return _completed_before(dataset, until).assign(given_up=ended.reindex(dataset.users["user_id"], fill_value=0))


def _all_done(dataset: Dataset, until: Day) -> np.ndarray:
    rows = dataset.habit_tracking
    done = rows[rows["status"] == "done"].groupby("user_id").size()
    return done.reindex(dataset.users["user_id"], fill_value=0).to_numpy()


def _last_day_of_the_data(dataset: Dataset, until: Day) -> pd.Series:
    last = dataset.habit_tracking["date"].max()
    return pd.Series(last, index=dataset.users["user_id"], name="last day")


def _standardised_age(dataset: Dataset, until: Day) -> pd.DataFrame:
    """The fitted mean knows people who have not registered yet."""
    age = dataset.users.set_index("user_id")["age"]
    return ((age - age.mean()) / age.std()).to_frame("age")


def _active_users_only(dataset: Dataset, until: Day) -> pd.DataFrame:
    return dataset.habit_tracking.groupby("user_id").size().clip(upper=1).to_frame("active")


@pytest.mark.parametrize(
    ("features", "found"),
    [
        (_completed_before, []),
        (_given_up, ["given_up"]),
        (_all_done, ["column 0"]),
        (_last_day_of_the_data, ["last day"]),
        (_standardised_age, ["age"]),
        (_active_users_only, ["(rows)"]),
    ],
)
def test_6_1_f_a_feature_that_is_the_future_is_caught(sample: Dataset, features: splits.Features, found: list) -> None:
    assert leaks(features, sample, "2024-01-12") == found


def test_6_1_f_a_leak_is_caught_also_where_these_data_end_too_early_to_show_it(sample: Dataset) -> None:
    """Looks three to six weeks ahead, where the data have no rows: moved there, they are seen."""

    def returned(dataset: Dataset, until: Day) -> pd.DataFrame:
        ahead = (dataset.habit_tracking["date"] - pd.Timestamp(until)).dt.days
        users = dataset.habit_tracking["user_id"][ahead.between(21, 42)].unique()
        return dataset.users.set_index("user_id").assign(returned=lambda frame: frame.index.isin(users))[["returned"]]

    until = sample.habit_tracking["date"].max() - pd.Timedelta(days=3)
    assert not returned(sample, until)["returned"].any()
    assert leaks(returned, sample, until) == ["returned"]


def test_6_1_f_the_matrix_that_models_learn_from_does_not_leak(sample: Dataset) -> None:
    assert leaks(lambda dataset, until: Interactions.read(dataset, until).matrix, sample, "2024-01-12") == []
    assert leaks(lambda dataset, until: Interactions.read(dataset, None).matrix, sample, "2024-01-12") != []


@pytest.mark.parametrize(
    "model",
    [Popularity, AsWritten, ContentModel, SuccessModel, *(lambda m=m: CollaborativeModel(m) for m in ("svd", "ease"))],
)
def test_6_1_f_no_model_learns_anything_of_the_future(model, sample: Dataset) -> None:
    """Nor from what people say who are not there yet, such as the habits that they hold."""
    assert leaks(lambda dataset, until: model().fit(dataset, until).score(), sample, "2024-01-12") == []


def test_1_3_1_e_no_feature_changes_with_who_registers_later(sample: Dataset) -> None:
    assert leaks(user_features, sample, "2024-01-08") == []


def test_movielens_is_a_dataset_like_any_other(shared_data: Path) -> None:
    folder = shared_data / "movielens-latest-small"
    dataset = load_movielens(folder)
    check(dataset)
    assert (len(dataset.users), len(dataset.habits), len(dataset.adoptions)) == (610, 9742, 48580)
    assert len(load_movielens(folder, at_least=0.5).adoptions) == 100_836
    assert dataset.habits["genres"].iloc[0] == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]
    split: Split = splits.temporal(dataset, "2016-01-01")
    assert split.relevant.shape == (len(split.user_ids), 9742)
    assert split.relevant.nnz > 0


def test_a_folder_that_is_no_movielens_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ratings\.csv"):
        load_movielens(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,stars\n1,1,4\n")
    with pytest.raises(DatasetError, match="lacks rating, timestamp; it has userid, movieid, stars"):
        load_movielens(tmp_path)
