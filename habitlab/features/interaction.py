"""What passes between a person and the program, and between one habit and another.

Everything is as of the morning of a local day `until` (None: after everything), as in `behavioural`. Formulas are in
`docs/features.md`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import HabitField, Response, TimeOfDay
from habitlab.features.as_of import NEVER, Floats, Ints, answer_days, codes, end_of, event_days
from habitlab.features.days import DONE, MISSED, SKIPPED, Day, need, read_days, rows_before
from habitlab.features.rates import RatePrior

FIRST_DAYS = 28
"""Days from an adoption on over which `cross_habit_influence` compares completion."""

DIRECTIONS = ("up", "down", "earlier", "later", "on", "off", "other")


def answers(dataset: Dataset, *responses: Response) -> list[npt.NDArray[np.bool_]]:
    """Whether each recommendation got each of these responses (rows,)."""
    frame = dataset.recommendations
    if "response" not in frame:
        return [np.zeros(len(frame), dtype=bool) for _ in responses]
    return [(frame["response"] == response).to_numpy(dtype=bool) for response in responses]


def acceptance(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Recommendations shown to each user and accepted by `until`: index user_id, in the order of `dataset.users`.

    Columns: exposed, accepted, acceptance_rate (NaN without exposure), acceptance_rate_shrunk (posterior mean under a
    Beta prior fitted to all users). All NaN where nobody was shown anything.
    """
    users = dataset.users["user_id"]
    index = pd.Index(users, name="user_id")
    shown, accepted = _shown_and_accepted(dataset, end_of(dataset, until))
    names = ["exposed", "accepted", "acceptance_rate", "acceptance_rate_shrunk"]
    if not shown.any():
        return pd.DataFrame(np.nan, index=index, columns=names)
    user = codes(dataset.recommendations["user_id"], users)
    exposed, taken = (np.bincount(user[rows], minlength=len(users)) for rows in (shown, accepted))
    shrunk = RatePrior.fit(taken, exposed).shrink(taken, exposed)
    rate = np.divide(taken, exposed, out=np.full(len(users), np.nan), where=exposed > 0)
    return pd.DataFrame(dict(zip(names, (exposed, taken, rate, shrunk), strict=True)), index=index)


def acceptance_by_position(dataset: Dataset, until: Day | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Acceptance by place in the list: a row each, with position, exposed, accepted, rate, ci_low and ci_high.

    `rate` is accepted / exposed. The t interval at `level` is by user (linearised ratio), NaN below two users. A list
    is sorted by what its policy thought good, so this is not yet the effect of the place itself.
    """
    need(dataset.recommendations, "recommendations", "position")
    shown, accepted = _shown_and_accepted(dataset, end_of(dataset, until))
    rows = pd.DataFrame(
        {
            "user": codes(dataset.recommendations["user_id"], dataset.users["user_id"]),
            "position": dataset.recommendations["position"],
            "exposed": 1.0,
            "accepted": accepted.astype(float),
        }
    )[shown]
    per_user = rows.groupby(["position", "user"])[["exposed", "accepted"]].sum()
    table = per_user.groupby("position").sum()
    rate = table["accepted"] / table["exposed"]
    residual = per_user["accepted"] - per_user["exposed"] * rate.reindex(per_user.index, level="position")
    squares, users = (residual**2).groupby("position").sum(), residual.groupby("position").size()
    several = users > 1
    spread = np.sqrt(squares * users / (users - 1).where(several)) / table["exposed"]
    half = spread * stats.t.ppf((1 + level) / 2, (users - 1).where(several, 1))
    table = table.astype(np.int64).assign(rate=rate, ci_low=(rate - half).clip(0), ci_high=(rate + half).clip(upper=1))
    table.index = table.index.astype(np.int64)
    return table.reset_index()


def modification_patterns(dataset: Dataset, until: Day | None = None) -> pd.DataFrame:
    """Changes of habits by user, field and direction: user_id, field, direction, count, in that order, counts above 0.

    Directions: up and down for `minutes` and for the frequency of `target` (3/7 to 1/1 is up), earlier and later for
    `time_of_day`, on and off for `reminder` (what it was changed to), other for what is none of these, as a change
    from any time of day or a value that cannot be read.
    """
    frame = dataset.modifications
    held = event_days(dataset, "modifications", "at") < end_of(dataset, until)
    columns = {name: frame[name].astype(object) if name in frame else None for name in ("field", "old", "new")}
    empty = pd.Series(None, index=frame.index, dtype=object)
    changed = pd.DataFrame({name: empty if values is None else values for name, values in columns.items()})[held]
    old, new = (
        pd.to_numeric(changed[name], errors="coerce").where(changed["field"] == HabitField.MINUTES)
        for name in ("old", "new")
    )
    is_target = changed["field"] == HabitField.TARGET
    old, new = (
        value.fillna(_frequency(changed[name]).where(is_target)) for value, name in ((old, "old"), (new, "new"))
    )
    order = {TimeOfDay.MORNING.value: 0, TimeOfDay.AFTERNOON.value: 1, TimeOfDay.EVENING.value: 2}
    is_time = changed["field"] == HabitField.TIME_OF_DAY
    before, after = (changed[name].map(order).where(is_time) for name in ("old", "new"))
    is_reminder = changed["field"] == HabitField.REMINDER
    direction = np.select(
        [
            new > old,
            new < old,
            after < before,
            after > before,
            is_reminder & (changed["new"] == "on"),
            is_reminder & (changed["new"] == "off"),
        ],
        DIRECTIONS[:-1],
        DIRECTIONS[-1],
    )
    table = pd.DataFrame(
        {"user_id": frame.loc[held, "user_id"].astype(object), "field": changed["field"], "direction": direction}
    )
    return table.groupby(["user_id", "field", "direction"], sort=True).size().rename("count").reset_index()


def _frequency(target: pd.Series) -> pd.Series:
    """Times a day of targets k/n; NaN for what is none."""
    parts = target.astype("str").str.extract(r"^([1-9]\d*)/([1-9]\d*)$").astype(float)
    return parts[0] / parts[1]


def engagement_depth(dataset: Dataset, until: Day | None = None) -> pd.Series:
    """How deeply each user is engaged, sum over kinds k of ln(1 + n_k): index user_id, in the order of `dataset.users`.

    n_k are the user's events before `until`, of eight kinds: sessions; minutes in them; habits adopted; days of habits
    reported done or skipped (missed ones may be nobody's report); recommendations accepted or rejected; changes of
    habits; ratings; answers to surveys. So it never falls when anything is added, each further event of a kind adds
    less, and breadth goes before bulk. A kind that nobody has is 0 for all.
    """
    end, users = end_of(dataset, until), dataset.users["user_id"]
    size = len(users)

    def count(table: str, day: Ints) -> Floats:
        return np.bincount(codes(dataset.table(table)["user_id"], users)[day < end], minlength=size).astype(float)

    days = read_days(rows_before(dataset.habit_tracking, end))
    reported = days.repeat(codes(days.pairs["user_id"], users))[(days.status == DONE) | (days.status == SKIPPED)]
    sessions = dataset.sessions
    minutes: Floats = np.zeros(size)
    if "seconds" in sessions:
        held = event_days(dataset, "sessions", "started_at") < end
        length = sessions["seconds"].fillna(0).to_numpy(dtype=float)[held] / 60
        minutes = np.bincount(codes(sessions["user_id"], users)[held], length, size).astype(float)
    answered = np.logical_or.reduce(answers(dataset, Response.ACCEPTED, Response.REJECTED))
    kinds = [
        count("sessions", event_days(dataset, "sessions", "started_at")),
        minutes,
        count("adoptions", event_days(dataset, "adoptions", "adopted_at")),
        np.bincount(reported, minlength=size),
        count("recommendations", np.where(answered, answer_days(dataset), NEVER)),
        count("modifications", event_days(dataset, "modifications", "at")),
        count("feedback", event_days(dataset, "feedback", "at")),
        count("surveys", event_days(dataset, "surveys", "answered_at")),
    ]
    depth = np.log1p(kinds).sum(axis=0)
    return pd.Series(depth, index=pd.Index(users, name="user_id"), name="engagement_depth")


def cross_habit_influence(
    dataset: Dataset, until: Day | None = None, *, fewest: int = 20, level: float = 0.95
) -> pd.DataFrame:
    """What holding one habit does to the completion of others: naive association beside an adjusted estimate.

    A unit is a habit adopted before `until`; the outcome is its share of days done (of days done or missed) in its
    first `FIRST_DAYS` days, less that of all habits of the same age. Its exposure to habit A: whether its user held A,
    adopted no later than that day, when it was adopted.

    Returns
    -------
    DataFrame ordered by habit_id, one row a habit A that was held beside others by at least `fewest` users:

    habit_id; exposed, users
        Units exposed to A, and their users.
    naive, naive_low, naive_high
        Mean outcome of units exposed to A less that of those not exposed. It mixes up what A does and who holds A.
    adjusted, adjusted_low, adjusted_high
        Change with A against without, from one regression of all units on exposure to each A, on how many habits were
        held (the load), on the unit's own habit, on how it was adopted (chosen or recommended), with a mean of its own
        for each user: people are compared with themselves. Holding A is one habit more: the coefficient of A plus that
        of the load. Intervals at `level` are by user (sandwich). It is causal only if, given all that, when A is held
        is as good as random.
    load, load_low, load_high
        One habit more, whichever: the coefficient of the load without the exposures (the same in every row).

    Raises
    ------
    MissingColumn
        There are no adoptions.
    """
    units = _units(dataset, end_of(dataset, until))
    held = _held_beside(units)
    habits = dataset.habits["habit_id"].to_numpy(dtype=object)
    columns = ["exposed", "users", *(f"{kind}{end}" for kind in ("naive", "adjusted", "load") for end in ENDS)]
    nothing = pd.DataFrame({"habit_id": pd.Series(dtype="str")} | {name: pd.Series(dtype=float) for name in columns})
    if units.empty:
        return nothing
    user, unit_habit = units["user"].to_numpy(), units["habit"].to_numpy()
    first, other = held
    exposure = np.zeros((len(units), len(habits)), dtype=bool)
    exposure[first, unit_habit[other]] = True
    people = np.array([np.unique(user[exposure[:, habit]]).size for habit in range(len(habits))])
    chosen = np.flatnonzero(people >= fewest)
    if not chosen.size:
        return nothing
    exposure, load = exposure[:, chosen].astype(float), np.bincount(first, minlength=len(units)).astype(float)
    outcome, weight = units["outcome"].to_numpy(), units["counted"].to_numpy(dtype=float)
    codes_, names = pd.factorize(user)

    naive, naive_error = _difference(exposure, outcome, weight, codes_)
    own = (unit_habit[:, None] == np.arange(len(habits))[None, :]).astype(float)
    nuisance = np.column_stack([load, units["recommended"].to_numpy(dtype=float), own])
    of_load, load_covariance = _between_own(nuisance, outcome, weight, codes_, len(names))
    value, covariance = _between_own(np.hstack([exposure, nuisance]), outcome, weight, codes_, len(names))
    at = len(chosen)
    total = value[:at] + value[at]
    variance = np.diag(covariance)[:at] + covariance[at, at] + 2 * covariance[:at, at]

    def ends(name: str, estimate: Floats, error: Floats, users: Ints) -> dict[str, Floats]:
        half = stats.t.ppf((1 + level) / 2, np.maximum(users - 1, 1)) * error
        return dict(zip((f"{name}{end}" for end in ENDS), (estimate, estimate - half, estimate + half), strict=True))

    one = np.ones(len(chosen))
    table = pd.DataFrame(
        {
            "habit_id": pd.Series(habits[chosen], dtype="str"),
            "exposed": exposure.sum(axis=0).astype(np.int64),
            "users": people[chosen],
            **ends("naive", naive, naive_error, people[chosen]),
            **ends("adjusted", total, np.sqrt(np.maximum(variance, 0)), people[chosen]),
            **ends("load", of_load[0] * one, np.sqrt(load_covariance[0, 0]) * one, np.full(len(chosen), len(names))),
        }
    )
    return table.sort_values("habit_id", ignore_index=True)


ENDS = ("", "_low", "_high")


def _units(dataset: Dataset, end: int) -> pd.DataFrame:
    """Adopted pairs with a counted day: user, habit (positions), start, stop (days), recommended, counted, outcome."""
    frame = dataset.adoptions
    start = event_days(dataset, "adoptions", "adopted_at")
    stop = event_days(dataset, "adoptions", "abandoned_at")
    source = frame["source"] == "recommended" if "source" in frame else pd.Series(False, index=frame.index)
    units = pd.DataFrame(
        {
            "user": codes(frame["user_id"], dataset.users["user_id"]),
            "habit": codes(frame["habit_id"], dataset.habits["habit_id"]),
            "start": start,
            "stop": np.where(stop < end, stop, NEVER),
            "recommended": source.to_numpy(dtype=bool),
        }
    )
    units = units[(start < end) & (units["user"] >= 0) & (units["habit"] >= 0)]
    units = units.sort_values(["user", "habit", "start"]).drop_duplicates(["user", "habit"])
    days = read_days(rows_before(dataset.habit_tracking, end))
    habits = len(dataset.habits)
    key = codes(days.pairs["user_id"], dataset.users["user_id"]) * habits
    key += codes(days.pairs["habit_id"], dataset.habits["habit_id"])
    place = pd.Index(units["user"] * habits + units["habit"]).get_indexer(key)
    of_day = days.repeat(place)
    age = days.day - np.append(units["start"].to_numpy(), 0)[of_day]
    rows = (of_day >= 0) & (age >= 0) & (age < FIRST_DAYS) & ((days.status == DONE) | (days.status == MISSED))
    done, age, of_day = (days.status == DONE)[rows], age[rows], of_day[rows]
    usual = np.bincount(age, done, FIRST_DAYS) / np.maximum(np.bincount(age, minlength=FIRST_DAYS), 1)
    counted = np.bincount(of_day, minlength=len(units))
    above = np.bincount(of_day, done - usual[age], len(units))
    units = units.assign(counted=counted, outcome=above / np.maximum(counted, 1))
    return units.reset_index(drop=True)


def _held_beside(units: pd.DataFrame) -> tuple[Ints, Ints]:
    """Positions of units, and of the other units of the same user that were held when each was adopted."""
    by_user = units.reset_index(names="unit")[["unit", "user", "start", "stop"]]
    both = by_user.merge(by_user, on="user", suffixes=("", "_other"))
    beside = (both["unit"] != both["unit_other"]) & (both["start_other"] <= both["start"])
    both = both[beside & (both["stop_other"] > both["start"])]
    return both["unit"].to_numpy(), both["unit_other"].to_numpy()


def _difference(exposure: Floats, outcome: Floats, weight: Floats, cluster: Ints) -> tuple[Floats, Floats]:
    """Mean outcome of the exposed less that of the others, of each column, and its error by cluster (sandwich)."""
    parts = []
    for group in (exposure, 1 - exposure):
        share = group * weight[:, None]
        share /= np.maximum(share.sum(axis=0), 1e-12)
        mean = outcome @ share
        parts.append((mean, share * (outcome[:, None] - mean)))
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    sums = np.add.reduceat((parts[0][1] - parts[1][1])[order], starts, axis=0)
    error = np.sqrt((sums**2).sum(axis=0) * len(starts) / max(len(starts) - 1, 1))
    return parts[0][0] - parts[1][0], error


def _between_own(
    design: Floats, outcome: Floats, weight: Floats, cluster: Ints, clusters: int
) -> tuple[Floats, Floats]:
    """`_regression` with a mean of its own for each cluster."""
    outcome = _within(outcome[:, None], weight, cluster)[:, 0]
    return _regression(_within(design, weight, cluster), outcome, weight, cluster, clusters)


def _within(values: Floats, weight: Floats, group: Ints) -> Floats:
    """Values (rows, columns) less their weighted means by group."""
    total = np.bincount(group, weight)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(total)))
    sums = np.add.reduceat((values * weight[:, None])[order], starts, axis=0)
    return values - (sums / np.where(total > 0, total, 1)[:, None])[group]


def _regression(design: Floats, outcome: Floats, weight: Floats, cluster: Ints, clusters: int) -> tuple[Floats, Floats]:
    """Weighted least squares and its covariance by cluster; a column without variation gets 0.

    The sandwich is the jackknife-like CR3: the plain one is too narrow for a habit held by few (Bell & McCaffrey 2002,
    Survey Methodology 28:169).
    """
    root = np.sqrt(weight)
    design, outcome = design * root[:, None], outcome * root
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-9, hermitian=True)
    value = inverse @ (design.T @ outcome)
    order = np.argsort(cluster, kind="stable")
    design, residual = design[order], (outcome - design @ value)[order]
    fitted = design @ inverse
    scores = np.empty((clusters, design.shape[1]))
    first = np.searchsorted(cluster[order], np.arange(clusters))
    sizes = np.diff(first, append=len(order))
    for size in np.unique(sizes):  # clusters of one size at once
        rows = first[sizes == size][:, None] + np.arange(size)
        block = design[rows]
        leverage = fitted[rows] @ block.transpose(0, 2, 1)
        left_out = np.linalg.pinv(np.eye(size) - leverage, rcond=1e-6, hermitian=True) @ residual[rows][:, :, None]
        scores[sizes == size] = (block * left_out).sum(axis=1)
    return value, inverse @ (scores.T @ scores) @ inverse


def _shown_and_accepted(dataset: Dataset, end: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    shown = event_days(dataset, "recommendations", "shown_at") < end
    (yes,) = answers(dataset, Response.ACCEPTED)
    return shown, shown & yes & (answer_days(dataset) < end)
