"""How well a habit fits what a person said: both in one named space, likeness block by block, a weight for each block.

| block | user | habit | similarity in [0, 1] |
|---|---|---|---|
| category | areas to improve, one column each | its category | 1 if it is one of the areas, else 0 |
| time | minutes a day | minutes | exp(-d^2 / 2), d: gap of their logarithms in units of 1.2 |
| time_of_day | preferred time and chronotype | part of the day it fits | liking of that part; any: of the best |
| difficulty | beginner 1.5, intermediate 3, advanced 4.5 | 1 to 5 | 1 - gap / 4 |
| text | barriers, names of the habits held before | names and descriptions | (1 + cosine of LSA vectors) / 2 |
| learning_style | stated style | none says what it suits | 0.5: there is no evidence for matching it; weight 0 |

An answer that is missing, on either side, is neutral: 0.5. Age is no part of it (it says what is safe, not what one
wants), nor are activities, which the recommender adds as a preference. Blocks have weights that sum to 1 and so cannot
crowd each other out, however many columns they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, optimize, sparse
from threadpoolctl import threadpool_limits

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Category, Chronotype, LearningStyle, Level, TimeOfDay
from habitlab.features.days import Day
from habitlab.models import Floats, Ids
from habitlab.models.interactions import LIVED, Interactions, ids_of, positions

NEUTRAL = 0.5
WEIGHTS = {
    "category": 0.3,
    "time": 0.25,
    "time_of_day": 0.15,
    "difficulty": 0.15,
    "text": 0.15,
    "learning_style": 0.0,
}
"""Weights of the blocks before anything is learnt, by judgement."""

_MINUTES_SCALE = 1.2
_LEVELS = {Level.BEGINNER: 1.5, Level.INTERMEDIATE: 3.0, Level.ADVANCED: 4.5}
_PARTS = (TimeOfDay.MORNING, TimeOfDay.AFTERNOON, TimeOfDay.EVENING)
_BY_CHRONOTYPE = {
    Chronotype.MORNING: (1.0, 0.5, 0.0),
    Chronotype.INTERMEDIATE: (0.5, 1.0, 0.5),
    Chronotype.EVENING: (0.0, 0.5, 1.0),
}
_PRIOR_ADOPTIONS = 50.0  # adoptions as many as which the weights by judgement are worth
_BLOCK = 512


@dataclass(eq=False)
class ContentModel:
    """Weighted similarity of people and habits; see the module.

    `weights` (block -> at least 0, any scale) are those to start from, and to keep if `learn_weights` is False.
    Blocks may be left out. Learning: non-negative least squares of adopted (1) against looked at and not adopted (0;
    where no recommendations are known, against all habits not adopted) on the similarities, within users and with the
    popularity of habits held fixed; mixed with the start as if that were worth 50 adoptions.
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    learn_weights: bool = True

    user_ids_: Ids = field(init=False, repr=False)
    habit_ids_: Ids = field(init=False, repr=False)
    space_: list[str] = field(init=False, repr=False)
    """Names of the columns that users and habits share."""
    columns_: dict[str, npt.NDArray[np.intp]] = field(init=False, repr=False)
    """Where each block stands in the space."""
    weights_: dict[str, float] = field(init=False, repr=False)
    users_: Floats = field(init=False, repr=False)
    """Users in the space (users, columns); NaN where nothing was said."""
    habits_: Floats = field(init=False, repr=False)
    encoder_: Any = field(init=False, repr=False)
    names_: dict[str, str] = field(init=False, repr=False)
    """Names of habits by id, for the text of users who name habits by id."""

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Place users and habits in the space, and learn the weights from adoptions before the local day `until`.

        Raises
        ------
        ValueError
            `weights` names an unknown block, is negative, or is 0 altogether.
        """
        _check_weights(self.weights)
        habits = dataset.habits
        self.user_ids_, self.habit_ids_ = ids_of(dataset.users, "user_id"), ids_of(habits, "habit_id")
        self.names_ = _names(habits)
        self.encoder_ = _encoder(habits) if "text" in self.weights else None
        vectors = _habit_vectors(habits, self.encoder_)
        self.space_ = list(vectors)
        blocks = np.array([name.split("=")[0] for name in self.space_])
        self.columns_ = {block: np.flatnonzero(blocks == block) for block in self.weights}
        self.habits_ = np.column_stack(list(vectors.values()))
        self.users_ = self._place(dataset.users)
        total = sum(self.weights.values())
        self.weights_ = {block: self.weights[block] / total for block in sorted(self.weights)}
        if self.learn_weights:
            with threadpool_limits(limits=1, user_api="blas"):  # else the last bits depend on the number of threads
                self._learn(Interactions.read(dataset, until))
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all. Raises ValueError for unknown ids."""
        return self._weighted(self._blocks(self.users_[positions(user_ids, self.user_ids_)]))

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Score every habit for people by their profile, columns of the table `users` (n, habits)."""
        return self._weighted(self._blocks(self._place(users)))

    def similarities(self, users: Sequence[str] | pd.DataFrame | None = None) -> dict[str, Floats]:
        """Similarity of each block (n, habits) in [0, 1], of users by id or of profiles; the score is their mean.

        `score` is the sum of `weights_[block]` times these, in the order of `weights_`, to the last bit.
        """
        return self._blocks(self.vectors(users).to_numpy())

    def vectors(self, users: Sequence[str] | pd.DataFrame | None = None) -> pd.DataFrame:
        """Users, by id or by profile, in the shared space (n, columns `space_`); NaN where nothing was said."""
        if isinstance(users, pd.DataFrame):
            return pd.DataFrame(self._place(users), columns=self.space_)
        rows = positions(users, self.user_ids_)
        return pd.DataFrame(self.users_[rows], index=pd.Index(self.user_ids_[rows]), columns=self.space_)

    def habit_vectors(self) -> pd.DataFrame:
        """Habits in the shared space (habits, columns `space_`); NaN where nothing is known."""
        return pd.DataFrame(self.habits_, index=pd.Index(self.habit_ids_), columns=self.space_)

    def _place(self, users: pd.DataFrame) -> Floats:
        vectors = _user_vectors(users, self.encoder_, self.names_)
        return np.column_stack([vectors[name] for name in self.space_])

    def _blocks(self, users: Floats) -> dict[str, Floats]:
        found = {}
        for block in self.weights_:
            columns = self.columns_[block]
            likeness = _LIKENESS[block](users[:, columns], self.habits_[:, columns])
            known = np.outer(_known(users[:, columns]), _known(self.habits_[:, columns]))
            found[block] = np.where(known, np.clip(likeness, 0.0, 1.0), NEUTRAL)
        return found

    def _weighted(self, blocks: dict[str, Floats]) -> Floats:
        total = np.zeros((len(next(iter(blocks.values()))), len(self.habit_ids_)))
        for block, weight in self.weights_.items():
            total += weight * blocks[block]
        return total

    def _learn(self, data: Interactions) -> None:
        adopted = sparse.csr_array(data.matrix >= LIVED)
        popularity = np.log(np.asarray(adopted.sum(axis=0), dtype=float).ravel() + 1)
        names = list(self.weights_)
        gram, target = np.zeros((len(names) + 1,) * 2), np.zeros(len(names) + 1)
        users = np.flatnonzero(np.diff(adopted.indptr))
        for begin in range(0, len(users), _BLOCK):
            some = users[begin : begin + _BLOCK]
            label = adopted[some].toarray()
            other = data.refused[some].toarray() if data.refused.nnz else ~data.ever[some].toarray()
            row, column = np.nonzero(label | other)
            blocks = self._blocks(self.users_[some])
            design = np.column_stack([*(blocks[name][row, column] for name in names), popularity[column]])
            both = np.column_stack([design, label[row, column]])
            count = np.bincount(row, minlength=len(some))[:, None]
            sums = np.add.reduceat(both, np.flatnonzero(np.diff(row, prepend=-1)))
            both -= (sums / count)[row]  # every user has an adopted habit, so every row of the block is there
            gram += both[:, :-1].T @ both[:, :-1]
            target += both[:, :-1].T @ both[:, -1]
        # Popularity taken out of both sides (Frisch, Waugh and Lovell), so that only blocks are left to weigh.
        if gram[-1, -1] > 0:
            target = target - gram[:, -1] * target[-1] / gram[-1, -1]
            gram = gram - np.outer(gram[:, -1], gram[-1]) / gram[-1, -1]
        root = linalg.cholesky(gram[:-1, :-1] + 1e-6 * np.eye(len(names)))
        found, _ = optimize.nnls(root, linalg.solve_triangular(root, target[:-1], trans=1))
        if found.sum() > 0:
            share = adopted.nnz / (adopted.nnz + _PRIOR_ADOPTIONS)
            mixed = share * found / found.sum() + (1 - share) * np.array(list(self.weights_.values()))
            self.weights_ = dict(zip(names, (mixed / mixed.sum()).tolist(), strict=True))


def _category(users: Floats, habits: Floats) -> Floats:
    return np.nan_to_num(users) @ np.nan_to_num(habits).T


def _time(users: Floats, habits: Floats) -> Floats:
    return np.exp(-(((users - habits.T) / _MINUTES_SCALE) ** 2) / 2)


def _time_of_day(users: Floats, habits: Floats) -> Floats:
    return (users[:, None, :] * habits[None, :, :]).max(axis=2)


def _difficulty(users: Floats, habits: Floats) -> Floats:
    return 1 - np.abs(users - habits.T) / 4


def _text(users: Floats, habits: Floats) -> Floats:
    return (1 + np.nan_to_num(users) @ np.nan_to_num(habits).T) / 2


def _learning_style(users: Floats, habits: Floats) -> Floats:
    return np.full((len(users), len(habits)), NEUTRAL)


_LIKENESS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "category": _category,
    "time": _time,
    "time_of_day": _time_of_day,
    "difficulty": _difficulty,
    "text": _text,
    "learning_style": _learning_style,
}


def _known(vectors: Floats) -> npt.NDArray[np.bool_]:
    return np.logical_not(np.isnan(vectors).any(axis=1))


def _check_weights(weights: dict[str, float]) -> None:
    for block, weight in weights.items():
        if block not in _LIKENESS:
            raise ValueError(f"no block {block!r}; the blocks are {', '.join(_LIKENESS)}")
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {block} is {weight}; weights are finite and at least 0")
    if not sum(weights.values()) > 0:
        raise ValueError("all weights are 0: give at least one block some weight")


def _user_vectors(users: pd.DataFrame, encoder: Any, names: dict[str, str]) -> dict[str, Floats]:
    """Users in the space: column name -> (users,)."""
    minutes = _number(users, "time_commitment")
    parts = _mean_known(
        _words(users, "preferred_time", {part: _one_of(_PARTS, part) for part in TimeOfDay}, len(_PARTS)),
        _words(users, "chronotype", _BY_CHRONOTYPE, len(_PARTS)),
    )
    text = [_said(barriers, held, names) for barriers, held in zip(*_answers(users), strict=True)]
    return {
        **_columns("category", Category, _ticked(users, "improvement_areas", Category)),
        "time=log_minutes": np.log1p(np.where(minutes >= 0, minutes, np.nan)),
        **_columns("time_of_day", _PARTS, parts),
        "difficulty=level": _words(users, "difficulty_preference", {k: (v,) for k, v in _LEVELS.items()}, 1)[:, 0],
        **_texts(text, encoder),
        **_columns("learning_style", LearningStyle, _one_hot(users, "learning_style", LearningStyle)),
    }


def _habit_vectors(habits: pd.DataFrame, encoder: Any) -> dict[str, Floats]:
    """Habits in the space: column name -> (habits,)."""
    minutes = _number(habits, "minutes")
    parts = _words(habits, "time_of_day", {part: _one_of(_PARTS, part) for part in TimeOfDay}, len(_PARTS))
    style = np.full((len(habits), len(LearningStyle)), np.nan)
    return {
        **_columns("category", Category, _one_hot(habits, "category", Category)),
        "time=log_minutes": np.log1p(np.where(minutes >= 0, minutes, np.nan)),
        **_columns("time_of_day", _PARTS, parts),
        "difficulty=level": _number(habits, "difficulty"),
        **_texts(_habit_texts(habits) if encoder is not None else [], encoder),
        **_columns("learning_style", LearningStyle, style),
    }


def _columns(block: str, words: Any, values: Floats) -> dict[str, Floats]:
    return {f"{block}={word}": values[:, number] for number, word in enumerate(words)}


def _one_of(parts: Sequence[str], word: str) -> tuple[float, ...]:
    """One-hot; `any` (no part of its own) is all ones."""
    return tuple(1.0 if word in (part, TimeOfDay.ANY) else 0.0 for part in parts)


def _one_hot(frame: pd.DataFrame, column: str, words: Any) -> Floats:
    return _words(frame, column, {word: tuple(float(word == other) for other in words) for word in words}, len(words))


def _words(frame: pd.DataFrame, column: str, rows: Mapping[Any, tuple[float, ...]], width: int) -> Floats:
    """A row of numbers for each word (rows, width); NaN where the answer is missing or not a known word."""
    if column not in frame:
        return np.full((len(frame), width), np.nan)
    table = np.array([*rows.values(), (np.nan,) * width])
    return table[pd.Index([str(word) for word in rows]).get_indexer(frame[column].astype(object))]


def _ticked(frame: pd.DataFrame, column: str, words: Any) -> Floats:
    """1 for each word in a list, else 0 (rows, words); NaN where there is no list."""
    if column not in frame:
        return np.full((len(frame), len(words)), np.nan)
    lists = frame[column].reset_index(drop=True)
    told = lists.map(lambda value: isinstance(value, (list, tuple, np.ndarray))).to_numpy(dtype=bool)
    single = lists[told].explode().dropna()
    column_of = pd.Index([str(word) for word in words]).get_indexer(single)
    ticks = np.where(told[:, None], np.zeros(len(words)), np.nan)
    ticks[single.index.to_numpy()[column_of >= 0], column_of[column_of >= 0]] = 1.0
    return ticks


def _number(frame: pd.DataFrame, column: str) -> Floats:
    """Numbers (rows,); NaN where missing or infinite."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _mean_known(first: Floats, second: Floats) -> Floats:
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, (first + second) / 2))


def _answers(users: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    nothing = [None] * len(users)
    barriers = users["barriers"].astype(object).tolist() if "barriers" in users else nothing
    return barriers, users["existing_habits"].tolist() if "existing_habits" in users else nothing


def _said(barriers: Any, held: Any, names: dict[str, str]) -> str:
    habits = [names.get(habit, str(habit)) for habit in held] if isinstance(held, (list, tuple, np.ndarray)) else []
    return "\n".join([barriers, *habits] if isinstance(barriers, str) else habits)


def _names(habits: pd.DataFrame) -> dict[str, str]:
    columns = [habits[c].astype(object).tolist() for c in ("name_en", "name_ru") if c in habits]
    joined = ["\n".join(n for n in row if isinstance(n, str)) for row in zip(*columns, strict=True)]
    return dict(zip(habits["habit_id"], joined, strict=True)) if columns else {}


def _habit_texts(habits: pd.DataFrame) -> list[str]:
    from habitlab.features.text import habit_texts

    return [text if isinstance(text, str) else "" for text in habit_texts(habits)]


def _encoder(habits: pd.DataFrame) -> Any:
    """Text encoder fitted on the habits, None where they have no words; nothing that users wrote enters it."""
    texts = [text for text in _habit_texts(habits) if text]
    if not texts:
        return None
    from habitlab.features.text import TextEncoder

    return TextEncoder().fit(texts)


def _texts(texts: list[str], encoder: Any) -> dict[str, Floats]:
    """Unit vectors of texts, column -> (n,); NaN where there is no text, or no word of it is known."""
    if encoder is None:
        return {}
    # Many people say the same: each text is encoded once.
    code, different = pd.factorize(np.array(texts, dtype=object))
    vectors = np.asarray(encoder.dense(list(different)), dtype=float)[code]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        vectors = np.where((length > 1e-9) & (np.array(texts, dtype=object) != "")[:, None], vectors / length, np.nan)
    return {f"text={number}": vectors[:, number] for number in range(vectors.shape[1])}
