"""Profiles and habits as numbers in [0, 1], with what was missing said beside them and nothing learnt from test rows.

Which columns a table has, and which words a column may hold, comes from the contract (`habitlab.dataset.schema`), so
that the features are the same ones, in the same order, whatever rows a preprocessor was fitted on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

from habitlab.dataset.derived import COMMITMENT_BANDS, MINUTE_BANDS, commitment_code, minutes_code
from habitlab.dataset.schema import TABLES, Column
from habitlab.dataset.vocabulary import Level

Floats = npt.NDArray[np.float64]

ORDINALS_VERSION = 1
"""To be raised with every change of `ORDINALS`; a fitted preprocessor keeps the scales that it was fitted with."""

ORDINALS: dict[str, tuple[str, ...]] = {
    "difficulty_preference": tuple(level.value for level in Level),
    "experience_level": tuple(level.value for level in Level),
    "time_commitment band": COMMITMENT_BANDS,
    "difficulty": ("1", "2", "3", "4", "5"),
    "minutes band": MINUTE_BANDS,
}
"""Ordered words, lowest first; the word at position i of n becomes i / (n - 1)."""

SIMILAR = 30
"""Fewest known values behind a fill: the median of fewer is unsteady, and may give a person away."""

ENOUGH = 20_000
"""Known values, evenly spaced over the rows, that fills are learnt from: more only take longer."""

_BANDS = {"time_commitment": commitment_code, "minutes": minutes_code}
_NUMBERS = ("whole", "number", "target")
_NOT_COMPARABLE = ("target_value",)  # a number of any unit


@dataclass(frozen=True)
class Encoded:
    """Features, and what was done to values on the way: how many by column, for the columns that have any.

    features: float64 in [0, 1], index of the rows. unknown: words outside the vocabulary, ignored.
    clipped: numbers outside the range of training. filled: numbers and levels that were missing (or no known level).
    """

    features: pd.DataFrame
    unknown: dict[str, int]
    clipped: dict[str, int]
    filled: dict[str, int]


class Preprocessor(TransformerMixin, BaseEstimator):
    """Encode the table `users` or `habits`: fitted on training rows, the same numbers ever after.

    - A choice becomes a feature a word (`gender=female`), a list one for each word that it may hold
      (`improvement_areas=diet`). Nothing given is all zeros, the empty set; an unknown word is ignored and counted.
    - A number is scaled by the least and greatest of training, and clipped to [0, 1]. A missing one is the median of
      similar profiles: of the at least 30 training rows in the same leaf of a regression tree over all words and
      levels (least absolute error, so that a leaf holds its median: Breiman et al. 1984, Classification and Regression
      Trees, 8.11). Below 60 known values that is the median of them all; without any, the middle of what the contract
      allows. A tree, unlike nearest neighbours, keeps nobody's profile.
    - A level (`ORDINALS`) runs from 0 to 1 in equal steps; a missing one is the median of training. Minutes are both a
      number and, by their band, a level.
    - Beside whatever may be missing stands a feature that says so (`age missing`).

    Free text is for `habitlab.features.text`; ids, zones, instants and lists of habits are no features. A column that
    is absent counts as missing in every row. `leave_out` names columns not to use. The input is never changed.

    Fitted: `feature_names_` (list), `ranges_` (least and greatest of each number), `similar_` (its tree),
    `usual_levels_` (median of each level), `ordinals_` and `ordinals_version_` (the scales).
    """

    def __init__(self, table: Literal["users", "habits"] = "users", leave_out: Sequence[str] = ()) -> None:
        """Keep the settings; `fit` checks them."""
        self.table = table
        self.leave_out = leave_out

    def fit(self, frame: pd.DataFrame, y: object = None) -> Self:
        """Learn ranges and fills from rows of the table. Raises ValueError for no rows, or values of a wrong kind."""
        if frame.empty:
            raise ValueError(f"needs at least one row of `{self.table}` to learn from")
        columns = self._columns()
        self.ordinals_version_ = ORDINALS_VERSION
        self.ordinals_ = {name: list(scale) for name, scale in ORDINALS.items()}
        self.usual_levels_: dict[str, float] = {}
        self.ranges_: dict[str, tuple[float, float]] = {}
        self.similar_: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for name, scale in self.ordinals_.items():
            if name in columns and columns[name].kind == "choice":
                codes, _ = _codes(_column(frame, name), scale)
                known = codes[codes >= 0]
                self.usual_levels_[name] = float(np.median(known)) if known.size else (len(scale) - 1) / 2
        profiles = _matrix(self._words(frame, Counter(), Counter()), len(frame))
        for name, column in columns.items():
            if column.kind in _NUMBERS:
                values = _numbers(frame, name, column)
                known = np.flatnonzero(~np.isnan(values))
                low, high = column.low or 0.0, 1.0 if column.high is None else column.high
                if known.size:
                    low, high = float(values[known].min()), float(values[known].max())
                else:
                    known, values = np.array([0]), np.full(len(frame), (low + high) / 2)
                self.ranges_[name] = (1.0, float(len(self.ordinals_[name]))) if name in self.ordinals_ else (low, high)
                known = known[:: -(-known.size // ENOUGH)]
                self.similar_[name] = _median_tree(profiles[known], values[known])
        self.feature_names_ = list(self._encode(frame.iloc[:1]).features.columns)
        return self

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Features of each row: (rows, features); see `Encoded`."""
        return self.encode(frame).features

    def encode(self, frame: pd.DataFrame) -> Encoded:
        """Features of each row, and how many values were unknown, clipped and filled."""
        check_is_fitted(self)
        encoded = self._encode(frame)
        if list(encoded.features.columns) != self.feature_names_:
            raise ValueError("this preprocessor was fitted when the tables had other columns or words; fit it again")
        return encoded

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of the features, in their order."""
        check_is_fitted(self)
        return np.array(self.feature_names_, dtype=object)

    def parameters(self) -> dict[str, Any]:
        """All that was learnt, as plain values for a model card."""
        check_is_fitted(self)
        return {
            "table": self.table,
            "leave_out": list(self.leave_out),
            "features": self.feature_names_,
            "ordinals": {"version": self.ordinals_version_, **self.ordinals_},
            "usual_levels": self.usual_levels_,
            "ranges": {name: list(bounds) for name, bounds in self.ranges_.items()},
            "similar": {
                name: {part: values.tolist() for part, values in tree.items()} for name, tree in self.similar_.items()
            },
        }

    def parameters_hash(self) -> str:
        """Hash of `parameters`: equal hashes, equal features."""
        return parameters_hash(self.parameters())

    def _columns(self) -> dict[str, Column]:
        """The columns that become features, in the order of the contract."""
        if self.table not in ("users", "habits"):
            raise ValueError(f"table is 'users' or 'habits'; got {self.table!r}")
        known = TABLES[self.table].columns
        for name in self.leave_out:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise ValueError(
                    f"no column {name!r} in `{self.table}`" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        kinds = ("choice", "truth", *_NUMBERS)
        return {
            name: column
            for name, column in known.items()
            if (column.kind in kinds or (column.kind == "list" and column.choices))
            and name not in (*self.leave_out, *_NOT_COMPARABLE)
        }

    def _encode(self, frame: pd.DataFrame) -> Encoded:
        unknown, clipped, filled = Counter[str](), Counter[str](), Counter[str]()
        features = self._words(frame, unknown, filled)
        profiles = _matrix(features, len(frame))
        for name, tree in self.similar_.items():
            values, (low, high) = _numbers(frame, name, TABLES[self.table].columns[name]), self.ranges_[name]
            missing = np.isnan(values)
            if missing.any():
                values = np.where(missing, 0.0, values)
                values[missing] = tree["median"][_leaf(tree, profiles[missing])]
            clipped[name] = int(((values < low) | (values > high)).sum())
            filled[name] = int(missing.sum())
            features[name] = (np.clip(values, low, high) - low) / (high - low or 1.0)
            if name in _BANDS:
                steps = len(self.ordinals_[f"{name} band"]) - 1
                features[f"{name} band"] = (_BANDS[name](pd.Series(values)).to_numpy() - 1) / steps
            features[f"{name} missing"] = missing.astype(float)
        found = pd.DataFrame(np.column_stack([*features.values()]), index=frame.index, columns=[*features])
        return Encoded(found, *({name: n for name, n in counts.items() if n} for counts in (unknown, clipped, filled)))

    def _words(self, frame: pd.DataFrame, unknown: Counter[str], filled: Counter[str]) -> dict[str, Floats]:
        """Features of choices, lists, truths and levels; counts what is unknown and filled."""
        features: dict[str, Floats] = {}
        for name, column in self._columns().items():
            if column.kind in _NUMBERS:
                continue
            if column.kind == "truth":
                values = _truths(frame, name)
                missing = np.isnan(values)
                features[name] = np.where(missing, 0.0, values)
            elif scale := self.ordinals_.get(name):
                codes, unknown[name] = _codes(_column(frame, name), scale)
                missing = codes < 0
                filled[name] = int(missing.sum())
                features[name] = np.where(missing, self.usual_levels_[name], codes) / (len(scale) - 1)
            else:
                assert column.choices is not None
                words = [choice.value for choice in column.choices]
                answers = _column(frame, name)
                missing = pd.isna(answers)
                rows, given = _listed(answers, name) if column.kind == "list" else (np.arange(len(answers)), answers)
                codes, unknown[name] = _codes(given, words)
                held = np.zeros((len(frame), len(words)))
                held[rows[codes >= 0], codes[codes >= 0]] = 1.0
                features |= {f"{name}={word}": held[:, i] for i, word in enumerate(words)}
            features[f"{name} missing"] = missing.astype(float)
        return features


def parameters_hash(parameters: Mapping[str, Any]) -> str:
    """SHA-256 of plain values and arrays, whatever the order of the keys (hexadecimal)."""
    text = json.dumps(parameters, sort_keys=True, default=lambda array: array.tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def _median_tree(profiles: Floats, values: Floats) -> dict[str, npt.NDArray[Any]]:
    """Grow a regression tree, and keep it as plain arrays (nodes,): a stored one can be read without trust."""
    grown = (
        DecisionTreeRegressor(criterion="absolute_error", min_samples_leaf=SIMILAR, max_leaf_nodes=16, random_state=0)
        .fit(profiles, values)
        .tree_
    )
    return {
        "column": grown.feature.copy(),
        "threshold": grown.threshold.copy(),
        "left": grown.children_left.copy(),
        "right": grown.children_right.copy(),
        "median": grown.value.ravel(),
        "profiles": grown.n_node_samples.copy(),
    }


def _leaf(tree: dict[str, npt.NDArray[Any]], profiles: Floats) -> npt.NDArray[np.int64]:
    """Leaf in which each profile ends (rows,)."""
    node = np.zeros(len(profiles), dtype=np.int64)
    while (inner := tree["left"][node] >= 0).any():
        rows, here = np.flatnonzero(inner), node[inner]
        goes_left = profiles[rows, tree["column"][here]] <= tree["threshold"][here]
        node[rows] = np.where(goes_left, tree["left"][here], tree["right"][here])
    return node


def _matrix(features: dict[str, Floats], rows: int) -> Floats:
    return np.column_stack([np.zeros(rows), *features.values()])  # a tree wants a column even where all is left out


def _column(frame: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    """Values of a column (rows,), None where missing, and everywhere where there is no such column."""
    return frame[name].to_numpy(dtype=object, na_value=None) if name in frame else np.full(len(frame), None)


def _codes(values: npt.NDArray[np.object_], words: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Position of each value in `words` (-1 where it is missing or unknown), and how many are unknown."""
    same = values[:, None] == np.array(words, dtype=object)
    codes = np.where(same.any(axis=1), same.argmax(axis=1), -1)
    return codes, int(((codes < 0) & ~pd.isna(values)).sum())


def _listed(values: npt.NDArray[np.object_], name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Row of each word of a column of lists, and the words."""
    given = np.flatnonzero(~pd.isna(values))
    lists = values[given]
    if not set(map(type, lists)) <= {list, tuple, np.ndarray}:
        row = next(row for row in given if not isinstance(values[row], list | tuple | np.ndarray))
        raise ValueError(f"{name}: row {row} holds {values[row]!r}, not a list of words")
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return np.repeat(given, lengths), np.array([*chain.from_iterable(lists)], dtype=object)


def _truths(frame: pd.DataFrame, name: str) -> Floats:
    values = _column(frame, name)
    known = ~pd.isna(values)
    if (known & (values != 0) & (values != 1)).any():
        raise ValueError(f"{name}: holds values that are neither true nor false")
    return np.where(known, values == 1, np.nan)


def _numbers(frame: pd.DataFrame, name: str, column: Column) -> Floats:
    """Numbers of a column, NaN where missing; a target of k times in n days is k / n."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    try:
        if column.kind == "target":
            parts = frame[name].astype("str").str.split("/", expand=True, n=1).reindex(columns=[0, 1]).astype("float64")
            numbers = (parts[0] / parts[1]).to_numpy()
        else:
            numbers = pd.to_numeric(frame[name]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: holds values that are not {_MEANT[column.kind]}") from error
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        raise ValueError(
            f"{name}: infinite in {infinite.size} rows, first in row {infinite[0]}; leave unknown numbers out"
        )
    return numbers


_MEANT = {"whole": "numbers", "number": "numbers", "target": "times per days, like 3/7"}
