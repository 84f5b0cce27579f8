"""How likely a habit is to last, if a user adopted it now (overview 3.3).

Histogram gradient boosting over what is known of a pair on the morning of its adoption, calibrated by Platt's sigmoid
on users it never learnt from. The label, its censoring and the features are those of `habitlab.models.pairs`.

It tells what is likely to be kept up, not what a recommendation adds: who would succeed anyway scores high, too (D75).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from habitlab.dataset import Dataset
from habitlab.features.days import Day
from habitlab.models import Floats, Ids
from habitlab.models.interactions import ids_of, positions
from habitlab.models.pairs import (
    NAMES,
    Arrays,
    History,
    LabelledPairs,
    grid_columns,
    label_pairs,
    no_history,
    read_habits,
    read_profiles,
    success_rates,
    take,
)
from habitlab.models.sampling import thin_out
from habitlab.models.trees import Trees

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

Bools = npt.NDArray[np.bool_]

FEWEST_PAIRS, FEWEST_USERS, FEWEST_OF_A_KIND = 200, 50, 30
"""Labelled pairs, their users, and successes as well as failures below which no model is fitted."""

CALIBRATION_SHARE, STOPPING_SHARE = 0.2, 0.15
"""Shares of users for calibration and for finding the number of trees; nobody is in two parts."""

# On the built-in data small trees do better than larger ones, and are walked faster.
_BOOSTING = {"learning_rate": 0.1, "max_leaf_nodes": 4, "min_samples_leaf": 50, "l2_regularization": 10.0}
_ENCODING = NAMES.index("habit_success")
_FOLDS = 5
MOST_TREES = 400
_BLOCK = 1 << 16  # pairs scored at a time


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training leaves behind: trees, Platt's sigmoid over their log-odds, and the success of each habit.

    probability = 1 / (1 + exp(-(slope f + intercept))) with f the trees' log-odds; `covariance` (2, 2) is that of
    (slope, intercept), robust to several pairs of one user. `habit_success` (habits,).
    """

    trees: Trees
    slope: float
    intercept: float
    covariance: Floats
    habit_success: Floats

    def probability(self, columns: Floats) -> Floats:
        """Calibrated probability of each row (n,); `columns` (features, n)."""
        return special.expit(self.slope * self.trees.log_odds(columns) + self.intercept)


class SuccessModel:
    """P(success | adopted now) for users and habits; see the module for what success is.

    After `fit`: `fallback_` says why there is no model and every score is the base rate (empty when there is one);
    `base_rate_` is the share of successes, shrunk to one half by two pairs; `counts_` says what was learnt from.
    """

    habit_ids_: Ids
    user_ids_: Ids
    fallback_: str
    base_rate_: float
    counts_: dict[str, int]

    def __init__(self, seed: int = 0, *, recent_days: int | None = None, old_share: float = 1.0) -> None:
        """`seed` decides which users train, stop and calibrate, and which old pairs are learnt from.

        Of pairs adopted more than `recent_days` before the end a share `old_share` is, each weighing the more for it
        (`sampling.thin_out`); None learns from all.
        """
        self.seed, self.recent_days, self.old_share = seed, recent_days, old_share

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn from adoptions whose 50 days lie before `until`, and note how all users stand on that day."""
        history = History(dataset, until)
        self.user_ids_, self.habit_ids_ = ids_of(dataset.users, "user_id"), ids_of(dataset.habits, "habit_id")
        everybody, today = np.arange(len(self.user_ids_)), np.full(len(self.user_ids_), history.end)
        self._people = read_profiles(dataset.users) | history.of_users(everybody, today)
        place = np.arange(len(self.habit_ids_))
        self._habits = read_habits(dataset) | {
            "habit_completion": history.of_habits(place, np.full(len(place), history.end))
        }
        pairs = label_pairs(dataset, until, history)
        kept, weight = np.ones(len(pairs), dtype=bool), None
        if self.recent_days is not None:
            cut = history.end - self.recent_days
            random = np.random.default_rng([self.seed, max(cut, 0)])  # below 0 without a day: there is nothing to draw
            kept, weight = thin_out(pairs.table["day"], cut, self.old_share, random)
        self.counts_ = {"pairs": int(kept.sum()), "successes": int(pairs.success[kept].sum())} | pairs.table.attrs
        of = len(pairs) if weight is None else weight.sum()
        self.base_rate_ = float(((pairs.success if weight is None else weight * pairs.success).sum() + 1) / (of + 2))
        self._fitted: Fitted | None = None
        self.fallback_ = too_few(pairs, kept)
        if not self.fallback_:
            self._fitted = train(pairs, kept, self.seed, weight)
            if self._fitted.slope <= 0:
                self.fallback_ = "what was learnt from some users did not hold for others"
                self._fitted = None
        success = np.full(len(place), self.base_rate_) if self._fitted is None else self._fitted.habit_success
        self._habits["habit_success"] = success
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Probability of success of every habit for these users (users, habits); None is all users."""
        place = positions(user_ids, self.user_ids_)
        if self._fitted is None:
            return np.full((len(place), len(self.habit_ids_)), self.base_rate_)
        return special.expit(self._fitted.slope * self._log_odds(self._people, place) + self._fitted.intercept)

    def score_profiles(self, users: pd.DataFrame) -> Floats:
        """Probability of success of every habit for people who have just registered (n, habits)."""
        if self._fitted is None:
            return np.full((len(users), len(self.habit_ids_)), self.base_rate_)
        people = read_profiles(users) | no_history(len(users))
        log_odds = self._log_odds(people, np.arange(len(users)))
        return special.expit(self._fitted.slope * log_odds + self._fitted.intercept)

    def log_odds(self, user_ids: Sequence[str] | None = None) -> Floats:
        """What the trees say before calibration (users, habits); the SHAP values of `explain` add up to this."""
        self._need_model()
        return self._log_odds(self._people, positions(user_ids, self.user_ids_))

    def score_interval(self, probability: npt.ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
        """Between which shares the successes among pairs with this score lie (shape of `probability`): low, high.

        It tells how well the calibration is known: delta method on the sigmoid, with the variance clustered by user
        (Liang & Zeger 1986, doi:10.1093/biomet/73.1.13). Without a model it is the posterior interval of the base rate.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is a share between 0 and 1, such as 0.95; got {level}")
        calibrated = np.asarray(probability, dtype=float)
        if self._fitted is None:
            of = self.counts_["pairs"], self.counts_["successes"]
            tails = np.array([(1 - level) / 2, (1 + level) / 2])
            low, high = special.betaincinv(of[1] + 1, of[0] - of[1] + 1, tails)
            return np.full(calibrated.shape, low), np.full(calibrated.shape, high)
        logit = special.logit(np.clip(calibrated, 1e-12, 1 - 1e-12))
        raw = (logit - self._fitted.intercept) / self._fitted.slope
        a, ab, b = self._fitted.covariance[[0, 0, 1], [0, 1, 1]]
        half = special.ndtri((1 + level) / 2) * np.sqrt(np.maximum(a * raw**2 + 2 * ab * raw + b, 0))
        return special.expit(logit - half), special.expit(logit + half)

    def explain(self, user_id: str, habit_ids: Sequence[str] | None = None) -> pd.DataFrame:
        """SHAP values of each feature in log-odds: a row for each habit, a column for each feature.

        The rows' sums plus `attrs["base"]` are the `log_odds` of the user (Lundberg et al. 2020,
        doi:10.1038/s42256-019-0138-9). Needs the extra `explain`.

        Raises
        ------
        ValueError
            The user or a habit is not known, or there is no model to explain.
        ImportError
            The package shap is not installed.
        """
        fitted = self._need_model()
        person = take(self._people, positions([user_id], self.user_ids_))
        place = positions(habit_ids, self.habit_ids_, "habit")
        try:
            import shap
        except ImportError as error:
            raise ImportError("explaining the success model needs shap: pip install 'habitlab[explain]'") from error
        columns = grid_columns(person, take(self._habits, place))[:, 0]
        explainer = shap.TreeExplainer(fitted.trees.for_shap())
        frame = pd.DataFrame(
            explainer.shap_values(np.ascontiguousarray(columns.T)),
            index=pd.Index(self.habit_ids_[place], name="habit_id"),
            columns=list(NAMES),
        )
        frame.attrs["base"] = float(np.ravel(explainer.expected_value)[0])
        return frame

    def _need_model(self) -> Fitted:
        if self._fitted is None:
            raise ValueError(f"there is no success model here, only the base rate: {self.fallback_}")
        return self._fitted

    def _log_odds(self, people: Arrays, place: npt.NDArray[np.int64]) -> Floats:
        fitted, habits = self._need_model(), len(self.habit_ids_)
        out = np.empty((len(place), habits))
        step = max(1, _BLOCK // max(habits, 1))
        for begin in range(0, len(place), step):
            block = place[begin : begin + step]
            columns = grid_columns(take(people, block), self._habits)
            out[begin : begin + step] = fitted.trees.log_odds(columns.reshape(len(NAMES), -1)).reshape(-1, habits)
        return out


def too_few(pairs: LabelledPairs, rows: Bools | slice = slice(None)) -> str:
    """Say why no model can be fitted to these pairs; empty when one can."""
    success, users = pairs.success[rows], len(np.unique(pairs.user[rows]))
    kept = int(success.sum())
    if len(success) < FEWEST_PAIRS:
        return f"{len(success)} adoptions can be judged (followed for 50 days), at least {FEWEST_PAIRS} are needed"
    if users < FEWEST_USERS:
        return f"adoptions of {users} users can be judged, at least {FEWEST_USERS} users are needed"
    if min(kept, len(success) - kept) < FEWEST_OF_A_KIND:
        return f"{kept} of {len(success)} adoptions succeeded; at least {FEWEST_OF_A_KIND} have to, and as many to fail"
    return ""


def train(pairs: LabelledPairs, rows: Bools, seed: int = 0, weight: Floats | None = None) -> Fitted:
    """Fit trees and their calibration to some of the pairs, cut three ways by user; `weight` (pairs,) of each."""
    return train_pipeline(pairs, rows, seed, weight)[0]


def train_pipeline(
    pairs: LabelledPairs, rows: Bools, seed: int = 0, weight: Floats | None = None
) -> tuple[Fitted, CalibratedClassifierCV]:
    """As `train`, with the scikit-learn pipeline that it comes from."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.frozen import FrozenEstimator
    from threadpoolctl import threadpool_limits

    # Trees this small keep no second thread busy, and on a busy machine threads wait for each other: 20 times slower.
    with threadpool_limits(limits=1, user_api="openmp"):
        generator = np.random.default_rng(seed)
        learning, stopping, calibrating = three_ways(pairs.user, rows, generator)
        success, kept = pairs.success, learning | stopping
        features, _ = encoded(pairs, learning, generator)
        # Its own validation set would be drawn by row, and hold the users that it learns from.
        trial = HistGradientBoostingClassifier(
            max_iter=MOST_TREES, early_stopping=True, n_iter_no_change=10, random_state=seed, **_BOOSTING
        ).fit(
            features[learning],
            success[learning],
            sample_weight=None if weight is None else weight[learning],
            X_val=features[stopping],
            y_val=success[stopping],
            sample_weight_val=None if weight is None else weight[stopping],
        )
        features, rates = encoded(pairs, kept, generator)
        boosting = HistGradientBoostingClassifier(
            max_iter=trial.n_iter_, early_stopping=False, random_state=seed, **_BOOSTING
        ).fit(features[kept], success[kept], sample_weight=None if weight is None else weight[kept])
        calibrated = CalibratedClassifierCV(FrozenEstimator(boosting), method="sigmoid")
        of_each = None if weight is None else weight[calibrating]
        with warnings.catch_warnings():  # that weights are for the calibration only is what is wanted
            warnings.filterwarnings("ignore", message="Since FrozenEstimator does not appear to accept sample_weight")
            calibrated.fit(features[calibrating], success[calibrating], sample_weight=of_each)
        sigmoid = calibrated.calibrated_classifiers_[0].calibrators[0]
        trees = Trees.of(boosting)
        slope, intercept = -float(sigmoid.a_), -float(sigmoid.b_)
        raw = trees.log_odds(np.ascontiguousarray(features[calibrating].T))
        covariance = logistic_covariance(raw, success[calibrating], pairs.user[calibrating], slope, intercept, of_each)
        return Fitted(trees, slope, intercept, covariance, rates), calibrated


def three_ways(user: npt.NDArray[np.int64], rows: Bools, generator: np.random.Generator) -> tuple[Bools, Bools, Bools]:
    """Rows to learn from, to stop by and to calibrate on (pairs,) each; every user in one of them only."""
    users = generator.permutation(np.unique(user[rows]))
    calibrating = max(1, round(CALIBRATION_SHARE * len(users)))
    stopping = calibrating + max(1, round(STOPPING_SHARE * len(users)))
    parts = users[stopping:], users[calibrating:stopping], users[:calibrating]
    learn, stop, calibrate = (rows & np.isin(user, part) for part in parts)
    return learn, stop, calibrate


def encoded(pairs: LabelledPairs, learning: Bools, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Features (pairs, features) with `habit_success` filled in, and its values (habits,) for anybody new.

    Of users who are learnt from it comes from the others of them (cross-fitted): no row ever sees its own user's label.
    """
    habit, success = pairs.table["habit"].to_numpy(), pairs.success
    rates = success_rates(habit[learning], success[learning], pairs.category)
    column = rates[habit]
    users = generator.permutation(np.unique(pairs.user[learning]))
    for own in np.array_split(users, _FOLDS):
        mine = learning & np.isin(pairs.user, own)
        others = learning & ~mine
        column[mine] = success_rates(habit[others], success[others], pairs.category)[habit[mine]]
    features = np.ascontiguousarray(pairs.columns.T)
    features[:, _ENCODING] = column
    # Binning fails on a column without any value; as a constant it is never split on.
    features[:, np.isnan(features[learning]).all(axis=0)] = 0.0
    return features, rates


def logistic_covariance(
    raw: Floats,
    success: npt.NDArray,
    user: npt.NDArray,
    slope: float,
    intercept: float,
    weight: Floats | None = None,
) -> Floats:
    """Covariance (2, 2) of the slope and intercept of a logistic fit, `weight` (n,) each row's, clustered by user."""
    chance = special.expit(slope * raw + intercept)
    design = np.column_stack([raw, np.ones(len(raw))])
    of_each = np.ones(len(raw)) if weight is None else weight
    bread = np.linalg.pinv(design.T @ (design * (of_each * chance * (1 - chance))[:, None]))
    score = pd.DataFrame(design * (of_each * (success - chance))[:, None]).groupby(user).sum().to_numpy()
    few = len(score) / max(len(score) - 1, 1)
    return few * bread @ (score.T @ score) @ bread
