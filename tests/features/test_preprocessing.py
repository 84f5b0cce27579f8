"""Requirements 1.2.1 and 1.2.2 line by line, and pitfalls D13-D18 and D21 of the overview's sample code."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from sklearn.tree import DecisionTreeRegressor

import habitlab
from habitlab.dataset import Dataset
from habitlab.dataset.derived import COMMITMENT_BANDS
from habitlab.dataset.schema import coerce, empty_table
from habitlab.dataset.vocabulary import Activity, Category, Level
from habitlab.features.preprocessing import ORDINALS, ORDINALS_VERSION, SIMILAR, Preprocessor, _leaf

TRUSTED = ["habitlab.features.preprocessing.Preprocessor"]


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return habitlab.open_dataset()


@pytest.fixture(scope="module")
def fitted(sample: Dataset) -> Preprocessor:
    return Preprocessor().fit(sample.users)


def people(**columns: list) -> pd.DataFrame:
    """A users table of these columns, in the dtypes of the contract."""
    size = len(next(iter(columns.values())))
    return coerce("users", pd.DataFrame({"user_id": [f"u{i}" for i in range(size)], **columns}))


# --- 1.2.1 what is missing ---


def test_1_2_1_a_missing_choice_is_the_empty_set_with_an_indicator(fitted: Preprocessor) -> None:
    features = fitted.transform(people(gender=["female", None], age=[30, 30]))
    genders = features.filter(like="gender=")
    assert genders["gender=female"].tolist() == [1, 0]
    assert genders.sum(axis=1).tolist() == [1, 0]
    assert features["gender missing"].tolist() == [0, 1]


def test_1_2_1_a_missing_list_and_empty_list_differ(fitted: Preprocessor) -> None:
    features = fitted.transform(people(improvement_areas=[["diet", "health"], [], None]))
    areas = features.filter(like="improvement_areas=")
    assert areas.sum(axis=1).tolist() == [2, 0, 0]
    assert areas.loc[0, ["improvement_areas=diet", "improvement_areas=health"]].tolist() == [1, 1]
    assert features["improvement_areas missing"].tolist() == [0, 0, 1]


def test_1_2_1_a_nothing_is_left_missing_and_the_input_stays_as_it_is(sample: Dataset) -> None:
    users = sample.users
    assert users.drop(columns="barriers").isna().sum().sum() > 50
    before, ages, areas = users.copy(deep=True), users["age"].to_numpy(), users["improvement_areas"].iloc[0]
    features = Preprocessor().fit(users).transform(users)
    assert features.isna().sum().sum() == 0
    assert_frame_equal(users, before)
    assert np.shares_memory(users["age"].to_numpy(), ages)
    assert users["improvement_areas"].iloc[0] is areas
    features.iloc[:] = -1.0
    assert_frame_equal(users, before)


def groups(known: int, seed: int = 0) -> pd.DataFrame:
    """Beginners of about 20 and advanced people of about 60: a missing age is known by the company it keeps."""
    ages = np.random.default_rng(seed).integers(-4, 5, size=2 * known)
    levels = ["beginner"] * known + ["advanced"] * known
    return people(age=ages + np.repeat([20, 60], known), experience_level=levels, time_commitment=[15.0] * 2 * known)


def test_1_2_1_b_missing_age_is_the_median_of_similar_profiles() -> None:
    train = groups(known=200)
    model = Preprocessor().fit(train)
    low, high = model.ranges_["age"]
    unknown = people(age=[None, None], experience_level=["beginner", "advanced"])
    features = model.transform(unknown)
    medians = train.groupby("experience_level", observed=True)["age"].median()
    years = features["age"] * (high - low) + low
    assert years.tolist() == pytest.approx([medians["beginner"], medians["advanced"]], abs=2)
    assert features["age missing"].tolist() == [1, 1]
    assert model.encode(unknown).filled["age"] == 2


def test_1_2_1_b_a_fill_is_the_median_of_its_leaf_and_no_leaf_is_small(sample: Dataset) -> None:
    model, users = Preprocessor().fit(sample.users), sample.users
    tree, (low, high) = model.similar_["age"], model.ranges_["age"]
    blank = model.transform(users.assign(age=np.nan))
    words = blank[[name for name in blank if not name.startswith(("age", "day_start", "time_commitment"))]]
    profiles = np.column_stack([np.zeros(len(words)), words.to_numpy()])
    leaf = _leaf(tree, profiles)
    assert len(np.unique(leaf)) > 1
    for here in np.unique(leaf):
        ages = users["age"][leaf == here].dropna()
        assert len(ages) >= SIMILAR
        assert (blank["age"][leaf == here] * (high - low) + low).to_numpy() == pytest.approx(ages.median())
    known = users["age"].notna().to_numpy()
    oracle = DecisionTreeRegressor(criterion="absolute_error", min_samples_leaf=30, max_leaf_nodes=16, random_state=0)
    oracle.fit(profiles[known], users["age"][known])
    assert tree["median"][leaf] == pytest.approx(oracle.predict(profiles))


def test_1_2_1_b_few_people_get_the_median_of_all() -> None:
    train = groups(known=SIMILAR - 1)
    model = Preprocessor().fit(train)
    low, high = model.ranges_["age"]
    fill = model.transform(people(age=[None], experience_level=["beginner"]))["age"] * (high - low) + low
    assert fill.item() == pytest.approx(train["age"].median())


def test_1_2_1_b_without_any_known_value_the_contract_gives_range_and_middle() -> None:
    model = Preprocessor().fit(people(age=[None, None]))
    assert model.ranges_["age"] == (13, 120)
    assert model.transform(people(age=[None, 120]))["age"].tolist() == [0.5, 1]


def test_1_2_1_b_a_sentinel_in_test_rows_moves_nothing(sample: Dataset) -> None:
    train, test = sample.users.iloc[:150], sample.users.iloc[150:]
    model = Preprocessor().fit(train)
    learnt, plain = model.parameters_hash(), model.transform(test)
    sentinel = test.assign(age=test["age"].where(np.arange(len(test)) != 0, 119.0))
    marked = model.transform(sentinel)
    assert model.parameters_hash() == learnt == Preprocessor().fit(train).parameters_hash()
    assert_frame_equal(marked.iloc[1:], plain.iloc[1:])
    assert Preprocessor().fit(pd.concat([train, sentinel])).parameters_hash() != learnt


# --- 1.2.2 encoding and scaling ---


def test_1_2_2_a_unknown_category_is_ignored_and_counted(fitted: Preprocessor) -> None:
    strange = pd.DataFrame(
        {"user_id": ["a", "b"], "gender": ["robot", "male"], "improvement_areas": [["diet", "gossip", "Diet"], None]}
    )
    found = fitted.encode(strange)
    assert found.unknown == {"gender": 1, "improvement_areas": 2}
    assert found.features.filter(like="gender=").sum(axis=1).tolist() == [0, 1]
    assert found.features["gender missing"].tolist() == [0, 0]
    assert found.features.filter(like="improvement_areas=").sum(axis=1).tolist() == [1, 0]
    assert fitted.encode(strange).unknown == found.unknown, "counting twice counts the same: nothing is remembered"


def test_1_2_2_a_every_word_of_the_contract_has_its_column(fitted: Preprocessor, sample: Dataset) -> None:
    names = list(fitted.get_feature_names_out())
    assert [f"improvement_areas={word}" for word in Category] == [
        n for n in names if n.startswith("improvement_areas=")
    ]
    assert [f"activity_preferences={word}" for word in Activity] == [n for n in names if n.startswith("activity_pref")][
        :-1
    ]
    assert len(set(names)) == len(names)


def test_1_2_2_a_columns_and_their_order_depend_on_no_data(fitted: Preprocessor, sample: Dataset) -> None:
    names = list(fitted.get_feature_names_out())
    one = sample.users.iloc[[3]]
    assert list(Preprocessor().fit(one).get_feature_names_out()) == names
    assert list(fitted.transform(one[one.columns[::-1]]).columns) == names
    assert list(fitted.transform(people(age=[20])).columns) == names
    assert fitted.transform(empty_table("users")).shape == (0, len(names))


def test_1_2_2_b_levels_keep_their_order(fitted: Preprocessor) -> None:
    levels = fitted.transform(people(difficulty_preference=[*Level, None], experience_level=[*Level, None]))
    for name in ("difficulty_preference", "experience_level"):
        assert levels[name].tolist()[:3] == [0, 0.5, 1]
        assert levels[f"{name} missing"].tolist() == [0, 0, 0, 1]


def test_1_2_2_b_time_commitment_is_a_number_and_a_band_in_the_same_order(fitted: Preprocessor) -> None:
    features = fitted.transform(people(time_commitment=[5.0, 10.0, 20.0, 21.0]))
    assert features["time_commitment"].is_monotonic_increasing
    assert features["time_commitment band"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_1_2_2_b_difficulty_of_habits_and_of_people_share_one_scale(sample: Dataset) -> None:
    model = Preprocessor("habits").fit(sample.habits[sample.habits["difficulty"] < 4])
    harder = sample.habits.drop_duplicates("difficulty").sort_values("difficulty")
    assert model.transform(harder)["difficulty"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_1_2_2_b_the_mapping_is_versioned_and_kept(fitted: Preprocessor) -> None:
    kept = fitted.parameters()["ordinals"]
    assert kept["version"] == ORDINALS_VERSION == 1
    assert {name: tuple(scale) for name, scale in kept.items() if name != "version"} == ORDINALS
    # Whoever changes a scale must raise the version, and write the new scale here.
    assert ORDINALS == {
        "difficulty_preference": ("beginner", "intermediate", "advanced"),
        "experience_level": ("beginner", "intermediate", "advanced"),
        "time_commitment band": ("very low", "low", "medium", "high"),
        "difficulty": ("1", "2", "3", "4", "5"),
        "minutes band": ("under 5", "5 to 15", "15 to 20", "20 to 30", "over 30"),
    }
    assert ORDINALS["time_commitment band"] == COMMITMENT_BANDS


def test_1_2_2_c_ages_13_and_90_are_inside_and_clips_are_counted() -> None:
    model = Preprocessor().fit(people(age=[18, 40, 65]))
    found = model.encode(people(age=[13, 18, 65, 90, None]))
    assert found.features["age"].tolist() == [0, 0, 1, 1, (40 - 18) / (65 - 18)]
    assert found.clipped == {"age": 2}
    assert found.filled["age"] == 1


@pytest.mark.parametrize("table", ["users", "habits"])
def test_1_2_2_c_training_rows_reach_from_0_to_1_without_a_clip(sample: Dataset, table: str) -> None:
    model = Preprocessor(table).fit(sample.table(table))
    found = model.encode(sample.table(table))
    assert found.clipped == found.unknown == {}
    assert found.features.to_numpy().min() == 0
    assert found.features.to_numpy().max() == 1


def test_1_2_2_c_a_constant_number_is_0() -> None:
    model = Preprocessor().fit(people(age=[40, 40]))
    found = model.encode(people(age=[40, 41]))
    assert found.features["age"].tolist() == [0, 0]
    assert found.clipped == {"age": 1}


anyone = st.fixed_dictionaries(
    {
        "age": st.none() | st.integers(13, 120),
        "time_commitment": st.none() | st.floats(0, 1440),
        "gender": st.none() | st.sampled_from(["female", "male", "other", "prefer not to say"]),
        "difficulty_preference": st.none() | st.sampled_from(list(Level)),
        "improvement_areas": st.none() | st.lists(st.sampled_from([c.value for c in Category]), unique=True),
        "goal_set": st.none() | st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(anyone, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_1_2_2_c_law_each_row_for_itself_and_in_0_to_1(fitted: Preprocessor, rows: list, random) -> None:
    users = people(**{name: [row[name] for row in rows] for name in rows[0]})
    before = users.copy(deep=True)
    features = fitted.transform(users)
    assert features.to_numpy().min() >= 0
    assert features.to_numpy().max() <= 1
    order = random.sample(range(len(users)), len(users))
    assert_frame_equal(fitted.transform(users.iloc[order]), features.iloc[order])
    assert_frame_equal(fitted.transform(users.iloc[[0]]), features.iloc[[0]])
    assert_frame_equal(users, before)


RELOAD = """
import sys
from pathlib import Path
import pandas as pd, skops.io
folder, trusted = Path(sys.argv[1]), sys.argv[2:]
for table in ("users", "habits"):
    model = skops.io.load(folder / f"{table}.skops", trusted=trusted)
    model.transform(pd.read_pickle(folder / f"{table}.pkl")).to_pickle(folder / f"{table}-features.pkl")
    print(model.parameters_hash())
"""


def test_1_2_2_e_saved_and_loaded_in_a_new_process_it_transforms_bit_equal(sample: Dataset, tmp_path: Path) -> None:
    models = {table: Preprocessor(table).fit(sample.table(table).iloc[:150]) for table in ("users", "habits")}
    for table, model in models.items():
        skops.io.dump(model, tmp_path / f"{table}.skops")
        assert skops.io.get_untrusted_types(file=tmp_path / f"{table}.skops") == TRUSTED
        sample.table(table).to_pickle(tmp_path / f"{table}.pkl")
    call = [sys.executable, "-c", RELOAD, str(tmp_path), *TRUSTED]
    run = subprocess.run(call, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [model.parameters_hash() for model in models.values()]
    for table, model in models.items():
        reloaded = pd.read_pickle(tmp_path / f"{table}-features.pkl")
        assert_frame_equal(reloaded, model.transform(sample.table(table)), check_exact=True)


def test_1_2_2_e_the_hash_changes_with_what_was_learnt_and_only_then(sample: Dataset) -> None:
    learnt = Preprocessor().fit(sample.users).parameters_hash()
    assert Preprocessor().fit(sample.users.copy()).parameters_hash() == learnt
    assert Preprocessor(leave_out=["gender"]).fit(sample.users).parameters_hash() != learnt
    older = sample.users.assign(age=sample.users["age"] + 1)
    assert Preprocessor().fit(older).parameters_hash() != learnt


# --- bad input, and data that lack columns ---


def test_absent_columns_count_as_missing(fitted: Preprocessor) -> None:
    found = fitted.encode(pd.DataFrame({"user_id": ["a"]}))
    indicators = found.features.filter(like=" missing")
    assert (indicators == 1).all(axis=None)
    assert found.filled["age"] == 1
    bare = Preprocessor("habits").fit(pd.DataFrame({"habit_id": ["h"], "name_en": ["Run"]}))
    assert bare.transform(pd.DataFrame({"habit_id": ["h"]})).notna().all(axis=None)


def test_left_out_columns_have_no_part_at_all(sample: Dataset) -> None:
    model = Preprocessor(leave_out=["gender", "age"]).fit(sample.users)
    assert not [name for name in model.get_feature_names_out() if name.startswith(("gender", "age"))]
    flipped = sample.users.assign(gender=None, age=99.0)
    assert_frame_equal(model.transform(flipped), model.transform(sample.users))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("age", [30.0, np.inf], "age: infinite in 1 rows, first in row 1"),
        ("age", ["young", 3], "age: holds values that are not numbers"),
        ("improvement_areas", [["diet"], '["diet"]'], "improvement_areas: row 1 holds .* not a list"),
        ("improvement_areas", [None, "diet,health"], "improvement_areas: row 1 holds 'diet,health', not a list"),
        ("goal_set", ["yes", "no"], "goal_set: holds values that are neither true nor false"),
    ],
)
def test_values_of_a_wrong_kind_are_named(fitted: Preprocessor, column: str, values: list, message: str) -> None:
    bad = pd.DataFrame({"user_id": ["a", "b"], column: pd.Series(values, dtype=object)})
    for call in (fitted.transform, Preprocessor().fit):
        with pytest.raises(ValueError, match=message):
            call(bad)


def test_wrong_calls_say_what_would_be_right(sample: Dataset) -> None:
    with pytest.raises(ValueError, match="no column 'gendre' in `users`; did you mean 'gender'"):
        Preprocessor(leave_out=["gendre"]).fit(sample.users)
    with pytest.raises(ValueError, match="table is 'users' or 'habits'"):
        Preprocessor("sessions").fit(sample.users)
    with pytest.raises(ValueError, match="needs at least one row"):
        Preprocessor().fit(empty_table("users"))
    with pytest.raises(ValueError, match="target: holds values that are not times per days"):
        Preprocessor("habits").fit(pd.DataFrame({"habit_id": ["h"], "target": ["daily"]}))
