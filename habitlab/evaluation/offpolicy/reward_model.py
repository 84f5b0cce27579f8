"""A plain reward model for doubly robust estimates: each action's mean reward, for each person of others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from habitlab.evaluation.offpolicy import RewardModel, check_distributions, cluster_codes, column_of


def fit(
    reward: npt.ArrayLike,
    action: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    folds: int = 5,
    prior: float = 20.0,
    seed: int = 0,
) -> RewardModel:
    """Predict rewards by the mean of each action, shrunk to the mean of all by `prior` rows; plain on purpose.

    Parameters
    ----------
    reward, action
        (rows,) reward, and number of the action that was logged.
    target
        (rows, actions) the target policy's distribution in each row.
    clusters
        (rows,) persons; the model for a person is fitted on others (cross-fitting, Chernozhukov et al. 2018,
        doi:10.1111/ectj.12097).

    Raises
    ------
    ValueError
        Shapes do not fit, a row of `target` is no distribution, or there are fewer clusters than folds.
    """
    reward, codes = column_of("reward", reward), np.asarray(action)
    policy = np.asarray(target, dtype=np.float64)
    if policy.ndim != 2 or len(policy) != len(reward) or codes.shape != reward.shape:
        raise ValueError(f"got {len(reward)} rewards, actions {codes.shape} and target {policy.shape}: rows must agree")
    check_distributions("target", policy)
    actions = policy.shape[1]
    if not np.issubdtype(codes.dtype, np.integer) or codes.min(initial=0) < 0 or codes.max(initial=0) >= actions:
        raise ValueError(f"action holds whole numbers from 0 to {actions - 1}, a column of target each")
    who, n_clusters = cluster_codes(clusters, len(reward))
    if not 2 <= folds <= n_clusters:
        raise ValueError(f"folds must be 2 or more, and at most the number of clusters, {n_clusters}; it is {folds}")
    fold = (np.random.default_rng(seed).permutation(n_clusters) % folds)[who]
    logged, expected = np.empty(len(reward)), np.empty(len(reward))
    for number in range(folds):
        here = fold == number
        sums = np.bincount(codes[~here], reward[~here], minlength=actions)
        counts = np.bincount(codes[~here], minlength=actions)
        mean = (sums + prior * reward[~here].mean()) / (counts + prior)
        logged[here], expected[here] = mean[codes[here]], policy[here] @ mean
    return RewardModel(logged, expected)
