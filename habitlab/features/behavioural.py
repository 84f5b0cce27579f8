"""How a person goes about habits: completion, taste for categories, growing difficulty; and all features of a user.

Formulas are in `docs/features.md`, meanings and sources in `feature_catalogue`. Everything is as of the morning of a
local day `until` (None: after everything): only what happened on earlier days of a user's own calendar counts.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special, stats

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import AdoptionSource, Category, Response
from habitlab.features.as_of import NEVER, Floats, Ints, Tally, answer_days, codes, end_of, event_days
from habitlab.features.days import DONE, MISSED, Day, Days, need, read_days, rows_before
from habitlab.features.interaction import acceptance, answers, engagement_depth
from habitlab.features.profiles import completion_hours, time_of_day
from habitlab.features.rates import RatePrior
from habitlab.features.temporal import summary

CATEGORIES = [category.value for category in Category]
RECENT = 28
"""Days that count as recent."""


def user_features(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Every feature of every user of the dataset, new ones too, as of `until`: index user_id, float64 columns.

    A count is 0 for who did nothing, and NaN where no such event of anybody is known by then (trackers that record no
    sessions, say). What each column means is in `feature_catalogue`.
    """
    end = end_of(dataset, until)
    day = np.datetime64(end, "D")
    index = pd.Index(dataset.users["user_id"], name="user_id")
    history = History(dataset, end)
    parts = [
        history.of_users(np.arange(len(index)), np.full(len(index), end)).set_axis(index),
        completion_rates(dataset, day)[["completion_rate_shrunk", "completion_low", "completion_high"]],
        _streaks(dataset, day, index),
        _held_habits(dataset, end, index),
        difficulty_gradient(dataset, day)[["difficulty_gradient"]],
        category_affinity(dataset, day).add_prefix("affinity_"),
        time_of_day(history.hours).set_index("user_id")[["preferred_hour"]].reindex(index),
        acceptance(dataset, day)[["acceptance_rate_shrunk"]],
        engagement_depth(dataset, day).to_frame(),
    ]
    return pd.concat(parts, axis=1).astype(float)


def pair_history(dataset: Dataset, moments: pd.DataFrame, until: Day | None = None) -> pd.DataFrame:
    """What was known of a user, and of the user with a habit, on the morning of each moment: index of `moments`.

    `moments` has user_id, habit_id and `day` (datetime64, local): the days on which habits were adopted, say. Columns:
    those of `History.of_users` and `History.of_pairs`. Only events before a moment's own day count for it; what is
    fitted to all users (how common categories are, how much tastes differ) comes from events before `until`.
    """
    need(moments, "moments", "user_id", "habit_id", "day")
    end = end_of(dataset, until)
    user = codes(moments["user_id"], dataset.users["user_id"])
    habit = codes(moments["habit_id"], dataset.habits["habit_id"])
    for code, name in ((user, "user"), (habit, "habit")):
        if (code < 0).any():
            raise ValueError(f"no {name} {moments[f'{name}_id'].iloc[int(np.argmin(code))]!r} in this dataset")
    day = moments["day"].to_numpy().astype("datetime64[D]").astype(np.int64)
    history = History(dataset, end)
    # Many moments are of the same user on the same day: those are looked up once.
    once, place = np.unique(np.column_stack([user, day]), axis=0, return_inverse=True)
    of_users = history.of_users(once[:, 0], once[:, 1]).iloc[place].reset_index(drop=True)
    of_pairs = history.of_pairs(user, habit, day)
    return pd.concat([of_users, of_pairs], axis=1).astype(float).set_axis(moments.index)


class History:
    """What users did, ready to be read as of many days at once."""

    def __init__(self, dataset: Dataset, end: int) -> None:
        """Read the events before `end` (days since 1970-01-01); nothing on or after it is ever looked at."""
        self._dataset, self._end = dataset, end
        users, habits = dataset.users["user_id"], dataset.habits["habit_id"]
        self.registered = event_days(dataset, "users", "registered_at")
        self._category = habit_categories(dataset)

        days = read_days(rows_before(dataset.habit_tracking, end))
        user, habit = codes(days.pairs["user_id"], users), codes(days.pairs["habit_id"], habits)
        done, counted = days.status == DONE, (days.status == DONE) | (days.status == MISSED)
        self._tracked = Tally(days.repeat(user), days.day, done=done, counted=counted)
        self._done = Tally(days.repeat(user)[done], days.day[done])
        self._days, self._pairs = days, (user, habit)

        frame = dataset.adoptions
        user, habit = codes(frame["user_id"], users), codes(frame["habit_id"], habits)
        adopted = self._known("adoptions", "adopted_at")
        abandoned = np.where(adopted < NEVER, self._known("adoptions", "abandoned_at"), NEVER)
        self._adopted, self._abandoned = Tally(user, adopted), Tally(user, abandoned)
        self._adopted_pairs = user, habit, adopted

        frame = dataset.recommendations
        shown = self._known("recommendations", "shown_at")
        answered = answer_days(dataset)
        answered = np.where((shown < NEVER) & (answered < end), answered, NEVER)
        user = codes(frame["user_id"], users)
        self._exposed = Tally(user, shown)
        self._accepted, self._rejected = (
            Tally(user[said], answered[said]) for said in answers(dataset, Response.ACCEPTED, Response.REJECTED)
        )
        self._sessions, self._changes, self._ratings = (
            Tally(codes(dataset.table(table)["user_id"], users), self._known(table, column))
            for table, column in (("sessions", "started_at"), ("modifications", "at"), ("feedback", "at"))
        )

    def of_users(self, user: Ints, day: Ints) -> pd.DataFrame:
        """Features of users (n, positions in `dataset.users`) as of days (n, since 1970-01-01): a row each."""
        registered = self.registered[user]
        counted = self._tracked.sum("counted", user, day)
        exposed = self._exposed.count(user, day)
        columns = {
            "days_since_registration": np.where(registered < day, day - registered, np.nan),
            "adopted": _counts(self._adopted, user, day),
            "abandoned": _counts(self._abandoned, user, day, self._adopted),
            "held": _counts(self._adopted, user, day) - self._abandoned.count(user, day),
            "counted_days": counted if self._tracked.size else np.full(len(user), np.nan),
            "completion_rate": _ratio(self._tracked.sum("done", user, day), counted),
            "completion_rate_recent": _ratio(
                self._tracked.sum("done", user, day, RECENT), self._tracked.sum("counted", user, day, RECENT)
            ),
            "days_since_done": day - self._done.latest(user, day),
            "hour_concentration": self._concentration(user, day),
            "exposed": _counts(self._exposed, user, day),
            "accepted": _counts(self._accepted, user, day, self._exposed),
            "rejected": _counts(self._rejected, user, day, self._exposed),
            "acceptance_rate": _ratio(self._accepted.count(user, day), exposed),
            "sessions": _counts(self._sessions, user, day),
            "sessions_recent": _counts(self._sessions, user, day, window=RECENT),
            "days_since_session": day - self._sessions.latest(user, day),
            "modifications": _counts(self._changes, user, day),
            "ratings": _counts(self._ratings, user, day),
        }
        return pd.DataFrame(columns)

    def of_pairs(self, user: Ints, habit: Ints, day: Ints) -> pd.DataFrame:
        """Features of users with habits (n, positions in the tables) as of days (n): a row each."""
        pair, area = self._pair(user, habit), self._area(user, habit)
        known = self._category[habit] >= 0
        counted = self._of_pair.sum("counted", pair, day)
        of_area = self._of_area.sum("counted", area, day)
        affinity = self._taste.of(user, day)[np.arange(len(user)), self._category[habit]]
        columns = {
            "habit_adopted": _counts(self._pair_adopted, pair, day, self._adopted),
            "habit_counted_days": counted if self._tracked.size else np.full(len(user), np.nan),
            "habit_completion_rate": _ratio(self._of_pair.sum("done", pair, day), counted),
            "category_adopted": np.where(known, _counts(self._area_adopted, area, day, self._adopted), np.nan),
            "category_counted_days": np.where(known & (self._tracked.size > 0), of_area, np.nan),
            "category_completion_rate": _ratio(self._of_area.sum("done", area, day), of_area),
            "category_affinity": np.where(known, affinity, np.nan),
        }
        return pd.DataFrame(columns)

    @cached_property
    def hours(self) -> pd.DataFrame:
        """Local hours of completions, as `completion_hours` gives them; none where instants or zones are absent."""
        tracking, users = self._dataset.habit_tracking, self._dataset.users
        if "at" not in tracking or "zone" not in users:
            return pd.DataFrame({"user_id": pd.Series(dtype="str"), "date": [], "hour": pd.Series(dtype=float)})
        return completion_hours(tracking, users, np.datetime64(self._end, "D"))

    @cached_property
    def _timed(self) -> Tally:
        angle = self.hours["hour"].to_numpy() * (2 * np.pi / 24)
        user = codes(self.hours["user_id"], self._dataset.users["user_id"])
        day = self.hours["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
        return Tally(user, day, x=np.cos(angle), y=np.sin(angle))

    def _concentration(self, user: Ints, day: Ints) -> Floats:
        length = np.hypot(self._timed.sum("x", user, day), self._timed.sum("y", user, day))
        return _ratio(length, self._timed.count(user, day))

    @cached_property
    def _of_pair(self) -> Tally:
        return self._tallied(self._pair(*self._pairs))

    @cached_property
    def _of_area(self) -> Tally:
        return self._tallied(self._area(*self._pairs))

    def _tallied(self, key: Ints) -> Tally:
        days = self._days
        counted = (days.status == DONE) | (days.status == MISSED)
        return Tally(days.repeat(key), days.day, done=days.status == DONE, counted=counted)

    @cached_property
    def _pair_adopted(self) -> Tally:
        user, habit, day = self._adopted_pairs
        return Tally(self._pair(user, habit), day)

    @cached_property
    def _area_adopted(self) -> Tally:
        user, habit, day = self._adopted_pairs
        return Tally(self._area(user, habit), day)

    @cached_property
    def _taste(self) -> Taste:
        return Taste(self._dataset, self._end)

    def _pair(self, user: Ints, habit: Ints) -> Ints:
        return np.where((user >= 0) & (habit >= 0), user * len(self._category) + habit, -1)

    def _area(self, user: Ints, habit: Ints) -> Ints:
        category = np.append(self._category, -1)[habit]
        return np.where((user >= 0) & (category >= 0), user * len(CATEGORIES) + category, -1)

    def _known(self, table: str, column: str) -> Ints:
        day = event_days(self._dataset, table, column)
        return np.where(day < self._end, day, NEVER)


def completion_rates(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Completion of each user over all habits: index user_id, in the order of `dataset.users`.

    done, counted
        Days done, and days done or missed; skipped and unknown ones are in neither.
    effective_days
        Independent days that the counted ones are worth. Days of one habit resemble each other: with the intraclass
        correlation rho, n days of it are worth n / (1 + (n - 1) rho) (Kish 1965, Survey Sampling, 5.4); rho is that of
        all users (`intraclass_correlation`).
    completion_rate_shrunk, completion_low, completion_high
        Posterior mean and interval at `level` under a Beta prior fitted to all users (`RatePrior`), from the effective
        days. Were days taken for independent, 95 % intervals would hold the truth for some 55 % of simulated users.
    """
    days = read_days(rows_before(dataset.habit_tracking, end_of(dataset, until)))
    users = dataset.users["user_id"]
    user = codes(days.pairs["user_id"], users)
    done = _per_pair(days, days.status == DONE)
    counted = done + _per_pair(days, days.status == MISSED)
    # In an order of their own, so that the rounding of sums does not depend on that of the rows.
    order = np.lexsort((codes(days.pairs["habit_id"], dataset.habits["habit_id"]), user))
    user, done, counted = user[order], done[order], counted[order]
    rho = intraclass_correlation(done, counted, user)
    spread = np.bincount(user, counted * (1 + np.maximum(counted - 1, 0) * rho), len(users))
    done, counted = np.bincount(user, done, len(users)), np.bincount(user, counted, len(users))
    share = np.divide(counted, spread, out=np.zeros(len(users)), where=spread > 0)
    prior = RatePrior.fit(done * share, counted * share)
    low, high = prior.interval(done * share, counted * share, level)
    return pd.DataFrame(
        {
            "done": done,
            "counted": counted,
            "effective_days": counted * share,
            "completion_rate_shrunk": prior.shrink(done * share, counted * share),
            "completion_low": low,
            "completion_high": high,
        },
        index=pd.Index(users, name="user_id"),
    )


def intraclass_correlation(done: npt.ArrayLike, counted: npt.ArrayLike, user: npt.ArrayLike) -> float:
    """How much days of one habit resemble each other more than days of two habits of the same person: 0 to 1.

    One minus the chance that two counted days of one pair differ, over the chance that two days of different habits of
    one user do; `done` of `counted` days of each pair and its user (pairs,). 0 where nobody has two habits.
    """
    done, counted = np.asarray(done, dtype=float), np.asarray(counted, dtype=float)
    held = counted > 1
    done, counted, user = done[held], counted[held], pd.factorize(np.asarray(user)[held])[0]
    rate = done / counted
    pairs = np.bincount(user)
    within = np.bincount(user, 2 * done * (counted - done) / (counted * (counted - 1))) / pairs
    total, squares = np.bincount(user, rate), np.bincount(user, rate**2)
    several = pairs > 1
    differ = 2 * (total * (pairs - 1) - (total**2 - squares))[several]
    across = (differ / (pairs * (pairs - 1))[several]).sum()
    return float(np.clip(1 - within[several].sum() / across, 0, 1)) if across > 0 else 0.0


def category_affinity(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Taste of each user for each category of habits: shrunk log-odds (users, categories), index user_id.

    The log-odds that a habit which the user chooses is of the category, less those expected of anybody with the same
    offers. NaN where nothing of anybody is known. See `Taste`.
    """
    end = end_of(dataset, until)
    users = dataset.users["user_id"]
    values = Taste(dataset, end).of(np.arange(len(users)), np.full(len(users), end))
    return pd.DataFrame(values, index=pd.Index(users, name="user_id"), columns=CATEGORIES)


class Taste:
    """Which categories users choose, against what anybody would have chosen: a Dirichlet-multinomial model.

    Of the N habits that a user chose (picked, or accepted from what was recommended), x_c are of category c. Expected
    of anybody are shares q_c: of picks as in all users' picks, of accepted ones in proportion to what this user looked
    at times the category's rate of acceptance. What users state they want to improve multiplies q_c by how much more
    often those who state it choose it. The posterior share is p_c = (K q_c + x_c) / (K + N), with K found by maximum
    likelihood, and the affinity is logit(p_c) - logit(q_c without the stated wish).
    Completion is left out on purpose: in simulated worlds it tells nothing of taste beyond choices.
    """

    def __init__(self, dataset: Dataset, end: int, *, stated: bool = True) -> None:
        """Fit to what was chosen before day `end`; with `stated=False` from behaviour alone."""
        users, category = dataset.users["user_id"], np.append(habit_categories(dataset), -1)
        size = (len(users), len(CATEGORIES))

        def cells(table: str, rows: npt.NDArray[np.bool_], day: Ints) -> tuple[Tally, Floats]:
            frame = dataset.table(table)
            user, area = codes(frame["user_id"], users), category[codes(frame["habit_id"], dataset.habits["habit_id"])]
            cell = np.where(rows & (user >= 0) & (area >= 0) & (day < end), user * size[1] + area, -1)
            total = np.bincount(cell[cell >= 0], minlength=size[0] * size[1]).reshape(size)
            return Tally(cell, day), total.astype(float)

        adopted = dataset.adoptions
        recommended = np.zeros(len(adopted), dtype=bool)
        if "source" in adopted:
            recommended = (adopted["source"] == AdoptionSource.RECOMMENDED).to_numpy(dtype=bool)
        seen = np.logical_or.reduce(answers(dataset, *Response))
        begun = event_days(dataset, "adoptions", "adopted_at")
        self._picked, picked = cells("adoptions", ~recommended, begun)
        self._taken, taken = cells("adoptions", recommended, begun)
        self._seen, looked = cells("recommendations", seen, answer_days(dataset))

        self.pick_share = (picked.sum(axis=0) + 0.5) / (picked.sum() + 0.5 * size[1])
        self.acceptance = (taken.sum(axis=0) + self.pick_share) / (looked.sum(axis=0) + 10)
        self._wish = _wishes(dataset.users) if stated else np.full(size, 2, dtype=np.int8)
        # Expected counts for the multiplier of a wish come from offers alone.
        chosen, plain = picked + taken, self._plain(picked, taken, looked)
        expected = plain * chosen.sum(axis=1, keepdims=True)
        self.multiplier = np.ones((size[1], 3))
        for wish in range(3):
            here = self._wish == wish
            self.multiplier[:, wish] = ((chosen * here).sum(axis=0) + 2) / ((expected * here).sum(axis=0) + 2)
        self.concentration = _concentration(chosen, self._wished(plain, self._wish)) if chosen.any() else np.inf
        self.known = bool(chosen.any())

    def of(self, user: Ints, day: Ints) -> Floats:
        """Affinities (n, categories) of users (n, positions) as of days (n)."""
        if not self.known:
            return np.full((len(user), len(CATEGORIES)), np.nan)
        cell = user[:, None] * len(CATEGORIES) + np.arange(len(CATEGORIES))
        picked, taken, looked = (
            tally.count(cell.ravel(), np.repeat(day, cell.shape[1])).reshape(cell.shape).astype(float)
            for tally in (self._picked, self._taken, self._seen)
        )
        plain = self._plain(picked, taken, looked)
        wished, chosen = self._wished(plain, self._wish[user]), picked + taken
        weight = self.concentration
        share = (weight * wished + chosen) / (weight + chosen.sum(axis=1, keepdims=True))
        return special.logit(share) - special.logit(plain)

    def _plain(self, picked: Floats, taken: Floats, looked: Floats) -> Floats:
        """Shares expected of anybody who picked so many habits, looked at these and took so many (n, categories)."""
        offered = looked * self.acceptance
        total = offered.sum(axis=1, keepdims=True)
        offered = np.where(total > 0, offered / np.where(total > 0, total, 1), self.pick_share)
        # Half a pick: who chose nothing yet is expected to choose like everybody, and no share is 0.
        picks, takes = picked.sum(axis=1, keepdims=True) + 0.5, taken.sum(axis=1, keepdims=True)
        return (picks * self.pick_share + takes * offered) / (picks + takes)

    def _wished(self, plain: Floats, wish: npt.NDArray[np.int8]) -> Floats:
        share = plain * self.multiplier[np.arange(len(CATEGORIES)), wish]
        return share / share.sum(axis=1, keepdims=True)


def _concentration(chosen: Floats, share: Floats) -> float:
    """Weight K, in choices, of what is expected: Dirichlet-multinomial maximum likelihood, between 0.1 and 10,000."""
    # Who chose nothing adds 0; left in, the rounding of sums would still depend on who registers tomorrow.
    some = chosen.any(axis=1)
    chosen, share = chosen[some], share[some]
    total = chosen.sum(axis=1)

    def loss(log_weight: float) -> float:
        weight = np.exp(log_weight)
        prior = weight * share
        likelihood = special.gammaln(prior + chosen) - special.gammaln(prior)
        return float(-(special.gammaln(weight) - special.gammaln(weight + total)).sum() - likelihood.sum())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(np.log(0.1), np.log(1e4)), method="bounded").x))


def _wishes(users: pd.DataFrame) -> npt.NDArray[np.int8]:
    """Whether users state each category as one to improve (users, categories): 0 no, 1 yes, 2 not answered."""
    wish = np.full((len(users), len(CATEGORIES)), 2, dtype=np.int8)
    if "improvement_areas" in users:
        areas = users["improvement_areas"].reset_index(drop=True)
        wish[areas.notna().to_numpy()] = 0
        named = areas.explode().dropna()
        area = pd.Index(CATEGORIES).get_indexer(named)
        wish[named.index.to_numpy()[area >= 0], area[area >= 0]] = 1
    return wish


def difficulty_gradient(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """How much harder each further habit of a user is: index user_id, in the order of `dataset.users`.

    habits
        Habits adopted before `until` whose difficulty (1 easy to 5 hard) is known.
    slope, ci_low, ci_high
        Least squares slope of difficulty over the order of adoption (1, 2 ...; equal instants share their mean place),
        in steps of difficulty per adoption, and its t interval at `level` with the residual variance of all users.
        NaN below three habits, or with all adopted at once.
    difficulty_gradient
        The slope shrunk to the mean of all users by how much users differ (empirical Bayes, method of moments).
    """
    sums = _order_sums(dataset, until)
    users = pd.Index(dataset.users["user_id"], name="user_id")
    table = pd.DataFrame({"habits": np.bincount(sums.index, sums["habits"], len(users))}, index=users)
    slope, low, high, shrunk = (np.full(len(users), np.nan) for _ in range(4))
    known = sums[sums["xx"] > 0]
    if len(known):
        row, xx, each = known.index.to_numpy(), known["xx"].to_numpy(), (known["xy"] / known["xx"]).to_numpy()
        freedom = int((known["habits"] - 2).sum())
        pooled = known["xy"].sum() / known["xx"].sum()
        if freedom > 0:
            residual = max(float((known["yy"] - known["xy"] ** 2 / known["xx"]).sum()) / freedom, 1e-12)
            shown = (known["habits"] >= 3).to_numpy()
            half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(residual / xx)
            slope[row[shown]] = each[shown]
            low[row[shown]], high[row[shown]] = (each - half)[shown], (each + half)[shown]
            excess = (xx * (each - pooled) ** 2).sum() - residual * (len(row) - 1)
            spread = xx.sum() - (xx**2).sum() / xx.sum()  # 0 where there is one user
            between = max(0.0, excess / spread) if spread > 0 else 0.0
            shrunk[:] = pooled
            shrunk[row] += (each - pooled) * between / (between + residual / xx)
    return table.assign(slope=slope, ci_low=low, ci_high=high, difficulty_gradient=shrunk)


def pooled_difficulty_gradient(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> dict[str, float]:
    """Slope of difficulty over the order of adoption within users, all taken together: slope, ci_low, ci_high, users.

    Between users nothing is compared. The t interval at `level` is by user (sandwich); NaN below two users.
    """
    sums = _order_sums(dataset, until)
    sums = sums[sums["xx"] > 0]
    users = len(sums)
    if not users:
        return {"slope": np.nan, "ci_low": np.nan, "ci_high": np.nan, "users": 0}
    slope = float(sums["xy"].sum() / sums["xx"].sum())
    half = np.nan
    if users > 1:
        score = sums["xy"] - slope * sums["xx"]
        error = np.sqrt((score**2).sum() * users / (users - 1)) / sums["xx"].sum()
        half = float(stats.t.ppf((1 + level) / 2, users - 1) * error)
    return {"slope": slope, "ci_low": slope - half, "ci_high": slope + half, "users": users}


def _order_sums(dataset: Dataset, until: Day | None) -> pd.DataFrame:
    """Number of habits and centred sums of x = order of adoption and y = difficulty, by position of the user."""
    if "difficulty" not in dataset.habits:
        return pd.DataFrame(columns=["habits", "xx", "xy", "yy"], dtype=float)
    day = event_days(dataset, "adoptions", "adopted_at")
    known = dataset.adoptions[day < end_of(dataset, until)]
    difficulty = known["habit_id"].astype(object).map(dataset.habits.set_index("habit_id")["difficulty"])
    user = pd.Series(codes(known["user_id"], dataset.users["user_id"]), index=known.index)
    held = difficulty.notna()
    user, y = user[held], difficulty[held].astype(float)
    x = known.loc[held, "adopted_at"].groupby(user).rank()
    x, y = x - x.groupby(user).transform("mean"), y - y.groupby(user).transform("mean")
    return pd.DataFrame({"habits": 1.0, "xx": x * x, "xy": x * y, "yy": y * y}).groupby(user).sum()


def habit_categories(dataset: Dataset) -> Ints:
    """Position in CATEGORIES of each habit's category (habits,); -1 where it is not known."""
    if "category" not in dataset.habits:
        return np.full(len(dataset.habits), -1)
    return pd.Index(CATEGORIES).get_indexer(dataset.habits["category"].astype(object)).astype(np.int64)


def _streaks(dataset: Dataset, day: Day, index: pd.Index) -> pd.DataFrame:
    """Streaks and strength over a user's tracked habits."""
    pairs = summary(dataset.habit_tracking, dataset.habits, day)
    groups = pairs.groupby(pairs["user_id"].astype(object))
    table = groups.agg(
        strength=("strength", "mean"), streak=("streak", "max"), longest_streak=("longest_streak", "max")
    )
    return table.reindex(index.astype(object)).set_axis(index)


def _held_habits(dataset: Dataset, end: int, index: pd.Index) -> pd.DataFrame:
    """What the habits held on day `end` ask for, on average."""
    adopted, abandoned = (event_days(dataset, "adoptions", c) for c in ("adopted_at", "abandoned_at"))
    held = dataset.adoptions.loc[(adopted < end) & ~(abandoned < end), ["user_id", "habit_id"]]
    user, habit = codes(held["user_id"], index.to_series()), codes(held["habit_id"], dataset.habits["habit_id"])
    columns = {}
    for name in ("difficulty", "minutes"):
        value = dataset.habits[name].to_numpy(dtype=float) if name in dataset.habits else np.zeros(0)
        value = np.append(value, np.nan)[habit] if len(value) else np.full(len(habit), np.nan)
        known = np.isfinite(value) & (user >= 0)
        columns[f"{name}_held"] = _ratio(
            np.bincount(user[known], value[known], len(index)), np.bincount(user[known], minlength=len(index))
        )
    return pd.DataFrame(columns, index=index)


def _per_pair(days: Days, flags: npt.NDArray[np.bool_]) -> Ints:
    return np.add.reduceat(flags.astype(np.int64), days.starts) if days.starts.size else np.zeros(0, dtype=np.int64)


def _counts(tally: Tally, key: Ints, day: Ints, recorded: Tally | None = None, window: int | None = None) -> Floats:
    """Events of each key before each day; NaN where none of this kind (or of that which makes it possible) is known."""
    count = tally.count(key, day, window).astype(float)
    return count if (recorded or tally).size else np.full(len(count), np.nan)


def _ratio(part: npt.NDArray, whole: npt.NDArray) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
