"""What people who share habits share next: factorised interactions, corrected for popularity and calibrated.

Three linear models say how strongly a user's habits speak for each other habit (`method`): truncated SVD, EASE and
implicit ALS. None of their numbers is a probability, and all of them favour what is popular anyway, so each is turned
into a lift over popularity, and a logistic regression on held-out adoptions weighs three logarithms:

- popularity: adoptions of the habit for each opportunity. What was recommended to many is adopted by many, so that an
  exposure counts as an opportunity where exposures are known (missing not at random);
- lift of history: share of the habit in what the factor model expects of this user, over its share in what everybody
  adopts. Both are mixed so that somebody without history gets just popularity (lift 1);
- lift of neighbours: what consenting people of like demography adopt (`neighbours.py`).

The score is p / (p + mean p): the chance that, of this habit and an average one not held, this is the one adopted. 0.5
is an average habit, whoever asks, so that scores can be compared between users and mixed with others in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, sparse
from scipy.special import expit
from threadpoolctl import threadpool_limits

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Purpose
from habitlab.features.days import Day
from habitlab.models import Floats, Ids
from habitlab.models.interactions import Interactions, consenting, positions
from habitlab.models.neighbours import Neighbours

Method = Literal["svd", "ease", "als"]

TERMS = ("popularity", "history", "neighbours")
_RIDGE = 200.0  # adoptions that say as much as the prior; NDCG is flat between 100 and 1,000
_PSEUDO = 2.0  # adoptions of an average habit that each habit is given
_MIX = 0.3  # weight of popularity in what a user's history is expected to lead to, in users' worth of history
_ALS_REGULARISATION, _ALS_CONFIDENCE, _ALS_ROUNDS = 50.0, 10.0, 15  # less of the first for a few hundred users
_CALIBRATION_USERS = 5000
_PRIOR_SPREAD = 0.5  # of the coefficients around 1, where a lift is taken at its word


@dataclass(eq=False)
class CollaborativeModel:
    """Scores from interactions; see the module for what they mean.

    `factors` is the most factors that svd and als use, never more than min(shape) - 1; EASE has none. `demographics`
    False leaves the neighbours out. Unknown people get popularity, and neighbours if they consent.
    """

    method: Method = "svd"
    factors: int = 20
    demographics: bool = True
    seed: int = 0

    user_ids_: Ids = field(init=False, repr=False)
    habit_ids_: Ids = field(init=False, repr=False)
    matrix_: sparse.csr_array = field(init=False, repr=False)
    """Weights of interactions (users, habits)."""
    consent_: npt.NDArray[np.bool_] = field(init=False, repr=False)
    popularity_: Floats = field(init=False, repr=False)
    """Adoptions for each opportunity, 1 on average (habits,)."""
    everyone_: Floats = field(init=False, repr=False)
    """Mean weight of each habit over users (habits,)."""
    weights_: tuple[Floats, Floats] | None = field(init=False, repr=False)
    """A row of the matrix times both of these is what the factor model expects; None for als."""
    items_: Floats | None = field(init=False, repr=False)
    """Factors of habits (habits, factors); None for EASE."""
    regularisation_: float = field(init=False, repr=False)
    """Of als, by the number of users learnt from."""
    neighbours_: Neighbours | None = field(init=False, repr=False)
    coefficients_: dict[str, float] = field(init=False, repr=False)
    intercept_: float = field(init=False, repr=False)

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Learn from the interactions before the local day `until`.

        Raises
        ------
        ValueError
            `method` is not one of svd, ease, als, or `factors` is below 1.
        ImportError
            `method` is als and the optional package implicit is not installed.
        """
        if self.method not in get_args(Method):
            raise ValueError(f"method {self.method!r} is not one of {', '.join(get_args(Method))}")
        if self.factors < 1:
            raise ValueError(f"factors is at least 1; got {self.factors}")
        data = Interactions.read(dataset, until)
        self.user_ids_, self.habit_ids_ = data.user_ids, data.habit_ids
        self.consent_ = np.zeros(len(data.user_ids), dtype=bool)
        if self.demographics:
            self.consent_ = consenting(dataset, Purpose.SIMILAR_USERS, until) & data.registered
        with threadpool_limits(limits=1, user_api="blas"):  # the last bits of products depend on the number of threads
            self._calibrate(data, dataset.users)
            self._learn(data.matrix, data, dataset.users)
        return self

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits); None is all. Raises ValueError for unknown ids."""
        rows = positions(user_ids, self.user_ids_)
        return self._calibrated(self._terms(self.matrix_[rows], self._near(rows)))

    def score_profiles(self, users: pd.DataFrame, consent: npt.NDArray[np.bool_] | None = None) -> Floats:
        """Score every habit for people without history (n, habits): popularity, and their neighbours with consent.

        `consent` (n,): who agrees to be compared with similar users; nobody unless it is said.
        """
        return self.fold_in(sparse.csr_array((len(users), len(self.habit_ids_))), users, consent)

    def fold_in(
        self,
        matrix: sparse.csr_array,
        users: pd.DataFrame | None = None,
        consent: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Score people whom the model was not fitted on, without refitting (n, habits).

        `matrix` (n, habits) holds weights as `Interactions.matrix` does. People whom the model was fitted on get
        exactly their `score`. `users` (n rows) and `consent` (n,) are needed for neighbours only.
        """
        matrix = sparse.csr_array(matrix)
        if matrix.shape[1] != len(self.habit_ids_):
            raise ValueError(f"the rows have {matrix.shape[1]} habits; this model knows {len(self.habit_ids_)}")
        if not np.isfinite(matrix.data).all():
            raise ValueError("the rows hold weights that are NaN or infinite")
        near = None
        if self.neighbours_ is not None and users is not None and consent is not None:
            near = self.neighbours_.lift(users, np.asarray(consent, dtype=bool))
        return self._calibrated(self._terms(matrix, near))

    def confidence(self, user_ids: Sequence[str] | None = None) -> Floats:
        """How far each user's own history, not popularity, decides what is expected of them (n,), 0 to 1."""
        rows = self.matrix_[positions(user_ids, self.user_ids_)]
        mass = np.maximum(self._expected(rows), 0).sum(axis=1)
        return mass / (mass + _MIX * self.everyone_.sum()) if mass.any() else mass

    def _learn(self, matrix: sparse.csr_array, data: Interactions, users: pd.DataFrame) -> None:
        self.matrix_ = matrix
        self.neighbours_ = Neighbours.fit(users, matrix, self.consent_) if self.consent_.any() else None
        matrix = matrix[data.registered]
        total, rank = np.asarray(matrix.sum(axis=0)).ravel(), max(1, min(self.factors, min(matrix.shape) - 1))
        self.popularity_, self.everyone_ = _rates(total, data), (total + 1e-9) / max(matrix.shape[0], 1)
        self.regularisation_ = min(_ALS_REGULARISATION, max(1.0, matrix.shape[0] / 40))
        self.weights_, self.items_ = None, None
        if self.method == "als":
            self.items_ = _als(matrix, rank, self.regularisation_, self.seed)
        elif self.method == "ease":
            self.weights_ = ease(matrix), np.eye(matrix.shape[1])
        else:
            self.items_, self.weights_ = truncated_svd(matrix, rank)

    def _near(self, rows: npt.NDArray[np.intp]) -> Floats | None:
        return None if self.neighbours_ is None else self.neighbours_.of_users(rows)

    def _expected(self, rows: sparse.csr_array) -> Floats:
        """How strongly each row speaks for each habit (n, habits), in the units of the factor model."""
        if self.method == "als":
            assert self.items_ is not None
            return _als_users(rows, self.items_, self.regularisation_) @ self.items_.T
        assert self.weights_ is not None
        left, right = self.weights_
        return rows @ left if self.method == "ease" else (rows @ left) @ right

    def _terms(self, rows: sparse.csr_array, near: Floats | None) -> Floats:
        """The three logarithms (TERMS, n, habits); `near` is that of the neighbours, None where nobody has any."""
        terms = np.zeros((len(TERMS), *rows.shape))
        terms[0] = np.log(self.popularity_)
        share = self.everyone_ / self.everyone_.sum()
        expected = np.maximum(self._expected(rows), 0)
        # What the user already has takes no share of what comes next.
        free = np.ones(rows.shape, dtype=bool)
        free[rows.nonzero()] = False
        mass = (expected * free).sum(axis=1, keepdims=True)
        mix = _MIX * self.everyone_.sum()
        terms[1] = np.log((expected + mix * share) / ((mass + mix) * share))
        if near is not None:
            terms[2] = near
        return terms

    def _calibrated(self, terms: Floats) -> Floats:
        weights = np.array([self.coefficients_[name] for name in TERMS])
        return expit(self.intercept_ + np.einsum("t,tuh->uh", weights, terms))

    def _calibrate(self, data: Interactions, users: pd.DataFrame) -> None:
        """Hide each user's latest adoption, learn from the rest, and see what tells it from the habits not adopted."""
        generator = np.random.default_rng(self.seed)
        user, habit = _latest(data.adopted_day, generator)
        if len(user) > _CALIBRATION_USERS:
            chosen = np.sort(generator.choice(len(user), _CALIBRATION_USERS, replace=False))
            user, habit = user[chosen], habit[chosen]
        hidden = sparse.csr_array((np.ones(len(user)), (user, habit)), shape=data.matrix.shape)
        self._learn(_without(data.matrix, hidden), data, users)
        terms = self._terms(self.matrix_[user], self._near(user))
        label = hidden[user].toarray() > 0
        free = ~data.ever[user].toarray() | label
        self.intercept_, slopes = balanced_logistic(terms[:, free].T, label[free])
        self.coefficients_ = dict(zip(TERMS, map(float, slopes), strict=True))


def truncated_svd(matrix: sparse.csr_array, rank: int) -> tuple[Floats, tuple[Floats, Floats]]:
    """Factorise weights (users, habits) after dividing each habit by the root of its sum, as `TruncatedSVD` would.

    Returns the right singular vectors (habits, rank) and two matrices whose product maps a row to what is expected of
    it: projection on the factors, each shrunk by s^2 / (s^2 + ridge), as by a prior on users (ridge regression).
    Unscaled, the first factors would only say what is popular. Computed by the eigenvectors of the habits' Gram matrix:
    exact, the same on every run, and for some hundreds of habits faster than a randomised solver.
    """
    total = np.asarray(matrix.sum(axis=0)).ravel()
    scale = 1 / np.sqrt(total + 10.0)
    gram = _gram(matrix) * np.outer(scale, scale)
    habits = len(gram)
    values, vectors = linalg.eigh(gram, subset_by_index=[max(0, habits - rank), habits - 1])
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    # An eigenvector's sign is arbitrary: its largest entry is made positive.
    if habits:
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    shrunk = values / (values + _RIDGE / max(total.sum() / max(habits, 1), 1e-9))
    return vectors, ((scale[:, None] * vectors) * shrunk, vectors.T / scale)


def ease(matrix: sparse.csr_array, ridge: float = _RIDGE) -> Floats:
    """Weights (habits, habits) with which habits speak for each other, none for itself; closed form.

    Source: Steck 2019, WWW, doi:10.1145/3308558.3313710.
    """
    gram = _gram(matrix)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def balanced_logistic(terms: Floats, label: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Intercept and slopes of a logistic regression on `terms` (rows, n), as if both labels were equally frequent.

    Fitted at the labels' own frequencies, then moved by the log-odds of the base rate: weighting rows instead would
    let the many poor candidates decide on the slopes. The slopes have a normal prior around 1 (spread 0.5): where there
    is little to learn from, a lift is taken at its word. Without a row of either label the intercept is 0.
    """
    slopes, positives = np.ones(terms.shape[1]), int(label.sum())
    if positives == 0 or positives == len(label):
        return 0.0, slopes
    base = float(np.log(positives / (len(label) - positives)))
    design = np.column_stack([np.ones(len(label)), terms])
    precision = np.append(1e-6, np.full(terms.shape[1], 1 / _PRIOR_SPREAD**2))
    prior = np.append(base, slopes)
    beta = prior.copy()
    for _ in range(50):  # Newton's method; the loss is convex
        chance = expit(design @ beta)
        gradient = design.T @ (chance - label) + precision * (beta - prior)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        beta = beta - step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return float(beta[0]) - base, beta[1:]


def _rates(adopted: Floats, data: Interactions) -> Floats:
    """Adoptions of each habit for what its opportunities would bring an average one (habits,), shrunk to 1."""
    accepted = np.minimum(np.asarray(data.accepted.sum(axis=0), dtype=float).ravel(), adopted)
    looked = accepted + np.asarray(data.refused.sum(axis=0), dtype=float).ravel()
    by_itself = (adopted - accepted).sum() / max(len(adopted), 1)
    by_exposure = accepted.sum() / max(looked.sum(), 1.0)
    return (adopted + _PSEUDO) / (by_itself + by_exposure * looked + _PSEUDO)


def _latest(adopted_day: sparse.csr_array, generator: np.random.Generator) -> tuple[npt.NDArray, npt.NDArray]:
    """The latest adoption of everybody with at least two (n,), (n,); of one day's adoptions one drawn by lot."""
    user, habit = adopted_day.nonzero()
    order = np.lexsort((generator.random(len(user)), adopted_day.data, user))
    user, habit = user[order], habit[order]
    last = np.ones(len(user), dtype=bool)
    last[:-1] = user[1:] != user[:-1]
    several = np.bincount(user, minlength=adopted_day.shape[0])[user] > 1
    return user[last & several], habit[last & several]


def _without(matrix: sparse.csr_array, hidden: sparse.csr_array) -> sparse.csr_array:
    left = sparse.csr_array(matrix - matrix.multiply(hidden))
    left.eliminate_zeros()
    return left


def _gram(matrix: sparse.csr_array) -> Floats:
    return (matrix.T @ matrix).toarray()


def _als(matrix: sparse.csr_array, rank: int, regularisation: float, seed: int) -> Floats:
    """Factors of habits (habits, rank) by implicit ALS (Hu, Koren and Volinsky 2008, doi:10.1109/ICDM.2008.22)."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        raise ImportError(
            "method 'als' needs the optional package implicit: pip install 'habitlab[als]'; svd and ease need nothing"
        ) from error
    if matrix.nnz == 0:
        return np.zeros((matrix.shape[1], rank))
    model = AlternatingLeastSquares(
        factors=rank,
        regularization=regularisation,
        alpha=_ALS_CONFIDENCE,
        iterations=_ALS_ROUNDS,
        random_state=seed,
        num_threads=1,
        dtype=np.float64,
    )
    model.fit(sparse.csr_matrix(matrix), show_progress=False)
    return np.asarray(model.item_factors, dtype=float)


def _als_users(rows: sparse.csr_array, items: Floats, regularisation: float) -> Floats:
    """Factors of users (n, rank) given those of habits: the last half step of ALS, exactly."""
    rank = items.shape[1]
    outer = (items[:, :, None] * items[:, None, :]).reshape(len(items), rank * rank)
    confidence = rows * _ALS_CONFIDENCE
    extra = confidence.copy()
    extra.data = np.maximum(extra.data - 1, 0)
    system = items.T @ items + regularisation * np.eye(rank) + (extra @ outer).reshape(-1, rank, rank)
    return np.linalg.solve(system, (confidence @ items)[:, :, None])[:, :, 0]
