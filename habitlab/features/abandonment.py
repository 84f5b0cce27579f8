"""When habits are given up: a discrete-time hazard model, and how to judge predictions of survival under censoring.

A habit's time runs in weeks from its adoption. In each week begun by a habit still held, the hazard is the chance that
it is given up before the next: a logistic regression on what was known on the morning the week began (person-period
form; Singer & Willett 1993, doi:10.3102/10769986018002155). A habit is censored at the end of the data: the weeks over
by then count, a week not yet over does not, whether the habit was given up in it or is still held.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset import Dataset
from habitlab.features.as_of import NEVER, Floats, Ints, Tally, codes, end_of, event_days
from habitlab.features.behavioural import CATEGORIES, habit_categories
from habitlab.features.days import DONE, MISSED, Day, read_days, rows_before

WEEK = 7
_RECENT = 14

COVARIATES = [
    "log_weeks", "first_week", "log_days_registered", "recent_rate", "rate", "recent_rate_of_user", "log_days_idle",
    "held", "share_given_up", "log_recent_sessions", "difficulty", "log_minutes", "rarity", *CATEGORIES,
]  # fmt: skip
"""Columns of the design: see `_Known.design`."""


class AbandonmentHazard:
    """Weekly chance that a held habit is given up, from its history; state is plain arrays with a trailing underscore.

    After `fit`: `coefficients_` (covariates,) in log-odds for one standard deviation, `intercept_`, `mean_` and
    `scale_` (covariates,) of the training rows, `weeks_at_risk_` and `events_` (counts). A missing covariate counts as
    the mean.
    """

    def __init__(self, C: float = 1.0) -> None:
        """`C` is the inverse strength of the ridge penalty, as in scikit-learn."""
        self.C = C

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn from the weeks that were over by the local day `until`.

        Raises
        ------
        ValueError
            No habit was given up, or every one in its first week: there is nothing to tell apart.
        """
        from sklearn.linear_model import LogisticRegression

        end = end_of(dataset, until)
        known = _Known(dataset, end)
        pair, week, event = known.person_weeks()
        if not event.any() or event.all():
            raise ValueError(
                f"a hazard needs weeks in which habits were given up and weeks in which they were not; of {event.size} "
                f"weeks before the end of the data, {int(event.sum())} saw a habit given up"
            )
        design = known.design(pair, known.start[pair] + WEEK * week)
        with np.errstate(invalid="ignore"):
            self.mean_ = np.nan_to_num(_nanmean(design))
            spread = np.sqrt(_nanmean((design - self.mean_) ** 2))
        self.scale_ = np.where(spread > 1e-9, spread, 1.0)
        model = LogisticRegression(C=self.C, max_iter=1000).fit(self._standard(design), event)
        self.coefficients_, self.intercept_ = model.coef_[0], float(model.intercept_[0])
        self.weeks_at_risk_, self.events_ = int(event.size), int(event.sum())
        return self

    def hazard(self, design: Floats) -> Floats:
        """Chance of giving up within the week (rows,), from covariates (rows, covariates) ordered as COVARIATES."""
        return 1 / (1 + np.exp(-(self._standard(design) @ self.coefficients_ + self.intercept_)))

    def predict_survival(self, dataset: Dataset, until: Day | None = None, weeks: int = 12) -> pd.DataFrame:
        """Chance that each habit held on day `until` is still held 1 ... `weeks` weeks later.

        One row a held habit: index user_id, habit_id; columns 1 ... weeks. Age grows with the weeks; what the user does
        is taken to stay as it is.
        """
        if weeks < 1:
            raise ValueError(f"weeks is 1 or more; got {weeks}")
        end = end_of(dataset, until)
        known = _Known(dataset, end)
        held = np.flatnonzero(known.stop == NEVER)
        design = known.design(held, np.full(held.size, end))
        survival, alive = np.empty((held.size, weeks)), np.ones(held.size)
        for week in range(weeks):
            later = known.aged(design, held, end + WEEK * week)
            alive = alive * (1 - self.hazard(later))
            survival[:, week] = alive
        index = pd.MultiIndex.from_frame(known.pairs.iloc[held][["user_id", "habit_id"]])
        return pd.DataFrame(survival, index=index, columns=range(1, weeks + 1))

    def _standard(self, design: Floats) -> Floats:
        return np.nan_to_num((design - self.mean_) / self.scale_)


class _Known:
    """Adopted habits, and what was known of them, before day `end`."""

    def __init__(self, dataset: Dataset, end: int) -> None:
        users, habits = dataset.users["user_id"], dataset.habits
        frame, start = dataset.adoptions, event_days(dataset, "adoptions", "adopted_at")
        stop = event_days(dataset, "adoptions", "abandoned_at")
        user, habit = codes(frame["user_id"], users), codes(frame["habit_id"], habits["habit_id"])
        held = (start < end) & (user >= 0) & (habit >= 0)
        self.pairs, self.end = frame[held].reset_index(drop=True), end
        self.user, self.habit, self.start = user[held], habit[held], start[held]
        self.stop = np.where(stop < end, stop, NEVER)[held]
        self._habits = len(habits)
        self._registered = event_days(dataset, "users", "registered_at")
        self._adopted, self._given_up = Tally(self.user, self.start), Tally(self.user, self.stop)
        sessions = event_days(dataset, "sessions", "started_at")
        self._sessions = Tally(codes(dataset.sessions["user_id"], users), np.where(sessions < end, sessions, NEVER))

        days = read_days(rows_before(dataset.habit_tracking, end))
        of_user = days.repeat(codes(days.pairs["user_id"], users))
        of_pair = of_user * self._habits + days.repeat(codes(days.pairs["habit_id"], habits["habit_id"]))
        done, counted = days.status == DONE, (days.status == DONE) | (days.status == MISSED)
        self._of_user = Tally(of_user, days.day, done=done, counted=counted)
        self._of_pair = Tally(of_pair, days.day, done=done, counted=counted)
        self._done = Tally(of_pair[done], days.day[done])

        def number(name: str) -> Floats:
            values = habits[name].to_numpy(dtype=float) if name in habits else np.full(len(habits), np.nan)
            return values[self.habit]

        category = habit_categories(dataset)[self.habit]
        kind = np.where(category[:, None] >= 0, category[:, None] == np.arange(len(CATEGORIES)), np.nan)
        rarity = np.full(len(habits), np.nan)
        if "target" in habits:
            parts = habits["target"].str.split("/", expand=True).reindex(columns=[0, 1]).astype(float)
            rarity = 1 - np.minimum(1, parts[0] / parts[1]).to_numpy()
        self._fixed = np.column_stack([number("difficulty"), np.log1p(number("minutes")), rarity[self.habit], kind])

    def person_weeks(self) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Pair, week since its adoption, and whether it was given up in that week: the weeks over by the end."""
        last = np.maximum(self.stop - self.start, 0) // WEEK
        # Whoever gives up in a week not yet over is known, whoever survives it is not: neither counts.
        weeks = np.minimum(last + 1, (self.end - self.start) // WEEK)
        pair = np.repeat(np.arange(weeks.size), weeks)
        week = np.arange(pair.size) - np.repeat(np.cumsum(weeks) - weeks, weeks)
        return pair, week, week == last[pair]

    def design(self, pair: Ints, day: Ints) -> Floats:
        """Covariates (rows, COVARIATES) of pairs as of the mornings of days (rows,); NaN where not known."""
        user, key = self.user[pair], self.user[pair] * self._habits + self.habit[pair]

        def rate(tally: Tally, key: Ints, window: int | None) -> Floats:
            done, counted = (tally.sum(name, key, day, window) for name in ("done", "counted"))
            return (1 + done) / (2 + counted)

        adopted, given_up = self._adopted.count(user, day), self._given_up.count(user, day)
        latest = np.fmax(self._done.latest(key, day), self.start[pair])
        history = np.column_stack(
            [
                np.full((pair.size, 3), np.nan),
                rate(self._of_pair, key, _RECENT),
                rate(self._of_pair, key, None),
                rate(self._of_user, user, _RECENT),
                np.log1p(np.clip(day - latest, 0, 28)),
                adopted - given_up,
                given_up / np.maximum(adopted, 1),
                np.log1p(self._sessions.count(user, day, _RECENT)),
            ]
        )
        return self.aged(np.hstack([history, self._fixed[pair]]), pair, day)

    def aged(self, design: Floats, pair: Ints, day: Ints | int) -> Floats:
        """The design with the ages that pairs and users have on `day`."""
        weeks = np.maximum(day - self.start[pair], 0) / WEEK
        registered = self._registered[self.user[pair]]
        member = np.where(registered < NEVER, np.maximum(day - registered, 0), np.nan)
        ages = np.column_stack([np.log1p(weeks), weeks < 1, np.log1p(member)])
        return np.hstack([ages, design[:, 3:]])


def _nanmean(values: Floats) -> Floats:
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def kaplan_meier(time: npt.ArrayLike, event: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """Chance of lasting beyond each time of `at`, from times (n,) at which a habit ended (`event`) or was censored.

    Product-limit estimator (Kaplan & Meier 1958, doi:10.1080/01621459.1958.10501452).
    """
    time, event = np.asarray(time, dtype=float), np.asarray(event, dtype=bool)
    moments = np.unique(time[event])
    at_risk = len(time) - np.searchsorted(np.sort(time), moments)
    ends = np.searchsorted(np.sort(time[event]), moments, side="right") - np.searchsorted(np.sort(time[event]), moments)
    curve = np.append(1.0, np.cumprod(1 - ends / at_risk))
    return curve[np.searchsorted(moments, np.asarray(at, dtype=float), side="right")]


def time_dependent_auc(time: npt.ArrayLike, event: npt.ArrayLike, survival: npt.ArrayLike, horizon: float) -> float:
    """Chance that of two habits, one ended by `horizon` and one that lasts longer, the first was given less chance.

    `survival` (n,) is the predicted chance to last beyond `horizon`; ties count half. Cumulative cases and dynamic
    controls, cases weighted by the inverse chance of being uncensored until then (Uno et al. 2007,
    doi:10.1198/016214507000000149). NaN without both.
    """
    time, event, survival = np.asarray(time, dtype=float), np.asarray(event, dtype=bool), np.asarray(survival)
    case, control = event & (time <= horizon), time > horizon
    if not case.any() or not control.any():
        return float("nan")
    weight = 1 / _uncensored(time, event, time[case])
    controls = np.sort(survival[control])
    below = np.searchsorted(controls, survival[case]), np.searchsorted(controls, survival[case], side="right")
    above = 1 - (below[0] + below[1]) / 2 / controls.size
    return float((weight * above).sum() / weight.sum())


def brier_score(time: npt.ArrayLike, event: npt.ArrayLike, survival: npt.ArrayLike, horizon: float) -> float:
    """Mean squared error of predicted chances (n,) to last beyond `horizon`, weighted for censoring.

    Graf et al. 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5.
    """
    time, event, survival = np.asarray(time, dtype=float), np.asarray(event, dtype=bool), np.asarray(survival)
    case, control = event & (time <= horizon), time > horizon
    loss = np.zeros(len(time))
    loss[case] = survival[case] ** 2 / _uncensored(time, event, time[case])
    if control.any():
        loss[control] = (1 - survival[control]) ** 2 / _uncensored(time, event, np.nextafter([horizon], np.inf))
    return float(loss.mean())


def integrated_brier_score(
    time: npt.ArrayLike, event: npt.ArrayLike, survival: npt.ArrayLike, horizons: npt.ArrayLike
) -> float:
    """Brier score averaged over horizons by the trapezoidal rule; `survival` is (n, horizons)."""
    horizons, survival = np.asarray(horizons, dtype=float), np.asarray(survival, dtype=float)
    scores = [brier_score(time, event, survival[:, i], horizon) for i, horizon in enumerate(horizons)]
    return float(np.trapezoid(scores, horizons) / (horizons[-1] - horizons[0]))


def _uncensored(time: Floats, event: npt.NDArray[np.bool_], at: Floats) -> Floats:
    """Chance of not being censored before each time; whoever is censored at a time is so after the events of it."""
    return kaplan_meier(np.where(event, time, np.nextafter(time, np.inf)), ~event, at)
