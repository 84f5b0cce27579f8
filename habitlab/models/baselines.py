"""What every model has to beat: chance, popularity, and the scoring rule of the overview as it is written there.

`AsWritten` keeps the rule and its constants (sections 3.1-3.3 and 4.1 of the overview), mistakes included. What did not
run, or was left open, is filled in the most literal way that runs:

- user and habit vectors have different columns (the cosine raises): both are laid into the union of their columns,
  with zeros where one side has none, in the order and with the weights that concatenating gives them;
- a missing age makes the vector NaN: 0 there. In the age fit it is left as it is: every habit is cut to a tenth;
- the matrix factorisation returns user factors and no score: the score is their product with the components, on
  whatever scale that has; fewer habits than factors: as many factors as there can be;
- `user_interaction_count` is not defined: the number of habits acted on (`Interactions.evidence`);
- "success" is not defined: at least 60 % of an adopted habit's days done, so far, whatever their number;
  the boosting model takes no missing values: they are 0. It is split at random, and not calibrated (its call fails);
- an activity is compared as a set; a habit without ages suits everyone;
- the result reaches 1.2, and may be negative: `raw` gives it as it is, `score` divides by 1.2 and cuts at 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Activity, Category, LearningStyle
from habitlab.features.days import Day
from habitlab.features.text import habit_texts
from habitlab.models import Floats, Ids
from habitlab.models.interactions import LIVED, Interactions, positions
from habitlab.simulation.noise import Noise


@dataclass(eq=False)
class Popularity:
    """Share of users who ever adopted a habit, over that of the most popular one; the same for everybody."""

    user_ids_: Ids = field(init=False, repr=False)
    habit_ids_: Ids = field(init=False, repr=False)
    popularity_: Floats = field(init=False, repr=False)

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Count adopters before the local day `until`."""
        data = Interactions.read(dataset, until)
        self.user_ids_, self.habit_ids_ = data.user_ids, data.habit_ids
        adopters = np.asarray((data.matrix >= LIVED).sum(axis=0), dtype=float).ravel()
        self.popularity_ = adopters / max(adopters.max(initial=0.0), 1.0)
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all. Raises ValueError for unknown ids."""
        return np.tile(self.popularity_, (len(positions(user_ids, self.user_ids_)), 1))

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Score every habit for people without history (n, habits)."""
        return np.tile(self.popularity_, (len(users), 1))


@dataclass(eq=False)
class Random:
    """A score by lot for each user and habit, the same whenever it is asked for."""

    seed: int = 0
    user_ids_: Ids = field(init=False, repr=False)
    habit_ids_: Ids = field(init=False, repr=False)

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn nothing."""
        self.user_ids_ = dataset.users["user_id"].to_numpy(dtype=object)
        self.habit_ids_ = dataset.habits["habit_id"].to_numpy(dtype=object)
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all. Raises ValueError for unknown ids."""
        return self._draw("users", positions(user_ids, self.user_ids_))

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Score every habit for these people (n, habits)."""
        return self._draw("profiles", np.arange(len(users)))

    def _draw(self, stream: str, rows: npt.NDArray[np.int64]) -> Floats:
        return Noise(self.seed).uniform(stream, rows[:, None], np.arange(len(self.habit_ids_)))


@dataclass(eq=False)
class AsWritten:
    """The overview's own rule (4.1) with its constants; see the module for what had to be filled in."""

    user_ids_: Ids = field(init=False, repr=False)
    habit_ids_: Ids = field(init=False, repr=False)
    profiles_: pd.DataFrame = field(init=False, repr=False)
    habits_: pd.DataFrame = field(init=False, repr=False)
    evidence_: Floats = field(init=False, repr=False)
    latent_: Floats = field(init=False, repr=False)
    components_: Floats = field(init=False, repr=False)
    text_: Any = field(init=False, repr=False)
    success_: Any = field(init=False, repr=False)
    names_: dict[str, str] = field(init=False, repr=False)

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Fit the parts on what happened before the local day `until`."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        data = Interactions.read(dataset, until)
        self.user_ids_, self.habit_ids_ = data.user_ids, data.habit_ids
        self.profiles_, self.habits_ = dataset.users.reset_index(drop=True), dataset.habits
        self.evidence_ = data.evidence
        texts = habit_texts(dataset.habits).astype(object).fillna("").tolist()
        self.names_ = dict(zip(data.habit_ids.tolist(), texts, strict=True))
        words = [text for text in texts if any(letter.isalpha() for letter in text)]
        self.text_ = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(words) if words else None
        self.latent_, self.components_ = _factorise(data.matrix, data.registered)
        self._fit_success(data)
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all. Raises ValueError for unknown ids."""
        return np.clip(self.raw(user_ids) / 1.2, 0.0, 1.0)

    def raw(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Return the rule's result as it is (users, habits), up to about 1.2 and sometimes negative."""
        rows = positions(user_ids, self.user_ids_)
        collaborative = self.latent_[rows] @ self.components_
        return self._rule(self.profiles_.iloc[rows], collaborative, self.evidence_[rows])

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Score every habit for people without history (n, habits)."""
        nothing = np.zeros((len(users), len(self.habit_ids_)))
        return np.clip(self._rule(users, nothing, np.zeros(len(users))) / 1.2, 0.0, 1.0)

    def _rule(self, users: pd.DataFrame, collaborative: Floats, count: Floats) -> Floats:
        """`calculate_recommendation_score` of section 4.1, for all habits at once."""
        if users.empty:
            return np.zeros((0, len(self.habit_ids_)))
        content, fit, preference = self._content(users), _age_fit(users, self.habits_), _alignment(users, self.habits_)
        success = self._success(users)
        weights = np.array([[0.7, 0.0, 0.3], [0.5, 0.3, 0.2], [0.3, 0.5, 0.2]])[np.digitize(count, (5, 20))]
        parts = weights[:, 0:1] * content + weights[:, 1:2] * collaborative + weights[:, 2:3] * success
        return parts * fit * preference

    def _content(self, users: pd.DataFrame) -> Floats:
        """Cosine of the concatenated vectors of sections 3.1.1 and 3.1.2."""
        habits, shape = self.habits_, (len(users), len(self.habits_))
        style = _one_hot(users, "learning_style", LearningStyle)
        style[style.sum(axis=1) == 0] = 0.25
        # age, activities, style | areas = category | minutes | difficulty, frequency, prerequisites | words
        age = (_numbers(users, "age", 18.0) - 18) / 72
        areas, minutes = _ticked(users, "improvement_areas", Category), _numbers(users, "time_commitment") / 60
        activities = _ticked(users, "activity_preferences", Activity)
        mine = [age[:, None], activities, style, areas, minutes[:, None], np.zeros((shape[0], 3))]
        target = _frequency(habits)
        needed = (
            habits["prerequisites"].map(_length).to_numpy(float) if "prerequisites" in habits else np.zeros(shape[1])
        )
        own = [
            np.zeros((shape[1], 10)),
            _one_hot(habits, "category", Category),
            _numbers(habits, "minutes")[:, None] / 60,
        ]
        own += [_numbers(habits, "difficulty")[:, None] / 5, target[:, None], needed[:, None]]
        user, habit = sparse.csr_array(np.hstack(mine)), sparse.csr_array(np.hstack(own))
        if self.text_ is not None:
            user = sparse.hstack([user, self.text_.transform(self._said(users))], format="csr")
            habit = sparse.hstack([habit, self.text_.transform([*self.names_.values()])], format="csr")
        lengths = np.outer(*(np.sqrt(np.asarray(m.multiply(m).sum(axis=1)).ravel()) for m in (user, habit)))
        product = (user @ habit.T).toarray()
        return np.divide(product, lengths, out=np.zeros(shape), where=lengths > 0)

    def _said(self, users: pd.DataFrame) -> list[str]:
        empty = pd.Series([None] * len(users), dtype=object)
        barriers, held = (users.get(c, empty) for c in ("barriers", "existing_habits"))
        return [
            " ".join(
                [barrier if isinstance(barrier, str) else "", *(self.names_.get(h, str(h)) for h in _list(habits))]
            )
            for barrier, habits in zip(barriers, held, strict=True)
        ]

    def _pairs(self, users: pd.DataFrame) -> Floats:
        """Features of section 3.3.1 for every pair (users, habits, features)."""
        habits, shape = self.habits_, (len(users), len(self.habits_))
        held = (
            users["existing_habits"].map(_length).to_numpy(float) if "existing_habits" in users else np.zeros(shape[0])
        )
        match = _ticked(users, "improvement_areas", Category) @ _one_hot(habits, "category", Category).T
        times = [
            frame[column].astype(object).fillna("").to_numpy() if column in frame else np.full(len(frame), "")
            for frame, column in ((users, "preferred_time"), (habits, "time_of_day"))
        ]
        minutes = _numbers(users, "time_commitment")
        by_user, by_habit = (minutes, held), (_numbers(habits, "difficulty"), _numbers(habits, "minutes"))
        columns = [np.broadcast_to(values[:, None], shape) for values in by_user]
        columns += [np.broadcast_to(values, shape) for values in (*by_habit, _frequency(habits))]
        return np.stack([*columns, match, (times[0][:, None] == times[1]).astype(float)], axis=2)

    def _fit_success(self, data: Interactions) -> None:
        from sklearn.ensemble import GradientBoostingClassifier
        from sklearn.model_selection import train_test_split

        cells = data.matrix.tocoo()
        lived = cells.data >= LIVED
        (user, habit), rate = (place[lived] for place in cells.coords), cells.data[lived] - 0.5
        label = rate >= 0.6
        self.success_ = float(label.mean()) if len(label) else 0.5
        if min(label.sum(), (~label).sum()) < 10:
            return
        users = np.unique(user)
        features = np.empty((len(user), 7))
        for begin in range(0, len(users), 512):
            some = users[begin : begin + 512]
            mine = np.isin(user, some)
            features[mine] = self._pairs(self.profiles_.iloc[some])[np.searchsorted(some, user[mine]), habit[mine]]
        train, _, labels, _ = train_test_split(features, label, test_size=0.2, random_state=42)
        model = GradientBoostingClassifier(n_estimators=100, learning_rate=0.1, max_depth=3, random_state=42)
        self.success_ = model.fit(train, labels)

    def _success(self, users: pd.DataFrame) -> Floats:
        if isinstance(self.success_, float):
            return np.full((len(users), len(self.habit_ids_)), self.success_)
        result = np.empty((len(users), len(self.habit_ids_)))
        for begin in range(0, len(users), 512):
            features = self._pairs(users.iloc[begin : begin + 512])
            chance = self.success_.predict_proba(features.reshape(-1, features.shape[2]))[:, 1]
            result[begin : begin + 512] = chance.reshape(features.shape[:2])
        return result


def _factorise(matrix: sparse.csr_array, registered: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    from sklearn.decomposition import TruncatedSVD

    learnt = sparse.csr_matrix(matrix[registered])
    rank = min(20, min(learnt.shape) - 1)
    if rank < 1 or learnt.nnz == 0:
        return np.zeros((matrix.shape[0], 1)), np.zeros((1, matrix.shape[1]))
    svd = TruncatedSVD(n_components=rank, random_state=42).fit(learnt)
    return svd.transform(sparse.csr_matrix(matrix)), svd.components_


def _age_fit(users: pd.DataFrame, habits: pd.DataFrame) -> Floats:
    """`calculate_age_fit`: 1 inside the bounds, 0.1 a year less below, 0.05 a year less above, at least 0.1."""
    age = _numbers(users, "age", np.nan)[:, None]
    low, high = _numbers(habits, "min_age"), _numbers(habits, "max_age", np.inf)
    # Python's max(0.1, nan) is 0.1, fmax gives the same.
    outside = np.where(age < low, np.fmax(0.1, 1 - (low - age) * 0.1), np.fmax(0.1, 1 - (age - high) * 0.05))
    return np.where((low <= age) & (age <= high), 1.0, outside)


def _alignment(users: pd.DataFrame, habits: pd.DataFrame) -> Floats:
    """`calculate_preference_alignment`: 1.2 where the one activity is liked, 1.1 where one of several is, else 0.9."""
    activities = _ticked(habits, "activity_type", Activity)
    common = _ticked(users, "activity_preferences", Activity) @ activities.T
    return np.where(common > 0, np.where(activities.sum(axis=1) == 1, 1.2, 1.1), 0.9)


def _numbers(frame: pd.DataFrame, column: str, missing: float = 0.0) -> Floats:
    if column not in frame:
        return np.full(len(frame), missing)
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(values), values, missing)


def _one_hot(frame: pd.DataFrame, column: str, words: Any) -> Floats:
    names = [str(word) for word in words]
    values = frame[column].to_numpy(dtype=object, na_value=None) if column in frame else np.full(len(frame), None)
    return (values[:, None] == np.array(names, dtype=object)).astype(float)


def _ticked(frame: pd.DataFrame, column: str, words: Any) -> Floats:
    lists = frame[column].map(_list).tolist() if column in frame else [[]] * len(frame)
    return np.array([[float(word in chosen) for word in words] for chosen in lists]).reshape(len(frame), len(words))


def _frequency(habits: pd.DataFrame) -> Floats:
    """Times a day, from `target` k/n; once a day where it is not known."""
    if "target" not in habits:
        return np.ones(len(habits))
    parts = habits["target"].astype(object).fillna("1/1").astype(str).str.extract("(.*)/(.*)").to_numpy(dtype=float)
    return parts[:, 0] / parts[:, 1]


def _list(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else []


def _length(value: Any) -> int:
    return len(_list(value))
