"""When in the day and in the week a person does their habits, from few events as well as from many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import special

from habitlab.dataset.vocabulary import WEEKDAYS
from habitlab.features.days import (
    DONE,
    KEY,
    MISSED,
    Day,
    local_hour,
    need,
    read_days,
    rows_before,
    until_day,
)
from habitlab.features.rates import RatePrior

_BINS = 96  # quarters of an hour
_BLOCK = 4096  # people smoothed at once: 3 MB an array


def completion_hours(tracking: pd.DataFrame, users: pd.DataFrame, until: Day | None = None) -> pd.DataFrame:
    """Local clock hour of each completion: user_id, habit_id, date, hour (0 <= hour < 24), in the order of the rows.

    Days done before `until` whose instant `at` and whose user's `zone` are known; of several rows of one day, the
    earliest done one. Raises `MissingColumn` without tracking.at or users.zone.
    """
    need(tracking, "habit_tracking", *KEY, "date", "status", "at")
    need(users, "users", "user_id", "zone")
    rows = rows_before(tracking, until_day(until, tracking))
    rows = rows.loc[(rows["status"] == "done") & rows["at"].notna(), [*KEY, "date", "at"]]
    key = [*KEY, "date"]
    if rows.duplicated(key).any():
        rows = rows.sort_values("at", kind="stable").drop_duplicates(key).sort_index(kind="stable")
    zone = rows["user_id"].astype(object).map(users.set_index("user_id")["zone"].astype(object))
    hours = rows[key].assign(hour=local_hour(rows["at"], zone))
    return hours.dropna(subset="hour").reset_index(drop=True)


def time_of_day(hours: pd.DataFrame, by: Sequence[str] = ("user_id",), *, weight: str | None = None) -> pd.DataFrame:
    """Circular summary of local hours for each person, or for each pair with `by=("user_id", "habit_id")`.

    `hours` is that of `completion_hours`; `weight` names a column of weights >= 0 in it (by default all 1). One row a
    group, ordered by `by`:

    events
        Completions with a known hour.
    mean_hour
        Circular mean of hour / 24 (hours, 0 <= mean < 24): 23:30 and 00:30 give midnight. NaN when the hours cancel.
    resultant_length
        Mean resultant length R = |sum w exp(2 pi i hour / 24)| / sum w: 1 always the same minute, 0 no preferred hour.
        Biased upwards with few events (1 for a single one). Source: Mardia and Jupp, Directional Statistics, 2.3.
    preferred_hour
        Centre of the highest peak: that of a von Mises kernel density (one hour wide, quarters of an hour), moved to
        the circular mean of the events within 4 hours of it. With one peak it is near `mean_hour`; with a morning and
        an evening peak the mean lies where nothing happens, and this at one of both.
    """
    by = list(by)
    need(hours, "hours", *by, "hour", *([weight] if weight else []))
    groups = hours[by].drop_duplicates().sort_values(by, ignore_index=True)
    group = pd.MultiIndex.from_frame(groups.astype(object)).get_indexer(
        pd.MultiIndex.from_frame(hours[by].astype(object))
    )
    w = hours[weight].to_numpy(dtype=float) if weight else np.ones(len(hours))
    if not (w >= 0).all():
        raise ValueError(f"hours.{weight}: weights are numbers, 0 or more")
    hour, size = hours["hour"].to_numpy(dtype=float), len(groups)
    total = np.bincount(group, w, size)
    mean_hour, length = _circular(hour, w, group, total)
    peak = _peaks(hour, w, group, size)
    from_peak = (hour - peak[group] + 12) % 24 - 12
    near = np.where(np.abs(from_peak) <= 4, w, 0.0)
    with np.errstate(invalid="ignore"):
        shift = np.bincount(group, near * from_peak, size) / np.bincount(group, near, size)
    return groups.assign(
        events=np.bincount(group, minlength=size),
        mean_hour=mean_hour,
        resultant_length=length,
        preferred_hour=(peak + shift) % 24,
    )


def _circular(
    hour: np.ndarray, weight: np.ndarray, group: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    angle = hour * (2 * np.pi / 24)
    x = np.bincount(group, weight * np.cos(angle), total.size)
    y = np.bincount(group, weight * np.sin(angle), total.size)
    with np.errstate(invalid="ignore"):
        length = np.minimum(np.hypot(x, y) / total, 1.0)
    mean = np.arctan2(y, x) * (24 / (2 * np.pi))
    return np.where(length > 1e-9, mean % 24, np.nan), length


def _peaks(hour: np.ndarray, weight: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
    """Hour at which the smoothed density of each group is highest; the earliest of equals."""
    offsets = np.arange(_BINS) * (2 * np.pi / _BINS)
    kappa = (24 / (2 * np.pi)) ** 2  # a von Mises kernel as wide as a normal one with a deviation of one hour
    kernel = np.fft.rfft(np.exp(kappa * (np.cos(offsets) - 1)))
    cell = np.minimum((hour * (_BINS / 24)).astype(np.int64), _BINS - 1)
    order = np.argsort(group, kind="stable")
    borders = np.searchsorted(group[order], np.arange(0, size + _BLOCK, _BLOCK))
    peak = np.empty(size)
    for block, (start, stop) in enumerate(pairwise(borders)):
        low = block * _BLOCK
        count, rows = min(_BLOCK, size - low), order[start:stop]
        counts = np.bincount((group[rows] - low) * _BINS + cell[rows], weight[rows], count * _BINS)
        density = np.fft.irfft(np.fft.rfft(counts.reshape(count, _BINS)) * kernel, _BINS)
        # Rounding keeps the choice among equal peaks from hanging on the last bits of the transform.
        peak[low : low + count] = (np.round(density, 9).argmax(axis=1) + 0.5) * (24 / _BINS)
    return peak


def weekday_effects(tracking: pd.DataFrame, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Completion by day of the week over all users: one row a weekday, 0 Monday to 6 Sunday, from days before `until`.

    Columns: weekday, name, counted (days done or missed), done, rate (done / counted), effect with ci_low and ci_high.
    `effect` is the change in log-odds of completion on that day against the same pair's average day: days are compared
    within a user and habit only, so that a habit scheduled on hard days does not colour them. It is NaN for a weekday
    without counted days. See `_Scores`; the interval is by user (sandwich).
    """
    scores = _Scores(tracking, until)
    effect, variance = scores.population()
    half = special.ndtri((1 + level) / 2) * np.sqrt(variance)
    counted, done = scores.counted.sum(axis=0), scores.done.sum(axis=0)
    return pd.DataFrame(
        {
            "weekday": np.arange(7),
            "name": WEEKDAYS,
            "counted": counted,
            "done": done,
            "rate": _ratio(done, counted),
            "effect": np.where(counted > 0, effect, np.nan),
            "ci_low": np.where(counted > 0, effect - half, np.nan),
            "ci_high": np.where(counted > 0, effect + half, np.nan),
        }
    )


def weekday_profile(
    tracking: pd.DataFrame, until: Day | None = None, *, prior: RatePrior | None = None
) -> pd.DataFrame:
    """Completion by day of the week of each user, shrunk to that of all: seven rows a user, by user_id and weekday.

    Columns: user_id, weekday (0 Monday to 6 Sunday), counted, done, rate (raw); effect (log-odds against the user's own
    average day, empirical Bayes) with its standard deviation effect_sd; shrunk_rate, the user's shrunk overall rate
    moved by the effect. A user with few days has nearly the effect of all users, one with many nearly their own.
    `prior` shrinks the overall rate; None fits it to these users. Days before `until` only. See `_Scores`.
    """
    scores = _Scores(tracking, until)
    effect, deviation = scores.by_user()
    done, counted = scores.done.sum(axis=1), scores.counted.sum(axis=1)
    prior = prior or RatePrior.fit(done, counted)
    base = special.logit(prior.shrink(done, counted))
    return pd.DataFrame(
        {
            "user_id": scores.users.repeat(7).reset_index(drop=True),
            "weekday": np.tile(np.arange(7), len(scores.users)),
            "counted": scores.counted.ravel(),
            "done": scores.done.ravel(),
            "rate": _ratio(scores.done.ravel(), scores.counted.ravel()),
            "effect": effect.ravel(),
            "effect_sd": deviation.ravel(),
            "shrunk_rate": special.expit(base[:, None] + effect).ravel(),
        }
    )


class _Scores:
    """Weekday scores of each user, the sum over their pairs of observed less expected days done.

    Were a pair's Y done days spread over its N counted days at random, weekday d with n_d of them would have n_d Y / N
    done, and the seven counts the multivariate hypergeometric covariance
    V = Y (N - Y) / (N (N - 1)) (diag(n) - n n' / N). To first order the score u then has the mean V a and covariance V
    for weekday effects a in log-odds that sum to 0, so that pinv(sum V) sum u estimates those of all users: Peto's
    one-step odds ratio (Yusuf et al. 1985, Prog. Cardiovasc. Dis. 27:335) for seven days at once. A user's own effects
    are taken as normal around them, with a variance tau^2 found by the method of moments from |u - V a|^2. Good for
    effects up to about 1; stronger ones come out too small.
    """

    def __init__(self, tracking: pd.DataFrame, until: Day | None) -> None:
        days = read_days(rows_before(tracking, until_day(until, tracking)))
        codes, names = pd.factorize(days.pairs["user_id"], sort=True)
        self.users = pd.Series(names, name="user_id")
        size = len(names)
        cell = days.repeat(np.arange(days.starts.size)) * 7 + (days.day + 3) % 7
        shape = (days.starts.size, 7)
        done = np.bincount(cell[days.status == DONE], minlength=shape[0] * 7).reshape(shape)
        missed = np.bincount(cell[days.status == MISSED], minlength=shape[0] * 7).reshape(shape)
        counted = done + missed
        n, y = counted.sum(axis=1), done.sum(axis=1)
        at_least_one, at_least_two = np.maximum(n, 1), np.maximum(n * (n - 1), 1)
        scale = y * (n - y) / at_least_two
        score = done - counted * (y / at_least_one)[:, None]
        self.counted, self.done = np.zeros((size, 7), np.int64), np.zeros((size, 7), np.int64)
        self.u, self.v = np.zeros((size, 7)), np.zeros((size, 7, 7))
        for d in range(7):
            self.counted[:, d] = np.bincount(codes, counted[:, d], size)
            self.done[:, d] = np.bincount(codes, done[:, d], size)
            self.u[:, d] = np.bincount(codes, score[:, d], size)
            for e in range(7):
                share = counted[:, d] * ((d == e) - counted[:, e] / at_least_one)
                self.v[:, d, e] = np.bincount(codes, scale * share, size)

    def population(self) -> tuple[np.ndarray, np.ndarray]:
        """Effects of all users (7), and their variances, clustered by user."""
        inverse = np.linalg.pinv(self.v.sum(axis=0), hermitian=True)
        effect = inverse @ self.u.sum(axis=0)
        residual = (self.u - self.v @ effect) @ inverse
        return effect, (residual**2).sum(axis=0)

    def by_user(self) -> tuple[np.ndarray, np.ndarray]:
        """Effects of each user (users, 7) shrunk to those of all, and their posterior standard deviations."""
        mean, variance = self.population()
        residual = self.u - self.v @ mean
        noise, spread = np.trace(self.v.sum(axis=0)), (self.v**2).sum()
        tau2 = max(0.0, ((residual**2).sum() - noise) / spread) if spread > 0 else 0.0
        effect = np.broadcast_to(mean, self.u.shape).copy()
        total = np.broadcast_to(variance, self.u.shape).copy()
        if tau2 > 0:
            inverse = np.linalg.inv(self.v + np.eye(7) / tau2)
            effect += (inverse @ residual[:, :, None])[:, :, 0]
            total += np.diagonal(inverse, axis1=1, axis2=2)
        return effect, np.sqrt(total)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
