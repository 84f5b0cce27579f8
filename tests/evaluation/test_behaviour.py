"""Analyses of behaviour, against slow recomputation from the definitions."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.importers import import_source
from habitlab.evaluation import behaviour
from habitlab.simulation import simulate

from .people import ordinary_people

QUICK = {"resamples": 60}


@pytest.fixture(scope="module")
def dataset():
    return ordinary_people(80, 120)


def utc(*texts):
    return pd.to_datetime(pd.Series(texts), utc=True)


def rows(user, habit, status, first="2024-01-01"):
    """Tracking rows of consecutive days from a word like "dm.su": done, missed, no row, skipped, unknown."""
    words = {"d": "done", "m": "missed", "s": "skipped", "u": "unknown"}
    days = pd.date_range(first, periods=len(status))
    return pd.DataFrame(
        [(user, habit, day, words[letter]) for day, letter in zip(days, status, strict=True) if letter != "."],
        columns=["user_id", "habit_id", "date", "status"],
    )


def small(tracking, adoptions=None, **habit):
    users = sorted(set(tracking["user_id"]))
    habits = sorted(set(tracking["habit_id"]))
    return Dataset(
        users=pd.DataFrame({"user_id": users, "zone": "UTC"}),
        habits=pd.DataFrame({"habit_id": habits, "target": "1/1", **habit}),
        habit_tracking=tracking,
        **({} if adoptions is None else {"adoptions": adoptions}),
    )


class TestHoldings:
    def test_completion_leaves_out_skipped_and_unknown_days(self):
        held = behaviour.holdings(small(rows("u", "h", "dmsu.d")))
        assert held.pairs["counted"].tolist() == [3]
        assert held.pairs["completion"].tolist() == [pytest.approx(2 / 3)]

    def test_a_pair_without_a_counted_day_has_no_completion(self):
        assert behaviour.holdings(small(rows("u", "h", "su"))).pairs["completion"].isna().all()

    def test_days_count_from_the_local_day_of_adoption(self):
        """23:30 UTC on 31 December is 1 January in Tokyo."""
        adoptions = pd.DataFrame({"user_id": ["u"], "habit_id": ["h"], "adopted_at": utc("2023-12-31 23:30")})
        dataset = small(rows("u", "h", "ddd"), adoptions)
        tokyo = dataset.replace(users=dataset.users.assign(zone="Asia/Tokyo"))
        assert behaviour.holdings(dataset).day.tolist() == [1, 2, 3]
        assert behaviour.holdings(tokyo).day.tolist() == [0, 1, 2]

    def test_a_habit_taken_up_again_is_a_pair_of_its_own(self):
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "u"],
                "habit_id": ["h", "h"],
                "adopted_at": utc("2024-01-01 12:00", "2024-01-06 12:00"),
                "abandoned_at": utc("2024-01-03 12:00", None),
            }
        )
        held = behaviour.holdings(small(rows("u", "h", "dmd.mdd"), adoptions))
        assert held.pairs["adopted"].diff().tolist()[1] == 5
        assert held.pairs["ended"].tolist() == [True, False]
        assert held.pairs["counted"].tolist() == [3, 2]  # the missed day in between belongs to neither
        assert held.day.tolist() == [0, 1, 2, 0, 1]

    def test_followup_ends_with_the_data(self):
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "v"],
                "habit_id": ["h", "h"],
                "adopted_at": utc("2024-01-01", "2024-01-02"),
                "abandoned_at": utc(None, "2024-03-01"),
            }
        )
        tracking = pd.concat([rows("u", "h", "dddd"), rows("v", "h", "dd", "2024-01-02")])
        held = behaviour.holdings(small(tracking, adoptions)).pairs
        assert held["followup"].tolist() == [3, 2]
        assert held["exit_day"].tolist() == [3, 2]
        assert not held["ended"].any()  # given up only after the data end

    def test_without_adoptions_every_tracked_pair_counts(self):
        held = behaviour.holdings(small(rows("u", "h", "dm")))
        assert held.pairs["adopted"].isna().all()
        assert held.pairs["completion"].tolist() == [0.5]

    def test_agrees_with_a_slow_count(self, dataset):
        pairs = behaviour.holdings(dataset).pairs
        tracking = dataset.habit_tracking.groupby(["user_id", "habit_id"])["status"]
        for row in pairs.sample(40, random_state=0).itertuples():
            key = (row.user_id, row.habit_id)
            status = tracking.get_group(key) if key in tracking.groups else pd.Series(dtype=str)
            assert row.done == (status == "done").sum()
            assert row.counted == status.isin(["done", "missed"]).sum()


class TestAdoptionCycle:
    def test_survivors_and_all(self):
        """Of two users one gives up after three days: among the active 100 % is left, among all half."""
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "v"],
                "habit_id": ["h", "h"],
                "adopted_at": utc("2024-01-01", "2024-01-01"),
                "abandoned_at": utc(None, "2024-01-03"),
            }
        )
        tracking = pd.concat([rows("u", "h", "dddddd"), rows("v", "h", "mmm")])
        table = behaviour.adoption_cycle(small(tracking, adoptions), days=8, **QUICK).set_index(["curve", "day"])
        active, everyone = table.loc["still active"], table.loc["all adopters"]
        assert active["estimate"].tolist()[:6] == [0.5, 0.5, 0.5, 1, 1, 1]
        assert everyone["estimate"].tolist()[:6] == [0.5] * 6
        assert everyone["pairs"].tolist() == [2] * 6 + [0, 0]
        assert active["estimate"][6:].isna().all()

    @pytest.mark.parametrize(
        ("status", "day_2", "pairs"),
        [("dd", 0.5, 2), ("dd.", 0.5, 2), ("ddd", 1, 2), ("ddm", 0.5, 2), ("dds", 1, 1), ("ddu", 1, 1)],
    )
    def test_the_day_of_giving_up_is_missed_unless_it_has_a_row(self, status, day_2, pairs):
        """Most sources log nothing on that day: the pair is still one of all adopters."""
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "v"],
                "habit_id": ["h", "h"],
                "adopted_at": utc("2024-01-01", "2024-01-01"),
                "abandoned_at": utc(None, "2024-01-03"),
            }
        )
        tracking = pd.concat([rows("u", "h", "dddd"), rows("v", "h", status)])
        table = behaviour.adoption_cycle(small(tracking, adoptions), days=4, **QUICK).set_index(["curve", "day"])
        everyone = table.loc["all adopters"]
        assert everyone["estimate"].tolist() == [1, 1, day_2, 0.5]
        assert everyone["pairs"].tolist() == [2, 2, pairs, 2]

    def test_a_habit_given_up_on_the_last_day_is_missed_there(self):
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "v"],
                "habit_id": ["h", "h"],
                "adopted_at": utc("2024-01-01", "2024-01-01"),
                "abandoned_at": utc(None, "2024-01-03"),
            }
        )
        tracking = pd.concat([rows("u", "h", "ddd"), rows("v", "h", "dd")])
        table = behaviour.adoption_cycle(small(tracking, adoptions), days=4, **QUICK).set_index(["curve", "day"])
        assert table.loc["all adopters", "pairs"].tolist() == [2, 2, 2, 0]

    def test_leaving_early_in_the_simulated_world_lowers_the_unconditional_curve(self):
        """Every pair followed so far counts on each day, whether it has ended or not."""
        world = simulate(150, 60, seed=3, retention="wild")
        table = behaviour.adoption_cycle(world, days=10, **QUICK).set_index(["curve", "day"])
        assert table.loc["all adopters", "estimate"][1] < 0.1 < table.loc["still active", "estimate"][1]
        pairs = behaviour.cycle_data(world).pairs
        assert table.loc["all adopters", "pairs"][1] > 0.9 * (pairs["followup"] >= 1).sum()

    @pytest.mark.parametrize("column", [[], ["abandoned_at"]])
    def test_without_ends_there_is_no_curve_of_all_adopters(self, column):
        """It would be that of the still active under another name."""
        adoptions = pd.DataFrame({"user_id": ["u"], "habit_id": ["h"], "adopted_at": utc("2024-01-01")})
        for name in column:
            adoptions[name] = utc(None)
        table = behaviour.adoption_cycle(small(rows("u", "h", "ddm"), adoptions), days=3, **QUICK)
        assert table["curve"].unique().tolist() == ["still active"]

    def test_the_first_day_of_an_imported_adoption_is_done_by_construction(self):
        adoptions = pd.DataFrame(
            {
                "user_id": ["u", "v", "w"],
                "habit_id": ["h", "h", "h"],
                "adopted_at": utc("2024-01-01", "2024-01-01", "2024-01-01"),
                "abandoned_at": utc(None, "2024-01-03", "2024-01-01"),
                "source": ["imported", "chosen", "imported"],
            }
        )
        tracking = pd.concat([rows("u", "h", "dddd"), rows("v", "h", "mm")])
        table = behaviour.adoption_cycle(small(tracking, adoptions), days=4, **QUICK).set_index(["curve", "day"])
        assert table.loc["still active", "estimate"].tolist() == [0, 0.5, 1, 1]
        assert table.loc["all adopters", "pairs"].tolist() == [1, 3, 3, 3]
        assert table.loc["all adopters", "estimate"].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])

    def test_only_daily_habits_count(self, dataset):
        daily = dataset.habits.loc[dataset.habits["target"] == "1/1", "habit_id"]
        held = behaviour.cycle_data(dataset)
        assert set(held.pairs["habit_id"]) <= set(daily)
        assert held.pair.max() < len(held.pairs)

    def test_bands_hold_the_estimate(self, dataset):
        table = behaviour.adoption_cycle(dataset, days=20, **QUICK)
        assert (table["ci_low"] < table["estimate"]).all()
        assert (table["estimate"] < table["ci_high"]).all()

    @pytest.mark.parametrize("survivors", [False, True])
    def test_dip_is_a_difference_of_means_over_days(self, dataset, survivors):
        held = behaviour.cycle_data(dataset)
        frame = pd.DataFrame({"day": held.day, "done": held.done, "pair": held.pair})
        frame = frame.join(held.pairs[["exit_day", "followup"]], on="pair")
        frame = frame[frame["exit_day" if survivors else "followup"] >= 35]
        share = frame.groupby("day")["done"].mean()
        dip, before, after = (share.loc[low:high].mean() for low, high in ((7, 14), (1, 3), (22, 35)))
        found = behaviour.dip(held, survivors=survivors, **QUICK)
        assert found.estimate == pytest.approx([before - dip, after - dip])

    def test_staying_weights_are_one_over_the_chance_to_be_held(self, dataset):
        held = behaviour.cycle_data(dataset)
        weights = behaviour.staying_weights(held, 10)
        pairs = held.pairs[held.pairs["followup"] >= 10]
        chance = dict.fromkeys(pairs.index, 1.0)
        for today in range(11):
            still = [pair for pair in pairs.index if pairs.loc[pair, "exit_day"] >= today]
            assert weights[still, today] == pytest.approx([1 / chance[pair] for pair in still])
            groups: dict[int, list[int]] = {}
            for pair in still:
                earlier = held.done[(held.pair == pair) & (held.day < today)]
                share = earlier.mean() if len(earlier) else 0.5
                groups.setdefault(int(share >= 1 / 3) + int(share >= 2 / 3), []).append(pair)
            for group in groups.values():
                left = [pair for pair in group if pairs.loc[pair, "ended"] and pairs.loc[pair, "exit_day"] == today]
                for pair in group:
                    chance[pair] *= 1 - len(left) / len(group)
        assert (weights[held.pairs["followup"] < 10] == 0).all()

    def test_weights_undo_that_those_who_miss_give_up(self):
        """Half do each day with a chance of 0.9, half of 0.3, always the same; the latter give up week by week."""
        draw, pairs, last = np.random.default_rng(0), 4000, 35
        chance = np.repeat([0.9, 0.3], pairs // 2)
        gives_up = (chance < 0.5) & (draw.random(pairs) < 0.7)
        exit_day = np.where(gives_up, draw.integers(4, 30, pairs), last)
        pair, day = (grid.ravel() for grid in np.meshgrid(np.arange(pairs), np.arange(last + 1), indexing="ij"))
        here = day <= exit_day[pair]
        pair, day = pair[here], day[here]
        table = pd.DataFrame({"user": np.arange(pairs), "exit_day": exit_day, "ended": gives_up, "followup": last})
        held = behaviour.Holdings(table, pair, day, draw.random(len(pair)) < chance[pair])
        plain, weighted = (behaviour.dip(held, weighted=w, **QUICK).estimate for w in (False, True))
        assert plain[0] < -0.02
        assert plain[1] > 0.1
        assert np.abs(weighted).max() < 0.02


class TestTime:
    def test_hours_are_local(self):
        tracking = rows("u", "h", "d").assign(at=utc("2024-01-01 22:30"))
        dataset = small(tracking).replace(users=pd.DataFrame({"user_id": ["u"], "zone": ["Asia/Tokyo"]}))
        table = behaviour.time_of_day(dataset, **QUICK)
        assert table.loc[table["estimate"] > 0, "hour"].tolist() == [7]
        assert table.loc[table["peak"], "hour"].tolist() == [6, 7, 19, 20]
        assert behaviour.peak_share(dataset).estimate[0] == 1

    def test_shares_add_up(self, dataset):
        table = behaviour.time_of_day(dataset, **QUICK)
        assert table["estimate"].sum() == pytest.approx(1)
        assert behaviour.peak_share(dataset, **QUICK).estimate[0] == pytest.approx(
            table.loc[table["peak"], "estimate"].sum()
        )

    def test_weekday(self, dataset):
        tracking = dataset.habit_tracking
        tracking = tracking[tracking["status"].isin(["done", "missed"])]
        expected = (tracking["status"] == "done").groupby(tracking["date"].dt.day_of_week).mean()
        table = behaviour.weekday(dataset, **QUICK)
        assert table["estimate"].to_numpy() == pytest.approx(expected.to_numpy())
        assert table["name"].tolist()[0] == "Monday"


class TestRetention:
    def test_is_the_curve_of_scipy(self, dataset):
        pairs = behaviour.holdings(dataset).pairs
        times, ended = pairs["exit_day"].to_numpy(), pairs["ended"].to_numpy()
        oracle = stats.ecdf(stats.CensoredData(uncensored=times[ended], right=times[~ended])).sf
        table = behaviour.retention(dataset, **QUICK)
        assert table["estimate"].to_numpy() == pytest.approx(oracle.evaluate(np.arange(90)))
        assert table["at_risk"].tolist() == [int((times >= day).sum()) for day in range(90)]

    def test_by_category_each_has_a_curve(self, dataset):
        table = behaviour.retention_by(dataset, "category", **QUICK)
        assert set(table["group"]) == set(dataset.habits["category"].astype(str))
        assert (table["day"] == 90).all()

    def test_short_data_say_so(self):
        with pytest.raises(MissingColumn, match="90 days"):
            behaviour.retention_by(ordinary_people(30, 60), "category", **QUICK)


class TestStarts:
    def test_agrees_with_a_slow_reading_of_the_definition(self, dataset):
        held = behaviour.holdings(dataset)
        tracking = dataset.habit_tracking.groupby(["user_id", "habit_id"])
        begun = behaviour.starts(held).set_index("user_id")
        for user, pairs in held.pairs.groupby("user_id"):
            first = pairs[pairs["adopted"] == pairs["adopted"].min()]
            if (first["followup"] < 49).all():
                assert user not in begun.index
                continue
            done = scheduled = 0.0
            for pair in first.itertuples():
                key = (pair.user_id, pair.habit_id)
                own = tracking.get_group(key) if key in tracking.groups else dataset.habit_tracking.head(0)
                for day in range(22, 50):
                    date = pd.Timestamp(1970, 1, 1) + pd.Timedelta(days=pair.adopted + day)
                    status = own.loc[own["date"] == date, "status"].tolist()
                    if pair.ended and day > pair.exit_day:
                        scheduled += pair.occasions_a_day
                    elif status and status[0] in ("done", "missed"):
                        done, scheduled = done + (status[0] == "done"), scheduled + 1
            if scheduled == 0:
                assert user not in begun.index
                continue
            assert begun.loc[user, "difficulty"] == pytest.approx(first["difficulty"].mean())
            assert begun.loc[user, "success"] == (done >= 0.6 * scheduled - 1e-9)

    def test_frame(self, dataset):
        table = behaviour.difficulty_progression(dataset, **QUICK)
        assert table["estimate"].between(1, 5).all()
        assert table.loc[table["adoption"] == "first", "users"].sum() == len(
            behaviour.starts(behaviour.holdings(dataset))
        )


class TestConcurrent:
    def test_agrees_with_a_slow_count(self, dataset):
        pairs = behaviour.holdings(dataset).pairs
        counts = behaviour.concurrent(pairs)
        ends = np.where(pairs["ended"], pairs["adopted"] + pairs["exit_day"], np.inf)
        for row in range(0, len(pairs), 5):
            start = pairs["adopted"][row]
            same = pairs["user"] == pairs["user"][row]
            expected = (same & (pairs["adopted"] <= start) & ((ends > start) | (pairs["adopted"] == start))).sum()
            assert counts[row] == expected

    def test_giving_up_later_does_not_lower_the_count(self):
        pairs = pd.DataFrame(
            {"user": 0, "adopted": [0.0, 0.0, 5.0], "exit_day": [9.0, 3.0, 1.0], "ended": [True, True, True]}
        )
        assert behaviour.concurrent(pairs).tolist() == [2, 2, 2]


class TestHabits:
    def test_completion_is_a_mean_over_pairs(self, dataset):
        pairs = behaviour.holdings(dataset).pairs
        expected = pairs.groupby(pairs["category"].astype(str))["completion"].mean()
        table = behaviour.completion_by(dataset, "category", **QUICK).set_index("group")
        assert table["estimate"].to_dict() == pytest.approx(expected.to_dict())
        assert table["pairs"].sum() == pairs["completion"].notna().sum()

    def test_duration_has_bands_raw_and_standardised(self, dataset):
        table = behaviour.duration(dataset, **QUICK)
        assert table["kind"].value_counts().to_dict() == {"raw": 5, "standardised": 5}
        assert table["group"].unique().tolist() == ["under 5", "5 to 15", "15 to 20", "20 to 30", "over 30"]

    def test_description_is_read_where_the_wording_was_drawn_by_lot(self, dataset):
        shown = dataset.recommendations
        by_lot = shown[shown["policy"] == "random"]
        accepted = (by_lot["response"] == "accepted").groupby(by_lot["description_variant"].astype(str)).mean()
        table = behaviour.description(dataset, **QUICK).set_index("comparison")
        assert table.loc["randomised", "estimate"] == pytest.approx(accepted["clear"] / accepted["vague"] - 1)
        assert table.loc["all", "pairs"] == len(shown)

    def test_demographics(self, dataset):
        table = behaviour.demographics(dataset, permutations=99, **QUICK)
        assert table["attribute"].tolist() == ["gender", "age_band"]
        assert (table["q_value"] >= table["p_value"]).all()

    @pytest.mark.parametrize("age", [{}, {"age": np.nan}])
    def test_ages_known_as_bands_only(self, dataset, age):
        bands = np.where(np.arange(len(dataset.users)) % 2, "<30", ">=30")
        users = dataset.users.drop(columns="age").assign(age_band=bands, **age)
        users.loc[users.index[:5], "age_band"] = None
        pairs = behaviour.demographics_data(dataset.replace(users=users))
        of_user = pairs.groupby("user_id")["age_band"].first()
        expected = users.set_index("user_id")["age_band"].reindex(of_user.index)
        assert of_user.isna().tolist() == expected.isna().tolist()
        assert of_user.dropna().tolist() == expected.dropna().tolist()
        assert behaviour.attributes(pairs) == ["gender", "age_band"]

    def test_years_come_before_bands(self, dataset):
        pairs = behaviour.demographics_data(dataset.replace(users=dataset.users.assign(age_band="<30")))
        assert set(pairs["age_band"]) == {"18 to 24", "25 to 39", "40 to 59", "60 and over"}

    def test_bands_of_real_people_are_read(self, shared_data):
        people = import_source(shared_data / "lifesnaps").dataset
        assert set(behaviour.demographics_data(people)["age_band"].dropna()) == {"<30", ">=30"}

    @pytest.mark.parametrize(
        ("by", "column"), [("minutes_band", "minutes"), ("frequency", "target"), ("difficulty", "difficulty")]
    )
    def test_what_is_missing_is_said_in_the_contract_s_words(self, dataset, by, column):
        for less in (dataset.habits.drop(columns=column), dataset.habits.assign(**{column: None})):
            for analysis in (behaviour.completion_by, behaviour.retention_by):
                with pytest.raises(MissingColumn, match=f"^needs `{column}` in `habits`"):
                    analysis(dataset.replace(habits=less), by)


@pytest.mark.parametrize(
    ("analysis", "drop"),
    [
        (behaviour.adoption_cycle, {"adoptions": None}),
        (behaviour.time_of_day, {"habit_tracking": "at"}),
        (behaviour.time_of_day, {"users": "zone"}),
        (behaviour.retention, {"adoptions": "abandoned_at"}),
        (behaviour.difficulty_progression, {"habits": "difficulty"}),
        (behaviour.duration, {"habits": "minutes"}),
        (behaviour.duration, {"habits": "category"}),
        (behaviour.description, {"recommendations": None}),
        (behaviour.description, {"recommendations": "description_variant"}),
        (behaviour.demographics, {"habits": "category"}),
        (behaviour.weekday, {"habit_tracking": None}),
    ],
)
def test_what_is_missing_is_said(dataset, analysis, drop):
    """A report skips the analysis and shows this sentence."""
    ((table, column),) = drop.items()
    frame = dataset.table(table)
    less = dataset.replace(**{table: frame.head(0) if column is None else frame.drop(columns=column)})
    with pytest.raises(MissingColumn, match=f"needs .*{column or table}"):
        analysis(less)
