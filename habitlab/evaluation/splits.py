"""Protocols of offline evaluation: what a model may learn from, and what it is held against.

A global temporal split is the default: what lies before a day is known, what comes from that day on is the truth. Of
the three it is the only one in which a model learns nothing of anybody's future (Meng et al. 2020, RecSys,
doi:10.1145/3383313.3418479). `leaks` finds features that are the future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset, schema
from habitlab.features.days import Day, until_day
from habitlab.models.interactions import Interactions, days_of, positions

Ids = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]

WHEN = {table: column for table, column in schema.WHEN.items() if table not in ("users", "model_runs")}
"""Column that says when a row came to be known; a row without it cannot be shown to be of the past, and goes."""

FILLED_IN_LATER = {
    "habit_tracking": ("at", ("at",)),
    "adoptions": ("abandoned_at", ("abandoned_at",)),
    "recommendations": ("responded_at", ("responded_at", "response")),
    "surveys": ("answered_at", ("answered_at", "answer")),
    "experiments": ("exposed_at", ("exposed_at",)),
}
"""What is not known with the row itself: the column that says when, and the columns that are hidden until then."""

BANDS = {"cold": 0, "warm": 1, "hot": 10}
"""Bands of evidence: the fewest habits acted on (`Interactions.evidence`: adopted, tracked or rejected) before a split.

Of a cold user nothing but the profile is known; a hot one has acted on as many habits as a list of ten has places. The
overview's own thresholds, 5 and 20, leave next to nobody on the outer sides of the simulated population.
"""


@dataclass(frozen=True, eq=False)
class Split:
    """What to learn from, and what to be held against.

    `train` holds only what is known; the profiles in it are those of all users. Rows of the matrices are `user_ids`,
    the users to score; columns are `habit_ids`, all those of the dataset in its order. `relevant` CSR float64: 1 for
    each habit that the user took up later and never had before. `seen` CSR bool: what the user ever had before, which
    no list offers again. `until` is the local day from which on nothing is known, None where there is no such day.
    """

    train: Dataset
    relevant: sparse.csr_array
    seen: sparse.csr_array
    user_ids: Ids
    habit_ids: Ids
    until: pd.Timestamp | None


def temporal(dataset: Dataset, until: Day) -> Split:
    """Global temporal split at the local day `until` (each user's own): train before it, truth from it on.

    The users are those registered before `until`, or where that is not known those with an event before it. Their
    relevant habits are those adopted (or, without an adoption, first tracked) on `until` or later, but not tracked,
    adopted or said to exist before. Raises ValueError where nobody was there before `until`.
    """
    day = _moment(until)
    train = before(dataset, day)
    present = _present(dataset, train, day)
    if not present.any():
        raise ValueError(f"nobody registered before {day:%Y-%m-%d}; choose a later day")

    known = _known(dataset, _starts(dataset, day), day)
    return _split(dataset, train, lambda table, column: ~known(table, column), present, day)


def leave_last_out(dataset: Dataset) -> Split:
    """Hold out what each user adopted last: train on what happened to them before that moment.

    Users who adopted at one moment only are trained on and have nothing to be held against. The model sees what others
    did later, also later than the habit it has to find: results are too good (see the module's source).
    """
    adoptions = dataset.adoptions
    moments = adoptions.groupby("user_id")["adopted_at"]
    latest = moments.transform("max")
    held_out = adoptions[(adoptions["adopted_at"] == latest) & (latest > moments.transform("min"))]
    last = held_out.groupby("user_id")["adopted_at"].first()
    days = pd.Series(days_of(dataset.replace(adoptions=held_out), "adoptions", "adopted_at"), held_out["user_id"])
    train = _keep(dataset, _known(dataset, last, days.groupby(level=0).first()))

    def later(table: str, column: str) -> Mask:
        return dataset.table(table).index.isin(held_out.index) & (table == "adoptions")

    return _split(dataset, train, later, np.ones(len(dataset.users), dtype=bool), None)


def hold_out_users(dataset: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """Cold start: a random share of the users (0 < share < 1) have only their profile, and all they did is the truth.

    Raises ValueError where the share leaves no user on one of the two sides.
    """
    users = dataset.users["user_id"].to_numpy(dtype=object)
    if not 0 < share < 1:
        raise ValueError(f"the share of users to hold out lies between 0 and 1, such as 0.2; it is {share}")
    number = round(share * len(users))
    if not 0 < number < len(users):
        raise ValueError(f"a share of {share} of {len(users)} users leaves {number} to hold out; both sides need some")
    held = np.zeros(len(users), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(users))[:number]] = True

    def of_others(table: str, column: str) -> Mask:
        return ~dataset.table(table)["user_id"].isin(users[held]).to_numpy()

    return _split(dataset, _keep(dataset, of_others), lambda table, column: ~of_others(table, column), held, None)


def evidence_bands(split: Split) -> pd.Series:
    """Band (`BANDS`) of each of the split's users by what `train` knows of them: ordered categories by user_id."""
    past = Interactions.read(split.train, split.until)
    evidence = past.evidence[positions(split.user_ids, past.user_ids)]
    band = np.searchsorted(list(BANDS.values()), evidence, side="right") - 1
    index = pd.Index(split.user_ids, name="user_id")
    return pd.Series(pd.Categorical.from_codes(band, list(BANDS), ordered=True), index, name="band")


def before(dataset: Dataset, until: Day) -> Dataset:
    """What was known when the local day `until` began: later rows are gone, and what was filled in later is hidden.

    Users and habits stay, and runs of models go. Days are each user's own (`zone`, `day_start`); see `WHEN` and
    `FILLED_IN_LATER`.
    """
    day = _moment(until)
    return _keep(dataset, _known(dataset, _starts(dataset, day), day))


Features = Callable[[Dataset, Day], Any]


def leaks(features: Features, dataset: Dataset, until: Day) -> list[str]:
    """Names of the columns that hold something of the future; empty where none does.

    `features(dataset, until)` gives a frame (a series, an array) with a row a user. It is asked again with everything
    from `until` on removed, with it a month later, and without the users who registered on `until` or later: what it
    says of the others must not change (to 9 digits). Rows that come or go are reported as "(rows)".
    """
    day = _moment(until)
    told = _as_frame(features(dataset, until), dataset)
    newcomers = _days(dataset, "users", "registered_at") >= day.to_datetime64()
    others = {
        "removed": before(dataset, day),
        "postponed": _postpone(dataset, day),
        "without newcomers": dataset.without(set(dataset.users["user_id"][newcomers])),
    }
    found: dict[str, None] = {}
    for name, other in others.items():
        again = _as_frame(features(other, until), other)
        if name == "without newcomers":
            common = told.index.intersection(again.index)
            left, right = told.loc[common], again.loc[common]
        else:
            left, right = told, again
            if not left.index.equals(right.index):
                found["(rows)"] = None
                continue
        strangers = left.columns.symmetric_difference(right.columns)
        found |= dict.fromkeys(str(column) for column in strangers)
        same = (column for column in left.columns if column not in strangers)
        found |= dict.fromkeys(str(column) for column in same if not _equal(left[column], right[column]))
    return list(found)


def _split(
    dataset: Dataset, train: Dataset, later: Callable[[str, str], Mask], users: Mask, until: pd.Timestamp | None
) -> Split:
    """Split whose truth are the pairs in the `later` rows of adoptions and tracking that `train` does not know."""
    past = Interactions.read(train, until)
    pairs = [
        dataset.table(table).loc[later(table, WHEN[table]), ["user_id", "habit_id"]]
        for table in ("adoptions", "habit_tracking")
    ]
    rows = pd.concat(pairs).drop_duplicates()
    user, habit = positions(rows["user_id"], past.user_ids), positions(rows["habit_id"], past.habit_ids, "habit")
    taken_up = sparse.csr_array((np.ones(len(rows)), (user, habit)), shape=past.matrix.shape)
    relevant = sparse.csr_array(taken_up - taken_up.multiply(past.ever))
    relevant.eliminate_zeros()
    return Split(train, relevant[users], past.ever[users], past.user_ids[users], past.habit_ids, until)


def _keep(dataset: Dataset, known: Callable[[str, str], Mask]) -> Dataset:
    """Only rows that are `known`, and of them only what is; asked by table and the column that says when."""
    tables = {"model_runs": dataset.model_runs.iloc[:0]}
    for name, when in WHEN.items():
        frame = dataset.table(name)
        kept = known(name, when) if when in frame.columns else np.zeros(len(frame), dtype=bool)
        if name in FILLED_IN_LATER:
            column, hidden = FILLED_IN_LATER[name]
            if column in frame.columns:
                late = frame[column].notna().to_numpy() & ~known(name, column)
                frame = frame.assign(**{field: frame[field].mask(late) for field in hidden if field in frame.columns})
        tables[name] = frame[kept]
    return dataset.replace(**tables)


def _moment(until: Day) -> pd.Timestamp:
    if until is None:
        raise ValueError("`until` is a local day, such as '2026-01-05'; got None")
    return pd.Timestamp(until_day(until, pd.DataFrame()), unit="D")


def _starts(dataset: Dataset, day: pd.Timestamp) -> pd.Series:
    """Instant at which each user's local day begins, by user_id; users without a zone live in UTC."""
    users = dataset.users
    zones = users["zone"].astype(object).fillna("UTC") if "zone" in users else pd.Series("UTC", users.index)
    hours = users["day_start"].fillna(0) if "day_start" in users else pd.Series(0.0, users.index)
    clock = day + pd.to_timedelta(hours, unit="h")
    starts = pd.Series(pd.NaT, users.index, dtype="datetime64[us, UTC]")
    for zone, mine in clock.groupby(zones):
        first_of_two = np.ones(len(mine), dtype=bool)
        local = mine.dt.tz_localize(zone, ambiguous=first_of_two, nonexistent="shift_forward")
        starts[mine.index] = local.dt.tz_convert("UTC").dt.as_unit("us")
    return starts.set_axis(users["user_id"])


def _known(dataset: Dataset, starts: pd.Series, days: pd.Series | pd.Timestamp) -> Callable[[str, str], Mask]:
    """Which rows of a table and column that says when come before each user's start of the unknown, or have none.

    `starts` are instants and `days` local days by user_id, or one day for all.
    """

    def known(table: str, column: str) -> Mask:
        frame = dataset.table(table)
        cut = starts
        if column == "date":
            if isinstance(days, pd.Timestamp):
                return (frame[column] < days).to_numpy(bool)
            cut = days
        cut = cut.loc[cut.notna()]
        place = cut.index.get_indexer(frame["user_id"])
        when = frame[column].to_numpy("datetime64[us]")
        early = when < cut.to_numpy("datetime64[us]")[place] if len(cut) else np.zeros(len(frame), dtype=bool)
        return np.where(place >= 0, early, ~np.isnat(when))

    return known


def _days(dataset: Dataset, table: str, column: str) -> npt.NDArray[np.datetime64]:
    """Local day of each row (rows,), NaT where unknown."""
    if column == "date":
        return dataset.table(table)[column].to_numpy().astype("datetime64[D]")
    return days_of(dataset, table, column)


def _present(dataset: Dataset, train: Dataset, day: pd.Timestamp) -> Mask:
    """Whether each user of the dataset was there before the day."""
    registered = _days(dataset, "users", "registered_at")
    users = dataset.users["user_id"]
    active = users.isin(train.adoptions["user_id"].unique()) | users.isin(train.habit_tracking["user_id"].unique())
    return np.where(np.isnat(registered), active, registered < day.to_datetime64())


def _postpone(dataset: Dataset, day: pd.Timestamp, days: int = 30) -> Dataset:
    """The same events, but those of `day` or later so much later."""
    tables = {}
    for name, when in WHEN.items():
        frame = dataset.table(name)
        columns = {when, FILLED_IN_LATER.get(name, (when,))[0]} & set(frame.columns)
        late = {column: _days(dataset, name, column) >= day.to_datetime64() for column in columns}
        tables[name] = frame.assign(
            **{column: frame[column].mask(late[column], frame[column] + pd.Timedelta(days=days)) for column in columns}
        )
    return dataset.replace(**tables)


def _as_frame(values: Any, dataset: Dataset) -> pd.DataFrame:
    if isinstance(values, pd.DataFrame):
        return values
    if isinstance(values, pd.Series):
        return values.to_frame(values.name if values.name is not None else "value")
    array = values.toarray() if sparse.issparse(values) else np.asarray(values)
    index = dataset.users["user_id"] if len(array) == len(dataset.users) else None
    frame = pd.DataFrame(array.reshape(len(array), -1), index=None if index is None else pd.Index(index))
    return frame.rename(columns=lambda number: f"column {number}")


def _equal(left: pd.Series, right: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right):
        return np.allclose(left.to_numpy(float), right.to_numpy(float), rtol=1e-9, atol=1e-12, equal_nan=True)
    return (
        left.astype(object).where(left.notna(), None).tolist()
        == right.astype(object).where(right.notna(), None).tolist()
    )
